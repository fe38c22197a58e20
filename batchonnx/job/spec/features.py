"""The section `features`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.audio import Audio
from batchonnx.job.spec.image import Image
from batchonnx.job.spec.section import Hook, Place, Scalar, Section, rule

_DECODED = {
    "bytes": "the binary column to take bytes of",
    "image": "the column with images or their paths",
    "audio": "the column with sounds or their paths",
}
"""Keys that say how values of one column are decoded -> the column that each wants."""


class BytesWindow(Section):
    """A binary column as integers: the first and last bytes of each value."""

    head: int = Field(0, ge=0, description="How many bytes from the front.")
    tail: int = Field(0, ge=0, description="How many bytes from the back, right-aligned.")
    window: int | None = Field(
        None, ge=1, description="Look only at so many bytes at each end (before stripping)."
    )
    strip: bool = Field(False, description="Leave out white space at the outer ends first.")
    pad: int = Field(256, description="Where there is no byte.")

    @model_validator(mode="after")
    def _some_bytes(self) -> Self:
        if self.head + self.tail == 0:
            raise rule(
                "no bytes are taken: head and tail are both 0",
                expected="head or tail above 0",
                found="head: 0, tail: 0",
                fix="say how many bytes to take from the front (head) and from the back (tail)",
            )
        return self


class Feature(Section):
    """How input columns become one model input: one of column, columns, value or python."""

    column: str | None = Field(None, description="One column: a scalar, a list or a tensor per row.")
    columns: list[str] | None = Field(
        None, min_length=1, description="Scalar columns, stacked to [batch, k]; or what `python` is given."
    )
    value: Scalar | list[Any] | None = Field(None, description="A constant, the same for every row.")
    python: Hook | None = Field(
        None,
        description="module:function, given a RecordBatch of columns, returns a tensor or a dict of them.",
    )
    inputs: list[str] | None = Field(
        None, min_length=1, description="With python: the model inputs that the function returns as a dict."
    )
    bytes: BytesWindow | None = Field(None, description="With column: a binary column as integers.")
    image: Image | None = Field(None, description="With column: encoded images, or paths to them.")
    audio: Audio | None = Field(None, description="With column: encoded sounds, or paths to them.")
    tokenizer: Place | None = Field(
        None,
        description="With column, or with two columns whose texts are pairs: a tokenizer.json, or the folder "
        "of a Hugging Face model. Feeds the token ids, and attention_mask, token_type_ids and position_ids "
        "where the model has them.",
    )
    max_length: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="With tokenizer: at most so many tokens, special ones included; longer texts are cut. "
        "Left out: what the model's input, its folder or the tokenizer itself says.",
    )
    truncate: Literal["right", "left"] | None = Field(
        None, description="With tokenizer: where a text that is too long is cut. Left out: right, at its end."
    )
    prefix: str | None = Field(
        None, description='With tokenizer: put in front of each text, like "query: "; of a pair, the first.'
    )
    pad: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="With tokenizer: the id that shorter texts are filled up with. Needed only where the "
        "model has no attention_mask; without it, texts of one length are then put together.",
    )
    shape: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="Each row's shape, where a flat list is to be seen as a tensor."
    )
    fill: Scalar | None = Field(None, description="What a null becomes. Floats need none: null is NaN.")
    cast: bool = Field(False, description="Allow a cast that can lose integers (int64 to float32, say).")
    batch_axis: int = Field(0, ge=0, description="The model input's axis that counts rows.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [k for k in ("column", "columns", "value") if getattr(self, k) is not None]
        if len(given) != 1:
            raise rule(
                "a feature comes from exactly one of column, columns and value",
                expected="one of column, columns, value",
                found=", ".join(given) or "none of them",
                fix="keep one of them" if given else "say which column it is: column: NAME",
            )
        if self.python is not None and self.columns is None:
            raise rule(
                "python needs columns",
                expected="columns: the list of columns that the function is given",
                found=given[0],
                fix=f"replace {given[0]} by columns: [NAME, ...]",
                key="python",
            )
        if self.inputs is not None and self.python is None:
            raise rule(
                "inputs goes with python only",
                expected="python: module:function, which returns a dict of these inputs",
                found="inputs without python",
                fix="add python, or leave inputs out and write a feature for each input",
                key="inputs",
            )
        self._check_decoded(given[0])
        return self

    @model_validator(mode="after")
    def _text(self) -> Self:
        if self.tokenizer is None:
            for key in ("max_length", "truncate", "prefix", "pad"):
                if getattr(self, key) is not None:
                    raise rule(
                        f"{key} goes with tokenizer only",
                        expected="tokenizer: the tokenizer.json, or the model's folder",
                        found=f"{key} without tokenizer",
                        fix=f"add tokenizer, or leave {key} out",
                        key=key,
                    )
            return self
        if self.column is None and len(self.columns or ()) != 2:
            raise rule(
                "tokenizer takes one column, or two for pairs",
                expected="column: TEXT, or columns: [FIRST, SECOND]",
                found=f"{len(self.columns)} columns" if self.columns else "no column",
                fix="name the column that holds the text",
                key="tokenizer",
            )
        others = [key for key in (*_DECODED, "python", "shape", "cast", "batch_axis") if getattr(self, key)]
        if others:
            raise rule(
                f"tokenizer and {others[0]} exclude each other",
                found=f"tokenizer with {others[0]}",
                fix=f"leave {others[0]} out",
                key=others[0],
            )
        if self.fill is not None and not isinstance(self.fill, str):
            raise rule(
                "fill of a text is no text",
                expected="text",
                found=repr(self.fill),
                fix='write fill: ""',
                key="fill",
            )
        return self

    def _check_decoded(self, given: str) -> None:
        """given: where the feature comes from."""
        decoded = [key for key in _DECODED if getattr(self, key) is not None]
        if len(decoded) > 1:
            raise rule(
                f"{' and '.join(decoded)} exclude each other",
                found=", ".join(decoded),
                fix="keep one of them",
                key=decoded[1],
            )
        if decoded and self.column is None:
            key = decoded[0]
            raise rule(
                f"{key} goes with column only",
                expected=f"column: {_DECODED[key]}",
                found=given,
                fix=f"replace {given} by column: NAME, or leave {key} out",
                key=key,
            )
