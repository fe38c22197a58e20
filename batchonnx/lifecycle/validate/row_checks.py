"""What only running a model tells: does it take any number of rows, and does each get the same answer
anywhere?"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence

import numpy as np

from batchonnx.errors import ContractError
from batchonnx.lifecycle.contender import Contender, Values, arrays, open_feeds, running
from batchonnx.lifecycle.feed import Feed, JobRows, RandomRows, Rows
from batchonnx.lifecycle.validate.file_checks import one_line
from batchonnx.lifecycle.validate.padding import check_padding, row_axis
from batchonnx.lifecycle.validate.verdict import Check, Level
from batchonnx.runtime.model_file import ModelFile
from batchonnx.runtime.session import Model, OutOfMemory, PredictError
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.neighbours import ROUNDING, split_difference

BATCHES = (1, 2, 7)


def check_rows(file: ModelFile, model: Model, rows: Rows) -> Iterator[Check]:
    """Run the model on rows: one, a few, together and apart, padded, twice.

    Raises what a job's plan raises where the job and the model don't fit.
    """
    contender = Contender(model.signature, running(model), file.local)
    try:
        (feed,) = open_feeds(rows, contender)
    except ContractError as error:
        if isinstance(rows, JobRows):
            raise
        yield Check("rows", "unknown", one_line(error.problems[0]))
        return
    ran = yield from _check_batches(contender, feed, rows)
    if not ran:
        return
    for check in (_check_axes(ran), _check_neighbours(contender, feed, ran)):
        if check is not None:
            yield check
    yield from check_padding(contender, feed, ran)
    yield from _check_values(contender, feed, ran, rows)


def _check_batches(contender: Contender, feed: Feed, rows: Rows) -> Generator[Check, None, dict[int, Values]]:
    """Outputs by number of rows; empty if none could be had."""
    fixed = feed.fixed_batch
    ran: dict[int, Values] = {}
    for size in [fixed] if fixed is not None else [n for n in BATCHES if n <= feed.rows]:
        try:
            ran[size] = contender.run(feed.tensors(0, size))
        except BadRow as bad:
            yield Check("batch", "unknown", f"the first {size} rows can't be in one batch: {bad.reason}")
            break
        except PredictError as error:
            yield _failed(contender, feed, size, rows, error)
            break
    if ran:
        yield Check("rows", "ok", f"runs with {_listed(sorted(ran))} rows in a call, on {rows}")
    if ran and fixed is not None:
        yield Check("batch", "note", f"takes {fixed} in each call: a job pads its last batch and cuts it")
    return ran


def _failed(contender: Contender, feed: Feed, size: int, rows: Rows, error: PredictError) -> Check:
    """Whether it is the model's fault, or that of values which nobody says it takes."""
    if isinstance(error, OutOfMemory):
        told = f"needs more memory for {size} rows than it may take: {error}"
        return Check("memory", "error" if size == 1 or feed.fixed_batch is not None else "warning", told)
    if size > 1 and feed.fixed_batch is None and _runs_alone(contender, feed, size):
        told = f"fails with {size} rows in a call, and on none of them alone: {error}"
        return Check("batch", "error", f"declared for any number of rows; {told}")
    if isinstance(rows, RandomRows):
        told = "fails on values drawn at random; give it rows that it takes (--job or --inputs)"
        return Check("rows", "unknown", f"{told}: {error}")
    return Check("rows", "error", f"fails on {rows}: {error}")


def _runs_alone(contender: Contender, feed: Feed, size: int) -> bool:
    try:
        for row in range(size):
            contender.run(feed.tensors(row, row + 1))
    except PredictError:
        return False
    return True


def _check_axes(ran: Mapping[int, Values]) -> Check | None:
    """Whether each output has a row for each input row; needs two numbers of rows."""
    if len(ran) < 2:
        return None
    lost = [name for name in arrays(next(iter(ran.values()))) if row_axis(ran, name) is None]
    if lost:
        told = f"output {_quoted(lost)} has no row for each input row: leave it out of a job's outputs"
        return Check("batch", "warning", told)
    moved = [name for name in arrays(next(iter(ran.values()))) if row_axis(ran, name)]
    axes = f"; not on the first axis: {_quoted(moved)}, see batch_axis" if moved else ""
    return Check("batch", "ok", f"every output has a row for each input row{axes}")


def _check_neighbours(contender: Contender, feed: Feed, ran: Mapping[int, Values]) -> Check | None:
    """Whether rows that are alone get the answers they get together."""
    most = max(ran)
    if len(ran) < 2:
        return None
    alone = [contender.run(feed.tensors(row, row + 1)) for row in range(most)]
    worst, where = -1.0, ""
    for name, whole in arrays(ran[most]).items():
        axis = row_axis(ran, name)
        if axis is None:
            continue
        difference = _difference(whole, [arrays(values)[name] for values in alone], axis)
        if difference is not None and difference > worst:
            worst, where = difference, name
    if worst < 0:
        return None
    if worst > ROUNDING:
        told = (
            f'rows depend on their neighbours: output "{where}" differs by {worst:.3g} of its largest value'
        )
        return Check(
            "neighbours", "warning", f"{told}; predictions follow from how rows are cut into batches"
        )
    return Check(
        "neighbours", "ok", f"a row alone gets the answer that it gets among others ({worst:.2g} apart)"
    )


def _difference(whole: np.ndarray, parts: Sequence[np.ndarray], axis: int) -> float | None:
    if whole.dtype.kind in "fiu":
        return split_difference(whole, parts, axis)
    return float(not np.array_equal(whole, np.concatenate(parts, axis)))


def _check_values(contender: Contender, feed: Feed, ran: Mapping[int, Values], rows: Rows) -> Iterator[Check]:
    """Whether outputs are numbers, and the same each time."""
    most = max(ran)
    first = arrays(ran[most])
    bad = [name for name, value in first.items() if _has_strange(value)]
    tensors = [value for value in feed.tensors(0, most).values() if isinstance(value, np.ndarray)]
    if bad:
        # Of values that nobody says the model takes, or that are NaN themselves, none is to be expected.
        is_told = not isinstance(rows, RandomRows) and not any(map(_has_strange, tensors))
        level: Level = "warning" if is_told else "note"
        yield Check("finite", level, f"NaN or infinite values in output {_quoted(bad)}, on {rows}")
    else:
        yield Check("finite", "ok", "no NaN, nothing infinite")
    again = arrays(contender.run(feed.tensors(0, most)))
    changed = [name for name, value in first.items() if not _is_same(value, again[name])]
    if changed:
        told = f"the same rows give other values of output {_quoted(changed)} the second time"
        yield Check("repeats", "warning", told)
    else:
        yield Check("repeats", "ok", "the same rows give the same bytes again")


def _has_strange(values: np.ndarray) -> bool:
    """NaN, or something infinite."""
    return values.dtype.kind == "f" and not bool(np.isfinite(values).all())


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype == object:
        return bool(np.array_equal(a, b))
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
