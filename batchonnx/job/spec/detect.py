"""What `detect` of an output says: boxes and scores of a detector as the objects that it has found."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.section import Place, Section, rule

Fraction = Annotated[float, Field(ge=0, le=1)] | Annotated[int, Field(ge=0, le=1)]


class Detect(Section):
    """How candidates become objects: the best class of each, a least score, no two boxes of one object."""

    boxes: Place | None = Field(
        None,
        description="The model output with boxes, [batch, n, 4]. Left out: they are the first four values of "
        "each candidate, in front of its scores.",
    )
    classes: Place | None = Field(
        None,
        description="The model output with each box's class, [batch, n]. Left out: the best score's place.",
    )
    corners: Literal["both", "center", "first"] = Field(
        "both",
        description="What a box's four values are: both corners (x, y, x, y), the center and the size, or "
        "the first corner and the size.",
    )
    normalized: bool = Field(
        False, description="The model gives boxes as shares of its input's width and height, from 0 to 1."
    )
    coordinates: Literal["image", "model"] | None = Field(
        None,
        description="What boxes are told in: the pixels of the image as it was before it was resized, or "
        "what the model gives. Left out: image, where a feature is made of images.",
    )
    objectness: bool = Field(
        False, description="Without boxes: a fifth value, in front of the scores, is multiplied with each."
    )
    channels_first: bool = Field(False, description="Candidates lie along the last axis: [batch, values, n].")
    min_score: Fraction = Field(0.25, description="The least score of an object.")
    max_overlap: Fraction = Field(
        0.5,
        description="Of two boxes of one class that share more of their union, only the better one is kept.",
    )
    across_classes: bool = Field(False, description="Boxes of different classes are held against each other.")
    most: Annotated[int, Field(ge=1)] = Field(300, description="Objects of a row: the best ones.")

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        if self.objectness and self.boxes is not None:
            raise rule(
                "objectness stands between boxes and scores",
                expected="one output with boxes, objectness and scores",
                found=f"boxes: {self.boxes}",
                fix="leave boxes out, or objectness",
                key="objectness",
            )
        return self
