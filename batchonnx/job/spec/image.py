"""`image` of a feature: how an encoded image becomes a tensor."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.section import Place, Section, rule

Side = Annotated[int, Field(ge=1, le=65_535)]
Color = Annotated[
    list[Annotated[int, Field(ge=0, le=255)]],
    Field(min_length=3, max_length=3, description="[red, green, blue], each from 0 to 255"),
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PerChannel = Finite | Annotated[list[Finite], Field(min_length=1, max_length=3)]

Resize = Literal["exact", "shortest", "letterbox", "none"]
Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Channels = Literal["RGB", "BGR", "L"]
Layout = Literal["NCHW", "NHWC"]

PIXELS = 89_478_485
"""Pillow's own limit for an image that is no attack: a quarter of a GiB at 24 bits."""


class Image(Section):
    """An encoded image as a tensor, in this order: decode, turn upright, resize, crop or pad, scale."""

    preset: Place | None = Field(
        None,
        description="A Hugging Face `preprocessor_config.json`, or its folder: what it says stands for the "
        "keys that are left out here.",
    )
    folder: Place | None = Field(
        None,
        description="With paths in the column: where relative ones count from. Left out: the job's folder.",
    )
    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[height, width], or one number for both. Left out: what the model's input has."
    )
    resize: Resize | None = Field(
        None,
        description="exact: to `size`, proportions lost (default). shortest: the shorter side to `edge`, "
        "then the middle of `size`. letterbox: as large as fits into `size`, the rest `border`. none: not at "
        "all.",
    )
    edge: Side | None = Field(
        None,
        description="With resize: shortest, the length of the shorter side. Left out: `size`'s longer one.",
    )
    resample: Resample | None = Field(None, description="Pillow's filter, bilinear if left out.")
    channels: Channels | None = Field(
        None, description="Left out: RGB for a model of three channels, L (grey) for one."
    )
    background: Color | Literal["drop"] | None = Field(
        None,
        description="What shows through transparent pixels, white if left out. drop: the colours beneath, as "
        'Pillow\'s convert("RGB") gives them.',
    )
    border: Color | None = Field(None, description="Beside a smaller image, black if left out.")
    scale: Finite | None = Field(
        None,
        description="Each value times this, 1/255 if left out; then mean and std. Not for integer inputs.",
    )
    mean: PerChannel | None = Field(
        None, description="Taken off after scaling, one for each channel or for all."
    )
    std: PerChannel | None = Field(None, description="Divided by, one for each channel or for all.")
    layout: Layout | None = Field(None, description="Left out: as the model's input shows.")
    upright: bool = Field(True, description="Turn the image as its EXIF orientation says.")
    draft: bool = Field(
        False,
        description="Let JPEG decode at a half, a quarter or an eighth where that is still large enough. "
        "Faster, and not quite the same pixels.",
    )
    max_pixels: int = Field(
        PIXELS, ge=1, le=2 * PIXELS, description="Images of more pixels are bad rows, and never decoded."
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.edge is not None and self.resize not in (None, "shortest"):
            raise rule(
                "edge goes with resize: shortest only",
                expected="resize: shortest",
                found=f"resize: {self.resize}",
                fix="leave edge out, or say resize: shortest",
                key="edge",
            )
        if self.std is not None and 0 in (self.std if isinstance(self.std, list) else [self.std]):
            raise rule(
                "std divides, so it can't be 0", found="0", fix="name the model's own deviations", key="std"
            )
        return self
