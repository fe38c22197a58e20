"""Fetch 3,000,000 flights and train the model that flights.yaml scores them with.

The flights (the US of the first half of 2001: date, delay, distance, origin, destination) come
from the npm package vega-datasets, by `npm pack` where npm is installed. Three columns that a
model can use are added: month, weekday (Monday is 0) and hour. A LightGBM model learns how
probable it is that a flight is more than 15 minutes late. Files that are there already are kept:

  data/flights-3m.parquet   the flights, in their order and their row groups
  models/flights.onnx       the model, for batchonnx
  models/flights.txt        the same model in LightGBM's own format, to compare with

The flights are figures of the US Department of Transportation, whose terms the package doesn't
state: try things with them, don't pass them on.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from fetching import arguments, fail, npm_tarball, report

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "flights-3m.parquet"
MODEL = HERE / "models" / "flights.onnx"
NATIVE = HERE / "models" / "flights.txt"

PACKAGE = "vega-datasets@3.2.1"
TARBALL_SHA256 = "6f72fda460a9863fae5fcb32f85bcd49e1761fdea6dc6cf9f4962472881cc5a3"
MEMBER = "package/data/flights-3m.parquet"

FEATURES = ["month", "weekday", "hour", "distance"]
LATE_MINUTES = 15
SAMPLE_ROWS = 400_000
TREES = 100
SEED = 2001


def main() -> None:
    asked = arguments(__doc__, "--tarball", f"{PACKAGE} as npm packs it, instead of fetching it")
    try:
        if asked.force or not DATA.exists():
            with tempfile.TemporaryDirectory() as scratch:
                tarball = npm_tarball(PACKAGE, TARBALL_SHA256, asked.tarball, Path(scratch))
                write_data(extract(tarball, Path(scratch)))
            report(DATA)
        else:
            print(f"kept  {DATA}")
        if asked.force or not MODEL.exists() or not NATIVE.exists():
            write_model()
            report(MODEL)
            report(NATIVE)
        else:
            print(f"kept  {MODEL}")
    except ModuleNotFoundError as error:
        fail(f"the package {error.name} is missing", fix="pip install pyarrow lightgbm onnx onnxmltools")


def extract(tarball: Path, folder: Path) -> Path:
    """The flights as the package has them, put into `folder`."""
    raw = folder / "flights.parquet"
    with tarfile.open(tarball) as archive, raw.open("wb") as file:
        member = archive.extractfile(MEMBER)
        assert member is not None, MEMBER
        shutil.copyfileobj(member, file)
    return raw


def write_data(raw: Path) -> None:
    """The flights with month, weekday and hour; a row group of the source is a row group here."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    DATA.parent.mkdir(parents=True, exist_ok=True)
    source = pq.ParquetFile(raw)
    parts = {"month": pc.month, "weekday": pc.day_of_week, "hour": pc.hour}
    schema = source.schema_arrow
    for name in parts:
        schema = schema.append(pa.field(name, pa.int8()))
    # Under another name until it is whole, so that a killed run leaves nothing that looks like data.
    unfinished = DATA.with_suffix(".unfinished")
    with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            for name, part in parts.items():
                table = table.append_column(name, part(table["date"]).cast(pa.int8()))
            writer.write_table(table, row_group_size=table.num_rows)
    unfinished.rename(DATA)


def write_model() -> None:
    """Train on a sample of the flights; write LightGBM's own format and ONNX."""
    # Fail before the training if a package is missing.
    import lightgbm
    import numpy as np
    import onnxmltools  # noqa: F401
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(DATA, columns=[*FEATURES, "delay"])
    sample = np.sort(np.random.default_rng(SEED).choice(table.num_rows, SAMPLE_ROWS, replace=False))
    table = table.take(sample)
    features = np.column_stack([table[name].to_numpy() for name in FEATURES]).astype(np.float32)
    is_late = pc.greater(table["delay"], LATE_MINUTES).to_numpy().astype(np.float32)
    settings = {
        "objective": "binary",
        "num_leaves": 31,
        "learning_rate": 0.1,
        "min_data_in_leaf": 200,
        "seed": SEED,
        "num_threads": 2,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    print(f"training {TREES} trees on {SAMPLE_ROWS:,} flights …")
    data = lightgbm.Dataset(features, is_late, feature_name=FEATURES)
    booster = lightgbm.train(settings, data, num_boost_round=TREES)
    exported = export(booster)
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    booster.save_model(NATIVE)
    MODEL.write_bytes(exported)


def export(booster: Any) -> bytes:
    """The model as ONNX: flight float32[rows, 4] -> log_odds float32[rows, 1].

    One number a row instead of a label and two probabilities: it is faster, and the job says
    `sigmoid: true`. The converter writes that for a model whose objective is regression.
    """
    import lightgbm
    from onnx.helper import set_model_props
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    text = booster.model_to_string()
    for binary, regression in (
        ("objective=binary sigmoid:1", "objective=regression"),
        ("[objective: binary]", "[objective: regression]"),
    ):
        assert binary in text, binary
        text = text.replace(binary, regression)
    sums = lightgbm.Booster(model_str=text)
    flight = ("flight", FloatTensorType([None, len(FEATURES)]))
    model = convert_lightgbm(sums, name="flights", initial_types=[flight], target_opset=15)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["log_odds" if name == output.name else name for name in node.output]
    output.name = "log_odds"
    # So that `batchonnx init` knows which columns the model was trained on.
    set_model_props(model, {"feature_names": json.dumps(FEATURES)})
    return bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
