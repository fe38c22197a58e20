"""What phones' accelerators would take of a model, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchonnx.lifecycle.convert import Usability

_VERDICTS = {"yes": "worth it", "maybe": "worth a try", "no": "not worth it"}


def format_usability(found: Sequence[Usability]) -> str:
    """A few lines for each provider."""
    return "\n".join(line for one in found for line in _lines(one))


def _lines(one: Usability) -> Iterator[str]:
    fixed = (one.taken_fixed, one.parts_fixed)
    told = f"{one.taken} of {one.nodes} nodes in {one.parts} part{'s' * (one.parts != 1)}"
    if fixed != (one.taken, one.parts):
        told += f", with fixed shapes {one.taken_fixed} in {one.parts_fixed}"
    yield f"{one.provider}: {_VERDICTS[one.verdict]}: {told}"
    if one.left:
        yield f"  without   {', '.join(one.left)}"
    for name, caveat in one.caveats.items():
        yield f"  unchecked {name}: {caveat}"
