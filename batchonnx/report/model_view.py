"""A model in words."""

from __future__ import annotations

from collections.abc import Iterator

from batchonnx.lifecycle.inspection import Inspection
from batchonnx.lifecycle.provenance import KEY, Step
from batchonnx.report.text import count, of_bytes, printable
from batchonnx.runtime.inspect import ModelCard
from batchonnx.runtime.placement import Placement

OPERATORS_SHOWN = 12


def format_inspection(found: Inspection) -> str:
    """Inputs, outputs, opsets, operators, weights, cost, placement and metadata, in a screenful."""
    signature = found.card.signature
    lines = [f"{signature.path}  ({of_bytes(signature.bytes)})"]
    before = ""
    for label, told in card_facts(found):
        lines.append(f"  {label if label != before else '':<10} {told}")
        before = label
    return "\n".join(printable(line) for line in lines)


def card_facts(found: Inspection) -> Iterator[tuple[str, str]]:
    """Labels and what is to be said of them, in the order to show; a label may come again."""
    card, signature = found.card, found.card.signature
    yield "sha256", signature.digest
    if card.problem is not None:
        yield "can't run", card.problem.title
        yield "fix", card.problem.fix
    yield from (("input", str(spec)) for spec in signature.inputs)
    yield from (("output", str(spec)) for spec in signature.outputs)
    for symbol, names in found.symbols.items():
        yield "open", f"{symbol}: of {', '.join(names)}"
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in card.opsets.items())
    yield "opsets", f"{opsets}; IR {card.ir_version}"
    if card.producer:
        yield "producer", card.producer
    weights = ", ".join(f"{kind} {of_bytes(size)}" for kind, size in card.weights.items())
    yield "weights", f"{count(card.parameters)} parameters" + (f": {weights}" if weights else "")
    if card.external:
        yield "external", ", ".join(card.external)
    yield "operators", _operators(card)
    if found.flops is not None:
        yield "cost", _cost(found)
    yield from (("placed", _placed(one)) for one in found.placement)
    yield from (("made", format_step(step)) for step in found.steps)
    for key, value in signature.metadata.items():
        if key != KEY:
            yield "metadata", f"{key}: {value[:80]}"


def format_step(step: Step) -> str:
    """One line: what was done, to what, how, and what came of it."""
    source = f"{step.source} ({step.source_sha256[:12]}…)" if step.source_sha256 else step.source
    options = ", ".join(f"{name} {value}" for name, value in step.options.items())
    told = f"{step.step} of {source}" + (f": {options}" if options else "")
    return f"{told}; {step.verdict}" if step.verdict else told


def _operators(card: ModelCard) -> str:
    shown = list(card.operators.items())[:OPERATORS_SHOWN]
    rest = len(card.operators) - len(shown)
    operators = ", ".join(f"{name} {number}" for name, number in shown)
    return f"{sum(card.operators.values())}: {operators}" + (f" … {rest} more kinds" if rest else "")


def _cost(found: Inspection) -> str:
    assert found.flops is not None
    sizes = "".join(f", {name} of {size}" for name, size in found.flops.sizes.items())
    left = ", ".join(f"{name} {number}" for name, number in found.flops.uncounted.items())
    told = f"{count(found.flops.per_row)} operations a row{sizes}"
    return f"{told}; not counted: {left}" if left else told


def _placed(one: Placement) -> str:
    if one.nodes is None:
        return f"{one.provider}: {one.problem}"
    taken = sum(one.nodes.values())
    return f"{one.provider}: {count(taken)} node{'s' * (taken != 1)} as optimized"
