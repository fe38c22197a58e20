"""`image`: what the job says and what the model's input shows, as one way from image to numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import Feature, Image, JobFile
from batchonnx.planning.bindings import FeatureBinding, ImageColumn, OutputBinding, Pixels, RowShape
from batchonnx.planning.encoded import FLOATS, encoded_as, folder_of, require
from batchonnx.planning.image_preset import read_preset
from batchonnx.runtime.signature import TensorSpec

_CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def bind_image(
    spec: TensorSpec, feature: Feature, job: JobFile, arrow_type: pa.DataType, wanted: RowShape | None
) -> ImageColumn:
    """Bind a column of images. wanted: the model's shape for one row; None: unknown rank.

    Raises ContractError for what doesn't fit together, DependencyError without Pillow.
    """
    assert feature.image is not None
    assert feature.column is not None
    where = f"features.{spec.name}"
    require("PIL", "image", job.where(f"{where}.image"))
    encoded = encoded_as(arrow_type, feature.column, job.where(f"{where}.column"))
    asked = feature.image
    if asked.preset is not None:
        asked = _with_preset(asked, job, where)
    pixels = _settle(asked, spec, wanted, job, where)
    return ImageColumn(
        spec,
        feature.column,
        encoded,
        folder_of(asked.folder, job, f"{where}.image.folder"),
        pixels,
        feature.batch_axis,
    )


def framed(features: Iterable[FeatureBinding], outputs: Iterable[OutputBinding]) -> list[FeatureBinding]:
    """The features, those of images framed where an output tells boxes in an image's pixels."""
    if not any(binding.detection is not None and binding.detection.in_image for binding in outputs):
        return list(features)
    return [
        dataclasses.replace(one, is_framed=True) if isinstance(one, ImageColumn) else one for one in features
    ]


def _with_preset(asked: Image, job: JobFile, where: str) -> Image:
    """What the preset says, and over it what the job says."""
    assert asked.preset is not None
    preset = read_preset(job.resolve(asked.preset), job.where(f"{where}.image.preset"))
    said = {key: getattr(asked, key) for key in asked.model_fields_set}
    return Image.model_validate({**preset, **said})


def _settle(asked: Image, spec: TensorSpec, wanted: RowShape | None, job: JobFile, where: str) -> Pixels:
    """Every key of `image` as a value, held against the model's input."""
    facts = {"job": job.where(f"{where}.image"), "model": str(spec)}
    if wanted is not None and len(wanted) != 3:
        facts["expected"] = "[batch, channels, height, width] or [batch, height, width, channels]"
        fix = "name the input that takes images, or make the tensor in a function: python: module:function"
        raise ContractError(Problem(f'model input "{spec.name}" takes no images', facts, fix))
    if spec.dtype not in (*FLOATS, "uint8"):
        facts["expected"] = ", ".join((*FLOATS, "uint8"))
        fix = "export the model with such an input, or make the tensor in a function: python: module:function"
        raise ContractError(Problem(f'images can\'t become {spec.dtype} for "{spec.name}"', facts, fix))
    channels_first = _channels_first(asked, wanted, facts)
    found, height, width = _dims(wanted, channels_first)
    channels = asked.channels or ("L" if found == 1 else "RGB")
    if found not in (None, _CHANNELS[channels]):
        facts["found"] = f"{channels}: {_CHANNELS[channels]} channels"
        fix = f"correct {where}.image.channels or {where}.image.layout"
        raise ContractError(Problem(f'model input "{spec.name}" takes {found} channels', facts, fix))
    size = _size(asked, height, width, facts, where)
    resize = asked.resize or ("exact" if size is not None else "none")
    if size is None and (resize in ("exact", "letterbox") or (resize == "shortest" and asked.edge is None)):
        facts["expected"] = "a size: the model's input leaves height and width open"
        raise ContractError(
            Problem(f"resize: {resize} needs to know to what", facts, f"set {where}.image.size")
        )
    factor, offset = _factors(asked, spec, _CHANNELS[channels], facts, where)
    background = _WHITE if asked.background is None else _color(asked.background)
    return Pixels(
        size=size,
        resize=resize,
        edge=(asked.edge or max(size or (0,))) if resize == "shortest" else None,
        resample=asked.resample or "bilinear",
        channels=channels,
        background=background,
        border=_color(asked.border) or _BLACK,
        factor=factor,
        offset=offset,
        channels_first=channels_first,
        upright=asked.upright,
        draft=asked.draft,
        max_pixels=asked.max_pixels,
    )


