"""How fast, how long still, and what holds a job back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx.scoring.progress import STAGES, Progress, slowest_stage
from batchonnx.watch.pace import ETA_MOST_S, RECENT_S, Pace

TICK_S = 0.2


def follow(
    total: int, step: int, speed: float, *, before: int = 0, slower_at: float = 1.0
) -> list[tuple[float, float]]:
    """A job that does `step` rows at a time at `speed` rows/s, half as fast behind a share of its rows.

    Returns at each tick, from two seconds and four steps on: seconds that were really left, and as foretold.
    """
    left = total - before
    turn_s = slower_at * left / speed
    end_s = turn_s + (1 - slower_at) * left * 2 / speed

    def rows_at(second: float) -> int:
        rows = speed * min(second, turn_s) + speed / 2 * max(0.0, second - turn_s)
        return left if second >= end_s else int(rows // step) * step

    pace, told, tick = Pace(), [], 1
    while (second := tick * TICK_S) < end_s:
        rows = rows_at(second)
        pace.note(Progress(0, 1, rows, total, second, 1, {}, rows_before=before))
        if rows >= 4 * step and tick >= 10:
            assert pace.eta_s is not None
            told.append((end_s - second, pace.eta_s))
        tick += 1
    return told


@settings(deadline=None, max_examples=30)
@given(st.integers(10_000, 1_000_000), st.integers(8, 60), st.floats(10, 120), st.floats(0, 0.9))
def test_what_is_foretold_comes_true_however_coarse_the_steps_are(
    total: int, steps: int, seconds: float, done_before: float
) -> None:
    before = int(done_before * total)
    left = total - before
    step = max(1, left // steps)
    for really_s, foretold_s in follow(total, step, left / seconds, before=before):
        # A step is seen up to a tick late, at either end of what is measured.
        assert foretold_s == pytest.approx(really_s, rel=0.15, abs=seconds / steps + 4 * TICK_S)


def test_a_job_that_has_slowed_down_for_good_is_foretold_anew() -> None:
    told = follow(600_000, 500, 1000.0, slower_at=0.5)
    end_s = told[0][0]
    behind = [(really, eta) for really, eta in told if end_s - really > 300 + ETA_MOST_S]
    assert behind
    assert all(eta == pytest.approx(really, rel=0.05, abs=2) for really, eta in behind)


def test_the_pace_is_that_of_the_last_seconds_and_falls_when_nothing_comes() -> None:
    pace = Pace()
    for second in range(1, 11):
        pace.note(Progress(0, 1, second * 10, 1000, float(second), 1, {}))
    pace.note(Progress(0, 1, 1000, 2000, 11.0, 1, {}))
    assert (pace.rate, pace.mean) == (pytest.approx(920 / RECENT_S), pytest.approx(1000 / 11))
    for second in range(12, 60):
        pace.note(Progress(0, 1, 1000, 2000, float(second), 1, {}))
    assert pace.rate < 25


def test_shares_are_of_the_last_seconds() -> None:
    pace = Pace()
    for second in range(1, 21):
        busy = {"read": 2.0 * min(second, 10), "predict": 2.0 * max(0, second - 10)}
        pace.note(Progress(0, 1, second, None, float(second), 2, busy))
    assert pace.shares == {**dict.fromkeys(STAGES, 0.0), "predict": 1.0}
    assert pace.slowest == "predict"


def test_nothing_is_told_before_anything_was_done() -> None:
    pace = Pace()
    pace.note(Progress(0, 4, 0, 1000, 0.0, 2, {}))
    assert (pace.eta_s, pace.slowest, pace.rate) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("busy", "local", "remote"),
    [
        # The writer works for half of the time; three stages of one thread fill it.
        ({"read": 3, "encode": 4, "predict": 3, "write": 5}, "encode", "encode"),
        ({"read": 4.5, "encode": 4, "predict": 1, "write": 5.5}, "read", "write"),
        ({"read": 6, "encode": 2, "predict": 3, "write": 2}, "read", "read"),
        ({"read": 1, "encode": 1, "predict": 1, "write": 9}, "write", "write"),
        ({}, None, None),
    ],
)
def test_the_stage_that_holds_workers_back_is_the_longest_of_the_busiest_thread(
    busy: dict[str, float], local: str | None, remote: str | None
) -> None:
    assert slowest_stage(busy, reads_ahead=False) == local
    assert slowest_stage(busy, reads_ahead=True) == remote
