"""Proof that a result is whole, from its records and files alone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.errors import Problem, ProofError, StorageError
from batchonnx.ledger.records import Commit, Manifest, PlanRecord, StoredFile, read_record
from batchonnx.ledger.run_folder import PLAN, RECORDS, SUCCESS, files_of, read_manifest, staging_of
from batchonnx.planning.identity import fingerprint
from batchonnx.runtime.cores import usable_cores
from batchonnx.scoring.quarantine import FILE, ROW

ASIDE = (".", "_")
"""Names that readers of a folder of Parquet files leave out."""


@dataclass(frozen=True)
class Proof:
    """What was proved of a result. rows_in == predicted + quarantined + filtered.

    files: of the input. bytes: of all parts and quarantine, whose digests were computed again.
    rescored: rows that were scored again; None if that wasn't asked for. difference: the largest
    between a number of theirs and the result's, as a share of the larger.
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
    rescored: int | None = None
    difference: float | None = None


def read_result(output: Path) -> tuple[PlanRecord, Manifest]:
    """A published result's records. Raises StorageError if there is none."""
    manifest = read_manifest(output)
    if manifest is None or not (output / PLAN).exists():
        facts = {"output": str(output)}
        facts["found"] = "no such folder" if not output.exists() else "a folder that batchonnx didn't write"
        if staging_of(output).exists():
            facts["found"] += f"; an unfinished run in {staging_of(output)}"
        fix = "name the output folder of a job; an unfinished run goes on with the command that began it"
        raise StorageError(Problem("there is no result to look at", facts, fix))
    return read_record(output / PLAN, PlanRecord), manifest


def verify_result(output: Path) -> Proof:
    """Prove that every input row is accounted for once, and that no file has changed.

    Raises ProofError with everything that doesn't hold, StorageError if there is no result.
    """
    plan, manifest = read_result(output)
    with ThreadPoolExecutor(usable_cores()) as pool:
        in_files = pool.map(lambda commit: list(_files(output, commit, manifest)), manifest.commits)
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
        output=str(output),
        run=manifest.run,
        fingerprint=manifest.fingerprint,
        model=manifest.model,
        rows_in=manifest.rows_in,
        predicted=manifest.predicted,
        quarantined=manifest.quarantined,
        filtered=manifest.filtered,
        parts=len(manifest.commits),
        files=len(plan.files),
        bytes=sum(stored.bytes for commit in manifest.commits for stored in files_of(commit)),
    )


