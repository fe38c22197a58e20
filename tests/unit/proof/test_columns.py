"""How columns are distributed: exactly where all rows are looked at, evenly where they are too many."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.ledger.local import LocalOutput
from batchonnx.ledger.records import ColumnProfile, Commit, StoredFile
from batchonnx.parts.layout import Layout
from batchonnx.proof.columns import profile_columns


def write(folder: Path, *tables: pa.Table, group: int = 1000) -> list[Commit]:
    """A part for each table, with its commit."""
    commits = []
    for number, table in enumerate(tables):
        path = folder / f"part-{number:06}-00000000.parquet"
        pq.write_table(table, path, row_group_size=group)
        data = path.read_bytes()
        part = StoredFile(path.name, table.num_rows, len(data), hashlib.sha256(data).hexdigest())
        rows = table.num_rows
        commits.append(Commit(number, "", "", rows, rows, 0, 0, path.name, (part,), None, (), 1, 1, {}))
    return commits


def profile(folder: Path, commits: list[Commit], **options: object) -> ColumnProfile:
    output = LocalOutput(folder)
    (found,) = profile_columns(output, Layout(), commits, ["c"], **options)  # type: ignore[arg-type]
    return found


def test_numbers_have_a_histogram_of_all_of_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    table = pa.table({"c": pa.array(values).take([*range(5000)]), "other": range(5000)})
    found = profile(tmp_path, write(tmp_path, table.slice(0, 2000), table.slice(2000)))
    assert found.rows == found.values == sum(found.counts) == 5000
    assert found.low == values.min()
    assert found.high == values.max()
    assert found.mean == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)
    assert not found.labels


def test_null_nan_and_infinity_are_told_apart_from_numbers(tmp_path: Path) -> None:
    found = profile(tmp_path, write(tmp_path, pa.table({"c": [1.0, None, float("nan"), float("inf"), 3.0]})))
    assert (found.nulls, found.values, found.low, found.high) == (2, 3, 1.0, 3.0)
    assert sum(found.counts) == 2


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", "b", "a"]),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array(["a", "b", "a"], pa.string_view()),
        pa.array([["a"], ["b", "a"], []]),
    ],
)
def test_text_has_labels_the_most_frequent_first(tmp_path: Path, values: pa.Array) -> None:
    found = profile(tmp_path, write(tmp_path, pa.table({"c": values})))
    assert found.labels == (("a", 2), ("b", 1))
    assert not found.edges


def test_a_few_whole_numbers_and_truth_values_are_labels(tmp_path: Path) -> None:
    assert profile(tmp_path, write(tmp_path, pa.table({"c": [3, 3, 1]}))).labels == (("3", 2), ("1", 1))
    flags = pa.table({"c": [True, False, True]})
    assert profile(tmp_path, write(tmp_path, flags)).labels == (("True", 2), ("False", 1))


def test_values_in_lists_count_each(tmp_path: Path) -> None:
    lists = pa.array([[0.0, 1.0], [0.5, 0.5]], pa.list_(pa.float32(), 2))
    found = profile(tmp_path, write(tmp_path, pa.table({"c": lists})))
    assert (found.rows, found.values) == (2, 4)


@pytest.mark.parametrize("values", [pa.array([{"a": 1}]), pa.array([b"x"]), pa.array([None], pa.null())])
def test_a_type_without_a_distribution_says_its_rows(tmp_path: Path, values: pa.Array) -> None:
    found = profile(tmp_path, write(tmp_path, pa.table({"c": values})))
    assert (found.rows, found.edges, found.labels) == (1, (), ())


def test_a_large_result_is_sampled_evenly(tmp_path: Path) -> None:
    """Values grow with the row: a sample of the first ones would have a far smaller mean."""
    values = np.arange(400_000, dtype=np.float64)
    tables = [pa.table({"c": part}) for part in np.array_split(values, 100)]
    found = profile(tmp_path, write(tmp_path, *tables), rows=20_000)
    assert 10_000 < found.rows < 40_000
    assert found.mean == pytest.approx(values.mean(), rel=0.05)
    one = profile(tmp_path, write(tmp_path, pa.table({"c": values})), rows=20_000)
    assert one.mean == pytest.approx(values.mean(), rel=0.05)


def test_two_profiles_to_be_compared_have_the_same_bins(tmp_path: Path) -> None:
    before = profile(tmp_path, write(tmp_path, pa.table({"c": np.linspace(0, 1, 1000)})))
    now = profile(tmp_path, write(tmp_path, pa.table({"c": np.linspace(5, 6, 1000)})), like={"c": before})
    assert now.edges == before.edges
    assert now.counts[-1] == 1000


@given(
    st.lists(st.floats(width=16), min_size=1, max_size=50),
    st.sampled_from([pa.float16(), pa.float32(), pa.float64()]),
)
def test_any_floats_are_counted(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], kind: pa.DataType
) -> None:
    folder = tmp_path_factory.mktemp("profile")
    array = pa.array(np.array(values, np.float64).astype(kind.to_pandas_dtype()))
    found = profile(folder, write(folder, pa.table({"c": array})))
    finite = np.isfinite(array.to_numpy(zero_copy_only=False)).sum()
    assert sum(found.counts) == finite
    assert found.rows == len(values)
