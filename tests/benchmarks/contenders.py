"""One contender, one case, one process: prints its figures as a line of JSON.

python -m tests.benchmarks.contenders loop|ours|unrecorded|watched|unwatched|limit FOLDER
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and {"ours", "unrecorded", "watched", "unwatched"} & {*sys.argv}:
    import batchonnx  # noqa: F401 - first, as in its own process: it chooses Arrow's memory pool

import json
import os
import resource
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.benchmarks.memory import peak_mb
from tests.benchmarks.watched import unwatched, watched

STRIP_ROWS = 4096
SWEEP = (256, 512, 1024, 2048, 4096, 8192)


class Task:
    """What a job file asks for, in the terms of a hand-written loop."""

    def __init__(self, folder: Path) -> None:
        job = yaml.safe_load((folder / "job.yaml").read_text())
        ((self.input, feature),) = job["features"].items()
        ((self.column, output),) = job["outputs"].items()
        self.columns: list[str] = feature["columns"]
        self.output: str = output["from"]
        self.model, self.data = job["model"]["path"], job["input"]["path"]


def loop(folder: Path) -> dict[str, float]:
    """The loop that a user would write; nothing in it is made slow on purpose."""
    task = Task(folder)
    begin = perf_counter()
    session = ort.InferenceSession(task.model, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory(dir=folder) as out:
        schema = pa.schema([(task.column, pa.float32())])
        with pq.ParquetWriter(Path(out) / "predictions.parquet", schema) as writer:
            for batch in pq.ParquetFile(task.data).iter_batches(columns=task.columns):
                x = np.column_stack([column.to_numpy(zero_copy_only=False) for column in batch.columns])
                (y,) = session.run([task.output], {task.input: x.astype(np.float32, copy=False)})
                writer.write_batch(pa.record_batch({task.column: y.reshape(len(x))}))
        seconds = perf_counter() - begin
    return {"seconds": seconds, "peak_mb": peak_mb()}


def ours(folder: Path) -> dict[str, float]:
    """`batchonnx.run`, from the job file to the published result."""
    from batchonnx import api

    at_tenth = 0.0

    def watch(progress: Any) -> None:
        nonlocal at_tenth
        if not at_tenth and progress.rows_total and progress.rows_in * 10 >= progress.rows_total:
            at_tenth = peak_mb()

    shutil.rmtree(folder / "out", ignore_errors=True)  # or it would know the batch size already
    begin = perf_counter()
    job = folder / "job.yaml"
    variables = {"run": secrets.token_hex(4)} if "{{ run }}" in job.read_text() else {}
    summary = api.run(job, variables, on_progress=watch)
    seconds = perf_counter() - begin
    figures = {"seconds": seconds, "peak_mb": peak_mb(), "peak_mb_at_tenth": at_tenth or peak_mb()}
    return figures | {"batch_rows": summary.batch_rows, "first_row_s": summary.first_row_s or 0.0}


def unrecorded(folder: Path) -> dict[str, float]:
    """`ours`, with a ledger that costs nothing."""
    from tests.benchmarks.null_ledger import silence_ledger

    silence_ledger()
    return ours(folder)


def limit(folder: Path) -> dict[str, float]:
    """Decode, predict and encode, each alone on all cores; the sum of their CPU-seconds over the cores."""
    task = Task(folder)
    pa.set_cpu_count(1)
    cores = len(os.sched_getaffinity(0))
    groups = range(pq.read_metadata(task.data).num_row_groups)
    decode_s = on_all_cores(cores, [lambda g=g: _decode(task, [g]) for g in groups])
    share = [groups[core::cores] for core in range(cores)]
    interleave_s = _interleave_s(task, cores)
    with ThreadPoolExecutor(cores) as pool:
        tensors = list(pool.map(lambda part: _ready(task, part), share))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(task.model, options, providers=["CPUExecutionProvider"])
    sample = tensors[0][: max(SWEEP) * 4]
    batch = min(SWEEP, key=lambda size: _timed(lambda: _predict(session, task, sample, size)))
    scores: dict[int, np.ndarray] = {}

    def score(core: int) -> None:
        scores[core] = _predict(session, task, tensors[core], batch)

    predict_s = on_all_cores(cores, [lambda core=core: score(core) for core in range(cores)])
    with tempfile.TemporaryDirectory(dir=folder) as out:
        parts = [(Path(out) / f"{core}.parquet", y) for core, y in scores.items()]
        encode_s = on_all_cores(cores, [lambda p=p, y=y: _encode(task, p, y) for p, y in parts])
    figures = {"decode_s": decode_s, "predict_s": predict_s, "encode_s": encode_s, "batch_rows": batch}
    figures |= {"interleave_s": interleave_s}
    return {"seconds": decode_s + predict_s + encode_s, "peak_mb": peak_mb()} | figures


def _interleave_s(task: Task, cores: int) -> float:
    """Seconds to make rows of columns, as they come from the file: not part of the limit, shown beside it."""
    schema = pq.read_schema(task.data)
    if {str(schema.field(name).type) for name in task.columns} != {"float"}:
        return 0.0
    batches = list(pq.ParquetFile(task.data).iter_batches(98_304, columns=task.columns))

    def interleave(core: int) -> None:
        rows = np.empty((STRIP_ROWS, len(task.columns)), np.float32)
        for batch in batches[core::cores]:
            for first in range(0, batch.num_rows, STRIP_ROWS):
                strip = batch.slice(first, STRIP_ROWS)
                np.copyto(rows[: strip.num_rows], strip.to_tensor(row_major=False).to_numpy())

    return on_all_cores(cores, [lambda core=core: interleave(core) for core in range(cores)])


def _timed(work: Callable[[], object]) -> float:
    begin = perf_counter()
    work()
    return perf_counter() - begin


def on_all_cores(cores: int, pieces: Sequence[Callable[[], object]]) -> float:
    """Seconds of the pieces' CPU time over the cores, all cores being busy meanwhile."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with ThreadPoolExecutor(cores) as pool:
        for done in [pool.submit(piece) for piece in pieces]:
            done.result()
    now = resource.getrusage(resource.RUSAGE_SELF)
    return (now.ru_utime + now.ru_stime - usage.ru_utime - usage.ru_stime) / cores


def _decode(task: Task, groups: Sequence[int]) -> None:
    file = pq.ParquetFile(task.data, pre_buffer=False, buffer_size=1 << 16)
    for _ in file.iter_batches(row_groups=groups, columns=task.columns, use_threads=False):
        pass


def _ready(task: Task, groups: Sequence[int]) -> np.ndarray:
    file = pq.ParquetFile(task.data)
    batches = file.iter_batches(row_groups=list(groups), columns=task.columns)
    blocks = [np.column_stack([c.to_numpy(zero_copy_only=False) for c in b.columns]) for b in batches]
    return np.concatenate(blocks).astype(np.float32, copy=False)


def _predict(session: ort.InferenceSession, task: Task, x: np.ndarray, size: int) -> np.ndarray:
    names = [task.output]
    results = [session.run(names, {task.input: x[i : i + size]})[0] for i in range(0, len(x), size)]
    return np.concatenate(results).reshape(len(x))


def _encode(task: Task, path: Path, y: np.ndarray) -> None:
    table = pa.table({task.column: y})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, row_group_size=1 << 18)


if __name__ == "__main__":
    contender, folder = sys.argv[1:]
    contenders = {"loop": loop, "ours": ours, "unrecorded": unrecorded, "limit": limit}
    contenders |= {"watched": watched, "unwatched": unwatched}
    print(json.dumps(contenders[contender](Path(folder))))
