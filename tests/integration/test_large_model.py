"""A model of more than 2 GB, whose weights can't be in one file with its graph, is a model like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

import batchonnx
from batchonnx.job.load import job_from_dict
from batchonnx.lifecycle.convert import Form, convert
from batchonnx.lifecycle.feed import GivenRows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.inspection import look_into
from batchonnx.lifecycle.making import Trial
from batchonnx.lifecycle.validate import validate
from tests import models

ENTRIES, WIDTH = 33_600_000, 16
BYTES = ENTRIES * WIDTH * 4


def lookup(path: Path) -> Path:
    """ids int64[n] -> row float32[n, 16], from a table of 2.15 GB: zeros, but for the last entry."""
    with path.with_name("table").open("wb") as file:
        file.truncate(BYTES)
        file.seek(BYTES - WIDTH * 4)
        file.write(np.arange(WIDTH, dtype=np.float32).tobytes())
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[ENTRIES, WIDTH])
    table.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "table", "offset": "0", "length": str(BYTES)}.items():
        table.external_data.add(key=key, value=value)
    node = helper.make_node("Gather", ["table", "ids"], ["row"])
    inputs, outputs = [models.value("ids", "int64", ["n"])], [models.value("row", "float32", ["n", WIDTH])]
    graph = helper.make_graph([node], "lookup", inputs, outputs, [table])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_of_more_than_two_gigabytes_is_looked_at_tried_run_and_written(tmp_path: Path) -> None:
    path = lookup(tmp_path / "model.onnx")
    assert look_into(str(path)).card.weights == {"float": BYTES}
    ids = np.array([0, ENTRIES - 1, 5, ENTRIES - 1, 1, 2, 3, 4], np.int64)
    rows = GivenRows({"ids": ids}, "ids")
    (found,) = validate([str(path)], rows)
    assert found.verdict == "valid", found
    pq.write_table(pa.table({"ids": ids}), tmp_path / "in.parquet")
    job = {"model": {"path": "model.onnx"}, "input": {"path": "in.parquet"}, "output": {"path": "out"}}
    batchonnx.run(job_from_dict(job, folder=tmp_path))
    scored = np.stack(pq.read_table(tmp_path / "out")["row"].to_pylist())
    expected = np.where((ids == ENTRIES - 1)[:, None], np.arange(WIDTH), 0)
    np.testing.assert_array_equal(scored, expected)
    trial = Trial(rows, Gates(max_diff=0), sizes=(8,))
    made = convert(str(path), tmp_path / "new.onnx", Form(opset=18, fix={"n": (8,)}), trial)
    assert made.b.bytes > BYTES
    assert (tmp_path / "new.onnx").stat().st_size < 10_000
