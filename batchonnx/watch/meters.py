"""A run as figures: which there are, and how events move them. Where they go is a `Sink`'s business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Literal, Protocol

from batchonnx.engines.events import Event, Failed, Published, RunStarted, ShardCommitted
from batchonnx.scoring.progress import STAGES, Progress
from batchonnx.watch.pace import Pace

SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Edges of the histogram of shards' durations."""

JOB = "job_name"
"""The label of all: the job's name. Not `job`, which is Prometheus' own."""


@dataclass(frozen=True)
class Metric:
    """A figure. label: beside JOB."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    label: str | None = None


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("batchonnx_rows_total", "counter", "Rows that were done, filtered ones included."),
        Metric("batchonnx_rows_quarantined_total", "counter", "Rows that could not be scored."),
        Metric("batchonnx_rows_done", "gauge", "Rows done in all lives of the run."),
        Metric("batchonnx_rows_expected", "gauge", "Rows of the whole run; 0 where only reading tells."),
        Metric("batchonnx_shards_total", "counter", "Shards that were committed."),
        Metric("batchonnx_shards_done", "gauge", "Shards done in all lives of the run."),
        Metric("batchonnx_shards_expected", "gauge", "Shards of the whole run."),
        Metric("batchonnx_shard_duration_seconds", "histogram", "From a shard's first row to its commit."),
        Metric("batchonnx_stage_seconds_total", "counter", "Time of all workers together.", "stage"),
        Metric("batchonnx_output_bytes_total", "counter", "Bytes of parts that were committed."),
        Metric("batchonnx_eta_seconds", "gauge", "Until the last row, as it goes now."),
        Metric("batchonnx_workers", "gauge", "Workers that score."),
        Metric("batchonnx_workers_lost_total", "counter", "Workers that died."),
        Metric("batchonnx_resident_memory_bytes", "gauge", "Of the workers' processes, all together."),
        Metric("batchonnx_store_retries_total", "counter", "Requests to a store that were sent again."),
        Metric("batchonnx_run_in_progress", "gauge", "1 while a run goes on."),
        Metric("batchonnx_run_start_time_seconds", "gauge", "When the run began, in Unix time."),
        Metric("batchonnx_run_duration_seconds", "gauge", "How long the run took, once it is published."),
        Metric("batchonnx_run_success", "gauge", "1 if the last run ended with its result there, else 0."),
        Metric("batchonnx_last_success_time_seconds", "gauge", "When a result was there, in Unix time."),
    )
}


class Sink(Protocol):
    """Takes figures. Labels are those of `METRICS`, JOB among them."""

    def add(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """To a counter."""
        ...

    def put(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Of a gauge."""
        ...

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """For a histogram."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Meters:
    """Moves the figures of one job's run as events come. job: its name."""

    def __init__(self, sinks: Sequence[Sink], job: str) -> None:
        self._sinks, self._labels = sinks, {JOB: job}
        self._pace = Pace()
        self._last = Progress(0, 0, 0, None, 0.0, 0, {})

    def __call__(self, event: Event) -> None:
        """Take an event."""
        match event:
            case RunStarted():
                self._put("batchonnx_run_in_progress", 1)
                self._put("batchonnx_run_start_time_seconds", time())
                # From 0 on: `increase` sees nothing of a series that begins with its first death.
                for metric in METRICS.values():
                    if metric.kind == "counter" and metric.label is None:
                        self._add(metric.name, 0)
            case Progress():
                self._progress(event)
            case ShardCommitted(commit):
                self._add("batchonnx_shards_total", 1)
                self._add("batchonnx_output_bytes_total", sum(part.bytes for part in commit.parts))
                self._observe("batchonnx_shard_duration_seconds", commit.took_s)
            case Published(_, summary):
                self._put("batchonnx_run_duration_seconds", summary.elapsed_s)
                self._put("batchonnx_last_success_time_seconds", time())
                self._end(is_success=True)
            case Failed():
                self._end(is_success=False)
            case _:
                pass

    def close(self) -> None:
        """The run is over."""
        for sink in self._sinks:
            sink.close()

    def _end(self, *, is_success: bool) -> None:
        self._put("batchonnx_run_success", float(is_success))
        for gauge in ("batchonnx_run_in_progress", "batchonnx_workers", "batchonnx_eta_seconds"):
            self._put(gauge, 0)

    def _progress(self, now: Progress) -> None:
        last, self._last = self._last, now
        self._pace.note(now)
        self._add("batchonnx_rows_total", now.rows_in - last.rows_in)
        self._add("batchonnx_rows_quarantined_total", now.quarantined - last.quarantined)
        self._add("batchonnx_workers_lost_total", now.lost - last.lost)
        self._add("batchonnx_store_retries_total", now.retries - last.retries)
        for stage in STAGES:
            spent = now.busy_s.get(stage, 0.0) - last.busy_s.get(stage, 0.0)
            self._add("batchonnx_stage_seconds_total", spent, stage)
        self._put("batchonnx_rows_done", now.rows_done)
        self._put("batchonnx_rows_expected", now.rows_total or 0)
        self._put("batchonnx_shards_done", now.shards)
        self._put("batchonnx_shards_expected", now.shards_total)
        self._put("batchonnx_workers", now.workers)
        self._put("batchonnx_resident_memory_bytes", now.memory)
        if self._pace.eta_s is not None:
            self._put("batchonnx_eta_seconds", self._pace.eta_s)

    def _add(self, name: str, amount: float, label: str | None = None) -> None:
        # A worker that died takes what it hadn't told with it: a counter never falls.
        for sink in self._sinks:
            sink.add(METRICS[name], max(0.0, amount), self._labelled(name, label))

    def _put(self, name: str, value: float) -> None:
        for sink in self._sinks:
            sink.put(METRICS[name], value, self._labels)

    def _observe(self, name: str, value: float) -> None:
        for sink in self._sinks:
            sink.observe(METRICS[name], value, self._labels)

    def _labelled(self, name: str, label: str | None) -> Mapping[str, str]:
        own = METRICS[name].label
        return self._labels if own is None or label is None else {**self._labels, own: label}
