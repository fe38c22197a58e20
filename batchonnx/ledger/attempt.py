"""One try at a shard: files that count once they are committed, and vanish if they never are."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import pyarrow as pa

from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.durable import sync_file
from batchonnx.ledger.records import Commit, SourceRows, StoredFile
from batchonnx.ledger.run_folder import attempt_path, commit, quarantine_path
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard
from batchonnx.scoring.scorer import Scored, output_schema
from batchonnx.scoring.write import PartWriter


class ShardAttempt:
    """A shard's part and quarantine while they are written. filtered: to be counted by the caller.

    As a context it removes what wasn't committed. Every method raises StorageError where the disk
    refuses.
    """

    def __init__(self, run: Path, plan: Plan, shard: Shard) -> None:
        self._run, self._plan, self._shard = run, plan, shard
        self._attempt = secrets.token_hex(8)
        self._predicted = self._quarantined = self.filtered = 0
        self._part: PartWriter | None = None
        self._bad: PartWriter | None = None

    def __enter__(self) -> Self:
        try:
            self._part = self._open("part", output_schema(self._plan))
        except OSError as error:
            raise disk_error(error, self._run) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        for writer in (self._part, self._bad):
            if writer is not None:
                writer.abandon()
        if kind is None:
            return
        for file in ("part", "quarantine"):
            with suppress(OSError):
                attempt_path(self._run, self._attempt, file).unlink()
        if isinstance(error, OSError):
            # Reading and scoring never raise a bare OSError: one that passes here is the part's.
            raise disk_error(error, self._run) from error

    def write(self, scored: Scored) -> None:
        """Add what became of some rows."""
        assert self._part is not None
        if scored.predictions is not None:
            self._part.write(scored.predictions)
            self._predicted += scored.predictions.num_rows
        if scored.quarantined is not None:
            self._bad = self._bad or self._open("quarantine", scored.quarantined.schema)
            self._bad.write(scored.quarantined)
            self._quarantined += scored.quarantined.num_rows

    def commit(
        self, sources: tuple[SourceRows, ...], batch_rows: int, calls: int, seconds: Mapping[str, float]
    ) -> Commit:
        """Flush the files and make them count. The commit of whichever attempt came first."""
        assert self._part is not None
        self._part.close()
        part = self._stored("part", self._plan.part(self._shard), self._predicted)
        quarantine = None
        if self._bad is not None:
            self._bad.close()
            quarantine = self._stored("quarantine", quarantine_path(part.path), self._quarantined)
        record = Commit(
            shard=self._shard.number,
            attempt=self._attempt,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            rows_in=self._predicted + self._quarantined + self.filtered,
            predicted=self._predicted,
            quarantined=self._quarantined,
            filtered=self.filtered,
            part=part,
            quarantine=quarantine,
            sources=sources,
            batch_rows=batch_rows,
            calls=calls,
            seconds=seconds,
        )
        return commit(self._run, record)

    def _open(self, file: str, schema: pa.Schema) -> PartWriter:
        plan, path = self._plan, attempt_path(self._run, self._attempt, file)
        return PartWriter(path, schema, plan.job.job.output.compression, lineage(plan, self._shard))

    def _stored(self, file: str, path: str, rows: int) -> StoredFile:
        staged = attempt_path(self._run, self._attempt, file)
        sync_file(staged)
        with staged.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return StoredFile(path, rows, staged.stat().st_size, digest)


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
