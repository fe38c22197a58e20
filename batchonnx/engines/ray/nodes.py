"""What Ray tells of the cluster's nodes, and what it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from batchonnx.engines.ray.placement import Amounts, Node, read_nodes


def cluster_nodes(leaving: Sequence[str] = ()) -> list[Node]:
    """The cluster's nodes, without those that leave."""
    import ray

    return read_nodes(ray.nodes(), leaving)


def draining() -> list[str]:
    """Ids of the nodes that are to go; none where this Ray doesn't tell."""
    with suppress(Exception):  # not a public function of Ray's: it may be gone or changed
        from ray._private.state import state

        return [node if isinstance(node, str) else node.hex() for node in state.get_draining_nodes()]
    return []


def ask_for_room(want: Amounts, workers: int) -> None:
    """Have an autoscaler, where there is one, make the cluster large enough for so many workers.

    It keeps it so until it is asked for another number; 0 takes the wish back.
    """
    with suppress(Exception):  # of many kinds, where there is none
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[dict(want)] * workers)
