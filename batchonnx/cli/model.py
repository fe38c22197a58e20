"""The group of commands about models; each is imported only when it is run."""

from __future__ import annotations

import click

from batchonnx.cli.lazy import lazy_group

_COMMANDS = {
    "export": ("batchonnx.cli.model_export", "export"),
    "inspect": ("batchonnx.cli.model_evidence", "inspect"),
    "validate": ("batchonnx.cli.model_evidence", "validate"),
    "compare": ("batchonnx.cli.model_evidence", "compare"),
    "profile": ("batchonnx.cli.model_evidence", "profile"),
    "optimize": ("batchonnx.cli.model_making", "optimize"),
    "quantize": ("batchonnx.cli.model_making", "quantize"),
    "convert": ("batchonnx.cli.model_making", "convert"),
}


@click.group(cls=lazy_group(_COMMANDS))
def model() -> None:
    """Make an ONNX model, look at it, find out what it is worth, and make another of it.

    \b
    Examples:
      batchonnx model export flights.txt -o flights.onnx --data flights.parquet
      batchonnx model inspect model.onnx
      batchonnx model validate model.onnx --job job.yaml
      batchonnx model compare model.onnx model.int8.onnx --job job.yaml
      batchonnx model profile model.onnx
      batchonnx model optimize model.onnx small.onnx
      batchonnx model quantize model.onnx model.int8.onnx --job job.yaml
      batchonnx model convert model.onnx model.ort
    """
