"""The contract's result: how exactly each model input is fed and each output column is made.

Made by `contract.py` from job, model and schema; carried out by `scoring.encode` and
`scoring.decode`, which check nothing that was settled here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from batchonnx.job.spec import BytesWindow, Pool, Precision, Scalar
from batchonnx.runtime.signature import TensorSpec

RowShape = tuple[int | None, ...]
"""A row's shape without the batch axis; None: any length, the same for all rows of a batch."""


def told_shape(shape: RowShape) -> str:
    """For people: `[any, 3]`."""
    return "[" + ", ".join("any" if dim is None else str(dim) for dim in shape) + "]"


def fits(found: RowShape, wanted: RowShape) -> bool:
    """Whether rows of one shape can be rows of the other."""
    return len(found) == len(wanted) and all(
        a == b or a is None or b is None for a, b in zip(found, wanted, strict=True)
    )


@dataclass(frozen=True)
class StackedScalars:
    """Scalar columns -> [n, k]; one column alone may also be [n].

    row_shape: (k,) or, for one column, ().
    cast: integers may be lost (int64 -> float32); overflow is an error all the same.
    fill: what a null becomes; None: NaN for a float input, an error for any other.
    """

    input: TensorSpec
    columns: tuple[str, ...]
    row_shape: RowShape
    fill: Scalar | None = None
    cast: bool = False
    batch_axis: int = 0


@dataclass(frozen=True)
class TensorColumn:
    """A column of lists, nested lists, FixedSizeLists or FixedShapeTensors -> [n, *row_shape].

    row_shape: what the model wants for each row (or what the job's `shape` says); a flat list
        of as many elements is viewed in that shape.
    """

    input: TensorSpec
    column: str
    row_shape: RowShape
    fill: Scalar | None = None
    cast: bool = False
    batch_axis: int = 0


@dataclass(frozen=True)
class BytesColumn:
    """A binary column -> [n, head + tail] integers."""

    input: TensorSpec
    column: str
    window: BytesWindow
    batch_axis: int = 0


Encoded = Literal["bytes", "struct", "paths"]
"""What a column of images or sounds holds: their bytes, struct{bytes, path}, or paths and URLs."""


@dataclass(frozen=True)
class Pixels:
    """How an image becomes numbers; all that `image` leaves out is settled here.

    size: height and width; None: the image's own, or what `edge` makes of it. edge: of the shorter side,
        with resize "shortest". background: behind transparent pixels; None: dropped. border: beside a
        smaller image. channels, resample: as in the job file.
    factor, offset: each value becomes value * factor + offset, channel by channel; both None for
        an input of integers, which gets the values themselves.
    channels_first: [c, h, w], else [h, w, c].
    """

    size: tuple[int, int] | None
    resize: str
    edge: int | None
    resample: str
    channels: str
    background: tuple[int, int, int] | None
    border: tuple[int, int, int]
    factor: tuple[float, ...] | None
    offset: tuple[float, ...] | None
    channels_first: bool
    upright: bool
    draft: bool
    max_pixels: int


@dataclass(frozen=True)
class ImageColumn:
    """A column of encoded images -> [n, c, h, w] or [n, h, w, c].

    folder: where relative paths count from, absolute or a URL. is_framed: what is found in an image is told
        in its own pixels (see `scoring.frames`).
    """

    input: TensorSpec
    column: str
    encoded: Encoded
    folder: str
    pixels: Pixels
    batch_axis: int = 0
    is_framed: bool = False


@dataclass(frozen=True)
class Sound:
    """How a sound becomes numbers.

    rate: samples a second. samples: in one call, cut or filled up; None: all. window, hop, context: in
        samples; window None: one call for each row. first_channel: alone, in place of the mean.
    """

    rate: int
    samples: int | None
    window: int | None
    hop: int
    context: int
    first_channel: bool
    normalize: bool
    max_seconds: float


@dataclass(frozen=True)
class AudioColumn:
    """A column of encoded sounds -> [n, samples], or for each row its windows [windows, context + window].

    row_shape: of one call, one dimension longer where the model wants a channel. folder: where
    relative paths count from, absolute or a URL.
    """

    input: TensorSpec
    column: str
    encoded: Encoded
    folder: str
    sound: Sound
    row_shape: RowShape
    batch_axis: int = 0


@dataclass(frozen=True)
class TextColumn:
    """A column of texts, or two of pairs -> token ids [n, length], and as much of each other input.

    inputs: the ids first, then those of TOKEN_INPUTS that the model has. tokenizer: the bytes of its file.
    max_length: tokens of a text, special ones included; longer ones are cut, on the left if from_left.
    prefix: in front of the first text. fill: what a null becomes; None: a bad row.
    pad_id: what shorter texts are filled up with, to one of `lengths`; if there are none, nothing is padded,
    and the texts of a batch have one length.
    """

    inputs: tuple[TensorSpec, ...]
    columns: tuple[str, ...]
    tokenizer: bytes = field(repr=False)
    max_length: int
    from_left: bool
    prefix: str
    fill: str | None
    pad_id: int
    lengths: tuple[int, ...]
    batch_axis: int = 0


