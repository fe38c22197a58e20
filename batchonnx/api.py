"""The Python API: what the command line does, as functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from batchonnx.engines.local import LocalEngine
from batchonnx.errors import JobFileError, Problem
from batchonnx.job.load import load_job
from batchonnx.job.spec import JobFile
from batchonnx.ledger.staging import (
    check_output,
    create_staging,
    discard_staging,
    publish,
    read_plan_record,
    write_records,
)
from batchonnx.planning.guess import guess_job
from batchonnx.planning.plan import Plan, make_plan
from batchonnx.planning.shards import Shard
from batchonnx.runtime.cores import divide_cores, usable_cores
from batchonnx.runtime.session import Model, open_model
from batchonnx.scoring.probe import BatchSize, with_types
from batchonnx.scoring.progress import Progress, RunSummary
from batchonnx.scoring.scorer import output_schema
from batchonnx.scoring.write import PartWriter

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
) -> RunSummary:
    """Score every row of the job and publish the result.

    on_progress: called about five times a second, from this thread. stop: set it from another
    thread to end the run early; it then raises Interrupted. overwrite: in place of the job's own.
    Raises what `plan` raises, and OutputExistsError, RowError, StorageError. Whatever is raised,
    nothing of the run is visible.
    """
    begin = perf_counter()
    job = _load(job, variables)
    may_overwrite = job.job.output.overwrite if overwrite is None else overwrite
    output = _local_output(job)
    check_output(output, may_overwrite)
    made, model = _open(job, None)
    record = read_plan_record(output)
    asked = job.job.engine.workers
    budget = divide_cores(usable_cores(), None if asked == "auto" else asked, made.chunks)
    if budget.threads_per_worker > 1:
        model = open_model(model.signature.path, threads=budget.threads_per_worker)
    made = with_types(made, model)
    batch = BatchSize(made, model, _remembered_batch(record, model))
    staging = create_staging(output)
    try:
        engine = LocalEngine(made, model, batch, budget.workers, staging)
        commits = engine.run(stop or threading.Event(), on_progress)
        if not commits:
            _write_empty_part(made, staging)
        write_records(staging, _plan_record(made, batch.settled), commits)
        publish(staging, output, may_overwrite)
    except BaseException:
        discard_staging(staging)
        raise
    filtered = sum(commit.filtered for commit in commits) + made.pruned_rows
    predicted = sum(commit.predicted for commit in commits)
    first_at = engine.first_at
    return RunSummary(
        job=job.job.name,
        output=str(output),
        rows_in=predicted + filtered,
        predicted=predicted,
        filtered=filtered,
        parts=max(1, len(commits)),
        bytes=sum(commit.bytes for commit in commits),
        elapsed_s=perf_counter() - begin,
        first_row_s=first_at - begin if first_at is not None else None,
        busy_s=engine.busy_s,
        workers=budget.workers,
        threads_per_worker=budget.threads_per_worker,
        batch_rows=batch.settled or 0,
        model_calls=engine.calls,
        notes=made.notes,
    )


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


def _remembered_batch(record: Mapping[str, object], model: Model) -> int | None:
    """The batch size that a former run of this model settled on."""
    rows = record.get("batch_rows")
    return rows if isinstance(rows, int) and record.get("model") == model.signature.digest else None


def _plan_record(plan: Plan, batch_rows: int | None) -> dict[str, object]:
    return {
        "fingerprint": plan.fingerprint,
        "model": plan.model.digest,
        "batch_rows": batch_rows,
        "pruned_rows": plan.pruned_rows,
        "input": [
            {"path": file.path, "size": file.size, "version": file.version} for file in plan.listing.files
        ],
        "shards": [_shard_record(shard) for shard in plan.shards],
    }


def _shard_record(shard: Shard) -> dict[str, object]:
    sources = [
        [source.file, list(source.row_groups), source.first_row, source.rows] for source in shard.sources
    ]
    return {"part": shard.part, "rows": shard.rows, "sources": sources}


def _write_empty_part(plan: Plan, staging: Path) -> None:
    """A result without rows is a result: readers find its schema."""
    schema: pa.Schema = output_schema(plan)
    with PartWriter(staging / "part-00000.parquet", schema, plan.job.job.output.compression) as writer:
        writer.close()
