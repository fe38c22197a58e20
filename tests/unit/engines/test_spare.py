"""Idle workers help those that still have rows, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx import api
from batchonnx.engines.spare import Score, Shared, SpareHands
from batchonnx.job.load import job_from_dict
from batchonnx.runtime.device import Device
from batchonnx.runtime.session import DeviceLost
from batchonnx.scoring.arrange import Piece
from batchonnx.scoring.chunk import Chunk, Segment
from batchonnx.scoring.scorer import Scored
from tests import models


def piece_of(batches: int) -> Piece:
    """Batches of two rows."""
    rows = 2 * batches
    chunk = Chunk(pa.record_batch({"v": range(rows)}), (Segment("f", 0, rows),))
    return Piece(chunk, [(stop, 2) for stop in range(2, rows + 1, 2)])


def double(piece: Piece) -> list[Scored]:
    values = [2 * value.as_py() for value in piece.chunk.columns["v"]]
    return [Scored(len(values), pa.record_batch({"v": values}))]


def values_of(scored: list[Scored]) -> list[int]:
    return [value for one in scored for value in one.predictions["v"].to_pylist()]


def serving(spare: SpareHands, score: Score) -> threading.Thread:
    """A worker without a shard, that waits for something to do."""
    spare.leave()
    thread = threading.Thread(target=spare.serve, args=(score,), daemon=True)
    thread.start()
    while not spare.idle:
        pass
    return thread


@given(batches=st.integers(1, 60), helpers=st.integers(0, 3))
def test_each_batch_is_scored_once_and_comes_back_in_order(batches: int, helpers: int) -> None:
    spare = SpareHands(helpers + 1)
    threads = [serving(spare, double) for _ in range(helpers)]
    for _ in range(2):
        scored = list(spare.share(piece_of(batches), double))
        assert values_of(scored) == [2 * row for row in range(2 * batches)]
    spare.leave()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@given(batches=st.integers(1, 300), hands=st.integers(1, 8))
def test_ever_fewer_batches_are_taken_and_the_last_alone(batches: int, hands: int) -> None:
    shared, sizes = Shared(piece_of(batches), hands), []

    def count(piece: Piece) -> list[Scored]:
        sizes.append(len(piece.cuts))
        return []

    while shared.work(count):
        pass
    assert sum(sizes) == batches
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_who_is_held_up_holds_up_no_batch_but_his_own() -> None:
    spare, scored_by_owner, begun = SpareHands(2), [], threading.Event()
    rest = threading.Event()

    def slow(piece: Piece) -> list[Scored]:
        begun.set()
        assert rest.wait(10)
        return double(piece)

    def owner(piece: Piece) -> list[Scored]:
        assert begun.wait(10)
        scored_by_owner.append(len(piece.cuts))
        if piece.cuts[-1][0] == 2 and piece.chunk.columns["v"][-1].as_py() == 79:  # the last batch of all
            rest.set()
        return double(piece)

    helper = serving(spare, slow)
    assert values_of(list(spare.share(piece_of(40), owner))) == [2 * row for row in range(80)]
    assert sum(scored_by_owner) >= 30
    spare.leave()
    helper.join(10)


def fails_on(row: int) -> Callable[[Piece], list[Scored]]:
    def score(piece: Piece) -> list[Scored]:
        if row in piece.chunk.columns["v"].to_pylist():
            raise KeyError(f"row {row}")
        return double(piece)

    return score


@pytest.mark.parametrize("row", [0, 20, 79])
def test_an_error_comes_back_to_the_owner_and_the_helper_goes_on(row: int) -> None:
    spare = SpareHands(2)
    helper = serving(spare, fails_on(row))
    for _ in range(2):
        with pytest.raises(KeyError, match=f"row {row}"):
            list(spare.share(piece_of(40), fails_on(row)))
    spare.leave()
    helper.join(10)
    assert not helper.is_alive()


def test_nothing_is_left_to_take_of_a_piece_whose_owner_stops() -> None:
    spare, taken = SpareHands(1), []

    def count(piece: Piece) -> list[Scored]:
        taken.append(len(piece.cuts))
        return double(piece)

    results = spare.share(piece_of(40), count)
    next(results)
    results.close()
    spare.leave()
    spare.serve(count)
    assert len(taken) == 1


def lost(piece: Piece) -> list[Scored]:
    raise DeviceLost.of(Device("CUDAExecutionProvider"), "CUDA failure 999: unknown error")


def test_one_who_loses_its_device_leaves_and_the_owner_scores_what_it_had_taken() -> None:
    spare, begun, seen = SpareHands(2), threading.Event(), []

    def lost_later(piece: Piece) -> list[Scored]:
        begun.set()
        return lost(piece)

    def serve() -> None:
        try:
            spare.serve(lost_later)
        except DeviceLost as error:
            seen.append(error)

    def owner(piece: Piece) -> list[Scored]:
        assert begun.wait(10)
        return double(piece)

    spare.leave()
    helper = threading.Thread(target=serve, daemon=True)
    helper.start()
    while not spare.idle:
        pass
    assert values_of(list(spare.share(piece_of(40), owner))) == [2 * row for row in range(80)]
    helper.join(10)
    assert len(seen) == 1
    assert spare.idle == 0


def test_an_owner_that_loses_its_device_ends() -> None:
    with pytest.raises(DeviceLost, match="unknown error"):
        list(SpareHands(1).share(piece_of(40), lost))


def test_nobody_is_idle_while_all_have_shards() -> None:
    assert SpareHands(3).idle == 0


def test_with_one_row_group_all_workers_score_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"f{i}": rng.standard_normal(300_000).astype(np.float32) for i in range(3)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=300_000)
    job = {
        "model": {"path": str(models.linear(tmp_path / "m.onnx"))},
        "input": {"path": str(tmp_path / "t.parquet")},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "keep": ["f0"],
    }
    written = []
    for workers in (1, 2, 5):
        output = {"path": str(tmp_path / f"out{workers}")}
        engine = {"workers": workers, "batch_rows": 100}
        summary = api.run(job_from_dict(job | {"output": output, "engine": engine}))
        assert summary.model_calls == 3_000
        (part,) = (tmp_path / f"out{workers}").glob("part-*.parquet")
        written.append((part.name, part.read_bytes()))
    assert written[0] == written[1] == written[2]
