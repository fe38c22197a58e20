"""A run: lease, plan, what is missing, gate, publication."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from time import perf_counter

from batchonnx.driver.account import Begin, begin_now, describe_work, remember
from batchonnx.driver.describe import describe_plan, describe_result
from batchonnx.driver.devices import feeders, open_devices
from batchonnx.driver.incremental import keep_unchanged
from batchonnx.driver.scoring import begin_engine, probe_of, score
from batchonnx.driver.table import TableStep, check_table, table_step
from batchonnx.engines.engine import Engine
from batchonnx.engines.events import Published, RunStarted, Tell, Warned
from batchonnx.engines.ray.beginning import Beginning
from batchonnx.errors import Interrupted, Problem, StorageError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger.output import Cleared, Output, Run
from batchonnx.ledger.outputs import output_at
from batchonnx.ledger.records import Commit, Manifest, PlanRecord, lines_of
from batchonnx.parts.layout import Layout
from batchonnx.planning.devices import choose_device, device_notes
from batchonnx.planning.engine_shapes import with_engine_shapes
from batchonnx.planning.lines import check_lines
from batchonnx.planning.models import open_models
from batchonnx.planning.parts import check_parts
from batchonnx.planning.plan import Plan, make_plan
from batchonnx.planning.stores import use_stores
from batchonnx.planning.written import layout_of, output_schema
from batchonnx.proof.gate import Measured, check_result, require_passed
from batchonnx.proof.published import read_parts
from batchonnx.runtime.chain import open_again
from batchonnx.runtime.cores import divide_cores, usable_cores
from batchonnx.runtime.device import CPU
from batchonnx.runtime.providers import words_for
from batchonnx.runtime.session import Model
from batchonnx.scoring.device_probe import known_size
from batchonnx.scoring.hook_processes import hook_processes
from batchonnx.scoring.probe import with_types
from batchonnx.scoring.progress import RunSummary, slowest_stage
from batchonnx.scoring.read import read_early
from batchonnx.storage.s3_requests import requests_sent
from batchonnx.watch.watching import watching


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run meets what is there already.

    overwrite: in place of the job's own. fresh: start over, whatever is there.
    incremental: keep the published parts whose input is unchanged.
    drain: set, no shard is begun any more, those in work are finished, and the run ends as interrupted.
    narrow: what of the plan is run; a rehearsal takes a sample.
    """

    overwrite: bool | None = None
    fresh: bool = False
    incremental: bool = False
    drain: threading.Event = dataclasses.field(default_factory=threading.Event)
    narrow: Callable[[Plan], Plan] = lambda plan: plan


def open_job(job: JobFile) -> tuple[Plan, Model]:
    """The job's plan, and its model on one thread; on the CPU, where workers are actors on other machines."""
    use_stores(job)
    device, why = choose_device(job)
    model = open_models(job, device if job.job.engine.name == "local" else CPU)
    notes = device_notes(job, device, why, model.placement)
    plan = with_engine_shapes(make_plan(job, model.signature, device))
    check_table(plan)
    if (rows := known_size(plan, model)) is not None:
        notes.append(f"engine.batch_rows: auto is {rows:,} on this device, as was found before")
    return dataclasses.replace(plan, notes=(*plan.notes, *notes)), model


def run_job(job: JobFile, options: RunOptions, stop: threading.Event, tell: Tell | None) -> RunSummary:
    """Score what is missing and publish the result. Raises as `api.run` tells.

    tell: called with each event, as are those whom the job itself names.
    """
    with watching(job, tell) as watch:
        summary = _run_watched(job, options, stop, watch)
        watch(Published(watch.run, summary))
        return summary


def _run_watched(job: JobFile, options: RunOptions, stop: threading.Event, tell: Tell) -> RunSummary:
    begin = begin_now()
    _go_on(stop)
    with begin_engine(job) as beginning, ExitStack() as after:
        plan, model = open_job(job)
        plan = options.narrow(plan)
        after.enter_context(hook_processes(plan))
        _go_on(stop)
        table = table_step(plan.job, plan.fingerprint, options.overwrite, incremental=options.incremental)
        output = output_at(plan.output, is_trusted=job.job.output.single_writer == "trusted")
        with output.hold_lease(on_lost=stop.set):
            output.settle()
            if table is None:
                summary = _run(plan, model, output, options, beginning, stop, tell, begin)[0]
            elif (done := table.done(output)) is not None:
                summary = _in_table(_summary(plan, done[0], perf_counter() - begin.clock), table, done[1])
            else:
                # Nobody knows of the run's folder: whatever is in it may be replaced.
                alone = dataclasses.replace(options, overwrite=True)
                summary, manifest = _run(plan, model, output, alone, beginning, stop, tell, begin)
                summary = _in_table(summary, table, table.add(output, manifest))
    return dataclasses.replace(summary, requests=dict(requests_sent() - begin.sent))


