"""A plan of very many files: what it takes.

python -m tests.benchmarks.many NUMBER FOLDER   one figure, in a process of its own
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


def _figures(begin: float) -> dict[str, float]:
    seconds = perf_counter() - begin
    return {"seconds": seconds, "peak_mb": peak_mb()}


if __name__ == "__main__":
    print(json.dumps(plan_files(make_files(int(sys.argv[1]), Path(sys.argv[2])))))
