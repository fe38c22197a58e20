"""The way of every step that makes a model of another: build, compare, bless; or refuse and leave none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from batchonnx.errors import GateError, ModelFileError, Problem, StorageError
from batchonnx.lifecycle.bless import bless
from batchonnx.lifecycle.compare import SIZES, Comparison, compare
from batchonnx.lifecycle.comparison_report import SUFFIX, report_paths
from batchonnx.lifecycle.contender import Contender, running
from batchonnx.lifecycle.feed import Rows
from batchonnx.lifecycle.gates import Gates, or_defaults
from batchonnx.lifecycle.provenance import Step
from batchonnx.runtime.model_file import ModelFile, find_model
from batchonnx.runtime.session import load_model


@dataclass(frozen=True)
class Trial:
    """How a new model is tried against the one it was made of; see `compare`.

    rows: left out: 64 at random. gates: what isn't asked for has the step's own default. sizes: none: speed
    isn't taken. outputs: those to compare; None: all.
    """

    rows: Rows | None = None
    gates: Gates = field(default_factory=Gates)
    sizes: Sequence[int] = SIZES
    outputs: Sequence[str] | None = None

    def by_default(self, answers: Gates, min_speedup: float | None) -> Trial:
        """The same with a step's own gates where none were asked for."""
        gates = or_defaults(self.gates, answers, min_speedup if self.sizes else None)
        return replace(self, gates=gates)


@dataclass(frozen=True)
class Source:
    """A model that another is made of: its files, and the model ready to run on one thread."""

    file: ModelFile
    contender: Contender


@dataclass(frozen=True)
class Built:
    """What is to be told of a model that was built. notes: in the report. found: options that were found on
    the way, kept with those that were asked for."""

    notes: Sequence[str] = ()
    found: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What a step does. build: writes the model to a path, files beside it included. options, tools: see
    `Step`."""

    step: str
    options: Mapping[str, Any]
    tools: Mapping[str, str]
    build: Callable[[Path], Built]


def open_source(path: str) -> Source:
    """Raises ModelFileError, DependencyError."""
    file = find_model(path)
    model = load_model(file, threads=1)
    return Source(file, Contender(model.signature, running(model), file.local))


def make_model(source: Source, target: Path, recipe: Recipe, trial: Trial) -> Comparison:
    """Build a model in a hidden folder beside `target`, and let it appear there if it is good enough.

    Gives the comparison with the source, whose report lies beside `target`, whatever came of it.
    Raises GateError if the model was refused: there is none then; ModelFileError if ONNX Runtime can't load
    what was built; what `compare` raises; StorageError.
    """
    if source.file.local.resolve() == target.resolve():
        facts = {"model": source.file.path}
        fix = "name another file for what is made of it"
        raise StorageError(Problem("a model can't take the place of the one it is made of", facts, fix))
    with _workshop(target) as draft:
        built = recipe.build(draft)
        made = draft_contender(draft, target, source, recipe.step)
        found = compare(
            source.contender, made, trial.rows, gates=trial.gates, sizes=trial.sizes, outputs=trial.outputs
        )
        found = replace(found, notes=(*found.notes, *built.notes))
        step = Step(
            step=recipe.step,
            source=Path(source.file.path).name,
            source_sha256=source.file.digest,
            options={**recipe.options, **built.found},
            tools=recipe.tools,
            verdict=None,
        )
        try:
            found = bless(found, draft, source.contender.signature, step)
        except GateError as error:
            _publish(draft, target, lambda name: name.startswith(target.name + SUFFIX))
            problem = error.problems[0]
            facts = {**problem.facts, "written": f"its report alone: {report_paths(target)[1]}"}
            raise GateError(replace(problem, facts=facts)) from None
        _publish(draft, target, lambda name: True)
    return found


def draft_contender(draft: Path, target: Path, source: Source, step: str) -> Contender:
    """A model that was just built, under the name that it shall have. Raises ModelFileError."""
    try:
        model = load_model(find_model(str(draft)), threads=1)
    except ModelFileError as error:
        problem = error.problems[0]
        found = problem.facts.get("found")
        facts = {"model": source.file.path, "found": f"{problem.title}" + (f": {found}" if found else "")}
        title = f"{step} makes a model of it that ONNX Runtime can't load"
        raise ModelFileError(Problem(title, facts, "ask for less, or leave out what fails")) from error
    return Contender(replace(model.signature, path=str(target)), running(model), draft)


@contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """Where a model is built, under its own name, since files beside it are found by theirs."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            yield Path(folder) / target.name
    except OSError as error:
        facts = {"file": str(target), "found": error.strerror or str(error)}
        raise StorageError(Problem("the model can't be written", facts, "name another place")) from error


def _publish(draft: Path, target: Path, is_wanted: Callable[[str], bool]) -> None:
    """The model last: who sees it sees all that belongs to it."""
    for file in sorted(draft.parent.iterdir(), key=lambda file: file.name == target.name):
        if is_wanted(file.name):
            file.replace(target.parent / file.name)
