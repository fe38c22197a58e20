"""Each thing that can be wrong with a model is found and named, and nothing that it does is our end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from batchonnx.cli import main
from batchonnx.errors import ContractError, InputError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.lifecycle.compare import compare
from batchonnx.lifecycle.feed import GivenRows, JobRows, RandomRows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.given_feed import read_npz
from batchonnx.lifecycle.validate import Limits, Validation, validate
from tests import awkward, models


def only(path: Path, **options: object) -> Validation:
    (found,) = validate([str(path)], **options)  # type: ignore[arg-type]
    return found


def level(found: Validation, name: str) -> str:
    return next((check.level for check in found.checks if check.name == name), "")


def told(found: Validation, name: str) -> str:
    return next(check.told for check in found.checks if check.name == name)


def test_a_good_model_is_asked_everything(tmp_path: Path) -> None:
    found = only(awkward.pooled(tmp_path / "m.onnx", heeds_mask=True))
    assert found.verdict == "valid", found
    assert {check.level for check in found.checks} == {"ok"}
    assert [check.name for check in found.checks] == [
        *("file", "domains", "checker", "shapes", "session"),
        *("rows", "batch", "neighbours", "padding", "finite", "repeats"),
    ]


def test_what_goes_wrong_is_told_apart_in_one_go(tmp_path: Path) -> None:
    """One process for all: an end of it, or a hang, is one model's verdict and no other's."""
    made = {
        awkward.mean_over_batch(tmp_path / "mean.onnx"): ("neighbours", "warning"),
        awkward.pooled(tmp_path / "leak.onnx", heeds_mask=False): ("padding", "warning"),
        awkward.pooled(tmp_path / "bare.onnx", heeds_mask=False, has_mask=False): ("padding", "note"),
        awkward.one_row_only(tmp_path / "one.onnx"): ("batch", "error"),
        awkward.endless(tmp_path / "endless.onnx"): ("rows", "error"),
        awkward.size_bomb(tmp_path / "bomb.onnx"): ("memory", "error"),
        awkward.growing_bomb(tmp_path / "grow.onnx"): ("memory", "error"),
        awkward.with_custom_operator(tmp_path / "custom.onnx"): ("domains", "error"),
        awkward.dynamically_quantized(tmp_path / "int8.onnx"): ("neighbours", "warning"),
        models.batch_mean(tmp_path / "fewer.onnx"): ("batch", "warning"),
        models.identity(tmp_path / "fixed.onnx", shape=[4, 3]): ("batch", "note"),
        models.linear(tmp_path / "good.onnx"): ("batch", "ok"),
    }
    for found in validate([str(path) for path in made], limits=Limits(3, 1 << 30)):
        name, expected = made[Path(found.model)]
        assert level(found, name) == expected, found
        assert found.is_valid == (expected != "error")
        assert found.has_warnings == (expected == "warning")
        assert found.sha256 is not None


def test_a_broken_quantized_model_and_a_sound_one_are_told_apart(tmp_path: Path) -> None:
    known = awkward.unquantized(tmp_path / "float.onnx")
    gates = Gates(min_cosine=0.99, min_agreement=0.9)
    sound = compare(
        str(known), str(awkward.dynamically_quantized(tmp_path / "a.onnx")), gates=gates, sizes=()
    )
    broken = awkward.dynamically_quantized(tmp_path / "b.onnx", is_broken=True)
    assert sound.passed, sound.verdict
    misses = compare(str(known), str(broken), gates=gates, sizes=()).misses
    assert {miss.gate for miss in misses} == {"min-cosine", "min-agreement"}


def make_job(folder: Path, **feature: object) -> JobFile:
    values = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    pq.write_table(pa.table({f"f{i}": values[:, i] for i in range(3)}), folder / "in.parquet")
    job = {
        "name": "mine",
        "model": {"path": "m.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"], **feature}},
        "output": {"path": "out"},
    }
    return job_from_dict(job, folder=folder)


def test_what_ends_the_process_is_that_model_s_verdict_and_the_next_is_still_asked(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx")
    text = "import os, signal\ndef encode(batch):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    (tmp_path / "deadly.py").write_text(text)
    rows = [JobRows(make_job(tmp_path, python="deadly:encode")), JobRows(make_job(tmp_path))]
    dead, fine = validate([str(path)] * 2, rows)
    assert (dead.is_valid, dead.checks[-1].name, dead.sha256) == (False, "rows", fine.sha256)
    assert dead.checks[-1].told == "ends the process that runs it, by SIGSEGV"
    assert fine.verdict == "valid"
    assert told(fine, "rows") == "runs with 1, 2, 7 rows in a call, on the first rows of the job mine"


def test_a_job_that_doesn_t_fit_the_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="3 wide"):
        only(models.linear(tmp_path / "wide.onnx", width=4), rows=JobRows(make_job(tmp_path)))


def test_a_file_that_is_no_model_is_told_in_a_line(tmp_path: Path) -> None:
    kinds = {
        "Git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n",
        "an empty file": b"",
        "an HTML page": b"<!DOCTYPE html><html>",
        "truncated": models.linear(tmp_path / "whole.onnx").read_bytes()[:100],
    }
    for number, data in enumerate(kinds.values()):
        (tmp_path / f"{number}.onnx").write_bytes(data)
    paths = [str(tmp_path / f"{number}.onnx") for number in range(len(kinds))]
    for reason, found in zip([*kinds, "isn't there"], validate([*paths, "gone.onnx"]), strict=True):
        assert [(check.name, check.level) for check in found.checks] == [("file", "error")]
        assert reason in found.checks[0].told
        assert "\n" not in found.checks[0].told
        assert (found.verdict, found.sha256) == ("invalid", None)


def external(path: Path, location: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    model = onnx.load(models.linear(path))
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_that_are_missing_or_lie_outside_are_refused(tmp_path: Path) -> None:
    reasons = {
        "gone.data": "weights are missing",
        "../w.data": "outside its folder",
        "/etc/passwd": "outside its folder",
    }
    paths = [str(external(tmp_path / f"{n}.onnx", name)) for n, name in enumerate(reasons)]
    for found, reason in zip(validate(paths), reasons.values(), strict=True):
        assert (level(found, "file"), found.is_valid) == ("error", False)
        assert reason in told(found, "file")


def test_weights_cut_short_are_refused_and_linked_ones_are_read(tmp_path: Path) -> None:
    paths = [external(tmp_path / name / "m.onnx", "w.data") for name in ("plain", "linked", "short")]
    (tmp_path / "linked" / "w.data").rename(tmp_path / "linked" / "blob")
    (tmp_path / "linked" / "w.data").symlink_to(tmp_path / "linked" / "blob")
    os.truncate(tmp_path / "short" / "w.data", 3)
    plain, linked, short = validate(list(map(str, paths)))
    assert plain.verdict == "valid"
    assert (linked.is_valid, level(linked, "checker")) == (True, "note"), linked
    assert "ONNX Runtime does" in told(linked, "checker")
    assert "cut short" in told(short, "file")


def test_what_onnx_runtime_doesn_t_know_is_told_with_what_to_do(tmp_path: Path) -> None:
    model = onnx.load(models.linear(tmp_path / "m.onnx"))
    model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "new.onnx")
    model.opset_import[0].version = 17
    model.graph.node[0].op_type = "Gemmm"
    onnx.save(model, tmp_path / "unknown.onnx")
    new, unknown = validate([str(tmp_path / "new.onnx"), str(tmp_path / "unknown.onnx")])
    assert (new.is_valid, unknown.is_valid) == (False, False)
    assert "opset" in new.checks[-1].told
    assert "Gemmm" in unknown.checks[-1].told


def test_shapes_that_contradict_themselves_are_a_warning_where_the_model_runs(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    path.write_bytes(model.SerializeToString())
    found = only(path)
    assert level(found, "shapes") == "warning"


def test_randomness_and_nan_are_found(tmp_path: Path) -> None:
    shape = ["n", 3]
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["noise"]),
        helper.make_node("Sqrt", ["x"], ["root"]),
        helper.make_node("Add", ["noise", "root"], ["y"]),
    ]
    path = models.save(
        tmp_path / "m.onnx",
        nodes,
        [models.value("x", "float32", shape)],
        [models.value("y", "float32", shape)],
    )
    rows = [RandomRows(), GivenRows({"x": np.array([[-1, 1, 1]] * 3, np.float32)}, "mine")]
    drawn, given = validate([str(path)] * 2, rows)
    assert (level(drawn, "repeats"), level(given, "repeats")) == ("warning", "warning")
    assert level(drawn, "finite") == "note"  # the root of a negative number that nobody says it takes
    assert level(given, "finite") == "warning"


def test_types_that_numpy_has_not_can_t_be_asked_about(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
    )
    found = only(path)
    assert (level(found, "rows"), found.verdict) == ("unknown", "valid, with warnings")


def test_rows_are_read_from_a_file_of_arrays(tmp_path: Path) -> None:
    path = models.linear(tmp_path / "m.onnx")
    kinds = {"fits": {"x": (5, 3)}, "wide": {"x": (5, 4)}, "other": {"z": (5, 3)}}
    for name, arrays in kinds.items():
        np.savez(tmp_path / f"{name}.npz", **{key: np.ones(size, np.float32) for key, size in arrays.items()})
    rows = [read_npz(tmp_path / f"{name}.npz") for name in kinds]
    fits, wide, other = validate([str(path)] * 3, rows)
    assert told(fits, "rows") == "runs with 1, 2 rows in a call, on the rows of fits.npz"
    assert "another shape" in told(wide, "rows")
    assert "no tensor for" in told(other, "rows")
    (tmp_path / "rows.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="can't be read"):
        read_npz(tmp_path / "rows.npz")


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["model", "validate", *map(str, words)])


def test_the_command_s_exit_code_is_the_verdict(tmp_path: Path) -> None:
    good, doubtful = models.linear(tmp_path / "good.onnx"), awkward.mean_over_batch(tmp_path / "mean.onnx")
    bad = awkward.one_row_only(tmp_path / "bad.onnx")
    done = invoke(good, doubtful)
    assert done.exit_code == 0, done.output
    assert f"{good}: valid\n" in done.stdout
    assert "  warning  neighbours rows depend on their neighbours" in done.stdout
    assert invoke(doubtful, "--strict").exit_code == 4
    done = invoke(bad, good, "--json")
    assert done.exit_code == 4
    assert [one["verdict"] for one in json.loads(done.stdout)] == ["invalid", "valid"]
    np.savez(tmp_path / "rows.npz", x=np.ones((5, 3), np.float32))
    assert invoke(good, "--inputs", tmp_path / "rows.npz", "--memory", 1, "--timeout", 60).exit_code == 0
    assert invoke(good, "--inputs", tmp_path / "rows.npz", "--rows", 3).exit_code == 2
