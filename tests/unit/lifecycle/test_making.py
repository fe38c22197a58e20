"""optimize, quantize, convert: what they make is as good as asked for, and told so, or it isn't there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from batchonnx.cli import main
from batchonnx.errors import ContractError, DependencyError, GateError, ModelFileError, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.convert import Form, convert, mobile_usability
from batchonnx.lifecycle.feed import GivenRows, JobRows, RandomRows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.making import Trial
from batchonnx.lifecycle.optimize import Passes, optimize
from batchonnx.lifecycle.provenance import steps_of
from batchonnx.lifecycle.quantize import Quantization, quantize
from batchonnx.lifecycle.quantize.search import fewest
from batchonnx.runtime.model_file import find_model
from batchonnx.runtime.session import open_model
from batchonnx.runtime.tied import TIED
from tests import models
from tests.models import NETWORK_WIDTH as WIDTH
from tests.models import network


def rows_of(count: int = 64, seed: int = 0) -> GivenRows:
    values = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return GivenRows({"x": values}, "rows.npz")


def job_of(folder: Path, rows: int) -> JobFile:
    values = np.random.default_rng(3).standard_normal((rows, WIDTH)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), WIDTH)
    pq.write_table(pa.table({"x": column}), folder / "in.parquet")
    job = {"model": {"path": "a.onnx"}, "input": {"path": "in.parquet"}, "output": {"path": "out"}}
    return job_from_dict(job, folder=folder)


def trial(rows: GivenRows | JobRows | RandomRows | None = None, **gates: float) -> Trial:
    """Without speed: which one of models this small is faster is up to the machine's moment."""
    return Trial(rows, Gates(**gates), sizes=(8,) if "min_speedup" in gates else ())


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_made(found: Comparison, path: Path, step: str) -> None:
    """It is there with all that belongs to it, and the chain of its steps ends in this one."""
    assert found.passed
    signature = open_model(str(path)).signature
    assert found.b.sha256 == signature.digest
    assert [steps_of(signature)[-1].step, steps_of(signature)[-1].verdict] == [step, found.verdict]
    kept = json.loads(path.with_name(f"{path.name}.comparison.json").read_text())
    assert (kept["b"]["path"], kept["b"]["sha256"]) == (str(path), found.b.sha256)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_model_is_simplified_under_the_same_inputs_and_outputs(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    assert_made(optimize(str(a), b, trial=trial()), b, "optimize")
    assert len(operators(b)) < len(operators(a))
    assert open_model(str(b)).signature.inputs == open_model(str(a)).signature.inputs
    assert steps_of(open_model(str(b)).signature)[0].options == {"simplify": True}


def test_half_precision_keeps_what_it_is_told_to_and_the_model_s_face(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    found = optimize(str(a), b, Passes(half=True, keep=["Tanh", "last"]), trial(max_diff=0.05))
    assert_made(found, b, "optimize")
    assert found.b.bytes < 0.7 * found.a.bytes
    assert open_model(str(b)).signature.outputs == open_model(str(a)).signature.outputs
    kept = {tensor.name for tensor in onnx.load(b).graph.initializer if tensor.data_type == 1}
    assert "w2" in kept
    with pytest.raises(ContractError, match='no operator or node "Tan"'):
        optimize(str(a), b, Passes(half=True, keep=["Tan"]))


def test_a_graph_saved_for_this_cpu_is_bit_equal_and_refused_on_another(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    found = optimize(str(a), b, Passes(graph="all"), trial(max_diff=0.0))
    assert_made(found, b, "optimize")
    assert any("refused on others" in note for note in found.notes)
    model = onnx.load(b)
    (tied,) = (entry for entry in model.metadata_props if entry.key == TIED)
    tied.value = "riscv64"
    onnx.save(model, b)
    with pytest.raises(ModelFileError, match="saved for another kind of CPU"):
        open_model(str(b))


@pytest.mark.parametrize("graph", ["basic", "extended"])
def test_a_graph_saved_for_any_cpu_is_tied_to_none(tmp_path: Path, graph: str) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    assert_made(optimize(str(a), b, Passes(graph=graph), trial(max_diff=1e-5)), b, "optimize")  # type: ignore[arg-type]
    assert TIED not in open_model(str(b)).signature.metadata


def test_open_dimensions_are_fixed_and_compared_in_such_batches(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    for rows in (rows_of(10), RandomRows(10), JobRows(job_of(tmp_path, 10))):
        found = convert(str(a), b, Form(fix={"batch": (4,)}), trial(rows))
        assert_made(found, b, "convert")
        assert found.rows in (8, 12)
        assert open_model(str(b)).signature.outputs[0].shape == (4, 8)
    assert convert(str(a), b, Form(fix={"x": (2, WIDTH)}), trial()).passed
    for fix in ({"m": (4,)}, {"x": (2, 3)}, {"batch": (2, 2)}):
        with pytest.raises(ContractError):
            convert(str(a), b, Form(fix=fix), trial())


def test_what_a_transformer_is_made_of_is_fused(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    assert_made(optimize(str(a), b, Passes(fuse="bert"), trial()), b, "optimize")
    assert {"BiasGelu", "Gelu"} & set(operators(b))
    assert "Erf" not in operators(b)


def test_nothing_to_fuse_is_said(tmp_path: Path) -> None:
    a = models.linear(tmp_path / "a.onnx")
    with pytest.raises(ModelFileError, match="nothing in the model is fused as a part of a bert"):
        optimize(str(a), tmp_path / "b.onnx", Passes(fuse="bert"), trial())
    with pytest.raises(ContractError, match="no fusions for this kind"):
        optimize(str(a), tmp_path / "b.onnx", Passes(fuse="burt"), trial())
    assert left_behind(tmp_path) == {"a.onnx"}


@pytest.mark.parametrize("method", ["dynamic", "weights4", "weights8"])
def test_weights_shrink_and_the_report_has_the_sizes(tmp_path: Path, method: str) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    asked = trial(rows_of(), min_cosine=0.98)
    found = quantize(str(a), b, Quantization(method), asked)  # type: ignore[arg-type]
    assert_made(found, b, "quantize")
    assert found.b.bytes < 0.5 * found.a.bytes
    assert f"{found.b.bytes:,} bytes, {found.b.bytes / found.a.bytes:.3g} of a" in (
        (tmp_path / "b.onnx.comparison.md").read_text()
    )


def test_one_scale_for_each_channel_is_closer_than_one_for_all(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx", spread=0.3), tmp_path / "b.onnx"
    errors = [
        quantize(str(a), b, Quantization(per_channel=each), trial(rows_of(), min_cosine=0)).parity[0].mean_rel
        for each in (True, False)
    ]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_a_job_calibrates_on_some_rows_and_is_compared_on_others(tmp_path: Path, calibration: str) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    how = Quantization("static", calibration_rows=30, calibration=calibration)  # type: ignore[arg-type]
    found = quantize(str(a), b, how, trial(JobRows(job_of(tmp_path, 50)), min_cosine=0.95))
    assert_made(found, b, "quantize")
    assert (found.rows, "calibrated on 25 other rows of the job" in found.notes) == (25, True)
    assert found.source.endswith("behind the first 25")
    assert "QuantizeLinear" in operators(b)


def test_calibration_needs_rows_of_its_own(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    for rows in (None, RandomRows()):
        with pytest.raises(ContractError, match="calibrated on rows of a job"):
            quantize(str(a), b, Quantization("static"), trial(rows))
    found = quantize(str(a), b, Quantization("static"), trial(rows_of(20), min_cosine=0.9))
    assert "calibrated on 20 of the rows that it is compared on" in found.notes


def test_what_is_excluded_stays_and_what_isn_t_there_is_said(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    quantize(str(a), b, Quantization(exclude=["first"]), trial(rows_of(), min_cosine=0.9))
    assert (operators(b).count("MatMul"), operators(b).count("MatMulInteger")) == (1, 2)
    with pytest.raises(ContractError, match=r'no operator or node "frist"(.|\n)*did you mean first'):
        quantize(str(a), b, Quantization(exclude=["frist"]), trial())
    with pytest.raises(ContractError, match="finds nothing in the model to quantize"):
        quantize(str(a), b, Quantization(exclude=["MatMul"]), trial())
    trees = models.trees(tmp_path / "trees.onnx")
    with pytest.raises(ContractError, match=r"finds nothing(.|\n)*TreeEnsembleRegressor"):
        quantize(str(trees), b, trial=trial())


@pytest.mark.parametrize("method", ["dynamic", "static", "weights8"])
def test_a_gemm_is_quantized_and_left_out_under_its_name(tmp_path: Path, method: str) -> None:
    a, b = models.linear(tmp_path / "a.onnx", 64, 32), tmp_path / "b.onnx"
    how = Quantization(method)  # type: ignore[arg-type]
    found = quantize(str(a), b, how, trial(rows_of(), min_cosine=0.9))
    assert found.b.bytes < 0.8 * found.a.bytes
    for name in ("Gemm", "Gemm_0"):
        with pytest.raises(ContractError, match="nothing in the model to quantize"):
            quantize(str(a), b, replace(how, exclude=[name]), trial(rows_of()))


def test_a_search_leaves_the_worst_layer_in_float_and_no_other(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx", outlier=60.0), tmp_path / "b.onnx"
    asked = trial(rows_of(), min_cosine=0.99)
    with pytest.raises(GateError, match="min-cosine"):
        quantize(str(a), b, trial=asked)
    found = quantize(str(a), b, Quantization(search=True), asked)
    assert_made(found, b, "quantize")
    assert "left in float32 by the search: second" in found.notes
    assert steps_of(open_model(str(b)).signature)[0].options["left"] == ["second"]
    assert (operators(b).count("MatMul"), operators(b).count("MatMulInteger")) == (1, 2)
    with pytest.raises(GateError, match="no part of the model"):
        quantize(str(a), b, Quantization(search=True), trial(rows_of(), max_diff=1e-9))


@given(st.integers(0, 40), st.integers(0, 41))
def test_the_search_finds_the_shortest_beginning_that_is_enough(length: int, needed: int) -> None:
    asked: list[int] = []

    def is_enough(chosen: Sequence[int]) -> bool:
        asked.append(len(chosen))
        return len(chosen) >= needed

    found = fewest(range(length), is_enough)
    assert found == (range(max(needed, 1)) if max(needed, 1) <= length else None)
    assert len(asked) <= 2 * length.bit_length() + 2


def test_a_refused_model_isn_t_there_but_its_report_is(tmp_path: Path) -> None:
    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    with pytest.raises(GateError, match=r"max-diff(.|\n)*min-speedup"):
        quantize(str(a), b, trial=trial(max_diff=1e-9, min_speedup=1000.0))
    assert left_behind(tmp_path) == {"a.onnx", "b.onnx.comparison.json", "b.onnx.comparison.md"}
    kept = json.loads((tmp_path / "b.onnx.comparison.json").read_text())
    assert [miss["gate"] for miss in kept["misses"]] == ["max-diff", "min-speedup"]


def test_ort_format_comes_with_its_operators_and_both_kinds_say_what_they_are_for(tmp_path: Path) -> None:
    a, portable, here = network(tmp_path / "a.onnx"), tmp_path / "b.ort", tmp_path / "c.ort"
    found = convert(str(a), portable, trial=trial())
    assert_made(found, portable, "convert")
    assert any("portable" in note for note in found.notes)
    config = (tmp_path / "b.ort.operators.config").read_text()
    assert "MatMul" in config
    assert str(tmp_path) not in config
    found = convert(str(a), here, Form(this_cpu=True), trial(max_diff=0.0))
    assert_made(found, here, "convert")
    assert open_model(str(here)).signature.metadata[TIED]
    with pytest.raises(ModelFileError, match="ONNX Runtime's own format"):
        optimize(str(portable), tmp_path / "d.onnx", trial=trial())


def test_opsets_go_up_and_down_and_weights_in_and_out_and_the_chain_is_kept(tmp_path: Path) -> None:
    a, up, down, back = (tmp_path / f"{name}.onnx" for name in ("a", "up", "down", "back"))
    network(a)
    found = convert(str(a), up, Form(opset=21, weights="beside"), trial(max_diff=0.0))
    assert_made(found, up, "convert")
    assert find_model(str(up)).external == ("up.onnx.data",)
    assert found.b.bytes > (tmp_path / "up.onnx").stat().st_size
    assert_made(convert(str(up), down, Form(opset=15), trial(max_diff=0.0)), down, "convert")
    assert find_model(str(down)).external == ("down.onnx.data",)
    assert_made(convert(str(down), back, Form(weights="inside"), trial(max_diff=0.0)), back, "convert")
    assert find_model(str(back)).external == ()
    assert onnx.load(back).opset_import[0].version == 15
    assert [step.options for step in steps_of(open_model(str(back)).signature)] == [
        {"opset": 21, "weights": "beside"},
        {"opset": 15},
        {"weights": "inside"},
    ]


def test_what_can_t_be_converted_is_told_in_a_few_lines(tmp_path: Path) -> None:
    a = network(tmp_path / "a.onnx")
    for target, form, told in (
        ("b.onnx", Form(), "nothing is asked for"),
        ("b.onnx", Form(opset=999), "no such opset"),
        ("b.onnx", Form(this_cpu=True), "for any CPU"),
        ("b.ort", Form(weights="beside"), "is one file"),
    ):
        with pytest.raises(ContractError, match=told):
            convert(str(a), tmp_path / target, form, trial())
    with pytest.raises(StorageError, match="take the place of the one"):
        convert(str(a), a, Form(opset=18), trial())
    with pytest.raises(StorageError, match="can't be written"):
        convert(str(a), tmp_path / "nowhere" / "b.onnx", Form(opset=18), trial())
    norm = helper.make_node("LayerNormalization", ["x", "s"], ["y"])
    values = [models.value("x", "float32", ["n", 3])], [models.value("y", "float32", ["n", 3])]
    new = models.save(tmp_path / "new.onnx", [norm], *values, {"s": np.ones(3, np.float32)})
    with pytest.raises(ModelFileError, match=r"opset 17 to 11 fails(.|\n)*export it anew"):
        convert(str(new), tmp_path / "b.onnx", Form(opset=11), trial())


def test_phones_take_what_they_have_and_shapes_they_know(tmp_path: Path) -> None:
    a, fixed = network(tmp_path / "a.onnx"), tmp_path / "fixed.onnx"
    found = {one.provider: one for one in mobile_usability(str(a))}
    assert list(found) == ["NNAPI", "CoreML (NeuralNetwork)", "CoreML (MLProgram)", "XNNPACK"]
    assert (found["NNAPI"].taken, found["NNAPI"].taken_fixed > 0) == (0, True)
    assert found["XNNPACK"].taken_fixed == 3
    assert "ai.onnx:Tanh" in found["XNNPACK"].left
    convert(str(a), fixed, Form(fix={"batch": (1,)}), trial())
    assert next(iter(mobile_usability(str(fixed)))).taken == found["NNAPI"].taken_fixed


def test_a_missing_tool_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = network(tmp_path / "a.onnx")
    monkeypatch.setattr("batchonnx.lifecycle.tools.find_spec", lambda name: None)
    for make in (
        lambda: optimize(str(a), tmp_path / "b.onnx", trial=trial()),
        lambda: quantize(str(a), tmp_path / "b.onnx", Quantization("weights4"), trial()),
    ):
        with pytest.raises(DependencyError) as told:
            make()
        assert told.value.problems[0].fix == "pip install 'batchonnx[optimize]'"


def test_a_model_made_of_another_s_batch_is_told_apart(tmp_path: Path) -> None:
    """Rows that get another answer among others: int8 with each batch's own scales."""
    from batchonnx.lifecycle.validate import validate

    a, b = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    quantize(str(a), b, trial=trial(rows_of(), min_cosine=0.9))
    (found,) = validate([str(b)], rows_of())
    assert next(check.level for check in found.checks if check.name == "neighbours") == "warning"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["model", *map(str, words)])


def test_the_commands_make_a_chain_that_each_model_tells(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / name for name in ("a.onnx", "b.onnx", "c.onnx", "d.ort"))
    network(a)
    fast = ("--min-speedup", 0, "--batch", 8)
    done = invoke("optimize", a, b, *fast)
    assert done.exit_code == 0, done.output
    assert f"wrote {b}" in done.stderr
    assert done.stdout == (tmp_path / "b.onnx.comparison.md").read_text()
    done = invoke("quantize", b, c, "--exclude", "last", "--min-cosine", 0.9, *fast, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["passed"] is True
    done = invoke("convert", c, d, "--mobile", "--max-diff", 1, *fast)
    assert done.exit_code == 0, done.output
    assert "XNNPACK: " in done.stdout
    told = [step.step for step in steps_of(open_model(str(d)).signature)]
    assert told == ["optimize", "quantize", "convert"]
    done = invoke("convert", a, d, "--mobile", "--json", *fast)
    assert json.loads(done.stdout)["mobile"][3]["provider"] == "XNNPACK"
    done = invoke("convert", a, tmp_path / "e.onnx", "--fix", "batch=0")
    assert done.exit_code == 2
    done = invoke("quantize", a, tmp_path / "f.onnx", "--max-diff", 1e-9, *fast)
    assert done.exit_code == 4
    assert f"its report alone: {tmp_path / 'f.onnx.comparison.md'}" in done.stderr
    assert "max-diff" in done.stderr
