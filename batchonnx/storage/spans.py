"""Which bytes of a file will be read, said in advance: a span is fetched by one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batchonnx.storage.entry import FileEntry

PIECE_BYTES = 16 << 20
"""What one request fetches at most."""
LEAST_BYTES = 256 << 10
"""What one request fetches at least, where many ranges are read at once."""
GAP_BYTES = 512 << 10
"""Bytes that nobody wants are fetched along, if they are so few between those that are wanted."""
SMALL_BYTES = 1 << 20
"""A file of this size is fetched as a whole."""


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop` of a file, fetched by one request.

    wanted: how many of them will be read, each once: then they are let go. None: they are kept until the
    file is closed. passing: they are let go when later ones are read.
    """

    start: int
    stop: int
    wanted: int | None = None
    passing: bool = False


def whole(file: FileEntry) -> list[Span]:
    """A small file, to be read in any order."""
    return [Span(0, file.size)] if file.size else []


def sequential(start: int, stop: int) -> list[Span]:
    """Bytes that will be read from front to back; some may be left out."""
    places = range(start, stop, PIECE_BYTES)
    return [Span(place, min(place + PIECE_BYTES, stop), passing=True) for place in places]


def coalesced(ranges: Iterable[tuple[int, int]]) -> list[Span]:
    """Ranges that don't overlap, each byte of which will be read once, as few requests.

    They end where an object's pieces are likely to: a store that keeps 8 MiB together, or what one part
    of an upload brought, needn't look at a piece twice. SeaweedFS took 2.4 CPU-s for 490 MB, not 5.4.
    """
    spans: list[Span] = []
    for start, stop in (cut for span in sorted(ranges) for cut in _cut(*span)):
        last = spans[-1] if spans else None
        is_near = last is not None and start - last.stop <= GAP_BYTES
        if last is not None and is_near and start // PIECE_BYTES == last.start // PIECE_BYTES:
            spans[-1] = Span(last.start, stop, (last.wanted or 0) + stop - start)
        else:
            spans.append(Span(start, stop, stop - start))
    return spans


def _cut(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """At multiples of PIECE_BYTES from the file's front."""
    while start < stop:
        end = min(stop, (start // PIECE_BYTES + 1) * PIECE_BYTES)
        yield start, end
        start = end


def announce(file: FileEntry, first_bytes: int) -> list[Span]:
    """A file of which so many bytes will be read, from the beginning; or any, if it is small."""
    return whole(file) if file.size <= SMALL_BYTES else sequential(0, min(first_bytes, file.size))


def side_by_side(ranges: Sequence[tuple[int, int]], most: int) -> list[Span]:
    """Ranges that are read at the same pace, each from front to back: `most` bytes are enough to go on."""
    size = max(LEAST_BYTES, min(PIECE_BYTES, most // len(ranges)))
    spans = [
        ((place - start) / (stop - start), Span(place, min(place + size, stop), min(size, stop - place)))
        for start, stop in ranges
        for place in range(start, stop, size)
    ]
    return [span for _, span in sorted(spans, key=lambda placed: (placed[0], placed[1].start))]
