"""Figures as Prometheus takes them: served while the run lasts, or left behind at its end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchonnx.errors import DependencyError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.watch.meters import JOB, METRICS, SECONDS, Metric

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PUSH_S = 10.0
"""How long a Pushgateway may take."""


class Prometheus:
    """A registry of one run's own. See `meters.Sink`.

    trouble: why nothing is served, though a port was asked for; another date of a backfill may have it.
    Raises DependencyError without prometheus_client.
    """

    def __init__(self, job: JobFile) -> None:
        self._job, self._asked = job, job.job.metrics
        self._registry: CollectorRegistry = _client(job).CollectorRegistry()
        self._made = {metric.name: self._make(metric) for metric in METRICS.values()}
        self._server: Any = None
        self.trouble: str | None = None
        if self._asked.port is not None:
            try:
                self._server = self._client.start_http_server(self._asked.port, registry=self._registry)[0]
            except OSError as error:
                self.trouble = f"metrics aren't served on port {self._asked.port}: {error.strerror or error}"

    def add(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """To a counter."""
        self._made[metric.name].labels(**labels).inc(amount)

    def put(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Of a gauge."""
        self._made[metric.name].labels(**labels).set(value)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """For a histogram."""
        self._made[metric.name].labels(**labels).observe(value)

    def close(self) -> None:
        """Leave the figures where the job says. Raises OSError if one of the two places doesn't take them."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        errors = []
        for leave in (self._write, self._push):
            try:
                leave()
            except OSError as error:
                errors.append(str(error))
        if errors:
            raise OSError("; ".join(errors))

    @cached_property
    def _client(self) -> Any:
        return _client(self._job)

    def _make(self, metric: Metric) -> Any:
        labels = [JOB, *([metric.label] if metric.label is not None else [])]
        more: dict[str, Any] = {"buckets": SECONDS} if metric.kind == "histogram" else {}
        kind = getattr(self._client, metric.kind.title())
        return kind(metric.name, metric.about, labels, registry=self._registry, **more)

    def _write(self) -> None:
        if self._asked.textfile is not None:
            path = self._job.resolve(self._asked.textfile)
            try:
                self._client.write_to_textfile(path, self._registry)
            except OSError as error:
                raise OSError(f"{path}: {error.strerror or error}") from error

    def _push(self) -> None:
        if self._asked.pushgateway is not None:
            group = {JOB: self._job.job.name}
            url = self._asked.pushgateway
            try:
                # What an earlier run of the job has left goes with it: a group is replaced as a whole.
                self._client.push_to_gateway(url, "batchonnx", self._registry, group, timeout=PUSH_S)
            except OSError as error:
                raise OSError(f"{url}: {error}") from error


def _client(job: JobFile) -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        facts = {"job": job.where("metrics"), "found": "no package prometheus_client"}
        fix = "pip install 'batchonnx[metrics]', or leave metrics out"
        raise DependencyError(Problem("metrics need a package that isn't installed", facts, fix)) from error
    return prometheus_client
