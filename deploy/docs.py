"""Builds the documentation as a site in site/: the pages of docs/, and two that are made from the code.

python deploy/docs.py      (wants the extra `docs`)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from batchonnx.cli import main as program
from batchonnx.job.schema import job_schema

ROOT = Path(__file__).parent.parent

Schema = Mapping[str, Any]


def main() -> None:
    """Build this checkout's."""
    sys.exit(build(ROOT))


def build(root: Path) -> int:
    """Build root/docs as root/site; 0 if nothing is wrong with it. root/docs/reference is made anew."""
    reference = root / "docs" / "reference"
    reference.mkdir(exist_ok=True)
    (reference / "job-file.md").write_text(job_page(job_schema()))
    (reference / "commands.md").write_text(commands_page())
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=root, check=False).returncode


def job_page(schema: Schema) -> str:
    """Every key of a job file, from its JSON Schema: a table for each section."""
    sections = {"Job": schema, **dict(sorted(schema["$defs"].items()))}
    text = [
        "# Job file, key by key",
        "What `batchonnx schema` says, as a page. [The job file](../job-file.md) explains it with examples.",
    ]
    for name, section in sections.items():
        if "properties" in section:
            text += [f"## {name}", section.get("description", ""), "\n".join(_rows(section))]
    return "\n\n".join(filter(None, text)) + "\n"


def _rows(section: Schema) -> Iterator[str]:
    yield "| key | values | if left out | |"
    yield "| --- | --- | --- | --- |"
    required = section.get("required", ())
    for key, value in section["properties"].items():
        default = "**needed**" if key in required else _default(value)
        yield f"| `{key}` | {_kind(value)} | {default} | {_cell(value.get('description', ''))} |"


def _default(value: Schema) -> str:
    if value.get("default") in (None, [], {}) or "default" not in value:
        return ""
    return f"`{_yaml(value['default'])}`"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(value: Schema) -> str:
    """A schema in words: types, the values that are allowed, and links to sections."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{_yaml(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{_yaml(one)}`" for one in value["enum"])
    for word in ("anyOf", "oneOf"):
        if word in value:
            return ", or ".join(dict.fromkeys(_kind(one) for one in value[word]))
    if value.get("type") == "array":
        return f"list of {_kind(value.get('items', {}))}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"name: {_kind(inner)}" if isinstance(inner, Mapping) else "mapping"
    return str(value.get("type", "any"))


def _cell(text: str) -> str:
    """Without what would end a cell, or be read as HTML."""
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


def commands_page() -> str:
    """What each command says with --help."""
    text = ["# Commands", "What `--help` says. [The command line](../cli.md) has exit codes and JSON."]
    for words, command in _commands(["batchonnx"], program):
        with click.Context(command, info_name=" ".join(words)) as context:
            text += [f"## {' '.join(words)}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(text) + "\n"


def _commands(words: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from _commands([*words, name], inner)


if __name__ == "__main__":
    main()
