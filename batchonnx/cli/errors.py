"""The one place where errors become text, JSON and exit codes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from difflib import get_close_matches
from typing import Any, NoReturn

import click

from batchonnx.cli.screen import complain
from batchonnx.errors import BatchonnxError, Interrupted, Problem
from batchonnx.report.text import printable


class ErrorBoundary(click.Group):
    """A group whose commands end with a message and the documented exit code, never a traceback
    for a user's mistake."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises is told here and nowhere else."""
        try:
            return super().invoke(ctx)
        except BatchonnxError as error:
            _fail(error)
        except KeyboardInterrupt:
            complain("interrupted")
            ctx.exit(Interrupted.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            told = "error: this is a bug of batchonnx; please report it with the text above"
            complain(f"{traceback.format_exc()}{told}")
            ctx.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is answered with the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self.list_commands(ctx), 1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error


def _fail(error: BatchonnxError) -> NoReturn:
    if "--json" in sys.argv:
        complain(json.dumps(error.as_dict(), indent=1, ensure_ascii=False), is_json=True)
    else:
        complain("\n\n".join(render(problem) for problem in error.problems))
    sys.exit(error.exit_code)


def render(problem: Problem) -> str:
    """`error: …`, its facts and its fix, aligned; control characters of data made harmless."""
    is_coloured = sys.stderr is not None and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    head = click.style("error:", fg="red", bold=True) if is_coloured else "error:"
    facts = {**problem.facts, **({"fix": problem.fix} if problem.fix else {})}
    width = max((len(label) for label in facts), default=0)
    lines = [f"{head} {printable(problem.title)}"]
    lines += [f"  {label:<{width}}  {printable(text)}" for label, text in facts.items()]
    return "\n".join(lines)
