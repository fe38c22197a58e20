"""What is compared: an ONNX model on this machine, or anything else that answers the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.lifecycle.feed import Feed, GivenRows, JobRows, Rows, in_step
from batchonnx.lifecycle.given_feed import given_feeds
from batchonnx.lifecycle.job_feed import libraries_of, open_job_feeds
from batchonnx.lifecycle.random_feed import lookup_sizes, random_feeds
from batchonnx.runtime.session import Model, open_model
from batchonnx.runtime.signature import ModelSignature
from batchonnx.scoring.decode.maps import maps_to_matrix

Values = Mapping[str, Any]
"""Model output -> an array, or a list of dicts for a sequence of maps."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    signature: its inputs and outputs; path and digest name it in reports. run: tensors -> outputs; may raise
    `PredictError`. local: its ONNX file, if it has one.
    """

    signature: ModelSignature
    run: Callable[[Mapping[str, np.ndarray]], Values]
    local: Path | None = None


def open_contender(path: str, rows: Rows | None = None) -> Contender:
    """A model, on one thread, with the libraries of the job whose rows it is given, if they are a job's.

    Raises ModelFileError, DependencyError.
    """
    model = open_model(path, threads=1, libraries=libraries_of(rows))
    local = Path(path)
    return Contender(model.signature, running(model), local if local.is_file() else None)


def running(
    model: Model, outputs: Sequence[str] | None = None
) -> Callable[[Mapping[str, np.ndarray]], Values]:
    """Tensors -> outputs by name; all of them, if none are named."""
    names = outputs or [spec.name for spec in model.signature.outputs]
    return lambda tensors: dict(zip(names, model.run(names, tensors), strict=True))


def open_feeds(rows: Rows, *contenders: Contender) -> list[Feed]:
    """The same rows for each. Raises ContractError, InputError, and what a job's plan raises."""
    signatures = [contender.signature for contender in contenders]
    if isinstance(rows, JobRows):
        return in_step(open_job_feeds(rows, signatures))
    if isinstance(rows, GivenRows):
        return in_step(given_feeds(rows, signatures))
    found = [lookup_sizes(one.local) for one in contenders if one.local is not None]
    names = {name for sizes in found for name in sizes}
    bounds = {name: min(sizes[name] for sizes in found if name in sizes) for name in names}
    return list(random_feeds(rows, signatures, bounds))


def arrays(values: Values) -> dict[str, np.ndarray]:
    """Outputs that can be compared, as arrays; sequences of maps as a matrix of their values."""
    found = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            found[name] = maps_to_matrix(value)[0]
    return found
