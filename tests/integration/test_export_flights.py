"""What is trained on the real flights leaves its framework, and says of other flights what it said there."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from batchonnx.cli import main
from batchonnx.runtime.session import open_model

pytestmark = pytest.mark.slow

COLUMNS = ["month", "weekday", "hour", "distance"]
LATE_MINUTES = 15
TRAINED, ASKED = 200_000, 100_000


@pytest.fixture(scope="module")
def flights(flights_jobs: Path) -> tuple[np.ndarray, np.ndarray]:
    """All of them, shuffled: float32[n, 4], and whether each is late: int64[n]."""
    table = pq.read_table(flights_jobs / "data" / "flights-3m.parquet", columns=[*COLUMNS, "delay"])
    rows = np.column_stack([table[name].to_numpy() for name in COLUMNS]).astype(np.float32)
    is_late = (table["delay"].to_numpy() > LATE_MINUTES).astype(np.int64)
    drawn = np.random.default_rng(2001).permutation(len(rows))[: TRAINED + ASKED]
    return rows[drawn], is_late[drawn]


def gradient_boosted(rows: np.ndarray, is_late: np.ndarray, folder: Path) -> tuple[Path, Any]:
    """LightGBM's own file."""
    settings = {"objective": "binary", "verbose": -1, "num_threads": 2, "num_leaves": 31}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, is_late, feature_name=COLUMNS), 100)
    booster.save_model(folder / "lightgbm.txt")
    return folder / "lightgbm.txt", booster.predict


def extreme_boosted(rows: np.ndarray, is_late: np.ndarray, folder: Path) -> tuple[Path, Any]:
    """XGBoost's own file."""
    import xgboost

    data = xgboost.DMatrix(rows, is_late, feature_names=COLUMNS)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 2}, data, 100)
    booster.save_model(folder / "xgboost.ubj")
    return folder / "xgboost.ubj", lambda x: booster.predict(xgboost.DMatrix(x, feature_names=COLUMNS))


def pickled(estimator: Any) -> Callable[[np.ndarray, np.ndarray, Path], tuple[Path, Any]]:
    """scikit-learn's own way."""

    def train(rows: np.ndarray, is_late: np.ndarray, folder: Path) -> tuple[Path, Any]:
        estimator.fit(rows, is_late)
        (folder / "model.pkl").write_bytes(pickle.dumps(estimator))
        return folder / "model.pkl", lambda x: estimator.predict_proba(x)[:, 1]

    return train


TRAINERS = {
    "lightgbm": gradient_boosted,
    "xgboost": extreme_boosted,
    "linear": pickled(make_pipeline(StandardScaler(), LogisticRegression())),
    "forest": pickled(RandomForestClassifier(30, max_depth=12, random_state=0, n_jobs=2)),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_model_of_the_flights_says_the_same_of_other_flights(
    flights: tuple[np.ndarray, np.ndarray], flights_jobs: Path, name: str, tmp_path: Path
) -> None:
    rows, is_late = flights
    source, predict = TRAINERS[name](rows[:TRAINED], is_late[:TRAINED], tmp_path)
    data, target = flights_jobs / "data" / "flights-3m.parquet", tmp_path / "model.onnx"
    words = [source, "-o", target, "--trust-pickle", "--max-diff", 1e-5, "--json"]
    # Estimators that were fitted to arrays know no names of columns: a job isn't guessed for them.
    words += ["--data", data] if source.suffix != ".pkl" else []
    done = CliRunner().invoke(main, ["model", "export", *map(str, words)])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["comparison"]["passed"]
    model, asked = open_model(str(target)), rows[TRAINED:]
    (given,) = model.signature.inputs
    answers = model.run(["probabilities"], {given.name: asked})[0][:, 1]
    np.testing.assert_allclose(answers, predict(asked), rtol=0, atol=1e-5)
