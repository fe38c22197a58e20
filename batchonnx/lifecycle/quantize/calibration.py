"""Which values a model's tensors take on a job's own rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchonnx.errors import ContractError, Problem
from batchonnx.lifecycle.contender import open_feeds
from batchonnx.lifecycle.feed import Feed, JobRows, RandomRows, Rows, Tensors, spans
from batchonnx.lifecycle.making import Source
from batchonnx.lifecycle.quantize.prepare import Prepared
from batchonnx.scoring.chunk import BadRow

BATCH_ROWS = 8
"""Rows in one call: all activations of a call are in memory at once."""

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


class _Batch:
    """One batch, as ONNX Runtime's calibrators ask for their data."""

    def __init__(self, tensors: Tensors) -> None:
        self._left: list[Tensors] = [tensors]

    def get_next(self) -> Tensors | None:
        return self._left.pop() if self._left else None


def split_rows(source: Source, rows: Rows | None, count: int) -> tuple[Feed, int, Rows, str]:
    """Rows to calibrate on, how many of them, and others to compare on, with a note on the two.

    Of a job, the first `count` rows, and those behind them; of fewer rows than that, a half each. Given rows
    are for both.
    Raises ContractError for rows drawn at random, InputError for a job without rows.
    """
    if rows is None or isinstance(rows, RandomRows):
        facts = {"model": source.file.path, "found": "no rows"}
        fix = "give rows: --job JOB, or --inputs FILE.npz; or quantize without them: --method dynamic"
        raise ContractError(Problem("static quantization is calibrated on rows of a job", facts, fix))
    if not isinstance(rows, JobRows):
        (feed,) = open_feeds(rows, source.contender)
        count = min(count, feed.rows)
        return feed, count, rows, f"calibrated on {count} of the rows that it is compared on"
    (feed,) = open_feeds(replace(rows, count=count + rows.count), source.contender)
    used = min(count, max(1, feed.rows // 2))
    if feed.rows < 2:
        return feed, used, rows, "calibrated on the one row that it is compared on"
    return feed, used, replace(rows, skip=used), f"calibrated on {used} other rows of the job"


def measure_ranges(prepared: Prepared, operators: list[str], feed: Feed, count: int, method: str) -> Any:
    """ONNX Runtime's ranges of the tensors at those operators, over the first `count` rows."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    calibrator = create_calibrator(
        prepared.path,
        operators,
        augmented_model_path=str(prepared.path.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod[METHODS[method]],
        use_external_data_format=prepared.is_large,
        providers=["CPUExecutionProvider"],
    )
    for start, stop in spans(feed, BATCH_ROWS):
        if start < count:
            for batch in _batches(feed, start, min(stop, count) if feed.fixed_batch is None else stop):
                calibrator.collect_data(_Batch(batch))
    return calibrator.compute_data()


def _batches(feed: Feed, start: int, stop: int) -> list[Tensors]:
    try:
        return [feed.tensors(start, stop)]
    except BadRow:  # these rows can't be in one batch
        return [feed.tensors(row, row + 1) for row in range(start, stop)]
