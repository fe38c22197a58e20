"""What travels to the cluster: the job's folder, and beside it what the driver is told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, TypedDict

from batchonnx.cluster import bootstrap
from batchonnx.cluster.places import is_within, named_places
from batchonnx.errors import ClusterError, JobFileError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.report.text import of_bytes

LIMIT_BYTES = 100 * 10**6
"""It goes through the head's memory, and from there to every node."""
FOLDER, RECORD = "job", "submission.json"


class RunOptions(TypedDict, total=False):
    """Options of a run that travel with a submission, as `api.run` takes them."""

    overwrite: bool | None
    fresh: bool
    incremental: bool
    engine: Literal["local", "ray"] | None


@dataclass(frozen=True)
class Submission:
    """What the driver is told, in `submission.json`.

    job: the job file, in the folder that travels, or absolute where it stays. sha256: of that file.
    settings: what `--set` gave. options: of the run.
    environment: name -> version, where the job was submitted.
    """

    job: str
    sha256: str
    settings: Mapping[str, str]
    options: RunOptions
    environment: Mapping[str, str]

    @property
    def stays(self) -> bool:
        """The job runs where it lies, on this machine's disk."""
        return Path(self.job).is_absolute()


def read_submission(folder: Path) -> Submission:
    """What a package tells its driver. Raises ClusterError if it isn't one."""
    try:
        told = json.loads((folder / RECORD).read_text())
        return Submission(**told)
    except (OSError, ValueError, TypeError) as error:
        facts = {"folder": str(folder), "found": str(error)}
        fix = "submit the job: batchonnx submit JOB"
        raise ClusterError(Problem("that folder isn't a submitted job's", facts, fix)) from error


def describe(
    job: JobFile,
    settings: Mapping[str, str],
    options: RunOptions,
    environment: Mapping[str, str],
    *,
    stays: bool,
) -> Submission:
    """What the driver of a job will be told. Raises JobFileError for a job that no file holds."""
    if job.path is None:
        raise JobFileError(Problem("only a job file can be submitted", {}, "write the job to a file"))
    path = str(job.path.absolute()) if stays else job.path.name
    return Submission(path, _digest(job.path), dict(settings), options, dict(environment))


def travelling_files(job: JobFile, exclude: Sequence[str]) -> dict[str, Path]:
    """Path within the job's folder -> file, sorted, of all that travels.

    Left out: hidden files, bytecode, the job's own output, and what a pattern of `exclude` matches: the
    path within the folder, or any name on the way.
    Raises JobFileError if it is more than LIMIT_BYTES.
    """
    output = next(place for place in named_places(job) if place.key == "output.path")
    files: dict[str, Path] = {}
    for found in _walk(job.folder):
        inside = found.relative_to(job.folder)
        if output.is_local and is_within(str(found), output.resolved):
            continue
        if any(fnmatch(name, pattern) for pattern in exclude for name in (str(inside), *inside.parts)):
            continue
        files[str(inside)] = found
    sizes = {inside: file.stat().st_size for inside, file in files.items()}
    if sum(sizes.values()) > LIMIT_BYTES:
        largest = sorted(sizes, key=lambda inside: -sizes[inside])[:3]
        facts = {
            "folder": str(job.folder),
            "expected": f"at most {of_bytes(LIMIT_BYTES)}",
            "found": f"{of_bytes(sum(sizes.values()))}; the largest: "
            + ", ".join(f"{inside} ({of_bytes(sizes[inside])})" for inside in largest),
        }
        fix = f"put models and data into a store, or leave out what isn't needed: --exclude '{largest[0]}'"
        raise JobFileError(Problem("the job's folder is too large to travel", facts, fix))
    return dict(sorted(files.items()))


def content_digest(job: JobFile, files: Mapping[str, Path]) -> str:
    """SHA-256 of what travels beside the job file, which counts by what it says, not by how it is written."""
    told = [(inside, _digest(file)) for inside, file in files.items() if inside != _name(job)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def write_package(folder: Path, submission: Submission, files: Mapping[str, Path]) -> None:
    """Make a folder that holds the driver's record, the script that starts it, and the files."""
    (folder / RECORD).write_text(json.dumps(_fields(submission), indent=1))
    shutil.copyfile(bootstrap.__file__, folder / "bootstrap.py")
    for inside, file in files.items():
        target = folder / FOLDER / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _fields(submission: Submission) -> dict[str, Any]:
    return asdict(submission)


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(names):
            file = Path(root, name)
            if not name.startswith(".") and not name.endswith(".pyc") and file.is_file():
                yield file


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _name(job: JobFile) -> str:
    return job.path.name if job.path is not None else ""
