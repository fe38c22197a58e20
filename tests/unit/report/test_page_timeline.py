"""A run's time, made again from its commits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.ledger.records import Commit
from batchonnx.report.page.pictures import draw_durations, draw_memory, draw_stages, draw_throughput
from batchonnx.report.page.timeline import make_timeline
from batchonnx.scoring.progress import STAGES

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)


def commit(shard: int, ended_s: float, took_s: float, rows: int = 100, **seconds: float) -> Commit:
    at = (BEGIN + timedelta(seconds=ended_s)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Commit(
        shard, "", at, rows, rows, 0, 0, f"part-{shard}", (), None, (), 64, 1, seconds,
        host="h", worker="worker-0", took_s=took_s, memory=1000 + shard,
    )  # fmt: skip


def test_no_commit_has_no_time() -> None:
    assert make_timeline([]) is None


@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e4), st.integers(0, 10**7)), min_size=1, max_size=20)
)
def test_all_rows_are_somewhere_on_the_time_axis(shards: list[tuple[float, float, int]]) -> None:
    commits = [commit(i, ended, took, rows, read=took) for i, (ended, took, rows) in enumerate(shards)]
    timeline = make_timeline(commits)
    assert timeline is not None
    width = np.diff(timeline.edges_s)
    assert (timeline.rows_per_s * width).sum() == pytest.approx(sum(c.rows_in for c in commits), rel=0.02)
    assert np.nanmax(timeline.memory) == 1000 + len(commits) - 1


@pytest.mark.parametrize("stage", STAGES)
def test_the_stage_that_holds_the_run_back_is_named(stage: str) -> None:
    others = dict.fromkeys(STAGES, 0.1)
    timeline = make_timeline([commit(i, i + 1.0, 1.0, **{**others, stage: 0.8}) for i in range(10)])
    assert timeline is not None
    assert timeline.slowest_stage == stage
    assert timeline.busy[stage].mean() == pytest.approx(0.8, rel=0.05)


def test_shards_that_took_twice_the_median_are_late_the_worst_first() -> None:
    took = [1.0, 1.0, 1.2, 0.9, 5.0, 1.1, 2.5]
    timeline = make_timeline([commit(i, 10.0, seconds) for i, seconds in enumerate(took)])
    assert timeline is not None
    assert [late.shard for late in timeline.late] == [4, 6]
    assert timeline.late_count == 2


def test_commits_of_an_older_batchonnx_are_drawn_too() -> None:
    old = Commit(0, "", "2026-11-22T00:00:01Z", 5, 5, 0, 0, "part", (), None, (), 64, 1, {"read": 0.5})
    timeline = make_timeline([old])
    assert timeline is not None
    for draw in (draw_throughput, draw_stages, draw_durations, draw_memory):
        assert draw(timeline).tag == "svg"
