"""Where a model's time goes: ONNX Runtime's own profile of some calls, read and summed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.runtime.model_file import ModelFile
from batchonnx.runtime.session import PredictError, open_session, session_options

_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class NodeTime:
    """One node as optimized, over all calls.

    name: of the node; operator: its type. provider: that ran it. seconds: per call. calls: how often it ran
    in one call of the model; more than 1 in a loop. bytes: of its outputs in one call.
    """

    name: str
    operator: str
    provider: str
    seconds: float
    calls: float
    bytes: float


@dataclass(frozen=True)
class Profile:
    """Some calls of a model. nodes: the slowest first. call_s: of one call, all nodes and what is between
    them."""

    nodes: tuple[NodeTime, ...]
    call_s: float


def profile_calls(
    file: ModelFile, tensors: Mapping[str, np.ndarray], calls: int, threads: int, warm_up: int = 1
) -> Profile:
    """Run the model so often on the same rows and sum what each node takes.

    warm_up: calls before, that aren't counted. Raises ModelFileError, PredictError.
    """
    with tempfile.TemporaryDirectory(prefix="batchonnx-") as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(file, options)
        for _ in range(warm_up + calls):
            try:
                session.run(None, tensors)
            except Exception as error:
                # ONNX Runtime's classes derive from Exception and live in a private module.
                raise PredictError(str(error)) from error
        events = json.loads(Path(session.end_profiling()).read_text())
    return read_events(events, calls)


def read_events(events: list[dict[str, Any]], calls: int) -> Profile:
    """Sum the last `calls` calls of a profile, as ONNX Runtime writes it."""
    runs = [event for event in events if event.get("name") == "model_run"][-calls:]
    first = min((run["ts"] for run in runs), default=0)
    found: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        name, told = str(event.get("name", "")), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(_KERNEL) or event["ts"] < first:
            continue
        key = (name.removesuffix(_KERNEL), told.get("op_name", ""), told.get("provider", ""))
        sums = found.setdefault(key, [0.0, 0.0, 0.0])
        for place, amount in enumerate((event["dur"] / 1e6, 1, float(told.get("output_size") or 0))):
            sums[place] += amount / calls
    nodes = sorted((NodeTime(*key, *sums) for key, sums in found.items()), key=lambda node: -node.seconds)
    return Profile(tuple(nodes), sum(run["dur"] for run in runs) / 1e6 / calls)
