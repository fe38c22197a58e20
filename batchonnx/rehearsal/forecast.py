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
from batchonnx.rehearsal.rehearse import Rehearsal, rehearse
from batchonnx.rehearsal.scratch import into, scratch_place
from batchonnx.report.prices import Cost, Prices, cost_of, hours_of
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

MOST_TRIES = 4
"""Of larger samples, until one is large enough."""

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
    tries, whole = list[Rehearsal](), Sample(len(plan.shards))
    with scratch_place(job) as place:
        if small is not None:
            tries.append(rehearse(into(job, place, "small"), small))
            if (took_s := _scoring_s(tries[0])) > TELLING_S:
                # Workers that share cores may be slower than one that was alone.
                row_s = took_s * workers / max(1, _read(plan, tries[0]))
                large = choose_samples(plan, rows, row_s, workers, budget_s)[1]
        for number in range(MOST_TRIES):
            tried = large
            tries.append(rehearse(into(job, place, f"large-{number}"), tried))
            if tried == whole or _scoring_s(tries[-1]) > budget_s / 2:
                break
            # Few rows fill no batch, and say little: more of them take less time for each.
            row_s = min(row_s / 2, _scoring_s(tries[-1]) * workers / max(1, _read(plan, tries[-1])))
            large = choose_samples(plan, rows, row_s, workers, budget_s)[1]
    if tried == whole:
        return foretell(plan, _read(plan, tries[-1]), tries[-1:], prices)
    return foretell(plan, rows, tries[-2:], prices)


def choose_samples(
    plan: Plan, rows: float, row_s: float, workers: int, budget_s: float
) -> tuple[Sample | None, Sample]:
    """A smaller and a larger one; the latter alone where it is the whole job, or as little as tells anything.

    rows: in all shards, about. row_s: seconds to score one in one thread. Pieces are whole shards unless
    those are too large; they have a whole batch, or a whole window of texts, however long that takes: few
    texts make other batches than many.
    """
    shards = len(plan.shards)
    wanted = budget_s * workers / row_s if row_s else float("inf")
    if rows <= wanted:
        return None, Sample(shards)
    each = rows / shards
    if wanted / each >= 2 * workers:
        pieces, length = int(wanted / each), None
    else:
        # Beginnings of shards if there are enough of them; else rows are skipped, which costs a little.
        most = min(PIECES * workers, shards) if shards >= 2 * workers else PIECES * workers
        length = max(1, int(max(wanted / most, min(plan.whole_rows, each))))
        pieces = max(1, min(most, int(wanted / length)))
    small = Sample(max(1, pieces // PIECES), length) if pieces > 1 else None
    return small, Sample(pieces, length)


def foretell(plan: Plan, rows: float, tries: list[Rehearsal], prices: Prices | None) -> Forecast:
    """From what the tries took, of the smaller sample and the larger one, to what the plan will take.

    rows: as for `choose_samples`.
    """
    last, summary = tries[-1], tries[-1].summary
    tried = _read(plan, last)
    pace = _pace(plan, tries)
    beyond_s = max(0.0, rows - tried) * pace.row_s
    seconds = last.wall_s + beyond_s
    half = SURE * seconds + beyond_s * max(pace.doubt, 2 * _unsteadiness(last))
    startup_s = max(0.0, last.wall_s - pace.row_s * tried)
    names = sorted({name for one in tries for name in one.summary.requests})
    requests = {name: _by_shards(name, len(plan.shards), tries) for name in names}
    output_bytes = summary.bytes * rows / max(1, tried)
    reckon = _Reckoning(plan, last, prices, requests, output_bytes)
    crews = [reckon(summary.workers, seconds, half, is_tried=True)]
    cores = summary.workers * summary.threads_per_worker
    for others in OTHER_CORES:
        workers = others // summary.threads_per_worker
        if workers and others != cores and workers <= max(1, plan.pieces):
            took = startup_s + (seconds - startup_s) * cores / others
            crews.append(reckon(workers, took, UNSURE * took, is_tried=False))
    total = sum(summary.busy_s.values())
    return Forecast(
        job=summary.job,
        engine=summary.engine,
        rows=rows,
        tried_rows=tried,
        tried_s=sum(one.wall_s for one in tries),
        startup_s=startup_s,
        rows_per_s=1 / pace.row_s if pace.row_s else 0.0,
        batch_rows=summary.batch_rows,
        output_bytes=output_bytes,
        requests=requests,
        busy={stage: took / total for stage, took in summary.busy_s.items()} if total else {},
        currency=prices.currency if prices else None,
        crews=tuple(crews),
    )


@dataclass(frozen=True)
class _Pace:
    """row_s: seconds for each row. doubt: half of what two ways to know it differ by, as a share of it."""

    row_s: float
    doubt: float


def _pace(plan: Plan, tries: list[Rehearsal]) -> _Pace:
    """By the difference between both tries, and by the larger one's own scoring.

    The one has all that a row costs in it, and whatever else the machine did; the other is steadier, and
    leaves out what only shards cost.
    """
    last = tries[-1]
    tried = _read(plan, last)
    within = _scoring_s(last) / max(1, tried)
    more = tried - _read(plan, tries[0])
    if more <= 0:
        return _Pace(within, 0.0)
    between = max(0.0, last.wall_s - tries[0].wall_s) / more
    row_s = (within + between) / 2
    return _Pace(row_s, abs(within - between) / 2 / row_s if row_s else 0.0)


@dataclass(frozen=True)
class _Reckoning:
    """What so many workers take, by what the larger try took. Requests and bytes are the whole run's."""

    plan: Plan
    tried: Rehearsal
    prices: Prices | None
    requests: Mapping[str, float]
    output_bytes: float

    def __call__(self, workers: int, seconds: float, half: float, *, is_tried: bool) -> Crew:
        """half: of the width between the bounds."""
        summary, watched = self.tried.summary, self.tried.watched
        is_ray = summary.engine == "ray"
        cores = workers * summary.threads_per_worker
        gpus = self.plan.job.job.engine.resources.num_gpus if is_ray else 0.0
        hours = hours_of(seconds, workers, summary.threads_per_worker, gpus)
        each = max(0, watched.peak_bytes - watched.base_bytes) / max(1, summary.workers)
        cost = None
        if self.prices is not None:
            cost = cost_of(self.prices, hours, self.requests, self.output_bytes)
        return Crew(
            workers=workers,
            cores=cores,
            seconds=seconds,
            low=max(0.0, seconds - half),
            high=seconds + half,
            cpu_hours=hours.cpu,
            gpu_hours=hours.gpu,
            memory=None if is_ray else int(watched.base_bytes + each * workers),
            cost=cost,
            is_tried=is_tried,
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


def _scoring_s(tried: Rehearsal) -> float:
    """From a try's first prediction until its last row was read and scored."""
    end_s = tried.watched.trace[-1][0] if tried.watched.trace else tried.wall_s
    return max(0.0, end_s - _first_s(tried))


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
