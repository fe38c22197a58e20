"""Two real models, smaller: what is gained and lost is told as it is, and what isn't worth it is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from batchonnx import api
from batchonnx.cli import main
from batchonnx.errors import GateError
from batchonnx.job.load import load_job
from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.convert import Form, convert
from batchonnx.lifecycle.feed import GivenRows, JobRows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.making import Trial
from batchonnx.lifecycle.optimize import Passes, optimize
from batchonnx.lifecycle.parity import Parity
from batchonnx.lifecycle.provenance import steps_of
from batchonnx.lifecycle.quantize import Quantization, quantize
from batchonnx.runtime.session import open_model
from tests.integration.conftest import Script, fetched, minilm_folder
from tests.integration.test_docs import MODELS, section

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(1800)]

ANY = Gates(min_cosine=0, min_speedup=0)
"""To see what comes of it, whatever it is."""


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as Optimum exports it, and behind it the mean of each text's tokens: an embedding."""
    exporter = pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx isn't installed")
    source = minilm_folder()
    folder = tmp_path_factory.mktemp("minilm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        exporter.main_export(str(source), output=folder, task="feature-extraction", do_validation=False)
    model = onnx.load(folder / "model.onnx")
    model.graph.initializer.append(helper.make_tensor("last_axis", TensorProto.INT64, [1], [2]))
    model.graph.initializer.append(helper.make_tensor("tokens_axis", TensorProto.INT64, [1], [1]))
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last_axis"], ["wide"]),
            helper.make_node("Mul", ["last_hidden_state", "wide"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "tokens_axis"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["wide", "tokens_axis"], ["count"], keepdims=0),
            helper.make_node("Div", ["sum", "count"], ["embedding"]),
        ]
    )
    del model.graph.output[:]
    shape = ["batch_size", 384]
    model.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape))
    onnx.save(model, folder / "embed.onnx")
    return folder / "embed.onnx"


@pytest.fixture(scope="module")
def texts(minilm: Path) -> GivenRows:
    """First lines of the standard library's docstrings, as MiniLM's tokens."""
    transformers = pytest.importorskip("transformers")
    lines = sorted(set(first_lines()))[::7][:400]
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(minilm.parent))
    tokens = tokenizer(lines, padding=True, truncation=True, max_length=24, return_tensors="np")
    return GivenRows({name: np.asarray(value) for name, value in tokens.items()}, "docstrings")


def first_lines() -> Iterator[str]:
    import ast
    import os

    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (told := ast.get_docstring(node)):
                line = told.partition("\n")[0]
                if 20 < len(line) < 90:
                    yield line


@pytest.fixture(scope="module")
def emoji(jobs: Path, script: Script) -> tuple[Path, JobRows]:
    """EfficientNet-Lite0, and the job that shows it emoji."""
    pytest.importorskip("torch", reason="torch isn't installed")
    pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch isn't installed")
    fetched(jobs, script, "get_images.py")
    return jobs / "models" / "efficientnet-lite0.onnx", JobRows(load_job(jobs / "images.yaml", {}), 256)


def only(found: Comparison, name: str) -> Parity:
    return next(one for one in found.parity if one.name == name)


def told(found: Comparison, name: str) -> str:
    """What a reader of the test's output learns."""
    one = only(found, name)
    size = f"{found.b.bytes / found.a.bytes:.3f} of the size, {found.speedup or 0:.2f}x"
    return (
        f"{size}, cosine {one.mean_cosine}, "
        f"same label {one.label_agreement}, same neighbour {one.neighbour_agreement}"
    )


def test_minilm_in_int8_is_closer_by_channel_than_by_tensor(
    minilm: Path, texts: GivenRows, tmp_path: Path
) -> None:
    found = {}
    for name, each in (("channel", True), ("tensor", False)):
        target = tmp_path / f"{name}.onnx"
        found[name] = quantize(str(minilm), target, Quantization(per_channel=each), Trial(texts, ANY, (8,)))
        print(name, told(found[name], "embedding"))
        kept = json.loads((tmp_path / f"{name}.onnx.comparison.json").read_text())
        assert kept["b"]["bytes"] == target.stat().st_size
        assert kept["b"]["bytes"] < 0.3 * kept["a"]["bytes"]
    channel, tensor = only(found["channel"], "embedding"), only(found["tensor"], "embedding")
    assert channel.mean_cosine is not None
    assert tensor.mean_cosine is not None
    assert channel.mean_cosine > tensor.mean_cosine
    assert channel.mean_cosine > 0.98
    assert channel.neighbour_agreement is not None
    assert tensor.neighbour_agreement is not None
    assert channel.neighbour_agreement > tensor.neighbour_agreement
    with pytest.raises(GateError, match="min-cosine"):
        strict = Trial(texts, Gates(min_cosine=0.999, min_speedup=0), (8,))
        quantize(str(minilm), tmp_path / "strict.onnx", Quantization(per_channel=False), strict)
    assert not (tmp_path / "strict.onnx").exists()


