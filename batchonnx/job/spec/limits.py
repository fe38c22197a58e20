"""The sections `errors` and `gate`: what may go wrong, and what a result has to be like."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.section import Section, Share, rule


class Errors(Section):
    """What may go wrong before the job does."""

    max_bad_rows: Annotated[int, Field(ge=0)] | Share = Field(
        0,
        description="Rows that can't be scored and go to quarantine, as a count or as a share of all rows "
        "(0.1%), before the run ends. 0: the first one ends it.",
    )


class Check(Section):
    """What a column of the result has to be like before it is published."""

    max_null: Share | None = Field(None, description="Share of rows that may be null or NaN.")
    min: float | None = Field(None, description="No value may be smaller.")
    max: float | None = Field(None, description="No value may be larger.")
    varies: bool = Field(False, description="Not all values may be the same.")
    max_psi: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="How far numbers may have moved since the published result: the population stability "
        "index over its deciles (0.1 is a small shift, 0.25 a large one).",
    )
    max_shift: Share | None = Field(
        None, description="How far any label's share of the rows may have moved since the published result."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self == Check.model_construct():
            raise rule(
                "a check that checks nothing",
                expected="max_null, min, max, varies, max_psi or max_shift",
                found="none of them",
                fix="say what the column has to be like, or leave it out",
            )
        return self
