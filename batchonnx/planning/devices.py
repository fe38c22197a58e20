"""Which device a job's sessions are opened on."""

from __future__ import annotations

from batchonnx.errors import DependencyError, DeviceError
from batchonnx.job.spec import JobFile
from batchonnx.runtime.cuda import read_driver
from batchonnx.runtime.device import CPU, PLUGIN, Device
from batchonnx.runtime.placement import Placement, told_of
from batchonnx.runtime.providers import CUDA, PROVIDERS, words_for
from batchonnx.runtime.require import require_device


def choose_device(job: JobFile) -> tuple[Device, str | None]:
    """The device of a worker's session, and for `auto` why it is that one.

    Asks this machine only for `auto`, and never for what runs on a cluster: there a GPU is what Ray has
    reserved. Raises nothing: what is missing is told when a session is opened.
    """
    asked = job.job.engine
    kind, _, rest = asked.device.partition(":")
    share = min(1.0, asked.resources.num_gpus or 1.0)
    if kind == "auto":
        return _auto(job, share)
    if kind == "cpu":
        return CPU, None
    options = {name: _text(value) for name, value in asked.provider_options.items()}
    if kind == PLUGIN.rstrip(":"):
        return Device(PLUGIN + job.resolve(rest), 0, options), None
    provider = PROVIDERS[kind]
    return Device(provider.name, int(rest or 0), {**provider.options, **options}, share), None


def device_notes(job: JobFile, device: Device, why: str | None, placement: Placement | None) -> list[str]:
    """What the user should know of the choice. why: see `choose_device`. placement: None if nobody has asked.

    Raises DeviceError if the device leaves to the CPU what the job forbids.
    """
    notes = [f"engine.device: auto is {words_for(device)}: {why}"] if why is not None else []
    told = told_of(placement, job.job.engine.fallback) if placement is not None else None
    return notes if told is None else [*notes, told]


def _auto(job: JobFile, share: float) -> tuple[Device, str]:
    cuda = Device(CUDA.name, 0, CUDA.options, share)
    if job.job.engine.name == "ray":
        gpus = job.job.engine.resources.num_gpus
        return (cuda if gpus else CPU), f"resources.num_gpus is {gpus}"
    try:
        require_device(cuda)
    except (DeviceError, DependencyError) as error:
        return CPU, "; ".join(problem.title for problem in error.problems)
    return cuda, f"there is a GPU, {read_driver().gpus[0].name}, and all that it needs"


def _text(value: bool | int | float | str) -> str:
    """As ONNX Runtime takes options: 1 and 0 for yes and no."""
    return str(int(value)) if isinstance(value, bool) else str(value)
