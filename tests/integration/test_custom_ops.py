"""Operators that come in libraries of their own: tokenizers inside the graph, text as the model's input."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from onnx import helper
from onnxruntime_extensions import get_library_path

from batchonnx import api
from batchonnx.cli import main
from batchonnx.cluster.places import named_places
from batchonnx.errors import DependencyError, ModelFileError
from batchonnx.job.load import job_from_dict
from batchonnx.lifecycle.compare import compare
from batchonnx.lifecycle.feed import JobRows
from batchonnx.lifecycle.validate import validate
from batchonnx.runtime.chain import open_again
from tests import models, texts
from tests.custom_ops import DOMAIN, save_embedder, save_lower, save_upper
from tests.integration.conftest import Script, fetched

TEXTS = texts.draw_texts(100, longest=20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_upper(tmp_path / "upper.onnx")
    save_lower(tmp_path / "lower.onnx")
    save_embedder(tmp_path / "embedder.onnx")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "rows.parquet", row_group_size=40)
    return tmp_path


def _spec(**more: Any) -> dict[str, Any]:
    return {
        "model": {"path": "upper.onnx"},
        "input": {"path": "rows.parquet"},
        "session": {"custom_ops": "onnxruntime-extensions"},
        "output": {"path": "out"},
        **more,
    }


def _run(folder: Path, **more: Any) -> pa.Table:
    return api.dataset(api.run(job_from_dict(_spec(**more), folder=folder)).output).to_table()


def _by_hand() -> np.ndarray:
    return np.array([texts.embeddings()[texts.ids_of(text)].mean(axis=0) for text in TEXTS])


@pytest.mark.parametrize("workers", [1, 3])
def test_text_goes_into_the_model_and_comes_out(folder: Path, workers: int) -> None:
    made = _run(folder, engine={"workers": workers, "batch_rows": 7})
    assert made["upper"].to_pylist() == [text.upper() for text in TEXTS]


def test_a_tokenizer_inside_the_graph_gives_each_text_its_own_vector(folder: Path) -> None:
    made = _run(folder, model={"path": "embedder.onnx"})
    vectors = np.array(made["mean"].to_pylist())
    np.testing.assert_allclose(vectors, _by_hand(), atol=1e-6)


def test_every_model_of_a_chain_has_the_operators(folder: Path) -> None:
    links = {"text": "lower.lower"}
    chain = {"lower": {"path": "lower.onnx"}, "embed": {"path": "embedder.onnx", "inputs": links}}
    pq.write_table(pa.table({"text": [text.upper() for text in TEXTS]}), folder / "rows.parquet")
    spec = {**_spec(), "models": chain, "outputs": {"mean": {"from": "embed.mean"}}}
    del spec["model"]
    made = api.dataset(api.run(job_from_dict(spec, folder=folder)).output).to_table()
    np.testing.assert_allclose(np.array(made["mean"].to_pylist()), _by_hand(), atol=1e-6)


def test_without_the_library_the_error_says_how_to_name_it(folder: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        _run(folder, session={})
    (problem,) = caught.value.problems
    assert "StringUpper" in problem.title
    assert "session: {custom_ops: onnxruntime-extensions}" in problem.fix


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "isn't there"), (b"not a library", "can't be loaded")],
)
def test_a_library_that_cannot_be_used_is_named(folder: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (folder / "ops.so").write_bytes(content)
    with pytest.raises(DependencyError) as caught:
        _run(folder, session={"custom_ops": ["ops.so"]})
    (problem,) = caught.value.problems
    assert expected in problem.title
    assert problem.facts["library"] == str(folder / "ops.so")
    assert problem.facts["found"]


def test_a_package_that_is_missing_is_told_with_its_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(DependencyError) as caught:
        _run(folder)
    (problem,) = caught.value.problems
    assert problem.facts["job"] == "session.custom_ops"
    assert problem.fix == "pip install 'batchonnx[extensions]'"


def test_the_fingerprint_knows_a_library_by_its_bytes_not_by_its_place(folder: Path) -> None:
    def fingerprint(library: str) -> str:
        job = job_from_dict(_spec(session={"custom_ops": library}), folder=folder)
        return api.open_job(job)[0].fingerprint

    shutil.copyfile(get_library_path(), folder / "ops.so")
    by_name = fingerprint("onnxruntime-extensions")
    assert fingerprint("ops.so") == by_name
    with (folder / "ops.so").open("ab") as library:
        library.write(b"\0")  # behind what is loaded of it
    assert fingerprint("ops.so") != by_name


def test_another_library_than_the_plan_has_seen_is_refused(folder: Path) -> None:
    """As on a node of a cluster, which has its own."""
    shutil.copyfile(get_library_path(), folder / "ops.so")
    job = job_from_dict(_spec(session={"custom_ops": "ops.so"}), folder=folder)
    plan, _ = api.open_job(job)
    with (folder / "ops.so").open("ab") as library:
        library.write(b"\0")
    with pytest.raises(DependencyError, match="isn't the one the job began with"):
        open_again(plan.model, 1)


def test_a_library_travels_with_the_job_folder(folder: Path) -> None:
    job = job_from_dict(
        _spec(session={"custom_ops": ["ops/ops.so", "onnxruntime-extensions"]}), folder=folder
    )
    libraries = [place.path for place in named_places(job) if place.key == "session.custom_ops"]
    assert libraries == ["ops/ops.so"]


def test_a_model_with_operators_of_its_own_is_valid_only_for_a_job_that_names_them(folder: Path) -> None:
    rows = JobRows(job_from_dict(_spec(), folder=folder), 20)
    (alone,) = validate([str(folder / "upper.onnx")])
    (with_job,) = validate([str(folder / "upper.onnx")], rows)
    assert not alone.is_valid
    assert with_job.is_valid, with_job
    (check,) = [check for check in with_job.checks if check.name == "domains"]
    assert (check.level, "ai.onnx.contrib::StringUpper" in check.told) == ("note", True)


def test_models_are_compared_on_the_rows_of_a_job_that_names_their_operators(folder: Path) -> None:
    rows = JobRows(job_from_dict(_spec(model={"path": "embedder.onnx"}), folder=folder), 20)
    model = str(folder / "embedder.onnx")
    found = compare(model, model, rows, sizes=())
    assert found.passed
    assert found.parity[0].max_abs == 0


def test_the_schema_takes_one_library_or_several(folder: Path) -> None:
    (folder / "job.yaml").write_text(
        "model: {path: upper.onnx}\ninput: {path: rows.parquet}\noutput: {path: out}\n"
        "session: {custom_ops: [onnxruntime-extensions]}\n"
    )
    done = CliRunner().invoke(main, ["plan", str(folder / "job.yaml")])
    assert done.exit_code == 0, done.output


@pytest.mark.frameworks
def test_minilm_with_its_tokenizer_inside_gives_what_the_tokenizer_beside_it_gives(
    jobs: Path, script: Script
) -> None:
    pytest.importorskip("transformers")
    home = fetched(jobs, script, "get_glosses.py")
    glosses = pq.read_table(home / "data" / "glosses.parquet")["gloss"].slice(0, 200)
    pq.write_table(pa.table({"text": glosses}), home / "rows.parquet")
    _with_tokenizer_inside(home / "models" / "minilm")
    inside = _run(
        home,
        model={"path": "models/minilm/inside.onnx"},
        outputs={"embedding": {"from": "mean", "normalize": True}},
    )
    beside = _run(
        home,
        model={"path": "models/minilm/model.onnx"},
        features={"input_ids": {"column": "text", "tokenizer": "models/minilm"}},
        outputs={"embedding": {"from": "last_hidden_state", "pool": "mean", "normalize": True}},
        session={},
        output={"path": "beside"},
    )
    vectors = [np.array(made["embedding"].to_pylist()) for made in (inside, beside)]
    np.testing.assert_allclose(*vectors, atol=1e-5)


def _with_tokenizer_inside(folder: Path) -> None:
    """inside.onnx: text string[1] -> mean float32[1, 384]; such a tokenizer takes one text in a call."""
    from onnxruntime_extensions import gen_processing_models
    from transformers import AutoTokenizer

    model = onnx.load(folder / "model.onnx")
    # It doesn't know that BERT's tokenizer strips accents where it lowers letters.
    made, _ = gen_processing_models(
        AutoTokenizer.from_pretrained(folder), pre_kwargs={"strip_accents": 1}, opset=20
    )
    (tokenize,) = made.graph.node
    names = [value.name for value in model.graph.input]
    for place, name in enumerate(tokenize.output):
        tokenize.output[place] = f"flat {name}"
    axes = [onnx.numpy_helper.from_array(np.array([axis], np.int64), f"axis {axis}") for axis in (0, 1)]
    lifted = [helper.make_node("Unsqueeze", [f"flat {name}", "axis 0"], [name]) for name in names]
    mean = helper.make_node("ReduceMean", ["last_hidden_state", "axis 1"], ["mean"], keepdims=0)
    graph = helper.make_graph(
        [tokenize, *lifted, *model.graph.node, mean],
        "inside",
        [models.value("text", "string", [1])],
        [models.value("mean", "float32", [1, 384])],
        [*axes, *model.graph.initializer],
    )
    opsets = [*model.opset_import, helper.make_opsetid(DOMAIN, 1)]
    inside = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    inside.functions.extend(model.functions)
    onnx.save(inside, folder / "inside.onnx")
