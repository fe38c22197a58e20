"""Which paths of a job a cluster can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.cluster.places import is_within, stays_here
from batchonnx.errors import JobFileError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile

FOLDER = "/home/me/jobs"
NAMES = st.text("ab", min_size=1, max_size=2)


def job(**places: Any) -> JobFile:
    spec = {
        "model": {"path": places.get("model", "model.onnx")},
        "input": {"path": places.get("input", "s3://lake/in")},
        "output": {"path": places.get("output", "s3://lake/out")},
        "features": places.get("features", {}),
    }
    return job_from_dict(spec, folder=FOLDER)


def image(**keys: str) -> dict[str, Any]:
    return {"x": {"column": "a", "image": keys}}


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"output": "out"}, "the result would be written to a disk of the cluster, and lost with it"),
        ({"input": "/data/in"}, "the cluster can't read an input that lies on this machine"),
        ({"input": ["s3://lake/a", "../data"]}, "the cluster can't read an input that lies on this machine"),
        ({"model": "../model.onnx"}, "model.path lies outside the job's folder"),
        ({"model": f"{FOLDER}/model.onnx"}, "model.path is written in full"),
        ({"input": f"{FOLDER}/in"}, "input.path is written in full"),
        ({"features": image(folder="/pictures")}, "features.x.image.folder lies outside the job's folder"),
        ({"features": image(preset="../p.json")}, "features.x.image.preset lies outside the job's folder"),
        (
            {"features": {"x": {"column": "a", "audio": {"rate": 16000, "folder": "../sounds"}}}},
            "features.x.audio.folder lies outside the job's folder",
        ),
    ],
)
def test_a_path_that_a_cluster_elsewhere_cant_reach_is_refused_with_the_way_out(
    places: dict[str, Any], told: str
) -> None:
    with pytest.raises(JobFileError) as caught:
        stays_here(job(**places), [], is_here=False)
    (problem,) = caught.value.problems
    assert problem.title.startswith(told)
    assert "--shared" in problem.fix
    assert stays_here(job(**places), [], is_here=True)


def test_all_of_them_are_told_at_once() -> None:
    with pytest.raises(JobFileError) as caught:
        stays_here(job(model="../m.onnx", input="/in", output="/out"), [], is_here=False)
    assert len(caught.value.problems) == 3


def test_what_is_in_the_folder_or_in_a_store_travels() -> None:
    features = image(folder="pictures", preset="preset/preprocessor_config.json")
    there = job(model="models/m.onnx", input="small.parquet", features=features)
    assert not stays_here(there, [], is_here=False)


def test_a_folder_that_every_node_has_needs_its_full_path() -> None:
    shared = ["/mnt/lake"]
    there = job(input="/mnt/lake/in", output="/mnt/lake/out")
    assert not stays_here(there, shared, is_here=False)
    with pytest.raises(JobFileError):
        stays_here(job(input="../../../mnt/lake/in"), shared, is_here=False)
    with pytest.raises(JobFileError):
        stays_here(job(output="/mnt/lakes/out"), shared, is_here=False)


def test_a_password_in_a_url_is_refused_wherever_the_cluster_is() -> None:
    for is_here in (True, False):
        with pytest.raises(JobFileError, match="holds a password"):
            stays_here(job(output="sftp://me:secret@host/out"), [], is_here=is_here)


@given(st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=3))
def test_a_path_is_within_a_folder_as_pathlib_sees_it(folder: list[str], path: list[str]) -> None:
    outer, inner = "/" + "/".join(folder), "/" + "/".join(path)
    assert is_within(inner, outer) == Path(inner).is_relative_to(outer)
