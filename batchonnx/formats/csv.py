"""CSV, and TSV by its name. One row group a file: where a row begins, only reading tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.formats.rechunk import rechunk
from batchonnx.storage.paths import open_filesystem

BLOCK_BYTES = 4 << 20


def read_footer(path: str, size: int) -> Footer:
    """The schema as the first block of rows shows it; it then holds for the whole file."""
    with _open(path, None) as reader:
        return Footer(reader.schema, (RowGroup(None, size),))


def read_rows(
    path: str, footer: Footer, row_groups: Sequence[int], columns: Sequence[str], chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    """All rows of the file; see `formats.registry.Format`."""
    with _open(path, footer.schema) as reader:
        yield from rechunk(_blocks(reader, path, columns), chunk_rows)


def _blocks(reader: pacsv.CSVStreamingReader, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        for block in reader:
            yield block.select(list(columns))
    except pa.ArrowInvalid as error:
        raise _broken(path, error) from error


def _open(path: str, schema: pa.Schema | None) -> pacsv.CSVStreamingReader:
    filesystem, inner = open_filesystem(path)
    delimiter = "\t" if ".tsv" in path.lower() else ","
    try:
        return pacsv.open_csv(
            filesystem.open_input_stream(inner, compression="detect"),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(column_types=schema, strings_can_be_null=True),
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: str, error: Exception) -> InputError:
    facts = {"file": path, "found": str(error).splitlines()[0][:300]}
    fix = "mend the row; types are told by the first rows of the first file"
    return InputError(Problem("the CSV file can't be read", facts, fix))
