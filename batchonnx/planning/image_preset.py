"""A Hugging Face `preprocessor_config.json` in the words of `image`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from batchonnx.errors import BatchonnxError, ContractError, Problem
from batchonnx.storage.paths import open_input

FILE_NAME = "preprocessor_config.json"

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers, which these files hold."""

_KNOWN = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
_CONVNEXT_SIDE = 384
"""Below this shorter side, ConvNeXT's processor crops: an image is made larger first by 1 / crop_pct."""


def read_preset(path: str, where: str) -> dict[str, Any]:
    """The keys of `image` that the file decides. path: of the file or its folder; absolute, or a URL.

    where: the place in the job file. Raises ContractError for a file that can't be read and for steps
    that `image` doesn't know: none is left out silently.
    """
    if not path.endswith(".json"):
        path = f"{path.rstrip('/')}/{FILE_NAME}"
    facts = {"job": where, "file": path}
    try:
        with open_input(path) as file:
            said = json.loads(bytes(file.read()))
    except BatchonnxError as error:
        title = f"can't read the preset: {error.problems[0].title}"
        raise ContractError(Problem(title, facts, "correct the path")) from error
    except (ValueError, RecursionError) as error:
        fix = f"name the model's {FILE_NAME}"
        raise ContractError(Problem(f"the preset is no JSON ({error})", facts, fix)) from error
    if not isinstance(said, dict):
        fix = f"name the model's {FILE_NAME}"
        raise ContractError(Problem("the preset holds no object", facts, fix))
    unknown = sorted(
        key for key, value in said.items() if key.startswith("do_") and value and key not in _KNOWN
    )
    if unknown:
        facts["found"] = ", ".join(f"{key}: {json.dumps(said[key])}" for key in unknown)
        fix = "write the keys of `image` out in place of preset, where they can do the same"
        raise ContractError(Problem(f"the preset has a step that `image` hasn't: {unknown[0]}", facts, fix))
    try:
        return {**_geometry(said), **_values(said)}
    except (KeyError, TypeError, ValueError) as error:
        facts["found"] = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        fix = "write the keys of `image` out in place of preset"
        raise ContractError(Problem("the preset says something that `image` can't", facts, fix)) from error


def _geometry(said: Mapping[str, Any]) -> dict[str, Any]:
    """size, resize, edge and resample."""
    crop = _sides(said.get("crop_size")) if said.get("do_center_crop") else None
    keys: dict[str, Any] = {"resize": "none"} | ({"size": crop} if crop is not None else {})
    if not said.get("do_resize"):
        return keys
    keys["resample"] = _RESAMPLE[said["resample"]]
    size = said["size"]
    if isinstance(size, int) and crop is not None and "CLIP" in _processor(said):
        size = {"shortest_edge": size}
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    if isinstance(size, dict) and "longest_edge" in size:
        raise ValueError(f"size: {json.dumps(size)}")
    if shortest is None and crop is None:
        return keys | {"resize": "exact", "size": _sides(size)}
    if shortest is None:
        if _sides(size) != crop:
            raise ValueError(f"size: {json.dumps(size)} with crop_size: {json.dumps(said.get('crop_size'))}")
        return keys | {"resize": "exact", "size": crop}
    if "crop_pct" in said:  # ConvNeXT's own way
        if shortest >= _CONVNEXT_SIDE:
            return keys | {"resize": "exact", "size": [shortest, shortest]}
        edge = int(shortest / (said["crop_pct"] or 224 / 256))
        return keys | {"resize": "shortest", "edge": edge, "size": [shortest, shortest]}
    return keys | {"resize": "shortest", "edge": int(shortest)}


def _processor(said: Mapping[str, Any]) -> str:
    """The class that the file is for: with `size: 224` some mean both sides, CLIP's the shorter one."""
    return str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")


def _values(said: Mapping[str, Any]) -> dict[str, Any]:
    """scale, mean, std and how transparency goes."""
    keys: dict[str, Any] = {
        "scale": said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0,
        "background": "drop",
    }
    if said.get("do_normalize"):
        keys |= {"mean": _numbers(said["image_mean"]), "std": _numbers(said["image_std"])}
    return keys


def _sides(size: Any) -> list[int]:
    """Height and width."""
    if isinstance(size, dict):
        return [int(size["height"]), int(size["width"])]
    if isinstance(size, list):
        return [int(side) for side in size]
    return [int(size), int(size)]


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in (values if isinstance(values, list) else [values])]
