"""Figures as Ray's own metrics: each node serves what its drivers tell, with `ray_` before each name."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from batchonnx.watch.meters import JOB, METRICS, SECONDS, Metric


class RayMetrics:
    """Told by the driver alone: each actor had series of its own, as long as it lives. See `meters.Sink`.

    What comes before the cluster is there waits for it; what comes after it has been left is nobody's.
    Ray's counters aren't shown before they have counted, so that `increase` never saw a first death:
    ours are gauges to Ray, which begin at 0. Prometheus asks of neither what it is.
    """

    def __init__(self) -> None:
        self._early: list[tuple[str, Metric, float, dict[str, str]]] = []
        self._counted: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def add(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """To a counter."""
        series = (metric.name, *labels.values())
        self._counted[series] += amount
        self._tell("set", metric, self._counted[series], labels)

    def put(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Of a gauge."""
        self._tell("set", metric, value, labels)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """For a histogram."""
        self._tell("observe", metric, value, labels)

    def close(self) -> None:
        """They are Ray's, which shows them for as long as the driver lives."""

    def _tell(self, how: str, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        self._early.append((how, metric, value, dict(labels)))
        # Another thread imports it, and it may be half there.
        is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)
        if is_initialized is not None and is_initialized():
            told, self._early = self._early, []
            for do, one, amount, tags in told:
                getattr(self._made[one.name], do)(amount, tags)

    @cached_property
    def _made(self) -> dict[str, Any]:
        from ray.util import metrics

        made = {}
        for metric in METRICS.values():
            keys = (JOB, *([metric.label] if metric.label is not None else []))
            more: dict[str, Any] = {"boundaries": list(SECONDS)} if metric.kind == "histogram" else {}
            kind = metrics.Histogram if metric.kind == "histogram" else metrics.Gauge
            made[metric.name] = kind(metric.name, metric.about, tag_keys=keys, **more)
        return made