def publish_staged(output: Output, *, force: bool) -> Manifest:
    """Publish a run that is complete and was held back by the gate.

    force: whatever the gate has found. Raises GateError, StorageError if there is no such run,
    OutputExistsError if another result has appeared meanwhile, OutputBusyError.
    """
    with output.hold_lease(on_lost=lambda: None):
        output.settle()
        waiting = output.waiting()
        if waiting is None:
            facts = {"output": output.path}
            if (unfinished := output.unfinished()) is not None:
                facts["found"] = f"an unfinished run in {unfinished}"
            fix = "run the job: a run publishes its result by itself, unless the gate holds it back"
            raise StorageError(Problem("no complete run waits to be published", facts, fix))
        run, manifest = waiting
        if not force:
            require_passed(manifest.gate, output.path, run.where)
        former = output.read_manifest()
        is_expected = (former.run if former is not None else None) == manifest.replaces
        run.publish(manifest, overwrite=is_expected and former is not None)
        job = job_from_dict(run.plan.job, run.plan.folder)
        table = table_step(job, run.plan.fingerprint, None, incremental=False)
        if table is not None:
            use_stores(job)
            table.add(output, manifest)
        return manifest


def clean_output(output: Output) -> Iterator[Cleared]:
    """Remove what crashes have left and no run needs, as the caller goes on.

    Raises OutputBusyError, StorageError.
    """
    with output.hold_lease(on_lost=lambda: None):
        yield from output.clean()


def _run(
    plan: Plan,
    model: Model,
    output: Output,
    options: RunOptions,
    beginning: Beginning | None,
    stop: threading.Event,
    tell: Tell,
    begin: Begin,
) -> tuple[RunSummary, Manifest]:
    job = plan.job
    may_replace = job.job.output.overwrite if options.overwrite is None else options.overwrite
    may_replace = may_replace or options.fresh or options.incremental
    former = _former_manifest(output, may_replace)
    if former is not None and not options.fresh and _is_result_of(plan, former, output):
        return _summary(plan, former, perf_counter() - begin.clock), former
    output.check(may_replace)
    unchanged: tuple[Commit, ...] = ()
    since: PlanRecord | None = None
    if options.incremental and former is not None:
        since = output.read_plan(former)
        plan, unchanged = keep_unchanged(plan, output, since, former)
    kept = tuple(output.adopt(commit, plan.fingerprint) for commit in unchanged)
    workers, threads = 0, 1
    is_here = job.job.engine.name == "local"
    if is_here:
        budget = divide_cores(usable_cores(), _workers(job), plan.pieces)
        workers, threads = budget.workers, budget.threads_per_worker
    threads = threads if plan.device.is_cpu else 1
    if is_here and (threads > 1 or plan.device != model.device):
        model = open_again(plan.model, threads, plan.device)
        threads = model.threads
    devices = open_devices(plan, model)
    if not model.device.is_cpu:
        workers = feeders(devices, usable_cores(), _workers(job), plan.chunks)
    plan = with_types(plan, model)
    check_lines(plan.job, plan.keep, plan.outputs)
    types = {field.name: field.type for field in output_schema(plan)}
    check_parts(plan.job, types)
    check_table(plan)
    by_shard = {commit.shard: commit for commit in kept}
    with read_early(plan, workers if plan.listing.is_remote else 0) as early:
        run = output.open_run(describe_plan(plan, since, kept), by_shard, fresh=options.fresh)
        for shard in early.keys() & run.commits.keys():
            early.pop(shard).close()
        is_resumed = len(run.commits) > len(kept)
        told = tuple((name, str(kind)) for name, kind in types.items())
        tell(RunStarted(run.plan.run, plan, is_resumed, told))
        try:
            crew = (workers, threads, early)
            engine = score(plan, devices, run, former, beginning, crew, stop, options.drain, tell)
            for note in engine.notes:
                tell(Warned(note))
            pairs = tuple(zip(unchanged, kept, strict=True))
            manifest = _complete(plan, run, engine, output, former, pairs, begin)
            require_passed(manifest.gate, output.path, run.where)
            _go_on(stop)
            _go_on(options.drain)
            complete_at = perf_counter()
            run.publish(manifest, may_replace)
        except BaseException:
            run.discard_if_empty()
            raise
    first_at = engine.first_at
    summary = dataclasses.replace(
        _summary(plan, manifest, perf_counter() - begin.clock),
        first_row_s=first_at - begin.clock if first_at is not None else None,
        busy_s=engine.busy_s,
        engine=engine.name,
        device=words_for(plan.device),
        **dataclasses.asdict(engine.phases),
        workers=engine.workers,
        threads_per_worker=engine.threads,
        model_calls=engine.calls,
        resumed=len(run.commits) - len(kept),
        kept=len(kept),
        halved=engine.halved,
        apart=engine.apart,
        lost=engine.lost,
        copied=engine.copied,
        retries=engine.retries,
        slowest_stage=slowest_stage(engine.busy_s, reads_ahead=plan.listing.is_remote),
        devices=engine.devices,
        notes=(*manifest.notes, *engine.notes),
        is_new=True,
        publish_s=perf_counter() - complete_at,
    )
    return summary, manifest


