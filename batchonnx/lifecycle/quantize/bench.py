"""What all quantized versions of one model share: it is prepared, and measured, once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.making import Source, Trial
from batchonnx.lifecycle.quantize import methods
from batchonnx.lifecycle.quantize.calibration import measure_ranges, split_rows
from batchonnx.lifecycle.quantize.how import Quantization
from batchonnx.lifecycle.quantize.prepare import excluded_nodes, prepare
from batchonnx.lifecycle.tools import working_on


class Bench:
    """A prepared model, and a quantizer for it.

    trial: the one that was asked for, on rows that nothing was calibrated on. notes: for the report.
    excluded: nodes that were asked to stay as they are.
    """

    def __init__(self, source: Source, asked: Quantization, trial: Trial, folder: Path) -> None:
        """folder: for files on the way. Raises ModelFileError, ContractError, what a job's plan raises."""
        self.source, self.asked, self.trial = source, asked, trial
        self.notes: list[str] = []
        feed = None
        if asked.method == "static":
            feed, count, rows, note = split_rows(source, trial.rows, asked.calibration_rows)
            self.trial = replace(trial, rows=rows)
            self.notes.append(note)
        self.prepared = prepare(source.file, folder, keeps_gemm=asked.method == "static")
        if not self.prepared.layers:  # such as of trees: the quantizers fail on some of these
            raise self.nothing()
        self.excluded = excluded_nodes(self.prepared, asked.exclude, source.file)
        with working_on(source.file, "ONNX Runtime's calibration", "try --calibration minmax"):
            if feed is not None:
                operators = methods.static_operators()
                ranges = measure_ranges(self.prepared, operators, feed, count, asked.calibration)
                self._write = methods.static(self.prepared, asked.per_channel, ranges)
            elif asked.method == "dynamic":
                self._write = methods.dynamic(self.prepared, asked.per_channel)
            else:
                self._write = methods.weights_only(self.prepared, int(asked.method[-1]))

    def nothing(self) -> ContractError:
        """The error for a model that stays as it is."""
        kinds = ", ".join(sorted(set(self.prepared.operators.values())))
        facts = {"model": self.source.file.path, "operators": kinds}
        fix = "leave the model as it is, exclude less, or try another method"
        title = f"{self.asked.method} quantization finds nothing in the model to quantize"
        return ContractError(Problem(title, facts, fix))

    def write(self, excluded: Collection[str], path: Path) -> None:
        """A quantized model. Raises ModelFileError."""
        fix = "leave out what it fails on: --exclude OPERATOR"
        with working_on(self.source.file, "ONNX Runtime's quantizer", fix):
            self._write(self.excluded | frozenset(excluded), path)
