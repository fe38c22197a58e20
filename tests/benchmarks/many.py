"""Runs with very many files and shards: what it takes to plan one, and to take one up again.

python -m tests.benchmarks.many files|commits NUMBER FOLDER   one figure, in a process of its own
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from tests.benchmarks.memory import peak_mb

COLUMNS = 28
ROWS, ROW_GROUP = 200, 100


def make_files(number: int, folder: Path, rows: int = ROWS, row_group: int = ROW_GROUP) -> Path:
    """`number` small Parquet files of 28 float columns and an id, a model, and a job over them."""
    import numpy as np
    import onnx
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.benchmarks.data import make_mlp

    names = [f"f{i:02}" for i in range(COLUMNS)]
    job = folder / "job.yaml"
    if job.exists():
        return job
    (folder / "in").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(number):
        columns = {name: rng.random(rows, dtype=np.float32) for name in names}
        table = pa.table({"id": np.arange(n * rows, (n + 1) * rows), **columns})
        pq.write_table(table, folder / "in" / f"{n:06}.parquet", row_group_size=row_group)
    onnx.save(make_mlp([COLUMNS, 64, 32, 1]), folder / "model.onnx")
    job.write_text(
        "name: many\nmodel: {path: model.onnx}\ninput: {path: in}\n"
        f"features: {{x: {{columns: [{', '.join(names)}]}}}}\n"
        "outputs: {score: {from: y}}\nkeep: [id]\noutput: {path: out, overwrite: true}\n"
    )
    return job


def plan_files(job: Path) -> dict[str, float]:
    """`batchonnx.plan`, imports included."""
    begin = perf_counter()
    from batchonnx import api

    api.plan(api.load_job(job))
    return _figures(begin)


def resume_commits(number: int, folder: Path) -> dict[str, float]:
    """Taking up a run with so many commits, each with its part in place; made if it isn't there yet."""
    from batchonnx.ledger.attempt import commit as commit_files
    from batchonnx.ledger.records import Commit, PlanRecord, ShardRecord, SourceRows, StoredFile
    from batchonnx.ledger.run_folder import attempt_path, open_run, staging_of

    paths = [f"/data/in/{n:06}.parquet" for n in range(number)]
    shards = [
        ShardRecord(n, f"part-{n:06}-3f9a1c07.parquet", ((path, (0,), 0, ROWS),))
        for n, path in enumerate(paths)
    ]
    identity = {f"input {path}": f"2048 bytes, version 1, {ROWS} rows in 1 row groups" for path in paths}
    plan = PlanRecord(
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
    output = folder / "out"
    if not staging_of(output).exists():
        run = open_run(output, plan)
        for shard in shards:
            attempt = f"{shard.shard:016x}"
            attempt_path(run.path, attempt, "part").write_bytes(b"PAR1")
            source = SourceRows(paths[shard.shard], (0,), 0, ROWS)
            record = Commit(
                shard=shard.shard,
                attempt=attempt,
                at="2026-01-01T00:00:00Z",
                rows_in=ROWS,
                predicted=ROWS,
                quarantined=0,
                filtered=0,
                part=StoredFile(shard.part, ROWS, 4, "0" * 64),
                quarantine=None,
                sources=(source,),
                batch_rows=1024,
                calls=1,
                seconds={"read": 0.01, "encode": 0.01, "predict": 0.01, "decode": 0.01, "write": 0.01},
            )
            commit_files(run.path, record)
    begin = perf_counter()
    run = open_run(output, plan)
    assert len(run.commits) == number
    return _figures(begin)


def _figures(begin: float) -> dict[str, float]:
    seconds = perf_counter() - begin
    return {"seconds": seconds, "peak_mb": peak_mb()}


if __name__ == "__main__":
    what, number, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if what == "files":
        print(json.dumps(plan_files(make_files(number, folder))))
    else:
        print(json.dumps(resume_commits(number, folder)))