def _records(output: Path, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """The records belong together."""
    if not (output / SUCCESS).exists():
        yield _wrong("the result has no _SUCCESS", output / SUCCESS, "an empty file", "none")
    if plan.run != manifest.run:
        yield _wrong("plan and manifest are of two runs", output / PLAN, manifest.run, plan.run)
    expected = fingerprint(plan.identity)
    for found in {plan.fingerprint, manifest.fingerprint} - {expected}:
        yield _wrong("the fingerprint isn't that of the plan's identity", output / PLAN, expected, found)


def _sums(output: Path, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """Conservation: in each shard, and in all of them."""
    path = output / RECORDS
    for commit in manifest.commits:
        rows = commit.predicted + commit.quarantined + commit.filtered
        read = sum(source.rows for source in commit.sources)
        in_files = (commit.part.rows, commit.quarantine.rows if commit.quarantine is not None else 0)
        if not commit.rows_in == rows == read or in_files != (commit.predicted, commit.quarantined):
            told = f"{rows:,} predicted, quarantined or filtered out, of {read:,} read"
            yield _wrong(f"rows of {commit.part.path} are not all told of", path, f"{commit.rows_in:,}", told)
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


def _shards(output: Path, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """Each planned shard is committed once, from the rows that were planned."""
    path = output / RECORDS
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
        if found != wanted or len(commit.sources) != len(wanted) or commit.part.path != record.part:
            expected, told = f"{record.part}: {wanted}", f"{commit.part.path}: {found}"
            yield _wrong(f"shard {commit.shard} was made of other rows than planned", path, expected, told)


def _ranges(output: Path, plan: PlanRecord, manifest: Manifest) -> Iterator[Problem]:
    """No row of an input file went into two parts, and none beyond the file's end."""
    spans: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for commit in manifest.commits:
        for source in commit.sources:
            if source.rows:
                spans[source.path].append(
                    (source.first_row, source.first_row + source.rows, commit.part.path)
                )
    for path, found in spans.items():
        end, last = 0, ""
        for first, stop, part in sorted(found):
            if first < end:
                told = f"rows {first:,} to {min(end, stop) - 1:,} in {last} and in {part}"
                yield _wrong("rows of the input were scored twice", Path(path), "each row in one part", told)
            end, last = max(end, stop), part
        if path not in plan.files:
            yield _wrong(
                "a part was made of a file that isn't in the plan", output / PLAN, "no such file", path
            )
        elif (rows := plan.files[path]) is not None and end > rows:
            yield _wrong("a part holds rows beyond its file's end", Path(path), f"{rows:,} rows", f"{end:,}")


def _files(output: Path, commit: Commit, manifest: Manifest) -> Iterator[Problem]:
    """A commit's files are there, unchanged, with the rows that they are said to have."""
    for stored in files_of(commit):
        path = output / stored.path
        try:
            problems = [*_content(path, stored), *_footer(path, stored, commit, manifest)]
        except FileNotFoundError:
            yield _wrong("a file of the result is missing", path, f"{stored.bytes:,} bytes", "no such file")
            continue
        except (OSError, pa.ArrowException) as error:
            yield _wrong("a file of the result can't be read", path, "Parquet", str(error).splitlines()[0])
            continue
        yield from problems
        if not problems and stored is commit.quarantine:
            yield from _quarantined(path, commit)


def _content(path: Path, stored: StoredFile) -> Iterator[Problem]:
    size = path.stat().st_size
    if size != stored.bytes:
        yield _wrong("a file of the result has another size", path, f"{stored.bytes:,} bytes", f"{size:,}")
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != stored.sha256:
        yield _wrong("a file of the result has changed", path, f"sha256 {stored.sha256}", f"sha256 {digest}")


def _footer(path: Path, stored: StoredFile, commit: Commit, manifest: Manifest) -> Iterator[Problem]:
    footer = pq.read_metadata(path)
    if footer.num_rows != stored.rows:
        yield _wrong(
            "a file has other rows than its record", path, f"{stored.rows:,}", f"{footer.num_rows:,}"
        )
    lineage = footer.metadata or {}
    told = {
        "batchonnx.model": manifest.model,
        "batchonnx.shard": str(commit.shard),
    }
    for key, expected in told.items():
        found = lineage.get(key.encode(), b"").decode()
        if found != expected:
            yield _wrong(f"a file's footer says another {key}", path, expected, found or "nothing")
    paths = [source[0] for source in json.loads(lineage.get(b"batchonnx.sources", b"[]"))]
    if paths != [source.path for source in commit.sources]:
        expected = ", ".join(source.path for source in commit.sources)
        yield _wrong("a file's footer says other sources", path, expected, ", ".join(paths))


def _quarantined(path: Path, commit: Commit) -> Iterator[Problem]:
    """Quarantined rows are rows of the shard, each once."""
    rows = pq.read_table(path, columns=[FILE, ROW])
    places = list(zip(rows.column(FILE).to_pylist(), rows.column(ROW).to_pylist(), strict=True))
    for place, count in Counter(places).items():
        if count > 1:
            yield _wrong(
                "a row is in quarantine twice", path, "each row once", f"row {place[1]:,} of {place[0]}"
            )
    for file, row in places:
        if not any(s.path == file and s.first_row <= row < s.first_row + s.rows for s in commit.sources):
            told = f"row {row:,} of {file}"
            yield _wrong("a row in quarantine is none of the shard's", path, "rows of the shard", told)


def _strays(output: Path, manifest: Manifest) -> Iterator[Problem]:
    """Nothing else lies where a reader would take it for predictions."""
    counted = {commit.part.path for commit in manifest.commits}
    for name in _visible(output):
        if name not in counted:
            found = "a file that no commit tells of"
            yield _wrong(
                "a reader would take a stray file for predictions", output / name, "parts only", found
            )


def _visible(output: Path) -> Iterable[str]:
    return sorted(entry.name for entry in output.iterdir() if not entry.name.startswith(ASIDE))


def _wrong(title: str, path: Path, expected: str, found: str) -> Problem:
    facts = {"file": str(path), "expected": expected, "found": found}
    return Problem(title, facts, "restore the result, or score again: run with --fresh")
