"""One wheel of ONNX Runtime, and a whole one: real site folders, a Python of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from batchonnx.runtime import wheels

REPOSITORY = Path(wheels.__file__).parents[2]
ASK = """
import sys
sys.path[:0] = sys.argv[1:]
from batchonnx.errors import DependencyError
from batchonnx.runtime.wheels import require_onnxruntime
try:
    require_onnxruntime()
except DependencyError as error:
    print(error)
"""


def answer(site: Path) -> str:
    """What require_onnxruntime says where `site` is the only site folder."""
    command = [sys.executable, "-I", "-S", "-c", ASK, str(site), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def install(site: Path, wheel: str, number: str, **files: str) -> None:
    """Put a distribution's metadata into a site folder, and files of its package."""
    info = site / f"{wheel.replace('-', '_')}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: {number}\n")
    package = site / "onnxruntime"
    package.mkdir(exist_ok=True)
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)


def test_the_wheel_of_this_environment_is_whole() -> None:
    wheels.require_onnxruntime()
    assert [wheels.require_one_wheel()] == list(wheels.installed_wheels())


def test_without_a_wheel_the_remedy_names_both_extras(tmp_path: Path) -> None:
    found = answer(tmp_path)
    assert "ONNX Runtime isn't installed" in found
    assert "pip install 'batchonnx[cpu]' (or 'batchonnx[gpu]')" in found


def test_both_wheels_are_refused_although_one_of_them_can_be_imported(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.32.0", __init__="class InferenceSession: ...")
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    found = answer(tmp_path)
    assert "overwrite each other" in found
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1" in found
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found


def test_one_wheel_that_can_be_imported_is_accepted(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1", __init__="class InferenceSession: ...")
    assert answer(tmp_path) == ""


@pytest.mark.parametrize("wheel", ["onnxruntime", "onnxruntime-gpu"])
def test_a_wheel_whose_files_went_with_the_other_one_is_installed_again(tmp_path: Path, wheel: str) -> None:
    install(tmp_path, wheel, "1.32.0")
    found = answer(tmp_path)
    assert f"{wheel} is installed, but its files are gone" in found
    assert f"pip install --force-reinstall {wheel}" in found


def test_a_wheel_that_misses_a_library_says_which(tmp_path: Path) -> None:
    text = "raise ImportError('libcudart.so.13: cannot open shared object file')"
    install(tmp_path, "onnxruntime-gpu", "1.31.1", __init__=text)
    found = answer(tmp_path)
    assert "onnxruntime-gpu is installed, but can't be imported" in found
    assert "libcudart.so.13" in found


def test_the_check_by_metadata_imports_no_wheel(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.32.0", __init__="raise SystemExit('imported')")
    ask = ASK.replace("require_onnxruntime", "require_one_wheel")
    command = [sys.executable, "-I", "-S", "-c", ask, str(tmp_path), str(REPOSITORY)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_each_wheel_has_an_extra_and_the_extras_exclude_each_other() -> None:
    told = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras = told["project"]["optional-dependencies"]
    found = {
        re.split(r"[\[>]", line)[0]: extra
        for extra, lines in extras.items()
        for line in lines
        if line.startswith("onnxruntime")
    }
    assert set(found) == {*wheels.WHEELS, "onnxruntime-extensions"}
    one_each, *with_magika = [{one["extra"] for one in two} for two in told["tool"]["uv"]["conflicts"]]
    assert one_each == {found[wheel] for wheel in wheels.WHEELS}
    assert with_magika == [{"magika", extra} for extra in ("gpu", "openvino")]
