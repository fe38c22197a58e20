"""Images to labels: the run of jobs/images.yaml, and decoding and the model alone on every core.

    python -m tests.benchmarks --only images

The limit is the CPU-seconds of decoding all images (as the job decodes them) and of the model on tensors
that are ready, over the cores. Figures of one process: python -m tests.benchmarks.images ours|limit FOLDER
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import pyarrow.parquet as pq

from batchonnx import api
from batchonnx.runtime.cores import usable_cores
from batchonnx.scoring.encode import Encoder
from tests.benchmarks.contenders import on_all_cores
from tests.benchmarks.data import JOBS
from tests.benchmarks.memory import peak_mb

GOAL = 0.9
BATCH, SWEEP = 8, (1, 8, 64)


def ours(folder: Path) -> dict[str, float]:
    """`batchonnx.run`, from the job file to the published result."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    begin = perf_counter()
    summary = api.run(_job(folder))
    seconds = perf_counter() - begin
    # Far less than `seconds` where something else ran on these cores meanwhile.
    cpu_s = process_time() / usable_cores()
    figures = {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb(), "rows": summary.rows_in}
    return figures | {"batch": summary.batch_rows}


def limit(folder: Path) -> dict[str, float]:
    """Decoding alone and the model alone, each on every core at once."""
    plan, model = api.open_job(_job(folder))
    cores = usable_cores()
    table = pq.read_table(JOBS / "data" / "emoji.parquet", columns=list(plan.columns)).combine_chunks()
    (rows,) = table.to_batches()
    begins = range(0, rows.num_rows, BATCH)

    def decode(core: int) -> None:
        tensors = Encoder(plan.features, BATCH, {}).load(rows)
        for begin in begins[core::cores]:
            tensors(begin, min(begin + BATCH, rows.num_rows))

    decode_s = on_all_cores(cores, [lambda core=core: decode(core) for core in range(cores)])
    ready = Encoder(plan.features, max(SWEEP), {}).load(rows)(0, max(SWEEP))
    names = [plan.outputs[0].source.name]

    def predict(size: int, count: int) -> None:
        feed = {name: np.ascontiguousarray(value[:size]) for name, value in ready.items()}
        for _ in range(count // size):
            model.run(names, feed)

    sample = max(SWEEP) * 2
    seconds = {size: _timed(predict, size, sample) for size in SWEEP}
    best = min(seconds, key=lambda size: seconds[size])
    share = rows.num_rows // cores
    predict_s = on_all_cores(cores, [lambda: predict(best, share) for _ in range(cores)])
    predict_s *= rows.num_rows / (share // best * best * cores)
    return {"seconds": decode_s + predict_s, "decode_s": decode_s, "predict_s": predict_s, "batch": best}


def images(folder: Path, rounds: int) -> Iterator[str]:
    """The table of this benchmark."""
    job = JOBS / "images.yaml"
    if not (JOBS / "data" / "emoji.parquet").exists():
        subprocess.run([sys.executable, str(JOBS / "get_images.py")], check=True, stdout=sys.stderr)
    home = folder / "images"
    home.mkdir(parents=True, exist_ok=True)
    seen: dict[str, list[dict[str, float]]] = {"ours": [], "limit": []}
    for _ in range(rounds):
        for contender, figures in seen.items():
            command = [sys.executable, "-m", "tests.benchmarks.images", contender, str(home)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  images {contender:<6} {figures[-1]}", file=sys.stderr, flush=True)
    middle = {name: {key: median(one[key] for one in told) for key in told[0]} for name, told in seen.items()}
    run, least = middle["ours"], middle["limit"]
    yield f"images: {run['rows']:,.0f} emoji of {job.name}, EfficientNet-Lite0"
    rate = run["rows"] / run["seconds"]
    yield f"  ours   {run['seconds']:8.2f} s {rate:8.1f} rows/s {run['peak_mb']:6.0f} MB"
    yield f"  limit  {least['seconds']:8.2f} s, {least['decode_s'] / least['seconds']:.0%} of it decoding"
    yield f"  {least['seconds'] / run['seconds']:.2f} of the limit   (goal: {GOAL})"


def _job(folder: Path) -> api.JobFile:
    job = api.load_job(JOBS / "images.yaml")
    output = job.job.output.model_copy(update={"path": str(folder / "out")})
    return job.model_copy(update={"job": job.job.model_copy(update={"output": output})})


def _timed(work: object, size: int, count: int) -> float:
    begin = perf_counter()
    work(size, count)  # type: ignore[operator]
    return perf_counter() - begin


if __name__ == "__main__":
    told, place = sys.argv[1:]
    print(json.dumps({"ours": ours, "limit": limit}[told](Path(place))))
