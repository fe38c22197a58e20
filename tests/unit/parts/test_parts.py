"""What a result is written in gives back what was written: every format, every type that it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from batchonnx.parts.kinds import get_kind
from batchonnx.parts.layout import (
    Layout,
    encoded,
    file_path,
    is_part,
    looks_like_part,
    part_of,
    renamed,
    shard_of,
)
from batchonnx.parts.read import read_file
from batchonnx.parts.row_groups import RowGroups

FORMATS = ("parquet", "arrow", "csv", "jsonl")
PACKED = [
    ("parquet", "zstd"),
    ("parquet", "gzip"),
    ("arrow", "none"),
    ("arrow", "zstd"),
    ("arrow", "lz4"),
    ("csv", "none"),
    ("csv", "gzip"),
    ("jsonl", "none"),
    ("jsonl", "zstd"),
]

FEW = settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(
    ["", "null", "NaN", "NA", '"', ",", "\n", "\r\n", "\\", "\x00", "\x1f", "ü", "🦊", "007"]
)


def floats(width: int) -> st.SearchStrategy[float]:
    return st.floats(width=width) | st.sampled_from(
        [math.nan, math.inf, -math.inf, -0.0, 0.1 if width == 64 else 0.5]
    )


def integers(kind: pa.DataType) -> st.SearchStrategy[int]:
    bits = kind.bit_width
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pa.types.is_signed_integer(kind) else (0, 2**bits - 1)
    )
    return st.integers(low, high)


PLAIN: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    *((kind, integers(kind)) for kind in (pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64())),
    (pa.float16(), floats(16)),
    (pa.float32(), floats(32)),
    (pa.float64(), floats(64)),
    (pa.bool_(), st.booleans()),
    (pa.string(), words),
    (pa.large_string(), words),
    (pa.string_view(), words),
    (pa.date32(), st.dates(date(1600, 1, 1))),
    (pa.timestamp("us"), st.datetimes(datetime(1600, 1, 1))),
    (pa.timestamp("ms", "UTC"), st.integers(0, 2**41)),
    (pa.timestamp("ns"), st.integers(0, 2**50).map(lambda n: n * 1000)),
    (pa.time32("ms"), st.integers(0, 86_399_999)),
    (pa.time64("us"), st.times(time(0))),
    (pa.decimal128(12, 3), st.decimals(-(10**8), 10**8, places=3)),
    (pa.dictionary(pa.int32(), pa.string()), words),
]


def nested(inner: tuple[pa.DataType, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    kind, values = inner
    some = values | st.none()
    pair = st.dictionaries(st.integers(0, 99), some, max_size=3).map(lambda d: list(d.items()))
    return st.sampled_from(
        [
            (pa.list_(kind), st.lists(some, max_size=3)),
            (pa.large_list(kind), st.lists(some, max_size=3)),
            (pa.list_(kind, 2), st.lists(some, min_size=2, max_size=2)),
            (
                pa.struct([("a", kind), ('"b', pa.int64())]),
                st.fixed_dictionaries({"a": some, '"b': st.integers(0, 9)}),
            ),
            (pa.map_(pa.int64(), kind), pair),
        ]
    )


LEAVES = [one for one in PLAIN if not pa.types.is_dictionary(one[0]) and one[0] != pa.string_view()]
NESTED = st.sampled_from(LEAVES).flatmap(nested) | st.sampled_from(LEAVES).flatmap(nested).flatmap(nested)


def drawn(data: st.DataObject, kinds: Sequence[tuple[pa.DataType, st.SearchStrategy[Any]]]) -> pa.Table:
    rows = data.draw(st.integers(0, 12))
    columns = {
        f"c{number}": pa.array(data.draw(st.lists(values | st.none(), min_size=rows, max_size=rows)), kind)
        for number, (kind, values) in enumerate(kinds)
    }
    return pa.table(columns)


def written(table: pa.Table, kind: str, compression: str, *, step: int = 100) -> bytes:
    sink = pa.BufferOutputStream()
    writer = get_kind(kind).open_writer(sink, table.schema, compression, {"told": "so"})
    for group in groups(table, 5, step):
        writer.write(group)
    writer.close()
    return bytes(sink.getvalue().to_pybytes())


def groups(table: pa.Table, group_rows: int, step: int) -> list[pa.Table]:
    gathered = RowGroups(table.schema, group_rows)
    batches = [b for first in range(0, len(table), step) for b in table.slice(first, step).to_batches()]
    found = [group for batch in batches for group in gathered.add(batch)]
    return [*found, *gathered.rest()]


def given_back(
    data: bytes, kind: str, compression: str, schema: pa.Schema, columns: list[str] | None = None
) -> pa.Table:
    layout = Layout(kind, compression, (), encoded(schema))
    batches = list(read_file(pa.BufferReader(data), layout, "part.x", columns))
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches([b.cast(wanted) for b in batches], wanted)


def same(table: pa.Table) -> list[str]:
    """Each row as text: NaN is equal to itself, and -0.0 isn't 0.0."""
    return [repr(row) for row in table.to_pylist()]


