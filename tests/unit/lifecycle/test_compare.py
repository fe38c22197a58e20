"""Comparing real models: what differs is found, what fails is told, and the report says it all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper

from batchonnx.cli import main
from batchonnx.errors import ContractError, GateError, InputError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.lifecycle.bless import bless
from batchonnx.lifecycle.compare import compare
from batchonnx.lifecycle.contender import open_contender, open_feeds
from batchonnx.lifecycle.feed import JobRows, RandomRows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.provenance import Step, steps_of, tool_versions
from batchonnx.runtime.session import open_model
from tests import models


def scaled(source: Path, target: Path, factor: float) -> Path:
    """The linear model with other weights."""
    model = onnx.load(source)
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(factor), "w"))
    onnx.save(model, target)
    return target


def make_job(folder: Path, rows: int = 20) -> JobFile:
    values = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32)
    columns = {f"f{i}": pa.array(values[:, i]) for i in range(3)}
    columns["f0"] = pa.array(
        [None if row == 4 else float(v) for row, v in enumerate(values[:, 0])], pa.float32()
    )
    pq.write_table(pa.table(columns), folder / "in.parquet")
    job = {
        "model": {"path": "a.onnx"},
        "input": {"path": "in.parquet", "filter": "f1 > -10"},
        "features": {"x": {"columns": ["f0", "f1", "f2"], "fill": 0.0}},
        "outputs": {
            "best": {"from": "scores", "argmax": True, "labels": ["no", "yes"]},
            "scores": {"from": "scores"},
        },
        "output": {"path": "out"},
    }
    return job_from_dict(job, folder=folder)


def test_a_model_may_stand_for_itself(tmp_path: Path) -> None:
    path = str(models.linear(tmp_path / "a.onnx"))
    found = compare(path, path, gates=Gates(max_diff=0, min_agreement=1, min_cosine=0.999999))
    assert found.passed
    assert [(one.name, one.max_abs, one.rows) for one in found.parity] == [("scores", 0.0, 64)]
    assert [one.batch_rows for one in found.speed] == [1, 8, 64]
    assert found.speedup is not None
    assert found.speedup > 0


def test_a_broken_model_misses_its_gates_by_what_it_is_off(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    b = scaled(a, tmp_path / "b.onnx", -1.0)
    found = compare(str(a), str(b), gates=Gates(max_diff=1e-3, min_agreement=0.9, min_cosine=0.9), sizes=())
    assert [miss.gate for miss in found.misses] == ["max-diff", "min-agreement", "min-cosine"]
    assert found.verdict.startswith('missed: max-diff of output "scores": ')
    assert found.speed == ()


def test_a_job_s_rows_are_encoded_and_its_columns_compared(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    b = scaled(a, tmp_path / "b.onnx", 1.5)
    found = compare(str(a), str(b), JobRows(make_job(tmp_path), 10), sizes=())
    assert found.rows == 10
    by_name = {one.name: one for one in found.parity}
    assert list(by_name) == ["scores", "best"]
    assert by_name["best"].label_agreement is not None
    x = np.nan_to_num(
        np.stack(list(pq.read_table(tmp_path / "in.parquet").slice(0, 10).columns), 1).astype(np.float32)
    )
    one, two = (open_model(str(p)).run(["scores"], {"x": x})[0] for p in (a, b))
    assert by_name["scores"].max_abs == pytest.approx(float(np.abs(one - two).max()), rel=1e-5)
    assert by_name["best"].label_agreement == float((one.argmax(1) == two.argmax(1)).mean())


def test_rows_that_a_job_can_t_encode_are_left_out_and_counted(tmp_path: Path) -> None:
    a = models.identity(tmp_path / "a.onnx", "int64", ["n"])
    pq.write_table(pa.table({"code": pa.array([1, None, 3], pa.int64())}), tmp_path / "in.parquet")
    job = {
        "model": {"path": "a.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"column": "code"}},
        "errors": {"max_bad_rows": 1},
        "output": {"path": "out"},
    }
    found = compare(str(a), str(a), JobRows(job_from_dict(job, folder=tmp_path)), sizes=())
    assert (found.rows, found.notes) == (2, ("1 rows couldn't be encoded and were left out",))


def test_rows_behind_the_first_ones_are_those_whatever_the_row_groups(tmp_path: Path) -> None:
    a = open_contender(str(models.linear(tmp_path / "a.onnx")))
    job = make_job(tmp_path)
    pq.write_table(pq.read_table(tmp_path / "in.parquet"), tmp_path / "in.parquet", row_group_size=4)
    (whole,) = open_feeds(JobRows(job, 20), a)
    for skip, count in ((0, 3), (3, 1), (4, 4), (5, 9), (18, 9)):
        (feed,) = open_feeds(JobRows(job, count, skip), a)
        assert feed.rows == min(count, 20 - skip)
        expected = whole.tensors(skip, skip + feed.rows)["x"]
        np.testing.assert_array_equal(feed.tensors(0, feed.rows)["x"], expected)
    with pytest.raises(InputError, match="none behind the first 20"):
        open_feeds(JobRows(job, 1, 20), a)


def test_a_job_without_rows_is_no_evidence(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="no rows to run the model on"):
        compare(str(a), str(a), JobRows(make_job(tmp_path, 0)))


def test_a_model_that_fails_where_the_other_doesn_t_is_a_finding(tmp_path: Path) -> None:
    a = models.identity(tmp_path / "a.onnx", "float32", ["n", 3])
    shape = {"shape": np.array([2, 3], np.int64)}
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    values = [models.value("x", "float32", ["n", 3])], [models.value("y", "float32", ["m", 3])]
    b = models.save(tmp_path / "b.onnx", [node], *values, shape)
    found = compare(str(a), str(b))
    assert [miss.gate for miss in found.misses] == ["runs"]
    with pytest.raises(ContractError, match="fails on the rows"):
        compare(str(b), str(a))


def test_other_outputs_are_a_finding_and_other_inputs_an_error(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    found = compare(str(a), str(models.linear(tmp_path / "b.onnx", classes=5)), sizes=())
    assert [(miss.gate, miss.output) for miss in found.misses] == [("outputs", "scores")]
    with pytest.raises(ContractError, match="don't take the same inputs"):
        compare(str(a), str(models.linear(tmp_path / "c.onnx", width=4)), sizes=())
    with pytest.raises(ContractError, match="no such output"):
        compare(str(a), str(a), outputs=["score"], sizes=())


def test_a_fixed_batch_is_compared_with_a_dynamic_one(tmp_path: Path) -> None:
    a, b = models.identity(tmp_path / "a.onnx"), models.identity(tmp_path / "b.onnx", shape=[4, 3])
    found = compare(str(a), str(b), RandomRows(10), gates=Gates(max_diff=0))
    assert (found.passed, found.rows, [s.batch_rows for s in found.speed]) == (True, 12, [4])


def test_embeddings_are_looked_up_where_the_table_has_entries(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    inputs = [models.value("ids", "int64", ["n", "length"])]
    table = {"table": np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)}
    path = models.save(
        tmp_path / "a.onnx", [node], inputs, [models.value("y", "float32", ["n", "length", 4])], table
    )
    found = compare(str(path), str(path), RandomRows(64, sizes={"length": 5}), sizes=())
    (one,) = found.parity
    assert one.values == 64 * 5 * 4


def write_job(folder: Path, model: str) -> Path:
    features = "features: {x: {columns: [f0, f1, f2]}}"
    text = f"model: {{path: {model}}}\ninput: {{path: in.parquet}}\n{features}\noutput: {{path: out}}\n"
    (folder / "job.yaml").write_text(text)
    return folder / "job.yaml"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["model", "compare", *map(str, words)])


def test_the_command_keeps_a_report_beside_the_model_and_ends_with_the_verdict(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    b = scaled(a, tmp_path / "b.onnx", 1.01)
    done = invoke(a, b, "--max-diff", 1)
    assert done.exit_code == 0, done.output
    assert "passed: max-diff 1" in done.stdout
    assert (tmp_path / "b.onnx.comparison.md").read_text() == done.stdout
    told = json.loads((tmp_path / "b.onnx.comparison.json").read_text())
    assert (told["passed"], told["parity"][0]["name"]) == (True, "scores")
    done = invoke(a, b, "--max-diff", 1e-6, "--no-speed", "--no-report", "--json")
    assert done.exit_code == 4
    assert json.loads(done.stdout)["misses"][0]["gate"] == "max-diff"
    done = invoke(a, b, "--max-diff", 1e-6, "--no-speed")
    assert done.exit_code == 4
    assert "isn't good enough" in done.stderr
    assert "missed: max-diff" in (tmp_path / "b.onnx.comparison.md").read_text()
    assert invoke(a, b, "--size", "n").exit_code == 2


def test_the_command_takes_a_job_s_rows(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    make_job(tmp_path)
    job = write_job(tmp_path, "a.onnx")
    done = invoke(a, a, "--job", job, "--rows", 7, "--no-speed", "--no-report", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"] == 7


STEP = Step("quantize", "a.onnx", "ab" * 32, {"per_channel": True}, tool_versions("onnx"), None)


def test_a_blessed_model_says_where_it_came_from_and_its_job_s_plan_does(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    b = scaled(a, tmp_path / "b.onnx", 1.0)
    c = scaled(a, tmp_path / "c.onnx", 1.0)
    gates = Gates(max_diff=1e-6)
    bless(compare(str(a), str(b), gates=gates, sizes=()), b, open_model(str(a)).signature, STEP)
    found = bless(compare(str(b), str(c), gates=gates, sizes=()), c, open_model(str(b)).signature, STEP)
    signature = open_model(str(c)).signature
    assert found.b.sha256 == signature.digest
    assert [one.verdict for one in steps_of(signature)] == ["passed: max-diff 1e-06"] * 2
    record = json.loads((tmp_path / "c.onnx.origin.json").read_text())
    assert (record["sha256"], len(record["steps"])) == (signature.digest, 2)
    make_job(tmp_path)
    job = str(write_job(tmp_path, "c.onnx"))
    done = CliRunner().invoke(main, ["plan", job])
    assert (
        "  made     quantize of a.onnx (abababababab…): per_channel True; passed: max-diff 1e-06"
        in done.stdout
    )
    done = CliRunner().invoke(main, ["plan", job, "--json"])
    assert [one["step"] for one in json.loads(done.stdout)["model"]["steps"]] == ["quantize", "quantize"]
    done = CliRunner().invoke(main, ["model", "inspect", str(c)])
    assert done.stdout.count("quantize of a.onnx") == 2
    assert "batchonnx.origin" not in done.stdout


def test_a_model_that_misses_a_gate_isn_t_blessed_and_its_report_stays(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    b = scaled(a, tmp_path / "b.onnx", -1.0)
    before = b.read_bytes()
    with pytest.raises(GateError, match="max-diff"):
        bless(compare(str(a), str(b), gates=Gates(max_diff=0.1), sizes=()), b, None, STEP)
    assert b.read_bytes() == before
    assert not (tmp_path / "b.onnx.origin.json").exists()
    assert json.loads((tmp_path / "b.onnx.comparison.json").read_text())["passed"] is False


@pytest.mark.parametrize("text", ["nonsense", "{}", '"x"', '[1, {"step": 2}]', '[{"step": "s", "tools": 3}]'])
def test_somebody_else_s_text_under_our_name_is_no_error(tmp_path: Path, text: str) -> None:
    path = models.linear(tmp_path / "a.onnx")
    model = onnx.load(path)
    helper.set_model_props(model, {"batchonnx.origin": text})
    onnx.save(model, path)
    (tmp_path / "a.onnx.origin.json").write_text(text)
    assert [step.tools for step in steps_of(open_model(str(path)).signature)] in ([], [{}])


def _chain_job(folder: Path, **models_: dict[str, object]) -> JobFile:
    rows = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    pq.write_table(pa.table({f"f{i}": rows[:, i] for i in range(3)}), folder / "in.parquet")
    job = {
        "models": models_,
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "outputs": {"best": {"from": "head.scores", "argmax": True}},
        "output": {"path": "out"},
    }
    return job_from_dict(job, folder=folder)


def test_a_model_of_a_chain_is_compared_in_its_place_there(tmp_path: Path) -> None:
    encoder, head = models.linear(tmp_path / "e.onnx", 3, 4), models.linear(tmp_path / "h.onnx", 4, 2)
    other_encoder = scaled(encoder, tmp_path / "e2.onnx", -1.0)
    other_head = scaled(head, tmp_path / "h2.onnx", 1.5)
    head_in_job = {"path": "h.onnx", "inputs": {"x": "encoder.scores"}}
    rows = JobRows(_chain_job(tmp_path, encoder={"path": "e.onnx"}, head=head_in_job), 20)

    of_encoder = {one.name: one for one in compare(str(encoder), str(other_encoder), rows, sizes=()).parity}
    assert list(of_encoder) == ["encoder.scores", "head.scores", "best"]
    x = np.stack([column.to_numpy() for column in pq.read_table(tmp_path / "in.parquet").columns], 1)

    def by_hand(first: Path, second: Path) -> np.ndarray:
        hidden = open_model(str(first)).run(["scores"], {"x": x})[0]
        return np.asarray(open_model(str(second)).run(["scores"], {"x": hidden})[0])

    one, two = by_hand(encoder, head), by_hand(other_encoder, head)
    assert of_encoder["head.scores"].max_abs == pytest.approx(float(np.abs(one - two).max()), rel=1e-5)
    assert of_encoder["best"].label_agreement == float((one.argmax(1) == two.argmax(1)).mean())

    # The job's own model may be the second, and what lies before its place isn't compared.
    of_head = compare(str(other_head), str(head), rows)
    assert [one.name for one in of_head.parity] == ["head.scores", "best"]
    assert of_head.speedup is not None


def test_models_that_the_chain_does_not_name_are_refused(tmp_path: Path) -> None:
    encoder, head = models.linear(tmp_path / "e.onnx", 3, 4), models.linear(tmp_path / "h.onnx", 4, 2)
    head_in_job = {"path": "h.onnx", "inputs": {"x": "encoder.scores"}}
    rows = JobRows(_chain_job(tmp_path, encoder={"path": "e.onnx"}, head=head_in_job), 20)
    copies = [str(scaled(source, tmp_path / f"copy-{source.name}", 2.0)) for source in (encoder, head)]
    with pytest.raises(ContractError, match="none of those that are compared"):
        compare(*copies, rows)
    with pytest.raises(ContractError, match="can't be fed"):  # a head in the encoder's place
        compare(str(encoder), copies[1], rows)
