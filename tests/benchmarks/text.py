"""Text, from a column to a vector: beside what others do, and the model alone.

python -m tests.benchmarks.text NAME FOLDER prints one contender's figures as a line of JSON.

    loop, daft, ray   see `text_others`; daft-tuned and ray-tuned are set for this machine
    ours    `batchonnx.run` of the job: plan, session, probe and publish in it
    limit   session.run alone on ids that are ready, sorted, at most 1,024 padded tokens in a call, one thread
            on each core
"""

from __future__ import annotations

import ast
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.runtime.cores import usable_cores
from tests.benchmarks.data import JOBS
from tests.benchmarks.text_others import MAX_LENGTH, MODEL, OTHERS, open_tokenizer, tensors
from tests.integration.ray_cluster import ray_cluster

ROWS = {"glosses": 2_000, "docstrings": 600}
LONGER = 4
"""Times the rows, against the limit alone: a job of half a minute, of which its start is a smaller share."""

GOALS = {"glosses": 1.5, "docstrings": 4.0}
LIMIT_SHARE, LIMIT_TOKENS = 0.9, 1_024

Figures = dict[str, float]


def text(folder: Path, rounds: int) -> Iterator[str]:
    """Glosses and docstrings through MiniLM."""
    if not MODEL.exists():
        yield "text: left out, jobs/models/minilm isn't there: python jobs/get_glosses.py, which wants torch"
        return
    others = [name for name in OTHERS if _is_here(name)]
    for name, rows in ROWS.items():
        home = _written(folder, name, rows)
        alone = ["ours", "limit", *(other for other in others if not other.startswith("ray"))]
        seen = _in_turn(home, alone, rounds)
        if "ray" in others:
            with ray_cluster(1, usable_cores()):
                seen |= _in_turn(home, ["ray", "ray-tuned"], rounds)
        yield f"{name}: {rows:,} texts through MiniLM, at most {MAX_LENGTH} tokens"
        yield from _table(seen, GOALS[name])
        longer = _in_turn(_written(folder, name, LONGER * rows), ["ours", "limit"], rounds)
        ours, limit = (median(one["seconds"] for one in figures) for figures in longer.values())
        told = f"ours {ours:.1f} s, limit {limit:.1f} s: {limit / ours:.2f} of it"
        yield f"  {LONGER * rows:,} texts: {told}   (goal: {LIMIT_SHARE})"


def _written(folder: Path, name: str, rows: int) -> Path:
    """A folder with so many texts, in two row groups."""
    home = folder / f"text-{name}-{rows}"
    home.mkdir(parents=True, exist_ok=True)
    texts = glosses(rows) if name == "glosses" else docstrings(rows)
    pq.write_table(table(texts), home / "in.parquet", row_group_size=rows // 2)
    return home


def _is_here(contender: str) -> bool:
    """A missing one is left out."""
    try:
        needed = {"daft": "daft", "ray": "ray.data"}.get(contender.partition("-")[0])
        return needed is None or find_spec(needed) is not None
    except ImportError:
        return False


def _in_turn(home: Path, contenders: Sequence[str], rounds: int) -> dict[str, list[Figures]]:
    seen: dict[str, list[Figures]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender, figures in seen.items():
            command = [sys.executable, "-m", "tests.benchmarks.text", contender, str(home)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
            figures.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {home.name} {contender:<10} {figures[-1]}", file=sys.stderr, flush=True)
    return seen


def _table(seen: dict[str, list[Figures]], goal: float) -> Iterator[str]:
    seconds = {name: median(one["seconds"] for one in figures) for name, figures in seen.items()}
    run = {key: median(one[key] for one in seen["ours"]) for key in seen["ours"][0]}
    ours, limit = seconds.pop("ours"), seconds.pop("limit")
    yield f"  ours       {ours:6.1f} s, {run['encode_share']:.1%} of the work is tokenizing and padding"
    for name, taken in seconds.items():
        yield f"  {name:<10} {taken:6.1f} s: {taken / ours:.1f}x   (goal: {goal})"
    yield f"  limit      {limit:6.1f} s: {limit / ours:.2f} of it"


def table(texts: Sequence[str]) -> pa.Table:
    """Texts as the input's one column."""
    return pa.table({"text": texts})


def glosses(rows: int) -> list[str]:
    """From all over WordNet."""
    column = pq.read_table(JOBS / "data" / "glosses.parquet")["gloss"]
    return list(column.take(np.linspace(0, len(column) - 1, rows).astype(int)).to_pylist())


def docstrings(rows: int) -> list[str]:
    """Of the standard library's modules, classes and functions."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        nodes = ast.walk(ast.parse(path.read_bytes()))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found += [told for node in nodes if isinstance(node, kinds) and (told := ast.get_docstring(node))]
    return [found[place] for place in np.linspace(0, len(found) - 1, rows).astype(int)]


def ours(folder: Path) -> Figures:
    """The job, from its text to the published result."""
    from batchonnx import api
    from batchonnx.job.load import job_from_dict

    job = {
        "model": {"path": str(MODEL / "model.onnx")},
        "input": {"path": "in.parquet"},
        "features": {"input_ids": {"column": "text", "tokenizer": str(MODEL), "max_length": MAX_LENGTH}},
        "outputs": {"embedding": {"from": "last_hidden_state", "pool": "mean", "normalize": True}},
        "output": {"path": f"out-{secrets.token_hex(4)}"},
    }
    begin, cpu_begin = perf_counter(), process_time()
    summary = api.run(job_from_dict(job, folder=folder))
    seconds, cpu_s = perf_counter() - begin, process_time() - cpu_begin
    shutil.rmtree(summary.output)
    share = summary.busy_s["encode"] / sum(summary.busy_s.values())
    # Far less than `seconds` times the cores where something else ran meanwhile.
    return {"seconds": seconds, "cpu_s": cpu_s, "encode_share": share, "batch_rows": summary.batch_rows}


def limit(folder: Path) -> Figures:
    """The model on ready ids."""
    made = open_tokenizer().encode_batch(pq.read_table(folder / "in.parquet")["text"].to_pylist())
    made.sort(key=lambda one: -len(one.ids))
    batches = []
    while made:
        rows = max(1, LIMIT_TOKENS // len(made[0].ids))
        for one in made[:rows]:
            one.pad(len(made[0].ids))
        batches.append(tensors(made[:rows]))
        del made[:rows]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(MODEL / "model.onnx"), options, providers=["CPUExecutionProvider"])
    begin, cpu_begin = perf_counter(), process_time()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda fed: session.run(["last_hidden_state"], fed), batches))
    return {"seconds": perf_counter() - begin, "cpu_s": process_time() - cpu_begin}


if __name__ == "__main__":
    contender, where = sys.argv[1:]
    if contender in OTHERS:
        print(json.dumps({"seconds": OTHERS[contender](Path(where))}))
    else:
        print(json.dumps({"ours": ours, "limit": limit}[contender](Path(where))))
