"""Whatever was announced and whatever is read: the bytes are the object's, and none is fetched twice."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx.errors import InputError
from batchonnx.storage import fetchers, ranged, spans
from batchonnx.storage.entry import FileEntry
from batchonnx.storage.ranged import RangedFile, ReadAhead
from batchonnx.storage.s3 import s3_client
from batchonnx.storage.s3_requests import requests_sent
from batchonnx.storage.spans import Span, coalesced, sequential, side_by_side, whole
from tests.stores.faultproxy import FaultProxy
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

SIZE = 200_000
DATA = random.Random(0).randbytes(SIZE)
PIECE = 30_000


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (ranged, spans):
            patch.setattr(module, "PIECE_BYTES", PIECE)
            patch.setattr(module, "SMALL_BYTES", 1000)
        patch.setattr(spans, "GAP_BYTES", 3000)
        patch.setattr(spans, "LEAST_BYTES", 2000)
        patch.setattr(ranged, "LOOK_BYTES", 5000)
        patch.setattr(ranged, "FIRST_BYTES", 2 * PIECE)
        yield


@pytest.fixture(scope="module")
def entry(s3: S3Server) -> Iterator[FileEntry]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.access.env().items():
            patch.setenv(name, value)
        yield put("ranged/data", DATA)


def put(key: str, data: bytes) -> FileEntry:
    return FileEntry(f"s3://lake/{key}", len(data), s3_client().put("lake", key, data))


def ranges() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Parts of the object that don't overlap."""
    cuts = st.lists(st.integers(0, SIZE), min_size=2, max_size=12, unique=True).map(sorted)
    return cuts.map(lambda c: list(zip(c[::2], c[1::2], strict=False)))


def announced(parts: list[tuple[int, int]], how: str) -> list[Span]:
    if how == "side by side":
        return side_by_side(parts, PIECE)
    return coalesced(parts) if how == "coalesced" else sequential(parts[0][0], parts[-1][1])


@settings(max_examples=60, deadline=None)
@given(ranges(), st.sampled_from(["coalesced", "side by side", "sequential"]), st.data())
def test_reads_anywhere_give_the_objects_bytes(
    entry: FileEntry, parts: list[tuple[int, int]], how: str, data: st.DataObject
) -> None:
    with ReadAhead([(entry, lambda: announced(parts, how))]) as ahead:
        file = ahead.next_file()
        for _ in range(data.draw(st.integers(1, 8))):
            start, size = data.draw(st.integers(0, SIZE + 10)), data.draw(st.integers(0, 2 * PIECE))
            file.seek(start)
            assert file.read(size) == DATA[start : start + size]
    assert fetchers._fetchers.bytes == 0


@settings(max_examples=40, deadline=None)
@given(ranges(), st.sampled_from(["coalesced", "side by side"]), st.integers(500, PIECE))
def test_what_was_announced_is_read_at_any_pace_and_let_go(
    entry: FileEntry, parts: list[tuple[int, int]], how: str, step: int
) -> None:
    requests = requests_sent()["GetObject"]
    told = announced(parts, how)
    with ReadAhead([(entry, lambda: told)]) as ahead:
        file = ahead.next_file()
        for done in range(0, max(stop - start for start, stop in parts), step):
            for start, stop in parts:
                file.seek(start + done)
                size = max(0, min(step, stop - start - done))
                assert file.read(size) == DATA[start + done : start + done + size]
        assert fetchers._fetchers.bytes == 0
    assert requests_sent()["GetObject"] - requests == len(told)


def test_coalesced_ranges_leave_out_wide_gaps_only() -> None:
    parts = [(0, 100), (200, 300), (10_000, 10_100), (50_000, 50_000 + PIECE + 5)]
    assert [(s.start, s.stop, s.wanted) for s in coalesced(parts)] == [
        (0, 300, 200),
        (10_000, 10_100, 100),
        (50_000, 2 * PIECE, 10_000),
        (2 * PIECE, 50_005 + PIECE, 20_005),
    ]


