"""Commands that make a model of another: optimize, quantize, convert."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchonnx.cli.model_options import (
    Command,
    fixed_sizes,
    gate_options,
    output_option,
    rows_options,
)
from batchonnx.cli.options import json_option
from batchonnx.cli.screen import complain, say

if TYPE_CHECKING:
    from batchonnx.lifecycle.compare import Comparison
    from batchonnx.lifecycle.feed import Rows
    from batchonnx.lifecycle.gates import Gates
    from batchonnx.lifecycle.making import Trial

target_argument = click.argument("target", type=click.Path(path_type=Path))
batch_option = click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    help="Take speed at this size. May be repeated.",
)
fix_option = click.option(
    "--fix",
    multiple=True,
    metavar="NAME=N",
    help="Fix an open dimension, or an input's shape: INPUT=1x3x224x224. May be repeated.",
)


def trial_options(command: Command) -> Command:
    """How what is made is tried against SOURCE: the options of rows and gates, --output and --batch.

    The command is given it as `trial`.
    """

    @rows_options
    @gate_options
    @output_option
    @batch_option
    @wraps(command)
    def with_trial(
        rows: Rows, gates: Gates, outputs: tuple[str, ...], batches: tuple[int, ...], **others: Any
    ) -> None:
        from batchonnx.lifecycle.compare import SIZES
        from batchonnx.lifecycle.making import Trial

        command(trial=Trial(rows, gates, batches or SIZES, outputs or None), **others)

    return with_trial


@click.command()
@click.argument("source")
@target_argument
@click.option("--simplify", is_flag=True, help="Fold constants, drop what computes nothing. The default.")
@click.option(
    "--fuse", metavar="KIND", help="Fuse the blocks of a transformer of this kind: bert, gpt2, vit …"
)
@click.option(
    "--heads", type=click.IntRange(1), help="Its number of heads; found in the graph if left out (bert)."
)
@click.option(
    "--hidden", type=click.IntRange(1), help="Its hidden size; found in the graph if left out (bert)."
)
@click.option("--half", is_flag=True, help="Compute in float16; inputs and outputs stay as they are.")
@click.option(
    "--keep", multiple=True, metavar="NAME", help="With --half: an operator or node that stays in float32."
)
@click.option(
    "--graph",
    type=click.Choice(["basic", "extended", "all"]),
    help="Save what ONNX Runtime makes of it; all is for this kind of CPU alone.",
)
@fix_option
@trial_options
@json_option
def optimize(
    source: str,
    target: Path,
    simplify: bool,
    fuse: str | None,
    heads: int | None,
    hidden: int | None,
    half: bool,
    keep: tuple[str, ...],
    graph: Any,
    fix: tuple[str, ...],
    trial: Trial,
    as_json: bool,
) -> None:
    """Make a model with less work for the same answers of SOURCE, and write it to TARGET.

    It is compared with SOURCE. If it is slower, or a gate is missed, there is no TARGET but a report, and the
    exit code is 4.

    \b
    Examples:
      batchonnx model optimize model.onnx small.onnx
      batchonnx model optimize model.onnx fused.onnx --fuse bert --job job.yaml
      batchonnx model optimize model.onnx half.onnx --half --keep Softmax --min-speedup 0
      batchonnx model optimize model.onnx here.onnx --graph all --fix batch=32
    """
    from batchonnx.lifecycle.optimize import Passes
    from batchonnx.lifecycle.optimize import optimize as make

    passes = Passes(fixed_sizes(fix), simplify, fuse, heads or 0, hidden or 0, half, keep, graph)
    _tell(make(source, target, passes, trial), target, as_json)


@click.command()
@click.argument("source")
@target_argument
@click.option(
    "--method",
    type=click.Choice(["dynamic", "static", "weights4", "weights8"]),
    default="dynamic",
    help="int8 with scales of each batch; int8 with scales of a job's rows; weights alone, in 4 or 8 bits.",
)
@click.option("--per-tensor", is_flag=True, help="One scale for all int8 weights of a layer.")
@click.option("--exclude", multiple=True, metavar="NAME", help="An operator or node that stays in float32.")
@click.option(
    "--search", is_flag=True, help="Leave the worst layers in float32, as few as the gates of answers take."
)
@click.option("--calibration-rows", type=click.IntRange(1), help="With --method static: 200 if left out.")
@click.option(
    "--calibration",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    default="minmax",
    help="With --method static: how ranges are chosen.",
)
@trial_options
@json_option
def quantize(
    source: str,
    target: Path,
    method: Any,
    per_tensor: bool,
    exclude: tuple[str, ...],
    search: bool,
    calibration_rows: int | None,
    calibration: Any,
    trial: Trial,
    as_json: bool,
) -> None:
    """Make a model with smaller numbers of SOURCE, and write it to TARGET.

    It is compared with SOURCE. If it is slower, or a gate is missed, there is no TARGET but a report, and the
    exit code is 4.

    \b
    Examples:
      batchonnx model quantize model.onnx model.int8.onnx --job job.yaml --min-speedup 1.5
      batchonnx model quantize model.onnx static.onnx --method static --job job.yaml --min-agreement 0.95
      batchonnx model quantize model.onnx static.onnx --method static --job job.yaml --search
      batchonnx model quantize model.onnx int4.onnx --method weights4 --exclude Gemm
    """
    from batchonnx.lifecycle.quantize import Quantization
    from batchonnx.lifecycle.quantize import quantize as make
    from batchonnx.lifecycle.quantize.how import CALIBRATION_ROWS

    count = calibration_rows or CALIBRATION_ROWS
    how = Quantization(method, not per_tensor, exclude, count, calibration, search)
    _tell(make(source, target, how, trial), target, as_json)


@click.command()
@click.argument("source")
@target_argument
@click.option("--opset", type=click.IntRange(1), help="Of ONNX's own operators, up or down.")
@click.option(
    "--weights",
    type=click.Choice(["inside", "beside"]),
    help="In the model's own file, or beside it in TARGET.data.",
)
@click.option("--this-cpu", is_flag=True, help="With a TARGET.ort: for this kind of CPU alone, and faster.")
@click.option("--mobile", is_flag=True, help="Tell what NNAPI, CoreML and XNNPACK would take of SOURCE.")
@fix_option
@trial_options
@json_option
def convert(
    source: str,
    target: Path,
    opset: int | None,
    weights: Any,
    this_cpu: bool,
    mobile: bool,
    fix: tuple[str, ...],
    trial: Trial,
    as_json: bool,
) -> None:
    """Write the model SOURCE in another form: TARGET.ort is in ONNX Runtime's own format.

    It is compared with SOURCE. If answers are more than 1e-4 apart, or a gate is missed, there is no TARGET
    but a report, and the exit code is 4.

    \b
    Examples:
      batchonnx model convert model.onnx model.ort --mobile
      batchonnx model convert model.onnx model.ort --this-cpu
      batchonnx model convert model.onnx new.onnx --opset 21 --weights beside
      batchonnx model convert model.onnx phone.onnx --fix batch=1
    """
    from batchonnx.lifecycle.convert import Form, mobile_usability
    from batchonnx.lifecycle.convert import convert as make
    from batchonnx.report.usability_view import format_usability

    form = Form(fixed_sizes(fix), opset, weights, this_cpu)
    usable = mobile_usability(source) if mobile else []
    if usable and not as_json:
        say(format_usability(usable))
    more = {"mobile": [asdict(one) for one in usable]} if mobile else {}
    _tell(make(source, target, form, trial), target, as_json, more)


def _tell(found: Comparison, target: Path, as_json: bool, more: Mapping[str, object] | None = None) -> None:
    """Print the comparison of the model that was made. more: what else to tell as JSON."""
    from batchonnx.lifecycle.comparison_report import as_markdown, report_paths

    complain(f"wrote {target} and {report_paths(target)[1]}")
    told = json.dumps({**found.as_dict(), **(more or {})}, indent=1) if as_json else as_markdown(found)
    say(told, nl=as_json)
