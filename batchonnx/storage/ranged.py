"""Objects as files whose bytes are on their way before they are asked for.

Who reads says in advance which bytes it will want (`Span`), file after file. `ReadAhead` fetches them in
that order within a window, which grows while the reader has to wait: a store that answers late gets more
requests at once, one that answers soon costs little memory. What nobody announced is read all the same,
one request later.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import Self

import pyarrow as pa

from batchonnx.errors import BatchonnxError, InputError, Problem
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.fetchers import fetch_soon, has_room, take_room
from batchonnx.storage.s3 import s3_client, split_url
from batchonnx.storage.s3_requests import Changed
from batchonnx.storage.spans import PIECE_BYTES, SMALL_BYTES, Span

LOOK_BYTES = 64 << 10
"""What a read that wasn't announced fetches at least, and how many such pieces a file keeps."""
LOOKS_KEPT = 4
FIRST_BYTES, MOST_BYTES = 32 << 20, 64 << 20
FIRST_REQUESTS, MOST_REQUESTS = 16, 64
"""The window of one reader, in bytes and requests: at first, and when it had to wait again and again."""


def read_range(file: FileEntry, start: int, stop: int, kind: type[BatchonnxError] = InputError) -> pa.Buffer:
    """Bytes of an object as it was listed. Raises `kind`, naming the file, if it is gone or another one."""
    buffer = pa.allocate_buffer(stop - start)
    bucket, key = split_url(file.path)
    try:
        s3_client().read_into(bucket, key, start, memoryview(buffer).cast("B"), file.version or None, kind)
    except Changed as error:
        facts = {"file": file.path, "expected": f"etag {file.version}"}
        fix = "run the same command again, when the file is complete"
        raise kind(Problem("the file has changed since the plan was made", facts, fix)) from error
    return buffer


class Piece:
    """A span on its way. future: None until it is asked for. data: if it is there already."""

    def __init__(self, span: Span, data: bytes | None = None) -> None:
        self.start, self.stop, self.passing = span.start, span.stop, span.passing
        self.left = span.wanted
        self.future: Future[pa.Buffer] | None = None if data is None else _done(pa.py_buffer(data))

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stop - self.start


