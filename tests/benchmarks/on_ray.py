"""The Ray engine on a cluster that is started already: beside the local engine, and with workers that die.

python -m tests.benchmarks.on_ray FOLDER ENGINE   one run of a case's job, on the cluster of RAY_ADDRESS

Rows/s are from the first prediction to the last byte of the last part: what comes before is reported apart.
A run on Ray begins to score when it has a worker for each core.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter, process_time, time

from batchonnx.engines.ray.reaper import MARK, belonging
from batchonnx.runtime.cores import usable_cores
from tests.benchmarks.data import CASES, make_case
from tests.integration.ray_cluster import ray_cluster

OF_LOCAL, OF_UNDISTURBED = 0.9, 0.85
"""Goals: of the local engine's rows/s, and with kills, of its own."""

TIMES, EVERY_S = 5, 20.0
"""The table, repeated, for a run that is long enough to be disturbed; and how often."""

Figures = dict[str, float]


def score(folder: Path, engine: str) -> Figures:
    """One run of a case's job, in this process."""
    from batchonnx import api

    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    job = folder / f"{engine}.yaml"
    workers = f", workers: {{min: {usable_cores()}, max: {usable_cores()}}}" if engine == "ray" else ""
    job.write_text((folder / "job.yaml").read_text() + f"engine: {{name: {engine}{workers}}}\n")
    loaded = api.load_job(job)
    begin, begin_s = time(), perf_counter()
    summary = api.run(loaded)
    seconds = perf_counter() - begin_s
    last = max(part.stat().st_mtime for part in out.glob("*.parquet"))
    scoring_s = last - begin - (summary.first_row_s or 0.0)
    return {
        "rows_s": summary.rows_in / scoring_s,
        "scoring_s": scoring_s,
        "cluster_s": summary.cluster_s or 0.0,
        "start_s": summary.start_s or 0.0,
        "seconds": seconds,
        "lost": summary.lost,
        "driver_cpu_s": process_time(),
    }


def run_apart(
    folder: Path,
    engine: str,
    meanwhile: Callable[[threading.Event], None] | None = None,
    module: str = "tests.benchmarks.on_ray",
) -> Figures:
    """One run in a process of its own. meanwhile: done in a thread until the event is set."""
    command = [sys.executable, "-m", module, str(folder), engine]
    over = threading.Event()
    thread = threading.Thread(target=meanwhile, args=(over,)) if meanwhile is not None else None
    if thread is not None:
        thread.start()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        over.set()
        if thread is not None:
            thread.join()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    print(f"  {folder.name} {engine:<6} {done.stdout.splitlines()[-1]}", file=sys.stderr, flush=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def on_ray(folder: Path, rounds: int) -> Iterator[str]:
    """The cases, the engines taking turns."""
    yield f"ray: {usable_cores()} workers on a cluster of this machine"
    with ray_cluster(1, usable_cores()):
        for name in CASES:
            case = make_case(name, folder)
            seen: dict[str, list[Figures]] = {"local": [], "ray": []}
            for _ in range(rounds):
                for engine, figures in seen.items():
                    figures.append(run_apart(case.folder, engine))
            local, ray = (medians(figures) for figures in seen.values())
            share = ray["rows_s"] / local["rows_s"]
            yield (
                f"  {name:<8} {ray['rows_s']:12,.0f} rows/s, {share:.2f} of the local engine's "
                f"{local['rows_s']:12,.0f}   (goal: {OF_LOCAL})"
            )
            yield (
                f"  {'':<8} the cluster reached after {ray['cluster_s']:.1f} s, workers ready after "
                f"{ray['start_s']:.1f} s, all done after {ray['seconds']:.1f} s"
            )


def kills(folder: Path, rounds: int) -> Iterator[str]:
    """The middle model over the repeated table, undisturbed and with workers that are killed; one round."""
    case = make_case("middle", folder)
    home = folder / "kills"
    shutil.rmtree(home, ignore_errors=True)
    (home / "in").mkdir(parents=True)
    for number in range(TIMES):
        os.link(folder / "table.parquet", home / "in" / f"{number}.parquet")
    job = (case.folder / "job.yaml").read_text()
    (home / "job.yaml").write_text(job.replace(str(folder / "table.parquet"), str(home / "in")))
    with ray_cluster(1, usable_cores()):
        calm = run_apart(home, "ray")
        killed = run_apart(home, "ray", _kill_now_and_then)
    yield f"kills: {case.rows * TIMES:,} rows, the middle model, a worker killed every {EVERY_S:.0f} s"
    yield (
        f"  {killed['rows_s']:12,.0f} rows/s {killed['rows_s'] / calm['rows_s']:5.2f} of the undisturbed "
        f"{calm['rows_s']:12,.0f}; {killed['lost']:.0f} workers died in {killed['scoring_s']:.0f} s"
        f"   (goal: {OF_UNDISTURBED})"
    )


def medians(figures: list[Figures]) -> Figures:
    """Of each figure, over rounds."""
    return {key: statistics.median(one[key] for one in figures) for key in figures[0]}


def _kill_now_and_then(over: threading.Event) -> None:
    draw = random.Random(0)
    while not over.wait(1.0) and not _actors():
        pass  # the first kill comes after a while of scoring
    while not over.wait(EVERY_S):
        with suppress(ProcessLookupError, IndexError):
            os.kill(draw.choice(_actors()), signal.SIGKILL)


def _actors() -> list[int]:
    """The processes of this cluster's actors, which Ray gives a title."""
    found = []
    for pid in belonging(os.environ[MARK], Path(os.environ["RAY_TMPDIR"]), os.getpid()):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Actor"):
                found.append(pid)
    return found


if __name__ == "__main__":
    print(json.dumps(score(Path(sys.argv[1]), sys.argv[2])))
