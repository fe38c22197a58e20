"""Where models can run: the CPU, and what the installed wheel has beside it."""

from __future__ import annotations

from batchonnx.doctor.symptom import Symptom, Symptoms
from batchonnx.errors import Problem
from batchonnx.runtime.cuda import Driver, NoDriver, read_driver
from batchonnx.runtime.device import Device
from batchonnx.runtime.providers import PROVIDERS, words_for
from batchonnx.runtime.trial import try_device
from batchonnx.runtime.wheels import installed_wheels

_REINSTALL = "pip install --force-reinstall onnx onnxruntime"


def check_model() -> Symptoms:
    """A tiny model is run, in a process of its own."""
    problem = try_device()
    if problem is not None:
        yield Symptom("model", "bad", f"a tiny model doesn't run: {_told(problem)}"[:300], _REINSTALL)
    else:
        yield Symptom("model", "good", "a tiny model runs on the CPU")


def check_gpu() -> Symptoms:
    """The driver, and whether the wheel's provider loads with what it needs. Nothing without either."""
    driver, wheels = _driver(), installed_wheels()
    if len(wheels) != 1:
        return  # told already
    wheel = next(iter(wheels))
    provider = next((provider for provider in PROVIDERS.values() if provider.wheel == wheel), None)
    if provider is None:
        if driver is not None:
            told = f"{_cards(driver)}; the installed wheel runs models on the CPU"
            yield Symptom("gpu", "good", told, alike=_cards(driver))
        return
    device = Device(provider.name, 0, provider.options)
    alike = _cards(driver) if driver is not None else wheel
    problem = try_device(device)
    if problem is None:
        cards = f"{_cards(driver)}; " if driver is not None and provider.is_nvidia else ""
        yield Symptom("gpu", "good", f"{cards}a tiny model runs on {words_for(device)}", alike=alike)
    else:
        # Without a GPU it is no fault: an image may have been made for machines that have one.
        is_fault = driver is not None or not provider.is_nvidia
        yield Symptom(
            "gpu", "bad" if is_fault else "hint", f"{wheel}: {_told(problem)}"[:400], problem.fix, alike=alike
        )


def _told(problem: Problem) -> str:
    return "; ".join([problem.title, *problem.facts.values()])


def _driver() -> Driver | None:
    """None where there is none, or no GPU."""
    try:
        driver = read_driver()
    except NoDriver:
        return None
    return driver if driver.gpus else None


def _cards(driver: Driver) -> str:
    first = driver.gpus[0]
    memory = f"{first.total_bytes / 2**30:.0f} GiB"
    return f"{len(driver.gpus)} x {first.name}, {memory}, a driver for CUDA {driver.cuda[0]}.{driver.cuda[1]}"
