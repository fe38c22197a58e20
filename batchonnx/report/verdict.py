"""What holds a device back, in a line: the stage that it waits for, and what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchonnx.scoring.progress import DeviceUse

FULL = 0.9
"""A device that is busy for so much of the time is what limits the run."""

IDLE = 0.05
"""Of the workers' time: what takes less holds nobody up."""

HELP = {
    "read": "more read-ahead or more cores would help",
    "encode": "more cores would help",
    "decode": "more cores would help, or outputs that are reduced on the device: pool, argmax, top_k",
    "write": "a faster place for the output would help, or fewer columns",
}


def verdict(devices: Sequence[DeviceUse], busy_s: Mapping[str, float]) -> str | None:
    """`GPU 41% busy: waiting for read; more read-ahead or more cores would help`; or None.

    busy_s: stage -> seconds, of all workers together. None without a device that works, or where nothing was
    scored.
    """
    working = [device for device in devices if not device.is_lost]
    if not working or not any(busy_s.values()):
        return None
    busy = sum(device.busy for device in working) / len(working)
    kind = "GPU" if all(device.name.startswith("GPU") for device in working) else "device"
    head = f"{kind if len(working) == 1 else f'{len(working)} {kind}s'} {busy:.0%} busy"
    if busy >= FULL:
        return f"{head}: nothing holds it back"
    stages = {stage: busy_s.get(stage, 0.0) for stage in HELP}
    stage = max(stages, key=lambda name: stages[name])
    if stages[stage] < IDLE * sum(busy_s.values()) or not stages[stage]:
        return f"{head}: calls are too short; more rows in each, or more workers would help"
    return f"{head}: waiting for {stage}; {HELP[stage]}"
