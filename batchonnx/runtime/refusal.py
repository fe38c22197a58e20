"""Why there is no session on a device although nothing was missing: found out only after that has failed."""

from __future__ import annotations

import re
from difflib import get_close_matches

from batchonnx.errors import DeviceError, Problem
from batchonnx.runtime.device import Device
from batchonnx.runtime.providers import provider_named
from batchonnx.runtime.trial import try_device

_UNKNOWN = re.compile(r"Unknown provider option: \"(\w+)\"|Invalid OpenVINO EP option: (\w+)")


def refusal(device: Device, said: str) -> DeviceError | None:
    """The device's fault; None where a tiny model does run there, so that it is this model's.

    said: ONNX Runtime's words, cleaned; empty if it took the CPU without any.
    """
    if device.is_cpu:
        return None
    if match := _UNKNOWN.search(said):
        return DeviceError(_unknown_option(device, match[1] or match[2]))
    problem = try_device(device)
    if problem is None:
        return None if said else DeviceError(_left(device))
    facts = dict(problem.facts)
    if device.options:
        facts["options"] = ", ".join(f"{name}: {value}" for name, value in device.options.items())
    fix = problem.fix or "mend what it says, or set engine.device: cpu; batchonnx doctor looks further"
    return DeviceError(Problem(problem.title, facts, fix))


def _left(device: Device) -> Problem:
    """It runs a tiny model, but not this one."""
    fix = "see what batchonnx model inspect tells of it, or set engine.device: cpu"
    return Problem(
        f"{device.provider} doesn't take this model", {"found": "all of it was left to the CPU"}, fix
    )


def _unknown_option(device: Device, name: str) -> Problem:
    provider = provider_named(device.provider)
    known = provider.known if provider is not None else ()
    near = get_close_matches(name, known, 1)
    facts = {"job": f"engine.provider_options.{name}", "expected": ", ".join(known)}
    fix = f'did you mean "{near[0]}"?' if near else "leave it out"
    return Problem(f'{device.provider} has no option "{name}"', facts, fix)
