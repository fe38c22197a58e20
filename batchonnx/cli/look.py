"""Commands that show what was done: report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from batchonnx.cli.screen import say
from batchonnx.errors import Problem, ProofError, StorageError

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")


@click.command()
@click.argument("output")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Left out: report-RUN.html, here.")
@click.option("--against", metavar="OTHER", help="Another result, whose predictions are shown beside.")
@click.option("--no-proof", is_flag=True, help="Don't read every file to prove the result first.")
@_json_option
def report(output: str, out: Path | None, against: str | None, no_proof: bool, as_json: bool) -> None:
    """Write a page on the result at OUTPUT: one HTML file that needs no network and runs no script.

    Exit code 4 if the result doesn't prove to be whole; the page is written and says what is wrong.

    \b
    Examples:
      batchonnx report predictions/
      batchonnx report predictions/day=2026-11-22/ --against predictions/day=2026-11-21/ -o report.html
    """
    from batchonnx import api

    page = api.report(output, against=against, prove=not no_proof)
    file = out or Path(f"report-{re.sub(r'[^0-9a-zA-Z]', '', page.run)}.html")
    write(file, page.html)
    say(json.dumps({"output": output, "run": page.run, "file": str(file)}) if as_json else f"wrote {file}")
    if page.broken:
        raise ProofError(*page.broken)


def write(file: Path, data: bytes) -> None:
    """Raises StorageError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        facts = {"file": str(file), "found": error.strerror or str(error)}
        raise StorageError(
            Problem("the page can't be written", facts, "name another file: -o FILE")
        ) from error
