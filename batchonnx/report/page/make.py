"""From a result to its page."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from batchonnx.errors import DependencyError, Problem
from batchonnx.ledger.output import Output
from batchonnx.report.page.gather import gather
from batchonnx.report.prices import Prices


@dataclass(frozen=True)
class Page:
    """html: one file that needs nothing else. broken: what is wrong, if the result was to be proved."""

    run: str
    html: bytes
    broken: tuple[Problem, ...]


def require_pictures() -> None:
    """Raises DependencyError without matplotlib."""
    if find_spec("matplotlib") is None:
        raise DependencyError(Problem("a report needs a package", {}, "pip install 'batchonnx[report]'"))


def make_page(output: Output, against: Output | None, prices: Prices | None, *, is_proved: bool) -> Page:
    """The page of a published result; see `api.report`. Raises DependencyError, StorageError."""
    require_pictures()
    from batchonnx.report.page.write import write_page

    facts = gather(output, against, prices, is_proved=is_proved)
    return Page(facts.manifest.run, write_page(facts), facts.broken)
