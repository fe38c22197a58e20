"""The command that looks at an environment: doctor."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from batchonnx.cli.screen import say

FAULTS = 3
"""The exit code where something is wrong: the world is."""


@click.command()
@click.argument("places", nargs=-1, metavar="[PLACE]...")
@click.option("--address", metavar="HEAD", help="Look at every node of a Ray cluster: host:port, or auto.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")
@click.pass_context
def doctor(context: click.Context, places: tuple[str, ...], address: str | None, as_json: bool) -> None:
    """Look for what is wrong here before a job does: packages, CPU, memory, devices, and each PLACE.

    A PLACE is a folder or a URL that jobs read or write; a few small objects are written there and removed.
    Exit code 3 if a job would fail; hints don't count.

    \b
    Examples:
      batchonnx doctor
      batchonnx doctor s3://scores/events/ /mnt/scores
      batchonnx doctor --address 10.0.0.5:6379 --json
    """
    # Not through the API: that imports what may be broken.
    from batchonnx.doctor.cluster import check_ray, examine_cluster
    from batchonnx.doctor.examine import examine
    from batchonnx.doctor.view import format_nodes, format_symptoms

    if address is not None:
        nodes = examine_cluster(address, places)
        text = format_nodes(nodes)
    else:
        nodes = {"here": [*examine(places), *check_ray()]}
        text = format_symptoms(nodes["here"])
    told = {name: [asdict(symptom) for symptom in symptoms] for name, symptoms in nodes.items()}
    say(json.dumps(told, indent=1) if as_json else text)
    if any(symptom.level == "bad" for symptoms in nodes.values() for symptom in symptoms):
        context.exit(FAULTS)