@pytest.mark.parametrize(("kind", "compression"), PACKED)
@FEW
@given(data=st.data())
def test_columns_of_one_value_come_back_as_they_were(
    kind: str, compression: str, data: st.DataObject
) -> None:
    table = drawn(data, PLAIN)
    read = given_back(written(table, kind, compression), kind, compression, table.schema)
    assert read.schema.types == table.schema.types
    assert same(read) == same(table)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl"])
@FEW
@given(data=st.data())
def test_nested_columns_come_back_as_they_were(kind: str, data: st.DataObject) -> None:
    table = drawn(data, data.draw(st.lists(NESTED, min_size=1, max_size=2)))
    assert same(given_back(written(table, kind, "none"), kind, "none", table.schema)) == same(table)


@pytest.mark.parametrize("kind", FORMATS)
def test_nanoseconds_come_back(kind: str) -> None:
    table = pa.table(
        {
            "t": pa.array([1, -1, None], pa.timestamp("ns")),
            "n": pa.array([1, 86_399 * 10**9, None], pa.time64("ns")),
        }
    )
    assert given_back(written(table, kind, "none"), kind, "none", table.schema) == table


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl"])
def test_tensors_come_back_as_they_were(kind: str) -> None:
    tensors = pa.fixed_shape_tensor(pa.float32(), [2, 2])
    storage = pa.array([[1, 2.5, math.nan, math.inf], None, [0, -0.0, 1e-30, 3e38]], tensors.storage_type)
    table = pa.table({"t": pa.ExtensionArray.from_storage(tensors, storage), "n": [1, 2, 3]})
    read = given_back(written(table, kind, "none"), kind, "none", table.schema)
    assert read.schema == table.schema
    assert same(read) == same(table)


@pytest.mark.parametrize(("kind", "compression"), PACKED)
@FEW
@given(data=st.data(), step=st.integers(1, 7))
def test_bytes_don_t_depend_on_how_rows_come(
    kind: str, compression: str, data: st.DataObject, step: int
) -> None:
    table = drawn(data, PLAIN[:12])

    assert written(table, kind, compression, step=step) == written(table, kind, compression)


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_are_read_in_the_order_asked_and_no_others(kind: str) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None], "c": [0.5, -0.0]})
    read = given_back(written(table, kind, "none"), kind, "none", table.schema, ["c", "a"])
    assert read.to_pydict() == {"c": [0.5, -0.0], "a": [1, 2]}


def test_csv_tells_null_from_the_empty_text_and_numbers_without_quotes() -> None:
    table = pa.table({"name": ["", None, 'a "b"'], "x": pa.array([0.1, None, math.inf], pa.float32())})
    assert written(table, "csv", "none").decode() == '"name","x"\n"",0.1\n,\n"a ""b""",inf\n'


def test_a_null_in_a_csv_file_s_only_column_is_a_row() -> None:
    table = pa.table({"x": pa.array([1, None, 3, None], pa.int64())})
    assert given_back(written(table, "csv", "none"), "csv", "none", table.schema) == table


@FEW
@given(data=st.data())
def test_every_line_is_json_that_python_reads(data: st.DataObject) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    table = drawn(data, [*PLAIN, data.draw(NESTED)])
    lines = written(table, "jsonl", "none").decode().split("\n")[:-1]
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [list(row) for row in rows] == [table.column_names] * len(table)
    assert [row["c9"] for row in rows] == table.column("c9").to_pylist()
    whole = [row["c2"] for row in rows]
    assert whole == table.column("c2").to_pylist()


