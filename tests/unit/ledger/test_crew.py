"""Workers of a dead driver are outlasted, and let in no more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchonnx.errors import OutputBusyError
from batchonnx.ledger.crew import call_crew, crew_path, outlast_crew


def test_a_run_waits_for_the_workers_of_the_one_before(tmp_path: Path) -> None:
    output = tmp_path / "out"
    handle = call_crew(output).join()
    assert not outlast_crew(output, 0.2)
    os.close(handle)
    assert outlast_crew(output, 0.2)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_comes_too_late_stays_out(tmp_path: Path) -> None:
    output = tmp_path / "out"
    late = call_crew(output)
    assert outlast_crew(output, 0.0)
    with pytest.raises(OutputBusyError):
        late.join()
    later = call_crew(output)
    with pytest.raises(OutputBusyError):
        late.join()
    os.close(later.join())
    crew_path(output).unlink()


def test_many_workers_may_be_in_a_run(tmp_path: Path) -> None:
    crew = call_crew(tmp_path / "out")
    handles = [crew.join() for _ in range(5)]
    assert len(set(handles)) == 5
    for handle in handles:
        os.close(handle)
