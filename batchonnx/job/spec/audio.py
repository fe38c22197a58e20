"""`audio` of a feature: how an encoded sound becomes a tensor; `scan`: what goes from window to window."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.section import Place, Section, rule

Samples = Annotated[int, Field(ge=1)]


class Audio(Section):
    """An encoded sound as a tensor, in this order: decode, make it mono, resample, normalize, cut."""

    rate: Annotated[int, Field(ge=1, le=768_000)] = Field(
        description="Samples a second, as the model wants them; sounds of another rate are resampled."
    )
    folder: Place | None = Field(
        None,
        description="With paths in the column: where relative ones count from. Left out: the job's folder.",
    )
    samples: Samples | None = Field(
        None, description="So many for each row: longer sounds are cut, shorter ones end in silence."
    )
    window: Samples | None = Field(
        None,
        description="Samples that the model takes in one call: it is run over each row's windows, the last "
        "one filled up with silence, and gives a list for each row.",
    )
    hop: Samples | None = Field(
        None, description="With window: from one window's beginning to the next one's. Left out: `window`."
    )
    context: Annotated[int, Field(ge=0)] = Field(
        0,
        description="With window: so many samples from before it are put in front; silence before the first.",
    )
    mono: Literal["mean", "first"] = Field(
        "mean", description="Of several channels: their mean, or the first."
    )
    normalize: bool = Field(False, description="Bring each sound to mean 0 and variance 1.")
    max_seconds: Annotated[float, Field(gt=0)] = Field(
        3600, description="Longer sounds are bad rows, and never decoded."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.samples is not None and self.window is not None:
            raise rule(
                "samples and window exclude each other",
                found="both",
                fix="keep samples for one call a row, window for many",
                key="window",
            )
        for key in ("hop", "context"):
            if getattr(self, key) and self.window is None:
                raise rule(
                    f"{key} goes with window only",
                    expected="window: samples in one call",
                    found=f"{key} without window",
                    fix=f"add window, or leave {key} out",
                    key=key,
                )
        return self


class State(Section):
    """One model input that carries state: zeros at a row's first window, then what the model gave."""

    from_: str = Field(alias="from", description="The model output that is fed back.")
    batch_axis: int | None = Field(
        None, ge=0, description="The axis that counts rows. Left out: the only one whose size is left open."
    )
