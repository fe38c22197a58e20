"""Results that are lists as long as each row wants, and results with a line for each element."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from batchonnx import api
from batchonnx.errors import ContractError, ProofError, RowError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.parts.row_groups import RowGroups
from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.lines import written_columns
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.lines import explode, implode
from batchonnx.scoring.progress import Progress
from tests import models

ROWS, LONGEST, CLASSES = 200, 5, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of tokens, x float32[n, s, 3] and mask int64[n, s] -> logits, count; rows of 0 to 5 tokens."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("ReduceSum", ["mask", "axes"], ["count"], keepdims=0),
    ]
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((3, CLASSES)).astype(np.float32), "axes": np.array([1])}
    inputs = [models.value("x", "float32", ["n", "s", 3]), models.value("mask", "int64", ["n", "s"])]
    outputs = [models.value("logits", "float32", ["n", "s", CLASSES]), models.value("count", "int64", ["n"])]
    models.save(tmp_path / "m.onnx", nodes, inputs, outputs, weights)
    lengths = rng.integers(0, LONGEST + 1, ROWS)
    mask = (np.arange(LONGEST) < lengths[:, None]).astype(np.int64)
    x = rng.standard_normal((ROWS, LONGEST * 3)).astype(np.float32)
    columns = {
        "id": pa.array(np.arange(ROWS)),
        "x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), LONGEST * 3),
        "mask": pa.FixedSizeListArray.from_arrays(pa.array(mask.reshape(-1)), LONGEST),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=70)
    return tmp_path


def _spec(outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model": {"path": "m.onnx"},
        "input": {"path": "rows.parquet"},
        "features": {"x": {"column": "x", "shape": [LONGEST, 3]}, "mask": {"column": "mask"}},
        "outputs": outputs,
        "keep": ["id"],
        "engine": {"workers": 2, "batch_rows": 16},
        "output": {"path": "out", "overwrite": True},
        **more,
    }


def _run(folder: Path, outputs: dict[str, Any], **more: Any) -> pa.Table:
    api.run(job_from_dict(_spec(outputs, **more), folder))
    return api.dataset(folder / "out").to_table()


def _by_hand(folder: Path) -> list[np.ndarray]:
    """Each row's logits."""
    table = pq.read_table(folder / "rows.parquet")
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, CLASSES)).astype(np.float32)
    x = np.array(table["x"].to_pylist(), np.float32).reshape(ROWS, LONGEST, 3)
    lengths = np.array(table["mask"].to_pylist()).sum(1)
    return [row[:length] @ w for row, length in zip(x, lengths, strict=True)]


TAGS = {"from": "logits", "argmax": True, "labels": ["person", "place", "none"]}


@pytest.mark.parametrize("by", [{"mask": "mask"}, {"length": "count"}], ids=["mask", "length"])
def test_each_rows_list_has_what_counts_of_it(folder: Path, by: dict[str, str]) -> None:
    steps = {"raw": {"from": "logits"}, "tag": TAGS, "sure": {"from": "logits", "softmax": True, "index": 1}}
    found = _run(folder, {name: {**step, **by} for name, step in steps.items()})
    expected = _by_hand(folder)
    assert found["id"].to_pylist() == list(range(ROWS))
    assert found["tag"].type == pa.list_(pa.string())
    assert found["tag"].to_pylist() == [[TAGS["labels"][i] for i in row.argmax(1)] for row in expected]
    for raw, sure, row in zip(found["raw"].to_pylist(), found["sure"].to_pylist(), expected, strict=True):
        np.testing.assert_allclose(np.array(raw).reshape(-1, CLASSES), row, rtol=1e-5, atol=1e-6)
        powers = np.exp(row - row.max(1, keepdims=True)) if len(row) else row
        np.testing.assert_allclose(sure, (powers / powers.sum(1, keepdims=True))[:, 1], rtol=1e-5)


