"""The section `outputs`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.detect import Detect
from batchonnx.job.spec.section import Hook, Place, Section, rule

Pool = Literal["mean", "cls", "last"]
Precision = Literal["float16", "int8", "binary"]


class Output(Section):
    """How one model output becomes one column of predictions.

    The order of work: pool, normalize and precision; or softmax or sigmoid, the mean of several, then one of
    index, argmax or top_k, then threshold.
    """

    from_: str | Annotated[list[str], Field(min_length=2)] = Field(
        alias="from",
        description="The model output; of a list, the mean (after softmax or sigmoid), or what python is "
        "given.",
    )
    pool: Pool | None = Field(
        None,
        description="Of an output with a vector for each token, [batch, tokens, k]: their mean, the first "
        "one, or the last one; padding counts for nothing.",
    )
    normalize: bool = Field(False, description="Bring each row's vector to length 1.")
    precision: Precision | None = Field(
        None,
        description="How a vector's numbers are kept: float16; int8, each times 127, with normalize; binary, "
        "a bit for each that is positive, eight of them in a uint8.",
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
    mask: Place | None = Field(
        None,
        description="The model input or output, [batch, n], that says which of a row's n values count: the "
        "column is a list of what the other keys make of each.",
    )
    length: Place | None = Field(
        None, description="As mask, [batch]: the model input or output that says how many of them count."
    )
    detect: Detect | None = Field(None, description="Boxes and scores of a detector, as a list of objects.")
    explode: bool = Field(
        False, description="A line in the result for each element of the list, not for each row."
    )

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
        vectors = [k for k in ("pool", "normalize", "precision") if getattr(self, k)]
        steps = [*vectors, *scores, *picks, *(["threshold"] if self.threshold is not None else [])]
        if self.python is not None and steps:
            raise rule(
                "python goes alone",
                expected="from and python, without other steps",
                found=f"python with {', '.join(steps)}",
                fix=f"do it in the function, or leave python out (or {', '.join(steps)})",
                key="python",
            )
        if self.precision == "int8" and not self.normalize:
            raise rule(
                "int8 needs vectors of length 1",
                expected="normalize: true",
                found="precision: int8 alone",
                fix="add normalize: true, or keep the vectors as float16",
                key="precision",
            )
        if (self.normalize or self.precision) and (picks or scores or self.threshold is not None):
            other = [step for step in steps if step not in vectors] or ["threshold"]
            raise rule(
                f"{other[0]} goes with scores, not with a vector",
                expected="pool, normalize and precision alone",
                found=", ".join(steps),
                fix=f"leave {other[0]} out, or {vectors[-1]}",
                key=other[0],
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
        is_named = self.argmax or self.top_k or self.threshold is not None or self.detect is not None
        if self.labels is not None and not is_named:
            raise rule(
                "labels needs something to label",
                expected="labels with argmax, top_k, threshold or detect",
                found="labels alone" if not steps else f"labels with {', '.join(steps)}",
                fix="add argmax: true, or leave labels out",
                key="labels",
            )
        self._check_ragged(steps)
        return self

    def _check_ragged(self, steps: list[str]) -> None:
        if self.mask is not None and self.length is not None:
            fix = "keep one of them"
            raise rule("mask and length exclude each other", found="mask, length", fix=fix, key="length")
        lists = [key for key in ("mask", "length", "detect") if getattr(self, key) is not None]
        lists += ["from of several"] if not isinstance(self.from_, str) else []
        vectors = [key for key in ("pool", "normalize", "precision") if getattr(self, key)]
        if vectors and lists:
            raise rule(
                f"{vectors[0]} is of one output, a vector for each row",
                expected="from one output, without mask, length and detect",
                found=f"{vectors[0]} with {', '.join(lists)}",
                fix=f"leave out {vectors[0]}, or {', '.join(lists)}",
                key=vectors[0],
            )
        several = ["from of several"] if not isinstance(self.from_, str) else []
        beside = [step for step in steps if step not in ("softmax", "sigmoid")]
        beside += several + ["mask"] * (self.mask is not None) + ["python"] * (self.python is not None)
        if self.detect is not None and beside:
            raise rule(
                "detect goes without other steps",
                expected="softmax, sigmoid, length or labels beside it",
                found=f"detect with {', '.join(beside)}",
                fix=f"leave out {', '.join(beside)}",
                key="detect",
            )
