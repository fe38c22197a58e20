"""What one look at an environment has found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "hint", "bad"]
"""hint: jobs run, but not as well or as safely as they could. bad: some job will fail."""


@dataclass(frozen=True)
class Symptom:
    """A finding with its remedy.

    check: what was looked at. found: in a line. fix: the next step, in a line; empty where all is good.
    alike: what machines that work together should have in common; empty where it doesn't matter.
    """

    check: str
    level: Level
    found: str
    fix: str = ""
    alike: str = ""


Symptoms = Iterator[Symptom]