def test_columns_side_by_side_begin_with_each_ones_front() -> None:
    found = side_by_side([(0, 8000), (20_000, 24_000)], 4000)
    assert [span.start for span in found] == [0, 20_000, 2000, 4000, 22_000, 6000]


def test_pyarrow_reads_a_view_of_what_was_fetched(entry: FileEntry) -> None:
    with ReadAhead([(entry, lambda: [Span(0, SIZE)])]) as ahead:
        file = pa.PythonFile(ahead.next_file(), mode="r")
        file.seek(64)
        buffer = file.read_buffer(1000)
        file.seek(64)
        assert file.read_buffer(10).address == buffer.address
        assert buffer.to_pybytes() == DATA[64:1064]
        assert file.size() == SIZE


def test_bytes_that_nobody_announced_are_read_all_the_same(entry: FileEntry) -> None:
    file = RangedFile(entry)
    file.seek(-10, 2)
    assert file.read() == DATA[-10:]
    out = bytearray(20)
    file.seek(7)
    assert file.readinto(memoryview(out)) == 20
    assert out == DATA[7:27]


def test_small_files_come_whole_and_many_at_once(entry: FileEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [put(f"ranged/small-{n}", bytes([n]) * 900) for n in range(40)]
    requests = requests_sent()["GetObject"]
    with ReadAhead((file, lambda file=file: whole(file)) for file in files) as ahead:
        for n in range(40):
            file = ahead.next_file()
            file.seek(450)
            assert file.read() == bytes([n]) * 450
            file.close()
    assert requests_sent()["GetObject"] - requests == 40


def test_no_more_is_fetched_ahead_than_the_window_holds(entry: FileEntry) -> None:
    with ReadAhead([(entry, lambda: sequential(0, SIZE))]) as ahead:
        assert fetchers._fetchers.bytes == 2 * PIECE
        assert not ahead.is_all_asked
        file = ahead.next_file()
        while block := file.read(7000):
            assert block
            assert fetchers._fetchers.bytes <= ranged.MOST_BYTES
        assert ahead.is_all_asked


def test_a_reader_that_is_given_up_holds_nothing(entry: FileEntry) -> None:
    ahead = ReadAhead([(entry, lambda: sequential(0, SIZE))])
    assert fetchers._fetchers.bytes
    del ahead
    assert fetchers._fetchers.bytes == 0


def test_a_full_process_still_lets_each_reader_go_on(
    entry: FileEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetchers, "PROCESS_BYTES", 0)
    readers = [ReadAhead([(entry, lambda: sequential(0, SIZE))]) for _ in range(3)]
    assert fetchers._fetchers.bytes == 3 * PIECE
    for reader in readers:
        with reader:
            assert reader.next_file().read() == DATA


def test_an_object_that_was_replaced_is_named(entry: FileEntry) -> None:
    old = put("ranged/replaced", b"a" * 5000)
    put("ranged/replaced", b"b" * 5000)
    with pytest.raises(InputError, match="changed since the plan") as caught:
        RangedFile(old).read()
    assert caught.value.problems[0].facts["file"] == old.path


def test_an_object_that_is_gone_is_named(entry: FileEntry) -> None:
    gone = put("ranged/gone", b"a" * 5000)
    s3_client().delete("lake", ["ranged/gone"])
    with (
        ReadAhead([(gone, lambda: sequential(0, 5000))]) as ahead,
        pytest.raises(InputError, match="isn't there") as caught,
    ):
        ahead.next_file().read()
    assert caught.value.problems[0].facts["path"] == gone.path


@pytest.mark.parametrize("fault", ["reset", "error"])
def test_faults_on_the_way_are_survived(
    s3: S3Server, proxy: FaultProxy, use_store: UseStore, entry: FileEntry, fault: str
) -> None:
    use_store(s3.access.via(proxy.url))
    with (
        proxy.fault(fault, op="GetObject", every=3, at="response", limit=4) as rule,
        ReadAhead([(entry, lambda: sequential(0, SIZE))]) as ahead,
    ):
        assert ahead.next_file().read() == DATA
    assert rule.fired
