"""Findings as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from batchonnx.doctor.symptom import Symptom
from batchonnx.report.text import plural, printable

_MARKS = {"good": "ok  ", "hint": "hint", "bad": "BAD "}


def format_symptoms(symptoms: Sequence[Symptom]) -> str:
    """A line for each finding, its remedy below, and a verdict."""
    lines = list(_lines(symptoms))
    bad = sum(symptom.level == "bad" for symptom in symptoms)
    hints = sum(symptom.level == "hint" for symptom in symptoms)
    told = plural(bad, "fault") if bad else "no faults"
    return "\n".join([*lines, f"{told}, {plural(hints, 'hint')}"])


def format_nodes(nodes: Mapping[str, Sequence[Symptom]]) -> str:
    """What each node tells; what is the same everywhere and good is told once."""
    shared = _shared(nodes)
    parts = ["every node", *_lines(shared)]
    for name, symptoms in nodes.items():
        own = [symptom for symptom in symptoms if symptom not in shared]
        parts += ["", name, *(_lines(own) if own else ["  nothing of its own"])]
    everything = [symptom for symptoms in nodes.values() for symptom in symptoms]
    bad = sum(symptom.level == "bad" for symptom in everything)
    hints = sum(symptom.level == "hint" for symptom in everything)
    told = plural(bad, "fault") if bad else "no faults"
    return "\n".join([*parts, "", f"{plural(len(nodes), 'node')}: {told}, {plural(hints, 'hint')}"])


def _shared(nodes: Mapping[str, Sequence[Symptom]]) -> list[Symptom]:
    first = next(iter(nodes.values()), ())
    everywhere = [set(symptoms) for symptoms in nodes.values()]
    return [one for one in first if one.level == "good" and all(one in found for found in everywhere)]


def _lines(symptoms: Sequence[Symptom]) -> Iterator[str]:
    width = max((min(20, len(symptom.check)) for symptom in symptoms), default=0)
    for symptom in symptoms:
        yield printable(f"{_MARKS[symptom.level]}  {symptom.check:<{width}}  {symptom.found}")
        if symptom.fix:
            yield printable(f"      {'':<{width}}  fix: {symptom.fix}")
