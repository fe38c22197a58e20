"""What a comparison has to reach, and which of it was missed, by how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from batchonnx.lifecycle.parity import Parity
from batchonnx.runtime.signature import ModelSignature

NOT_SLOWER = 0.9
"""Speed is taken on a machine that does other things as well: less than that is slower, and no scatter."""


@dataclass(frozen=True)
class Gates:
    """Limits; None: not asked for.

    max_diff: of each output's `Parity.max_diff`. min_agreement: of each output's `label_agreement`, a share.
    min_cosine: of each output's `mean_cosine`. min_speedup: of the best rows/s of b to the best of a.
    """

    max_diff: float | None = None
    min_agreement: float | None = None
    min_cosine: float | None = None
    min_speedup: float | None = None


@dataclass(frozen=True)
class Miss:
    """A gate that wasn't passed.

    gate: as the command line has it, without dashes before: "max-diff"; "outputs" and "runs" are always
    asked for.
    output: whose figure it is; None: the model's. limit, found: None where the gate isn't a number.
    """

    gate: str
    output: str | None
    limit: float | None
    found: float | None
    told: str


def or_defaults(asked: Gates, answers: Gates, min_speedup: float | None) -> Gates:
    """What was asked for; where nothing was asked of the answers, or of the speed, what a step has itself."""
    if asked.max_diff is asked.min_agreement is asked.min_cosine is None:
        asked = replace(answers, min_speedup=asked.min_speedup)
    return replace(asked, min_speedup=min_speedup) if asked.min_speedup is None else asked


def alike(model: ModelSignature, min_cosine: float, max_diff: float) -> Gates:
    """Answers that may change a little: by direction, or by size where no output has many values a row."""
    shapes = [spec.shape for spec in model.outputs if spec.dtype.startswith("float")]
    if any(shape is None or (len(shape) > 1 and shape[-1] != 1) for shape in shapes):
        return Gates(min_cosine=min_cosine)
    return Gates(max_diff=max_diff)


def judge(gates: Gates, parity: Sequence[Parity], speedup: float | None) -> Iterator[Miss]:
    """Every gate that is missed. A gate that no output has a figure for is missed, too: it proves nothing."""
    yield from _unlike(parity)
    yield from _most("max-diff", gates.max_diff, [(one.name, one.max_diff) for one in parity])
    agreements = [(one.name, one.label_agreement) for one in parity]
    yield from _least("min-agreement", gates.min_agreement, agreements)
    yield from _least("min-cosine", gates.min_cosine, [(one.name, one.mean_cosine) for one in parity])
    if gates.min_speedup is not None:
        yield from _least("min-speedup", gates.min_speedup, [(None, speedup)])


def _unlike(parity: Sequence[Parity]) -> Iterator[Miss]:
    for one in parity:
        if one.unlike:
            told = f"{one.unlike:,} of {one.values:,} values are NaN or infinite in one model alone"
            yield Miss("outputs", one.name, None, None, told)


def _most(gate: str, limit: float | None, found: Sequence[tuple[str, float | None]]) -> Iterator[Miss]:
    if limit is None:
        return
    yield from _unmeasured(gate, limit, found)
    for name, value in found:
        if value is not None and not value <= limit:
            yield Miss(gate, name, limit, value, f"{value:.3g} is over {limit:.3g} by {value - limit:.3g}")


def _least(
    gate: str, limit: float | None, found: Sequence[tuple[str | None, float | None]]
) -> Iterator[Miss]:
    if limit is None:
        return
    yield from _unmeasured(gate, limit, found)
    for name, value in found:
        if value is not None and not value >= limit:
            yield Miss(gate, name, limit, value, f"{value:.4g} is under {limit:.4g} by {limit - value:.3g}")


def _unmeasured(gate: str, limit: float, found: Sequence[tuple[str | None, float | None]]) -> Iterator[Miss]:
    if all(value is None for _, value in found):
        yield Miss(gate, None, limit, None, "there is nothing to measure it on")
