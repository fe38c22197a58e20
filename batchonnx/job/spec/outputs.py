"""The section `outputs`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.section import Hook, Section, rule


class Output(Section):
    """How one model output becomes one column of predictions.

    The order of work: softmax or sigmoid, the mean of several, then one of index, argmax or top_k, then
    threshold.
    """

    from_: str | Annotated[list[str], Field(min_length=2)] = Field(
        alias="from",
        description="The model output; of a list, the mean (after softmax or sigmoid), or what python is "
        "given.",
    )
    softmax: bool = Field(False, description="Turn scores into shares over the last axis.")
    sigmoid: bool = Field(False, description="Turn scores into probabilities, each for itself.")
    index: int | None = Field(None, description="Take one element of each row; negative counts from the end.")
    argmax: bool = Field(False, description="The position (or label) of the largest element of each row.")
    top_k: int | None = Field(None, ge=1, description="The k largest elements, as a list of {label, score}.")
    threshold: float | None = Field(
        None, description="True (or the second label) where the value is at least this."
    )
    labels: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Names of the classes: a list, or a file with one a line; relative to the job file."
    )
    python: Hook | None = Field(
        None,
        description="module:function, given the output's array, returns an array with a row for each row.",
    )
    batch_axis: int = Field(0, ge=0, description="The model output's axis that counts rows.")

    @property
    def sources(self) -> tuple[str, ...]:
        """The model outputs that it is made of."""
        return (self.from_,) if isinstance(self.from_, str) else tuple(self.from_)

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        # By identity: `index: 0` equals False.
        picks = [
            k
            for k in ("index", "argmax", "top_k")
            if getattr(self, k) is not None and getattr(self, k) is not False
        ]
        scores = [k for k in ("softmax", "sigmoid") if getattr(self, k)]
        steps = [*scores, *picks, *(["threshold"] if self.threshold is not None else [])]
        if self.python is not None and steps:
            raise rule(
                "python goes alone",
                expected="from and python, without other steps",
                found=f"python with {', '.join(steps)}",
                fix=f"do it in the function, or leave python out (or {', '.join(steps)})",
                key="python",
            )
        for given, told in ((scores, "softmax and sigmoid"), (picks, "index, argmax and top_k")):
            if len(given) > 1:
                raise rule(
                    f"{told} exclude each other", found=", ".join(given), fix="keep one of them", key=given[1]
                )
        if self.threshold is not None and (self.argmax or self.top_k):
            raise rule(
                "threshold goes with a single value per row",
                expected="threshold with index, or with an output of one value per row",
                found=f"threshold with {picks[0]}",
                fix=f"leave out threshold or {picks[0]}, or take one value: index: 1",
                key="threshold",
            )
        if self.labels is not None and not (self.argmax or self.top_k or self.threshold is not None):
            raise rule(
                "labels needs something to label",
                expected="labels with argmax, top_k or threshold",
                found="labels alone" if not steps else f"labels with {', '.join(steps)}",
                fix="add argmax: true, or leave labels out",
                key="labels",
            )
        return self