def _channels_first(asked: Image, wanted: RowShape | None, facts: dict[str, str]) -> bool:
    if asked.layout is not None:
        return asked.layout == "NCHW"
    if wanted is None or wanted[0] in (1, 3):
        return True
    if wanted[2] in (1, 3):
        return False
    if None in (wanted[0], wanted[2]):
        return wanted[0] is None
    facts["expected"] = "1 or 3 channels, in front of or behind height and width"
    raise ContractError(
        Problem("the model's input has no axis for channels", facts, "name the input that takes images")
    )


def _dims(wanted: RowShape | None, channels_first: bool) -> tuple[int | None, int | None, int | None]:
    """Channels, height and width that the model wants; None: any."""
    if wanted is None:
        return None, None, None
    first, second, third = wanted
    return (first, second, third) if channels_first else (third, first, second)


def _size(
    asked: Image, height: int | None, width: int | None, facts: dict[str, str], where: str
) -> tuple[int, int] | None:
    if asked.size is None:
        return (height, width) if height is not None and width is not None else None
    size = (asked.size, asked.size) if isinstance(asked.size, int) else (asked.size[0], asked.size[1])
    if any(want not in (None, got) for got, want in zip(size, (height, width), strict=True)):
        facts["found"] = f"size: {list(size)}"
        fix = f"correct {where}.image.size, or leave it out"
        raise ContractError(Problem("the model takes images of another size", facts, fix))
    return size


def _factors(
    asked: Image, spec: TensorSpec, channels: int, facts: dict[str, str], where: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """value * factor + offset for scale, mean and std."""
    if spec.dtype not in FLOATS:
        given = [key for key in ("scale", "mean", "std") if getattr(asked, key) is not None]
        if given:
            facts["found"] = ", ".join(given)
            fix = f"leave {given[0]} out, of the preset too: the model takes whole values from 0 to 255"
            raise ContractError(Problem(f"{given[0]} makes fractions, {spec.dtype} has none", facts, fix))
        return None, None
    scale = 1 / 255 if asked.scale is None else asked.scale
    mean, std = (
        _per_channel(value, default, channels, key, facts, where)
        for key, value, default in (("mean", asked.mean, 0.0), ("std", asked.std, 1.0))
    )
    factor = tuple(scale / deviation for deviation in std)
    # As `write_values` multiplies.
    if not np.isfinite(np.array(factor, np.promote_types(spec.dtype, np.float32))).all():
        facts["found"] = f"scale {scale:g} ÷ std {', '.join(f'{deviation:g}' for deviation in std)}"
        fix = f"correct {where}.image.scale or {where}.image.std"
        raise ContractError(
            Problem("what pixels are multiplied with is no number of the model's", facts, fix)
        )
    return factor, tuple(-middle / deviation for middle, deviation in zip(mean, std, strict=True))


def _per_channel(
    value: Any, default: float, channels: int, key: str, facts: dict[str, str], where: str
) -> tuple[float, ...]:
    values = [default] if value is None else value if isinstance(value, list) else [value]
    if len(values) not in (1, channels):
        facts["expected"], facts["found"] = f"{channels} values, or one", f"{len(values)}"
        raise ContractError(
            Problem(f"{key} has not a value for each channel", facts, f"correct {where}.image.{key}")
        )
    return tuple(float(one) for one in (values * channels if len(values) == 1 else values))


def _color(asked: list[int] | str | None) -> tuple[int, int, int] | None:
    return (asked[0], asked[1], asked[2]) if isinstance(asked, list) else None