def _go_on(stop: threading.Event) -> None:
    """Raises Interrupted if the run is to end: outside of the engine, which looks for itself."""
    if stop.is_set():
        fix = "run the same command again: it goes on where it stopped"
        raise Interrupted(Problem("interrupted: nothing was published", {}, fix))


def _workers(job: JobFile) -> int | None:
    """Threads that a job asks for; None: as many as there are cores."""
    asked = job.job.engine.workers
    return asked if isinstance(asked, int) else None


def _complete(
    plan: Plan,
    run: Run,
    engine: Engine,
    output: Output,
    former: Manifest | None,
    kept: tuple[tuple[Commit, Commit], ...],
    begin: Begin,
) -> Manifest:
    """The staged result with all but its publication, measured against the gate.

    kept: commits that are taken over, as the published result tells of them and as this run does.
    """
    taken = {commit.shard for commit, _ in kept}
    layout = former.layout if former is not None else layout_of(plan)
    parts = [_published(output, layout, commit) for commit, _ in kept]
    parts += [_staged(run, commit) for commit in engine.commits if commit.shard not in taken]
    published = [_published(output, layout, c) for c in former.commits] if former is not None else None
    gate = check_result(plan.job.job.gate, parts, published)
    lesson = probe_of(engine.lesson) if engine.lesson is not None else None
    replaces = former.run if former is not None else None
    past = remember(output, former) if former is not None else ((), ())
    work = describe_work(plan, engine, begin, resumed=len(run.commits) - len(kept), kept=len(kept))
    manifest = describe_result(plan, run, engine.commits, lesson, replaces, gate, work, past)
    run.complete(manifest, kept)
    return manifest


def _published(output: Output, layout: Layout, commit: Commit) -> Measured:
    return Measured(commit.part, lines_of(commit), partial(read_parts, output, layout, commit))


def _staged(run: Run, commit: Commit) -> Measured:
    return Measured(commit.part, lines_of(commit), partial(run.read_staged, commit))


def _former_manifest(output: Output, may_replace: bool) -> Manifest | None:
    """The published result's; one that can't be read is no obstacle to replacing it."""
    try:
        return output.read_manifest()
    except StorageError:
        if may_replace:
            return None
        raise


def _is_result_of(plan: Plan, manifest: Manifest, output: Output) -> bool:
    is_same = manifest.fingerprint == plan.fingerprint
    return is_same and all(output.holds(commit) for commit in manifest.commits)


def _in_table(summary: RunSummary, table: TableStep, version: int | None) -> RunSummary:
    return dataclasses.replace(summary, table=table.where, table_version=version)


def _summary(plan: Plan, manifest: Manifest, elapsed_s: float) -> RunSummary:
    """Of a result that is there; what only scoring tells is left empty."""
    return RunSummary(
        job=plan.job.job.name,
        output=plan.output,
        rows_in=manifest.rows_in,
        predicted=manifest.predicted,
        quarantined=manifest.quarantined,
        filtered=manifest.filtered,
        parts=sum(len(commit.parts) for commit in manifest.commits),
        bytes=sum(part.bytes for commit in manifest.commits for part in commit.parts),
        elapsed_s=elapsed_s,
        first_row_s=None,
        busy_s={},
        workers=0,
        threads_per_worker=0,
        batch_rows=manifest.batch_rows,
        model_calls=0,
        notes=manifest.notes,
        is_new=False,
    )
