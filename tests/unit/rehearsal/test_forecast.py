"""A forecast is the line through two tries; samples are as large as the time allows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx import api
from batchonnx.job.load import job_from_dict
from batchonnx.planning.plan import Plan
from batchonnx.planning.sample import take_sample
from batchonnx.rehearsal.forecast import choose_samples, foretell
from batchonnx.rehearsal.rehearse import Rehearsal, Watched
from batchonnx.report.prices import Prices
from batchonnx.scoring.progress import RunSummary
from tests import models

ROWS = 100_000


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("plan")
    models.linear(folder / "model.onnx")
    values = np.random.default_rng(0).standard_normal(ROWS)
    table = pa.table(dict.fromkeys("abc", values))
    pq.write_table(table, folder / "in.parquet", row_group_size=ROWS // 8)
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"columns": ["a", "b", "c"]}},
        "output": {"path": "out"},
    }
    return api.plan(job_from_dict(job, folder))


def tried(plan: Plan, rows: int, shards: int, seconds: float, requests: int) -> Rehearsal:
    summary = RunSummary(
        job="job", output="", rows_in=ROWS, predicted=rows, quarantined=0, filtered=ROWS - rows, parts=shards,
        bytes=10 * rows, elapsed_s=seconds, first_row_s=0.5, busy_s={"predict": 1.0}, workers=2,
        threads_per_worker=1, batch_rows=64, model_calls=1, notes=(), requests={"PutObject": requests},
    )  # fmt: skip
    trace = [(0.5 + 0.0005 * rows * number / 20, rows * number // 20) for number in range(1, 21)]
    return Rehearsal(summary, Watched(rows, shards, 100 << 20, 140 << 20, 0.4, trace), seconds, seconds)


def test_time_requests_and_size_are_carried_on_from_two_tries(plan: Plan) -> None:
    small, large = tried(plan, 2_000, 2, 3.0, 24), tried(plan, 8_000, 8, 6.0, 36)
    found = foretell(plan, ROWS, [small, large], Prices(cpu_hour=3600.0, gb_month=1e9))
    given_crew = found.crews[0]
    assert given_crew.seconds == pytest.approx(2.0 + ROWS * 0.0005)
    assert given_crew.low < given_crew.seconds < given_crew.high
    assert found.startup_s == pytest.approx(2.0)
    assert found.requests["PutObject"] == pytest.approx(20 + 2 * max(len(plan.shards), 8))
    assert found.output_bytes == pytest.approx(10 * ROWS)
    assert given_crew.cost is not None
    assert given_crew.cost.cpu == pytest.approx(2 * given_crew.seconds)
    assert given_crew.cost.storage == pytest.approx(10 * ROWS)
    by_workers = {crew.workers: crew for crew in found.crews}
    assert by_workers[1].seconds == pytest.approx(2.0 + 2 * ROWS * 0.0005)
    assert by_workers[1].memory == 120 << 20
    assert not by_workers[1].is_tried


@given(row_s=st.floats(1e-7, 10.0), workers=st.integers(1, 16), budget_s=st.floats(0.1, 100.0))
def test_samples_take_about_as_long_as_they_may(
    plan: Plan, row_s: float, workers: int, budget_s: float
) -> None:
    small, large = choose_samples(plan, ROWS, row_s, workers, budget_s)
    taken = take_sample(plan, large)
    assert taken.rows is not None
    least = min(plan.whole_rows, ROWS / len(plan.shards))
    assert taken.rows >= min(least, ROWS) - 1
    if taken.rows < ROWS:
        assert taken.rows * row_s / workers <= budget_s + (len(taken.shards) + least) * row_s / workers
    if small is not None:
        assert 0 < (take_sample(plan, small).rows or 0) < taken.rows
