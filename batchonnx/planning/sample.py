"""A few of a plan's rows, as a plan of its own: what a job is tried on before it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from batchonnx.planning.plan import Plan
from batchonnx.planning.shards import Shard, Source


@dataclass(frozen=True)
class Sample:
    """Pieces, spread over the input. pieces: how many, at most. rows: of each, at most; None: whole shards.

    Where there are fewer shards than pieces, a shard has several of them: its row groups are then read from
    their beginning for each.
    """

    pieces: int
    rows: int | None = None


def take_sample(plan: Plan, sample: Sample) -> Plan:
    """The plan with the sample's rows alone, a shard for each piece; all others count as left out unread.

    A pure function of its arguments. Pieces of files whose rows nobody has counted begin with a shard.
    """
    shards = plan.shards
    if sample.pieces <= len(shards):
        chosen = [shards[place * len(shards) // sample.pieces] for place in range(sample.pieces)]
        pieces = [_part(shard, 0, sample.rows) for shard in chosen]
    else:
        pieces = [
            piece for place, shard in enumerate(shards) for piece in _divided(shard, place, plan, sample)
        ]
    numbered = tuple(dataclasses.replace(piece, number=number) for number, piece in enumerate(pieces))
    taken = sum(piece.rows or 0 for piece in numbered)
    return dataclasses.replace(
        plan, shards=numbered, pruned_rows=plan.pruned_rows + ((plan.rows or taken) - taken)
    )


def _divided(shard: Shard, place: int, plan: Plan, sample: Sample) -> Iterator[Shard]:
    """A shard's share of the pieces, begun at equal distances."""
    share = sample.pieces * (place + 1) // len(plan.shards) - sample.pieces * place // len(plan.shards)
    if shard.rows is None:
        yield _part(shard, 0, sample.rows)
        return
    share = min(share, shard.rows)
    for number in range(share):
        first, following = shard.rows * number // share, shard.rows * (number + 1) // share
        yield _part(shard, first, min(sample.rows or following - first, following - first))


def _part(shard: Shard, skip: int, rows: int | None) -> Shard:
    """Rows of a shard. skip: rows before them."""
    if rows is None or (skip == 0 and shard.rows is not None and shard.rows <= rows):
        return shard
    sources: list[Source] = []
    left = rows
    for source in shard.sources:
        if source.rows is None:
            sources.append(dataclasses.replace(source, only=range(left)))
            break
        before, skip = min(skip, source.rows), skip - min(skip, source.rows)
        taken = min(source.rows - before, left)
        if taken:
            only = range(before, before + taken)
            sources.append(Source(source.file, source.row_groups, source.first_row + before, taken, only))
        left -= taken
        if not left:
            break
    size = shard.bytes if shard.rows is None else shard.bytes * (rows - left) // max(1, shard.rows)
    return Shard(shard.number, tuple(sources), None if shard.rows is None else rows - left, size)
