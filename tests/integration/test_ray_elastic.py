"""A run grows with its cluster, asks for machines, and gives them back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx import api
from batchonnx.errors import ClusterError
from batchonnx.job.load import job_from_dict
from batchonnx.scoring.progress import Progress, RunSummary
from tests import models
from tests.integration.ray_cluster import add_node, autoscaled_cluster, ray_cluster

FILES, ROWS, WIDTH = 24, 1_000, 4

HOOK = """
import time
import numpy as np
from pathlib import Path

GATE = Path(__file__).with_name("open")

def encode(rows):
    values = np.column_stack([column.to_numpy() for column in rows.columns])
    while (values > 1e3).any() and not GATE.exists():
        time.sleep(0.02)
    return values
"""
"""The last row of a file isn't scored until another file says so."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(5)
    for number in range(FILES):
        columns = {f"f{i}": rng.standard_normal(ROWS).astype(np.float32) for i in range(WIDTH)}
        columns["f0"][-1] = 1e4
        pq.write_table(pa.table(columns), tmp_path / "in" / f"{number}.parquet")
    (tmp_path / "gated.py").write_text(HOOK)
    models.linear(tmp_path / "model.onnx", WIDTH, 3)
    return tmp_path


class Running:
    """A run in a thread of its own. seen: its progress."""

    def __init__(self, folder: Path, engine: dict[str, Any]) -> None:
        columns = [f"f{i}" for i in range(WIDTH)]
        job = {
            "model": {"path": "model.onnx"},
            "input": {"path": "in"},
            "features": {"x": {"columns": columns, "python": "gated:encode"}},
            "output": {"path": "out"},
            "engine": {"name": "ray", "batch_rows": 250, **engine},
        }
        self._job = job_from_dict(job, folder)
        self.seen: list[Progress] = []
        self._result: list[RunSummary | BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(api.run(self._job, on_progress=self.seen.append))
        except BaseException as error:
            self._result.append(error)

    def summary(self) -> RunSummary:
        """Of the run, when it is over."""
        self._thread.join()
        (result,) = self._result
        if isinstance(result, BaseException):
            raise result
        return result

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait, as long as the run goes on."""
        end = time.monotonic() + 120
        while not is_so():
            assert self._thread.is_alive(), self._result
            assert time.monotonic() < end, self.seen[-1:]
            time.sleep(0.02)


def test_a_run_begins_with_what_fits_and_grows_when_a_raylet_joins(folder: Path) -> None:
    with ray_cluster(1) as cluster:
        run = Running(folder, {"workers": {"min": 1, "max": 2}})
        run.until(lambda: any(progress.workers == 1 for progress in run.seen))
        add_node(cluster)
        add_node(cluster)
        run.until(lambda: run.seen[-1].workers == 2)
        (folder / "open").touch()
        assert run.summary().workers == 2
    assert api.verify(folder / "out").predicted == FILES * ROWS


def test_an_autoscaler_is_asked_for_machines_and_for_none_afterwards(folder: Path) -> None:
    with autoscaled_cluster(2) as address:
        run = Running(folder, {"workers": {"min": 2, "max": 2}, "wait_s": 100})
        run.until(lambda: any(progress.workers == 2 for progress in run.seen))
        (folder / "open").touch()
        assert run.summary().workers == 2
        until_nodes(address, 1)
    assert api.verify(folder / "out").predicted == FILES * ROWS


def test_fewer_than_the_least_are_too_few_to_begin_with(folder: Path) -> None:
    (folder / "open").touch()
    with ray_cluster(1):
        with pytest.raises(ClusterError) as caught:
            Running(folder, {"workers": {"min": 2, "max": 3}, "wait_s": 3}).summary()
        assert caught.value.problems[0].title == "the cluster has no room for 2 workers"
        assert not (folder / "out").exists()


def until_nodes(address: str, count: int) -> None:
    """Until the autoscaler has taken away what nobody asks for any more."""
    import ray

    ray.init(address=address, configure_logging=False, log_to_driver=False)
    try:
        end = time.monotonic() + 90
        while sum(node["Alive"] for node in ray.nodes()) != count:
            assert time.monotonic() < end, ray.nodes()
            time.sleep(0.2)
    finally:
        ray.shutdown()
