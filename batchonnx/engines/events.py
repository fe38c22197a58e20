"""What a run tells as it goes, to whoever watches: views, metrics, traces, notifications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchonnx.ledger.records import Commit
from batchonnx.planning.plan import Plan
from batchonnx.scoring.progress import Progress, RunSummary


@dataclass(frozen=True)
class RunStarted:
    """The plan is made and the output is this run's. run: its id; a run that goes on has the one it had.

    is_resumed: it has shards that former lives of it have done. outputs: column of the result -> Arrow type.
    """

    run: str
    plan: Plan
    is_resumed: bool
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ShardCommitted:
    """A shard counts."""

    commit: Commit


@dataclass(frozen=True)
class Warned:
    """Something that the user should know and that ends nothing."""

    text: str


@dataclass(frozen=True)
class Published:
    """The result is there: all of it. run: None if it was there already."""

    run: str | None
    summary: RunSummary


@dataclass(frozen=True)
class Failed:
    """The run ends without a result. run: None if it never began; error: as it is raised."""

    run: str | None
    error: BaseException


Event = RunStarted | Progress | ShardCommitted | Warned | Published | Failed
"""In this order; warnings may come at any time, nothing else follows `Published` or `Failed`."""

Tell = Callable[[Event], None]
OnProgress = Callable[[Progress], None]


def only_progress(show: OnProgress | None) -> Tell | None:
    """For those who want to know how far a run is, and no more."""
    if show is None:
        return None

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            show(event)

    return tell
