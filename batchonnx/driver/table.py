"""The last step of a run whose result belongs to a table: its parts are added in one commit.

Everything before it is as for a folder: the run is published in a folder of its own, which nobody knows as
long as the table doesn't name its files. What dies in between is finished by the same command.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.errors import ContractError, Problem, StorageError
from batchonnx.formats.parquet import open_footer
from batchonnx.job.spec import JobFile
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Manifest
from batchonnx.planning.footers import map_files
from batchonnx.planning.plan import Plan, run_name
from batchonnx.storage.entry import FileEntry
from batchonnx.tables.table import NewFile, Sink, open_sink


def check_table(plan: Plan) -> None:
    """Refuse a result that doesn't fit into its table, as far as its types are known.

    Raises ContractError, DependencyError, StorageError.
    """
    sink = open_sink(plan.job)
    if sink is not None:
        outputs = {
            binding.name: pa.field(binding.name, binding.type) if binding.type is not None else None
            for binding in plan.outputs
        }
        sink.check({field.name: field for field in plan.keep} | outputs)


class TableStep:
    """The table of a job, as one run sees it. overwrite: whether the run's rows replace all others."""

    def __init__(self, sink: Sink, fingerprint: str, overwrite: bool) -> None:
        self.where = sink.where
        self._sink, self._run, self._overwrite = sink, run_name(fingerprint), overwrite

    def done(self, output: Output) -> tuple[Manifest, int] | None:
        """The run's manifest and the table's version that has its rows, if that is so already."""
        version = self._sink.find(self._run, overwrite=self._overwrite)
        if version is None:
            return None
        manifest = output.read_manifest()
        if manifest is None:
            facts = {
                "table": f"{self.where}, version {version}",
                "output": output.path,
                "found": "no manifest",
            }
            fix = "nothing is to be done: the rows are there"
            raise StorageError(Problem("the table has the run's rows, but its records are gone", facts, fix))
        return manifest, version

    def add(self, output: Output, manifest: Manifest) -> int | None:
        """Add a published run's parts: the table's version that has them; None: no rows, and no table."""
        stored = [part for commit in manifest.commits for part in commit.parts if part.rows]
        entries = [FileEntry(f"{output.path}/{part.path}", part.bytes, "") for part in stored]
        files = map_files(_new_file, entries)
        schema = files[0].metadata.schema.to_arrow_schema() if files else pa.schema([])
        if files:
            self._sink.check({field.name: field for field in schema})
        return self._sink.add(self._run, schema, files, overwrite=self._overwrite)


def table_step(
    job: JobFile, fingerprint: str, overwrite: bool | None, *, incremental: bool
) -> TableStep | None:
    """None where the result is a folder. overwrite: in place of the job's own."""
    sink = open_sink(job)
    if sink is None:
        return None
    if incremental:
        facts = {"job": job.where("output.format"), "found": f"format: {job.job.output.format}"}
        fix = "run without --incremental, and name the new files in input"
        raise ContractError(Problem("an incremental run needs a folder as its output", facts, fix))
    return TableStep(sink, fingerprint, job.job.output.overwrite if overwrite is None else overwrite)


def _new_file(entry: FileEntry) -> NewFile:
    with open_footer(entry) as source:
        return NewFile(entry.path, entry.size, pq.read_metadata(source))
