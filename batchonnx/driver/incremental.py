"""A run of what is new: parts whose input hasn't changed since the published run are kept."""

from __future__ import annotations

import dataclasses

from batchonnx.errors import ChangedError, Problem
from batchonnx.ledger.output import Output
from batchonnx.ledger.records import Commit, Manifest, PlanRecord
from batchonnx.planning.identity import differences, input_name
from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import make_shards

SHOWN = 10


def keep_unchanged(
    plan: Plan, output: Output, former: PlanRecord, manifest: Manifest
) -> tuple[Plan, tuple[Commit, ...]]:
    """The plan without what the published result has already, and the commits that have it.

    A part is kept if all of its files are as they were; what else was in a part that isn't, is
    scored again. Raises ChangedError if anything but the input's files differs: predictions of two
    models or settings don't belong into one result.
    """
    files = {input_name(file.path): index for index, file in enumerate(plan.listing.files)}
    changed = [
        (name, old, new)
        for name, old, new in differences(former.identity, plan.identity)
        if name not in files and not name.startswith(input_name(""))
    ]
    if changed:
        facts = {"output": output.path}
        facts |= {name: f"{old} -> {new}" for name, old, new in changed[:SHOWN]}
        fix = "score everything again: run without --incremental, with --overwrite"
        raise ChangedError(Problem("the published result was made otherwise", facts, fix))
    unchanged = {
        name: index for name, index in files.items() if former.identity.get(name) == plan.identity[name]
    }
    kept = tuple(
        commit
        for commit in manifest.commits
        if commit.sources
        and all(input_name(source.path) in unchanged for source in commit.sources)
        and output.holds(commit)
    )
    done = {
        (unchanged[input_name(source.path)], group)
        for commit in kept
        for source in commit.sources
        for group in source.row_groups
    }
    first = max((commit.shard for commit in manifest.commits), default=-1) + 1
    shards = make_shards(plan.listing, plan.filter, done, first)
    return dataclasses.replace(plan, shards=shards.shards, pruned_rows=shards.pruned_rows), kept
