"""A run as its records tell it: the plan when it begins, the manifest when it is complete."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version

from batchonnx.ledger.output import Run
from batchonnx.ledger.records import (
    ColumnProfile,
    Commit,
    Finding,
    Manifest,
    PastRun,
    PlanRecord,
    Probe,
    ShardRecord,
    Work,
)
from batchonnx.planning.plan import Plan
from batchonnx.planning.written import layout_of
from batchonnx.scoring.neighbours import ROUNDING


def describe_plan(plan: Plan, since: PlanRecord | None, kept: Sequence[Commit]) -> PlanRecord:
    """What the run sets out to do. since, kept: what an incremental run takes over."""
    files = plan.listing.files
    shards = [
        ShardRecord(
            shard.number,
            plan.part(shard),
            tuple((files[s.file].path, s.row_groups, s.first_row, s.rows) for s in shard.sources),
        )
        for shard in plan.shards
    ]
    taken = {commit.shard: commit.part for commit in kept}
    if since is not None:
        shards += [
            replace(record, part=taken[record.shard]) for record in since.shards if record.shard in taken
        ]
    return PlanRecord(
        run=secrets.token_hex(8),
        version=version("batchonnx"),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        job=plan.job.job.model_dump(mode="json", by_alias=True, exclude_none=True),
        folder=str(plan.job.folder),
        identity=plan.identity,
        fingerprint=plan.fingerprint,
        files={file.path: file.footer.rows for file in files},
        pruned=plan.pruned_rows,
        since=since.run if since is not None else None,
        kept=tuple(sorted(taken)),
        shards=tuple(sorted(shards, key=lambda record: record.shard)),
        layout=layout_of(plan),
    )


def describe_result(
    plan: Plan,
    run: Run,
    commits: Iterable[Commit],
    lesson: Probe | None,
    replaces: str | None,
    gate: Sequence[Finding],
    work: Work,
    past: tuple[tuple[PastRun, ...], tuple[ColumnProfile, ...]] = ((), ()),
) -> Manifest:
    """What has become of every row. replaces: the run whose result this one will take the place of.

    past: what is remembered of that and of those before it (see `account.remember`).
    """
    commits = tuple(sorted(commits, key=lambda commit: commit.shard))
    filtered = sum(commit.filtered for commit in commits) + plan.pruned_rows
    predicted = sum(commit.predicted for commit in commits)
    quarantined = sum(commit.quarantined for commit in commits)
    difference = lesson.neighbour_difference if lesson is not None else None
    notes = list(plan.notes)
    if difference is not None and difference > ROUNDING:
        notes.append(
            f"a row's prediction depends on the rows scored with it: it differs by up to {difference:.2g} of "
            "the largest output; batches follow from the plan, so results can be repeated"
        )
    if plan.job.job.output.single_writer == "trusted":
        notes.append("nothing keeps a second run away from this output: output.single_writer is trusted")
    return Manifest(
        run=run.plan.run,
        fingerprint=plan.fingerprint,
        model=plan.model.digest,
        replaces=replaces,
        rows_in=predicted + quarantined + filtered,
        predicted=predicted,
        quarantined=quarantined,
        filtered=filtered,
        batch_rows=lesson.batch_rows if lesson is not None else 0,
        neighbour_difference=difference,
        notes=tuple(notes),
        gate=tuple(gate),
        commits=commits,
        layout=layout_of(plan),
        work=work,
        history=past[0],
        before=past[1],
    )
