"""The Python API: what the command line does, as functions."""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

from batchonnx import __version__
from batchonnx.engines.local import LocalEngine
from batchonnx.errors import JobFileError, Problem, StorageError
from batchonnx.job.load import load_job
from batchonnx.job.spec import JobFile
from batchonnx.ledger.lease import hold_lease
from batchonnx.ledger.publish import check_output, publish
from batchonnx.ledger.records import Manifest, PlanRecord, ShardRecord
from batchonnx.ledger.run_folder import (
    COMMITS,
    SUCCESS,
    RunFolder,
    complete,
    discard,
    holds_files,
    open_run,
    read_manifest,
)
from batchonnx.planning.guess import guess_job
from batchonnx.planning.plan import Plan, make_plan
from batchonnx.runtime.cores import divide_cores, usable_cores
from batchonnx.runtime.session import Model, open_model
from batchonnx.scoring.neighbours import ROUNDING
from batchonnx.scoring.probe import BatchSize, with_types
from batchonnx.scoring.progress import Progress, RunSummary
from batchonnx.scoring.quarantine import ErrorBudget

__all__ = ["init", "load_job", "plan", "run"]


def plan(job: JobFile | str | Path, variables: Mapping[str, str] | None = None) -> Plan:
    """Decide what a run of the job will do: no row is read, the model isn't run.

    Raises JobFileError, ModelFileError, InputError, ContractError, HookError, DependencyError.
    """
    return _open(job, variables)[0]


def run(
    job: JobFile | str | Path,
    variables: Mapping[str, str] | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    overwrite: bool | None = None,
    fresh: bool = False,
) -> RunSummary:
    """Score every row of the job and publish the result; go on with an unfinished run, if there is one.

    A result of the same job, model and input that is there already is left as it is.
    on_progress: called about five times a second, from this thread. stop: set it from another
    thread to end the run early; it then raises Interrupted. overwrite: in place of the job's own.
    fresh: start over, whatever is there already.
    Raises what `plan` raises, and OutputExistsError, OutputBusyError, ChangedError, RowError,
    StorageError. Whatever is raised, nothing of the run is visible, and what was committed is kept.
    """
    begin = perf_counter()
    stop = stop or threading.Event()
    job = _load(job, variables)
    may_overwrite = job.job.output.overwrite if overwrite is None else overwrite
    output = _local_output(job)
    with hold_lease(output, on_lost=stop.set):
        made, model = _open(job, None)
        former = _former_manifest(output, may_overwrite or fresh)
        is_there = former is not None and former.fingerprint == made.fingerprint
        if former is not None and is_there and not fresh and holds_files(output, former):
            return _summary(made, former, perf_counter() - begin, is_new=False)
        check_output(output, may_overwrite or fresh)
        asked = job.job.engine.workers
        budget = divide_cores(usable_cores(), None if asked == "auto" else asked, made.chunks)
        if budget.threads_per_worker > 1:
            model = open_model(
                model.signature.path, threads=budget.threads_per_worker, sha256=made.model.digest
            )
        made = with_types(made, model)
        run = open_run(output, _plan_record(made), fresh=fresh)
        try:
            engine = _score(made, model, run, former, budget.workers, stop, on_progress)
            manifest = _manifest(made, run, engine, former)
            complete(run.path, manifest)
            publish(run.path, output, may_overwrite or fresh)
        except BaseException:
            if not any((run.path / COMMITS).glob("*.json")) and not (run.path / SUCCESS).exists():
                discard(run.path)
            raise
    first_at = engine.first_at
    return dataclasses.replace(
        _summary(made, manifest, perf_counter() - begin, is_new=True),
        first_row_s=first_at - begin if first_at is not None else None,
        busy_s=engine.busy_s,
        workers=budget.workers,
        threads_per_worker=budget.threads_per_worker,
        model_calls=engine.calls,
        resumed=len(run.commits),
        halved=engine.halved,
    )


def _former_manifest(output: Path, may_replace: bool) -> Manifest | None:
    """The published result's; one that can't be read is no obstacle to replacing it."""
    try:
        return read_manifest(output)
    except StorageError:
        if may_replace:
            return None
        raise


