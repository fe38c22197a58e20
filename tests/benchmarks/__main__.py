"""batchonnx against the loop that a user would write, and against the limit of this machine.

    python -m tests.benchmarks                    # everything: some minutes, about 2 GB of disk
    python -m tests.benchmarks --only tiny --rounds 3

Three contenders score the same rows with the same model, in turn, several times; medians are
compared. Each of them runs in a fresh process, so that peak memory is its own.

    loop    what a user writes: iter_batches, column_stack, session.run, one ParquetWriter;
            ONNX Runtime's and pyarrow's default threads
    ours    `batchonnx.run` of a job file, everything in it: plan, session, probe, publish
    limit   decode, session.run on ready tensors and encode, each alone and on every core at
            once, best batch size of a sweep; their seconds added up. Nothing can be faster
            without doing less; a real run must interleave columns as well.

Four more look at what keeping records and being watched cost:

    ledger  `ours` on the tiny model, in turn with itself while the ledger writes to a null sink
    watched the middle model with live view, events and metrics, in turn with none of them
    plan    a plan of 10,000 Parquet files: footers from the files, and from the cache
    resume  taking up a run with 100,000 committed shards
    uploads the same in a bucket, each part an upload that is held open (some minutes to make)

Two read from a real S3 server on this machine, and write to it:

    s3      the middle and the tiny MLP, in turn with the local run; the tiny one with 30 ms, too
    small   4,000 objects of 250 rows with 30 ms added to every request, and with none

One looks at images:

    images  the job over emoji, against decoding and the model alone on every core (some minutes)

Four look at a Ray cluster of this machine:

    ray     the tables above, in turn with the local engine
    raydata the tiny and the middle MLP, in turn with Ray Data (pip install -e '.[bench]')
    kills   the middle MLP, with a worker killed every 20 s
    driver  the driver's own work, with 64 actors that score nothing

One turns text into vectors:

    text    glosses and docstrings through MiniLM, beside a loop, Ray Data, Daft and the model alone; wants
            jobs/get_glosses.py; contenders that aren't installed are left out

Two ask what is said before a run, some minutes each:

    foretold what plan --probe says, beside what the run takes
    tuned   what tune finds, beside a sweep over all that it tries
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks import driver_load, stores
from tests.benchmarks.data import CASES, Case, make_case
from tests.benchmarks.foretold import foretold
from tests.benchmarks.images import images
from tests.benchmarks.on_ray import kills, on_ray
from tests.benchmarks.ray_data import beside_ray_data
from tests.benchmarks.text import text
from tests.benchmarks.tuned import tuned

CONTENDERS = ("loop", "ours", "limit")
TARGETS = {"tiny": (2.0, 0.85), "middle": (1.25, 0.95)}
"""Case -> at least so many times the loop, at least this share of the limit."""


def measure(case: Case, contender: str) -> dict[str, float]:
    """One round of one contender in a process of its own."""
    return _process("tests.benchmarks.contenders", contender, str(case.folder))


def _process(module: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(case: Case, rounds: int, contenders: Sequence[str] = CONTENDERS) -> dict[str, dict[str, float]]:
    """Contender -> medians over `rounds` rounds, the contenders taking turns."""
    seen: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            figures = measure(case, contender)
            seen[contender].append(figures)
            shown = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"  {case.name} {number + 1}/{rounds} {contender:<6} {shown}", file=sys.stderr, flush=True)
    return {contender: _medians(figures) for contender, figures in seen.items()}


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}


def table(case: Case, medians: dict[str, dict[str, float]]) -> Iterator[str]:
    """What the README of a benchmark would show."""
    loop, ours, limit = (medians[contender]["seconds"] for contender in CONTENDERS)
    yield f"{case.name}: {case.what}"
    for contender in CONTENDERS:
        figures = medians[contender]
        memory = f"{figures['peak_mb']:8.0f} MB" if contender != "limit" else " " * 11
        rate = case.rows / figures["seconds"]
        yield f"  {contender:<6} {figures['seconds']:8.3f} s {rate:14,.0f} rows/s {memory}"
    over_loop, of_limit = loop / ours, limit / ours
    wanted = TARGETS.get(case.name)
    goal = f"   (goal: {wanted[0]} and {wanted[1]})" if wanted else ""
    yield f"  {over_loop:.2f}x the loop, {of_limit:.2f} of the limit{goal}"
    if interleave := medians["limit"]["interleave_s"]:
        share = (limit + interleave) / ours
        yield f"  {share:.2f} of the limit and the {interleave:.3f} s that interleaving columns takes, alone"
    flat = medians["ours"]["peak_mb"] - medians["ours"]["peak_mb_at_tenth"]
    yield f"  memory grew by {flat:.0f} MB after the first tenth"


def ledger(folder: Path, rounds: int) -> Iterator[str]:
    """What records, syncs, hashes and the lease add to a run."""
    case = make_case("tiny", folder)
    medians = compare(case, rounds, ("ours", "unrecorded"))
    ours, unrecorded = medians["ours"]["seconds"], medians["unrecorded"]["seconds"]
    yield f"ledger: {case.what}"
    yield f"  {ours:.3f} s; with a null sink {unrecorded:.3f} s"
    yield f"  the ledger costs {ours / unrecorded - 1:+.1%}   (goal: at most 3%)"


def watched(folder: Path, rounds: int) -> Iterator[str]:
    """What live view, events and metrics add to a run."""
    case = make_case("middle", folder)
    medians = compare(case, rounds, ("watched", "unwatched"))
    looked_at, alone = medians["watched"], medians["unwatched"]
    cost = looked_at["driver_s"] - alone["driver_s"]
    yield f"watched: {case.what}"
    yield f"  {looked_at['seconds']:.3f} s; with nobody looking {alone['seconds']:.3f} s"
    share = cost / looked_at["seconds"]
    yield f"  being watched takes {cost:.3f} s of a core, {share:.1%}   (goal: below 1%)"


def plan(folder: Path, rounds: int) -> Iterator[str]:
    """A plan of very many files."""
    cache = folder / "cache"
    os.environ["XDG_CACHE_HOME"] = str(cache)
    _process("tests.benchmarks.many", str(FILES), str(folder / "many"))
    cold, warm = [], []
    for _ in range(rounds):
        shutil.rmtree(cache)
        for seen in (cold, warm):
            seen.append(_process("tests.benchmarks.many", str(FILES), str(folder / "many")))
    yield f"plan: {FILES:,} Parquet files   (goal: 10 s and 500 MB)"
    for seen, footers in ((cold, "read"), (warm, "cached")):
        medians = _medians(seen)
        yield f"  footers {footers:<7} {medians['seconds']:6.2f} s {medians['peak_mb']:6.0f} MB"


def resume(folder: Path, rounds: int) -> Iterator[str]:
    """Taking up a run with very many commits."""
    arguments = ("commits", str(COMMITS), str(folder / "commits"))
    _process("tests.benchmarks.taken_up", *arguments)
    os.sync()
    medians = _medians([_process("tests.benchmarks.taken_up", *arguments) for _ in range(rounds)])
    yield f"resume: {COMMITS:,} committed shards   (goal: 5 s)"
    yield f"  {medians['seconds']:.2f} s {medians['peak_mb']:6.0f} MB"


def uploads(folder: Path, rounds: int) -> Iterator[str]:
    """The same in a bucket; made anew for one round, whatever was asked for."""
    figures = _process("tests.benchmarks.taken_up", "uploads", str(COMMITS), str(folder / "uploads"))
    yield f"uploads: {COMMITS:,} committed shards in a bucket   (goal: 20 s)"
    yield f"  {figures['seconds']:.2f} s {figures['peak_mb']:6.0f} MB {figures['requests']:,.0f} requests"


def from_s3(folder: Path, rounds: int) -> Iterator[str]:
    """A large object against the same file here."""
    return stores.s3(folder, rounds, _ours)


def from_small(folder: Path, rounds: int) -> Iterator[str]:
    """Very many small objects."""
    return stores.small(folder, rounds, _ours)


def driver(folder: Path, rounds: int) -> Iterator[str]:
    """What a run on Ray costs its driver; one round."""
    return driver_load.driver(folder, _process)


def _ours(folder: Path) -> dict[str, float]:
    return _process("tests.benchmarks.contenders", "ours", str(folder))


RECORDS = {
    "ledger": ledger,
    "watched": watched,
    "plan": plan,
    "resume": resume,
    "uploads": uploads,
    "s3": from_s3,
    "small": from_small,
    "images": images,
    "ray": on_ray,
    "raydata": beside_ray_data,
    "kills": kills,
    "driver": driver,
    "text": text,
    "foretold": foretold,
    "tuned": tuned,
}
FILES, COMMITS = 10_000, 100_000


def main() -> None:
    """Run the cases asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=[*CASES, *RECORDS], action="append", help="a case; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contender (default 5)")
    parser.add_argument("--folder", type=Path, help="keep the data here (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchonnx-bench-") as scratch:
        lines: list[str] = []
        folder = options.folder or Path(scratch)
        for name in options.only or [*CASES, *RECORDS]:
            if name in RECORDS:
                lines += [*RECORDS[name](folder, options.rounds), ""]
                continue
            case = make_case(name, folder)
            lines += [*table(case, compare(case, options.rounds)), ""]
        print("\n".join(lines))


if __name__ == "__main__":
    main()