class RangedFile:
    """A seekable, read-only file over an object, for pyarrow: `pa.PythonFile(file, mode="r")`.

    Reads within a piece are views of what was fetched, never copies. Not for several threads at once.
    Raises InputError, or the class given as `kind`, if the object is gone or has changed.
    """

    def __init__(
        self,
        entry: FileEntry,
        pieces: Iterable[Piece] = (),
        kind: type[BatchonnxError] = InputError,
        ahead: ReadAhead | None = None,
    ) -> None:
        """ahead: what fetches the pieces; None: each is fetched when it is read."""
        self._entry, self._kind, self._ahead = entry, kind, ahead
        self._pieces = sorted(pieces, key=_start)
        self._looks: deque[tuple[int, pa.Buffer]] = deque(maxlen=LOOKS_KEPT)
        self._at = 0
        self.closed = False

    def read_buffer(self, size: int | None = -1) -> memoryview | bytes:
        """The next bytes, fewer at the end."""
        if self.closed:
            raise ValueError("the file is closed")
        end = self._entry.size
        stop = end if size is None or size < 0 else min(self._at + size, end)
        parts = []
        while self._at < stop:
            part = self._next(stop)
            self._at += len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read(self, size: int | None = -1) -> bytes:
        """As `read_buffer`, copied."""
        return bytes(self.read_buffer(size))

    def readinto(self, out: memoryview) -> int:
        """Fill `out`; how many bytes there were."""
        data = self.read_buffer(len(out))
        out[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Where the next read begins."""
        self._at = (0, self._at, self._entry.size)[whence] + offset
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def size(self) -> int:
        """Of the object."""
        return self._entry.size

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It isn't."""
        return False

    def seekable(self) -> bool:
        """It is."""
        return True

    def flush(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """Let go of all that was fetched."""
        self.closed = True
        for piece in self._pieces:
            self._let_go(piece)
        self._pieces = []
        self._looks.clear()

    def _next(self, stop: int) -> memoryview:
        """Bytes from here on, up to `stop` at most: of one piece."""
        place = bisect_right(self._pieces, self._at, key=_start)
        if place and self._at < (piece := self._pieces[place - 1]).stop:
            return self._take(piece, place - 1, min(stop, piece.stop))
        if place < len(self._pieces):
            stop = min(stop, self._pieces[place].start)
        return self._look(stop)

    def _take(self, piece: Piece, place: int, stop: int) -> memoryview:
        if self._ahead is not None:
            buffer = self._ahead.wait_for(piece, self._entry, self._kind)
        else:
            piece.future = piece.future or _done(read_range(self._entry, piece.start, piece.stop, self._kind))
            buffer = piece.future.result()
        data = memoryview(buffer).cast("B")[self._at - piece.start : stop - piece.start]
        gone = []
        if piece.left is not None:
            piece.left -= len(data)
            gone = [piece] if piece.left <= 0 else []
        elif piece.passing:
            gone = [earlier for earlier in self._pieces[:place] if earlier.passing]
        for one in gone:
            self._pieces.remove(one)
            self._let_go(one)
        return data

    def _look(self, stop: int) -> memoryview:
        """Bytes that nobody announced; a few more are fetched along, for they are seldom the last."""
        for start, buffer in self._looks:
            if start <= self._at < start + len(buffer):
                return memoryview(buffer).cast("B")[self._at - start : stop - start]
        end, start = self._entry.size, self._at
        if end <= SMALL_BYTES:
            insort(self._pieces, piece := Piece(Span(0, end)), key=_start)
            return self._take(piece, self._pieces.index(piece), stop)
        fetched = min(max(stop, start + LOOK_BYTES), end, start + PIECE_BYTES)
        if fetched == end:
            start = max(0, min(start, end - LOOK_BYTES))
        buffer = read_range(self._entry, start, fetched, self._kind)
        self._looks.append((start, buffer))
        return memoryview(buffer).cast("B")[self._at - start : stop - start]

    def _let_go(self, piece: Piece) -> None:
        if self._ahead is not None:
            self._ahead.let_go(piece)


Announced = tuple[FileEntry, Callable[[], Sequence[Span]]]
"""A file and what tells its spans: asked when it is the file's turn."""


class ReadAhead:
    """Files that will be read one after the other, and what of them is on its way.

    Fetching begins at once. Every file is to be closed when it was read, and this at the end; it is for one
    reader, while pyarrow's threads may read the file.
    is_all_asked: nothing is left to fetch ahead; there would be room for what is read next.
    """

    def __init__(
        self,
        files: Iterable[Announced],
        kind: type[BatchonnxError] = InputError,
        first_bytes: int | None = None,
    ) -> None:
        """first_bytes: the window to begin with, if not FIRST_BYTES."""
        self._files: Iterator[Announced] = iter(files)
        self._kind = kind
        self._begun: deque[tuple[FileEntry, list[Piece]]] = deque()
        self._coming: deque[tuple[Piece, FileEntry]] = deque()
        self._unread: set[Piece] = set()
        self._held: set[Piece] = set()
        self._bytes = 0
        self._most_bytes, self._most_requests = first_bytes or FIRST_BYTES, FIRST_REQUESTS
        self._has_read = self._is_closed = False
        self.is_all_asked = False
        self._lock = Lock()
        with self._lock:
            self._pump()

    def next_file(self) -> RangedFile:
        """The next of the files; StopIteration if there is none."""
        with self._lock:
            if not self._begun:
                self._begin_file()
            entry, pieces = self._begun.popleft()
        return RangedFile(entry, pieces, self._kind, self)

    def wait_for(self, piece: Piece, entry: FileEntry, kind: type[BatchonnxError]) -> pa.Buffer:
        """A piece's bytes; the window grows if they aren't there yet."""
        with self._lock:
            if piece.future is None:
                self._ask(piece, entry)
            future = piece.future
            assert future is not None
            if piece in self._unread:
                if not future.done() and self._has_read:
                    self._most_bytes = max(self._most_bytes, min(2 * self._most_bytes, MOST_BYTES))
                    self._most_requests = min(2 * self._most_requests, MOST_REQUESTS)
                self._has_read = True
                self._forget_unread(piece)
                self._pump()
        return future.result()

    def let_go(self, piece: Piece) -> None:
        """A piece has been read: there is room for others."""
        with self._lock:
            self._release(piece)
            self._pump()

    def close(self) -> None:
        """Give up whatever is on its way."""
        with self._lock:
            self._is_closed = True
            for piece in list(self._held):
                self._release(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _release(self, piece: Piece) -> None:
        self._forget_unread(piece)
        if piece in self._held:
            self._held.remove(piece)
            take_room(-piece.size)
            if piece.future is not None:
                piece.future.cancel()
        piece.future = _LET_GO

    def _forget_unread(self, piece: Piece) -> None:
        if piece in self._unread:
            self._unread.remove(piece)
            self._bytes -= piece.size

    def _pump(self) -> None:
        while not self._is_closed:
            if not self._coming:
                try:
                    self._begin_file()
                except StopIteration:
                    self.is_all_asked = True
                    return
                continue
            piece, entry = self._coming[0]
            if piece.future is None:
                if self._unread and not self._has_room(piece.size):
                    return
                self._ask(piece, entry)
            self._coming.popleft()

    def _has_room(self, size: int) -> bool:
        fits = self._bytes + size <= self._most_bytes and len(self._unread) < self._most_requests
        return fits and has_room(size)

    def _begin_file(self) -> None:
        entry, spans = next(self._files)
        pieces = [Piece(span) for span in spans()]
        self._begun.append((entry, pieces))
        self._coming.extend((piece, entry) for piece in pieces)

    def _ask(self, piece: Piece, entry: FileEntry) -> None:
        self._held.add(piece)
        self._unread.add(piece)
        self._bytes += piece.size
        take_room(piece.size)
        # Nothing of this reader: it may be given up while the request is under way.
        fetch = partial(read_range, entry, piece.start, piece.stop, self._kind)
        piece.future = fetch_soon(fetch, piece.size)


def _start(piece: Piece) -> int:
    return piece.start


def _done(buffer: pa.Buffer) -> Future[pa.Buffer]:
    future: Future[pa.Buffer] = Future()
    future.set_result(buffer)
    return future


_LET_GO = _done(pa.py_buffer(b""))
"""In place of a piece's bytes, so that a piece whose turn comes later doesn't keep them."""
