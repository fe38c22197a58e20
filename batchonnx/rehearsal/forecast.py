"""What a run will take, from runs of samples: a smaller and a larger one, and the line through both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import mean, pstdev

from batchonnx.driver.run import open_job
from batchonnx.job.spec import JobFile
from batchonnx.planning.plan import Plan
from batchonnx.planning.sample import Sample
from batchonnx.rehearsal.pace import about_rows, seconds_per_row
from batchonnx.rehearsal.prices import Cost, Prices, cost_of
from batchonnx.rehearsal.rehearse import Rehearsal, rehearse
from batchonnx.rehearsal.scratch import into, scratch_place
from batchonnx.runtime.cores import usable_cores

PROBE_S = 5.0
"""How long the larger try scores if nobody says."""

PIECES = 4
"""For each worker in the larger sample, so that none waits long for the others; one in the smaller."""

SURE, UNSURE = 0.1, 0.25
"""A run that was tried as it will be comes out within so much of itself on a machine that does nothing else;
one of another size may do worse, by what sharing cores, disk and network costs."""

TELLING_S = 0.2
"""A try that scores for less says nothing of its speed."""

WINDOWS = 5
OTHER_CORES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Crew:
    """What a run will take with so many workers.

    seconds: wall time, from the command to its end; low, high: what it should lie between. memory: most
    bytes, None where the workers are processes of other machines. is_tried: whether it was run so.
    """

    workers: int
    cores: int
    seconds: float
    low: float
    high: float
    cpu_hours: float
    gpu_hours: float
    memory: int | None
    cost: Cost | None
    is_tried: bool


@dataclass(frozen=True)
class Forecast:
    """What a run of a job will take.

    rows: in all; about, where only reading tells. tried_rows, tried_s: what was run for this, and how long
    that took. startup_s: what doesn't grow with the rows. crews: as the job asks, then others.
    output_bytes, requests: of the whole run. busy: stage -> its share of the work.
    """

    job: str
    engine: str
    rows: float
    tried_rows: int
    tried_s: float
    startup_s: float
    rows_per_s: float
    batch_rows: int
    output_bytes: float
    requests: Mapping[str, float]
    busy: Mapping[str, float]
    currency: str | None
    crews: tuple[Crew, ...]


def make_forecast(job: JobFile, prices: Prices | None, budget_s: float) -> Forecast:
    """Try the job on a few of its rows, in scratch folders beside its output, and say what all of them take.

    budget_s: about how long the larger of two tries may score; a job that takes less is tried as a whole.
    Raises what `api.plan` raises, DriverError with what has ended a try, StorageError.
    """
    plan, model = open_job(job)
    rows = float(plan.rows) if plan.rows is not None else about_rows(plan)
    row_s = seconds_per_row(plan, model)
    del model  # its memory is the tries' now
    workers = _workers(job)
    small, large = choose_samples(plan, rows, row_s, workers, budget_s)
    tries: list[Rehearsal] = []
    with scratch_place(job) as place:
        if small is not None:
            tries.append(rehearse(into(job, place, "small"), small))
            scoring_s = tries[0].wall_s - _first_s(tries[0])
            if scoring_s > TELLING_S:  # workers that share cores may be slower than one that was alone
                row_s = scoring_s * workers / max(1, _read(plan, tries[0]))
                large = choose_samples(plan, rows, row_s, workers, budget_s)[1]
        tries.append(rehearse(into(job, place, "large"), large))
    return foretell(plan, rows, tries, prices)


def choose_samples(
    plan: Plan, rows: float, row_s: float, workers: int, budget_s: float
) -> tuple[Sample | None, Sample]:
    """A smaller and a larger one; the whole job, alone, where that is what the budget allows.

    rows: in all shards, about. row_s: seconds to score one in one thread. Pieces are whole shards unless
    those are too large.
    """
    shards = len(plan.shards)
    wanted = budget_s * workers / row_s if row_s else float("inf")
    if rows <= wanted:
        return None, Sample(shards)
    each = rows / shards
    if wanted / each >= 2 * workers:
        pieces = int(wanted / each)
        return Sample(max(1, pieces // PIECES)), Sample(pieces)
    # Beginnings of shards if there are enough of them; else rows are skipped, which costs a little.
    pieces = min(PIECES * workers, shards) if shards >= 2 * workers else PIECES * workers
    length = max(1, int(wanted / pieces))
    return Sample(max(1, pieces // PIECES), length), Sample(pieces, length)


def foretell(plan: Plan, rows: float, tries: list[Rehearsal], prices: Prices | None) -> Forecast:
    """From what the tries took, of the smaller sample and the larger one, to what the plan will take."""
    last = tries[-1]
    tried = _read(plan, last)
    rows = rows if len(tries) > 1 else tried
    row_s = max(0.0, last.wall_s - _first_s(last)) / max(1, tried)
    if len(tries) > 1:
        before = _read(plan, tries[0])
        row_s = max(0.0, last.wall_s - tries[0].wall_s) / max(1, tried - before)
    startup_s = max(0.0, last.wall_s - row_s * tried)
    beyond_s = max(0.0, rows - tried) * row_s
    seconds = last.wall_s + beyond_s
    half = SURE * seconds + 2 * _unsteadiness(last) * beyond_s
    summary = last.summary
    shards = len(plan.shards)
    requests = {
        name: _by_shards(name, shards, tries)
        for name in sorted({n for t in tries for n in t.summary.requests})
    }
    output_bytes = summary.bytes * rows / max(1, tried)
    threads = summary.threads_per_worker
    gpus = plan.job.job.engine.resources.num_gpus if summary.engine == "ray" else 0.0

    def crew(workers: int, took: float, low: float, high: float, *, is_tried: bool) -> Crew:
        cores = workers * threads
        hours = took / 3600
        cost = (
            cost_of(prices, hours * cores, hours * gpus * workers, requests, output_bytes) if prices else None
        )
        each = max(0, last.watched.peak_bytes - last.watched.base_bytes) / max(1, summary.workers)
        memory = int(last.watched.base_bytes + each * workers) if summary.engine == "local" else None
        return Crew(
            workers, cores, took, low, high, hours * cores, hours * gpus * workers, memory, cost, is_tried
        )

    crews = [crew(summary.workers, seconds, max(0.0, seconds - half), seconds + half, is_tried=True)]
    given = summary.workers * threads
    for cores in OTHER_CORES:
        workers = cores // threads
        if workers and cores != given and workers <= max(1, plan.chunks):
            took = min(startup_s, seconds) + max(0.0, seconds - startup_s) * given / cores
            crews.append(crew(workers, took, took * (1 - UNSURE), took * (1 + UNSURE), is_tried=False))
    total = sum(summary.busy_s.values())
    return Forecast(
        job=summary.job,
        engine=summary.engine,
        rows=rows,
        tried_rows=tried,
        tried_s=sum(one.wall_s for one in tries),
        startup_s=startup_s,
        rows_per_s=1 / row_s if row_s else 0.0,
        batch_rows=summary.batch_rows,
        output_bytes=output_bytes,
        requests=requests,
        busy={stage: took / total for stage, took in summary.busy_s.items()} if total else {},
        currency=prices.currency if prices else None,
        crews=tuple(crews),
    )


def _workers(job: JobFile) -> int:
    asked = job.job.engine.workers
    if isinstance(asked, int):
        return asked
    return asked.max if not isinstance(asked, str) else usable_cores()


def _read(plan: Plan, tried: Rehearsal) -> int:
    """Rows of a try that were read: all others count as filtered out in its summary."""
    if tried.watched.rows is not None:
        return tried.watched.rows
    return tried.summary.rows_in - plan.pruned_rows


def _first_s(tried: Rehearsal) -> float:
    """From the start of a try's process to its first prediction."""
    return tried.wall_s - tried.summary.elapsed_s + (tried.summary.first_row_s or 0.0)


def _by_shards(name: str, shards: int, tries: list[Rehearsal]) -> float:
    """Requests of one kind for so many shards: some for the run, some for each of them."""
    last = tries[-1]
    sent = last.summary.requests.get(name, 0)
    if len(tries) == 1 or last.watched.shards == tries[0].watched.shards:
        return float(sent)
    before = tries[0].summary.requests.get(name, 0)
    each = max(0.0, (sent - before) / (last.watched.shards - tries[0].watched.shards))
    return sent + each * max(0, shards - last.watched.shards)


def _unsteadiness(tried: Rehearsal) -> float:
    """How far a try's mean speed may be off: the spread of its windows, over the root of their number."""
    trace = [point for point in tried.watched.trace if point[1]]
    if len(trace) < 2 * WINDOWS:
        return SURE
    marks = [trace[place * (len(trace) - 1) // WINDOWS] for place in range(WINDOWS + 1)]
    rates = [(rows - first) / (now - begun) for (begun, first), (now, rows) in pairwise(marks) if now > begun]
    return pstdev(rates) / mean(rates) / sqrt(len(rates)) if rates and mean(rates) else SURE
