"""Proof that a result is whole, from its records and files alone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from batchonnx.errors import Problem, ProofError, StorageError
from batchonnx.ledger.output import Output
from batchonnx.ledger.part_files import FOLDER
from batchonnx.ledger.records import (
    Commit,
    Manifest,
    PlanRecord,
    ShardRecord,
    StoredFile,
    files_of,
    lines_of,
)
from batchonnx.ledger.run_folder import RECORDS, SUCCESS
from batchonnx.parts.layout import Layout, is_part, part_of
from batchonnx.parts.read import read_file
from batchonnx.planning.identity import fingerprint
from batchonnx.planning.lines import ELEMENT
from batchonnx.proof.published import read_lines
from batchonnx.runtime.cores import usable_cores
from batchonnx.scoring.lines import begin_rows
from batchonnx.scoring.quarantine import FILE, ROW

DIGESTED_BYTES = 1 << 20
_SAID = {"parquet": "Parquet", "arrow": "an Arrow file", "csv": "CSV", "jsonl": "JSON lines"}


@dataclass(frozen=True)
class Proof:
    """What was proved of a result. rows_in == predicted + quarantined + filtered.

    files: of the input. lines: rows of the parts; more than predicted where the result is exploded. bytes: of
    all parts and quarantine, whose digests were computed again. rescored: rows that were scored again; None
    if that wasn't asked for. difference: the largest between a number of theirs and the result's, as a share
    of the larger.
    """

    output: str
    run: str
    fingerprint: str
    model: str
    rows_in: int
    predicted: int
    quarantined: int
    filtered: int
    parts: int
    files: int
    bytes: int
    lines: int
    rescored: int | None = None
    difference: float | None = None


def read_result(output: Output) -> tuple[PlanRecord, Manifest]:
    """A published result's records. Raises StorageError if there is none."""
    manifest = output.read_manifest()
    if manifest is None:
        is_empty = next(output.visible(), None) is None
        facts = {"output": output.path}
        facts["found"] = "nothing" if is_empty else "files that batchonnx didn't write"
        if (unfinished := output.unfinished()) is not None:
            facts["found"] += f"; an unfinished run in {unfinished}"
        fix = "name the output folder of a job; an unfinished run goes on with the command that began it"
        raise StorageError(Problem("there is no result to look at", facts, fix))
    return output.read_plan(manifest), manifest


def verify_result(output: Output) -> Proof:
    """Prove that every input row is accounted for once, and that no file has changed.

    Raises ProofError with everything that doesn't hold, StorageError if there is no result.
    """
    plan, manifest = read_result(output)
    with ThreadPoolExecutor(usable_cores()) as pool:
        planned = {record.shard: record for record in plan.shards}

        def look(commit: Commit) -> list[Problem]:
            told = _lineage(planned.get(commit.shard), commit, manifest, is_kept=commit.shard in plan.kept)
            found = list(_files(output, manifest.layout, commit, told))
            if manifest.layout.exploded and not found:
                found += _elements(output, manifest.layout, commit)
            return found

        in_files = pool.map(look, manifest.commits)
        problems = [
            *_records(output, plan, manifest),
            *_sums(output, plan, manifest),
            *_shards(output, plan, manifest),
            *_ranges(output, plan, manifest),
            *(problem for found in in_files for problem in found),
            *_strays(output, manifest),
        ]
    if problems:
        raise ProofError(*problems)
    return Proof(
        output=output.path,
        run=manifest.run,
        fingerprint=manifest.fingerprint,
        model=manifest.model,
        rows_in=manifest.rows_in,
        predicted=manifest.predicted,
        quarantined=manifest.quarantined,
        filtered=manifest.filtered,
        parts=sum(len(commit.parts) for commit in manifest.commits),
        files=len(plan.files),
        lines=sum(map(lines_of, manifest.commits)),
        bytes=sum(stored.bytes for commit in manifest.commits for stored in files_of(commit)),
    )


