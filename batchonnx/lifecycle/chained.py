"""Models of a chain, compared in their place there: on what the models before them give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.lifecycle.contender import Contender, running
from batchonnx.planning.models import link, op_libraries
from batchonnx.runtime.session import open_model
from batchonnx.runtime.signature import output_key


def open_in_chain(paths: Sequence[str], job: JobFile) -> list[Contender]:
    """The job's chain with each of these in the place of the one that the job names, on one thread.

    What the models behind that place make of it is compared, too; what those before it give is the same.
    Raises ContractError if the job names none of them, or one doesn't fit there; ModelFileError;
    DependencyError.
    """
    place, libraries = _place(paths, job), op_libraries(job)
    asked = job.job.models
    names = list(asked)
    others = {
        name: open_model(job.resolve(asked[name].path), libraries=libraries)
        for name in names
        if name != place
    }
    links = {name: model.inputs for name, model in asked.items()}
    found = []
    for path in paths:
        models = {**others, place: open_model(path, libraries=libraries)}
        model = link({name: models[name] for name in names}, links, job.where)
        behind = [
            output_key(name, spec.name)
            for name in names[names.index(place) :]
            for spec in models[name].signature.outputs
        ]
        found.append(Contender(model.signature, running(model, behind)))
    return found


def _place(paths: Sequence[str], job: JobFile) -> str:
    """The name of the model that is compared."""
    known = {job.resolve(model.path): name for name, model in job.job.models.items()}
    whole = [path if "://" in path else str(Path(path).absolute()) for path in paths]
    named = [known[path] for path in whole if path in known]
    if not named:
        facts = {"job": job.where("models"), "expected": ", ".join(known), "found": ", ".join(paths)}
        title = "the job has several models, and none of those that are compared"
        raise ContractError(
            Problem(title, facts, "compare one that the job names with another for its place")
        )
    return named[0]
