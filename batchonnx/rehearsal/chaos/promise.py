"""What a drill has found of each promise of docs/guarantees.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Promise = Literal[
    "every row once",
    "all or nothing",
    "resume",
    "one writer",
    "the same bytes",
    "a clean end",
    "workers may die",
    "requests may fail",
]

Status = Literal["held", "broken", "not tried"]


@dataclass(frozen=True)
class Finding:
    """One look at one promise. told: what was done and seen; of one that wasn't tried, why."""

    promise: Promise
    status: Status
    told: str


@dataclass(frozen=True)
class Verdict:
    """All that was found of one promise. told: of what broke it, else of what was done."""

    promise: Promise
    status: Status
    looks: int
    told: tuple[str, ...]


def held(promise: Promise, is_so: bool, told: str, broken: str) -> Finding:
    """A finding. told: if it is so; broken: if it isn't."""
    return Finding(promise, "held" if is_so else "broken", told if is_so else broken)


def judge(findings: Iterable[Finding]) -> tuple[Verdict, ...]:
    """One verdict for each promise that was looked at, in the order of first looks."""
    by_promise: dict[Promise, list[Finding]] = {}
    for finding in findings:
        by_promise.setdefault(finding.promise, []).append(finding)
    return tuple(_verdict(promise, found) for promise, found in by_promise.items())


def _verdict(promise: Promise, found: list[Finding]) -> Verdict:
    for status in ("broken", "held", "not tried"):
        chosen = [finding for finding in found if finding.status == status]
        if chosen:
            told = tuple(dict.fromkeys(finding.told for finding in chosen))
            return Verdict(promise, chosen[0].status, len(chosen), told)
    raise AssertionError("a promise without a finding")
