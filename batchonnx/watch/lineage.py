"""A run as OpenLineage events: START, then COMPLETE, FAIL or ABORT, with the datasets it reads and writes.

Set up as OpenLineage's own client is: OPENLINEAGE_URL, OPENLINEAGE_CONFIG or OPENLINEAGE__… variables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from batchonnx.engines.events import Event, Failed, Published, RunStarted
from batchonnx.errors import Interrupted
from batchonnx.job.spec import JobFile
from batchonnx.watch.logs import first_words

PACKAGES = "lineage: OPENLINEAGE_… is set, but a package is missing: pip install 'batchonnx[lineage]'"
PRODUCER = f"https://pypi.org/project/batchonnx/{version('batchonnx')}"


def is_wanted() -> bool:
    """Whether the environment asks for events."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").lower().strip() == "true":
        return False
    asked = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
    return any(name in asked or name.startswith("OPENLINEAGE__TRANSPORT") for name in os.environ)


class Lineage:
    """Tells one run. Raises ImportError without the package, and what its client does for wrong settings."""

    def __init__(self, job: JobFile) -> None:
        from openlineage.client import OpenLineageClient
        from openlineage.client.uuid import generate_new_uuid

        self._job = job
        self._client = OpenLineageClient()
        self._id = str(generate_new_uuid())
        self._inputs: list[Any] = []
        self._schema: Any = None
        self._output = job.resolve(job.job.output.path)
        self._is_begun = False

    def __call__(self, event: Event) -> None:
        """Take an event. A result that was there already is no run."""
        match event:
            case RunStarted(_, plan, _, outputs):
                self._describe(event)
                self._output = plan.output
                self._schema = _schema(outputs)
                self._begin()
            case Published(_, summary) if summary.is_new:
                from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

                wrote = statistics.OutputStatisticsOutputDatasetFacet(
                    rowCount=summary.predicted, size=summary.bytes, fileCount=summary.parts
                )
                self._emit("COMPLETE", {}, {"outputStatistics": wrote})
            case Failed(_, error):
                from openlineage.client.facet_v2 import error_message_run

                if not self._is_begun:
                    self._begin()
                message = error_message_run.ErrorMessageRunFacet(first_words(error), "python")
                self._emit(
                    "ABORT" if isinstance(error, Interrupted) else "FAIL", {"errorMessage": message}, {}
                )
            case _:
                pass

    def close(self) -> None:
        """Send what is left."""
        self._client.close()

    def _begin(self) -> None:
        self._is_begun = True
        self._emit("START", {}, {})

    def _describe(self, event: RunStarted) -> None:
        from openlineage.client.event_v2 import InputDataset

        listing = event.plan.listing
        schema = _schema((field.name, str(field.type)) for field in listing.schema)
        asked = self._job.job.input.path
        paths = asked if isinstance(asked, list) else [asked] if asked is not None else []
        for path in paths:
            namespace, name = dataset_name(self._job.resolve(path))
            self._inputs.append(InputDataset(namespace, name, facets={"schema": schema}))

    def _emit(self, state: str, of_run: dict[str, Any], of_output: dict[str, Any]) -> None:
        from openlineage.client import event_v2 as events
        from openlineage.client.facet_v2 import job_type_job, processing_engine_run

        namespace, name = dataset_name(self._output)
        facets = {"schema": self._schema} if self._schema is not None else {}
        output = events.OutputDataset(namespace, name, outputFacets=of_output, facets=facets)
        engine = processing_engine_run.ProcessingEngineRunFacet(version("batchonnx"), "batchonnx")
        kind = job_type_job.JobTypeJobFacet("BATCH", "BATCHONNX", "JOB")
        self._client.emit(
            events.RunEvent(
                eventTime=datetime.now(UTC).isoformat(timespec="milliseconds"),
                eventType=events.RunState[state],
                producer=PRODUCER,
                run=events.Run(self._id, {"processing_engine": engine, **_parent(), **of_run}),
                job=events.Job(
                    os.environ.get("OPENLINEAGE_NAMESPACE", "default"), self._job.job.name, {"jobType": kind}
                ),
                inputs=self._inputs,
                outputs=[output],
            )
        )


def dataset_name(path: str) -> tuple[str, str]:
    """Namespace and name, by OpenLineage's rules; of a pattern, the folder that it looks into."""
    wild = min((path.index(sign) for sign in "*?[" if sign in path), default=None)
    folder = path if wild is None else path[:wild].rpartition("/")[0]
    if "://" not in folder:
        return "file", folder.rstrip("/") or "/"
    scheme, _, rest = folder.partition("://")
    host, _, name = rest.partition("/")
    return f"{scheme}://{host}", name.rstrip("/") or "/"


def _schema(columns: Iterable[tuple[str, str]]) -> Any:
    from openlineage.client.facet_v2 import schema_dataset

    fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in columns]
    return schema_dataset.SchemaDatasetFacet(fields=fields)


def _parent() -> dict[str, Any]:
    """The run that this one is part of, as schedulers tell it: NAMESPACE/JOB/RUN in OPENLINEAGE_PARENT_ID."""
    from openlineage.client.facet_v2 import parent_run

    namespace, _, rest = os.environ.get("OPENLINEAGE_PARENT_ID", "").partition("/")
    job, _, run = rest.rpartition("/")
    if not job:
        return {}
    return {"parent": parent_run.ParentRunFacet(parent_run.Run(run), parent_run.Job(namespace, job))}
