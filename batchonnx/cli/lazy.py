"""Groups of commands that are imported only when one of them is run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

from batchonnx.cli.errors import ErrorBoundary


def lazy_group(commands: Mapping[str, tuple[str, str]]) -> type[ErrorBoundary]:
    """A group that knows its commands by name. commands: name -> module and the name in it, in the order of
    help."""

    class LazyGroup(ErrorBoundary):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(commands)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in commands:
                return None
            module, name = commands[cmd_name]
            command: click.Command = getattr(import_module(module), name)
            return command

    return LazyGroup