def test_a_length_that_cannot_be_costs_its_row(folder: Path) -> None:
    table = pq.read_table(folder / "rows.parquet")
    masks = table["mask"].to_pylist()
    masks[33] = [7] * LONGEST
    masks = pa.array(masks, table.schema.field("mask").type)
    pq.write_table(table.set_column(2, "mask", masks), folder / "rows.parquet")
    lists = {"y": {"from": "logits", "index": 0, "length": "count"}}
    found = _run(folder, lists, errors={"max_bad_rows": 1})
    assert [row for row in range(ROWS) if row not in found["id"].to_pylist()] == [33]
    with pytest.raises(RowError) as caught:
        _run(folder, lists, output={"path": "other"})
    assert caught.value.problems[0].facts["row"] == "33"
    assert caught.value.problems[0].facts["found"] == '"count" is 35, of 5 values of "logits"'


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ({"from": "logits", "mask": "count"}, "wrong number of dimensions"),
        ({"from": "logits", "mask": "msk"}, 'mask: the model has no "msk"'),
        ({"from": "count", "length": "count"}, "has no list for each row"),
        ({"from": "count", "explode": True}, "has no lists to explode"),
        ({"from": "logits", "detect": {"boxes": "bxes"}}, 'detect.boxes: the model has no output "bxes"'),
        ({"from": "logits", "detect": {}}, "has 3 values for each candidate"),
        ({"from": "count", "detect": {"boxes": "logits"}}, "is no tensor of floats"),
    ],
)
def test_what_can_be_no_list_is_told_by_plan(folder: Path, output: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError) as caught:
        api.plan(job_from_dict(_spec({"y": output}), folder))
    assert any(told in problem.title for problem in caught.value.problems), caught.value.problems


def _exploded(by: str = "mask") -> dict[str, Any]:
    return {
        "tag": {**TAGS, by: by, "explode": True},
        "logit": {"from": "logits", by: by, "index": 0, "explode": True},
        "count": {"from": "count"},
    }


def _lines(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.select(["id", "element", "tag"]).to_pylist()]


