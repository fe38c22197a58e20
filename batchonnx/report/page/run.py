"""Sections on how the run went: pace, model, circumstances, and how to have it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

import yaml

from batchonnx.ledger.records import Commit, PlanRecord
from batchonnx.planning.identity import LIBRARIES, input_name
from batchonnx.report.page.gather import Facts
from batchonnx.report.page.html import facts as pairs
from batchonnx.report.page.html import table, tag
from batchonnx.report.page.pictures import draw_durations, draw_memory, draw_stages, draw_throughput
from batchonnx.report.page.timeline import LATE
from batchonnx.report.prices import format_cost
from batchonnx.report.text import amount, count, duration, moment, of_bytes, plural
from batchonnx.runtime.inspect import ModelCard

HOSTS_SHOWN, OPERATORS_SHOWN, FILES_SHOWN = 20, 12, 20


def pace(facts: Facts) -> Iterator[Element]:
    """Throughput, stages, durations and memory, with the stage that the run waited for."""
    timeline = facts.timeline
    if timeline is None:
        return
    yield tag("h2", "Pace")
    slowest, total = timeline.slowest_stage, sum(timeline.stages_s.values())
    if slowest is not None:
        beside = ("read", "write") if timeline.reads_ahead else ("write",)
        told = [
            f"{stage} {seconds / total:.0%}{' (in a thread of its own)' if stage in beside else ''}"
            for stage, seconds in timeline.stages_s.items()
        ]
        yield tag("p", tag("b", slowest), f" held workers back. Of all work: {', '.join(told)}.")
    yield tag(
        "div",
        _figure("Rows per second", draw_throughput(timeline)),
        _figure("What workers did", draw_stages(timeline)),
        _figure("Shards by duration", draw_durations(timeline)),
        _figure("Memory of a worker's process", draw_memory(timeline)),
        class_="grid",
    )
    told_of = f"{plural(len(timeline.durations_s), 'shard')}, {duration(timeline.median_s)} in the median"
    if not timeline.late_count:
        yield tag("p", f"{told_of}; none took {LATE:g} times as long.", class_="quiet")
        return
    yield tag("p", f"{told_of}; {count(timeline.late_count)} took {LATE:g} times as long or longer:")
    rows = [
        (late.part, count(late.rows_in), duration(late.took_s), late.worker, late.host, _input(late))
        for late in timeline.late
    ]
    yield table(("shard", "rows", "took", "worker", "host", "input"), rows)


def model(facts: Facts) -> Iterator[Element]:
    """The model's card; of a chain, each one's."""
    yield tag("h2", "Models" if len(facts.models) > 1 else "Model")
    for used in facts.models:
        if used.name:
            yield tag("h3", used.name, style="margin-top: 1rem")
        yield (
            _card(used.digest, used.card)
            if used.card is not None
            else pairs((("sha256", tag("code", used.digest)), ("file", used.gone)))
        )


def _card(digest: str, card: ModelCard) -> Element:
    signature = card.signature
    operators = [f"{name} {number}" for name, number in card.operators.items()]
    more = f" … {len(operators) - OPERATORS_SHOWN} more kinds" if len(operators) > OPERATORS_SHOWN else ""
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in card.opsets.items())
    return pairs(
        (
            ("file", f"{signature.path} ({of_bytes(signature.bytes)})"),
            ("sha256", tag("code", digest)),
            *((f"input {i + 1}", str(spec)) for i, spec in enumerate(signature.inputs)),
            *((f"output {i + 1}", str(spec)) for i, spec in enumerate(signature.outputs)),
            ("opsets", f"{opsets}; IR {card.ir_version}"),
            ("producer", card.producer or None),
            ("weights", f"{count(card.parameters)} parameters"),
            ("operators", ", ".join(operators[:OPERATORS_SHOWN]) + more),
            *((f"metadata {key}", text[:300]) for key, text in list(signature.metadata.items())[:20]),
        )
    )


def circumstances(facts: Facts) -> Iterator[Element]:
    """Where and with what the run worked, what it asked of a store, and the runs before it."""
    yield tag("h2", "Circumstances")
    plan, manifest, work = facts.plan, facts.manifest, facts.manifest.work
    by_host = Counter(commit.host for commit in facts.own_commits if commit.host)
    hosts = [f"{host} ({plural(number, 'shard')})" for host, number in by_host.most_common(HOSTS_SHOWN)]
    versions = [f"{name} {number}" for name, number in _versions(plan).items()]
    told: list[tuple[str, str | None]] = [("versions", ", ".join(versions))]
    if work is not None:
        crew = (
            f"{work.engine}, {plural(work.workers, 'worker')} x {plural(work.threads_per_worker, 'thread')}"
        )
        told += [
            ("engine", f"{crew}, batches of {plural(manifest.batch_rows, 'row')}"),
            ("device", work.device),
            ("driver", f"{work.host}, {work.machine}, {plural(work.cores, 'core')}"),
            ("began", f"{moment(work.began)}, took {duration(work.elapsed_s)}"),
            (
                "first prediction",
                f"after {duration(work.first_row_s)}" if work.first_row_s is not None else None,
            ),
            ("cluster", f"ready after {duration(work.start_s)}" if work.start_s is not None else None),
            ("resumed", f"{plural(work.resumed, 'shard')} done before" if work.resumed else None),
            ("kept", f"{plural(work.kept, 'part')} taken over" if work.kept else None),
            ("faults", _faults(work.lost, work.copied, work.halved, work.apart)),
            ("requests", _requests(work.requests)),
            ("core hours", amount(facts.hours.cpu) if facts.hours is not None else None),
            ("GPU hours", amount(facts.hours.gpu) if facts.hours is not None and facts.hours.gpu else None),
            ("estimated cost", format_cost(facts.cost, facts.currency) if facts.cost is not None else None),
        ]
    told.append(("hosts", ", ".join(hosts) or None))
    yield pairs(told)
    if manifest.history:
        yield tag("h3", "Before it, at the same place", style="margin-top: 1rem")
        rows = [
            (
                moment(past.completed),
                past.run,
                count(past.predicted),
                count(past.quarantined),
                duration(past.elapsed_s) if past.elapsed_s is not None else "",
                "same" if past.model == manifest.model else f"{past.model[:12]}…",
            )
            for past in reversed(manifest.history[-10:])
        ]
        yield table(("completed", "run", "predicted", "quarantined", "time", "model"), rows)


def again(facts: Facts) -> Iterator[Element]:
    """The job as it was understood, and the commands that give the same result."""
    plan = facts.plan
    yield tag("h2", "The same again")
    yield tag("p", f"The job as it was understood; relative paths count from {plan.folder}.", class_="quiet")
    yield tag("pre", yaml.safe_dump(_filled(plan.job), sort_keys=False, allow_unicode=True, width=100))
    packages = [f"{name}=={number}" for name, number in _versions(plan).items()]
    lines = [
        f"pip install {' '.join(packages)}",
        "batchonnx run job.yaml",
        f"batchonnx verify {facts.output} --deep",
    ]
    yield tag("pre", "\n".join(lines))
    yield tag("p", "fingerprint ", tag("code", plan.fingerprint), class_="quiet")
    inputs = list(plan.files.items())
    rows = [
        (path, "" if number is None else count(number), plan.identity.get(input_name(path), ""))
        for path, number in inputs[:FILES_SHOWN]
    ]
    more = f", the first {FILES_SHOWN} of them" if len(inputs) > FILES_SHOWN else ""
    yield tag(
        "details",
        tag("summary", f"{plural(len(inputs), 'input file')}{more}"),
        table(("file", "rows", "as it was"), rows),
    )


def _filled(settings: object) -> object:
    """Settings without sections in which nothing is said."""
    if not isinstance(settings, Mapping):
        return settings
    found = {str(name): _filled(told) for name, told in settings.items()}
    return {name: told for name, told in found.items() if told not in (None, {}, [])}


def _figure(title: str, picture: Element) -> Element:
    return tag("figure", tag("h3", title), picture)


def _input(commit: Commit) -> str:
    paths = [source.path for source in commit.sources]
    return ", ".join(paths[:1]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _versions(plan: PlanRecord) -> dict[str, str]:
    """Package -> version, of all that the result's bytes depend on."""
    libraries = {name: plan.identity[name] for name in LIBRARIES if name in plan.identity}
    return {"batchonnx": plan.version, **libraries}


def _faults(lost: int, copied: int, halved: int, apart: int) -> str | None:
    told = [
        f"{plural(lost, 'worker')} died" if lost else "",
        f"{plural(copied, 'shard')} went out twice" if copied else "",
        f"{plural(halved, 'batch')} went in pieces for want of memory" if halved else "",
        f"{plural(apart, 'shard')} went to a process apart" if apart else "",
    ]
    return ", ".join(filter(None, told)) or None


def _requests(requests: object) -> str | None:
    if not isinstance(requests, dict) or not requests:
        return None
    told = ", ".join(f"{name} {count(number)}" for name, number in sorted(requests.items()))
    return f"{count(sum(requests.values()))}: {told}"
