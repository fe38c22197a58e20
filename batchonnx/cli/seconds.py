"""A length of time as a value of an option: 90, 90s, 2m, 1h."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Seconds(click.ParamType[float]):
    """Above zero, in seconds where no unit is written."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The text as seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(value).strip())
        if found is None or not float(found[1]):
            self.fail(f"{value!r} is no length of time: write 90s, 2m or 1h", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


SECONDS = Seconds()
