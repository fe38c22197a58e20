"""A run as OpenTelemetry spans: one for the run, in it one for each shard, in that one for each stage.

Set up by the standard variables alone (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, …), or by the program
that batchonnx is part of: a provider of its own that it has set is used.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from batchonnx.engines.events import Event, Failed, Published, RunStarted, ShardCommitted
from batchonnx.ledger.records import Commit
from batchonnx.watch.logs import first_words

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ASKED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
PACKAGES = "traces: OTEL_… is set, but a package is missing: pip install 'batchonnx[otel]'"
FLUSH_MS = 10_000
"""How long the last spans may take to be sent."""


def are_wanted() -> bool:
    """Whether the environment, or the program that we are part of, asks for spans."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(os.environ.get(name) for name in ASKED) or _embedding() is not None


class Traces:
    """One trace for a run; below the span that TRACEPARENT names, or the one that is current. job: its name.

    Raises ImportError without the packages, ValueError for an exporter that isn't known.
    """

    def __init__(self, job: str) -> None:
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._own: TracerProvider | None = None
        provider = _embedding()
        if provider is None:
            provider = self._own = _provider()
        self._tracer: Tracer = provider.get_tracer("batchonnx", version("batchonnx"))
        carrier = {
            name: os.environ[name.upper()]
            for name in ("traceparent", "tracestate")
            if name.upper() in os.environ
        }
        above = TraceContextTextMapPropagator().extract(carrier) if carrier else context.get_current()
        self._run = self._tracer.start_span("batchonnx run", above, attributes={"batchonnx.job": job})

    def __call__(self, event: Event) -> None:
        """Take an event."""
        from opentelemetry.trace import Status, StatusCode

        run = self._run
        match event:
            case RunStarted(name, plan, is_resumed):
                told = {"run": name, "output": plan.output, "model": plan.model.digest}
                run.set_attributes({f"batchonnx.{key}": value for key, value in told.items()})
                run.set_attributes({"batchonnx.shards": len(plan.shards), "batchonnx.is_resumed": is_resumed})
            case ShardCommitted(commit):
                self._shard(commit)
            case Published(_, summary):
                for key in ("rows_in", "predicted", "quarantined", "filtered", "is_new"):
                    run.set_attribute(f"batchonnx.{key}", getattr(summary, key))
                run.end()
            case Failed(_, error):
                run.record_exception(error)
                run.set_attribute("error.type", type(error).__name__)
                run.set_status(Status(StatusCode.ERROR, first_words(error)))
                run.end()
            case _:
                pass

    def close(self) -> None:
        """Send what is left."""
        if self._own is not None:
            self._own.force_flush(FLUSH_MS)
            self._own.shutdown()

    def _shard(self, commit: Commit) -> None:
        """A stage's span begins with its shard's, and is as long as the worker was busy with it."""
        from opentelemetry.trace import set_span_in_context

        end = int(datetime.fromisoformat(commit.at).timestamp() * 1e9)
        begin = end - int(commit.took_s * 1e9)
        told: dict[str, Any] = {
            "batchonnx.shard": commit.shard,
            "batchonnx.part": commit.part,
            "batchonnx.rows_in": commit.rows_in,
            "batchonnx.predicted": commit.predicted,
            "batchonnx.quarantined": commit.quarantined,
            "batchonnx.worker": commit.worker,
            "host.name": commit.host,
        }
        inside = set_span_in_context(self._run)
        shard = self._tracer.start_span("batchonnx shard", inside, attributes=told, start_time=begin)
        for stage, seconds in commit.seconds.items():
            span = self._tracer.start_span(
                f"batchonnx {stage}",
                set_span_in_context(shard),
                attributes={"batchonnx.stage": stage},
                start_time=begin,
            )
            span.end(begin + int(seconds * 1e9))
        shard.end(end)


def _embedding() -> Any:
    """The provider of the program that we are part of, if it has set one."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    found = trace.get_tracer_provider()
    return found if isinstance(found, TracerProvider) else None


def _provider() -> TracerProvider:
    """As the environment says; the SDK reads sampler, limits and resource by itself, the exporter its own."""
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    named = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    exporter: SpanExporter
    if named == "console":
        exporter = ConsoleSpanExporter(out=sys.stderr)
    elif named == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    else:
        raise ValueError(f"OTEL_TRACES_EXPORTER is {named}: otlp, console and none are known")
    ours = Resource({SERVICE_NAME: "batchonnx", SERVICE_VERSION: version("batchonnx")})
    provider = TracerProvider(resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
