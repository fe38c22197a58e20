"""One try at a shard: files that count once they are committed, and vanish if they never are."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Self

import pyarrow as pa

from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.output import Run, Staged
from batchonnx.ledger.records import Commit, SourceRows, StoredFile
from batchonnx.ledger.run_folder import quarantine_path
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard
from batchonnx.scoring.scorer import Scored, output_schema
from batchonnx.scoring.write import PartWriter


class _File:
    """A Parquet file of an attempt, and how many rows it has."""

    def __init__(
        self, staged: Staged, schema: pa.Schema, compression: str, lineage: Mapping[str, str]
    ) -> None:
        self.staged, self.rows = staged, 0
        try:
            self._writer = PartWriter(staged.sink, schema, compression, lineage)
        except BaseException:
            staged.abandon()
            raise

    def write(self, rows: pa.RecordBatch) -> None:
        self._writer.write(rows)
        self.rows += rows.num_rows

    def finish(self) -> StoredFile:
        self._writer.close()
        return self.staged.finish(self.rows)

    def let_go(self) -> None:
        self._writer.abandon()


class ShardAttempt:
    """A shard's part and quarantine while they are written. filtered: to be counted by the caller.

    As a context it removes what wasn't committed. Every method raises StorageError where disk or
    store refuses.
    """

    def __init__(self, run: Run, plan: Plan, shard: Shard) -> None:
        self._run, self._plan, self._shard = run, plan, shard
        self._attempt = secrets.token_hex(8)
        self.filtered = 0
        self._part: _File | None = None
        self._bad: _File | None = None
        self._measured: _File | None = None

    def __enter__(self) -> Self:
        try:
            schema = output_schema(self._plan)
            self._part = self._open("part", self._plan.part(self._shard), schema)
            if self._run.keeps_measured:
                columns = pa.schema([schema.field(name) for name in self._plan.job.job.gate])
                self._measured = self._open("measured", self._plan.part(self._shard), columns)
        except BaseException as error:
            self.__exit__(type(error), error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        files = [file for file in (self._part, self._bad, self._measured) if file is not None]
        for file in files:
            file.let_go()
        if kind is None:
            return
        for file in files:
            file.staged.abandon()
        if isinstance(error, OSError):
            # Reading and scoring never raise a bare OSError: one that passes here is the part's.
            raise disk_error(error, self._run.where) from error

    def write(self, scored: Scored) -> None:
        """Add what became of some rows."""
        assert self._part is not None
        if scored.predictions is not None:
            self._part.write(scored.predictions)
            if self._measured is not None:
                self._measured.write(scored.predictions.select(list(self._plan.job.job.gate)))
        if scored.quarantined is not None:
            if self._bad is None:
                path = quarantine_path(self._plan.part(self._shard))
                self._bad = self._open("quarantine", path, scored.quarantined.schema)
            self._bad.write(scored.quarantined)

    def commit(
        self, sources: tuple[SourceRows, ...], batch_rows: int, calls: int, seconds: Mapping[str, float]
    ) -> Commit:
        """Flush the files and make them count. The commit of whichever attempt came first."""
        assert self._part is not None
        part = self._part.finish()
        quarantine = self._bad.finish() if self._bad is not None else None
        if self._measured is not None:
            self._measured.finish()
        quarantined = quarantine.rows if quarantine is not None else 0
        record = Commit(
            shard=self._shard.number,
            attempt=self._attempt,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            rows_in=part.rows + quarantined + self.filtered,
            predicted=part.rows,
            quarantined=quarantined,
            filtered=self.filtered,
            part=part,
            quarantine=quarantine,
            sources=sources,
            batch_rows=batch_rows,
            calls=calls,
            seconds=seconds,
        )
        return self._run.commit(record)

    def _open(self, kind: str, path: str, schema: pa.Schema) -> _File:
        staged = self._run.stage(self._attempt, kind, path)
        compression = self._plan.job.job.output.compression
        return _File(staged, schema, compression, lineage(self._plan, self._shard))


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
