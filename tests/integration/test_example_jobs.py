"""The jobs in jobs/ run as they stand, and give what the model's own library gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import batchonnx
from batchonnx.errors import JobFileError

Script = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPTS = [
    "make_digits.py",
    "get_magika.py",
    "get_flights.py",
    "get_images.py",
    "get_speech.py",
    "get_glosses.py",
]
FILES = 400
MIN_BYTES = 8
"""magika asks its model about files of at least so many bytes, white space left out."""


def flat(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one length as [rows, length]."""
    return np.stack(column.to_numpy(zero_copy_only=False).tolist())


def run_init(model: Path, data: Path, folder: Path) -> pa.Table:
    """What a job guessed by `batchonnx init` predicts, run without an edit."""
    job = folder / "job.yaml"
    job.write_text(batchonnx.init(str(model), str(data), folder=folder))
    summary = batchonnx.run(job)
    return pq.read_table(summary.output)


# --- digits


@pytest.fixture(scope="module")
def digits(jobs: Path) -> pa.Table:
    summary = batchonnx.run(jobs / "score.yaml")
    return pq.read_table(summary.output)


def test_every_digit_is_predicted_once_in_the_data_s_order(digits: pa.Table) -> None:
    assert digits["image_id"].to_pylist() == list(range(1_797))


def test_digits_and_probabilities_are_scikit_learn_s_own(digits: pa.Table, digits_script: ModuleType) -> None:
    pixels, written = digits_script.load()
    model = digits_script.train(pixels, written)
    assert digits["digit"].to_numpy().tolist() == model.predict(pixels).tolist()
    np.testing.assert_allclose(flat(digits["probabilities"]), model.predict_proba(pixels), rtol=0, atol=1e-6)


def test_the_digits_model_learned_something(digits: pa.Table, digits_script: ModuleType) -> None:
    _, written = digits_script.load()
    assert np.mean(digits["digit"].to_numpy() == written) > 0.9


def test_top_3_of_a_digit_are_its_largest_probabilities(digits: pa.Table) -> None:
    probabilities = flat(digits["probabilities"])
    top = digits["top_3"].to_pylist()
    scores = np.array([[entry["score"] for entry in row] for row in top], np.float32)
    labels = np.array([[entry["label"] for entry in row] for row in top])
    np.testing.assert_array_equal(scores, -np.sort(-probabilities, axis=1)[:, :3])
    np.testing.assert_array_equal(np.take_along_axis(probabilities, labels, axis=1), scores)
    assert labels[:, 0].tolist() == digits["digit"].to_pylist()


def test_the_first_job_may_be_run_twice_and_gives_the_same_bytes(jobs: Path) -> None:
    def parts() -> dict[str, bytes]:
        folder = Path(batchonnx.run(jobs / "score.yaml").output)
        return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}

    first = parts()
    assert first
    assert parts() == first


