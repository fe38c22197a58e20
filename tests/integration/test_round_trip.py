"""Random tables of every type, with nulls and any row-group layout, through an Identity model: each
value ends where it belongs."""

from __future__ import annotations

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchonnx
from batchonnx import api
from batchonnx.job.load import job_from_dict
from tests import models

DTYPES = [
    *(f"{u}int{w}" for u in ("", "u") for w in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
    "bool",
    "string",
]
SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (2, 3)]
LAYOUTS = ["scalars", "fixed", "list", "large", "tensor", "permuted"]


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="round-trip-"))


@cache
def identity(dtype: str, shape: tuple[int, ...]) -> Path:
    path = scratch() / f"{dtype}-{'x'.join(map(str, shape))}.onnx"
    return models.identity(path, dtype, ["n", *shape])


def values_of(dtype: str) -> st.SearchStrategy[Any]:
    if dtype == "string":
        return st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
    if dtype == "bool":
        return st.booleans()
    if dtype.startswith("float"):
        return st.floats(width=int(dtype[5:]))  # type: ignore[arg-type]
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, list[Any], str, tuple[int, ...], dict[str, Any]]:
    """A table, its rows as Python values, the model's dtype and row shape, and the feature."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
    layout = draw(st.sampled_from(LAYOUTS)) if shape else "scalars"
    if layout == "scalars" and len(shape) == 2:
        layout = "fixed"
    if layout in ("tensor", "permuted") and dtype in ("string", "bool"):
        layout = "fixed"
    count = draw(st.integers(0, 40))
    size = math.prod(shape)
    can_be_null = dtype.startswith("float") and layout in ("scalars", "fixed", "list", "large")
    element = values_of(dtype)
    if can_be_null:
        element = st.none() | element
    flat = draw(st.lists(element, min_size=count * size, max_size=count * size))
    arrow = (
        pa.string() if dtype == "string" else pa.bool_() if dtype == "bool" else pa.from_numpy_dtype(dtype)
    )
    rows = [flat[i * size : (i + 1) * size] for i in range(count)]
    if layout == "scalars":
        names = [f"c{j}" for j in range(size)]
        columns = [pa.array([row[j] for row in rows], arrow) for j in range(size)]
        feature: dict[str, Any] = {"columns": names} if shape else {"column": "c0"}
        table = pa.table(dict(zip(names, columns, strict=True)))
    else:
        column, rows = _tensor_column(layout, rows, shape, arrow, dtype)
        table, feature = pa.table({"t": column}), {"column": "t"}
    return table, rows, dtype, shape, feature


def _tensor_column(
    layout: str, rows: list[list[Any]], shape: tuple[int, ...], arrow: pa.DataType, dtype: str
) -> tuple[pa.Array, list[list[Any]]]:
    flat = pa.array([value for row in rows for value in row], arrow)
    if layout == "permuted":
        stored = tuple(reversed(shape))
        permutation = list(reversed(range(len(shape))))
        kind = pa.fixed_shape_tensor(arrow, stored, permutation=permutation)
        storage = pa.FixedSizeListArray.from_arrays(flat, math.prod(shape))
        logical = [
            np.array(row, object).reshape(stored).transpose(permutation).ravel().tolist() for row in rows
        ]
        return pa.ExtensionArray.from_storage(kind, storage), logical
    if layout == "tensor":
        storage = pa.FixedSizeListArray.from_arrays(flat, math.prod(shape))
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(arrow, shape), storage), rows
    array = flat
    for axis in range(len(shape) - 1, -1, -1):
        if layout == "fixed":
            array = pa.FixedSizeListArray.from_arrays(array, shape[axis])
            continue
        kind = pa.int32() if layout == "list" else pa.int64()
        offsets = pa.array(range(0, len(array) + 1, shape[axis]), kind)
        array = (pa.ListArray if layout == "list" else pa.LargeListArray).from_arrays(offsets, array)
    return array, rows


def flattened(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return [v for item in value for v in flattened(item)] if isinstance(value, list) else [value]


def same(found: Any, given: Any) -> bool:
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return isinstance(found, float) and math.isnan(found)
    return bool(found == given) and type(found) is type(given)


def score(table: pa.Table, source: Path, model: Path, feature: dict[str, Any], **engine: Any) -> pa.Table:
    output = Path(tempfile.mkdtemp(dir=scratch())) / "out"
    job = {
        "model": {"path": str(model)},
        "input": {"path": str(source)},
        "features": {"x": feature},
        "outputs": {"y": {"from": "y"}},
        "keep": ["row"],
        "output": {"path": str(output)},
        "engine": engine,
    }
    summary = batchonnx.run(job_from_dict(job))
    assert (summary.rows_in, summary.predicted, summary.filtered) == (table.num_rows, table.num_rows, 0)
    return pq.read_table(output)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    made=tables(),
    group=st.integers(1, 50),
    batch=st.sampled_from(["auto", 1, 2, 7, 64]),
    workers=st.integers(1, 3),
    suffix=st.sampled_from(["parquet", "arrow"]),
)
def test_each_value_is_found_where_it_belongs(
    made: tuple[pa.Table, list[Any], str, tuple[int, ...], dict[str, Any]],
    group: int,
    batch: int | str,
    workers: int,
    suffix: str,
) -> None:
    table, rows, dtype, shape, feature = made
    table = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    source = folder / f"table.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, source, row_group_size=group)
    else:
        feather.write_feather(table, str(source), compression="uncompressed", chunksize=group)
    result = score(table, source, identity(dtype, shape), feature, batch_rows=batch, workers=workers)
    assert result["row"].to_pylist() == list(range(table.num_rows))
    for found, given_row in zip(result["y"].to_pylist(), rows, strict=True):
        flat = flattened(found)
        assert len(flat) == len(given_row)
        assert all(same(f, g) for f, g in zip(flat, given_row, strict=True)), (found, given_row)


@pytest.mark.parametrize("text", ["csv", "jsonl"])
def test_text_formats_give_the_same_predictions_as_parquet(tmp_path: Path, text: str) -> None:
    import json

    rng = np.random.default_rng(0)
    table = pa.table({f"c{i}": rng.standard_normal(500) for i in range(3)} | {"row": range(500)})
    source = tmp_path / f"table.{text}"
    if text == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, source)
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    pq.write_table(table, tmp_path / "table.parquet")
    model = models.identity(tmp_path / "m.onnx", "float64", ["n", 3])
    feature = {"columns": ["c0", "c1", "c2"]}
    assert score(table, source, model, feature).equals(
        score(table, tmp_path / "table.parquet", model, feature)
    )


def test_partitions_become_columns_and_the_filter_prunes_them(tmp_path: Path) -> None:
    for day in ("2026-11-21", "2026-11-22"):
        folder = tmp_path / "lake" / f"day={day}" / "country=DE"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"c0": np.arange(10, dtype=np.float32)}), folder / "a.parquet")
    job = {
        "model": {"path": str(models.identity(tmp_path / "m.onnx", "float32", ["n"]))},
        "input": {"path": str(tmp_path / "lake"), "filter": "day = '2026-11-22' and c0 >= 4"},
        "features": {"x": {"column": "c0"}},
        "keep": ["day", "country"],
        "output": {"path": str(tmp_path / "out")},
    }
    plan = api.plan(job_from_dict(job))
    assert plan.pruned_rows == 10
    summary = batchonnx.run(job_from_dict(job))
    assert (summary.rows_in, summary.predicted, summary.filtered) == (20, 6, 14)
    result = pq.read_table(tmp_path / "out", partitioning=None)
    assert result["day"].unique().to_pylist() == ["2026-11-22"]
    assert result["y"].to_pylist() == [4, 5, 6, 7, 8, 9]
