"""Where the time of a model goes, operator by operator, on rows of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.contender import Contender, open_feeds, running
from batchonnx.lifecycle.feed import RandomRows, Rows
from batchonnx.lifecycle.machine import Machine, this_machine
from batchonnx.runtime.model_file import find_model
from batchonnx.runtime.profiler import NodeTime, Profile, profile_calls
from batchonnx.runtime.session import PredictError, load_model
from batchonnx.scoring.chunk import BadRow

BATCH_ROWS = 32
CALLS = 20


@dataclass(frozen=True)
class OperatorTime:
    """All nodes of one operator on one provider. seconds: of one call. share: of the time of all nodes."""

    operator: str
    provider: str
    nodes: int
    seconds: float
    share: float


@dataclass(frozen=True)
class ProfileReport:
    """A model's profile.

    model, sha256: which. rows: in each call. source: where they are from. calls: that were counted. threads:
    of one call. call_s: seconds of one call. between_s: of them, outside of all nodes. operators and nodes:
    the slowest first; nodes as optimized.
    """

    model: str
    sha256: str
    rows: int
    source: str
    calls: int
    threads: int
    call_s: float
    between_s: float
    operators: tuple[OperatorTime, ...]
    nodes: tuple[NodeTime, ...]
    machine: Machine

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; keys are documented in docs/models.md."""
        return asdict(self)


def profile_model(
    path: str, rows: Rows | None = None, *, batch_rows: int = BATCH_ROWS, calls: int = CALLS, threads: int = 1
) -> ProfileReport:
    """Run a model some times on the same batch, under ONNX Runtime's profiler.

    batch_rows: of the batch, if the model takes any number. Raises ModelFileError, and ContractError where
    the model fails on the rows.
    """
    file = find_model(path)
    model = load_model(file, threads)
    source = rows or RandomRows(batch_rows)
    (feed,) = open_feeds(source, Contender(model.signature, running(model), file.local))
    size = feed.fixed_batch or min(batch_rows, feed.rows)
    try:
        tensors: Mapping[str, np.ndarray] = feed.tensors(0, size)
        found = profile_calls(file, tensors, calls, model.threads)
    except (PredictError, BadRow) as error:
        facts = {"model": path, "rows": f"{size:,}, {source}", "found": str(error)}
        fix = "give rows that it takes in one batch: --job JOB, --batch N"
        raise ContractError(Problem("the model can't be profiled on the rows", facts, fix)) from error
    spent = sum(node.seconds for node in found.nodes)
    return ProfileReport(
        model=file.path,
        sha256=file.digest,
        rows=size,
        source=str(source),
        calls=calls,
        threads=model.threads,
        call_s=found.call_s,
        between_s=max(0.0, found.call_s - spent),
        operators=_by_operator(found, spent),
        nodes=found.nodes,
        machine=this_machine(),
    )


def _by_operator(found: Profile, spent: float) -> tuple[OperatorTime, ...]:
    groups: dict[tuple[str, str], list[float]] = {}
    for node in found.nodes:
        groups.setdefault((node.operator, node.provider), []).append(node.seconds)
    times = (
        OperatorTime(*key, len(seconds), sum(seconds), sum(seconds) / spent if spent else 0.0)
        for key, seconds in groups.items()
    )
    return tuple(sorted(times, key=lambda time: -time.seconds))
