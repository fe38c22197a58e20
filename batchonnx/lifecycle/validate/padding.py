"""Whether an answer changes when a row is padded: what batches of rows of several lengths rely on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from batchonnx.lifecycle.contender import Contender, Values, arrays
from batchonnx.lifecycle.feed import Feed
from batchonnx.lifecycle.tensor_feed import batch_axis, batch_dim
from batchonnx.lifecycle.validate.verdict import Check
from batchonnx.runtime.session import PredictError
from batchonnx.runtime.signature import Dim, TensorSpec
from batchonnx.scoring.neighbours import ROUNDING, split_difference

PADDING = 3
"""Values of zero behind each row."""


def check_padding(contender: Contender, feed: Feed, ran: Mapping[int, Values]) -> Iterator[Check]:
    """For each symbolic axis beside the batch: pad one row along it with zeros, and compare.

    An input with "mask" in its name is padded with zeros, too, and so tells the model what is padding.
    """
    inputs = contender.signature.inputs
    batch = batch_dim({spec.name: spec.shape or () for spec in inputs})
    size = feed.fixed_batch or 1
    for dim, places in _open_axes(inputs, batch).items():
        tensors = feed.tensors(0, size)
        padded = {name: _padded(value, places.get(name, ())) for name, value in tensors.items()}
        named = f'"{dim}"' if dim else "without a name"
        try:
            found = arrays(contender.run(padded))
        except PredictError:
            yield Check("padding", "note", f"the axis {named} can't be padded: the model then fails")
            continue
        yield _judged(arrays(ran[size]), found, named, any("mask" in name.lower() for name in places))


def row_axis(ran: Mapping[int, Values], name: str) -> int | None:
    """The axis of an output that is as long as its batch, at every size that was run; None if there is
    none."""
    shapes = {size: np.shape(arrays(values)[name]) for size, values in ran.items() if name in arrays(values)}
    if len({len(shape) for shape in shapes.values()}) != 1:
        return None
    ranks = range(len(next(iter(shapes.values()))))
    return next((axis for axis in ranks if all(shape[axis] == size for size, shape in shapes.items())), None)


def _judged(
    before: Mapping[str, np.ndarray], padded: Mapping[str, np.ndarray], named: str, has_mask: bool
) -> Check:
    worst, where = -1.0, ""
    for name, value in before.items():
        cut = _cut(padded[name], value.shape)
        difference = split_difference(value, [cut], 0) if cut is not None and value.ndim else None
        if difference is not None and difference > worst:
            worst, where = difference, name
    if worst < 0:
        return Check("padding", "unknown", f"no output can be compared once the axis {named} is padded")
    if worst <= ROUNDING:
        return Check("padding", "ok", f"padding along the axis {named} changes nothing ({worst:.2g} apart)")
    told = f'along the axis {named} changes output "{where}" by {worst:.3g} of its largest value'
    if has_mask:
        return Check("padding", "warning", f"padding leaks: in spite of the mask, padding {told}")
    return Check("padding", "note", f"padding {told}, and no input masks it: batch rows of one length only")


def _open_axes(inputs: Sequence[TensorSpec], batch: Dim) -> dict[str, dict[str, tuple[int, ...]]]:
    """Symbol -> input -> its axes of that symbol, without the batch; axes without a name belong together."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for spec in inputs:
        shape = spec.shape or ()
        rows = batch_axis(shape, batch)
        for axis, dim in enumerate(shape):
            if axis != rows and not isinstance(dim, int) and spec.kind == "tensor":
                places = found.setdefault(dim or "", {})
                places[spec.name] = (*places.get(spec.name, ()), axis)
    return found


def _padded(value: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    if not axes:
        return value
    widths = [(0, PADDING if axis in axes else 0) for axis in range(value.ndim)]
    fill = "" if value.dtype == object else value.dtype.type(0)
    return np.ascontiguousarray(np.pad(value, widths, constant_values=fill))


def _cut(padded: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The part that was there without padding; None if the output has changed in another way."""
    if padded.ndim != len(shape) or any(now < then for now, then in zip(padded.shape, shape, strict=True)):
        return None
    return padded[tuple(slice(0, size) for size in shape)]
