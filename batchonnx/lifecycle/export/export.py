"""From a framework's model to an ONNX file that answers alike, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from batchonnx.errors import Problem, StorageError
from batchonnx.job.load import load_job
from batchonnx.lifecycle.bless import bless
from batchonnx.lifecycle.compare import SIZES, Comparison, compare
from batchonnx.lifecycle.contender import Contender, open_contender
from batchonnx.lifecycle.export.draft import Draft, Request
from batchonnx.lifecycle.export.exporters import exporter_of
from batchonnx.lifecycle.export.source import Kind, digest_of, kind_of
from batchonnx.lifecycle.feed import JobRows, RandomRows, Rows
from batchonnx.lifecycle.gates import Gates, judge
from batchonnx.lifecycle.provenance import Step, tool_versions
from batchonnx.planning.guess import guess_job
from batchonnx.runtime.signature import ModelSignature, TensorSpec

MIN_AGREEMENT = 0.99
"""Of labels, unless a gate is asked for."""


@dataclass(frozen=True)
class Exported:
    """A model that was exported.

    model: its file. files: what was written beside it: weights, tokenizer, labels. job: the job file, if one
    was asked for. comparison: with the framework.
    """

    model: Path
    files: tuple[Path, ...]
    job: Path | None
    comparison: Comparison

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; keys are documented in docs/models.md."""
        return {
            "model": str(self.model),
            "files": [str(path) for path in self.files],
            "job": str(self.job) if self.job is not None else None,
            "comparison": self.comparison.as_dict(),
        }


def export_model(
    request: Request,
    target: Path,
    *,
    rows: Rows | None = None,
    data: str | None = None,
    gates: Gates | None = None,
) -> Exported:
    """Export, compare with the framework on the same rows, and put the model where it belongs if they agree.

    target: the .onnx file; one that is there is replaced. rows: on which to compare; left out: those of
    `data`, else the exporter's own. data: rows of the user's: a job for them is written beside the model,
    unless one lies there. gates: left out: max-diff as the exporter knows it to be possible, and the
    agreement of labels.
    Raises ExportError, HookError, DependencyError, GateError (the report is kept, the model isn't),
    StorageError, and with data what `init` and `plan` raise.
    """
    kind: Kind = "factory"
    source = None
    if request.source is not None:
        kind, source = kind_of(request.source)
    digest, size = digest_of(source) if source is not None and source.exists() else (None, 0)
    with _scratch_beside(target) as scratch:
        made = scratch / target.name
        draft = exporter_of(kind)(request, source, made)
        candidate = open_contender(str(made))
        signature = replace(candidate.signature, path=str(target))
        job_text = None
        if data is not None:
            job_text = guess_job(signature, data, None, target.parent, beside=scratch)
            own = replace(signature, path=str(made))
            rows = rows or _first_rows(guess_job(own, data, None, scratch), scratch)
        known = replace(signature, path=_told(request), digest=digest or "", bytes=size, metadata={})
        framework = Contender(known, _answering(draft, signature))
        candidate = replace(candidate, signature=signature)
        comparison = _compared(framework, candidate, draft, rows, gates or Gates())
        files = _move(scratch, target) if comparison.passed else ()
        comparison = bless(comparison, target, None, _step(request, draft, digest))
    job = _keep_job(job_text, target.with_suffix(".job.yaml")) if job_text is not None else None
    return Exported(target, files, job, comparison)


@contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    """A hidden folder on the target's own disk: what is finished in it takes its place by renaming."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        facts = {"folder": str(target.parent), "found": error.strerror or str(error)}
        raise StorageError(
            Problem("the model can't be written there", facts, "write to another folder: --out")
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(scratch: Path, target: Path) -> tuple[Path, ...]:
    """Put the model's files in their place, the model itself last. Raises StorageError."""
    made = [path.relative_to(scratch) for path in sorted(scratch.rglob("*")) if path.is_file()]
    beside = [path for path in made if path.name != target.name]
    _refuse_foreign(scratch, target, beside)
    for path in (*beside, Path(target.name)):
        (target.parent / path).parent.mkdir(exist_ok=True)
        (scratch / path).replace(target.parent / path)
    return tuple(target.parent / path for path in beside)


