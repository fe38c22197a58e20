"""What people see."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from batchonnx.report import live
from batchonnx.report.live import live_view, progress_line
from batchonnx.report.preview import format_preview, format_rows
from batchonnx.report.summary import format_summary
from batchonnx.report.text import amount, duration, moment, of_bytes, plural, printable, shorten
from batchonnx.scoring.progress import Progress, RunSummary
from batchonnx.watch.pace import Pace


def progress(rows: int, elapsed: float, total: int | None = 1000, **busy: float) -> Progress:
    return Progress(1, 4, rows, total, elapsed, 2, busy)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (14_842_769, "14.8 MB"),
        (999_600, "1 MB"),
        (2.5e15, "2.5e+03 TB"),
    ],
)
def test_bytes(number: float, text: str) -> None:
    assert of_bytes(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "0.00 s"),
        (0.42, "0.42 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (1234.5, "1,234"),
        (12.3456, "12.35"),
        (2.0, "2"),
        (0.99996, "1"),
        (0.0000418349, "0.0000418"),
    ],
)
def test_hours_and_money_have_no_exponent(number: float, text: str) -> None:
    assert amount(number) == text


def test_a_moment_is_told_in_utc_and_anything_else_as_it_is() -> None:
    assert moment("2026-11-22T02:15:04.312Z") == "2026-11-22 02:15:04 UTC"
    assert moment("2026-11-22T02:15:04Z") == "2026-11-22 02:15:04 UTC"
    assert moment("yesterday") == "yesterday"


def test_words() -> None:
    assert plural(1, "row") == "1 row"
    assert plural(2000, "batch") == "2,000 batches"
    assert shorten("abcdef", 4) == "abc…"
    assert printable("a\tb") == "a\\tb"


def noted(*moments: Progress) -> Pace:
    pace = Pace()
    for one in moments:
        pace.note(one)
    return pace


def test_the_line_says_rows_rate_eta_and_what_holds_the_job_back() -> None:
    moment = progress(250, 2.0, read=1.0, predict=3.0)
    assert progress_line(moment, noted(moment)) == (
        "250 of 1,000 rows (25%)  125 rows/s  ETA 6.0 s  predict holds it back (75%)"
    )


def test_the_line_does_without_a_total_and_tells_of_trouble() -> None:
    moment = Progress(1, 4, 250, None, 2.0, 2, {}, quarantined=3, retries=1, lost=1, copied=2)
    assert progress_line(moment, noted(moment)) == (
        "250 rows, 1 of 4 shards  125 rows/s  ETA 6.0 s  3 quarantined  1 retried  1 worker died  "
        "2 shards sent out again"
    )


def test_plain_lines_come_only_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with live_view(quiet=False) as show:
        assert show is not None
        for second in range(26):
            show(progress(second, float(second), 26))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert live.PLAIN_EVERY_S == 10
    assert lines[0].startswith("10 of 26 rows")


def test_quiet_shows_nothing() -> None:
    with live_view(quiet=True) as show:
        assert show is None


def test_the_summary_accounts_for_every_row() -> None:
    summary = RunSummary(
        "j\x1b", "/out", 11, 7, 1, 3, 1, 100, 2.0, 0.5, {"read": 1.0, "write": 3.0}, 2, 1, 64, 1, ("narrows",)
    )
    text = format_summary(summary)
    assert "11 rows in = 7 predicted + 1 quarantined + 3 filtered out" in text
    assert "read 25%, write 75%" in text
    assert "6 rows/s" in text
    assert "narrows" in text
    assert "\x1b" not in text


def test_the_preview_is_small_and_harmless() -> None:
    rows = {
        "id": range(20),
        "text": ["a\x1b[31m" + "x" * 100] * 20,
        "probabilities": pa.array([[0.123456789, 1.0]] * 20, pa.list_(pa.float32(), 2)),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(
            __import__("numpy").ones((20, 2, 2), "float32")
        ),
        "top": [[{"label": "cat", "score": 0.5}]] * 20,
        "nothing": pa.nulls(20),
    }
    lines = format_rows(pa.table(rows).to_batches()).splitlines()
    assert len(lines) == 7
    assert "[0.123457, 1]" in lines[2]
    assert "{label: cat, score: 0.5}" in lines[2]
    assert "\x1b" not in "".join(lines)


def test_the_preview_of_nothing_is_nothing(tmp_path: Path) -> None:
    assert format_rows(pa.table({"a": pa.array([], pa.int64())}).to_batches()) == ""
    assert format_preview(tmp_path) == ""
