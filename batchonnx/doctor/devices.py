"""Where models can run: the CPU, and CUDA if the wheel for it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from batchonnx.doctor.symptom import Symptom, Symptoms
from batchonnx.runtime.wheels import installed_wheels

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TRIAL_S = 120
_REINSTALL = "pip install --force-reinstall onnx onnxruntime"


def check_model() -> Symptoms:
    """A tiny model is run, in a process of its own."""
    told = _trial(CPU)
    if (error := told.get("error")) is not None:
        yield Symptom("model", "bad", f"a tiny model doesn't run: {error}"[:300], _REINSTALL)
    else:
        yield Symptom("model", "good", "a tiny model runs on the CPU")


def check_gpu() -> Symptoms:
    """The driver, and whether the provider loads with what it needs. Nothing on a machine without GPUs."""
    card, wheels = _card(), installed_wheels()
    if "onnxruntime-gpu" not in wheels:
        if card is not None:
            told = f"{card}; the installed wheel runs models on the CPU"
            yield Symptom("gpu", "good", told, alike=card)
        return
    if card is None:
        fix = "install the NVIDIA driver; or pip uninstall -y onnxruntime-gpu; pip install onnxruntime"
        yield Symptom("gpu", "hint", "onnxruntime-gpu, and no NVIDIA driver that answers", fix)
        return
    trial = _trial(CUDA)
    error = str(trial.get("error", ""))
    if CUDA not in str(trial.get("available")):
        fix = "pip uninstall -y onnxruntime onnxruntime-gpu; pip install 'onnxruntime-gpu[cuda,cudnn]'"
        yield Symptom("gpu", "bad", f"{card}; this wheel has no {CUDA}", fix, alike=card)
    elif error or CUDA not in str(trial.get("used")):
        yield Symptom("gpu", "bad", f"{card}; {CUDA} doesn't load: {error}"[:400], _remedy(error), alike=card)
    else:
        yield Symptom("gpu", "good", f"{card}; a tiny model runs on it", alike=card)


def _remedy(error: str) -> str:
    if missing := re.search(r"lib(cudnn|cublas|cudart|cufft|curand|nvrtc)\w*\.so[.\d]*", error):
        return f"{missing[0]} is missing: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    if "driver version is insufficient" in error:
        return "update the NVIDIA driver: it is older than the CUDA that the wheel was built for"
    return "install the CUDA and cuDNN that this onnxruntime-gpu was built for; engine.device: cpu needs none"


def _card() -> str | None:
    """Driver and cards, as nvidia-smi tells."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    ask = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=TRIAL_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    cards = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return f"{len(cards)} x {cards[0]}" if cards else None


def _trial(provider: str) -> dict[str, object]:
    flags = ["-P", "-S"] if sys.flags.no_site else ["-P"]
    command = [sys.executable, *flags, str(Path(__file__).with_name("trial.py")), provider]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=TRIAL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TRIAL_S} s"}
    if done.returncode < 0:
        return {"error": f"the process was ended by signal {-done.returncode}"}
    try:
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = done.stderr.strip().splitlines()
        return {"error": said[-1] if said else f"exit code {done.returncode}"}
    return found
