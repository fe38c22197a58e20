from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.load import load_job
from batchonnx.job.spec import JobFile


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobFile]:
    """Write text to job.yaml in an empty working folder and load it under that relative name."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str | bytes, **variables: str) -> JobFile:
        data = text if isinstance(text, bytes) else dedent(text).encode()
        Path("job.yaml").write_bytes(data)
        return load_job("job.yaml", variables)

    return write_and_load


@pytest.fixture
def refuse(load: Callable[..., JobFile]) -> Callable[..., tuple[Problem, ...]]:
    """Load text that is wrong; what the error says."""

    def write_and_fail(text: str | bytes, **variables: str) -> tuple[Problem, ...]:
        with pytest.raises(JobFileError) as caught:
            load(text, **variables)
        return caught.value.problems

    return write_and_fail
