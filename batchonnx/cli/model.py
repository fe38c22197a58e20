"""Commands about models."""

from __future__ import annotations

import json

import click

from batchonnx.cli.errors import ErrorBoundary
from batchonnx.cli.screen import say


@click.group(cls=ErrorBoundary)
def model() -> None:
    """Look at an ONNX model.

    \b
    Examples:
      batchonnx model inspect model.onnx
    """


@model.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")
def inspect(path: str, as_json: bool) -> None:
    """Show what the model at PATH takes and gives, its opsets, operators and weights.

    \b
    Examples:
      batchonnx model inspect model.onnx
      batchonnx model inspect model.onnx --json | jq .inputs
    """
    from batchonnx.report.model_view import format_card
    from batchonnx.runtime.inspect import inspect_model

    card = inspect_model(path)
    say(json.dumps(card.as_dict(), indent=1) if as_json else format_card(card))
