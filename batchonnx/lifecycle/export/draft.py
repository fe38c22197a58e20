"""What an exporter hands over: a model that nobody has looked at yet, and the framework to ask about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from batchonnx.lifecycle.feed import Rows
from batchonnx.runtime.signature import TensorSpec

Exporter = Literal["dynamo", "torchscript"]

Answer = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]
"""Tensors by input name -> what the framework itself gives, in the order of the model's outputs."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    source: a file, a folder or a hub's id; None: what `factory` makes is all. factory: `module:function`.
    inputs: the model's, in the order of the framework's own arguments; empty: as the source tells.
    outputs: what they are to be called; empty: as the exporter calls them. task: of a Hugging Face model.
    trust_pickle: whether code that the source holds may run. exporter: of PyTorch; None: the newer, else the
    older. opset: None: the exporter's own choice.
    """

    source: str | None = None
    factory: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    task: str | None = None
    trust_pickle: bool = False
    exporter: Exporter | None = None
    opset: int | None = None

    @property
    def facts(self) -> dict[str, str]:
        """What every error about it begins with."""
        named = {"source": self.source, "factory": self.factory}
        return {label: text for label, text in named.items() if text is not None}


@dataclass(frozen=True)
class Draft:
    """A model as its exporter wrote it.

    answer: the framework. tools: packages that took part. max_diff: how far answers may be apart, unless
    another gate is asked for (see `Parity.max_diff`). options: what was chosen for the user. notes: what the
    user should know. rows: on which to compare; None: at random.
    """

    answer: Answer
    tools: tuple[str, ...]
    max_diff: float
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rows: Rows | None = None