def test_an_exploded_result_has_a_line_for_each_element_and_loses_no_row(folder: Path) -> None:
    # Ten rows can't be scored: their mask isn't there.
    table = pq.read_table(folder / "rows.parquet").to_pylist()
    for row in table[50:60]:
        row["mask"] = None
    schema = pq.read_schema(folder / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(table, schema), folder / "rows.parquet", row_group_size=70)
    small = {"path": "out", "overwrite": True, "row_group_rows": 7, "file_bytes": 65_536}
    found = _run(folder, _exploded(), errors={"max_bad_rows": 10}, output=small)
    good = [number for number in range(ROWS) if not 50 <= number < 60]
    expected: list[tuple[Any, ...]] = []
    for number in good:
        tags = [TAGS["labels"][i] for i in _by_hand_of(table[number])]
        expected += [(number, place, tag) for place, tag in enumerate(tags)] or [(number, None, None)]
    assert found.column_names == ["id", "element", "tag", "logit", "count"]
    assert _lines(found) == expected
    proof = api.verify(folder / "out", deep=True, rows=ROWS)
    assert (proof.rows_in, proof.predicted, proof.quarantined) == (ROWS, ROWS - 10, 10)
    assert proof.lines == len(expected)
    assert proof.rescored
    for line in (0, len(expected) // 2, len(expected) - 1):
        (origin,) = api.explain(folder / "out", row=line)
        assert (origin.file_row, origin.values["element"]) == expected[line][:2]
    with pytest.raises(Exception, match="no such row"):
        api.explain(folder / "out", row=len(expected))


def test_lists_of_several_lengths_that_are_exploded_together_cost_their_rows(folder: Path) -> None:
    # The mask lets one tag through in these two rows, and the model counts two logits.
    table = pq.read_table(folder / "rows.parquet").to_pylist()
    for number in (20, 130):
        table[number]["mask"] = [2, 0, 0, 0, 0]
    schema = pq.read_schema(folder / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(table, schema), folder / "rows.parquet", row_group_size=70)
    lists = {**_exploded(), "logit": {"from": "logits", "length": "count", "index": 0, "explode": True}}
    found = _run(folder, lists, errors={"max_bad_rows": 2})
    assert set(range(ROWS)) - set(found["id"].to_pylist()) == {20, 130}
    with pytest.raises(RowError) as caught:
        _run(folder, lists, output={"path": "other"})
    facts = caught.value.problems[0].facts
    assert facts["row"] == "20"
    assert facts["found"].endswith('of one length, this row\'s have 1 of "tag", 2 of "logit"')


def _by_hand_of(row: dict[str, Any]) -> list[int]:
    w = np.random.default_rng(0).standard_normal((3, CLASSES)).astype(np.float32)
    x = np.array(row["x"], np.float32).reshape(LONGEST, 3)[: sum(row["mask"])]
    return (x @ w).argmax(1).tolist() if len(x) else []  # type: ignore[no-any-return]


def test_exploded_results_are_compared_row_by_row(folder: Path) -> None:
    _run(folder, _exploded())
    changed = _exploded()
    changed["tag"]["labels"] = ["person", "town", "none"]
    api.run(job_from_dict(_spec(changed, output={"path": "other"}), folder))
    for key in (None, "id"):
        difference = api.diff(folder / "out", folder / "other", key=key)
        assert difference.rows.both == ROWS
        told = {column.column: column.changed for column in difference.columns}
        has_place = [1 in row.argmax(1) for row in _by_hand(folder) if len(row)]
        assert told["tag"] == sum(has_place)
        assert told["logit"] == told["count"] == 0


def _reseal(out: Path, part: Path, table: pa.Table) -> None:
    """Write a part again, and have the manifest tell of it as it is now."""
    pq.write_table(table, part)
    path = out / "_batchonnx" / "manifest.json"
    manifest = json.loads(path.read_text())
    told = str(part.relative_to(out))
    stored = next(s for c in manifest["commits"] for s in c["parts"] if s["path"] == told)
    stored |= {"rows": table.num_rows, "bytes": part.stat().st_size}
    stored["sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


def test_a_line_that_is_gone_is_missed(folder: Path) -> None:
    _run(folder, _exploded())
    (part,) = (folder / "out").glob("part-*.parquet")
    table = pq.read_table(part)
    for gone, told in ((1, "elements aren't all there"), (0, "of other rows")):
        line = next(i for i, e in enumerate(table["element"].to_pylist()) if e == (gone or None))
        left = pa.concat_tables([table.slice(0, line), table.slice(line + 1)])
        _reseal(folder / "out", part, left)
        with pytest.raises(ProofError, match=told):
            api.verify(folder / "out")


def test_csv_holds_what_is_exploded(folder: Path) -> None:
    best = {"from": "logits", "mask": "mask", "top_k": 2}
    plan = api.plan(job_from_dict(_spec({"best": best}), folder))
    assert plan.outputs[0].type == pa.list_(
        pa.list_(pa.struct([("label", pa.int64()), ("score", pa.float32())]))
    )
    narrow = {"first": {"from": "count", "index": None}, "tag": {**TAGS, "mask": "mask", "explode": True}}
    found = _run(folder, narrow, output={"path": "out", "format": "csv", "overwrite": True})
    (part,) = (folder / "out").glob("*.csv")
    with part.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["tag"] or None for row in rows] == found["tag"].to_pylist()
    assert api.verify(folder / "out").predicted == ROWS


def _put_mark(folder: Path) -> None:
    """A column of rows beside the others, of six values and null, and no mask in ten rows."""
    table = pq.read_table(folder / "rows.parquet")
    marks = pa.array([None if n % 7 == 6 else f"m{n % 7}" for n in range(ROWS)])
    masks = table["mask"].to_pylist()
    masks[50:60] = [None] * 10
    table = table.set_column(2, table.schema.field("mask"), pa.array(masks, table.schema.field("mask").type))
    pq.write_table(table.append_column("mark", marks), folder / "rows.parquet", row_group_size=70)


@pytest.mark.parametrize(
    "more",
    [
        {"partition_by": ["mark"]},
        {"partition_by": ["tag"]},
        {"partition_by": ["mark", "tag"], "row_group_rows": 3, "file_bytes": 65_536},
        {"partition_by": ["tag"], "format": "csv"},
    ],
    ids=["of rows", "of lines", "both, in small files", "csv"],
)
def test_lines_in_folders_are_those_of_one_folder_and_are_proved_and_explained(
    folder: Path, more: dict[str, Any]
) -> None:
    _put_mark(folder)
    others = {"errors": {"max_bad_rows": 10}, "keep": ["id", "mark"]}
    api.run(job_from_dict(_spec(_exploded(), **others, output={"path": "whole"}), folder))
    whole = api.dataset(folder / "whole").to_table()
    found = _run(folder, _exploded(), **others, output={"path": "out", **more})
    by = [("id", "ascending"), ("element", "ascending")]
    assert found.select(whole.column_names).sort_by(by).equals(whole.sort_by(by))
    proof = api.verify(folder / "out", deep=True, rows=ROWS)
    assert (proof.predicted, proof.quarantined, proof.lines) == (ROWS - 10, 10, whole.num_rows)
    assert proof.rescored
    for line in range(0, whole.num_rows, 37):
        (origin,) = api.explain(folder / "out", row=line)
        assert origin.file_row == origin.values["id"]
    for key in (None, "id"):
        difference = api.diff(folder / "whole", folder / "out", key=key)
        assert difference.rows.both == ROWS - 10
        assert not any(column.changed for column in difference.columns)


def test_a_line_that_was_changed_in_its_folder_is_found(folder: Path) -> None:
    _run(folder, _exploded(), output={"path": "out", "partition_by": ["tag"]})
    part = next((folder / "out").rglob("tag=place/*.parquet"))
    table = pq.read_table(part, partitioning=None)
    places = table["element"].to_pylist()
    places[places.index(1)] = 2
    _reseal(folder / "out", part, table.set_column(1, "element", pa.array(places, pa.int32())))
    with pytest.raises(ProofError, match="elements aren't all there"):
        api.verify(folder / "out")


def _interrupted(progress: Progress) -> None:
    """Ctrl-C, when a shard is done."""
    if progress.shards:
        raise KeyboardInterrupt


def test_lines_in_folders_are_the_same_after_a_resume_and_kept_by_an_incremental_run(folder: Path) -> None:
    (folder / "in").mkdir()
    table = pq.read_table(folder / "rows.parquet")
    rows = pa.concat_tables([table] * 60)
    for number in range(3):
        pq.write_table(rows, folder / "in" / f"{number}.parquet", row_group_size=len(rows))

    def job(path: str, workers: int) -> JobFile:
        output = {"path": path, "partition_by": ["tag"]}
        engine = {"workers": workers, "batch_rows": 250}
        return job_from_dict(_spec(_exploded(), output=output, engine=engine, input={"path": "in"}), folder)

    def contents(path: str) -> dict[str, bytes]:
        files = (file for file in (folder / path).rglob("*part-*") if file.is_file())
        return {str(file.relative_to(folder / path)): file.read_bytes() for file in files}

    with pytest.raises(KeyboardInterrupt):
        api.run(job("out", 1), on_progress=_interrupted)
    api.run(job("out", 2))
    api.run(job("undisturbed", 1))
    told = contents("out")
    assert {name: data for name, data in told.items() if "/commits/" not in name} == {
        name: data for name, data in contents("undisturbed").items() if "/commits/" not in name
    }
    pq.write_table(rows.slice(7), folder / "in" / "1.parquet", row_group_size=len(rows))
    assert api.run(job("out", 2), incremental=True).kept == 2
    proof = api.verify(folder / "out", deep=True, rows=500)
    assert proof.predicted == 3 * len(rows) - 7


def test_names_that_meet_are_told(folder: Path) -> None:
    outputs = _exploded() | {"element": {"from": "count"}}
    with pytest.raises(ContractError, match='would be called "element"'):
        api.plan(job_from_dict(_spec(outputs), folder))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=4)), max_size=12),
    st.lists(st.integers(1, 5), min_size=1, max_size=40),
)
def test_lines_are_the_rows_again_wherever_they_are_cut(lists: list[Any], cuts: list[int]) -> None:
    kind = pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())]))
    values = [None if row is None else [{"a": v, "b": str(v)} for v in row] for row in lists]
    spec = TensorSpec("y", "int64", None)
    binding = OutputBinding("y", spec, kind, None, explode=True)
    keep = [pa.field("id", pa.int64())]
    rows = pa.record_batch({"id": pa.array(range(len(lists)), pa.int64()), "y": pa.array(values, kind)})
    schema = pa.schema(written_columns(keep, [binding]))
    lines = explode(rows, [binding], schema)
    assert lines.schema.names == ["id", "element", "y_a", "y_b"]
    pieces, at = [], 0
    for size in cuts:
        pieces.append(lines.slice(at, size))
        at += size
    pieces.append(lines.slice(at))
    found = [row for batch in implode(pieces, ["y_a", "y_b"]) for row in batch.to_pylist()]
    assert [row["id"] for row in found] == list(range(len(lists)))
    assert [row["y_a"] for row in found] == [row or [] for row in lists]
    assert [row["y_b"] for row in found] == [[str(v) for v in row or []] for row in lists]


