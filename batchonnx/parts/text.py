"""Values as text that gives back the same values: numbers in the fewest digits that do."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat


def to_text(values: pa.Array) -> pa.StringArray:
    """Each value's text, null for null. values: of a type of which `is_plain` holds."""
    if pat.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pat.is_float16(values.type):
        values = values.cast(pa.float32())
    return pc.cast(values, pa.string())


def from_text(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values whose texts these are. Raises ArrowException for text that is none."""
    if pat.is_null(kind):
        return pa.nulls(len(texts))
    if pat.is_dictionary(kind):
        return from_text(texts, kind.value_type).dictionary_encode().cast(kind)
    if pat.is_float16(kind):
        return texts.cast(pa.float32()).cast(kind)
    if pat.is_time(kind):  # Arrow has no cast from text to a time of day
        days = pc.binary_join_element_wise("1970-01-01", texts.cast(pa.string()), " ")
        return days.cast(pa.timestamp(kind.unit)).cast(kind)
    return texts.cast(kind)


def is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type have a text of their own."""
    if pat.is_dictionary(kind):
        return is_plain(kind.value_type)
    return bool(
        is_words(kind)
        or pat.is_boolean(kind)
        or pat.is_integer(kind)
        or pat.is_floating(kind)
        or pat.is_decimal(kind)
        or pat.is_date(kind)
        or pat.is_time(kind)
        or pat.is_timestamp(kind)
        or pat.is_null(kind)
    )


def is_words(kind: pa.DataType) -> bool:
    """Whether a type is text itself."""
    return bool(pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind))


def unpacked(source: pa.NativeFile, compression: str) -> pa.NativeFile:
    """The text in a file."""
    return source if compression == "none" else pa.CompressedInputStream(source, compression)


def packed(sink: pa.NativeFile, compression: str) -> pa.NativeFile:
    """What to write text into. Closing what is packed would close `sink`, too."""
    return sink if compression == "none" else pa.CompressedOutputStream(sink, compression)


def lines(source: pa.NativeFile, block_bytes: int) -> Iterator[bytes]:
    """The bytes of a text, in blocks that end where a line does."""
    rest = b""
    while block := source.read(block_bytes):
        whole, newline, tail = block.rpartition(b"\n")
        if newline:
            yield rest + whole + newline
            rest = tail
        else:
            rest += block
    if rest:
        yield rest