def _refuse_foreign(scratch: Path, target: Path, beside: Sequence[Path]) -> None:
    """What lies beside another model is that one's: its tokenizer, for one."""
    if target.exists():
        return
    for path in beside:
        there = target.parent / path
        if there.exists() and there.read_bytes() != (scratch / path).read_bytes():
            facts = {"model": str(target), "file": str(there)}
            fix = "write the model into a folder of its own: --out"
            raise StorageError(Problem("another model's file would be replaced", facts, fix))


def _first_rows(job_text: str, scratch: Path) -> Rows:
    """The first rows of a job that lies in the scratch folder, where the model's files still are."""
    written = scratch / "job.yaml"
    written.write_text(job_text)
    try:
        return JobRows(load_job(written))
    finally:
        written.unlink()


def _keep_job(text: str, path: Path) -> Path:
    """A job that is there already is somebody's own by now."""
    if not path.exists():
        path.write_text(text)
    return path


def _answering(
    draft: Draft, signature: ModelSignature
) -> Callable[[Mapping[str, np.ndarray]], dict[str, Any]]:
    """The framework's answers under the model's own names, in the model's own types."""

    def run(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        found = draft.answer(tensors)
        return {
            spec.name: _as_declared(value, spec) for spec, value in zip(signature.outputs, found, strict=True)
        }

    return run


def _as_declared(value: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """In the output's own type; one value a row is [n] or [n, 1], as it has it."""
    if spec.shape is not None and {len(spec.shape), value.ndim} == {1, 2} and value.size == len(value):
        value = value.reshape((-1, 1) if len(spec.shape) == 2 else -1)
    return value.astype(object) if spec.dtype == "string" else value.astype(np.dtype(spec.dtype))


def _told(request: Request) -> str:
    return " with ".join(text for text in (request.factory, request.source) if text is not None)


def _compared(
    framework: Contender, candidate: Contender, draft: Draft, rows: Rows | None, asked: Gates
) -> Comparison:
    """The framework's answers and the model's, on the best rows that there are."""
    found = compare(
        framework,
        candidate,
        rows or draft.rows or RandomRows(),
        gates=asked,
        sizes=SIZES if asked.min_speedup is not None else (),
    )
    if asked == Gates(min_speedup=asked.min_speedup):
        found = _judged_by_type(found, draft.max_diff)
    return replace(found, notes=(*found.notes, *draft.notes))


def _judged_by_type(comparison: Comparison, max_diff: float) -> Comparison:
    """Numbers have to be close; labels, which a last digit decides where two classes tie, mostly the same."""
    labels = [one for one in comparison.parity if one.label_agreement is not None and one.mean_cosine is None]
    numbers = [one for one in comparison.parity if one not in labels]
    close, same = Gates(max_diff=max_diff), Gates(min_agreement=MIN_AGREEMENT)
    misses = [
        *comparison.misses,
        *(judge(close, numbers, None) if numbers else ()),
        *(judge(same, labels, None) if labels else ()),
    ]
    gates = replace(
        comparison.gates,
        max_diff=max_diff if numbers else None,
        min_agreement=MIN_AGREEMENT if labels else None,
    )
    return replace(comparison, gates=gates, misses=tuple(dict.fromkeys(misses)))


def _step(request: Request, draft: Draft, digest: str | None) -> Step:
    asked = {
        "inputs": [str(spec) for spec in request.inputs],
        "outputs": list(request.outputs),
        "task": request.task,
        "opset": request.opset,
    }
    options = {name: value for name, value in asked.items() if value} | dict(draft.options)
    return Step("export", _told(request), digest, options, tool_versions(*draft.tools), None)
