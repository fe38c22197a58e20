"""What a page tells of a result, read from its records and files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from batchonnx.errors import BatchonnxError, Problem
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import ColumnProfile, Commit, Manifest, PlanRecord
from batchonnx.proof.columns import predicted_columns, profile_columns
from batchonnx.proof.recorded import recorded_job
from batchonnx.proof.verify import Proof, read_result, verify_result
from batchonnx.report.page.bad_rows import Reason, read_reasons
from batchonnx.report.page.timeline import Timeline, make_timeline
from batchonnx.report.prices import Cost, Hours, Prices, cost_of, hours_of
from batchonnx.runtime.inspect import ModelCard, inspect_model

MOST_COLUMNS = 32
"""So many columns of predictions are shown."""


@dataclass(frozen=True)
class ScoredBy:
    """A model that the result was made with. name: in a chain; empty where there is one.

    card: if the very same file is still there; else gone says why it isn't.
    """

    name: str
    digest: str
    card: ModelCard | None
    gone: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is on a page.

    proof: what was proved; None if that wasn't asked for, or is broken: what is wrong with the result.
    models: the one, or all of a chain in their order.
    columns: profiles of the predictions, left_out: how many more there are. before, before_name: what they
    are compared with. reasons, looked: of the quarantine, and the rows of it that were looked at.
    hours: of the run's last life; None if its records don't tell. cost: of that, its requests, and the result
    for a month, in `currency`; None without prices. unread: what couldn't be read, in words.
    """

    output: str
    plan: PlanRecord
    manifest: Manifest
    proof: Proof | None
    broken: tuple[Problem, ...]
    models: tuple[ScoredBy, ...]
    timeline: Timeline | None
    columns: tuple[ColumnProfile, ...]
    left_out: int
    before: Mapping[str, ColumnProfile]
    before_name: str
    reasons: Sequence[Reason]
    looked: int
    hours: Hours | None
    cost: Cost | None
    currency: str
    unread: tuple[str, ...]

    @property
    def own_commits(self) -> list[Commit]:
        """Of this run's shards, without the parts that were taken over."""
        return own_commits(self.plan, self.manifest)


def own_commits(plan: PlanRecord, manifest: Manifest) -> list[Commit]:
    """Of the run's own shards, without the parts that were taken over."""
    kept = set(plan.kept)
    return [commit for commit in manifest.commits if commit.shard not in kept]


def gather(output: Output, against: Output | None, prices: Prices | None, *, is_proved: bool) -> Facts:
    """Read a published result. against: another one to compare the columns with. prices: for its cost.

    is_proved: prove it first, which reads every file. Raises StorageError if there is no result.
    """
    plan, manifest = read_result(output)
    proof, broken = _prove(output) if is_proved else (None, ())
    unread: list[str] = []
    names = predicted_columns(plan, manifest.layout.arrow_schema)
    before, before_name = _before(manifest, against, names[:MOST_COLUMNS], unread)
    try:
        columns = profile_columns(
            output, manifest.layout, manifest.commits, names[:MOST_COLUMNS], like=before
        )
    except _UNREADABLE as error:
        columns, told = (), _said(error)
        unread.append(f"the predictions: {told}")
    try:
        reasons, looked = read_reasons(output, manifest.commits)
    except _UNREADABLE as error:
        (reasons, looked), told = ([], 0), _said(error)
        unread.append(f"the quarantine: {told}")
    try:
        timeline = make_timeline(own_commits(plan, manifest))
    except ValueError as error:  # of a moment that isn't one
        timeline = None
        unread.append(f"when shards were done: {error}")
    hours = _hours(plan, manifest, unread)
    return Facts(
        output=output.path,
        plan=plan,
        manifest=manifest,
        proof=proof,
        broken=broken,
        models=_models(plan, manifest),
        timeline=timeline,
        columns=columns,
        left_out=max(0, len(names) - MOST_COLUMNS),
        before=before,
        before_name=before_name,
        reasons=reasons,
        looked=looked,
        hours=hours,
        cost=_cost(manifest, hours, prices),
        currency=prices.currency if prices is not None else "",
        unread=tuple(unread),
    )


_UNREADABLE = (BatchonnxError, OSError, pa.ArrowException, KeyError, ValueError)


def _hours(plan: PlanRecord, manifest: Manifest, unread: list[str]) -> Hours | None:
    work = manifest.work
    if work is None:
        return None
    try:
        gpus = recorded_job(plan).job.engine.resources.num_gpus if work.engine == "ray" else 0.0
    except BatchonnxError as error:
        unread.append(f"what workers had reserved: {_said(error)}")
        return None
    return hours_of(work.elapsed_s, work.workers, work.threads_per_worker, gpus)


def _cost(manifest: Manifest, hours: Hours | None, prices: Prices | None) -> Cost | None:
    if prices is None or hours is None or manifest.work is None:
        return None
    size = sum(part.bytes for commit in manifest.commits for part in commit.parts)
    return cost_of(prices, hours, manifest.work.requests, size)


def _before(
    manifest: Manifest, against: Output | None, names: Sequence[str], unread: list[str]
) -> tuple[dict[str, ColumnProfile], str]:
    if against is None:
        told = f"run {manifest.replaces}, which this one took the place of" if manifest.before else ""
        return {profile.column: profile for profile in manifest.before}, told
    plan, other = read_result(against)
    there = set(predicted_columns(plan, other.layout.arrow_schema))
    try:
        found = profile_columns(
            against, other.layout, other.commits, [name for name in names if name in there]
        )
    except _UNREADABLE as error:
        unread.append(f"the predictions of {against.path}: {_said(error)}")
        return {}, ""
    return {profile.column: profile for profile in found}, f"run {other.run} at {against.path}"


def _prove(output: Output) -> tuple[Proof | None, tuple[Problem, ...]]:
    try:
        return verify_result(output), ()
    except BatchonnxError as error:
        return None, error.problems


def _models(plan: PlanRecord, manifest: Manifest) -> tuple[ScoredBy, ...]:
    digests = {
        key.removeprefix("model").strip(): told.removeprefix("sha256 ")
        for key, told in plan.identity.items()
        if key.startswith("model ")
    } or {"": manifest.model}
    return tuple(_scored_by(plan, name, digest) for name, digest in digests.items())


def _scored_by(plan: PlanRecord, name: str, digest: str) -> ScoredBy:
    try:
        job = recorded_job(plan)
        asked = job.job.models[name] if name else job.job.model
        assert asked is not None
        card = inspect_model(job.resolve(asked.path))
    except (BatchonnxError, OSError) as error:
        return ScoredBy(name, digest, None, _said(error))
    if card.signature.digest != digest:
        gone = f"{card.signature.path} is another model by now: sha256 {card.signature.digest}"
        return ScoredBy(name, digest, None, gone)
    return ScoredBy(name, digest, card)


def _said(error: BaseException) -> str:
    """The first line of an error, without what follows it."""
    title = error.problems[0].title if isinstance(error, BatchonnxError) else f"{error}"
    return title.splitlines()[0] if title else type(error).__name__