def test_json_lines_look_as_they_are_explained() -> None:
    table = pa.table(
        {
            "x": pa.array([0.1, math.nan, None], pa.float32()),
            "d": pa.array([Decimal("1.50"), None, Decimal("2.00")], pa.decimal128(5, 2)),
            "m": pa.array([[(1, 0.5)], [], None], pa.map_(pa.int64(), pa.float64())),
            "l": pa.array([[1, None], None, []], pa.list_(pa.int64())),
        }
    )
    assert written(table, "jsonl", "none").decode().split("\n") == [
        '{"x":0.1,"d":"1.50","m":[{"key":1,"value":0.5}],"l":[1,null]}',
        '{"x":"NaN","d":null,"m":[],"l":null}',
        '{"x":null,"d":"2.00","m":null,"l":[]}',
        "",
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_format_can_t_hold_is_told(kind: str) -> None:
    refused = {
        name
        for name, one in {
            "bytes": pa.binary(),
            "list": pa.list_(pa.int64()),
            "list of bytes": pa.list_(pa.binary()),
            "struct": pa.struct([("a", pa.int64())]),
            "map": pa.map_(pa.string(), pa.int64()),
            "duration": pa.duration("s"),
            "tensor": pa.fixed_shape_tensor(pa.float32(), [2, 2]),
            "text": pa.string(),
            "list of dictionary": pa.list_(pa.dictionary(pa.int8(), pa.string())),
        }.items()
        if list(get_kind(kind).misfits(one))
    }
    expected: dict[str, set[str]] = {
        "parquet": set(),
        "arrow": {"list of dictionary"},
        "jsonl": {"bytes", "list of bytes", "duration"},
        "csv": {
            "bytes",
            "list",
            "list of bytes",
            "struct",
            "map",
            "duration",
            "tensor",
            "list of dictionary",
        },
    }
    assert refused == expected[kind]


def test_the_footer_tells_the_lineage_where_there_is_one() -> None:
    table = pa.table({"a": [1]})
    assert pq.read_schema(pa.BufferReader(written(table, "parquet", "zstd"))).metadata[b"told"] == b"so"
    found = pa.ipc.open_file(pa.BufferReader(written(table, "arrow", "none"))).schema.metadata
    assert found == {b"told": b"so"}


def test_names_of_files_tell_part_and_shard_and_no_other_file_is_taken_for_one() -> None:
    part = "part-000012-3f9a1c07.csv.gz"
    path = file_path(part, "day=1/name=a%2Fb", 3)
    assert path == "day=1/name=a%2Fb/part-000012-3f9a1c07-0003.csv.gz"
    assert (part_of(path), shard_of(path)) == (part, 12)
    assert renamed(path, "0" * 64) == "day=1/name=a%2Fb/part-000012-00000000-0003.csv.gz"
    assert is_part(path, ("day", "name"))
    assert not is_part(path, ("day",))
    assert not is_part(path, ())
    assert is_part(part, ("day",))  # the mark that a shard is being scored
    assert looks_like_part(path)
    for other in ("day=1/_SUCCESS", "day=1/x.parquet", "sub/part-000012-3f9a1c07.parquet", "part-1.parquet"):
        assert not looks_like_part(other)


@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_of_many_rows_don_t_depend_on_how_they_come(kind: str) -> None:
    """Slices have other bits behind their last one."""
    rows = 1_003
    flags = pa.array([i % 3 == 0 if i % 7 else None for i in range(rows)])
    texts = pa.array([None if i % 5 == 0 else str(i) for i in range(rows)])
    tensors = pa.fixed_shape_tensor(pa.float32(), [2])
    pairs = pa.array([[i, i] for i in range(rows)], tensors.storage_type)
    lists = pa.array([[i] * (i % 3) if i % 4 else None for i in range(rows)])
    table = pa.table({"flag": flags, "text": texts, "pair": pa.ExtensionArray.from_storage(tensors, pairs)})
    table = table if kind == "csv" else table.append_column("list", lists)
    table = table.drop_columns(["pair"]) if kind == "csv" else table
    one = written(table, kind, "none", step=rows)
    assert all(written(table, kind, "none", step=step) == one for step in (1, 3, 250, 999))
