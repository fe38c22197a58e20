"""Rows that are kept in a file of tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.errors import ContractError, InputError, Problem
from batchonnx.lifecycle.feed import GivenRows
from batchonnx.lifecycle.tensor_feed import Shapes, TensorFeed, batch_axis, batch_dim, is_numpy
from batchonnx.runtime.signature import ModelSignature


def read_npz(path: Path) -> GivenRows:
    """The arrays of an .npz file, by input name; no Python objects are loaded. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return GivenRows({name: file[name] for name in file.files}, path.name)
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        facts = {"file": str(path), "found": str(error)}
        fix = "write it with numpy.savez(path, **{input name: array}), of numbers or text"
        raise InputError(Problem("the file of inputs can't be read", facts, fix)) from error


def given_feeds(rows: GivenRows, signatures: Sequence[ModelSignature]) -> list[TensorFeed]:
    """The rows for each of the models. Raises ContractError naming an input that they don't fit."""
    return [_feed(rows, signature) for signature in signatures]


def _feed(rows: GivenRows, signature: ModelSignature) -> TensorFeed:
    counts = set()
    shapes: Shapes = {}
    if all(spec.kind == "tensor" for spec in signature.inputs):  # a sequence has no rows that could be cut
        shapes = {spec.name: spec.shape if spec.shape is not None else (None,) for spec in signature.inputs}
    batch = batch_dim(shapes)
    for spec in signature.inputs:
        value = rows.tensors.get(spec.name)
        if value is None:
            raise _misfit(rows, signature, f'no tensor for the model input "{spec.name}"', "none")
        if spec.kind == "tensor" and not is_numpy(spec.dtype):
            raise _misfit(rows, signature, f'numpy has no type for the model input "{spec.name}"', spec.dtype)
        if spec.shape is None or not shapes:
            continue
        sizes = np.shape(value)
        axis = batch_axis(spec.shape, batch)
        if len(sizes) != len(spec.shape) or any(
            isinstance(want, int) and want != size and place != axis
            for place, (want, size) in enumerate(zip(spec.shape, sizes, strict=True))
        ):
            raise _misfit(
                rows, signature, f'the tensor for "{spec.name}" has another shape', str(list(sizes))
            )
        if axis is not None:
            counts.add(sizes[axis])
    if len(counts) > 1:
        raise _misfit(rows, signature, "the tensors don't have the same number of rows", str(sorted(counts)))
    return TensorFeed(dict(rows.tensors), shapes, signature)


def _misfit(rows: GivenRows, signature: ModelSignature, title: str, found: Any) -> ContractError:
    facts = {
        "file": rows.source,
        "model": signature.path,
        "expected": ", ".join(map(str, signature.inputs)),
        "found": found,
    }
    return ContractError(Problem(title, facts, "keep one tensor for each input, of the model's shape"))
