"""`verify` finds whatever isn't as it was scored: a case for each of its checks."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from onnx import helper

import batchonnx
from batchonnx.errors import ChangedError, ProofError, StorageError
from batchonnx.job.load import job_from_dict
from tests import models

FILES, FILE_ROWS, WORDS = 3, 30_000, 1_000
BAD = (70, 71)
"""Rows of the file in the middle that the model has no weight for."""

ROWS = FILES * FILE_ROWS
FIX = "restore the result, or score again: run with --fresh"


@dataclass(frozen=True)
class Result:
    """A published result, to be damaged."""

    folder: Path

    @property
    def records(self) -> Path:
        return self.folder / "_batchonnx"

    def part(self, number: int) -> Path:
        (found,) = self.folder.glob(f"part-{number:06}-*.parquet")
        return found

    @property
    def quarantine(self) -> Path:
        (found,) = (self.records / "quarantine").iterdir()
        return found

    def edit(self, record: str, change: Callable[[Any], object]) -> None:
        """Change a record's JSON in place."""
        path = self.records / f"{record}.json"
        fields = json.loads(path.read_text())
        change(fields)
        path.write_text(json.dumps(fields))

    def rewrite(self, path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
        """Write a file again, and have the manifest tell of it as it is now."""
        pq.write_table(change(pq.read_table(path)), path)
        self.certify(path)

    def certify(self, path: Path) -> None:
        """Have the manifest tell of a file as it is now."""

        def change(manifest: Any) -> None:
            for commit in manifest["commits"]:
                for stored in filter(None, (*commit["parts"], commit["quarantine"])):
                    if self.folder / stored["path"] == path:
                        stored["bytes"] = path.stat().st_size
                        stored["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

        self.edit("manifest", change)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Three files, a part each; two bad rows in the one in the middle."""
    folder = tmp_path_factory.mktemp("sound")
    table = np.random.default_rng(0).standard_normal(WORDS).astype(np.float32)
    node = helper.make_node("Gather", ["table", "code"], ["weight"])
    code, weight = models.value("code", "int64", ["n"]), models.value("weight", "float32", ["n"])
    models.save(folder / "model.onnx", [node], [code], [weight], {"table": table})
    (folder / "in").mkdir()
    for number in range(FILES):
        rng = np.random.default_rng(number)
        codes = rng.integers(0, WORDS, FILE_ROWS)
        codes[list(BAD)] = WORDS if number == 1 else 0
        ids = np.arange(FILE_ROWS) + number * FILE_ROWS
        noise = rng.standard_normal(FILE_ROWS)
        pq.write_table(
            pa.table({"id": ids, "code": codes, "noise": noise}), folder / "in" / f"{number}.parquet"
        )
    spec = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "keep": ["id", "noise"],
        "output": {"path": "out"},
        "engine": {"batch_rows": 512},
        "errors": {"max_bad_rows": 2},
    }
    summary = batchonnx.run(job_from_dict(spec, folder=folder))
    assert (summary.parts, summary.quarantined) == (FILES, len(BAD))
    return Result(folder / "out")


@pytest.fixture
def result(sound: Result, tmp_path: Path) -> Result:
    shutil.copytree(sound.folder, tmp_path / "out")
    return Result(tmp_path / "out")


def manifest(change: Callable[[Any], object]) -> Callable[[Result], None]:
    return lambda result: result.edit("manifest", change)


def plan(change: Callable[[Any], object]) -> Callable[[Result], None]:
    return lambda result: result.edit("plan", change)


def add(key: str, rows: int, *, commit: int | None = None) -> Callable[[Result], None]:
    """A count of the manifest, or of one of its commits, is another."""

    def change(fields: Any) -> None:
        where = fields if commit is None else fields["commits"][commit]
        where[key] += rows

    return manifest(change)


def flip_a_byte(result: Result) -> None:
    content = bytearray(result.part(0).read_bytes())
    content[len(content) // 2] ^= 1
    result.part(0).write_bytes(content)


def cut(result: Result) -> None:
    result.part(0).write_bytes(result.part(0).read_bytes()[:-1])


def swap(result: Result) -> None:
    """Two parts change their names, and the manifest tells of it."""
    first, second = result.part(0), result.part(2)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    result.certify(first)
    result.certify(second)


def no_parquet(result: Result) -> None:
    result.part(0).write_bytes(b"PAR1 this isn't any PAR1")
    result.certify(result.part(0))


def lineage(key: bytes, value: bytes | None) -> Callable[[Result], None]:
    """A part's footer tells of another origin, the manifest of this footer."""

    def change(rows: pa.Table) -> pa.Table:
        told = {**rows.schema.metadata, key: value or b""}
        if value is None:
            del told[key]
        return rows.replace_schema_metadata(told)

    return lambda result: result.rewrite(result.part(0), change)


def without_lineage(result: Result) -> None:
    result.rewrite(result.part(0), lambda rows: rows.replace_schema_metadata(None))


def a_row_short(result: Result) -> None:
    result.rewrite(result.part(0), lambda rows: rows.slice(1))


def another_shards_commit(fields: Any) -> None:
    """The same rows as shard 0's, by another number."""
    fields["commits"].append({**fields["commits"][0], "shard": 7})


def overlap(fields: Any) -> None:
    source = fields["commits"][0]["sources"][0]
    fields["commits"][0]["sources"] = [source, {**source, "first_row": 10, "rows": 5}]


def beyond_the_end(fields: Any) -> None:
    fields["commits"][2]["sources"][0]["first_row"] = 1


def another_file(fields: Any) -> None:
    fields["commits"][0]["sources"][0]["path"] = "/elsewhere.parquet"


def another_row_group(fields: Any) -> None:
    fields["commits"][0]["sources"][0]["row_groups"] = [1]


def stray(result: Result) -> None:
    shutil.copy(result.part(0), result.folder / "part-000009.parquet")


def twice_in_quarantine(result: Result) -> None:
    result.rewrite(result.quarantine, lambda rows: rows.take([0, 0]))


def place_in_quarantine(column: str, values: list[Any]) -> Callable[[Result], None]:
    def change(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index(column)
        return rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.types[place]))

    return lambda result: result.rewrite(result.quarantine, change)


def without_places(result: Result) -> None:
    result.rewrite(result.quarantine, lambda rows: rows.drop_columns(["batchonnx_row"]))


# what is done to the result -> the title of what is found, and some of its facts
DAMAGES: dict[str, tuple[Callable[[Result], object], str, dict[str, str]]] = {
    # the records belong together
    "no _SUCCESS": (
        lambda result: (result.folder / "_SUCCESS").unlink(),
        "the result has no _SUCCESS",
        {"file": "_SUCCESS", "found": "none"},
    ),
    "the plan is another run's": (
        plan(lambda fields: fields.update(run="feed")),
        "plan and manifest are of two runs",
        {"found": "feed"},
    ),
    "an edited identity": (
        plan(lambda fields: fields["identity"].update(onnxruntime="0.1")),
        "the fingerprint isn't that of the plan's identity",
        {},
    ),
    "an edited fingerprint": (
        manifest(lambda fields: fields.update(fingerprint="feed")),
        "the fingerprint isn't that of the plan's identity",
        {"found": "feed"},
    ),
    "another model in the manifest": (
        manifest(lambda fields: fields.update(model="feed")),
        "plan and manifest are of two models",
        {"found": "sha256 feed"},
    ),
    # conservation
    "rows read that aren't told of": (
        add("rows_in", 1, commit=0),
        "rows of part-000000-",
        {"expected": "30,001", "found": "30,000 predicted, quarantined or filtered out, of 30,000 read"},
    ),
    "a predicted row too many in a commit": (
        add("predicted", 1, commit=0),
        "rows of part-000000-",
        {"found": "30,001 predicted, quarantined or filtered out, of 30,000 read"},
    ),
    "a predicted row told to be filtered": (
        lambda result: (add("predicted", -1, commit=0)(result), add("filtered", 1, commit=0)(result)),
        "rows of part-000000-",
        {},
    ),
    "predicted isn't the sum": (
        add("predicted", 1),
        "the manifest's predicted isn't the sum of its parts",
        {"expected": f"{ROWS - 1:,}", "found": f"{ROWS - 2:,}"},
    ),
    "quarantined isn't the sum": (
        add("quarantined", -1),
        "the manifest's quarantined isn't the sum of its parts",
        {"expected": "1", "found": "2"},
    ),
    "filtered isn't the sum": (
        add("filtered", 1),
        "the manifest's filtered isn't the sum of its parts",
        {"expected": "1", "found": "0"},
    ),
    "rows left out unread that the manifest doesn't know": (
        plan(lambda fields: fields.update(pruned=5)),
        "the manifest's filtered isn't the sum of its parts",
        {"expected": "0", "found": "5"},
    ),
    "rows_in isn't the sum": (
        add("rows_in", -1),
        "the manifest's rows_in isn't the sum of its parts",
        {"expected": f"{ROWS - 1:,}", "found": f"{ROWS:,}"},
    ),
    "a file of the input has more rows": (
        plan(lambda fields: fields["files"].update(dict.fromkeys(fields["files"], FILE_ROWS + 1))),
        "the result doesn't account for every row of the input",
        {"expected": f"{ROWS + 3:,}", "found": f"{ROWS:,}"},
    ),
    # each shard once, from its own rows
    "a commit is dropped": (
        manifest(lambda fields: fields["commits"].pop(2)),
        "shard 2 isn't committed once",
        {"expected": "one commit", "found": "0 commits"},
    ),
    "a commit is there twice": (
        manifest(lambda fields: fields["commits"].append(fields["commits"][0])),
        "shard 0 isn't committed once",
        {"found": "2 commits"},
    ),
    "a commit of the same rows by another number": (
        manifest(another_shards_commit),
        "shard 7 isn't committed once",
        {"expected": "no such shard", "found": "1 commits"},
    ),
    "the same rows by another number": (
        manifest(another_shards_commit),
        "rows of the input were scored twice",
        {"found": "rows 0 to 29,999 in part-000000-"},
    ),
    "other row groups than planned": (
        manifest(another_row_group),
        "shard 0 was made of other rows than planned",
        {},
    ),
    "overlapping ranges": (
        manifest(overlap),
        "rows of the input were scored twice",
        {"file": "0.parquet", "expected": "each row in one part", "found": "rows 10 to 14"},
    ),
    "rows beyond a file's end": (
        manifest(beyond_the_end),
        "a part holds rows beyond its file's end",
        {"file": "2.parquet", "expected": "30,000 rows", "found": "30,001"},
    ),
    "rows of a file that nobody planned": (
        manifest(another_file),
        "a part was made of a file that isn't in the plan",
        {"found": "/elsewhere.parquet"},
    ),
    # the files
    "a part is removed": (
        lambda result: result.part(0).unlink(),
        "a file of the result is missing",
        {"file": "part-000000-", "found": "no such file"},
    ),
    "the quarantine is removed": (
        lambda result: result.quarantine.unlink(),
        "a file of the result is missing",
        {"file": ".quarantine"},
    ),
    "a part is cut": (cut, "a file of the result has another size", {"file": "part-000000-"}),
    "a byte is flipped": (flip_a_byte, "a file of the result has changed", {"file": "part-000000-"}),
    "a part that is no Parquet": (no_parquet, "a file of the result can't be read", {"expected": "Parquet"}),
    "two parts are swapped": (
        swap,
        "a file's footer says another batchonnx.shard",
        {"file": "part-000000-", "expected": "0", "found": "2"},
    ),
    "a part has a row less": (
        a_row_short,
        "a file has other rows than its record",
        {"expected": "30,000", "found": "29,999"},
    ),
    "another model in the footer": (
        lineage(b"batchonnx.model", b"feed"),
        "a file's footer says another batchonnx.model",
        {"found": "feed"},
    ),
    "a part without lineage": (
        without_lineage,
        "a file's footer says another batchonnx.model",
        {"found": "nothing"},
    ),
    "another file in the footer": (
        lineage(b"batchonnx.sources", b'[["/elsewhere.parquet", [0], 0, 30000]]'),
        "a file's footer says another batchonnx.sources",
        {"expected": "0.parquet", "found": "/elsewhere.parquet"},
    ),
    "other rows in the footer": (
        lambda result: lineage(
            b"batchonnx.sources",
            pq.read_schema(result.part(0)).metadata[b"batchonnx.sources"].replace(b" 0, 30000", b" 9, 30000"),
        )(result),
        "a file's footer says another batchonnx.sources",
        {"expected": "[0], 0, 30000]", "found": "[0], 9, 30000]"},
    ),
    "sources that are no JSON": (
        lineage(b"batchonnx.sources", b"[["),
        "a file's footer says another batchonnx.sources",
        {"found": "[["},
    ),
    "a model that is no text": (
        lineage(b"batchonnx.model", b"\xff\xfe"),
        "a file's footer says another batchonnx.model",
        {},
    ),
    "another run's part": (
        lineage(b"batchonnx.fingerprint", b"feed"),
        "a file's footer says another batchonnx.fingerprint",
        {"found": "feed"},
    ),
    "a stray file": (
        stray,
        "a reader would take a stray file for predictions",
        {"file": "part-000009.parquet", "found": "a file that no commit tells of"},
    ),
    # quarantine
    "a row is in quarantine twice": (
        twice_in_quarantine,
        "a row is in quarantine twice",
        {"found": f"row {BAD[0]} of "},
    ),
    "a row in quarantine of another file": (
        place_in_quarantine("batchonnx_file", ["/elsewhere.parquet"] * 2),
        "a row in quarantine is none of the shard's",
        {"found": f"row {BAD[0]} of /elsewhere.parquet"},
    ),
    "a row in quarantine beyond the shard": (
        place_in_quarantine("batchonnx_row", [BAD[0], FILE_ROWS]),
        "a row in quarantine is none of the shard's",
        {"found": f"row {FILE_ROWS:,} of "},
    ),
    "rows in quarantine of nowhere": (
        place_in_quarantine("batchonnx_row", [BAD[0], None]),
        "a quarantine doesn't tell its rows",
        {"found": "null"},
    ),
    "a quarantine that doesn't tell rows": (
        without_places,
        "a quarantine doesn't tell its rows",
        {"expected": "columns batchonnx_file and batchonnx_row"},
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_found_and_told(result: Result, damage: str) -> None:
    act, title, facts = DAMAGES[damage]
    act(result)
    with pytest.raises(ProofError) as caught:
        batchonnx.verify(result.folder)
    told = [problem for problem in caught.value.problems if problem.title.startswith(title)]
    assert told, str(caught.value)
    assert any(all(text in problem.facts[key] for key, text in facts.items()) for problem in told), told
    assert {problem.fix for problem in caught.value.problems} == {FIX}


def test_a_sound_result_is_proved(result: Result) -> None:
    proof = batchonnx.verify(result.folder)
    assert (proof.rows_in, proof.predicted, proof.quarantined, proof.filtered) == (ROWS, ROWS - 2, 2, 0)
    assert (proof.parts, proof.files) == (FILES, FILES)
    stored = [*result.folder.glob("*.parquet"), result.quarantine]
    assert proof.bytes == sum(path.stat().st_size for path in stored)


def test_everything_that_is_wrong_is_told_at_once(result: Result) -> None:
    (result.folder / "_SUCCESS").unlink()
    flip_a_byte(result)
    stray(result)
    with pytest.raises(ProofError) as caught:
        batchonnx.verify(result.folder)
    assert [problem.title for problem in caught.value.problems] == [
        "the result has no _SUCCESS",
        "a file of the result has changed",
        "a reader would take a stray file for predictions",
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_on_the_command_line_a_damage_is_exit_code_4(result: Result, form: str) -> None:
    flip_a_byte(result)
    command = [sys.executable, "-m", "batchonnx", "verify", str(result.folder)]
    command += ["--json"] if form == "json" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    if form == "json":
        told = json.loads(done.stdout)
        assert (told["error"], told["exit_code"]) == ("ProofError", 4)
        assert told["problems"][0]["facts"]["file"] == str(result.part(0))
    else:
        assert done.stdout == ""
        assert "error: a file of the result has changed" in done.stderr


def alter(result: Result) -> None:
    """Every prediction is another, and the manifest tells of the parts as they are now."""
    for number in range(FILES):
        path = result.part(number)
        rows = pq.read_table(path)
        weights = pc.add(rows.column("weight"), pa.scalar(0.25, pa.float32()))
        rows = rows.set_column(rows.schema.get_field_index("weight"), rows.schema.field("weight"), weights)
        pq.write_table(rows, path)
        result.certify(path)


def test_deep_finds_predictions_that_were_altered_and_certified(result: Result) -> None:
    before = pq.read_table(result.part(0)).column("weight").to_pylist()
    alter(result)
    batchonnx.verify(result.folder)
    with pytest.raises(ProofError) as caught:
        batchonnx.verify(result.folder, deep=True, seed=1)
    (problem,) = caught.value.problems
    assert problem.title == "a prediction isn't what the model says of its row"
    assert problem.facts["column"] == "weight"
    assert float(problem.facts["found"]) == pytest.approx(float(problem.facts["expected"]) + 0.25)
    assert float(problem.facts["expected"]) in before
    assert "0.parquet" in problem.facts["row"]


def test_deep_finds_kept_values_that_were_altered(result: Result) -> None:
    for number in range(FILES):
        path = result.part(number)
        rows = pq.read_table(path)
        ids = pc.add(rows.column("id"), 1)
        result.rewrite(path, lambda rows, ids=ids: rows.set_column(0, rows.schema.field(0), ids))
    with pytest.raises(ProofError) as caught:
        batchonnx.verify(result.folder, deep=True)
    assert caught.value.problems[0].facts["column"] == "id"


def test_deep_scores_about_as_many_rows_as_it_is_asked_for(result: Result) -> None:
    proof = batchonnx.verify(result.folder, deep=True, rows=3_000)
    assert proof.rescored is not None
    assert 512 <= proof.rescored <= 3_000
    assert proof.difference == 0


@pytest.mark.parametrize("record", ["plan", "manifest"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 2, "commits": 7}'])
def test_a_record_that_cant_be_read_is_named(result: Result, record: str, text: str) -> None:
    path = result.records / f"{record}.json"
    path.write_text(text)
    with pytest.raises(StorageError) as caught:
        batchonnx.verify(result.folder)
    assert caught.value.problems[0].facts["record"] == str(path)


def test_a_plan_that_is_gone_is_told(result: Result) -> None:
    (result.records / "plan.json").unlink()
    with pytest.raises(StorageError, match="the result's plan is gone"):
        batchonnx.verify(result.folder)


@pytest.mark.parametrize("files", [[], ["readme.txt"]])
def test_where_there_is_no_result_there_is_nothing_to_prove(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(StorageError) as caught:
        batchonnx.verify(tmp_path)
    told = caught.value.problems[0].facts["found"]
    assert told == ("files that batchonnx didn't write" if files else "nothing")


def test_deep_needs_the_input_as_it_was(sound: Result, tmp_path: Path) -> None:
    shutil.copytree(sound.folder.parent, tmp_path / "job")
    folder = tmp_path / "job"
    spec = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"code": {"column": "code"}},
        "output": {"path": "elsewhere"},
        "errors": {"max_bad_rows": 2},
    }
    batchonnx.run(job_from_dict(spec, folder=folder))
    for path in (folder / "in").iterdir():
        pq.write_table(pq.read_table(path).slice(1), path)
    assert batchonnx.verify(folder / "elsewhere").rows_in == ROWS, "records and parts are as they were"
    with pytest.raises(ChangedError, match="an input file has changed since it was scored"):
        batchonnx.verify(folder / "elsewhere", deep=True)
