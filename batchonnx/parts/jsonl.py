"""Parts as JSON lines: an object for each row, every column in it.

JSON has no word for what isn't a finite number: that is "NaN", "Infinity" or "-Infinity", in quotes.
Decimals, dates and times are text as well. A map is a list of {"key", "value"}; a tensor the flat list
of its values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from batchonnx.parts.kinds import Writer
from batchonnx.parts.text import from_text, is_plain, is_words, lines, packed, to_text, unpacked

BLOCK_BYTES = 4 << 20
_ESCAPED = r'["\\\x00-\x1f]'
_NOT_FINITE = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}


class JsonLines:
    """See `kinds.Writer`."""

    def __init__(self, sink: pa.NativeFile, compression: str) -> None:
        self._stream = packed(sink, compression)
        self._is_packed = compression != "none"

    def write(self, rows: pa.Table) -> None:
        """Lines, a few thousand at a time: their text is many times as large as its column."""
        for batch in rows.to_batches(max_chunksize=1 << 14):
            told = _object(batch.schema, batch.columns, batch.num_rows)
            self._stream.write("".join(f"{line}\n" for line in told.to_pylist()).encode())

    def close(self) -> None:
        """What is left in the packer."""
        if self._is_packed:
            self._stream.close()


def open_writer(
    sink: pa.NativeFile, schema: pa.Schema, compression: str, lineage: Mapping[str, str]
) -> Writer:
    """See `kinds.Kind`. There is no place for the lineage."""
    return JsonLines(sink, compression)


def read(
    source: pa.NativeFile, compression: str, schema: pa.Schema | None, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """See `kinds.Kind`."""
    assert schema is not None, "only a schema tells the types in JSON lines"
    names = list(schema.names if columns is None else columns)
    wanted = pa.struct([schema.field(name) for name in names])
    # Numbers as they are written: Python's own would lose digits, and the sign of zero.
    decode = json.JSONDecoder(parse_float=str, parse_int=str).decode
    for block in lines(unpacked(source, compression), BLOCK_BYTES):
        rows = _rows(block, decode)
        written = pa.array([{name: row[name] for name in names} for row in rows], _written_as(wanted))
        yield pa.RecordBatch.from_struct_array(_typed(written, wanted))


def misfits(kind: pa.DataType) -> Iterator[pa.DataType]:
    """Bytes, durations, and what else JSON has no way to write."""
    if isinstance(kind, pa.BaseExtensionType):
        yield from misfits(kind.storage_type)
    elif pat.is_map(kind) or pat.is_struct(kind) or _is_list(kind):
        for place in range(kind.num_fields):
            yield from misfits(kind.field(place).type)
    elif not is_plain(kind):
        yield kind


def _rows(block: bytes, decode: Callable[[str], Any]) -> list[Any]:
    return [decode(line) for line in block.decode().split("\n") if line]


def _json(values: pa.Array) -> pa.Array:
    """The JSON of each value, "null" for null."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return _json(values.storage)
    if pat.is_dictionary(kind):
        return _json(values.dictionary_decode())
    if pat.is_struct(kind):
        written = _object(list(kind), values.flatten(), len(values))
    elif pat.is_map(kind):
        pairs = pa.StructArray.from_arrays([values.keys, values.items], names=["key", "value"])
        written = _list(values.offsets, pairs)
    elif pat.is_fixed_size_list(kind):
        as_list = values.cast(pa.list_(kind.value_type))
        written = _list(as_list.offsets, as_list.values)
    elif _is_list(kind):
        written = _list(values.offsets, values.values)
    elif is_words(kind):
        written = _quoted(values.cast(pa.string()))
    elif pat.is_boolean(kind) or pat.is_integer(kind):
        written = to_text(values)
    elif pat.is_floating(kind):
        written = _number(to_text(values), values)
    else:
        written = pc.binary_join_element_wise('"', to_text(values), '"', "")
    return pc.if_else(values.is_null(), "null", written).cast(pa.large_string())


def _number(texts: pa.Array, values: pa.Array) -> pa.Array:
    if pc.all(pc.is_finite(values)).as_py() in (True, None):
        return texts
    found = [_NOT_FINITE.get(text, text) if text is not None else None for text in texts.to_pylist()]
    return pa.array(found, pa.string())


def _quoted(texts: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(texts, _ESCAPED)).as_py():
        texts = pa.array(
            [json.dumps(t, ensure_ascii=False)[1:-1] if t is not None else None for t in texts.to_pylist()]
        )
    return pc.binary_join_element_wise('"', texts, '"', "")


def _list(offsets: pa.Array, values: pa.Array) -> pa.Array:
    """The lists that begin and end at these offsets; of a null, whatever lies there."""
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    inner = _json(values.slice(first, last - first))
    begins = pc.subtract(offsets, offsets[0]).cast(pa.int64())
    joined = pc.binary_join(pa.LargeListArray.from_arrays(begins, inner), pa.scalar(",", pa.large_string()))
    return _joined("[", joined, "]")


def _object(fields: Sequence[pa.Field] | pa.Schema, columns: Sequence[pa.Array], rows: int) -> pa.Array:
    if not columns:
        return pa.array(["{}"] * rows, pa.large_string())
    pieces: list[Any] = []
    for number, (field, column) in enumerate(zip(fields, columns, strict=True)):
        name = json.dumps(field.name, ensure_ascii=False)
        pieces += [f"{',' if number else '{'}{name}:", _json(column)]
    return _joined(*pieces, "}")


def _joined(*pieces: Any) -> pa.Array:
    texts = [pa.scalar(one, pa.large_string()) if isinstance(one, str) else one for one in pieces]
    return pc.binary_join_element_wise(*texts, pa.scalar("", pa.large_string()))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind))


def _written_as(kind: pa.DataType) -> pa.DataType:
    """What a line holds: text where the value is one, and JSON's own nesting."""
    if isinstance(kind, pa.BaseExtensionType):
        return _written_as(kind.storage_type)
    if pat.is_struct(kind):
        return pa.struct([(field.name, _written_as(field.type)) for field in kind])
    if pat.is_map(kind):
        pair = [("key", _written_as(kind.key_type)), ("value", _written_as(kind.item_type))]
        return pa.list_(pa.struct(pair))
    if _is_list(kind):
        return pa.list_(_written_as(kind.value_type))
    return pa.bool_() if pat.is_boolean(kind) else pa.string()


def _typed(written: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values, from what `_written_as` made of their lines. written: not a slice."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _typed(written, kind.storage_type))
    if pat.is_struct(kind):
        if not kind.num_fields:
            return pa.array([{}] * len(written), kind)
        # Flattened: below a null there is something, and not null.
        inside = zip(written.flatten(), kind, strict=True)
        fields = [_typed(column, field.type) for column, field in inside]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=written.is_null())
    if pat.is_map(kind):
        pairs = written.values
        keys, items = _typed(pairs.field(0), kind.key_type), _typed(pairs.field(1), kind.item_type)
        return pa.MapArray.from_arrays(written.offsets, keys, items, type=kind, mask=written.is_null())
    if _is_list(kind):
        inner = _typed(written.values, kind.value_type)
        as_list = pa.ListArray.from_arrays(
            written.offsets, inner, type=pa.list_(kind.field(0)), mask=written.is_null()
        )
        return as_list.cast(kind)
    return written if pat.is_boolean(kind) else from_text(written, kind)
