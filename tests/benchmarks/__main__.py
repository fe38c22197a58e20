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
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.data import CASES, Case, make_case

CONTENDERS = ("loop", "ours", "limit")
TARGETS = {"tiny": (2.0, 0.85), "middle": (1.25, 0.95)}
"""Case -> at least so many times the loop, at least this share of the limit."""


def measure(case: Case, contender: str) -> dict[str, float]:
    """One round of one contender in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.contenders", contender, str(case.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender} failed on {case.name}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(case: Case, rounds: int) -> dict[str, dict[str, float]]:
    """Contender -> medians over `rounds` rounds, the contenders taking turns."""
    seen: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
    for number in range(rounds):
        for contender in CONTENDERS:
            figures = measure(case, contender)
            seen[contender].append(figures)
            shown = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"  {case.name} {number + 1}/{rounds} {contender:<6} {shown}", file=sys.stderr, flush=True)
    return {
        contender: {key: statistics.median(f[key] for f in figures) for key in figures[0]}
        for contender, figures in seen.items()
    }


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


def main() -> None:
    """Run the cases asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=list(CASES), action="append", help="a case; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contender (default 5)")
    parser.add_argument("--folder", type=Path, help="keep the data here (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchonnx-bench-") as scratch:
        lines: list[str] = []
        for name in options.only or CASES:
            case = make_case(name, options.folder or Path(scratch))
            lines += [*table(case, compare(case, options.rounds)), ""]
        print("\n".join(lines))


if __name__ == "__main__":
    main()
