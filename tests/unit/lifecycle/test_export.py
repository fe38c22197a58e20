"""A framework's model becomes an ONNX file that answers as it does, or none."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from batchonnx import api
from batchonnx.cli import main
from batchonnx.errors import DependencyError, ExportError, GateError
from batchonnx.lifecycle.export import parse_input
from batchonnx.lifecycle.feed import GivenRows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.provenance import steps_of
from batchonnx.runtime.session import open_model
from batchonnx.runtime.signature import TensorSpec

COLUMNS = ["month", "weekday", "hour", "distance"]
ROWS = 2_000


def flights() -> tuple[np.ndarray, np.ndarray]:
    """Rows like jobs/flights.yaml's, and whether each is late: float32[n, 4], int64[n]."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(low, high, ROWS) for low, high in ((1, 13), (0, 7), (0, 24), (30, 2800))]
    rows = np.column_stack(columns).astype(np.float32)
    is_late = (rows[:, 2] > 15) & (rows[:, 3] > 500) | (rng.random(ROWS) < 0.1)
    return rows, is_late.astype(np.int64)


@pytest.fixture(scope="module")
def booster() -> lightgbm.Booster:
    rows, is_late = flights()
    data = lightgbm.Dataset(rows, is_late, feature_name=COLUMNS)
    return lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 20)


def write_rows(path: Path) -> Path:
    rows, _ = flights()
    columns = {name: pa.array(rows[:, place]) for place, name in enumerate(COLUMNS)}
    # Another order than the model's: it is the names that count.
    pq.write_table(pa.table(dict(reversed(columns.items())) | {"flight_id": range(ROWS)}), path)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["model", "export", *map(str, words)])


def pickled(path: Path, model: Any) -> Path:
    path.write_bytes(pickle.dumps(model))
    return path


def test_lightgbm_s_own_file_becomes_a_model_and_a_job_that_gives_its_probabilities(
    tmp_path: Path, booster: lightgbm.Booster
) -> None:
    booster.save_model(tmp_path / "flights.txt")
    data = write_rows(tmp_path / "rows.parquet")
    done = run(tmp_path / "flights.txt", "-o", tmp_path / "m" / "flights.onnx", "--data", data, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["comparison"]["source"] == "the first rows of the job score-rows"
    assert told["comparison"]["gates"]["max_diff"] == 1e-5
    summary = api.run(tmp_path / "m" / "flights.job.yaml")
    predicted = pq.read_table(summary.output, partitioning=None)
    found = np.stack(predicted["probabilities"].to_pylist())[:, 1]
    np.testing.assert_allclose(found, booster.predict(flights()[0]), rtol=0, atol=1e-5)
    (step,) = steps_of(open_model(str(tmp_path / "m" / "flights.onnx")).signature)
    assert (step.step, step.source) == ("export", str(tmp_path / "flights.txt"))
    assert step.verdict == "passed: max-diff 1e-05, min-agreement 0.99"
    assert "lightgbm" in step.tools
    plan = CliRunner().invoke(main, ["plan", str(tmp_path / "m" / "flights.job.yaml")]).stdout
    assert "export of" in plan
    assert "passed: max-diff 1e-05" in plan
    # A job that is there is somebody's own by now.
    (tmp_path / "m" / "flights.job.yaml").write_text("name: mine")
    assert run(tmp_path / "flights.txt", "-o", tmp_path / "m" / "flights.onnx", "--data", data).exit_code == 0
    assert (tmp_path / "m" / "flights.job.yaml").read_text() == "name: mine"


@pytest.mark.parametrize("kind", ["json", "ubj"])
def test_xgboost_s_own_files_become_models(tmp_path: Path, kind: str) -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost isn't installed")
    rows, is_late = flights()
    data = xgboost.DMatrix(rows, is_late, feature_names=COLUMNS)
    model = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 20)
    model.save_model(tmp_path / f"m.{kind}")
    done = api.export(
        tmp_path / f"m.{kind}", tmp_path / "m.onnx", data=str(write_rows(tmp_path / "rows.parquet"))
    )
    assert done.comparison.passed
    answers = open_model(str(tmp_path / "m.onnx")).run(["probabilities"], {"x": rows})[0][:, 1]
    np.testing.assert_allclose(answers, model.predict(data), rtol=0, atol=1e-5)


