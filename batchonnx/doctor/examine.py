"""All looks at this machine, one after the other; one that fails is a finding, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from batchonnx.doctor.devices import check_gpu, check_model
from batchonnx.doctor.machine import (
    check_clock,
    check_cores,
    check_cpu,
    check_files,
    check_memory,
    check_temporary,
)
from batchonnx.doctor.packages import check_onnxruntime, check_packages, check_python
from batchonnx.doctor.places import check_place
from batchonnx.doctor.symptom import Symptom, Symptoms

CHECKS: Sequence[Callable[[], Symptoms]] = (
    check_python,
    check_packages,
    check_onnxruntime,
    check_model,
    check_gpu,
    check_cpu,
    check_cores,
    check_memory,
    check_files,
    check_temporary,
    check_clock,
)


def examine(places: Sequence[str] = ()) -> list[Symptom]:
    """What there is to tell of this machine, and of places that jobs read or write."""
    found = [symptom for check in CHECKS for symptom in _look(check, check.__name__.removeprefix("check_"))]
    return found + [symptom for place in places for symptom in _look(partial(check_place, place), place)]


def _look(check: Callable[[], Symptoms], name: str) -> Iterator[Symptom]:
    try:
        yield from check()
    except Exception as error:  # a broken environment may break any look at it: that is what is asked for
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield Symptom(name, "bad", told, "mend what is told here; if it is no fault of yours, report it")
