"""One try at a shard: files that count once they are committed, and vanish if they never are."""

from __future__ import annotations

import json
import platform
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from time import perf_counter
from typing import Self

import pyarrow as pa

from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.output import Scoring, Staged
from batchonnx.ledger.part_files import ORDER_SCHEMA, PartFile, PartFiles, Sizes
from batchonnx.ledger.records import Commit, SourceRows, StoredFile
from batchonnx.ledger.run_folder import order_path, part_kind, quarantine_path
from batchonnx.parts.layout import Layout
from batchonnx.parts.row_groups import ROW_GROUP_BYTES, RowGroups, row_group_rows
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard
from batchonnx.planning.written import layout_of, output_schema
from batchonnx.runtime.machine import resident_bytes
from batchonnx.scoring.lines import explode
from batchonnx.scoring.scorer import Scored


class _Beside:
    """A Parquet file beside the predictions: quarantine, order, the gate's columns."""

    def __init__(self, staged: Staged, schema: pa.Schema, lineage: Mapping[str, str]) -> None:
        self._groups = RowGroups(schema, row_group_rows(schema), ROW_GROUP_BYTES)
        self._file = PartFile(staged, schema, Layout(), lineage)

    def write(self, rows: pa.RecordBatch) -> None:
        for group in self._groups.add(rows):
            self._file.write(group)

    def finish(self) -> StoredFile:
        for group in self._groups.rest():
            self._file.write(group)
        return self._file.finish()

    def let_go(self) -> None:
        self._file.let_go()

    def abandon(self) -> None:
        self._file.staged.abandon()


class ShardAttempt:
    """A shard's parts and quarantine while they are written. filtered: to be counted by the caller.

    As a context it removes what wasn't committed. Every method raises StorageError where disk or
    store refuses. worker: whose attempt it is.
    """

    def __init__(self, run: Scoring, plan: Plan, shard: Shard, worker: str) -> None:
        self._run, self._plan, self._shard, self._worker = run, plan, shard, worker
        self._attempt = secrets.token_hex(8)
        self.filtered, self._predicted = 0, 0
        self._part = plan.part(shard)
        self._lineage = lineage(plan, shard)
        asked = plan.job.job.output
        sizes = Sizes(asked.row_group_rows, asked.file_bytes)
        self._parts = PartFiles(self._part, layout_of(plan), sizes, self._lineage, self._stage_part)
        self._schema = output_schema(plan)
        self._beside: dict[str, _Beside] = {}

    def __enter__(self) -> Self:
        try:
            if self._run.keeps_measured:
                columns = pa.schema([self._schema.field(name) for name in self._plan.job.job.gate])
                self._open("measured", self._part, columns)
            if self._plan.job.job.output.partition_by:
                self._open("order", order_path(self._part), ORDER_SCHEMA)
        except BaseException as error:
            self.__exit__(type(error), error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        files: list[PartFiles | _Beside] = [self._parts, *self._beside.values()]
        for file in files:
            file.let_go()
        if kind is None:
            return
        for file in files:
            file.abandon()
        if isinstance(error, OSError):
            # Reading and scoring never raise a bare OSError: one that passes here is the part's.
            raise disk_error(error, self._run.where) from error

    def write(self, scored: Scored) -> None:
        """Add what became of some rows."""
        beside = self._beside
        if scored.predictions is not None:
            self._predicted += scored.predictions.num_rows
            lines = explode(scored.predictions, self._plan.outputs, self._schema)
            folders = self._parts.write(lines)
            if folders is not None:
                beside["order"].write(folders)
            if "measured" in beside:
                beside["measured"].write(lines.select(list(self._plan.job.job.gate)))
        if scored.quarantined is not None:
            if "quarantine" not in beside:
                self._open("quarantine", quarantine_path(self._part), scored.quarantined.schema)
            beside["quarantine"].write(scored.quarantined)

    def finish(self) -> None:
        """Flush the files: what is slow to be written is waited for here, before `commit`."""
        self._files = self._parts.finish(), {kind: file.finish() for kind, file in self._beside.items()}

    def commit(
        self,
        sources: tuple[SourceRows, ...],
        batch_rows: int,
        calls: int,
        seconds: Mapping[str, float],
        begun: float,
    ) -> Commit:
        """Make the finished files count. The commit of whichever attempt came first.

        begun: when the shard's first rows were read (perf_counter).
        """
        parts, beside = self._files
        quarantine = beside.get("quarantine")
        quarantined = quarantine.rows if quarantine is not None else 0
        record = Commit(
            shard=self._shard.number,
            attempt=self._attempt,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            rows_in=self._predicted + quarantined + self.filtered,
            predicted=self._predicted,
            quarantined=quarantined,
            filtered=self.filtered,
            part=self._part,
            parts=parts,
            quarantine=quarantine,
            order=beside.get("order"),
            sources=sources,
            batch_rows=batch_rows,
            calls=calls,
            seconds=seconds,
            host=platform.node(),
            worker=self._worker,
            took_s=round(perf_counter() - begun, 6),
            memory=resident_bytes(),
        )
        return self._run.commit(record)

    def _open(self, kind: str, path: str, schema: pa.Schema) -> None:
        staged = self._run.stage(self._attempt, kind, path)
        self._beside[kind] = _Beside(staged, schema, self._lineage)

    def _stage_part(self, number: int, path: str) -> Staged:
        return self._run.stage(self._attempt, part_kind(number), path)


def lineage(plan: Plan, shard: Shard) -> dict[str, str]:
    """Where a part's rows come from, for its footer: nothing in it depends on when or by whom."""
    sources = [
        [plan.listing.files[source.file].path, list(source.row_groups), source.first_row, source.rows]
        for source in shard.sources
    ]
    return {
        "batchonnx.fingerprint": plan.fingerprint,
        "batchonnx.model": plan.model.digest,
        "batchonnx.shard": str(shard.number),
        "batchonnx.sources": json.dumps(sources),
    }
