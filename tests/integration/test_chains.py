"""Several models in one pass: each feeds on columns and on the outputs of those before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from onnx import helper

from batchonnx import api
from batchonnx.cluster.places import named_places
from batchonnx.errors import BatchonnxError, ContractError, JobFileError
from batchonnx.job.load import job_from_dict
from batchonnx.planning.bindings import StackedScalars
from tests import models
from tests.integration.ray_cluster import ray_cluster

ROWS = 700


def _encoder(path: Path, rows: int | str = "n") -> Path:
    """x float32[n, 3] -> hidden float32[n, 4]."""
    weights = {"w": np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["hidden"])]
    inputs, outputs = (
        [models.value("x", "float32", [rows, 3])],
        [models.value("hidden", "float32", ["n", 4])],
    )
    return models.save(path, nodes, inputs, outputs, weights)


def _head(path: Path, seed: int = 2, rows: int | str = "n") -> Path:
    """hidden float32[n, 4], z float32[n] -> p float32[n, 2]."""
    weights = {
        "w": np.random.default_rng(seed).standard_normal((4, 2)).astype(np.float32),
        "axes": np.array([1]),
    }
    nodes = [
        helper.make_node("MatMul", ["hidden", "w"], ["s"]),
        helper.make_node("Unsqueeze", ["z", "axes"], ["column"]),
        helper.make_node("Add", ["s", "column"], ["t"]),
        helper.make_node("Softmax", ["t"], ["p"], axis=1),
    ]
    inputs = [models.value("hidden", "float32", [rows, 4]), models.value("z", "float32", [rows])]
    return models.save(path, nodes, inputs, [models.value("p", "float32", ["n", 2])], weights)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _encoder(tmp_path / "encoder.onnx")
    _head(tmp_path / "head.onnx")
    _head(tmp_path / "other.onnx", seed=3)
    rng = np.random.default_rng(0)
    columns = {name: rng.standard_normal(ROWS).astype(np.float32) for name in ("a", "b", "c", "z")}
    table = pa.table({"id": np.arange(ROWS), **columns})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=200)
    return tmp_path


def _spec(**more: Any) -> dict[str, Any]:
    return {
        "models": {
            "encoder": {"path": "encoder.onnx"},
            "head": {"path": "head.onnx", "inputs": {"hidden": "encoder.hidden"}},
        },
        "input": {"path": "rows.parquet"},
        "features": {"x": {"columns": ["a", "b", "c"]}},
        "keep": ["id"],
        "output": {"path": "out"},
        **more,
    }


def _by_hand(folder: Path, *heads: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """hidden, and p of each head, of all rows in one call of each model."""
    table = pq.read_table(folder / "rows.parquet")
    x = np.stack([table[name].to_numpy() for name in ("a", "b", "c")], 1)
    (hidden,) = onnxruntime.InferenceSession(folder / "encoder.onnx").run(None, {"x": x})
    feed = {"hidden": hidden, "z": table["z"].to_numpy()}
    return hidden, [onnxruntime.InferenceSession(folder / f"{h}.onnx").run(None, feed)[0] for h in heads]


def _scored(spec: dict[str, Any], folder: Path) -> pa.Table:
    api.run(job_from_dict(spec, folder))
    return api.dataset(folder / "out").to_table()


def test_an_encoder_and_its_head_equal_the_two_models_run_by_hand(folder: Path) -> None:
    found = _scored(_spec(engine={"workers": 2, "batch_rows": 64}), folder)
    _, (p,) = _by_hand(folder, "head")
    assert found.column_names == ["id", "head.p"]  # what another model takes is no column unless asked for
    assert found["id"].to_pylist() == list(range(ROWS))
    np.testing.assert_allclose(np.array(found["head.p"].to_pylist()), p, rtol=1e-6)
    assert api.verify(folder / "out").rows_in == ROWS
    assert api.verify(folder / "out", deep=True, rows=100).rescored


def test_an_ensemble_shares_its_inputs_and_gives_the_mean(folder: Path) -> None:
    chained = {"path": "other.onnx", "inputs": {"hidden": "encoder.hidden"}}
    spec = _spec(
        outputs={
            "hidden": {"from": "encoder.hidden"},
            "mean": {"from": ["head.p", "other.p"]},
            "best": {"from": ["head.p", "other.p"], "argmax": True, "labels": ["no", "yes"]},
        }
    )
    spec["models"]["other"] = chained
    found = _scored(spec, folder)
    hidden, both = _by_hand(folder, "head", "other")
    mean = np.mean(both, axis=0)
    np.testing.assert_allclose(np.array(found["hidden"].to_pylist()), hidden, rtol=1e-5)
    np.testing.assert_allclose(np.array(found["mean"].to_pylist()), mean, rtol=1e-6)
    assert found["best"].to_pylist() == [["no", "yes"][i] for i in mean.argmax(1)]


def test_a_model_that_no_column_needs_is_not_run(folder: Path) -> None:
    # Its session would fail: the place that it looks up is beyond the width.
    node = helper.make_node("Gather", ["hidden", "far"], ["q"], axis=1)
    inputs, outputs = (
        [models.value("hidden", "float32", ["n", 4])],
        [models.value("q", "float32", ["n", "k"])],
    )
    models.save(folder / "failing.onnx", [node], inputs, outputs, {"far": np.array([9])})
    spec = _spec(outputs={"p": {"from": "head.p"}})
    spec["models"]["failing"] = {"path": "failing.onnx", "inputs": {"hidden": "encoder.hidden"}}
    assert _scored(spec, folder).num_rows == ROWS
    spec["outputs"]["q"] = {"from": "failing.q"}
    with pytest.raises(BatchonnxError) as caught:
        api.run(job_from_dict({**spec, "output": {"path": "out2"}}, folder))
    assert caught.value.problems[0].facts["found"].startswith("failing: ")


def test_a_fixed_batch_anywhere_is_the_whole_chains(folder: Path) -> None:
    _head(folder / "head.onnx", rows=8)
    plan = api.plan(job_from_dict(_spec(), folder))
    assert plan.fixed_batch == 8
    table = _scored(_spec(), folder)
    _head(folder / "head.onnx")
    _, (p,) = _by_hand(folder, "head")
    np.testing.assert_allclose(np.array(table["head.p"].to_pylist()), p, rtol=1e-6)
    assert any(isinstance(feature, StackedScalars) for feature in plan.features)


def test_every_model_of_a_chain_decides_the_run(folder: Path) -> None:
    before = api.plan(job_from_dict(_spec(), folder))
    _head(folder / "head.onnx", seed=9)
    after = api.plan(job_from_dict(_spec(), folder))
    changed = {name for name in before.identity if before.identity[name] != after.identity[name]}
    assert changed == {"model", "model head"}
    relinked = _spec()
    relinked["models"]["head"]["inputs"]["z"] = "other"
    relinked["features"]["other"] = {"column": "z"}
    assert api.plan(job_from_dict(relinked, folder)).fingerprint != after.fingerprint
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (folder / "head.onnx").rename(elsewhere / "moved.onnx")
    moved = _spec()
    moved["models"]["head"]["path"] = "elsewhere/moved.onnx"
    assert api.plan(job_from_dict(moved, folder)).fingerprint == after.fingerprint


@pytest.mark.parametrize(
    ("inputs", "title", "fix"),
    [
        ({"hidden": "encoder.hiden"}, 'no model before has an output "encoder.hiden"', "encoder.hidden"),
        ({"hidden": "head.p"}, 'no model before has an output "head.p"', "further up"),
        ({"hiden": "encoder.hidden"}, 'the model "head" has no input "hiden"', '"hidden"'),
        ({"z": "encoder.hidden"}, 'can\'t be fed to "z": it has another shape', "trained on"),
        ({"z": "x"}, 'two models have an input "x", which can\'t be one', "x_2"),
    ],
)
def test_links_that_cannot_be_are_told_by_plan(
    folder: Path, inputs: dict[str, str], title: str, fix: str
) -> None:
    spec = _spec()
    spec["models"]["head"]["inputs"] = inputs
    with pytest.raises(ContractError) as caught:
        api.plan(job_from_dict(spec, folder))
    found = next(problem for problem in caught.value.problems if title in problem.title)
    assert fix in found.fix
    assert "models.head.inputs" in found.facts["job"]


def test_an_output_without_its_model_is_known_by_its_own_name(folder: Path) -> None:
    spec = _spec() | {"outputs": {"y": {"from": "p"}}}
    with pytest.raises(ContractError) as caught:
        api.plan(job_from_dict(spec, folder))
    assert caught.value.problems[0].fix == 'did you mean "head.p"?'


def test_a_job_has_one_model_or_several(folder: Path) -> None:
    for change, told in [
        ({"model": {"path": "encoder.onnx"}}, "goes without models"),
        ({"models": {}}, 'the job has no "model"'),
        ({"models": {"a.b": {"path": "encoder.onnx"}}}, "stands before the dot"),
    ]:
        with pytest.raises(JobFileError) as caught:
            job_from_dict(_spec(**change), folder)
        assert told in caught.value.problems[0].title


def test_every_model_of_a_chain_is_a_place_that_a_cluster_has_to_reach(folder: Path) -> None:
    found = {place.key: place.path for place in named_places(job_from_dict(_spec(), folder))}
    assert found["models.encoder.path"] == "encoder.onnx"
    assert found["models.head.path"] == "head.onnx"


@pytest.mark.slow
def test_a_chain_gives_the_same_bytes_on_a_cluster(folder: Path) -> None:
    asked = {"batch_rows": 64, "workers": 2}
    api.run(job_from_dict(_spec(engine=asked), folder))
    # Not one of its own: this process would want its token for good, and other tests have clusters without.
    with ray_cluster(1, cpus=2):
        api.run(job_from_dict(_spec(engine={**asked, "name": "ray"}, output={"path": "far"}), folder))
    local, far = (sorted((folder / name).glob("part-*")) for name in ("out", "far"))
    assert [path.read_bytes() for path in local] == [path.read_bytes() for path in far]


def test_init_links_models_by_name_and_the_job_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = api.init("encoder.onnx", "rows.parquet", then=["head.onnx"], output="out")
    guessed = yaml.safe_load(text)
    assert guessed["models"]["head"]["inputs"] == {"hidden": "encoder.hidden"}
    assert set(guessed["features"]) == {"x", "z"}
    assert set(guessed["outputs"]) == {"head.p"}
    found = _scored(guessed, folder)
    _, (p,) = _by_hand(folder, "head")
    np.testing.assert_allclose(np.array(found["head.p"].to_pylist()), p, rtol=1e-6)