TOKEN_INPUTS = ("attention_mask", "token_type_ids", "position_ids")
"""What a tokenizer feeds beside the ids, where the model has inputs of these names."""


@dataclass(frozen=True)
class StateBinding:
    """A model input that is fed from an output of the call before; zeros at a row's first window.

    shape: of the input, with 0 where rows are counted.
    """

    input: TensorSpec
    output: TensorSpec
    shape: tuple[int, ...]
    batch_axis: int


@dataclass(frozen=True)
class Constant:
    """The same value for every row.

    value: of the input's dtype. per_row: repeated along the batch axis; else passed whole.
    """

    input: TensorSpec
    value: np.ndarray
    per_row: bool
    batch_axis: int = 0


@dataclass(frozen=True)
class HookFeature:
    """`python: module:function` -> one tensor, or a dict with all of `inputs`.

    row_shapes: what the model wants of each input for one row; None: unknown rank.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    columns: tuple[str, ...]
    function: str
    row_shapes: tuple[RowShape | None, ...]
    batch_axis: int = 0


FeatureBinding = (
    StackedScalars
    | TensorColumn
    | BytesColumn
    | ImageColumn
    | AudioColumn
    | TextColumn
    | Constant
    | HookFeature
)


def inputs_of(binding: FeatureBinding) -> tuple[TensorSpec, ...]:
    """The model inputs that a feature feeds."""
    return binding.inputs if isinstance(binding, HookFeature | TextColumn) else (binding.input,)


@dataclass(frozen=True)
class Counted:
    """Which of a row's values count: those where `by` isn't zero, or with is_length, the first so many.

    by: [batch, n], or [batch] with is_length: a model output, or with is_fed a model input.
    """

    by: TensorSpec
    is_length: bool
    is_fed: bool


@dataclass(frozen=True)
class Detection:
    """How candidates become objects; see `scoring.decode.boxes`.

    boxes, classes: the model outputs that hold them; None as in the job file, which the rest is from, too.
    in_image: boxes are told in the pixels of the framed feature's images, not as the model gives them.
    """

    boxes: TensorSpec | None
    classes: TensorSpec | None
    corners: str
    normalized: bool
    in_image: bool
    objectness: bool
    channels_first: bool
    min_score: float
    max_overlap: float
    across_classes: bool
    most: int


@dataclass(frozen=True)
class OutputBinding:
    """One column of predictions.

    source: the model output. others: more of them, of the same shape unless `function` is given them all;
        what is made of each is averaged. type: the Arrow type of the column; None until a first batch
        has been seen (a hook's result, a model output of unknown rank).
    row_shape: the model output's shape for one row, None dims depend on the row; None as a
        whole where the rank is unknown. Of what is pooled, without the tokens.
    pool, normalize, precision: as in the job file.
    labels: the classes' names, already read and of the right number.
    of_windows: the column has a list for each row, with what all of this makes of each of its windows.
    counted: the column has a list for each row, with what all of this makes of each of its values that count;
        row_shape is then one value's.
    detection: the column has a list of objects for each row.
    explode: the result has a line for each element of the column's lists; `type` is still the list's.
    is_placed: the best classes are known already (see `scoring.reduce`): `source` has their places, or with
        top_k their scores, and `others` the places; -1 where a row has none.
    """

    name: str
    source: TensorSpec
    type: pa.DataType | None
    row_shape: RowShape | None
    pool: Pool | None = None
    normalize: bool = False
    precision: Precision | None = None
    softmax: bool = False
    sigmoid: bool = False
    index: int | None = None
    argmax: bool = False
    top_k: int | None = None
    threshold: float | None = None
    labels: tuple[str, ...] | None = None
    function: str | None = None
    batch_axis: int = 0
    of_windows: bool = False
    others: tuple[TensorSpec, ...] = ()
    counted: Counted | None = None
    detection: Detection | None = None
    explode: bool = False
    is_placed: bool = False

    @property
    def values(self) -> tuple[TensorSpec, ...]:
        """The model outputs whose values are averaged, or handed to `function`."""
        return self.source, *self.others

    @property
    def sources(self) -> tuple[TensorSpec, ...]:
        """All model outputs that the column is made of, with those that say which values count."""
        found = [self.source, *self.others]
        if self.counted is not None and not self.counted.is_fed:
            found.append(self.counted.by)
        if self.detection is not None:
            found += [spec for spec in (self.detection.boxes, self.detection.classes) if spec is not None]
        return tuple(found)

    @property
    def value(self) -> str:
        """Name of what the column is made of: a model output, or what is pooled of it."""
        return self.source.name if self.pool is None else f"{self.source.name}, {self.pool}"

    def key(self, spec: TensorSpec) -> str:
        """The name under which what is made of one of `sources` is found."""
        return self.value if spec is self.source else spec.name
