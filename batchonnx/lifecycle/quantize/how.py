"""What may be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CALIBRATION_ROWS = 200

Method = Literal["dynamic", "static", "weights4", "weights8"]


@dataclass(frozen=True)
class Quantization:
    """How to quantize.

    method: "dynamic": int8, each batch with scales of its own; "static": int8, with scales that are measured
    on a job's rows; "weights4", "weights8": the weights of matrix products alone, in as many bits.
    per_channel: a scale for each output channel of int8 weights, instead of one for all. exclude: nodes, or
    operators, that stay in float32. calibration_rows, calibration ("minmax", "entropy", "percentile"): of
    "static". search: leave the worst layers in float32, as few as it takes for the gates of answers to hold.
    """

    method: Method = "dynamic"
    per_channel: bool = True
    exclude: Sequence[str] = ()
    calibration_rows: int = CALIBRATION_ROWS
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"
    search: bool = False
