"""CSV, and TSV by its name. One row group a file: where a row begins, only reading tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.types as pat

from batchonnx.errors import InputError, Problem
from batchonnx.formats.footer import Footer, RowGroup
from batchonnx.formats.rechunk import rechunk
from batchonnx.formats.registry import Opener
from batchonnx.formats.text_input import BLOCK_BYTES, open_first_block, unpacked
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.paths import open_input
from batchonnx.storage.spans import Span, sequential

EMPTY = ("",)
NULL_WORDS = ("", "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", "-NaN", "-nan", "#N/A", "#NA")
"""What stands for null in a column that isn't text; in text they may be names."""

_NUMERAL = r"^[+-]?(0[xX][0-9a-fA-F]+|\d+)$"
_INTEGER = r"^-?(0|[1-9]\d*)$"
"""What an integer is written back as."""

_TSV = re.compile(r"\.tsv(\.\w+)?$", re.IGNORECASE)


def read_footer(file: FileEntry) -> Footer:
    """The schema as the first block of rows shows it; it then holds for the whole file.

    Digits that an integer couldn't give back (`007`, `+49`, `0x1F`, more of them than int64 has) are text.
    """
    try:
        with _open(file, None, (), NULL_WORDS, open_first_block) as reader:
            schema = reader.schema
        numbers = [f.name for f in schema if pat.is_integer(f.type) or pat.is_floating(f.type)]
        if numbers and len(set(schema.names)) == len(schema.names):
            as_text = pa.schema([(name, pa.string()) for name in numbers])
            with _open(file, as_text, numbers, NULL_WORDS, open_first_block) as reader:
                written = reader.read_next_batch()
            for name in numbers:
                index = schema.get_field_index(name)
                if _are_codes(written.column(name), schema.field(index).type):
                    schema = schema.set(index, pa.field(name, pa.string()))
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file.path, error) from error
    return Footer(schema, (RowGroup(None, file.size),))


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
    yield from rechunk(_blocks(file, footer.schema, columns, opener), chunk_rows)


def _blocks(
    file: FileEntry, schema: pa.Schema, columns: Sequence[str], opener: Opener
) -> Iterator[pa.RecordBatch]:
    """An empty cell is null, in text too; other words for null only where a column isn't text.

    Arrow knows one list for all columns. So a file is read with the short one, and only if that fails, from
    there on twice: its text with the short list, the rest with the long one.
    """
    done = 0
    try:
        with _open(file, schema, columns, EMPTY, opener) as reader:
            for block in reader:
                yield block.select(list(columns))
                done += 1
        return
    except (pa.ArrowInvalid, OSError) as error:
        others = [name for name in columns if not pat.is_string(schema.field(name).type)]
        if not others or not isinstance(error, pa.ArrowInvalid):
            raise _broken(file.path, error) from error
    texts = [name for name in columns if name not in others]
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(_open(file, schema, others, NULL_WORDS, _open_again))]
            if texts:
                readers.append(stack.enter_context(_open(file, schema, texts, EMPTY, _open_again)))
            for number, blocks in enumerate(zip(*readers, strict=True)):
                if number >= done:
                    found = {name: block.column(name) for block in blocks for name in block.schema.names}
                    yield pa.RecordBatch.from_arrays([found[name] for name in columns], list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file.path, error) from error


def _are_codes(written: pa.StringArray, kind: pa.DataType) -> bool:
    """Whether a column of numbers is rather one of codes: a number wouldn't give back what is written."""
    cells = pc.utf8_trim_whitespace(written.drop_null())
    if pat.is_integer(kind):
        return not pc.all(pc.match_substring_regex(cells, _INTEGER)).as_py()
    # Digits alone are floats only where they are too many for an integer.
    return bool(len(cells)) and bool(pc.all(pc.match_substring_regex(cells, _NUMERAL)).as_py())


def _open(
    file: FileEntry, types: pa.Schema | None, columns: Sequence[str], nulls: Sequence[str], opener: Opener
) -> pacsv.CSVStreamingReader:
    """columns: those to convert; none: all. nulls: what stands for null, without quotes."""
    return pacsv.open_csv(
        unpacked(opener(file), file.path),
        read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pacsv.ParseOptions(
            delimiter="\t" if _TSV.search(file.path) else ",", newlines_in_values=True
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=types,
            include_columns=list(columns),
            null_values=list(nulls),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _open_again(file: FileEntry) -> pa.NativeFile:
    """Not by the opener that fetches ahead, which gives each file once."""
    return open_input(file, file.size)


def _broken(path: str, error: Exception) -> InputError:
    facts = {"file": path, "found": str(error).splitlines()[0][:300]}
    fix = "mend the row; types are told by the file's first rows"
    return InputError(Problem("the CSV file can't be read", facts, fix))
