"""Tables of images and sounds as people have them: each row is scored, or put aside with its reason."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from onnx import helper
from PIL import Image

import batchonnx
from batchonnx.errors import RowError
from batchonnx.job.load import job_from_dict
from batchonnx.storage.s3 import s3_client, split_url
from tests import models
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

GREY = (40, 80, 120)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    return Image.new("RGB", size, GREY).convert(mode)


def sound(samples: int, rate: int = 8_000) -> bytes:
    file = io.BytesIO()
    values = np.sin(np.arange(samples) / 3).astype(np.float32)
    soundfile.write(file, values, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


FRAMES = [plain(), Image.new("RGB", (48, 32), "#ff0000")]

IMAGES: dict[str, tuple[bytes | None, str | None]] = {
    "RGB": (encoded(plain()), None),
    "RGBA": (encoded(plain("RGBA")), None),
    "palette": (encoded(plain("P")), None),
    "CMYK": (encoded(plain("CMYK"), "JPEG"), None),
    "animated": (encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True), None),
    "16 bit": (encoded(Image.fromarray(np.full((8, 8), 0x4F11, np.uint16))), None),
    "large": (encoded(plain(size=(3_000, 2_000))), None),
    "corrupt": (encoded(plain(size=(300, 300)), "JPEG")[:700], "image: a broken image: "),
    "no image": (b"<html>404 Not Found</html>", "image: not an image, or a broken one: it begins with "),
    "empty": (b"", "image: no bytes: the value is empty"),
    "null": (None, "image: null, a file is wanted"),
    "huge": (encoded(Image.new("1", (15_000, 15_000))), "image: "),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models of the mean over an image, and of the largest sample so far of a sound."""
    mean = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0)
    x = models.value("x", "float32", ["n", 3, 16, 16])
    models.save(tmp_path / "image.onnx", [mean], [x], [models.value("mean", "float32", ["n", 3])])
    nodes = [
        helper.make_node("Abs", ["x"], ["loud"]),
        helper.make_node("ReduceMax", ["loud"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Max", ["most", "before"], ["after"]),
        helper.make_node("Identity", ["after"], ["peak"]),
    ]
    inputs = [models.value("x", "float32", ["n", 100]), models.value("before", "float32", ["n", 1])]
    outputs = [models.value(name, "float32", ["n", 1]) for name in ("peak", "after")]
    models.save(tmp_path / "sound.onnx", nodes, inputs, outputs)
    return tmp_path


def quarantined(output: str) -> dict[str, str]:
    table = pq.read_table(Path(output) / "_batchonnx" / "quarantine")
    return dict(zip(table["name"].to_pylist(), table["batchonnx_error"].to_pylist(), strict=True))


def images_job(folder: Path, **errors: object) -> dict[str, object]:
    return {
        "model": {"path": "image.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"column": "image", "image": {}}},
        "keep": ["name"],
        "output": {"path": "out", "overwrite": True},
        "errors": errors,
    }


def test_every_image_is_scored_or_put_aside_with_its_reason(folder: Path) -> None:
    table = {"name": list(IMAGES), "image": pa.array([data for data, _ in IMAGES.values()], pa.binary())}
    pq.write_table(pa.table(table), folder / "in.parquet")
    summary = batchonnx.run(job_from_dict(images_job(folder, max_bad_rows=10), folder=folder))
    bad = {name: reason for name, (_, reason) in IMAGES.items() if reason is not None}
    assert (summary.predicted, summary.quarantined) == (len(IMAGES) - len(bad), len(bad))
    found = quarantined(summary.output)
    assert found.keys() == bad.keys()
    for name, reason in found.items():
        assert reason.startswith(bad[name])
    assert "pixels" in found["huge"]
    scored = pq.read_table(summary.output)
    assert scored["name"].to_pylist() == [name for name in IMAGES if name not in bad]
    for name, mean in zip(scored["name"].to_pylist(), scored["mean"].to_pylist(), strict=True):
        expected = [0x4F] * 3 if name == "16 bit" else GREY
        np.testing.assert_allclose(np.array(mean) * 255, expected, atol=4)
    batchonnx.verify(summary.output)


def test_without_a_budget_the_first_bad_image_ends_the_run_and_is_named(folder: Path) -> None:
    pq.write_table(pa.table({"name": ["a", "b"], "image": [IMAGES["RGB"][0], b"x"]}), folder / "in.parquet")
    with pytest.raises(RowError, match=r"row 1 of .*in\.parquet"):
        batchonnx.run(job_from_dict(images_job(folder), folder=folder))


def test_predictions_are_the_same_whatever_the_workers_and_the_bad_rows(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images = [encoded(Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))) for _ in range(200)]
    images[17] = images[130] = b"broken"
    table = pa.table({"name": [str(n) for n in range(200)], "image": images})
    pq.write_table(table, folder / "in.parquet", row_group_size=50)
    parts = []
    for workers in (1, 3):
        job = images_job(folder, max_bad_rows=2) | {"engine": {"workers": workers, "batch_rows": 8}}
        output = Path(batchonnx.run(job_from_dict(job, folder=folder)).output)
        parts.append({path.name: path.read_bytes() for path in output.glob("*.parquet")})
    assert parts[0] == parts[1]
    assert quarantined(str(folder / "out")).keys() == {"17", "130"}


SOUNDS: dict[str, tuple[bytes | None, str | None]] = {
    "one window": (sound(100), None),
    "three and a bit": (sound(310), None),
    "another rate": (sound(400, 16_000), None),
    "zero length": (sound(0), "audio: a sound of no length"),
    "no sound": (b"ID3 and nothing else", "audio: no sound that can be decoded: "),
    "empty": (b"", "audio: no bytes: the value is empty"),
    "null": (None, "audio: null, a file is wanted"),
}


def test_every_sound_is_scored_or_put_aside_with_its_reason(folder: Path) -> None:
    table = {"name": list(SOUNDS), "audio": pa.array([data for data, _ in SOUNDS.values()], pa.binary())}
    pq.write_table(pa.table(table), folder / "in.parquet")
    job = images_job(folder, max_bad_rows=10) | {
        "model": {"path": "sound.onnx"},
        "features": {"x": {"column": "audio", "audio": {"rate": 8_000, "window": 100}}},
        "scan": {"before": {"from": "after"}},
    }
    summary = batchonnx.run(job_from_dict(job, folder=folder))
    bad = {name: reason for name, (_, reason) in SOUNDS.items() if reason is not None}
    found = quarantined(summary.output)
    assert found.keys() == bad.keys()
    for name, reason in found.items():
        assert reason.startswith(bad[name])
    scored = pq.read_table(summary.output)
    peaks = dict(zip(scored["name"].to_pylist(), scored["peak"].to_pylist(), strict=True))
    assert {name: len(peak) for name, peak in peaks.items()} == {
        "one window": 1,
        "three and a bit": 4,
        "another rate": 2,
    }
    assert all(peak == sorted(peak) for peak in peaks.values()), "a maximum never falls"
    batchonnx.verify(summary.output)


def test_images_may_lie_in_a_bucket(folder: Path, s3: S3Server, s3_folder: str, use_store: UseStore) -> None:
    use_store(s3.access)
    paths = [f"{n}.png" for n in range(20)]
    for number, path in enumerate(paths):
        data = encoded(Image.new("RGB", (8, 8), (number, number, number)))
        bucket, key = split_url(f"{s3_folder}/{path}")
        s3_client().put(bucket, key, data)
    table = pa.table({"name": [*paths, "gone.png"], "image": [*paths, "gone.png"]})
    pq.write_table(table, folder / "in.parquet")
    job = images_job(folder, max_bad_rows=1)
    job["features"] = {"x": {"column": "image", "image": {"folder": s3_folder}}}
    summary = batchonnx.run(job_from_dict(job, folder=folder))
    scored = pq.read_table(summary.output)
    assert [round(mean[0] * 255) for mean in scored["mean"].to_pylist()] == list(range(20))
    assert quarantined(summary.output) == {"gone.png": f"image: no such file: {s3_folder}/gone.png"}


def test_a_path_that_leads_to_no_file_costs_one_row(folder: Path) -> None:
    (folder / "a.png").write_bytes(encoded(plain()))
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    paths = ["a.png", "pipe", "/dev/zero", "loop", "a\0b.png", "x" * 5_000, "a.png/b.png", "."]
    pq.write_table(pa.table({"name": paths, "image": paths}), folder / "in.parquet")
    summary = batchonnx.run(job_from_dict(images_job(folder, max_bad_rows=10), folder=folder))
    found = quarantined(summary.output)
    assert found.keys() == set(paths[1:])
    assert all(reason.startswith("image: no such file: ") for reason in found.values())


def test_images_of_any_size_are_scored_by_a_model_that_takes_any(folder: Path) -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0)
    x = models.value("x", "float32", ["n", 3, "h", "w"])
    models.save(folder / "image.onnx", [mean], [x], [models.value("mean", "float32", ["n", 3])])
    sizes = [(5, 7), (40, 3), (5, 7), (1, 1)] * 5
    images = [encoded(plain(size=size)) for size in sizes]
    pq.write_table(
        pa.table({"name": [str(n) for n in range(len(sizes))], "image": images}), folder / "in.parquet"
    )
    summary = batchonnx.run(job_from_dict(images_job(folder), folder=folder))
    assert (summary.predicted, summary.batch_rows) == (len(sizes), 1)
    means = np.array(pq.read_table(summary.output)["mean"].to_pylist())
    np.testing.assert_allclose(means * 255, [GREY] * len(sizes), atol=1e-3)
