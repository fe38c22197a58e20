"""Options that several commands about models share."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchonnx.cli.options import load_dated
from batchonnx.cli.screen import complain
from batchonnx.errors import Problem, StorageError

if TYPE_CHECKING:
    from batchonnx.lifecycle.feed import Rows

html_option = click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page to look at, too."
)
size_option = click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME=N",
    help="Without --job: the size of a symbolic dimension. May be repeated.",
)

output_option = click.option(
    "--output", "outputs", multiple=True, metavar="NAME", help="Compare this output only. May be repeated."
)

Command = Callable[..., Any]


def rows_options(command: Command) -> Command:
    """Which rows the model is run on: --job, --set, --date, --rows, --seed, --inputs, --size.

    The command is given them as `rows`.
    """

    @wraps(command)
    def with_rows(
        job: Path | None,
        settings: tuple[str, ...],
        date: str | None,
        rows: int | None,
        seed: int,
        inputs: Path | None,
        sizes: tuple[str, ...],
        **others: Any,
    ) -> None:
        command(rows=_chosen_rows(job, settings, date, rows, seed, inputs, sizes), **others)

    for option in reversed(
        (
            click.option(
                "--job", type=click.Path(path_type=Path), help="Take the first rows of this job's input."
            ),
            click.option(
                "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Fill {{ KEY }} in the job."
            ),
            click.option("--date", metavar="DATE", help="The job's logical date: fill {{ date }}."),
            click.option("--rows", type=click.IntRange(1), help="How many rows."),
            click.option(
                "--seed", type=click.IntRange(0), default=0, help="Without --job: draw other values."
            ),
            click.option(
                "--inputs",
                type=click.Path(path_type=Path),
                metavar="FILE.npz",
                help="Take the rows of this file: one array for each input.",
            ),
            size_option,
        )
    ):
        with_rows = option(with_rows)
    return with_rows


def gate_options(command: Command) -> Command:
    """What the model has to reach: --max-diff, --min-agreement, --min-cosine, --min-speedup.

    The command is given it as `gates`.
    """

    @wraps(command)
    def with_gates(
        max_diff: float | None,
        min_agreement: float | None,
        min_cosine: float | None,
        min_speedup: float | None,
        **others: Any,
    ) -> None:
        from batchonnx.lifecycle.gates import Gates

        command(gates=Gates(max_diff, min_agreement, min_cosine, min_speedup), **others)

    number = click.FloatRange(0)
    for option in reversed(
        (
            click.option("--max-diff", type=number, help="Largest |a-b| / (1 + |a|) of any value."),
            click.option("--min-agreement", type=number, help="Share of rows with the same label: 0.99."),
            click.option("--min-cosine", type=number, help="Mean cosine of the rows' outputs: 0.99."),
            click.option("--min-speedup", type=number, help="Rows/s of B to those of A: 1.5."),
        )
    ):
        with_gates = option(with_gates)
    return with_gates


def _chosen_rows(
    job: Path | None,
    settings: tuple[str, ...],
    date: str | None,
    rows: int | None,
    seed: int,
    inputs: Path | None,
    sizes: tuple[str, ...],
) -> Rows:
    """Raises JobFileError, InputError, click.UsageError."""
    from batchonnx.lifecycle.feed import JobRows, RandomRows
    from batchonnx.lifecycle.given_feed import read_npz

    if inputs is not None:
        if job is not None or rows is not None or sizes:
            raise click.UsageError("--inputs names all rows: leave --job, --rows and --size out")
        return read_npz(inputs)
    if job is None:
        return RandomRows(rows or RandomRows.count, seed, chosen_sizes(sizes))
    return JobRows(load_dated(job, settings, date), rows or JobRows.count)


def chosen_sizes(sizes: tuple[str, ...]) -> dict[str, int]:
    """Symbolic dimension -> size. Raises click.UsageError."""
    known = {}
    for text in sizes:
        name, given, size = text.partition("=")
        if not given or not size.isdecimal() or not int(size):
            raise click.UsageError(f"--size {text}: NAME=N is wanted, N from 1")
        known[name] = int(size)
    return known


def fixed_sizes(asked: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Open dimension -> its size, input -> the sizes of all its dimensions. Raises click.UsageError."""
    known = {}
    for text in asked:
        name, given, sizes = text.rpartition("=")
        if not given or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
            raise click.UsageError(f"--fix {text}: NAME=N or INPUT=AxBxC is wanted, sizes from 1")
        known[name] = tuple(map(int, sizes.split("x")))
    return known


def write_page(path: Path, page: bytes) -> None:
    """Raises StorageError."""
    try:
        path.write_bytes(page)
    except OSError as error:
        facts = {"file": str(path), "found": error.strerror or str(error)}
        raise StorageError(
            Problem("the page can't be written", facts, "name another file: --html")
        ) from error
    complain(f"wrote {path}")
