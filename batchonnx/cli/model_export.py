"""The command that makes an ONNX model of a framework's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchonnx.cli.model_options import gate_options, rows_options
from batchonnx.cli.options import json_option
from batchonnx.cli.screen import complain, say

if TYPE_CHECKING:
    from batchonnx.lifecycle.export.draft import Exporter
    from batchonnx.lifecycle.feed import Rows
    from batchonnx.lifecycle.gates import Gates


@click.command()
@click.argument("source", required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option("--from", "factory", metavar="MODULE:FUNCTION", help="What makes a torch.nn.Module.")
@click.option(
    "--input-spec",
    "specs",
    multiple=True,
    metavar="NAME=DTYPE[DIM,…]",
    help="An input, in the order of the arguments; words are open dimensions. May be repeated.",
)
@click.option(
    "--output-name",
    "outputs",
    multiple=True,
    metavar="NAME",
    help="What an output is to be called. May be repeated.",
)
@click.option("--task", help="Of a Hugging Face model; as its configuration says if left out.")
@click.option("--data", metavar="DATA", help="Compare on the first of these rows, and write a job for them.")
@click.option("--trust-pickle", is_flag=True, help="Open a pickle, which runs the code that it holds.")
@click.option(
    "--exporter",
    type=click.Choice(["dynamo", "torchscript"]),
    help="Of PyTorch; the newer, else the older, if left out.",
)
@click.option("--opset", type=click.IntRange(7), help="Of the model; the exporter's own choice if left out.")
@rows_options
@gate_options
@json_option
def export(
    source: str | None,
    out: Path,
    factory: str | None,
    specs: tuple[str, ...],
    outputs: tuple[str, ...],
    task: str | None,
    data: str | None,
    trust_pickle: bool,
    exporter: Exporter | None,
    opset: int | None,
    rows: Rows,
    gates: Gates,
    as_json: bool,
) -> None:
    """Make an ONNX model of SOURCE, and keep it if it answers as its framework does.

    SOURCE is a file of LightGBM, XGBoost or CatBoost, a pickle of scikit-learn or of those, a PyTorch
    checkpoint or exported program (.pt2), a Hugging Face folder or hub id; or there is none, and --from makes
    the model.

    \b
    Examples:
      batchonnx model export flights.txt -o flights.onnx --data flights.parquet
      batchonnx model export model.pkl -o model.onnx --trust-pickle
      batchonnx model export --from net:make -o net.onnx --input-spec 'x=float32[batch,28]'
      batchonnx model export weights.pt --from net:make -o net.onnx --input-spec 'x=float32[batch,28]'
      batchonnx model export minilm/ -o model.onnx --task feature-extraction
    """
    from batchonnx import api
    from batchonnx.lifecycle.comparison_report import as_markdown
    from batchonnx.lifecycle.feed import RandomRows

    if source is None and factory is None:
        raise click.UsageError("name a SOURCE, or what makes the model: --from MODULE:FUNCTION")
    found = api.export(
        source,
        out,
        factory=factory,
        inputs=specs,
        outputs=outputs,
        task=task,
        data=data,
        trust_pickle=trust_pickle,
        exporter=exporter,
        opset=opset,
        rows=rows if rows != RandomRows() else None,
        gates=gates,
    )
    for path in (*found.files, *([found.job] if found.job is not None else [])):
        complain(f"wrote {path}")
    complain(f"wrote {found.model}")
    say(json.dumps(found.as_dict(), indent=1) if as_json else as_markdown(found.comparison).rstrip())
