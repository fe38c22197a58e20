"""`image`, `audio` and `scan` held against model and data: what is left out is settled, misfits are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import ContractError
from batchonnx.job.load import job_from_dict
from batchonnx.planning.bindings import AudioColumn, ImageColumn
from batchonnx.planning.image_preset import read_preset
from batchonnx.planning.plan import Plan
from batchonnx.report.plan_view import format_plan
from tests import models
from tests.models import Dims

VIT = {
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CLIP = VIT | {"size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "crop_size": 224}


def plan(
    folder: Path,
    feature: dict[str, Any],
    shape: Dims,
    dtype: str = "float32",
    *,
    column: pa.DataType | None = None,
) -> Plan:
    models.identity(folder / "m.onnx", dtype, shape)
    pq.write_table(pa.table({"c": pa.array([], column or pa.binary())}), folder / "in.parquet")
    job = {
        "model": {"path": "m.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"column": "c"} | feature},
        "output": {"path": "out"},
    }
    return batchonnx.plan(job_from_dict(job, folder=folder))


def image(folder: Path, asked: dict[str, Any], shape: Dims, dtype: str = "float32") -> ImageColumn:
    (feature,) = plan(folder, {"image": asked}, shape, dtype).features
    assert isinstance(feature, ImageColumn)
    return feature


@pytest.mark.parametrize(
    ("shape", "asked", "settled"),
    [
        (("n", 3, 16, 20), {}, ("exact", (16, 20), None, "RGB", True)),
        (("n", 16, 20, 3), {}, ("exact", (16, 20), None, "RGB", False)),
        (("n", 1, 16, 20), {}, ("exact", (16, 20), None, "L", True)),
        (("n", 3, None, None), {}, ("none", None, None, "RGB", True)),
        (("n", None, None, 3), {"size": 8}, ("exact", (8, 8), None, "RGB", False)),
        (("n", None, None, None), {"layout": "NHWC", "channels": "L"}, ("none", None, None, "L", False)),
        (("n", 3, 16, 20), {"resize": "shortest"}, ("shortest", (16, 20), 20, "RGB", True)),
        (("n", 3, 16, 20), {"resize": "shortest", "edge": 30}, ("shortest", (16, 20), 30, "RGB", True)),
        (("n", 3, None, None), {"resize": "shortest", "edge": 30}, ("shortest", None, 30, "RGB", True)),
        (
            ("n", 3, None, None),
            {"size": [4, 9], "resize": "letterbox"},
            ("letterbox", (4, 9), None, "RGB", True),
        ),
    ],
)
def test_what_is_left_out_the_model_s_input_tells(
    tmp_path: Path, shape: Dims, asked: dict[str, Any], settled: tuple[object, ...]
) -> None:
    pixels = image(tmp_path, asked, shape).pixels
    assert (pixels.resize, pixels.size, pixels.edge, pixels.channels, pixels.channels_first) == settled


def test_scale_mean_and_std_are_one_factor_and_one_offset(tmp_path: Path) -> None:
    pixels = image(tmp_path, {"mean": 0.5, "std": [0.1, 0.2, 0.4]}, ("n", 3, 8, 8)).pixels
    assert pixels.factor == pytest.approx((1 / 25.5, 1 / 51, 1 / 102))
    assert pixels.offset == pytest.approx((-5, -2.5, -1.25))


def test_an_input_of_bytes_gets_the_values_themselves(tmp_path: Path) -> None:
    assert image(tmp_path, {}, ("n", 3, 8, 8), "uint8").pixels.factor is None


@pytest.mark.parametrize(
    ("asked", "shape", "dtype", "title"),
    [
        ({}, ("n", 10), "float32", 'model input "x" takes no images'),
        ({}, ("n", 3, 8, 8), "int64", "images can't become int64"),
        ({"size": 9}, ("n", 3, 8, 8), "float32", "the model takes images of another size"),
        ({"channels": "L"}, ("n", 3, 8, 8), "float32", 'model input "x" takes 3 channels'),
        ({"resize": "exact"}, ("n", 3, None, None), "float32", "resize: exact needs to know to what"),
        ({"resize": "shortest"}, ("n", 3, None, None), "float32", "resize: shortest needs to know to what"),
        ({"mean": [1, 2]}, ("n", 3, 8, 8), "float32", "mean has not a value for each channel"),
        ({"std": 0.5}, ("n", 3, 8, 8), "uint8", "std makes fractions, uint8 has none"),
        ({"std": 1e-320}, ("n", 3, 8, 8), "float32", "what pixels are multiplied with is no number"),
        ({"preset": "gone.json"}, ("n", 3, 8, 8), "float32", "can't read the preset"),
        ({"folder": "gone"}, ("n", 3, 8, 8), "float32", "the folder that paths count from isn't there"),
    ],
)
def test_what_does_not_fit_is_told_before_a_row_is_read(
    tmp_path: Path, asked: dict[str, Any], shape: Dims, dtype: str, title: str
) -> None:
    with pytest.raises(ContractError) as caught:
        image(tmp_path, asked, shape, dtype)
    (problem,) = [p for p in caught.value.problems if p.title.startswith(title)]
    assert problem.fix


@pytest.mark.parametrize(
    ("column", "encoded"),
    [
        (pa.large_binary(), "bytes"),
        (pa.binary_view(), "bytes"),
        (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), "struct"),
        (pa.struct([("bytes", pa.binary())]), "struct"),
        (pa.string(), "paths"),
        (pa.dictionary(pa.int32(), pa.string()), "paths"),
        (pa.int64(), None),
        (pa.struct([("data", pa.binary())]), None),
        (pa.list_(pa.binary()), None),
    ],
)
def test_a_column_holds_bytes_a_struct_or_paths(
    tmp_path: Path, column: pa.DataType, encoded: str | None
) -> None:
    if encoded is None:
        with pytest.raises(ContractError, match='column "c" holds no encoded files'):
            plan(tmp_path, {"image": {}}, ("n", 3, 8, 8), column=column)
        return
    (feature,) = plan(tmp_path, {"image": {}}, ("n", 3, 8, 8), column=column).features
    assert isinstance(feature, ImageColumn)
    assert feature.encoded == encoded


class TestPreset:
    def read(self, folder: Path, said: object) -> dict[str, Any]:
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
        return read_preset(str(folder), "job")

    @pytest.mark.parametrize(
        ("said", "keys"),
        [
            (VIT, {"resize": "exact", "size": [224, 224], "resample": "bilinear"}),
            (VIT | {"size": 384}, {"resize": "exact", "size": [384, 384]}),
            (CLIP, {"resize": "shortest", "edge": 224, "size": [224, 224], "resample": "bicubic"}),
            (
                CLIP | {"size": 256, "feature_extractor_type": "CLIPFeatureExtractor"},
                {"resize": "shortest", "edge": 256, "size": [224, 224]},
            ),
            (VIT | {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, {"resize": "shortest", "edge": 256}),
            (
                VIT | {"size": {"shortest_edge": 384}, "crop_pct": 1.0},
                {"resize": "exact", "size": [384, 384]},
            ),
            (VIT | {"do_resize": False}, {"resize": "none"}),
            (VIT | {"do_rescale": False}, {"scale": 1.0}),
            (VIT, {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3, "background": "drop"}),
        ],
    )
    def test_it_says_what_the_processor_does(
        self, tmp_path: Path, said: dict[str, Any], keys: dict[str, Any]
    ) -> None:
        found = self.read(tmp_path, said)
        assert {key: found.get(key) for key in keys} == keys

    @pytest.mark.parametrize(
        ("said", "title"),
        [
            (VIT | {"do_pad": True}, "the preset has a step that `image` hasn't: do_pad"),
            (VIT | {"size": {"shortest_edge": 800, "longest_edge": 1333}}, "the preset says something"),
            (VIT | {"size": {"width": 3}}, "the preset says something"),
            (VIT | {"resample": 9}, "the preset says something"),
            ([], "the preset holds no object"),
        ],
    )
    def test_what_it_can_t_say_is_never_left_out_silently(
        self, tmp_path: Path, said: object, title: str
    ) -> None:
        with pytest.raises(ContractError) as caught:
            self.read(tmp_path, said)
        assert caught.value.problems[0].title.startswith(title)

    def test_the_job_s_own_keys_come_before_it(self, tmp_path: Path) -> None:
        self.read(tmp_path, CLIP)
        pixels = image(tmp_path, {"preset": ".", "resample": "box"}, ("n", 3, 224, 224)).pixels
        assert (pixels.resample, pixels.edge, pixels.background) == ("box", 224, None)

    def test_a_changed_preset_is_another_job(self, tmp_path: Path) -> None:
        fingerprints = set()
        for said in (VIT, VIT | {"image_mean": [0.4, 0.5, 0.5]}):
            self.read(tmp_path, said)
            fingerprints.add(plan(tmp_path, {"image": {"preset": "."}}, ("n", 3, 224, 224)).fingerprint)
        assert len(fingerprints) == 2


class TestAudio:
    @pytest.mark.parametrize(
        ("asked", "shape", "call"),
        [
            ({}, ("n", None), (None,)),
            ({}, ("n", 1, None), (1, None)),
            ({"samples": 50}, ("n", None), (50,)),
            ({"window": 50, "context": 7}, ("n", 57), (57,)),
            ({"window": 50}, ("n", 1, 50), (1, 50)),
        ],
    )
    def test_the_model_s_input_tells_the_shape_of_a_call(
        self, tmp_path: Path, asked: dict[str, Any], shape: Dims, call: tuple[int | None, ...]
    ) -> None:
        made = plan(tmp_path, {"audio": {"rate": 8_000} | asked}, shape)
        (feature,) = made.features
        assert isinstance(feature, AudioColumn)
        assert feature.row_shape == call
        assert "sounds at 8000 Hz" in format_plan(made)

    @pytest.mark.parametrize(
        ("asked", "shape", "dtype", "title"),
        [
            ({}, ("n", 2, None), "float32", 'model input "x" takes no sound'),
            ({}, ("n", None), "int16", "sounds can't become int16"),
            ({"window": 50}, ("n", 57), "float32", 'model input "x" takes 57 samples'),
        ],
    )
    def test_what_does_not_fit_is_told(
        self, tmp_path: Path, asked: dict[str, Any], shape: Dims, dtype: str, title: str
    ) -> None:
        with pytest.raises(ContractError) as caught:
            plan(tmp_path, {"audio": {"rate": 8_000} | asked}, shape, dtype)
        assert any(problem.title.startswith(title) for problem in caught.value.problems)


class TestScan:
    @pytest.mark.parametrize(
        ("scan", "audio", "title"),
        [
            ({"state": {"from": "after"}}, {}, "scan runs over windows, and no feature has any"),
            ({"stat": {"from": "after"}}, {"window": 4}, 'the model has no input "stat"'),
            ({"state": {"from": "y"}}, {"window": 4}, '"y" can\'t be fed back: it has another type'),
            ({"state": {"from": "aftr"}}, {"window": 4}, 'the model has no output "aftr"'),
            ({"state": {"from": "after", "batch_axis": 0}}, {"window": 4}, 'the state "state" has no shape'),
            ({"x": {"from": "after"}}, {"window": 4}, 'model input "x" is fed twice'),
        ],
    )
    def test_state_that_can_t_be_carried_is_told(
        self, tmp_path: Path, scan: dict[str, Any], audio: dict[str, Any], title: str
    ) -> None:
        from onnx import helper

        inputs = [models.value("x", "float32", ["n", 4]), models.value("state", "float32", [2, "n", 3])]
        outputs = [models.value("y", "int64", ["n", 4]), models.value("after", "float32", [2, "n", 3])]
        nodes = [
            helper.make_node("Cast", ["x"], ["y"], to=7),
            helper.make_node("Identity", ["state"], ["after"]),
        ]
        models.save(tmp_path / "m.onnx", nodes, inputs, outputs)
        pq.write_table(pa.table({"c": pa.array([], pa.binary())}), tmp_path / "in.parquet")
        job = {
            "model": {"path": "m.onnx"},
            "input": {"path": "in.parquet"},
            "features": {"x": {"column": "c", "audio": {"rate": 8_000} | audio}},
            "scan": scan,
            "output": {"path": "out"},
        }
        with pytest.raises(ContractError) as caught:
            batchonnx.plan(job_from_dict(job, folder=tmp_path))
        assert any(problem.title.startswith(title) for problem in caught.value.problems)
