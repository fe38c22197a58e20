"""Validation, seen from the process that survives it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence

from batchonnx.lifecycle.feed import RandomRows, Rows
from batchonnx.lifecycle.validate.questions import Asked, Finished, Question, Read
from batchonnx.lifecycle.validate.verdict import Check, Limits, Validation
from batchonnx.runtime.child import Child, ChildDied, ChildSilent

PROCESS = "batchonnx.lifecycle.validate.process"


def validate(
    models: Sequence[str], rows: Rows | Sequence[Rows] | None = None, limits: Limits | None = None
) -> Iterator[Validation]:
    """A verdict on each model, in order, whatever the model does: it is run in a process that may die of it.

    rows: for all models, or for each its own; left out: a few at random. limits: of time and memory, for each
    question. One process asks about all models; a new one is started after each death.
    Raises what a job's plan raises where a model doesn't fit the job, InputError, StorageError.
    """
    each = [rows or RandomRows()] * len(models) if not isinstance(rows, Sequence) else list(rows)
    child: Child | None = None
    try:
        for model, given in zip(models, each, strict=True):
            asked = Asked(model, given, limits or Limits())
            if child is None:
                child = Child(PROCESS)
                child.receive()  # it is ready
            found, is_alive = _hear(child, asked)
            if not is_alive:
                child = None
            yield found
    finally:
        if child is not None:
            child.end()


def _hear(child: Child, asked: Asked) -> tuple[Validation, bool]:
    """The model's answers, and whether the process has outlived them."""
    checks: list[Check] = []
    digest: str | None = None
    at = "file"
    try:
        child.send(pickle.dumps(asked))
        while True:
            told = pickle.loads(child.receive(asked.limits.timeout_s))
            if isinstance(told, Exception):
                raise told
            if isinstance(told, Question):
                at = told.name
            elif isinstance(told, Read):
                digest = told.sha256
            elif isinstance(told, Finished):
                return Validation(asked.model, digest, tuple(checks)), True
            else:
                checks.append(told)
    except ChildDied as death:
        end = f"ends the process that runs it, by {death}"
    except ChildSilent:
        child.end()
        end = f"gives no answer within {asked.limits.timeout_s:g} s"
    return Validation(asked.model, digest, (*checks, Check(at, "error", end))), False
