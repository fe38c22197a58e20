"""A comparison in words and figures, kept beside the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from batchonnx.errors import Problem, StorageError
from batchonnx.lifecycle.compare import Comparison
from batchonnx.lifecycle.parity import Parity

SUFFIX = ".comparison"


def keep_report(comparison: Comparison, model: Path) -> tuple[Path, Path]:
    """Write MODEL.comparison.json and MODEL.comparison.md; the paths. Raises StorageError."""
    paths = report_paths(model)
    texts = json.dumps(comparison.as_dict(), indent=1, ensure_ascii=False) + "\n", as_markdown(comparison)
    try:
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
    except OSError as error:
        facts = {"file": str(paths[0]), "found": error.strerror or str(error)}
        raise StorageError(
            Problem(
                "the comparison's report can't be written",
                facts,
                "compare without a report, or write the model elsewhere",
            )
        ) from error
    return paths


def report_paths(model: Path) -> tuple[Path, Path]:
    """Where a model's report lies: figures, and words."""
    return model.with_name(f"{model.name}{SUFFIX}.json"), model.with_name(f"{model.name}{SUFFIX}.md")


def as_markdown(comparison: Comparison) -> str:
    """The whole comparison; its tables read well as plain text, too."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(found: Comparison) -> Iterator[str]:
    yield f"# {Path(found.b.path).name} against {Path(found.a.path).name}"
    yield ""
    yield found.verdict
    yield ""
    size = f", {found.b.bytes / found.a.bytes:.3g} of a" if found.a.bytes else ""
    yield f"- a: {found.a.path}, {found.a.bytes:,} bytes, sha256 {found.a.sha256[:12]}"
    yield f"- b: {found.b.path}, {found.b.bytes:,} bytes{size}, sha256 {found.b.sha256[:12]}"
    yield f"- rows: {found.rows:,}, {found.source}"
    machine = found.machine
    yield f"- on: {machine.cpu}, {machine.cores} cores, {machine.system}, onnxruntime {machine.onnxruntime}"
    yield from (f"- note: {note}" for note in found.notes)
    if found.parity:
        yield ""
        yield from _table(_PARITY, (_parity(one) for one in found.parity))
    if found.speed:
        yield ""
        rows = [
            (
                f"{s.batch_rows:,}",
                f"{s.a:,.0f}",
                f"{s.b:,.0f}",
                f"{s.speedup:.2f}x",
                f"{s.wall_a:,.0f}",
                f"{s.wall_b:,.0f}",
            )
            for s in found.speed
        ]
        yield from _table(("batch", "a rows/s", "b rows/s", "b to a", "a by wall", "b by wall"), rows)
        yield ""
        yield f"Best of b to best of a: {found.speedup:.2f}x, by CPU time of one thread."


_PARITY = (
    "output",
    "largest |a-b|",
    "mean |a-b|",
    "largest relative",
    "max diff",
    "cosine mean (least)",
    "same label",
    "same top",
    "same neighbour",
)


def _parity(one: Parity) -> tuple[str, ...]:
    cosine = "" if one.mean_cosine is None else f"{one.mean_cosine:.6f} ({one.min_cosine:.6f})"
    top = "" if one.rank_agreement is None else f"{one.rank_agreement:.1%} of {one.top_k}"
    return (
        one.name,
        _number(one.max_abs),
        _number(one.mean_abs),
        _number(one.max_rel),
        _number(one.max_diff),
        cosine,
        _share(one.label_agreement),
        top,
        _share(one.neighbour_agreement),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Columns that nothing is known for are left out; cells are as wide as the widest."""
    cells = [list(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    cells[0] = [cell.replace("|", "\\|") for cell in cells[0]]
    shown = [number for number in range(len(head)) if any(row[number] for row in cells[1:])]
    widths = {number: max(len(row[number]) for row in cells) for number in shown}
    for place, row in enumerate(cells):
        yield "| " + " | ".join(row[number].ljust(widths[number]) for number in shown) + " |"
        if not place:
            yield "| " + " | ".join("-" * widths[number] for number in shown) + " |"
