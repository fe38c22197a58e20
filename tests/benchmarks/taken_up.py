"""Runs with very many committed shards: what it takes to take one up again.

python -m tests.benchmarks.taken_up commits|uploads NUMBER FOLDER   on a disk, or in a bucket
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.objects import StoreOutput
from batchonnx.ledger.records import Commit, PlanRecord, ShardRecord, SourceRows, StoredFile, Upload
from batchonnx.ledger.run_folder import attempt_path, commit, open_run, staging_of
from batchonnx.ledger.upload import OpenUpload
from batchonnx.storage.s3_requests import requests_sent
from tests.benchmarks.memory import peak_mb
from tests.stores.s3server import S3Server

ROWS = 200


def make_plan(number: int, folder: Path) -> PlanRecord:
    """A plan of so many shards, each of a file of its own."""
    paths = [f"/data/in/{n:06}.parquet" for n in range(number)]
    shards = [
        ShardRecord(n, f"part-{n:06}-3f9a1c07.parquet", ((path, (0,), 0, ROWS),))
        for n, path in enumerate(paths)
    ]
    identity = {f"input {path}": f"2048 bytes, version 1, {ROWS} rows in 1 row groups" for path in paths}
    return PlanRecord(
        run="0123456789abcdef",
        version="0",
        created="2026-01-01T00:00:00Z",
        job={},
        folder=str(folder),
        identity=identity,
        fingerprint="3f9a1c07" * 8,
        files=dict.fromkeys(paths, ROWS),
        pruned=0,
        since=None,
        kept=(),
        shards=tuple(shards),
    )


def make_commit(shard: ShardRecord, upload: Upload | None = None) -> Commit:
    """A shard's commit, of a part of four bytes."""
    ((path, _, _, _),) = shard.sources
    return Commit(
        shard=shard.shard,
        attempt=f"{shard.shard:016x}",
        at="2026-01-01T00:00:00Z",
        rows_in=ROWS,
        predicted=ROWS,
        quarantined=0,
        filtered=0,
        part=shard.part,
        parts=(StoredFile(shard.part, ROWS, 4, "0" * 64, upload),),
        quarantine=None,
        sources=(SourceRows(path, (0,), 0, ROWS),),
        batch_rows=1024,
        calls=1,
        seconds={"read": 0.01, "encode": 0.01, "predict": 0.01, "decode": 0.01, "write": 0.01},
    )


def resume_commits(number: int, folder: Path) -> dict[str, float]:
    """Taking up a run with so many commits, each with its part in place; made if it isn't there yet."""
    plan, output = make_plan(number, folder), folder / "out"
    if not staging_of(output).exists():
        run = open_run(output, plan)
        for shard in plan.shards:
            record = make_commit(shard)
            attempt_path(run.path, record.attempt, "part").write_bytes(b"PAR1")
            commit(run.path, record)
    begin = perf_counter()
    run = open_run(output, plan)
    assert len(run.commits) == number
    return _figures(begin)


def resume_uploads(number: int, folder: Path) -> dict[str, float]:
    """The same in a bucket, each part an upload that is held open; the server is started for it."""
    plan = make_plan(number, folder)
    with S3Server(folder, buckets=("lake",)) as server:
        os.environ |= server.env()
        output = StoreOutput(ObjectFolder("s3://lake/out"))
        with output.hold_lease(lambda: None), ThreadPoolExecutor(32) as pool:
            run = output.open_run(plan)

            def hold(shard: ShardRecord) -> None:
                upload = OpenUpload(ObjectFolder("s3://lake/out"), shard.part)
                run.commit(make_commit(shard, Upload(upload.id, upload.mark, ("etag",))))

            for _ in pool.map(hold, plan.shards):
                pass
        begin, sent = perf_counter(), sum(requests_sent().values())
        again = StoreOutput(ObjectFolder("s3://lake/out"))
        with again.hold_lease(lambda: None):
            assert len(again.open_run(plan).commits) == number
            figures = _figures(begin)
    return figures | {"requests": sum(requests_sent().values()) - sent}


def _figures(begin: float) -> dict[str, float]:
    seconds = perf_counter() - begin
    return {"seconds": seconds, "peak_mb": peak_mb()}


if __name__ == "__main__":
    what, number, where = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    resume = resume_commits if what == "commits" else resume_uploads
    print(json.dumps(resume(number, where)))
