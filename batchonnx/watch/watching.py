"""Everybody who is told what a run does, as job and environment ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from batchonnx.engines.events import Event, Failed, Published, RunStarted, Tell, Warned
from batchonnx.job.spec import JobFile, Metrics
from batchonnx.job.spec import Notify as Telling
from batchonnx.watch import lineage, traces
from batchonnx.watch.logs import Log
from batchonnx.watch.meters import Meters, Sink
from batchonnx.watch.notify import Notify
from batchonnx.watch.ray_metrics import RayMetrics


class Watcher(Protocol):
    """Takes events as they come, in the driver's thread."""

    def __call__(self, event: Event) -> None:
        """May raise whatever it wants: that is a warning."""
        ...

    def close(self) -> None:
        """The run is over, and all was told."""
        ...


class Watch:
    """Tells events to all watchers. One that is in trouble is a warning, and told no more.

    own: the caller's, whose errors are the caller's. run: the run's id, once it has begun.
    is_over: its end was told.
    """

    def __init__(self, watchers: Sequence[Watcher], own: Tell | None) -> None:
        self._watchers, self._own = list(watchers), own
        self.run: str | None = None
        self.is_over = False

    def __call__(self, event: Event) -> None:
        """Tell everybody."""
        if isinstance(event, RunStarted):
            self.run = event.run
        self.is_over = self.is_over or isinstance(event, Published | Failed)
        for watcher in list(self._watchers):
            try:
                watcher(event)
            except Exception as error:  # whatever somebody else's library or server does
                self._drop(watcher, error)
        if self._own is not None:
            self._own(event)

    def close(self) -> None:
        """The run is over."""
        for watcher in list(self._watchers):
            try:
                watcher.close()
            except Exception as error:  # as above
                self._drop(watcher, error)

    def _drop(self, watcher: Watcher, error: Exception) -> None:
        self._watchers.remove(watcher)
        name = type(watcher).__name__.lower()
        self(Warned(f"{name}: {error}" if str(error) else f"{name}: {type(error).__name__}"))


@contextmanager
def watching(job: JobFile, own: Tell | None) -> Iterator[Watch]:
    """Tell whomever job and environment name, and `own`, until the block ends; how it fails, too.

    Raises DependencyError for a package that the job's own settings need.
    """
    watchers, warnings = _watchers(job)
    watch = Watch(watchers, own)
    try:
        for text in warnings:
            watch(Warned(text))
        yield watch
    except BaseException as error:
        if not watch.is_over:
            watch(Failed(watch.run, error))
        raise
    finally:
        watch.close()


def _watchers(job: JobFile) -> tuple[list[Watcher], list[str]]:
    """Those whom a job has, and what is wrong with them already."""
    sinks: list[Sink] = []
    warnings = []
    if job.job.metrics != Metrics():
        from batchonnx.watch.prometheus import Prometheus

        served = Prometheus(job)
        sinks.append(served)
        warnings += [served.trouble] if served.trouble is not None else []
    if job.job.engine.name == "ray":
        sinks.append(RayMetrics())
    watchers: list[Watcher] = [Log()]
    if sinks:
        watchers.append(Meters(sinks, job.job.name))
    if job.job.notify != Telling():
        watchers.append(Notify(job))
    if traces.are_wanted():
        _try(lambda: watchers.append(traces.Traces(job.job.name)), traces.PACKAGES, warnings)
    if lineage.is_wanted():
        _try(lambda: watchers.append(lineage.Lineage(job)), lineage.PACKAGES, warnings)
    return watchers, warnings


def _try(add: Callable[[], None], packages: str, warnings: list[str]) -> None:
    """What the environment asks for is often meant for others, too: without its packages, a run goes on."""
    try:
        add()
    except ImportError:
        warnings.append(packages)
    except Exception as error:  # settings that are not ours to read
        warnings.append(f"{packages.partition(':')[0]}: {error}")
