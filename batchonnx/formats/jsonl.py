"""JSON lines: one object a line. One row group a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.json as pajson

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.formats.rechunk import rechunk
from batchonnx.storage.paths import open_filesystem

BLOCK_BYTES = 4 << 20


def read_footer(path: str, size: int) -> Footer:
    """The schema as the first block of rows shows it; it then holds for the whole file."""
    if size == 0:
        return Footer(pa.schema([]), ())
    try:
        return Footer(_open(path, None).schema, (RowGroup(None, size),))
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, error) from error


def read_rows(
    path: str, footer: Footer, row_groups: Sequence[int], columns: Sequence[str], chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    """All rows of the file; see `formats.registry.Format`."""
    try:
        blocks = (block.select(list(columns)) for block in _open(path, footer.schema))
        yield from rechunk(blocks, chunk_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, error) from error


def _open(path: str, schema: pa.Schema | None) -> pajson.StreamingReader:
    filesystem, inner = open_filesystem(path)
    return pajson.open_json(
        filesystem.open_input_stream(inner, compression="detect"),
        read_options=pajson.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
        ),
    )


def _broken(path: str, error: Exception) -> InputError:
    facts = {"file": path, "found": str(error).splitlines()[0][:300]}
    fix = "mend the line; every line is one JSON object, types are told by the first rows"
    return InputError(Problem("the JSON lines file can't be read", facts, fix))