ESTIMATORS = {
    "forest": RandomForestClassifier(8, random_state=0),
    "linear": make_pipeline(StandardScaler(), LogisticRegression()),
    "regression": LinearRegression(),
    "boosted": make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1)),
    "outliers": IsolationForest(n_estimators=8, random_state=0),
    "scaler": StandardScaler(),
    "ranks": lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_is_exported_from_a_pickle_that_is_trusted(tmp_path: Path, name: str) -> None:
    rows, is_late = flights()
    model = ESTIMATORS[name].fit(rows, is_late)
    pickled(tmp_path / "m.pkl", model)
    given_rows = GivenRows({"x": rows[:300]}, "the training data")
    found = api.export(tmp_path / "m.pkl", tmp_path / "m.onnx", trust_pickle=True, rows=given_rows)
    figures = [one for one in found.comparison.parity if one.name not in ("label", "output_label")]
    assert figures
    assert all(one.max_diff is not None and one.max_diff < 1e-5 for one in figures)
    signature = open_model(str(tmp_path / "m.onnx")).signature
    assert signature.inputs == (TensorSpec("x", "float32", ("batch", 4)),)
    assert all(spec.shape is not None and spec.shape[0] == "batch" for spec in signature.outputs)


@pytest.mark.frameworks
def test_columns_that_a_pipeline_selects_by_name_become_inputs_of_their_own(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas isn't installed")
    rows, is_late = flights()
    frame = pandas.DataFrame({"carrier": ["AA", "UA"] * (ROWS // 2), "distance": rows[:, 3]})
    encode = ColumnTransformer([("c", OneHotEncoder(), ["carrier"]), ("d", StandardScaler(), ["distance"])])
    pickled(tmp_path / "m.pkl", make_pipeline(encode, LogisticRegression()).fit(frame, is_late))
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "in.parquet")
    data = str(tmp_path / "in.parquet")
    found = api.export(tmp_path / "m.pkl", tmp_path / "m.onnx", trust_pickle=True, data=data)
    assert {spec.name: spec.dtype for spec in open_model(str(found.model)).signature.inputs} == {
        "carrier": "string",
        "distance": "float32",
    }


def test_without_rows_trees_are_asked_on_all_their_branches(
    tmp_path: Path, booster: lightgbm.Booster
) -> None:
    booster.save_model(tmp_path / "m.txt")
    found = api.export(tmp_path / "m.txt", tmp_path / "m.onnx").comparison
    assert found.source == "the rows of values between the trees' own thresholds"
    assert found.rows == 512


def test_a_model_that_answers_otherwise_is_refused_and_the_former_one_stays(
    tmp_path: Path, booster: lightgbm.Booster
) -> None:
    booster.save_model(tmp_path / "m.txt")
    (tmp_path / "m.onnx").write_bytes(b"the former one")
    with pytest.raises(GateError):
        api.export(tmp_path / "m.txt", tmp_path / "m.onnx", gates=Gates(max_diff=0.0))
    assert (tmp_path / "m.onnx").read_bytes() == b"the former one"
    assert "missed: max-diff" in (tmp_path / "m.onnx.comparison.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {
        "m.txt",
        "m.onnx",
        "m.onnx.comparison.md",
        "m.onnx.comparison.json",
    }


class Evil:
    """A pickle of it writes a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "opened")


def test_no_pickle_is_opened_that_nobody_trusts(tmp_path: Path) -> None:
    pickled(tmp_path / "m.pkl", Evil(tmp_path / "opened"))
    done = run(tmp_path / "m.pkl", "-o", tmp_path / "m.onnx")
    assert done.exit_code == ExportError.exit_code
    assert "add --trust-pickle" in done.stderr
    assert not (tmp_path / "opened").exists()
    assert run(tmp_path / "m.pkl", "-o", tmp_path / "m.onnx", "--trust-pickle").exit_code == 2
    assert (tmp_path / "opened").exists()


def bad_sources(folder: Path) -> dict[str, tuple[list[object], str]]:
    """Name -> words behind `model export`, and what has to be said."""
    (folder / "empty.pkl").write_bytes(b"")
    (folder / "cut.pkl").write_bytes(pickle.dumps(LinearRegression())[:-9])
    (folder / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    (folder / "gone.pkl").write_bytes(b"cnowhere_to_be_found\nThing\n.")
    (folder / "unfitted.pkl").write_bytes(pickle.dumps(LinearRegression()))
    (folder / "pointer.txt").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    (folder / "cut.txt").write_bytes(b"tree\nversion=v4\nnum_class=1\n")
    (folder / "words.txt").write_bytes(b"hello")
    (folder / "bare").mkdir()
    trusted = "--trust-pickle"
    return {
        "missing": ([folder / "nothing.txt"], "the model to export isn't there"),
        "empty": ([folder / "empty.pkl", trusted], "the pickle can't be opened"),
        "cut": ([folder / "cut.pkl", trusted], "the pickle can't be opened"),
        "of a package that isn't here": ([folder / "gone.pkl", trusted], "install the package that has"),
        "no model": ([folder / "list.pkl", trusted], "no exporter takes what is in the pickle"),
        "not fitted": ([folder / "unfitted.pkl", trusted], "no exporter takes what is in the pickle"),
        "a pointer": ([folder / "pointer.txt"], "git lfs pull"),
        "cut text": ([folder / "cut.txt"], "LightGBM can't read the model"),
        "words": ([folder / "words.txt"], "no exporter takes this"),
        "a bare folder": ([folder / "bare"], "a folder without config.json"),
        "no source": ([], "name a SOURCE, or what makes the model"),
    }


def test_bad_sources_are_told_in_a_few_lines(tmp_path: Path) -> None:
    for name, (words, expected) in bad_sources(tmp_path).items():
        done = run(*words, "-o", tmp_path / "m.onnx")
        assert done.exit_code in (2, 3), f"{name}: {done.output}"
        assert expected in done.stderr, f"{name}: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) < 9
    assert not list(tmp_path.glob("m.onnx*"))
    assert not list(tmp_path.glob(".m.onnx*"))


def test_an_input_of_another_width_or_as_many_outputs_as_there_are_not_is_refused(
    tmp_path: Path, booster: lightgbm.Booster
) -> None:
    booster.save_model(tmp_path / "m.txt")
    with pytest.raises(ExportError, match="one matrix"):
        api.export(tmp_path / "m.txt", tmp_path / "m.onnx", inputs=["x=float32[batch,5]"])
    with pytest.raises(ExportError, match="another number of outputs"):
        api.export(tmp_path / "m.txt", tmp_path / "m.onnx", outputs=["late"])
    names = {"inputs": ["flight=float32[n,4]"], "outputs": ["late", "chances"]}
    found = api.export(tmp_path / "m.txt", tmp_path / "m.onnx", **names)
    signature = open_model(str(found.model)).signature
    assert [spec.name for spec in (*signature.inputs, *signature.outputs)] == ["flight", "late", "chances"]


def test_a_missing_framework_is_a_line_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(DependencyError, match=r"pip install 'batchonnx\[export\]'"):
        api.export(None, tmp_path / "m.onnx", factory="net:make")
    monkeypatch.setitem(__import__("sys").modules, "onnxmltools", None)
    rows, is_late = flights()
    pickled(tmp_path / "m.pkl", lightgbm.LGBMClassifier(n_estimators=1, verbose=-1).fit(rows, is_late))
    with pytest.raises(DependencyError, match=r"pip install 'batchonnx\[sklearn\]'"):
        api.export(tmp_path / "m.pkl", tmp_path / "m.onnx", trust_pickle=True)


WORDS = st.text("abz_.0", min_size=1, max_size=8).map("x{}".format)


@settings(max_examples=50)
@given(
    WORDS,
    st.sampled_from(["float32", "int64", "bool", "string"]),
    st.lists(st.one_of(st.integers(0, 10**6), st.text("abz", min_size=1, max_size=5)), max_size=4),
)
def test_an_input_is_read_as_it_is_written(name: str, dtype: str, shape: Sequence[int | str]) -> None:
    text = f"{name}={dtype}[{', '.join(map(str, shape))}]"
    assert parse_input(text) == TensorSpec(name, dtype, tuple(shape))


@pytest.mark.parametrize("text", ["x", "x=float32", "x=nonsense[2]", "=float32[2]", "x=object[2]"])
def test_what_is_no_input_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match="isn't written as one"):
        parse_input(text)
