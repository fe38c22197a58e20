"""JSON lines: one object a line. One row group a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.json as pajson

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.formats.rechunk import rechunk
from batchonnx.formats.registry import Opener
from batchonnx.formats.text_input import BLOCK_BYTES, open_first_block, unpacked
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import open_input
from batchonnx.storage.spans import Span, sequential


def read_footer(file: FileEntry) -> Footer:
    """The schema as the first block of rows shows it; it then holds for the whole file."""
    if file.size == 0:
        return Footer(pa.schema([]), ())
    try:
        return Footer(_open(file, None, open_first_block).schema, (RowGroup(None, file.size),))
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file.path, error) from error


def spans(file: FileEntry, footer: Footer, row_groups: Sequence[int], columns: Sequence[str]) -> list[Span]:
    """The whole file, from front to back; see `formats.registry.Format`."""
    return sequential(0, file.size)


def read_rows(
    file: FileEntry,
    footer: Footer,
    row_groups: Sequence[int],
    columns: Sequence[str],
    chunk_rows: int,
    opener: Opener = open_input,
) -> Iterator[pa.RecordBatch]:
    """All rows of the file; see `formats.registry.Format`."""
    try:
        blocks = (block.select(list(columns)) for block in _open(file, footer.schema, opener))
        yield from rechunk(blocks, chunk_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file.path, error) from error


def _open(file: FileEntry, schema: pa.Schema | None, opener: Opener) -> pajson.StreamingReader:
    return pajson.open_json(
        unpacked(opener(file), file.path),
        read_options=pajson.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
        ),
    )


def _broken(path: str, error: Exception) -> InputError:
    facts = {"file": path, "found": str(error).splitlines()[0][:300]}
    fix = "mend the line; every line is one JSON object, types are told by the first rows"
    return InputError(Problem("the JSON lines file can't be read", facts, fix))
