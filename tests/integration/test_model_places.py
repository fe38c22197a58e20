"""A model may lie wherever fsspec reads, or in a registry, for every command that takes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchonnx import api
from batchonnx.cli import main
from batchonnx.cluster.places import stays_here
from batchonnx.errors import DependencyError
from batchonnx.job.load import job_from_dict
from batchonnx.runtime.session import open_model
from tests import models


@pytest.mark.slow
def test_every_command_takes_a_model_by_its_url(tmp_path: Path) -> None:
    """local:// is one of fsspec's own, which pyarrow doesn't know."""
    url = f"local://{models.linear(tmp_path / 'm.onnx')}"
    pq.write_table(pa.table({f"f{i}": np.zeros(10, np.float32) for i in range(3)}), tmp_path / "in.parquet")
    (tmp_path / "job.yaml").write_text(api.init(url, str(tmp_path / "in.parquet"), folder=tmp_path))
    for words in (
        ["model", "inspect", url],
        ["model", "validate", url],
        ["model", "profile", url, "--calls", "1"],
        ["model", "compare", url, url, "--no-speed"],
        ["plan", str(tmp_path / "job.yaml")],
        ["run", str(tmp_path / "job.yaml")],
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, f"{words}: {done.output}"


def test_a_registry_without_mlflow_is_a_line_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mlflow", "mlflow.artifacts"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(DependencyError, match=r"pip install 'batchonnx\[mlflow\]'"):
        open_model("models:/linear/1")


def test_a_registered_model_is_no_path_of_this_machine(tmp_path: Path) -> None:
    places = {"input": {"path": "s3://lake/in"}, "output": {"path": "s3://lake/out"}}
    job = job_from_dict({"model": {"path": "models:/linear@best"}, **places}, folder=tmp_path)
    assert job.resolve(job.job.model.path) == "models:/linear@best"
    assert not stays_here(job, [], is_here=False)