def test_the_first_job_runs_from_the_command_line(jobs: Path) -> None:
    command = [sys.executable, "-m", "batchonnx", "run", str(jobs / "score.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predicted"] == 1_797


def test_the_kept_digits_are_what_their_script_makes(jobs: Path, bare_jobs: Path, script: Script) -> None:
    """The same rows, and weights that differ by no more than CPUs do."""
    done = script(bare_jobs / "make_digits.py")
    assert done.returncode == 0, done.stderr
    for name in ("data/digits.parquet", "models/digits.onnx"):
        assert str(bare_jobs / name) in done.stdout
    made, kept = (pq.read_table(folder / "data" / "digits.parquet") for folder in (bare_jobs, jobs))
    assert made.equals(kept)
    for new, old in zip(
        *(weights(folder / "models" / "digits.onnx") for folder in (bare_jobs, jobs)), strict=True
    ):
        np.testing.assert_allclose(new, old, rtol=0, atol=1e-6)


def weights(model: Path) -> list[np.ndarray]:
    """The numbers of the model's linear classifier."""
    (classifier,) = (node for node in onnx.load(model).graph.node if node.op_type == "LinearClassifier")
    return [np.array(attribute.floats) for attribute in classifier.attribute if attribute.floats]


def test_init_writes_a_job_for_the_digits_that_runs_without_an_edit(
    jobs: Path, tmp_path: Path, digits: pa.Table
) -> None:
    guessed = run_init(jobs / "models" / "digits.onnx", jobs / "data" / "digits.parquet", tmp_path)
    assert guessed["label"].equals(digits["digit"])
    assert guessed["image_id"].equals(digits["image_id"])


# --- flights


@pytest.fixture(scope="module")
def flights(flights_jobs: Path) -> pa.Table:
    summary = batchonnx.run(flights_jobs / "flights.yaml")
    return pq.read_table(summary.output)


@pytest.mark.slow
def test_every_flight_is_late_as_probably_as_lightgbm_says(flights: pa.Table, flights_jobs: Path) -> None:
    import lightgbm

    booster = lightgbm.Booster(model_file=flights_jobs / "models" / "flights.txt")
    data = pq.read_table(flights_jobs / "data" / "flights-3m.parquet", columns=booster.feature_name())
    assert data.num_rows == flights.num_rows == 3_000_000
    features = np.column_stack([column.to_numpy() for column in data.columns])
    late = flights["late"].to_numpy()
    np.testing.assert_allclose(late, booster.predict(features), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(flights["warn"].to_numpy(), late >= np.float32(0.3))


@pytest.mark.slow
def test_what_is_kept_of_a_flight_stays_beside_its_prediction(flights: pa.Table, flights_jobs: Path) -> None:
    kept = ["date", "origin", "destination", "delay"]
    data = pq.read_table(flights_jobs / "data" / "flights-3m.parquet", columns=kept)
    for name in kept:
        assert flights[name].combine_chunks().equals(data[name].combine_chunks()), name


@pytest.mark.slow
def test_flights_that_the_model_calls_late_are_late_more_often(flights: pa.Table) -> None:
    is_late = pc.greater(flights["delay"], 15).to_numpy()
    warned = flights["warn"].to_numpy()
    assert is_late[warned].mean() > 1.5 * is_late[~warned].mean()


@pytest.mark.slow
def test_init_writes_a_job_for_the_flights_that_runs_without_an_edit(
    flights: pa.Table, flights_jobs: Path, tmp_path: Path
) -> None:
    models, data = flights_jobs / "models", flights_jobs / "data"
    guessed = run_init(models / "flights.onnx", data / "flights-3m.parquet", tmp_path)
    late = 1 / (1 + np.exp(-flat_scores(guessed["log_odds"])))
    np.testing.assert_allclose(late, flights["late"].to_numpy(), rtol=0, atol=1e-6)


def flat_scores(column: pa.ChunkedArray) -> np.ndarray:
    """One score a row, whether it was written as a number or as a list of one."""
    if pa.types.is_fixed_size_list(column.type):
        return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return column.to_numpy()


@pytest.mark.slow
def test_fetching_the_flights_again_keeps_what_is_there(flights_jobs: Path, script: Script) -> None:
    files = [flights_jobs / "data" / "flights-3m.parquet", flights_jobs / "models" / "flights.onnx"]
    before = [path.stat().st_mtime_ns for path in files]
    done = script(flights_jobs / "get_flights.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept") == 2
    assert [path.stat().st_mtime_ns for path in files] == before


def test_a_tarball_that_is_another_one_is_refused(bare_jobs: Path, script: Script, tmp_path: Path) -> None:
    other = tmp_path / "other.tgz"
    other.write_bytes(b"not the flights")
    done = script(bare_jobs / "get_flights.py", "--tarball", str(other))
    assert done.returncode == 1
    assert str(other) in done.stderr
    assert "SHA-256" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bare_jobs / "data").exists()


# --- file types


@pytest.fixture(scope="module")
def stdlib_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 files from all over Python's standard library, of many kinds, in one folder."""
    folder = tmp_path_factory.mktemp("stdlib")
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [
        Path(place, name)
        for place, folders, names in os.walk(library)
        if "site-packages" not in Path(place).parts
        for name in names
    ]
    usable = [path for path in sorted(found) if path.is_file() and has_bytes_enough(path)]
    chosen = [usable[i * len(usable) // FILES] for i in range(FILES)]
    assert len(set(chosen)) == FILES
    for i, path in enumerate(chosen):
        (folder / f"{i:03d}-{path.name}").write_bytes(path.read_bytes())
    return folder


def has_bytes_enough(path: Path) -> bool:
    with path.open("rb") as file:
        return len(file.read(4096).lstrip()) >= MIN_BYTES


@pytest.fixture(scope="module")
def file_types(magika_jobs: Path, stdlib_files: Path) -> pa.Table:
    summary = batchonnx.run(magika_jobs / "filetypes.yaml", variables={"dir": str(stdlib_files)})
    return pq.read_table(summary.output)


@pytest.fixture(scope="module")
def magika_results(stdlib_files: Path) -> dict[str, Any]:
    from magika import Magika

    paths = sorted(stdlib_files.iterdir())
    results = Magika().identify_paths(paths)
    return {str(result.path): result.prediction for result in results}


def test_file_types_are_magika_s_own_labels(file_types: pa.Table, magika_results: dict[str, Any]) -> None:
    """The model's label, before magika's own rules about low scores; see jobs/filetypes.yaml."""
    found = dict(zip(file_types["path"].to_pylist(), file_types["label"].to_pylist(), strict=True))
    expected = {path: str(prediction.dl.label) for path, prediction in magika_results.items()}
    assert len(expected) == FILES
    assert "undefined" not in expected.values(), "magika didn't ask its model about a file"
    assert found == expected
    assert len(set(found.values())) > 5, "the files should be of many kinds"


def test_the_best_of_top_3_is_the_label_with_magika_s_score(
    file_types: pa.Table, magika_results: dict[str, Any]
) -> None:
    """Not to the last digit: magika makes batches of its own, and sums come out a little different."""
    for row in file_types.to_pylist():
        best = row["top_3"][0]
        assert best["label"] == row["label"]
        assert best["score"] == pytest.approx(magika_results[row["path"]].score, abs=1e-3)


def test_every_file_has_its_own_size(file_types: pa.Table) -> None:
    for row in file_types.to_pylist():
        assert row["size"] == Path(row["path"]).stat().st_size


def test_init_writes_a_job_for_files_that_runs_without_an_edit(
    magika_jobs: Path, stdlib_files: Path, file_types: pa.Table, tmp_path: Path
) -> None:
    few = tmp_path / "files"
    few.mkdir()
    for path in sorted(stdlib_files.iterdir())[:20]:
        (few / path.name).write_bytes(path.read_bytes())
    guessed = run_init(magika_jobs / "models" / "magika.onnx", few, tmp_path)
    labels = (magika_jobs / "models" / "magika-labels.txt").read_text().split()
    best = [labels[i] for i in flat(guessed["target_label"]).argmax(axis=1)]
    assert best == file_types["label"].to_pylist()[:20]


def test_a_folder_must_be_named_for_file_types(magika_jobs: Path) -> None:
    with pytest.raises(JobFileError) as caught:
        batchonnx.run(magika_jobs / "filetypes.yaml")
    assert "dir" in caught.value.problems[0].title


# --- scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_does(name: str, bare_jobs: Path, script: Script) -> None:
    done = script(bare_jobs / name, "--help")
    assert done.returncode == 0
    assert ".onnx" in done.stdout
    assert "models" in done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_the_package_that_it_misses(name: str, bare_jobs: Path, script: Script) -> None:
    (bare_jobs / "data").mkdir()
    for data in ("flights-3m", "emoji", "speech", "glosses"):
        (bare_jobs / "data" / f"{data}.parquet").touch()
    # -S: without site-packages, so that nothing is installed.
    done = script(bare_jobs / name, interpreter=("-S", "-E", "-s"))
    assert done.returncode == 1
    assert "is missing" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bare_jobs / "models").exists()
