"""The contract: model, data and job held against each other, every mismatch reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches

import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.planning.bindings import (
    Constant,
    FeatureBinding,
    OutputBinding,
    StackedScalars,
    StateBinding,
    TensorColumn,
    TextColumn,
    inputs_of,
)
from batchonnx.planning.features import bind_features, feature_columns
from batchonnx.planning.images import framed
from batchonnx.planning.listing import Listing
from batchonnx.planning.models import fixed_links
from batchonnx.planning.outputs import bind_outputs
from batchonnx.planning.sounds import bind_states, windowed
from batchonnx.planning.texts import one_text
from batchonnx.planning.types import is_writable
from batchonnx.runtime.signature import ModelSignature


@dataclass(frozen=True)
class Contract:
    """How the model is fed and what is written.

    fixed_batch: rows that the model takes in each call, no more and no fewer; None: any number.
    states: what is carried from window to window.
    """

    features: tuple[FeatureBinding, ...]
    states: tuple[StateBinding, ...]
    outputs: tuple[OutputBinding, ...]
    keep: tuple[pa.Field, ...]
    fixed_batch: int | None
    notes: tuple[str, ...]


def make_contract(job: JobFile, model: ModelSignature, listing: Listing) -> Contract:
    """Check model against data, without reading rows or running the model.

    Raises ContractError with every mismatch and how to mend each.
    """
    features = bind_features(job, model, listing.schema)
    states, state_problems = bind_states(job, model)
    outputs = bind_outputs(job, model, of_windows=windowed(features.bindings) is not None)
    problems = [*features.problems, *one_text(job), *state_problems, *outputs.problems]
    nulls = _null_problems(job, features.bindings, listing)
    may_be_bad = job.job.errors.max_bad_rows != 0
    problems += [] if may_be_bad else nulls
    problems += _keep_problems(job, listing.schema, outputs.bindings)
    read = {column for binding in features.bindings for column in feature_columns(binding)}
    problems += _unwritable(job, listing.schema, read if may_be_bad else set())
    sizes = _declared_batches(features.bindings) | fixed_links(model)
    problems += _batch_problems(job, sizes)
    if problems:
        raise ContractError(*problems)
    keep = tuple(listing.schema.field(name).remove_metadata() for name in job.job.keep)
    fixed = next(iter(sizes.values()), None)
    notes = [*features.notes, *outputs.notes]
    notes += [f"{problem.title}: such rows will be put aside" for problem in nulls]
    if fixed is not None:
        notes.append(
            f"the model takes {fixed} row{'s' * (fixed != 1)} a call: the last batch is padded and cut"
        )
    bound = tuple(framed(features.bindings, outputs.bindings)), tuple(states), tuple(outputs.bindings)
    return Contract(*bound, keep, fixed, tuple(notes))


def _null_problems(job: JobFile, bindings: Iterable[FeatureBinding], listing: Listing) -> list[Problem]:
    """Nulls that the footers know of, in features that can't have any."""
    problems = []
    for binding in bindings:
        if not isinstance(binding, StackedScalars | TensorColumn | TextColumn) or binding.fill is not None:
            continue
        spec = inputs_of(binding)[0]
        if spec.dtype.startswith("float"):
            continue
        columns = (binding.column,) if isinstance(binding, TensorColumn) else binding.columns
        for column in columns:
            file = next((f for f in listing.files if f.footer.nulls.get(column)), None)
            if file is None:
                continue
            facts = {
                "job": job.where(f"features.{spec.name}"),
                "model": str(spec),
                "file": file.path,
                "found": f"{file.footer.nulls[column]} nulls",
            }
            fix = f"say what a null becomes: features.{spec.name}.fill; filter: {column} is not null; "
            fix += "or have such rows put aside: errors.max_bad_rows"
            lacks = (
                "no text stands for them" if isinstance(binding, TextColumn) else f"{spec.dtype} has no NaN"
            )
            title = f'column "{column}" has nulls, and {lacks}'
            problems.append(Problem(title, facts, fix))
    return problems


def _keep_problems(job: JobFile, schema: pa.Schema, outputs: Sequence[OutputBinding]) -> list[Problem]:
    problems = []
    predicted = {binding.name for binding in outputs}
    for name in job.job.keep:
        facts = {"job": job.where("keep")}
        if name not in schema.names:
            near = get_close_matches(name, schema.names, 1)
            fix = f'did you mean "{near[0]}"?' if near else "name a column that the input has"
            problems.append(Problem(f'keep: the input has no column "{name}"', facts, fix))
        elif name in predicted:
            fix = f"give the output column another name in outputs.{name}"
            problems.append(Problem(f'column "{name}" is both kept and predicted', facts, fix))
    return problems


def _unwritable(job: JobFile, schema: pa.Schema, quarantined: Set[str]) -> list[Problem]:
    """Columns that parts or quarantine would hold, of types that Parquet can't.

    quarantined: columns that features read, if bad rows are kept with them.
    """
    problems = []
    for field in schema:
        is_written = field.name in quarantined or field.name in job.job.keep
        if is_written and not is_writable(field.type):
            is_kept = field.name in job.job.keep
            facts = {"job": job.where("keep" if is_kept else "errors.max_bad_rows"), "found": str(field)}
            fix = "leave it out of keep" if is_kept else "set errors.max_bad_rows: 0"
            fix += ", or write the input with another type"
            what = "kept" if is_kept else "put aside with bad rows"
            title = f'column "{field.name}" can\'t be {what}: Parquet has no such type'
            problems.append(Problem(title, facts, fix))
    return problems


def _declared_batches(bindings: Iterable[FeatureBinding]) -> dict[str, int]:
    """Model input -> the fixed size of its batch axis, for those that have one."""
    sizes = {}
    for binding in bindings:
        if isinstance(binding, Constant) and not binding.per_row:
            continue
        for spec in inputs_of(binding):
            size = spec.shape[binding.batch_axis] if spec.shape else None
            if isinstance(size, int):
                sizes[spec.name] = size
    return sizes


def _batch_problems(job: JobFile, sizes: dict[str, int]) -> list[Problem]:
    if len(set(sizes.values())) > 1:
        facts = {"job": job.where("features"), "model": ", ".join(f"{n}: {s} rows" for n, s in sizes.items())}
        fix = "set batch_axis where the batch isn't the first axis, or give a constant with value"
        return [Problem("the model's inputs don't agree on the number of rows in a batch", facts, fix)]
    asked = job.job.engine.batch_rows
    fixed = next(iter(sizes.values()), None)
    if fixed is not None and asked not in ("auto", fixed):
        facts = {"job": job.where("engine.batch_rows"), "expected": str(fixed), "found": str(asked)}
        return [Problem("the model's batch is fixed", facts, "leave engine.batch_rows out")]
    return []
