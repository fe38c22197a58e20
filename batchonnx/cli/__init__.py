"""The command line: parse, call, print. Commands are imported only when one is run."""

from __future__ import annotations

import click

from batchonnx.cli.lazy import lazy_group
from batchonnx.cli.logs import show_warnings

_COMMANDS = {
    "init": ("batchonnx.cli.jobs", "init"),
    "plan": ("batchonnx.cli.jobs", "plan"),
    "run": ("batchonnx.cli.jobs", "run"),
    "submit": ("batchonnx.cli.cluster", "submit"),
    "status": ("batchonnx.cli.cluster", "status"),
    "logs": ("batchonnx.cli.cluster", "logs"),
    "stop": ("batchonnx.cli.cluster", "stop"),
    "wait": ("batchonnx.cli.cluster", "wait"),
    "list": ("batchonnx.cli.cluster", "list_"),
    "drive": ("batchonnx.cli.cluster", "drive"),
    "verify": ("batchonnx.cli.results", "verify"),
    "explain": ("batchonnx.cli.results", "explain"),
    "report": ("batchonnx.cli.look", "report"),
    "runs": ("batchonnx.cli.look", "runs"),
    "diff": ("batchonnx.cli.look", "diff"),
    "publish": ("batchonnx.cli.results", "publish"),
    "clean": ("batchonnx.cli.results", "clean"),
    "backfill": ("batchonnx.cli.schedule", "backfill"),
    "schedule": ("batchonnx.cli.schedule", "schedule"),
    "tune": ("batchonnx.cli.rehearsal", "tune"),
    "chaos": ("batchonnx.cli.rehearsal", "chaos"),
    "doctor": ("batchonnx.cli.doctor", "doctor"),
    "schema": ("batchonnx.cli.jobs", "schema"),
    "model": ("batchonnx.cli.model", "model"),
}


@click.group(cls=lazy_group(_COMMANDS), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchonnx", message="batchonnx %(version)s")
def main() -> None:
    """One prediction for every row, once: batch inference with ONNX models.

    \b
    Examples:
      batchonnx init model.onnx data/ -o job.yaml    write the job for me
      batchonnx plan job.yaml                        what will happen
      batchonnx run job.yaml                         do it, in this process
      batchonnx submit job.yaml                      do it on a Ray cluster
      batchonnx verify predictions/                  prove that no row is lost
      batchonnx report predictions/                  a page on how it went
      batchonnx doctor                               what is wrong here
      batchonnx model inspect model.onnx             what the model takes and gives

    \b
    Exit codes:
      0  done
      1  a bug of batchonnx
      2  the job, the model or the command is wrong
      3  the world is: something missing, unreadable, refused, full
      4  the result isn't what it should be: verify, or the gate
      130  interrupted
    """
    show_warnings()
