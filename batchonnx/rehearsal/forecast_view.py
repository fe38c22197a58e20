"""A forecast in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from batchonnx.rehearsal.forecast import Crew, Forecast
from batchonnx.report.prices import format_cost
from batchonnx.report.text import amount, count, duration, of_bytes, printable


def format_forecast(forecast: Forecast) -> str:
    """What a run will take, in a screenful."""
    return "\n".join(printable(line) for line in _lines(forecast))


def forecast_as_dict(forecast: Forecast) -> dict[str, object]:
    """For `--json`; keys are documented in docs/rehearsals.md."""
    return asdict(forecast)


def _lines(forecast: Forecast) -> Iterator[str]:
    given = forecast.crews[0]
    tried = f"{count(forecast.tried_rows)} of {count(forecast.rows)} rows were tried"
    how = f"{forecast.engine} engine, batches of {count(forecast.batch_rows)} rows"
    yield f"  forecast {tried} in {duration(forecast.tried_s)}; {how}"
    between = f"{duration(given.low)} to {duration(given.high)}"
    fixed = f"{duration(forecast.startup_s)} of it whatever the rows"
    yield f"  time     {duration(given.seconds)} ({between}), {fixed}"
    if forecast.rows_per_s:
        yield f"  rate     {count(forecast.rows_per_s)} rows/s"
    if forecast.busy:
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in forecast.busy.items())
        yield f"  stages   {shares}"
    yield f"  result   {of_bytes(forecast.output_bytes)}"
    if forecast.requests:
        told = ", ".join(f"{name} {count(number)}" for name, number in forecast.requests.items())
        yield f"  store    about {count(sum(forecast.requests.values()))} requests: {told}"
    if given.cost is not None:
        yield f"  cost     {format_cost(given.cost, str(forecast.currency))}"
    yield ""
    yield from _table(
        ["workers", "cores", "time", "between", "CPU hours", "GPU hours", "memory", "cost"], forecast
    )
    yield ""
    yield "  * as the job asks, and as it was tried; the others are reckoned from that, on as many cores"


def _table(heads: Sequence[str], forecast: Forecast) -> Iterator[str]:
    rows = [list(_cells(crew)) for crew in forecast.crews]
    kept = [place for place in range(len(heads)) if any(row[place] for row in rows)]
    widths = {place: max(len(row[place]) for row in [list(heads), *rows]) for place in kept}
    for row in [list(heads), *rows]:
        yield "  " + "  ".join(f"{row[place]:>{widths[place]}}" for place in kept)


def _cells(crew: Crew) -> Iterator[str]:
    yield f"{crew.workers}{' *' if crew.is_tried else '  '}"
    yield str(crew.cores)
    yield duration(crew.seconds)
    yield f"{duration(crew.low)} to {duration(crew.high)}"
    yield amount(crew.cpu_hours)
    yield amount(crew.gpu_hours) if crew.gpu_hours else ""
    yield of_bytes(crew.memory) if crew.memory is not None else ""
    yield amount(crew.cost.total) if crew.cost is not None else ""
