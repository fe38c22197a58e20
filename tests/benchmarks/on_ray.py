"""The Ray engine on a cluster that is started already, in turn with the local engine.

    python -m tests.benchmarks --only ray

Rows/s are from the first prediction to the last commit; what comes before, on Ray, is reported apart.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time

from batchonnx.engines.ray.handout import HandOut
from batchonnx.planning.shards import Shard
from batchonnx.runtime.cores import usable_cores
from tests.benchmarks.data import CASES, Case, make_case
from tests.integration.ray_cluster import ray_cluster

GOAL = 0.9
SHARDS, WORKERS = 100_000, 64


def score(folder: Path, engine: str) -> dict[str, float]:
    """One run of a case's job, in this process."""
    from batchonnx import api

    shutil.rmtree(folder / "out", ignore_errors=True)
    begin = perf_counter()
    summary = api.run(folder / "job.yaml", engine=engine)  # type: ignore[arg-type]
    scoring_s = summary.elapsed_s - (summary.publish_s or 0.0) - (summary.first_row_s or 0.0)
    return {
        "rows_s": summary.rows_in / scoring_s,
        "start_s": summary.start_s or summary.first_row_s or 0.0,
        "seconds": perf_counter() - begin,
        "driver_cpu_s": process_time(),
    }


def hand_out() -> float:
    """Shards/s that the policy alone hands out and counts, to workers that take no time."""
    hand = HandOut([Shard(number, (), None, 1) for number in range(SHARDS)], ())
    names = [f"worker-{number}" for number in range(WORKERS)]
    begin, now = perf_counter(), 0.0
    while hand.left:
        now += 0.5
        for name in names:
            for shard in hand.give(name, now, WORKERS, SHARDS / WORKERS):
                hand.commit(name, shard, now)
    return SHARDS / (perf_counter() - begin)


def compare(case: Case, rounds: int) -> dict[str, dict[str, float]]:
    """Engine -> medians, the engines taking turns, each in a process of its own."""
    seen: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    for _ in range(rounds):
        for engine, figures in seen.items():
            command = [sys.executable, "-m", "tests.benchmarks.on_ray", str(case.folder), engine]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        engine: {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        for engine, figures in seen.items()
    }


def on_ray(folder: Path, rounds: int, names: Sequence[str] = tuple(CASES)) -> list[str]:
    """The table of all cases."""
    lines = [
        "| case | local rows/s | Ray rows/s | of it | goal | first worker after | driver's CPU |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with ray_cluster(1, usable_cores()):
        for name in names:
            found = compare(make_case(name, folder), rounds)
            local, ray = found["local"], found["ray"]
            share = ray["rows_s"] / local["rows_s"]
            lines.append(
                f"| {name} | {local['rows_s']:,.0f} | {ray['rows_s']:,.0f} | {share:.2f} | {GOAL} | "
                f"{ray['start_s']:.1f} s | {ray['driver_cpu_s']:.1f} s |"
            )
    return [*lines, "", f"the policy alone hands out {hand_out():,.0f} shards/s to {WORKERS} workers"]


if __name__ == "__main__":
    print(json.dumps(score(Path(sys.argv[1]), sys.argv[2])))
