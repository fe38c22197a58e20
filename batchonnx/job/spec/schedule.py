"""The section `schedule`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from batchonnx.job.spec.section import Duration, Place, Section, rule


class Schedule(Section):
    """When the job runs, and for which logical date: `{{ date }}`."""

    cron: Place = Field(description="Minute, hour, day of month, month, day of week: 15 2 * * *.")
    time_zone: Place = Field("UTC", description="Of the cron expression and of `{{ date }}`: Europe/Berlin.")
    lag: Duration | None = Field(
        None,
        description="How far the logical date lies behind the tick: with 1d, a tick scores the day before. "
        "Left out: it is the tick's own.",
    )
    date: Place | None = Field(
        None,
        description="How `{{ date }}` is written, as in strftime. Left out: %Y-%m-%d, or %Y-%m-%dT%H%M where "
        "a day may have several ticks.",
    )
    start: Place | None = Field(None, description="The first logical date of all: 2026-11-01.")
    catch_up: Annotated[int, Field(ge=0)] = Field(
        0,
        description="How many ticks before the newest may be made up, if their outputs aren't published. "
        "Needs start.",
    )
    overlap: Literal["wait", "skip", "replace"] = Field(
        "wait",
        description="A tick that comes due while another one's run goes on: wait for it, be left out, or "
        "take its place.",
    )
    deadline: Duration | None = Field(
        None, description="How long one tick's run may take. Left out: for ever."
    )

    @field_validator("cron", mode="after")
    @classmethod
    def _that_every_cron_knows(cls, cron: str) -> str:
        # Imported here: most jobs have no schedule, and a run begins without waiting for it.
        from cronsim import CronSim, CronSimError

        expected = "minute hour day-of-month month day-of-week, like 15 2 * * *"
        if len(cron.split()) != 5:
            fix = "write five fields; for every day at a quarter past two: 15 2 * * *"
            raise rule("a cron expression has five fields", expected=expected, found=cron, fix=fix)
        if found := _ONLY_HERE.search(" ".join(cron.upper().split()[2:3] + cron.upper().split()[4:])):
            fix = "write it with *, numbers, names, lists, ranges and steps; Sunday is 0 or SUN"
            raise rule("not every scheduler knows this", expected=expected, found=found[0], fix=fix)
        try:
            next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            fix = "look at this field; it takes *, numbers, lists, ranges and steps: */15, 1-5, 0,30"
            raise rule(
                f"no cron expression: {str(error)[:1].lower()}{str(error)[1:]}",
                expected=expected,
                found=cron,
                fix=fix,
            ) from error
        except StopIteration:
            fix = "look at day of month and month"
            raise rule("a schedule that never comes", expected=expected, found=cron, fix=fix) from None
        return cron

    @field_validator("time_zone", mode="after")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(name)
        except (ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise _no_zone(name) from error
        except KeyError as error:
            raise _no_zone(name) from error
        return name

    @field_validator("date", mode="after")
    @classmethod
    def _fit_for_a_path(cls, form: str | None) -> str | None:
        if form is None:
            return None
        bare = re.sub(r"%[YmdHMzj]", "", form)
        if bare == form or re.search(r"[^\w.=/T+-]", bare):
            raise rule(
                "this can't write a date that is part of a path",
                expected="%Y, %m, %d, %H, %M, %z, %j and letters, digits, _ . = / -",
                found=form,
                fix="write %Y-%m-%d, for example",
            )
        return form

    @field_validator("start", mode="after")
    @classmethod
    def _a_day(cls, start: str | None) -> str | None:
        try:
            if start is not None:
                date.fromisoformat(start)
        except ValueError:
            fix = "write a day like 2026-11-01"
            raise rule("start is no date", expected="YYYY-MM-DD", found=start or "", fix=fix) from None
        return start

    @model_validator(mode="after")
    def _start_of_catching_up(self) -> Self:
        if self.catch_up and self.start is None:
            raise rule(
                "catch_up needs start",
                expected="start: the first logical date, like 2026-11-01",
                found="no start",
                fix="say since when results are to be there: start: 2026-11-01",
                key="catch_up",
            )
        return self


_ONLY_HERE = re.compile(r"[L#?]|W(?!ED)|(?<!\d)7(?!\d)(?=[^ ]*$)")
"""What some systems read otherwise or not at all: last days, nth days, Sunday as 7."""


def _no_zone(name: str) -> PydanticCustomError:
    fix = "write UTC, or a name like Europe/Berlin"
    return rule("there is no such time zone", expected="a name of the IANA database", found=name, fix=fix)
