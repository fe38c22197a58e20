"""A job's paths, seen from a cluster: what is in a bucket, what travels, and what stays behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.spec import PASSWORD, JobFile
from batchonnx.job.spec.session import EXTENSIONS
from batchonnx.job.spec.source import REGISTRY


@dataclass(frozen=True)
class Place:
    """A path that the job names. key: where, as in `input.path`. resolved: absolute, or a URL."""

    key: str
    path: str
    resolved: str

    @property
    def is_local(self) -> bool:
        """On a disk, not in a store."""
        return "://" not in self.resolved and not self.resolved.startswith(REGISTRY)


def named_places(job: JobFile) -> list[Place]:
    """All paths that a job names, in its order."""
    return [Place(key, path, _normal(job.resolve(path))) for key, path in _paths(job)]


def stays_here(job: JobFile, shared: Sequence[str], *, is_here: bool) -> bool:
    """Whether the job must run on this machine, for the sake of its paths; else its folder may travel.

    shared: folders that every node has under the same path. is_here: the cluster is this machine.
    Raises JobFileError for each path that a cluster elsewhere couldn't reach, with the way out.
    """
    places = named_places(job)
    _refuse_passwords(job, places)
    roots = [_normal(str(Path(folder).absolute())) for folder in shared]
    left = [place for place in places if place.is_local and not _reaches(place, str(job.folder), roots)]
    if left and not is_here:
        raise JobFileError(*(_problem(job, place) for place in left))
    return bool(left)


def is_within(path: str, folder: str) -> bool:
    """Whether a local path is a folder or lies below it; both absolute."""
    folder = _normal(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _paths(job: JobFile) -> Iterator[tuple[str, str]]:
    spec = job.job
    yield from ((f"{key}.path", model.path) for key, model in spec.named_models.items())
    inputs = spec.input.path if isinstance(spec.input.path, list) else [spec.input.path]
    yield from (("input.path", path) for path in inputs if path is not None)
    for name, feature in (spec.features or {}).items():
        if feature.image is not None and feature.image.preset is not None:
            yield f"features.{name}.image.preset", feature.image.preset
        if feature.tokenizer is not None:
            yield f"features.{name}.tokenizer", feature.tokenizer
        for kind in ("image", "audio"):
            decoded = getattr(feature, kind)
            if decoded is not None and decoded.folder is not None:
                yield f"features.{name}.{kind}.folder", decoded.folder
    for name, output in (spec.outputs or {}).items():
        if isinstance(output.labels, str):
            yield f"outputs.{name}.labels", output.labels
    yield from (("session.custom_ops", path) for path in spec.session.libraries if path != EXTENSIONS)
    yield "output.path", spec.output.path
    if spec.storage.ca_file is not None:
        yield "storage.ca_file", spec.storage.ca_file


def _reaches(place: Place, folder: str, roots: Sequence[str]) -> bool:
    """What is in the job's folder travels, if named from there; a result would be lost with the cluster."""
    if any(is_within(place.resolved, root) for root in roots):
        return Path(place.path).is_absolute() or is_within(place.resolved, folder)
    is_named_from_there = not place.path.startswith(("/", "~"))
    return place.key != "output.path" and is_named_from_there and is_within(place.resolved, folder)


def _problem(job: JobFile, place: Place) -> Problem:
    facts = {"job": job.where(place.key), "path": place.resolved}
    if place.key != "output.path" and is_within(place.resolved, str(job.folder)):
        title = f"{place.key} is written in full, but the job's folder will lie elsewhere on the cluster"
        fix = f"write it as seen from the job file: {Path(place.resolved).relative_to(job.folder)}"
    elif place.key == "output.path":
        title = "the result would be written to a disk of the cluster, and lost with it"
        fix = "write to a store: output: {path: s3://bucket/folder}"
    elif place.key == "input.path":
        title = "the cluster can't read an input that lies on this machine"
        fix = "put the data in a store: input: {path: s3://bucket/folder}"
    else:
        title = f"{place.key} lies outside the job's folder, which is all that travels to a cluster"
        facts["expected"] = f"a path below {job.folder}, or a URL"
        fix = "move it into the job's folder, or into a store"
    shared = str(Path(place.resolved).parent)
    fix += f"; if every node has the path: write it out in full, and add --shared {shared}"
    return Problem(title, facts, fix)


def _refuse_passwords(job: JobFile, places: Sequence[Place]) -> None:
    found = [place for place in places if PASSWORD.search(place.resolved)]
    if found:
        fix = "leave it out of the URL; the cluster's environment gives credentials"
        title = "holds a password, which a cluster would show"
        raise JobFileError(
            *(Problem(f"{place.key} {title}", {"job": job.where(place.key)}, fix) for place in found)
        )


def _normal(path: str) -> str:
    return path if "://" in path else os.path.normpath(path)
