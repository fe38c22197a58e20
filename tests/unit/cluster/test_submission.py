"""What a job is called on a cluster, what travels, and what its driver is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchonnx.cluster import package
from batchonnx.cluster.bootstrap import environment, mismatches
from batchonnx.cluster.channel import Lines, line, progress_line, progress_of, read_line
from batchonnx.cluster.connect import Cluster, shown
from batchonnx.cluster.jobs import SubmittedJob
from batchonnx.cluster.nodes import Node, is_here, missing
from batchonnx.cluster.package import (
    RunOptions,
    content_digest,
    describe,
    travelling_files,
    write_package,
)
from batchonnx.cluster.submit import base_id, runtime_env
from batchonnx.errors import JobFileError
from batchonnx.job.load import load_job
from batchonnx.job.spec import JobFile
from batchonnx.scoring.progress import DeviceUse, Progress

TEXT = "name: Score Events!\nmodel: {path: m.onnx}\ninput: {path: 's3://lake/{{ day }}'}\n"
TEXT += "output: {path: 's3://scores/{{ day }}'}\n"
RUN: RunOptions = {"overwrite": None, "fresh": False, "incremental": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(TEXT)
    (tmp_path / "m.onnx").write_bytes(b"model")
    (tmp_path / "hooks.py").write_text("def f(x): return x\n")
    return tmp_path


def name(job: JobFile, options: RunOptions = RUN, *, stays: bool = False) -> str:
    return base_id(job, options, content_digest(job, travelling_files(job, [])), stays=stays)


def load(folder: Path, day: str = "22") -> JobFile:
    return load_job(folder / "job.yaml", {"day": day})


def test_the_same_job_on_the_same_output_has_one_name_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    there = name(load(folder))
    assert there.startswith("score-events-")
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    assert name(load(tmp_path / "copy")) == there
    (tmp_path / "copy" / "job.yaml").write_text(f"# a remark\n{TEXT}")
    assert name(load(tmp_path / "copy")) == there
    assert name(load(folder), stays=True) != name(load(tmp_path / "copy"), stays=True)


def test_another_output_hook_model_or_way_to_run_has_another_name(folder: Path) -> None:
    names = [name(load(folder)), name(load(folder, "23")), name(load(folder), RUN | {"fresh": True})]
    (folder / "hooks.py").write_text("def f(x): return 2 * x\n")
    names.append(name(load(folder)))
    (folder / "m.onnx").write_bytes(b"another")
    names.append(name(load(folder)))
    assert len(set(names)) == len(names)


def test_hidden_files_bytecode_and_what_is_excluded_stay(folder: Path) -> None:
    for path in (".git/config", "__pycache__/hooks.pyc", "data/big.parquet", "labels/names.txt", ".env"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("x")
    job = load(folder)
    assert list(travelling_files(job, ["*.parquet"])) == [
        "hooks.py",
        "job.yaml",
        "labels/names.txt",
        "m.onnx",
    ]
    assert list(travelling_files(job, ["data", "labels"])) == ["hooks.py", "job.yaml", "m.onnx"]


def test_a_folder_too_large_names_what_makes_it_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "LIMIT_BYTES", 1000)
    (folder / "big.bin").write_bytes(bytes(2000))
    with pytest.raises(JobFileError) as caught:
        travelling_files(load(folder), [])
    (problem,) = caught.value.problems
    assert "big.bin (2 kB)" in problem.facts["found"]
    assert "--exclude 'big.bin'" in problem.fix
    assert "big.bin" not in travelling_files(load(folder), ["big.bin"])


def test_a_package_says_which_environment_it_wants_and_is_refused_by_another(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = tmp_path_factory.mktemp("package")
    job = load(folder)
    wanted = environment() | {"onnxruntime": "0.0.1"}
    told = describe(job, {"day": "22"}, RUN, wanted, stays=False)
    write_package(made, told, travelling_files(job, []))
    assert package.read_submission(made) == told
    done = subprocess.run(
        [sys.executable, "bootstrap.py"], cwd=made, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    error = next(read_line(one) for one in done.stdout.splitlines() if read_line(one).kind == "error")
    (problem,) = error.fields["problems"]
    assert problem["facts"]["here"] == "onnxruntime 0.0.1"
    assert problem["facts"]["cluster"] == f"onnxruntime {environment()['onnxruntime']}"


def test_what_isn_t_installed_where_the_job_is_submitted_isn_t_compared() -> None:
    assert not mismatches({"python": "3.11"}, {"python": "3.11", "onnxruntime": "1.23"})
    assert len(mismatches({"python": "3.11", "ray": "2.54"}, {"python": "3.12"})) == 2


def test_nothing_of_this_machine_s_environment_goes_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "distinctive")
    (folder / "job.yaml").write_text(TEXT + "dependencies: {pip: [pillow==11.3.0, 'a[b]>=2']}\n")
    prepared = runtime_env(load(folder), "/package")
    assert prepared.pop("pip") == ["pillow==11.3.0", "a[b]>=2"]
    assert prepared.keys() == {"working_dir", "env_vars"}
    assert prepared["env_vars"].keys() == {"RAY_JOB_STOP_WAIT_TIME_S"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("mine @ https://me:secret@host/mine.whl", "a job file holds no secrets"),
        ("--index-url=https://host/simple", "a package like pillow==11.3"),
        ("./wheels/mine.whl", "a package like pillow==11.3"),
    ],
)
def test_a_dependency_is_a_package_without_a_password(folder: Path, entry: str, told: str) -> None:
    (folder / "job.yaml").write_text(f"{TEXT}dependencies: {{pip: ['{entry}']}}\n")
    with pytest.raises(JobFileError, match=told) as caught:
        load(folder)
    assert "secret@" not in str(caught.value)


def test_a_driver_s_end_is_an_exit_code() -> None:
    def code(status: str, exit_code: int | None) -> int:
        return SubmittedJob("id", status, "job", "out", exit_code, None, None, "").code

    assert [code("succeeded", 0), code("failed", 4), code("failed", 137), code("failed", -9)] == [
        0,
        4,
        137,
        137,
    ]
    assert (code("stopped", None), code("failed", None)) == (130, 3)


def test_what_no_node_has_enough_of_is_missing_however_many_there_are() -> None:
    nodes = [Node("10.0.0.1", {"CPU": 8}), Node("10.0.0.2", {"CPU": 4, "GPU": 1})]
    assert missing(nodes, {"CPU": 8, "GPU": 1}) == {}
    assert missing(nodes, {"CPU": 12, "tpu": 1}) == {"CPU": 8, "tpu": 0}
    assert not is_here(nodes)
    assert not is_here([])
    assert is_here([Node("127.0.0.1", {})])


def test_a_password_of_an_address_is_neither_shown_nor_in_a_cluster_s_repr() -> None:
    assert shown("https://me:secret@head/x") == "https://head/x"
    cluster = Cluster("https://me:secret@head", "2.54", None, {"Authorization": "Bearer distinctive"})
    assert cluster.name == "https://head"
    assert "distinctive" not in repr(cluster)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))), st.data())
def test_a_log_is_the_same_lines_however_it_is_cut(texts: list[str], data: st.DataObject) -> None:
    log = "\n".join(texts)
    whole = Lines()
    told = [*whole.feed(log), *whole.end()]
    pieces, rest = Lines(), log
    found = []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += pieces.feed(rest[:size])
        rest = rest[size:]
    assert [*found, *pieces.end()] == told


DEVICES = st.lists(st.builds(DeviceUse, busy=st.floats(0, 1)), max_size=2).map(tuple)


@given(st.builds(Progress, busy_s=st.dictionaries(st.text(), st.floats(0, 1e6)), devices=DEVICES))
def test_progress_comes_out_of_the_log_as_it_went_in(progress: Progress) -> None:
    told = read_line(progress_line(progress))
    assert told.kind == "progress"
    if all(number == number for number in (progress.elapsed_s,)):  # NaN equals nothing
        assert asdict(progress_of(told)) == asdict(progress)


@pytest.mark.parametrize("text", ["batchonnx {", 'batchonnx {"kind": "else"}', "batchonnx [1]", "hello", ""])
def test_a_line_that_only_looks_like_ours_is_text(text: str) -> None:
    assert read_line(text).kind == "text"
    assert read_line(line("ready", {"x": 1})).fields == {"x": 1}
    assert json.loads(line("ready", {}).removeprefix("batchonnx ")) == {"kind": "ready"}
