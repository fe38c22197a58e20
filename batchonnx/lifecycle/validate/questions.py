"""The process that may die: asks the questions about one model after the other, and tells each answer at
once."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batchonnx.errors import ModelFileError
from batchonnx.lifecycle.feed import Rows
from batchonnx.lifecycle.job_feed import libraries_of
from batchonnx.lifecycle.validate.file_checks import (
    check_domains,
    check_file,
    check_rules,
    check_shapes,
    one_line,
)
from batchonnx.lifecycle.validate.row_checks import check_rows
from batchonnx.lifecycle.validate.verdict import Check, Limits
from batchonnx.runtime.session import load_model


@dataclass(frozen=True)
class Asked:
    """A model to validate, on which rows, within which limits."""

    model: str
    rows: Rows
    limits: Limits


@dataclass(frozen=True)
class Question:
    """The next one is about to be asked: what the process was at if it is never heard of again."""

    name: str


@dataclass(frozen=True)
class Read:
    """The file was read. sha256: its digest."""

    sha256: str


@dataclass(frozen=True)
class Finished:
    """Nothing more is asked about this model."""


Told = Question | Check | Read | Finished


def ask(asked: Asked) -> Iterator[Told]:
    """Everything about one model; after an error, which the rest depends on, nothing more.

    Raises what a job's plan raises where the model doesn't fit it.
    """
    for told in _ask(asked):
        yield told
        if isinstance(told, Check) and told.level == "error":
            break
    yield Finished()


def _ask(asked: Asked) -> Iterator[Told]:
    yield Question("file")
    file, graph, check = check_file(asked.model)
    if file is not None:
        yield Read(file.digest)
    yield check
    if file is None:
        return
    libraries = libraries_of(asked.rows)
    most = asked.limits.bytes_for(file.bytes)
    limit_memory(most)
    if graph is not None:
        yield Question("domains")
        yield check_domains(graph, libraries)
        yield Question("checker")
        yield check_rules(file)
        yield Question("shapes")
        yield from check_shapes(graph, most)
        del graph
    yield Question("session")
    try:
        model = load_model(file, threads=1, libraries=libraries)
    except ModelFileError as error:
        yield Check("session", "error", one_line(error.problems[0]))
        return
    yield Check("session", "ok", "ONNX Runtime loads it")
    yield Question("rows")
    yield from check_rows(file, model, asked.rows)


def limit_memory(more_bytes: int) -> None:
    """Let this process have so much more than it has now, where the system can limit it (Linux)."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        used = next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + more_bytes, resource.RLIM_INFINITY))
