"""What was proved, and where a prediction comes from, as lines for people."""

from __future__ import annotations

from batchonnx.proof.explain import Origin
from batchonnx.proof.verify import Proof
from batchonnx.report.text import count, of_bytes, plural, printable


def format_proof(proof: Proof) -> str:
    """The closing lines of `verify`."""
    rows = f"{plural(proof.rows_in, 'row')} in = {count(proof.predicted)} predicted"
    rows += f" in {plural(proof.lines, 'line')}" if proof.lines != proof.predicted else ""
    rows += f" + {count(proof.quarantined)} quarantined + {count(proof.filtered)} filtered out"
    lines = [
        f"proved: {rows}",
        f"  output  {printable(proof.output)}",
        f"  parts   {plural(proof.parts, 'part')}, {of_bytes(proof.bytes)}: size, rows, digest as committed",
        f"  input   {plural(proof.files, 'file')}: each row in one part, quarantined or filtered out",
        f"  model   sha256 {proof.model}",
    ]
    if proof.rescored is not None:
        same = "equal" if not proof.difference else f"equal within {proof.difference:.1g}"
        lines.append(f"  deep    {plural(proof.rescored, 'row')} scored again: {same}")
    return "\n".join(lines)


def format_origin(origin: Origin) -> str:
    """What is behind one row."""
    head = f"row {count(origin.row)} of the result" if origin.row is not None else "a row in quarantine"
    facts = {
        "from": f"row {count(origin.file_row)} of {origin.file}",
        "part": f"row {count(origin.part_row)} of {origin.part} (shard {origin.shard})",
        "model": f"{origin.model_path}, sha256 {origin.model}",
        "scored": f"{origin.scored_at}, by batchonnx {origin.version}, run {origin.run}",
        **({"error": origin.error} if origin.error is not None else {}),
    }
    width = max(len(label) for label in ("values", "settings", *facts))
    lines = [head, *(f"  {label:<{width}}  {printable(text)}" for label, text in facts.items())]
    for label, entries in (("values", origin.values), ("settings", origin.settings)):
        for key, value in entries.items():
            shown = str(value)
            lines.append(f"  {label:<{width}}  {printable(key)} = {printable(shown[:200])}")
            label = ""
    return "\n".join(lines)
