"""Make what score.yaml needs: data/digits.parquet and models/digits.onnx.

Both are small and kept in the repository; this script is how they came about. The data are
scikit-learn's own 1,797 scanned digits of 8 x 8 pixels, the model is a logistic regression
trained on the first 1,000 of them. With the same versions of scikit-learn, skl2onnx and pyarrow,
on one kind of CPU, it writes the same bytes again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "digits.parquet"
MODEL = HERE / "models" / "digits.onnx"

PIXELS = [f"pixel_{i}" for i in range(64)]
TRAINED_ON = 1_000
ROW_GROUP_ROWS = 512


def load() -> tuple[Any, Any]:
    """Pixels float32[1797, 64], from 0 to 16, and the digits that were written, int64[1797]."""
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.data.astype(np.float32), bunch.target.astype(np.int64)


def train(pixels: Any, digits: Any) -> Any:
    """The logistic regression, trained on the first rows.

    Newton's method goes all the way to the optimum, so that another CPU finds the same model; one
    thread, so that sums are taken in one order.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = LogisticRegression(C=0.005, solver="newton-cholesky", tol=1e-10)
        return model.fit(pixels[:TRAINED_ON].astype("float64"), digits[:TRAINED_ON])


def export(model: Any) -> bytes:
    """The model as ONNX: pixels float32[rows, 64] -> label int64[rows], probabilities float32[rows, 10]."""
    from onnx.helper import set_model_props
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    converted = to_onnx(
        model,
        initial_types=[("pixels", FloatTensorType([None, 64]))],
        # Without this, probabilities come as a sequence of maps, which is slow and awkward.
        options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
        name="digits",
    )
    # So that a job need not name the 64 columns: batchonnx reads them here.
    set_model_props(converted, {"feature_names": json.dumps(PIXELS)})
    return bytes(converted.SerializeToString(deterministic=True))


def write_data(pixels: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"image_id": pa.array(range(len(pixels)), pa.int64())}
    columns |= {name: pa.array(pixels[:, i], pa.float32()) for i, name in enumerate(PIXELS)}
    pq.write_table(pa.table(columns), DATA, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    try:
        pixels, digits = load()
        model = train(pixels, digits)
        exported = export(model)
    except ModuleNotFoundError as error:
        sys.exit(
            f"error: the package {error.name} is missing\n"
            f"  fix    pip install scikit-learn skl2onnx onnx pyarrow"
        )
    for path in (DATA, MODEL):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_data(pixels)
    MODEL.write_bytes(exported)
    share = model.score(pixels[TRAINED_ON:], digits[TRAINED_ON:])
    print(f"wrote {DATA}  {len(pixels):,} rows, {DATA.stat().st_size:,} bytes")
    print(f"wrote {MODEL}  {len(exported):,} bytes, right on {share:.1%} of the digits it has not seen")


if __name__ == "__main__":
    main()
