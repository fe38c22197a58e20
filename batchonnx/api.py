"""The Python API: what the command line does, as functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.dataset as pads

from batchonnx.driver.run import RunOptions, clean_output, open_job, publish_staged, run_job
from batchonnx.engines.events import Event, OnProgress, Tell, only_progress
from batchonnx.job.load import load_job
from batchonnx.job.spec import JobFile
from batchonnx.ledger.output import Cleared, Output
from batchonnx.ledger.outputs import output_at
from batchonnx.ledger.records import Manifest
from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.convert import Form
from batchonnx.lifecycle.convert import convert as convert_model
from batchonnx.lifecycle.export import Exported, Request, export_model, parse_input
from batchonnx.lifecycle.export.draft import Exporter
from batchonnx.lifecycle.feed import JobRows, Rows
from batchonnx.lifecycle.gates import Gates
from batchonnx.lifecycle.making import Trial
from batchonnx.lifecycle.optimize import Passes
from batchonnx.lifecycle.optimize import optimize as optimize_model
from batchonnx.lifecycle.quantize import Quantization
from batchonnx.lifecycle.quantize import quantize as quantize_model
from batchonnx.parts.dataset import open_dataset
from batchonnx.planning.guess import guess_chain, guess_job
from batchonnx.planning.plan import Plan
from batchonnx.planning.stores import use_stores
from batchonnx.proof.diff.diff import Difference, diff_results
from batchonnx.proof.explain import Origin, explain_key, explain_row
from batchonnx.proof.history import ListedRun, list_runs
from batchonnx.proof.published import read_parts
from batchonnx.proof.rescore import rescore
from batchonnx.proof.verify import Proof, read_result, verify_result
from batchonnx.rehearsal.chaos.drill import Drill, hold_drill
from batchonnx.rehearsal.forecast import PROBE_S, Forecast, make_forecast
from batchonnx.rehearsal.scratch import remove_leftovers
from batchonnx.rehearsal.tune.tune import TUNE_S, Tuning, tune_job
from batchonnx.report.page.make import Page, make_page
from batchonnx.report.prices import Prices
from batchonnx.runtime.session import open_model
from batchonnx.schedule.backfill import OnTick, ticks_between
from batchonnx.schedule.backfill import backfill as backfill_ticks
from batchonnx.schedule.calendar import Tick
from batchonnx.schedule.clock import WallClock
from batchonnx.schedule.run_tick import TickResult
from batchonnx.schedule.scheduled import open_scheduled
from batchonnx.scoring.progress import RunSummary
from batchonnx.storage.arrow_s3 import arrow_s3
from batchonnx.storage.paths import is_ranged, open_filesystem

__all__ = [
    "backfill",
    "chaos",
    "clean",
    "convert",
    "dataset",
    "diff",
    "explain",
    "export",
    "forecast",
    "init",
    "load_job",
    "next_ticks",
    "optimize",
    "plan",
    "publish",
    "quantize",
    "report",
    "run",
    "runs",
    "tune",
    "verify",
]


Result = str | Path | JobFile
"""A published result: its folder or URL; or the job that made it, whose `storage:` says how to reach it."""


def plan(job: JobFile | str | Path, variables: Mapping[str, str] | None = None) -> Plan:
    """Decide what a run of the job will do: no row is read, the model isn't run.

    Raises JobFileError, ModelFileError, InputError, ContractError, HookError, DependencyError, DeviceError.
    """
    return open_job(_load(job, variables))[0]


def forecast(
    job: JobFile | str | Path,
    variables: Mapping[str, str] | None = None,
    *,
    prices: Prices | None = None,
    budget_s: float = PROBE_S,
    engine: Literal["local", "ray"] | None = None,
) -> Forecast:
    """Try the job on a few of its own rows, and say what all of them will take: time, memory, size, cost.

    The tries are runs in processes of their own, into a scratch folder beside the output, which is removed.
    prices: see `docs/rehearsals.md`; left out: no cost. budget_s: about how long the larger of two tries
    scores; a job that takes less is tried as a whole. engine: in place of the job's own.
    Raises what `plan` raises, DriverError with whatever has ended a try, StorageError.
    """
    return make_forecast(_on(_load(job, variables), engine), prices, budget_s)


def run(
    job: JobFile | str | Path,
    variables: Mapping[str, str] | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_event: Tell | None = None,
    stop: threading.Event | None = None,
    drain: threading.Event | None = None,
    overwrite: bool | None = None,
    fresh: bool = False,
    incremental: bool = False,
    engine: Literal["local", "ray"] | None = None,
    metrics_port: int | None = None,
) -> RunSummary:
    """Score every row of the job and publish the result; go on with an unfinished run, if there is one.

    A result of the same job, model and input that is there already is left as it is.
    on_progress: called about five times a second, from this thread. on_event: called with that and with
    all else that happens (see `engines.events`). stop: set it from another
    thread to end the run early; it then raises Interrupted. drain: the same, but the shards in work are
    finished first. overwrite: in place of the job's own.
    fresh: start over, whatever is there already. incremental: score only input files that are new
    or have changed since the published result was made, and replace exactly their parts.
    engine, metrics_port: in place of the job's own `engine.name`, `metrics.port`.
    Raises what `plan` raises, and OutputExistsError, OutputBusyError, ChangedError, RowError,
    GateError, StorageError; with Ray, ClusterError. Whatever is raised, nothing of the run is visible,
    and what was committed is kept.
    """
    options = RunOptions(overwrite, fresh, incremental, drain or threading.Event())
    shown = only_progress(on_progress)

    def tell(event: Event) -> None:
        for one in (shown, on_event):
            if one is not None:
                one(event)

    loaded = _serving(_on(_load(job, variables), engine), metrics_port)
    return run_job(loaded, options, stop or threading.Event(), tell)


def publish(output: Result, *, force: bool = False) -> Manifest:
    """Publish a complete run that the gate has held back. force: whatever the gate has found.

    Raises GateError, StorageError if no complete run waits, OutputExistsError if another result has
    appeared meanwhile, OutputBusyError.
    """
    return publish_staged(_output(output), force=force)


def verify(output: Result, *, deep: bool = False, rows: int = 10_000, seed: int | None = None) -> Proof:
    """Prove a published result again from its records and files: no row lost, none twice, none changed.

    deep: score about `rows` rows again, drawn by `seed`, and compare.
    Raises ProofError with everything that doesn't hold; StorageError if there is no result; with
    deep, whatever `plan` raises if input, model or job have gone.
    """
    found = _output(output)
    proof = verify_result(found)
    return rescore(found, proof, rows, seed) if deep else proof


def report(
    output: Result,
    *,
    against: Result | None = None,
    prove: bool = True,
    prices: Prices | None = None,
) -> Page:
    """A published result as one HTML page that needs nothing else: no network, no script.

    against: another result, whose predictions are shown beside; left out: those that this one took the place
    of. prove: prove the result as `verify` does, which reads every file; what is wrong is on the page.
    prices: for what the run's machines, its requests, and its result for a month cost.
    Raises StorageError if there is no result, DependencyError without matplotlib.
    """
    other = _output(against) if against is not None else None
    return make_page(_output(output), other, prices, is_proved=prove)


def runs(place: str | Path) -> list[ListedRun]:
    """The runs at an output, or at all outputs below a folder: by output, the latest last.

    Raises StorageError if there are none.
    """
    return list_runs(_absolute(place))


def diff(a: Result, b: Result, *, key: str | None = None, tolerance: float = 0.0) -> Difference:
    """How the result at b differs from the one at a; joined in memory that is bounded.

    key: a kept column that tells rows apart; left out, rows are known by their file and place in it.
    tolerance: a relative difference of numbers that is no change.
    Raises StorageError if a result is missing, InputError for a key that doesn't tell rows apart,
    ChangedError where rows are known by place, a filter has to be asked again, and the input has changed.
    """
    return diff_results(_output(a), _output(b), key, tolerance)


def tune(
    job: JobFile | str | Path, variables: Mapping[str, str] | None = None, *, budget_s: float = TUNE_S
) -> Tuning:
    """Try settings of the job's engine on its own rows, in a scratch folder; the job stays as it is.

    budget_s: about how long it may take. Raises what `plan` raises, what scoring raises, StorageError.
    """
    return tune_job(_load(job, variables), budget_s)


def chaos(
    job: JobFile | str | Path,
    variables: Mapping[str, str] | None = None,
    *,
    engine: Literal["local", "ray"] | None = None,
    rounds: int | None = None,
    seed: int = 0,
    on_act: Callable[[str], None] = lambda act: None,
) -> Drill:
    """Kill, stop and hinder runs of a sample of the job, in a scratch folder, and say which promises held.

    engine: in place of the job's own. rounds: how often the driver is killed; left out: three times, on Ray
    once. seed: which moments. on_act: told what is done next. Raises what `plan` raises, DriverError if even
    an undisturbed run of the sample fails, StorageError.
    """
    return hold_drill(_on(_load(job, variables), engine), rounds, seed, on_act)


def clean(output: Result) -> list[Cleared]:
    """Remove what crashes have left at an output and no run needs; a run that can go on is kept.

    So are the places of rehearsals that live. Raises OutputBusyError while a run is writing there,
    StorageError.
    """
    found = _output(output)
    is_trusted = isinstance(output, JobFile) and output.job.output.single_writer == "trusted"
    return [*clean_output(found), *remove_leftovers(found.path, is_trusted=is_trusted)]


def dataset(output: Result) -> pads.Dataset:
    """A result's predictions as a pyarrow dataset: exactly the published parts, as the manifest tells.

    JSON lines are read as a whole, into memory; anything else when the dataset is.
    Raises StorageError if there is no result.
    """
    found = _output(output)
    _, manifest = read_result(found)
    if is_ranged(found.path):
        filesystem, root = arrow_s3(), found.path.removeprefix("s3://")
    else:
        filesystem, root = open_filesystem(found.path)
    layout = manifest.layout
    parts = [f"{root}/{part.path}" for commit in manifest.commits for part in commit.parts]
    if layout.format == "jsonl":
        rows = [read_parts(found, layout, commit) for commit in manifest.commits]
        return pads.dataset(pa.Table.from_batches(chain.from_iterable(rows), layout.arrow_schema))
    return open_dataset(parts, root, filesystem, layout)


def explain(output: Result, *, row: int | None = None, key: tuple[str, str] | None = None) -> list[Origin]:
    """Where predictions come from: file and row, shard, model and settings.

    row: place in the result, from 0, parts in the order of their names. key: a kept column and its
    value, as text: every row that has it. One of them is given.
    Raises StorageError if there is no result, InputError if there is no such row.
    """
    found = _output(output)
    if (row is None) == (key is None):
        raise TypeError("explain takes either row or key")
    return [explain_row(found, row)] if row is not None else explain_key(found, *(key or ("", "")))


def init(
    model: str,
    data: str,
    *,
    then: Sequence[str] = (),
    output: str | None = None,
    folder: str | Path = ".",
) -> str:
    """A commented job file for a model and its data, guessed from signature and schema.

    then: further models, each of which may feed on outputs of those before it. output: where predictions
    go; left out: a folder named after the data. folder: where the job file will be kept, relative paths in
    it count from there.
    Raises ModelFileError, InputError, ContractError where nothing can be guessed.
    """
    signature = guess_chain([model, *then]) if then else open_model(model).signature
    return guess_job(signature, data, output, Path(folder))


def export(
    source: str | Path | None,
    target: str | Path,
    *,
    factory: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    task: str | None = None,
    data: str | None = None,
    trust_pickle: bool = False,
    exporter: Exporter | None = None,
    opset: int | None = None,
    rows: Rows | None = None,
    gates: Gates | None = None,
) -> Exported:
    """Make an ONNX file of a framework's model, and keep it if both answer the same rows alike.

    source: a file of LightGBM, XGBoost or CatBoost, a pickle, a PyTorch checkpoint or exported program, a
    Hugging Face folder or hub id; None: what `factory`, a `module:function`, gives is all. inputs: each as
    "x=float32[batch,28]", in the order of the framework's arguments. outputs: what they are to be called.
    task: of a Hugging Face model. data: compare on the first of these rows, and write a job for them.
    trust_pickle: open a pickle, which runs the code that it holds. rows: in place of data's.
    gates: left out: answers may be apart by as much as the framework's arithmetic is.
    Raises ExportError, HookError, DependencyError, GateError, StorageError; with data what `init` and `plan`
    raise.
    """
    request = Request(
        str(source) if source is not None else None,
        factory,
        tuple(map(parse_input, inputs)),
        tuple(outputs),
        task,
        trust_pickle,
        exporter,
        opset,
    )
    return export_model(request, Path(target), rows=rows, data=data, gates=gates)


def optimize(
    model: str | Path,
    target: str | Path,
    passes: Passes | None = None,
    *,
    job: JobFile | str | Path | None = None,
    variables: Mapping[str, str] | None = None,
    gates: Gates | None = None,
) -> Comparison:
    """Make a model with less work for the same answers, if it is good enough; see `docs/models.md`.

    job: whose rows the two models are compared on; left out: random ones.
    Raises GateError if the new model is refused: there is none then; ModelFileError, ContractError,
    DependencyError if the model can't be optimized so; what `plan` raises for the job; StorageError.
    """
    return optimize_model(str(model), Path(target), passes, _trial(job, variables, gates))


def quantize(
    model: str | Path,
    target: str | Path,
    how: Quantization | None = None,
    *,
    job: JobFile | str | Path | None = None,
    variables: Mapping[str, str] | None = None,
    gates: Gates | None = None,
) -> Comparison:
    """Make a model with smaller numbers, if it is good enough; job and errors as in `optimize`.

    Static quantization is calibrated on rows of the job, and raises ContractError without one.
    """
    return quantize_model(str(model), Path(target), how, _trial(job, variables, gates))


def convert(
    model: str | Path,
    target: str | Path,
    form: Form | None = None,
    *,
    job: JobFile | str | Path | None = None,
    variables: Mapping[str, str] | None = None,
    gates: Gates | None = None,
) -> Comparison:
    """Write a model in another form, if it still gives the same answers; job and errors as in `optimize`."""
    return convert_model(str(model), Path(target), form, _trial(job, variables, gates))


def next_ticks(job: str | Path, variables: Mapping[str, str] | None = None, *, count: int = 5) -> list[Tick]:
    """When a scheduled job is due next, and for which logical dates. Raises JobFileError."""
    calendar = open_scheduled(job, variables or {}).calendar
    return list(islice(calendar.after(WallClock().now()), count))


def backfill(
    job: str | Path,
    first: str,
    last: str | None = None,
    variables: Mapping[str, str] | None = None,
    *,
    parallel: int = 1,
    on_tick: OnTick | None = None,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> list[TickResult]:
    """Score the logical dates of a scheduled job that aren't published, in order.

    first, last: logical dates or times, both included; last left out: up to now. parallel: how many at a
    time. on_tick: called as each ends, those that were published already too. stop: set it from another
    thread to end early. What goes wrong with one date is in its result, and keeps no other from being scored.
    Raises JobFileError, StorageError, Interrupted.
    """
    scheduled = open_scheduled(job, variables or {})
    ticks = ticks_between(scheduled, first, last, WallClock().now())
    return backfill_ticks(
        scheduled,
        ticks,
        parallel=parallel,
        stop=stop or threading.Event(),
        on_tick=on_tick or (lambda result: None),
        on_progress=on_progress,
    )


def _trial(
    job: JobFile | str | Path | None, variables: Mapping[str, str] | None, gates: Gates | None
) -> Trial:
    rows = JobRows(_load(job, variables)) if job is not None else None
    return Trial(rows, gates or Gates())


def _output(result: Result) -> Output:
    if not isinstance(result, JobFile):
        return output_at(_absolute(result))
    use_stores(result)
    output = result.job.output
    return output_at(result.resolve(output.path), is_trusted=output.single_writer == "trusted")


def _absolute(path: str | Path) -> str:
    text = str(path)
    return text if "://" in text else str(Path(text).absolute())


def _serving(job: JobFile, port: int | None) -> JobFile:
    if port is None:
        return job
    asked = job.job.metrics.model_copy(update={"port": port})
    return job.having(metrics=asked)


def _on(job: JobFile, engine: Literal["local", "ray"] | None) -> JobFile:
    if engine is None or engine == job.job.engine.name:
        return job
    asked = job.job.engine.model_copy(update={"name": engine})
    return job.having(engine=asked)


def _load(job: JobFile | str | Path, variables: Mapping[str, str] | None) -> JobFile:
    return job if isinstance(job, JobFile) else load_job(job, variables or {})
