"""The benchmark's tables and models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

COLUMNS = 28
ROWS = 4_000_000
JOBS = Path(__file__).parents[2] / "jobs"

CASES = {
    "tiny": (64, 32),
    "middle": (512, 512),
    "flights": (),
}
"""Case -> widths of the hidden layers of its MLP; flights has a LightGBM model."""


@dataclass(frozen=True)
class Case:
    """One comparison. folder: holds job.yaml, and what it names. columns: what feeds the model."""

    name: str
    what: str
    folder: Path
    rows: int


def make_case(name: str, folder: Path) -> Case:
    """Make, or find again, a case's data and model under `folder`."""
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    if name == "flights":
        return _flights(home)
    data = folder / "table.parquet"
    if not data.exists():
        rng = np.random.default_rng(0)
        columns = {f"f{i}": rng.standard_normal(ROWS, dtype=np.float32) for i in range(COLUMNS)}
        pq.write_table(pa.table(columns), data)
    model = home / "model.onnx"
    widths = CASES[name]
    onnx.save(make_mlp([COLUMNS, *widths, 1]), model)
    names = ", ".join(f"f{i}" for i in range(COLUMNS))
    _write_job(home, data, model, "x", names, "y")
    what = f"{ROWS:,} rows x {COLUMNS} float32, MLP {'-'.join(map(str, [COLUMNS, *widths, 1]))}"
    return Case(name, what, home, ROWS)


def make_mlp(widths: Sequence[int]) -> onnx.ModelProto:
    """x float32[batch, widths[0]] -> y float32[batch, widths[-1]]: Gemm and Relu, seeded weights."""
    rng = np.random.default_rng(1)
    nodes, weights, current = [], [], "x"
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        is_last = layer == len(widths) - 2
        weight = (rng.standard_normal((fan_in, fan_out)) / fan_in**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(fan_out, np.float32), f"b{layer}"))
        out = "y" if is_last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [current, f"w{layer}", f"b{layer}"], [out]))
        current = out
        if not is_last:
            nodes.append(helper.make_node("Relu", [out], [f"r{layer}"]))
            current = f"r{layer}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", widths[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", widths[-1]])
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _flights(home: Path) -> Case:
    """The flights job's own data and model; fetched and trained if they aren't there yet."""
    import yaml

    job = yaml.safe_load((JOBS / "flights.yaml").read_text())
    data, model = JOBS / job["input"]["path"], JOBS / job["model"]["path"]
    if not data.exists() or not model.exists():
        subprocess.run([sys.executable, str(JOBS / "get_flights.py")], check=True, stdout=sys.stderr)
    ((name, feature),) = job["features"].items()
    rows = pq.read_metadata(data).num_rows
    output = next(iter(job["outputs"].values()))["from"]
    _write_job(
        home, data, model, name, ", ".join(feature["columns"]), output, cast=feature.get("cast", False)
    )
    return Case("flights", f"{rows:,} flights, LightGBM", home, rows)


def _write_job(
    home: Path, data: Path, model: Path, name: str, columns: str, output: str, cast: bool = False
) -> None:
    extra = ", cast: true" if cast else ""
    (home / "job.yaml").write_text(
        f"name: {home.name}\n"
        f"model: {{path: {model}}}\n"
        f"input: {{path: {data}}}\n"
        f"features: {{{name}: {{columns: [{columns}]{extra}}}}}\n"
        f"outputs: {{score: {{from: {output}}}}}\n"
        "output: {path: out, overwrite: true}\n"
    )
