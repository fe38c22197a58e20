"""What a command says, to readers who may have gone away."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

import click

from batchonnx.errors import Problem, StorageError


def say(text: str, *, nl: bool = True) -> None:
    """Print a command's result on standard output.

    A reader that has closed its end (`| head`) has read enough: what was done is done all the same.
    Raises StorageError where standard output can't be written for another reason, a full disk say.
    """
    try:
        click.echo(text, nl=nl)
    except BrokenPipeError:
        _let_go(sys.stdout)
    except OSError as error:
        _let_go(sys.stdout)
        facts = {"found": error.strerror or str(error)}
        fix = "what the command had to do is done; only what it says is lost"
        raise StorageError(Problem("standard output can't be written", facts, fix)) from error


def complain(text: str, *, is_json: bool = False) -> None:
    """Print an error, if there is anybody to read it: the exit code says it, too."""
    try:
        click.echo(text, err=not is_json)
    except OSError:
        _let_go(sys.stdout if is_json else sys.stderr)


def _let_go(stream: TextIO) -> None:
    """Have what is still buffered go nowhere: Python would fail as it flushes it at its exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