def test_minilm_is_simplified_fused_and_in_four_bits(minilm: Path, texts: GivenRows, tmp_path: Path) -> None:
    trial = Trial(texts, Gates(max_diff=1e-3, min_speedup=0), (8,))
    for name, passes in (("simple", Passes(simplify=True)), ("fused", Passes(fuse="bert"))):
        target = tmp_path / f"{name}.onnx"
        print(name, told(optimize(str(minilm), target, passes, trial), "embedding"))
        before, after = (len(onnx.load(path).graph.node) for path in (minilm, target))
        assert after < 0.7 * before, name
    assert "Attention" in {node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node}
    found = quantize(str(minilm), tmp_path / "4.onnx", Quantization("weights4"), Trial(texts, ANY, (8,)))
    print("weights4", told(found, "embedding"))
    cosine = only(found, "embedding").mean_cosine
    assert cosine is not None
    assert cosine > 0.95


def test_efficientnet_in_dynamic_int8_is_slower_and_other_and_so_refused(
    emoji: tuple[Path, JobRows], tmp_path: Path
) -> None:
    model, rows = emoji
    few = Trial(JobRows(rows.job, 32), Gates(min_agreement=0.9), (4,))
    with pytest.raises(GateError, match=r"min-agreement(.|\n)*min-speedup") as refused:
        quantize(str(model), tmp_path / "b.onnx", Quantization("dynamic"), few)
    print(refused.value)
    assert not (tmp_path / "b.onnx").exists()


def test_efficientnet_in_static_int8_is_calibrated_on_200_emoji(
    emoji: tuple[Path, JobRows], tmp_path: Path
) -> None:
    model, rows = emoji
    trial = Trial(rows, Gates(min_agreement=0.6, min_speedup=0), (8,))
    found = quantize(str(model), tmp_path / "b.onnx", Quantization("static"), trial)
    print("static", told(found, "logits"))
    assert "calibrated on 200 other rows of the job" in found.notes
    assert only(found, "seen").label_agreement == only(found, "logits").label_agreement
    assert found.b.bytes < 0.35 * found.a.bytes
    per_tensor = Quantization("static", per_channel=False)
    with pytest.raises(GateError, match="min-agreement") as refused:
        quantize(str(model), tmp_path / "c.onnx", per_tensor, trial)
    print(refused.value)


def test_efficientnet_in_onnx_runtime_s_format_is_portable_or_fast(
    emoji: tuple[Path, JobRows], tmp_path: Path
) -> None:
    model, rows = emoji
    few = JobRows(rows.job, 32)
    close = Trial(JobRows(rows.job, 200), Gates(max_diff=1e-5), (8,))
    portable = convert(str(model), tmp_path / "portable.ort", trial=close)
    print("portable", portable.speedup, only(portable, "logits").max_diff)
    assert portable.speedup is not None
    same = Trial(few, Gates(max_diff=0), (8,))
    here = convert(str(model), tmp_path / "here.ort", Form(this_cpu=True), same)
    print("this cpu", here.speedup)
    assert any("for this kind of CPU" in note for note in here.notes)
    assert "batchonnx.cpu" in open_model(str(tmp_path / "here.ort")).signature.metadata


def test_a_folder_becomes_a_small_model_s_job_by_the_commands_that_are_shown(
    jobs: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = minilm_folder()
    fetched(jobs, script, "get_glosses.py")
    shutil.copytree(source, tmp_path / "minilm")
    glosses = pq.read_table(jobs / "data" / "glosses.parquet").slice(0, 1000)
    pq.write_table(glosses, tmp_path / "glosses.parquet")
    monkeypatch.chdir(tmp_path)
    for line in re.findall(r"^batchonnx .*", section(MODELS, "From a folder to a job"), re.MULTILINE):
        done = CliRunner().invoke(main, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.output}"
    report = json.loads((tmp_path / "m" / "int8.onnx.comparison.json").read_text())
    (parity,) = report["parity"]
    assert report["rows"] == 1000
    assert parity["mean_cosine"] > 0.98
    assert report["b"]["bytes"] < 0.3 * report["a"]["bytes"]
    plan = api.plan(tmp_path / "m" / "int8.job.yaml")
    assert [step.step for step in steps_of(plan.model)] == ["export", "optimize", "quantize"]
    assert api.verify(plan.output).rows_in == 1000
