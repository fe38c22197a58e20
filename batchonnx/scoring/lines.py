"""Rows to lines, one for each element of their lists, and back: no row is lost on the way.

A row without elements is a line of its own, with null in their place, so that the lines alone tell how many
rows they were made of: those with 0 or null as `element`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchonnx.planning.bindings import OutputBinding
from batchonnx.planning.lines import ELEMENT
from batchonnx.scoring.pick import take


def explode(rows: pa.RecordBatch, outputs: Sequence[OutputBinding], schema: pa.Schema) -> pa.RecordBatch:
    """Lines of some rows, with the schema's columns (see `planning.lines`); the rows if none is exploded.

    rows: none of them `uneven`.
    """
    exploded = [binding for binding in outputs if binding.explode]
    if not exploded:
        return rows
    lengths = _lengths(rows, exploded[0])
    counts = np.maximum(lengths, 1)
    row_of = np.repeat(np.arange(rows.num_rows), counts)
    begins = np.cumsum(counts) - counts
    element = (np.arange(len(row_of)) - begins[row_of]).astype(np.int32)
    is_empty = lengths[row_of] == 0
    columns: dict[str, pa.Array] = {ELEMENT: pa.array(element, mask=is_empty)}
    starts = np.cumsum(lengths) - lengths
    place = pa.array(starts[row_of] + element, mask=is_empty)
    for binding in exploded:
        values = pc.list_flatten(rows.column(binding.name)).take(place)
        if pa.types.is_struct(values.type):
            columns |= {
                f"{binding.name}_{field.name}": pc.struct_field(values, number)
                for number, field in enumerate(values.type)
            }
        else:
            columns[binding.name] = values
    names = {binding.name for binding in exploded}
    others = take(rows.select([name for name in rows.schema.names if name not in names]), row_of)
    columns |= dict(zip(others.schema.names, others.columns, strict=True))
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def uneven(rows: pa.RecordBatch, outputs: Sequence[OutputBinding]) -> str | None:
    """What is wrong with the first row whose exploded lists have several lengths; None if there is none."""
    found = {binding.name: _lengths(rows, binding) for binding in outputs if binding.explode}
    each = list(found.values())
    differs = [np.flatnonzero(lengths != each[0]) for lengths in each[1:]]
    if not any(places.size for places in differs):
        return None
    row = min(int(places[0]) for places in differs if places.size)
    told = ", ".join(f'{lengths[row]:,} of "{name}"' for name, lengths in found.items())
    return f"lists that are exploded together are of one length, this row's have {told}"


def implode(lines: Iterable[pa.RecordBatch], exploded: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows again, with a list of what their lines held in each exploded column, and without `element`.

    lines: of whole rows, which may be cut between two batches.
    """
    rest: pa.RecordBatch | None = None
    for batch in lines:
        whole = batch if rest is None else pa.concat_batches([rest, batch])
        begins = np.flatnonzero(begin_rows(whole.column(ELEMENT)))
        # The last row may go on in the next batch.
        cut = int(begins[-1]) if len(begins) else 0
        rest = whole.slice(cut)
        if cut:
            yield _joined(whole.slice(0, cut), begins[:-1], exploded)
    if rest is not None and rest.num_rows:
        yield _joined(rest, np.zeros(1, np.int64), exploded)


def imploded_schema(schema: pa.Schema, exploded: Sequence[str]) -> pa.Schema:
    """The schema of the rows that lines were made of, as `implode` gives them."""
    kinds = ((f.name, pa.list_(f.type) if f.name in exploded else f.type) for f in schema)
    return pa.schema([(name, kind) for name, kind in kinds if not exploded or name != ELEMENT])


def begin_rows(element: pa.Array) -> np.ndarray:
    """bool[n]: whether a line is the first, or the only one, of its row."""
    return np.asarray(pc.fill_null(element, 0).to_numpy(zero_copy_only=False) == 0)


def _lengths(rows: pa.RecordBatch, binding: OutputBinding) -> np.ndarray:
    """int64[rows]: elements of each row."""
    lengths = pc.list_value_length(rows.column(binding.name)).fill_null(0)
    return np.asarray(lengths.to_numpy(), np.int64)


def _joined(lines: pa.RecordBatch, begins: np.ndarray, exploded: Sequence[str]) -> pa.RecordBatch:
    is_empty = lines.column(ELEMENT).is_null().to_numpy(zero_copy_only=False)
    lengths = np.diff(np.append(begins, lines.num_rows)) - is_empty[begins]
    offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32))
    held = take(lines, np.flatnonzero(~is_empty))
    firsts = take(lines, begins)
    names = [name for name in lines.schema.names if name != ELEMENT]
    arrays = [
        pa.ListArray.from_arrays(offsets, held.column(name)) if name in exploded else firsts.column(name)
        for name in names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=imploded_schema(lines.schema, exploded))
