"""CSV, and TSV by its name. One row group a file: where a row begins, only reading tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

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
    with _open(file, None, open_first_block) as reader:
        return Footer(reader.schema, (RowGroup(None, file.size),))


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
    with _open(file, footer.schema, opener) as reader:
        yield from rechunk(_blocks(reader, file, columns), chunk_rows)


def _blocks(
    reader: pacsv.CSVStreamingReader, file: FileEntry, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    try:
        for block in reader:
            yield block.select(list(columns))
    except pa.ArrowInvalid as error:
        raise _broken(file.path, error) from error


def _open(file: FileEntry, schema: pa.Schema | None, opener: Opener) -> pacsv.CSVStreamingReader:
    delimiter = "\t" if ".tsv" in file.path.lower() else ","
    try:
        return pacsv.open_csv(
            unpacked(opener(file), file.path),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(column_types=schema, strings_can_be_null=True),
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file.path, error) from error


def _broken(path: str, error: Exception) -> InputError:
    facts = {"file": path, "found": str(error).splitlines()[0][:300]}
    fix = "mend the row; types are told by the first rows of the first file"
    return InputError(Problem("the CSV file can't be read", facts, fix))