WIDE = """
import resource, sys
from batchonnx import api
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
job = {"model": {"path": "wide.onnx"}, "input": {"path": "few.parquet"},
       "engine": {"workers": 2}, "output": {"path": "wide"}, "features": {"x": {"columns": ["a"]}}}
api.run(job_from_dict(job, sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=12)), min_size=1, max_size=40),
    st.lists(st.integers(1, 7), min_size=1, max_size=20),
    st.integers(1, 9),
    st.integers(1, 200),
)
def test_row_groups_end_by_rows_or_bytes_however_the_rows_come(
    texts: list[Any], cuts: list[int], most_rows: int, most_bytes: int
) -> None:
    lists = [[ord(letter) % 99 for letter in text] if text else None for text in texts]
    kinds = {"t": pa.string(), "l": pa.list_(pa.list_(pa.int16())), "m": pa.map_(pa.string(), pa.int8())}
    columns = {"t": texts, "l": [[one or []] for one in lists], "m": [[("k", 1)] if t else [] for t in texts]}
    rows = pa.record_batch({name: pa.array(columns[name], kind) for name, kind in kinds.items()})

    def groups(cuts: list[int]) -> list[int]:
        gathered, at, found = RowGroups(rows.schema, most_rows, most_bytes), 0, []
        for size in [*cuts, len(texts)]:
            found += gathered.add(rows.slice(at, size))
            at += size
        found += gathered.rest()
        assert pa.concat_tables(found).combine_chunks().equals(pa.Table.from_batches([rows]).combine_chunks())
        return [group.num_rows for group in found]

    found = groups(cuts)
    assert found == groups([])
    assert max(found) <= most_rows
    sizes = [
        len((t or "").encode()) + 2 * len(one or []) + bool(t) for t, one in zip(texts, lists, strict=True)
    ]
    for begin, count in zip(np.cumsum([0, *found[:-1]]), found, strict=True):
        assert sum(sizes[begin : begin + count - 1]) < most_bytes


@pytest.mark.slow
@pytest.mark.parametrize("is_ragged", [False, True])
def test_outputs_of_seven_megabytes_a_row_stream_in_bounded_memory(tmp_path: Path, is_ragged: bool) -> None:
    width, few, many = 1_800_000, 20, 200
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    weights = {"w": np.zeros((1, width), np.float32)}
    shape = ["n", "k" if is_ragged else width]
    inputs, outputs = [models.value("x", "float32", ["n", 1])], [models.value("y", "float32", shape)]
    models.save(tmp_path / "wide.onnx", [node], inputs, outputs, weights)
    peaks = {}
    for rows in (few, many):
        pq.write_table(pa.table({"a": np.arange(rows, dtype=np.float32)}), tmp_path / "few.parquet")
        done = subprocess.run(
            [sys.executable, "-c", WIDE, str(tmp_path)], capture_output=True, text=True, check=True
        )
        peaks[rows] = float(json.loads(done.stdout.splitlines()[-1]))
        for part in (tmp_path / "wide").glob("part-*"):
            assert pq.read_metadata(part).num_rows
        subprocess.run(["rm", "-r", str(tmp_path / "wide")], check=True)
    assert peaks[many] < peaks[few] + 150, peaks  # of 1,373 MiB in all
