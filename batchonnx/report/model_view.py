"""A model card in words."""

from __future__ import annotations

from collections.abc import Iterator

from batchonnx.lifecycle.provenance import KEY, Step, steps_of
from batchonnx.report.text import count, of_bytes, printable
from batchonnx.runtime.inspect import ModelCard

OPERATORS_SHOWN = 12


def format_card(card: ModelCard) -> str:
    """Inputs, outputs, opsets, operators, weights and metadata, in a screenful."""
    return "\n".join(printable(line) for line in _lines(card))


def _lines(card: ModelCard) -> Iterator[str]:
    signature = card.signature
    yield f"{signature.path}  ({of_bytes(signature.bytes)})"
    yield f"  sha256     {signature.digest}"
    if card.problem is not None:
        yield f"  can't run  {card.problem.title}"
        yield f"  {'fix':<10} {card.problem.fix}"
    for number, spec in enumerate(signature.inputs):
        yield f"  {'input' if not number else '':<10} {spec}"
    for number, spec in enumerate(signature.outputs):
        yield f"  {'output' if not number else '':<10} {spec}"
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in card.opsets.items())
    yield f"  opsets     {opsets}; IR {card.ir_version}"
    if card.producer:
        yield f"  producer   {card.producer}"
    weights = ", ".join(f"{kind} {of_bytes(size)}" for kind, size in card.weights.items())
    yield f"  weights    {count(card.parameters)} parameters" + (f": {weights}" if weights else "")
    if card.external:
        yield f"  external   {', '.join(card.external)}"
    shown = list(card.operators.items())[:OPERATORS_SHOWN]
    rest = len(card.operators) - len(shown)
    operators = ", ".join(f"{name} {number}" for name, number in shown)
    yield f"  operators  {sum(card.operators.values())}: {operators}" + (
        f" … {rest} more kinds" if rest else ""
    )
    for number, step in enumerate(steps_of(signature)):
        yield f"  {'made' if not number else '':<10} {format_step(step)}"
    for key, value in signature.metadata.items():
        if key == KEY:
            continue
        yield f"  metadata   {key}: {value[:80]}"


def format_step(step: Step) -> str:
    """One line: what was done, to what, how, and what came of it."""
    source = f"{step.source} ({step.source_sha256[:12]}…)" if step.source_sha256 else step.source
    options = ", ".join(f"{name} {value}" for name, value in step.options.items())
    told = f"{step.step} of {source}" + (f": {options}" if options else "")
    return f"{told}; {step.verdict}" if step.verdict else told