def _score(
    plan: Plan,
    model: Model,
    run: RunFolder,
    former: Manifest | None,
    workers: int,
    stop: threading.Event,
    on_progress: Callable[[Progress], None] | None,
) -> LocalEngine:
    """Score what isn't committed yet."""
    known = next((commit.batch_rows for commit in run.commits.values()), None)
    if known is None and former is not None:
        known = former.batch_rows if former.model == plan.model.digest else None
    batch = BatchSize(plan, model, known or None)
    spent = sum(commit.quarantined for commit in run.commits.values())
    errors = ErrorBudget(plan.job.job.errors.max_bad_rows, plan.rows, spent)
    engine = LocalEngine(plan, model, batch, errors, workers, run.path, run.commits)
    engine.run(stop, on_progress)
    return engine


def init(model: str, data: str, *, output: str | None = None, folder: str | Path = ".") -> str:
    """A commented job file for a model and its data, guessed from signature and schema.

    output: where predictions go; left out: a folder named after the data. folder: where the job
    file will be kept, relative paths in it count from there.
    Raises ModelFileError, InputError, ContractError where nothing can be guessed.
    """
    return guess_job(open_model(str(Path(model)), threads=1).signature, model, data, output, Path(folder))


def _load(job: JobFile | str | Path, variables: Mapping[str, str] | None) -> JobFile:
    return job if isinstance(job, JobFile) else load_job(job, variables or {})


def _open(job: JobFile | str | Path, variables: Mapping[str, str] | None) -> tuple[Plan, Model]:
    job = _load(job, variables)
    model = open_model(job.resolve(job.job.model.path), threads=1, sha256=job.job.model.sha256)
    return make_plan(job, model.signature), model


def _local_output(job: JobFile) -> Path:
    path = job.resolve(job.job.output.path)
    if "://" in path:
        facts = {"job": job.where("output.path"), "found": path}
        raise JobFileError(
            Problem("the output has to be a local folder", facts, "name a folder on this machine")
        )
    return Path(path.rstrip("/") or "/")


def _plan_record(plan: Plan) -> PlanRecord:
    files = plan.listing.files
    return PlanRecord(
        run=secrets.token_hex(8),
        version=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        job=plan.job.job.model_dump(mode="json", by_alias=True),
        folder=str(plan.job.folder),
        identity=plan.identity,
        fingerprint=plan.fingerprint,
        files={file.path: file.footer.rows for file in files},
        pruned=plan.pruned_rows,
        shards=tuple(
            ShardRecord(
                shard.number,
                shard.part,
                tuple((files[s.file].path, s.row_groups, s.first_row, s.rows) for s in shard.sources),
            )
            for shard in plan.shards
        ),
    )


def _manifest(plan: Plan, run: RunFolder, engine: LocalEngine, former: Manifest | None) -> Manifest:
    commits = tuple(sorted(engine.commits, key=lambda commit: commit.shard))
    filtered = sum(commit.filtered for commit in commits) + plan.pruned_rows
    predicted = sum(commit.predicted for commit in commits)
    quarantined = sum(commit.quarantined for commit in commits)
    difference = engine.neighbour_difference
    notes = list(plan.notes)
    if difference is not None and difference > ROUNDING:
        notes.append(
            f"a row's prediction depends on the rows scored with it: it differs by up to {difference:.2g} of "
            "the largest output; batches follow from the plan, so results can be repeated"
        )
    return Manifest(
        run=run.plan.run,
        fingerprint=plan.fingerprint,
        model=plan.model.digest,
        replaces=former.run if former is not None else None,
        rows_in=predicted + quarantined + filtered,
        predicted=predicted,
        quarantined=quarantined,
        filtered=filtered,
        batch_rows=engine.batch_rows,
        neighbour_difference=difference,
        notes=tuple(notes),
        commits=commits,
    )


def _summary(plan: Plan, manifest: Manifest, elapsed_s: float, is_new: bool) -> RunSummary:
    return RunSummary(
        job=plan.job.job.name,
        output=plan.output,
        rows_in=manifest.rows_in,
        predicted=manifest.predicted,
        quarantined=manifest.quarantined,
        filtered=manifest.filtered,
        parts=len(manifest.commits),
        bytes=sum(commit.part.bytes for commit in manifest.commits),
        elapsed_s=elapsed_s,
        first_row_s=None,
        busy_s={},
        workers=0,
        threads_per_worker=0,
        batch_rows=manifest.batch_rows,
        model_calls=0,
        notes=manifest.notes,
        is_new=is_new,
    )