def _records(output: Output, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """The records belong together."""
    path = f"{output.path}/{RECORDS}"
    if not output.is_marked():
        yield _wrong("the result has no _SUCCESS", f"{output.path}/{SUCCESS}", "an empty file", "none")
    if plan.run != manifest.run:
        yield _wrong("plan and manifest are of two runs", path, manifest.run, plan.run)
    if (model := f"sha256 {manifest.model}") != plan.identity.get("model"):
        told = plan.identity.get("model", "nothing")
        yield _wrong("plan and manifest are of two models", path, told, model)
    expected = fingerprint(plan.identity)
    for found in {plan.fingerprint, manifest.fingerprint} - {expected}:
        yield _wrong("the fingerprint isn't that of the plan's identity", path, expected, found)


def _sums(output: Output, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """Conservation: in each shard, and in all of them."""
    path = f"{output.path}/{RECORDS}"
    for commit in manifest.commits:
        rows = commit.predicted + commit.quarantined + commit.filtered
        read = sum(source.rows for source in commit.sources)
        in_parts = lines_of(commit)
        if manifest.layout.exploded and in_parts >= commit.predicted:
            in_parts = commit.predicted  # of how many rows these lines are is told by `_elements`
        in_files = (in_parts, commit.quarantine.rows if commit.quarantine is not None else 0)
        if not commit.rows_in == rows == read or in_files != (commit.predicted, commit.quarantined):
            told = f"{rows:,} predicted, quarantined or filtered out, of {read:,} read"
            yield _wrong(f"rows of {commit.part} are not all told of", path, f"{commit.rows_in:,}", told)
    for name, found in (
        ("predicted", sum(commit.predicted for commit in manifest.commits)),
        ("quarantined", sum(commit.quarantined for commit in manifest.commits)),
        ("filtered", sum(commit.filtered for commit in manifest.commits) + plan.pruned),
        ("rows_in", manifest.predicted + manifest.quarantined + manifest.filtered),
    ):
        if (expected := getattr(manifest, name)) != found:
            title = f"the manifest's {name} isn't the sum of its parts"
            yield _wrong(title, path, f"{expected:,}", f"{found:,}")
    known = [rows for rows in plan.files.values() if rows is not None]
    if len(known) == len(plan.files) and sum(known) != manifest.rows_in:
        title = "the result doesn't account for every row of the input"
        yield _wrong(title, path, f"{sum(known):,}", f"{manifest.rows_in:,}")


def _shards(output: Output, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """Each planned shard is committed once, from the rows that were planned."""
    path = f"{output.path}/{RECORDS}"
    counts = Counter(commit.shard for commit in manifest.commits)
    planned = {record.shard: record for record in plan.shards}
    for shard in sorted({*counts, *planned}):
        if counts[shard] != (1 if shard in planned else 0):
            expected = "one commit" if shard in planned else "no such shard"
            yield _wrong(f"shard {shard} isn't committed once", path, expected, f"{counts[shard]} commits")
    for commit in manifest.commits:
        record = planned.get(commit.shard)
        if record is None:
            continue
        wanted = [(p, groups, first, rows) for p, groups, first, rows in record.sources]
        found = [
            (s.path, s.row_groups, s.first_row, None if rows is None else s.rows)
            for s, (_, _, _, rows) in zip(commit.sources, wanted, strict=False)
        ]
        keys = manifest.layout.partition_by
        paths = [part.path for part in commit.parts]
        strange = [path for path in paths if part_of(path) != record.part or not is_part(path, keys)]
        if found != wanted or len(commit.sources) != len(wanted) or commit.part != record.part or strange:
            expected, told = f"{record.part}: {wanted}", f"{', '.join([commit.part, *strange])}: {found}"
            yield _wrong(f"shard {commit.shard} was made of other rows than planned", path, expected, told)


def _ranges(output: Output, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """No row of an input file went into two parts, and none beyond the file's end."""
    spans: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for commit in manifest.commits:
        for source in commit.sources:
            if source.rows:
                spans[source.path].append((source.first_row, source.first_row + source.rows, commit.part))
    for path, found in spans.items():
        end, last = 0, ""
        for first, stop, part in sorted(found):
            if first < end:
                told = f"rows {first:,} to {min(end, stop) - 1:,} in {last} and in {part}"
                yield _wrong("rows of the input were scored twice", path, "each row in one part", told)
            end, last = max(end, stop), part
        if path not in plan.files:
            yield _wrong(
                "a part was made of a file that isn't in the plan", output.path, "no such file", path
            )
        elif (rows := plan.files[path]) is not None and end > rows:
            yield _wrong("a part holds rows beyond its file's end", path, f"{rows:,} rows", f"{end:,}")


def _files(output: Output, layout: Layout, commit: Commit, lineage: Mapping[str, str]) -> Iterator[Problem]:
    """A commit's files are there, unchanged, with the rows and the lineage that they are said to have."""
    for stored in files_of(commit):
        path = f"{output.path}/{stored.path}"
        written = layout.format if stored in commit.parts else "parquet"
        try:
            with output.open(stored.path) as source:
                problems = list(_content(path, source, stored))
                if not problems and written in ("csv", "jsonl"):
                    problems += _lines(path, source, layout, stored)
                elif not problems:  # else whatever the footer says is no news
                    problems += _footer(path, source, written, stored, lineage)
                if not problems and stored is commit.quarantine:
                    problems += _quarantined(path, source, commit)
                if not problems and stored is commit.order:
                    problems += _ordered(path, source, commit)
        except FileNotFoundError:
            yield _wrong("a file of the result is missing", path, f"{stored.bytes:,} bytes", "no such file")
            continue
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            yield _wrong("a file of the result can't be read", path, _SAID.get(written, written), told)
            continue
        yield from problems


def _lineage(
    planned: ShardRecord | None, commit: Commit, manifest: Manifest, *, is_kept: bool
) -> dict[str, str]:
    """What the footers of a commit's files have to say. A kept part has its first run's fingerprint."""
    told = {"batchonnx.model": manifest.model, "batchonnx.shard": str(commit.shard)}
    if planned is not None:
        told["batchonnx.sources"] = json.dumps(planned.sources)
    if not is_kept:
        told["batchonnx.fingerprint"] = manifest.fingerprint
    return told


def _content(path: str, source: pa.NativeFile, stored: StoredFile) -> Iterator[Problem]:
    size = source.size()
    if size != stored.bytes:
        yield _wrong("a file of the result has another size", path, f"{stored.bytes:,} bytes", f"{size:,}")
        return
    found = hashlib.sha256()
    while block := source.read(DIGESTED_BYTES):
        found.update(block)
    digest = found.hexdigest()
    if digest != stored.sha256:
        yield _wrong("a file of the result has changed", path, f"sha256 {stored.sha256}", f"sha256 {digest}")


def _footer(
    path: str, source: pa.NativeFile, written: str, stored: StoredFile, lineage: Mapping[str, str]
) -> Iterator[Problem]:
    source.seek(0)
    if written == "parquet":
        footer = pq.read_metadata(source)
        rows, metadata = footer.num_rows, footer.metadata or {}
    else:
        with ipc.open_file(source) as file:
            rows, metadata = file.count_rows(), file.schema.metadata or {}
    if rows != stored.rows:
        yield _wrong("a file has other rows than its record", path, f"{stored.rows:,}", f"{rows:,}")
    for key, expected in lineage.items():
        found = metadata.get(key.encode(), b"").decode(errors="replace")
        if found != expected:
            yield _wrong(f"a file's footer says another {key}", path, expected, found or "nothing")


def _lines(path: str, source: pa.NativeFile, layout: Layout, stored: StoredFile) -> Iterator[Problem]:
    """Text has no footer: its rows are read, all of them."""
    source.seek(0)
    rows = sum(batch.num_rows for batch in read_file(source, layout, stored.path))
    if rows != stored.rows:
        yield _wrong("a file has other rows than its record", path, f"{stored.rows:,}", f"{rows:,}")


def _elements(output: Output, layout: Layout, commit: Commit) -> Iterator[Problem]:
    """The lines of an exploded shard are those of as many rows as it predicted, each row's without a gap."""
    rows, last = 0, -1
    for batch in read_lines(output, layout, commit, [ELEMENT]):
        element = batch.column(0)
        begins = begin_rows(element)
        number = pc.fill_null(element, -1).to_numpy(zero_copy_only=False)
        before = np.concatenate([[last], number[:-1]])
        if ((before < 0) | (number != before + 1))[~begins].any():
            path = f"{output.path}/{commit.part}"
            yield _wrong("a row's elements aren't all there", path, "0, 1, 2, … of each row", "a gap")
            return
        rows, last = rows + int(begins.sum()), int(number[-1]) if len(number) else last
    if rows != commit.predicted:
        path = f"{output.path}/{commit.part}"
        yield _wrong(
            "lines are of other rows than were predicted", path, f"{commit.predicted:,}", f"{rows:,}"
        )


def _ordered(path: str, source: pa.NativeFile, commit: Commit) -> Iterator[Problem]:
    """Each line has a folder, and each folder as many lines as its files."""
    source.seek(0)
    found = Counter(pq.read_table(source, columns=[FOLDER]).column(0).to_pylist())
    expected: Counter[str] = Counter()
    for part in commit.parts:
        expected[part.path.rpartition("/")[0]] += part.rows
    for folder in sorted({*found, *expected}, key=str):
        if found[folder] != expected[folder]:
            told = f"{expected[folder]:,} rows in {folder}"
            yield _wrong("the order tells of other rows than the parts", path, told, f"{found[folder]:,}")


def _quarantined(path: str, source: pa.NativeFile, commit: Commit) -> Iterator[Problem]:
    """Quarantined rows are rows of the shard, each once."""
    source.seek(0)
    with pq.ParquetFile(source) as file:
        if not {FILE, ROW} <= {*file.schema_arrow.names}:
            names = ", ".join(file.schema_arrow.names)
            yield _wrong("a quarantine doesn't tell its rows", path, f"columns {FILE} and {ROW}", names)
            return
        rows = file.read(columns=[FILE, ROW])
    places = list(zip(rows.column(FILE).to_pylist(), rows.column(ROW).to_pylist(), strict=True))
    if any(None in place for place in places):
        yield _wrong("a quarantine doesn't tell its rows", path, "the place of each row", "null")
        return
    for place, count in Counter(places).items():
        if count > 1:
            yield _wrong(
                "a row is in quarantine twice", path, "each row once", f"row {place[1]:,} of {place[0]}"
            )
    for file, row in places:
        if not any(s.path == file and s.first_row <= row < s.first_row + s.rows for s in commit.sources):
            told = f"row {row:,} of {file}"
            yield _wrong("a row in quarantine is none of the shard's", path, "rows of the shard", told)


def _strays(output: Output, manifest: Manifest) -> Iterator[Problem]:
    """Nothing else lies where a reader would take it for predictions."""
    counted = {part.path for commit in manifest.commits for part in commit.parts}
    for name in output.visible():
        if name not in counted:
            found = "a file that no commit tells of"
            yield _wrong(
                "a reader would take a stray file for predictions",
                f"{output.path}/{name}",
                "parts only",
                found,
            )


def _wrong(title: str, path: str, expected: str, found: str) -> Problem:
    facts = {"file": path, "expected": expected, "found": found}
    return Problem(title, facts, "restore the result, or score again: run with --fresh")
