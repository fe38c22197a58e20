"""The section on the distribution of each column of predictions."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from batchonnx.ledger.records import ColumnProfile
from batchonnx.report.page.gather import Facts
from batchonnx.report.page.html import table, tag
from batchonnx.report.page.pictures import draw_histogram
from batchonnx.report.text import count, plural, shorten

LABELS_SHOWN, LABEL_WIDTH = 12, 40


def distributions(facts: Facts) -> Iterator[Element]:
    """A picture or bars for each column, beside those of the run before."""
    if not facts.columns:
        return
    yield tag("h2", "Predictions")
    looked = max(profile.rows for profile in facts.columns)
    told = "of all rows" if looked >= facts.manifest.predicted else f"of a sample of {plural(looked, 'row')}"
    if facts.before:
        told += f", beside {facts.before_name}"
    more = f"; {plural(facts.left_out, 'more column')} not shown" if facts.left_out else ""
    yield tag("p", f"Values {told}{more}.", class_="quiet")
    yield tag("div", [_column(one, facts.before.get(one.column)) for one in facts.columns], class_="grid")


def _column(now: ColumnProfile, before: ColumnProfile | None) -> Element:
    name = tag("h3", shorten(now.column, 80), " ", tag("span", now.type[:80], class_="quiet"))
    if now.edges:
        picture: Element | None = draw_histogram(now, before)
    elif now.labels:
        picture = _bars(now, before)
    else:
        picture = tag("p", "Values of this type have no distribution to show.", class_="quiet")
    lines = [_line("", now)] if before is None else [_line("now: ", now), _line("before: ", before)]
    return tag("section", name, picture, [tag("p", line, class_="quiet") for line in lines])


def _line(when: str, profile: ColumnProfile) -> str:
    told = []
    if profile.low is not None and profile.high is not None and profile.mean is not None:
        told.append(f"{profile.low:.6g} to {profile.high:.6g}, mean {profile.mean:.6g}")
    of = max(1, profile.nulls + profile.values)
    told.append(
        f"{count(profile.nulls)} null or NaN ({profile.nulls / of:.2%})" if profile.nulls else "no null"
    )
    return when + "; ".join(told)


def _bars(now: ColumnProfile, before: ColumnProfile | None) -> Element:
    shares, earlier = _shares(now), _shares(before) if before is not None else {}
    names = list(dict.fromkeys([*list(shares)[:LABELS_SHOWN], *list(earlier)[:LABELS_SHOWN]]))
    widest = max((*shares.values(), *earlier.values()), default=1.0) or 1.0
    rows = []
    for name in names:
        bars = [_bar(shares.get(name, 0.0) / widest, "bar")]
        told = f"{shares.get(name, 0.0):.2%}"
        if before is not None:
            bars.append(_bar(earlier.get(name, 0.0) / widest, "bar before"))
            told += f" (was {earlier.get(name, 0.0):.2%})"
        rows.append((shorten(name, LABEL_WIDTH), tag("div", bars), told))
    return table((), rows, "bars")


def _bar(share: float, kind: str) -> Element:
    return tag("span", class_=kind, style=f"width: {100 * share:.2f}%")


def _shares(profile: ColumnProfile) -> dict[str, float]:
    return {label: number / max(1, profile.values) for label, number in profile.labels}
