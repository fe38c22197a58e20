"""Sections on what came out: counts, verdict, gate, warnings, bad rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from batchonnx.report.page.gather import Facts
from batchonnx.report.page.html import table, tag
from batchonnx.report.text import amount, count, duration, moment, of_bytes, plural

PROBLEMS_SHOWN = 20


def head(facts: Facts) -> Iterator[Element]:
    """Name, verdict, figures, warnings and gate."""
    plan, manifest = facts.plan, facts.manifest
    ended = manifest.completed or plan.created
    yield tag("h1", str(plan.job.get("name") or facts.output))
    yield tag(
        "p",
        f"{facts.output} · run {manifest.run} · {moment(ended)} · batchonnx {plan.version}",
        class_="quiet",
    )
    yield _verdict(facts)
    yield tag("div", [_figure(told, name) for name, told in _figures(facts)], class_="figures")
    notes = [*manifest.notes, *(f"couldn't be read: {told}" for told in facts.unread)]
    if notes:
        yield tag("h2", "Warnings")
        yield tag("ul", [tag("li", note) for note in notes])
    if manifest.gate:
        yield tag("h2", "Gate")
        rows = [
            (one.column, f"{one.check} {one.limit}", one.found, _passed(one.is_passed))
            for one in manifest.gate
        ]
        yield table(("column", "check", "found", ""), rows)


def quarantine(facts: Facts) -> Iterator[Element]:
    """Why rows were put aside, with some of them; nothing where there are none."""
    bad = facts.manifest.quarantined
    if not bad:
        return
    yield tag("h2", "Quarantine")
    told = plural(bad, "row") + " couldn't be scored"
    if facts.looked < bad:
        told += f"; the reasons are those of the first {count(facts.looked)}"
    yield tag("p", told + ".", class_="quiet")
    for reason in facts.reasons:
        names = list(dict.fromkeys(name for _, _, values in reason.samples for name in values))[:6]
        rows = [
            (file, count(row), *(values.get(name, "") for name in names))
            for file, row, values in reason.samples
        ]
        yield tag(
            "details",
            tag("summary", plural(reason.rows, "row"), ": ", tag("code", reason.error[:500])),
            table(("file", "row", *names), rows),
            open="open",
        )


def _verdict(facts: Facts) -> Element:
    manifest = facts.manifest
    rows = f"{plural(manifest.rows_in, 'row')} in = {count(manifest.predicted)} predicted + "
    rows += f"{count(manifest.quarantined)} quarantined + {count(manifest.filtered)} filtered out"
    if facts.broken:
        shown = facts.broken[:PROBLEMS_SHOWN]
        wrong = [tag("li", tag("b", one.title), _told(one.facts)) for one in shown]
        rest = len(facts.broken) - PROBLEMS_SHOWN
        more = f"and {rest} more" if rest > 0 else None
        head = tag("b", f"Not proved: {plural(len(facts.broken), 'thing')} wrong", class_="failed")
        return tag("div", head, tag("p", rows), tag("ul", wrong), more, class_="verdict bad")
    if facts.proof is None:
        says = f"Recorded, not proved. Prove it from the files: batchonnx verify {facts.output}"
        return tag("div", tag("b", rows), tag("p", says, class_="quiet"), class_="verdict open")
    says = f"Proved: {plural(facts.proof.parts, 'part')} with size, rows and digest as committed; each row "
    says += f"of {plural(facts.proof.files, 'input file')} in one part, in quarantine or filtered out."
    return tag("div", tag("b", rows), tag("p", says, class_="quiet"), class_="verdict")


def _told(facts: Mapping[str, str]) -> str:
    return " — " + "; ".join(f"{name}: {told}" for name, told in facts.items()) if facts else ""


def _figures(facts: Facts) -> Iterator[tuple[str, str]]:
    manifest, work = facts.manifest, facts.manifest.work
    yield "rows in", count(manifest.rows_in)
    yield "predicted", count(manifest.predicted)
    yield "quarantined", count(manifest.quarantined)
    yield "filtered out", count(manifest.filtered)
    parts = [part for commit in manifest.commits for part in commit.parts]
    yield plural(len(parts), "part"), of_bytes(sum(part.bytes for part in parts))
    if work is not None:
        yield "time", duration(work.elapsed_s)
        scored = sum(commit.rows_in for commit in facts.own_commits)
        if not work.resumed and work.elapsed_s and scored:
            yield "rows per second", count(scored / work.elapsed_s)
        yield "peak memory of the driver", of_bytes(work.memory)
    if facts.cost is not None:
        yield f"estimated cost, {facts.currency}", amount(facts.cost.total)


def _figure(told: str, name: str) -> Element:
    return tag("div", tag("b", told), tag("span", name))


def _passed(is_passed: bool) -> Element:
    return tag("span", "passed" if is_passed else "failed", class_="good" if is_passed else "failed")
