"""A tiny job with its result in a bucket, and what has to hold of that result after any accident."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import batchonnx
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger.object_folder import ObjectFolder
from tests import models

FILES, FILE_ROWS = 3, 12_000
"""Each file is a shard of its own; a run takes a third of a second."""

RESULT = ("part-", "side=", "_batchonnx/quarantine/", "_batchonnx/order/")
RECORDS = {"_SUCCESS", "_batchonnx/manifest.json", "_batchonnx/lease.json"}


def make_input(folder: Path, files: int = FILES, rows: int = FILE_ROWS) -> None:
    """The model and the input of `make_job`."""
    (folder / "in").mkdir(exist_ok=True)
    models.row_sum(folder / "model.onnx", 3)
    models.linear(folder / "other.onnx", 3)
    for number in range(files):
        write(folder, number, rows)


def write(folder: Path, number: int, rows: int = FILE_ROWS) -> None:
    """An input file of rows that can't be compressed."""
    rng = np.random.default_rng(number)
    columns = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(3)}
    ids = np.arange(number * FILE_ROWS, number * FILE_ROWS + rows)
    side = pa.array([("left", "right")[i % 2] for i in ids])
    pq.write_table(pa.table({"id": ids, "side": side, **columns}), folder / "in" / f"{number}.parquet")


def put_input(folder: Path, url: str) -> str:
    """Bring models and input to where `make_job` finds them by `source=url`, as they are in the folder."""
    there = ObjectFolder(url)
    files = [*folder.glob("*.onnx"), *folder.glob("in/*.parquet")]
    wanted = {str(file.relative_to(folder)): file for file in files}
    for name, file in wanted.items():
        there.put(name, file.read_bytes())
    there.delete([entry.key for entry in there.list() if entry.key not in wanted])
    return url


def job_spec(output: str, model: str = "model.onnx", source: str = "") -> dict[str, Any]:
    """The job as its file would say it. source: where model and input are; left out: beside the file."""
    place = f"{source}/" if source else ""
    return {
        "model": {"path": f"{place}{model}"},
        "input": {"path": f"{place}in"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "keep": ["id"],
        "output": {"path": output, "overwrite": True},
        "engine": {"batch_rows": 256, "workers": 1},
    }


def make_job(
    folder: Path, output: str, model: str = "model.onnx", source: str = "", *, has_folders: bool = False
) -> JobFile:
    """A job from local files, or those of `source`, into the store. has_folders: each shard into two."""
    spec = job_spec(output, model, source)
    if has_folders:
        spec["keep"] = ["id", "side"]
        spec["output"]["partition_by"] = ["side"]
    return job_from_dict(spec, folder=folder)


def contents(output: str) -> dict[str, str]:
    """Name -> digest of whatever holds rows, be it of a local result or of one in the store."""
    if not output.startswith("s3://"):
        place = Path(output)
        files = [*place.rglob("part-*")]
        return {str(f.relative_to(place)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    folder = ObjectFolder(output)
    names = [entry.key for entry in folder.list() if entry.key.startswith(RESULT)]
    found = zip(names, folder.get_all(names), strict=True)
    return {name: hashlib.sha256(data).hexdigest() for name, data in found}


def everything(output: str) -> dict[str, str]:
    """Name -> etag of every object but the lease."""
    return {entry.key: entry.etag for entry in ObjectFolder(output).list() if "lease" not in entry.key}


def require_tidy(output: str) -> None:
    """Nothing is there but the result, its records and the lease; no upload is open."""
    folder = ObjectFolder(output)
    assert list(folder.uploads()) == []
    rest = {entry.key for entry in folder.list() if not entry.key.startswith(RESULT)}
    plans = {name for name in rest if name.startswith("_batchonnx/runs/") and name.endswith("/plan.json")}
    assert (rest - plans, len(plans)) == (RECORDS, 1), sorted(rest)


def require_result(output: str, wanted: dict[str, str], rows: int = FILES * FILE_ROWS) -> None:
    """The result is proved, has these bytes, and nothing lies about."""
    assert batchonnx.verify(output).predicted == rows
    assert contents(output) == wanted
    require_tidy(output)
