"""Text, from a column to a vector: beside the loop that a user would write, and the model alone.

python -m tests.benchmarks.text loop|ours|limit FOLDER prints one contender's figures as a line of JSON.

    loop    batches of 32 in the order of the rows, the tokenizer's own padding; default threads
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
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

JOBS = Path(__file__).parents[2] / "jobs"
MODEL = JOBS / "models" / "minilm"
ROWS = {"glosses": 2_000, "docstrings": 600}
GOALS = {"glosses": 1.5, "docstrings": 4.0}
LIMIT_SHARE = 0.9
MAX_LENGTH, LOOP_ROWS, LIMIT_TOKENS = 256, 32, 1_024
INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
CONTENDERS = ("loop", "ours", "limit")


def text(folder: Path, rounds: int) -> Iterator[str]:
    """Glosses and docstrings through MiniLM, contenders in turn."""
    if not MODEL.exists():
        yield "text: left out, jobs/models/minilm isn't there: python jobs/get_glosses.py, which wants torch"
        return
    for name, rows in ROWS.items():
        home = folder / f"text-{name}"
        home.mkdir(parents=True, exist_ok=True)
        texts = glosses(rows) if name == "glosses" else docstrings(rows)
        pq.write_table(table(texts), home / "in.parquet", row_group_size=rows // 2)
        seen: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
        for _ in range(rounds):
            for contender in CONTENDERS:
                command = [sys.executable, "-m", "tests.benchmarks.text", contender, str(home)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
                seen[contender].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"  {name} {contender:<6} {seen[contender][-1]}", file=sys.stderr, flush=True)
        loop, ours, limit = (median(one["seconds"] for one in seen[contender]) for contender in CONTENDERS)
        yield f"{name}: {rows:,} texts through MiniLM, at most {MAX_LENGTH} tokens"
        yield f"  loop {loop:.1f} s, ours {ours:.1f} s, the model alone {limit:.1f} s"
        goal = f"(goal: {GOALS[name]} and {LIMIT_SHARE})"
        yield f"  {loop / ours:.2f}x the loop, {limit / ours:.2f} of the limit   {goal}"
        share = median(one["encode_share"] for one in seen["ours"])
        yield f"  tokenizing and padding take {share:.1%} of the work"


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


def loop(folder: Path) -> dict[str, float]:
    """What a user would write."""
    begin = perf_counter()
    tokenizer = open_tokenizer()
    tokenizer.enable_padding(pad_id=0)
    session = ort.InferenceSession(str(MODEL / "model.onnx"), providers=["CPUExecutionProvider"])
    schema = pa.schema([("embedding", pa.list_(pa.float32(), 384))])
    with (
        tempfile.TemporaryDirectory(dir=folder) as out,
        pq.ParquetWriter(f"{out}/out.parquet", schema) as writer,
    ):
        for batch in pq.ParquetFile(folder / "in.parquet").iter_batches(LOOP_ROWS):
            fed = tensors(tokenizer.encode_batch(batch.column(0).to_pylist()))
            (hidden,) = session.run(["last_hidden_state"], fed)
            mask = fed["attention_mask"][:, :, np.newaxis]
            mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
            unit = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(unit.ravel()), 384)
            writer.write_batch(pa.record_batch([column], schema=schema))
    return {"seconds": perf_counter() - begin}


def ours(folder: Path) -> dict[str, float]:
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
    begin = perf_counter()
    summary = api.run(job_from_dict(job, folder=folder))
    seconds = perf_counter() - begin
    shutil.rmtree(summary.output)
    share = summary.busy_s["encode"] / sum(summary.busy_s.values())
    return {"seconds": seconds, "encode_share": share, "batch_rows": summary.batch_rows}


def limit(folder: Path) -> dict[str, float]:
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
    begin = perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda fed: session.run(["last_hidden_state"], fed), batches))
    return {"seconds": perf_counter() - begin}


def open_tokenizer() -> Any:
    """MiniLM's own."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.no_padding()
    return tokenizer


def tensors(made: Sequence[Any]) -> dict[str, np.ndarray]:
    """The model's inputs for texts of one length."""
    return {name: np.array([getattr(one, told) for one in made]) for name, told in INPUTS.items()}


if __name__ == "__main__":
    contender, where = sys.argv[1:]
    print(json.dumps({"loop": loop, "ours": ours, "limit": limit}[contender](Path(where))))
