"""A tiny model, run on a device in a process of its own: broken libraries may end it, and it hears more.

python -m batchonnx.runtime.trial PROVIDER INDEX OPTIONS
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

from batchonnx.errors import BatchonnxError, Problem
from batchonnx.runtime.device import CPU, Device
from batchonnx.runtime.diagnose import clean
from batchonnx.runtime.on_device import is_on, session_arguments
from batchonnx.runtime.require import require_device

TRIAL_S = 120
_LOGGED = re.compile(r"\[E:onnxruntime:[^\]]*\] (.+)")


def try_device(device: Device = CPU) -> Problem | None:
    """What keeps a model from being run there; None if nothing does."""
    flags = ["-P", "-S"] if sys.flags.no_site else ["-P"]
    asked = [device.provider, str(device.index), json.dumps(dict(device.options))]
    command = [sys.executable, *flags, "-m", __name__, *asked]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    title = f"a tiny model doesn't run on {device.provider}"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=TRIAL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Problem(title, {"found": f"no answer within {TRIAL_S} s"})
    if done.returncode < 0:
        return Problem(title, {"found": f"the process was ended by signal {-done.returncode}"})
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = done.stderr.strip().splitlines()
        return Problem(title, {"found": said[-1] if said else f"exit code {done.returncode}"})
    if told is None:
        return None
    if told["title"]:
        return Problem(**told)
    # ONNX Runtime has taken the CPU, and written why.
    logged = _LOGGED.search(done.stderr)
    return Problem(title, {"found": told["found"] or (clean(logged[1]) if logged else "it isn't said why")})


def main(device: Device) -> dict[str, object] | None:
    """None if the model has run there; else a problem's fields, or what was found, and no title."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "trial", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    try:
        require_device(device)
        named = session_arguments(device, options)
        # Of all that is logged, errors alone, and the session's own as exceptions.
        onnxruntime.set_default_logger_severity(3)
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, enable_fallback=0, **named)
        if not is_on(session, device):
            return {"title": "", "found": ""}
        (found,) = session.run(None, {"x": np.array([[-1, 2]], np.float32)})
    except BatchonnxError as error:
        return asdict(error.problems[0])
    except Exception as error:  # whatever the provider raises is what is to be told
        return {"title": "", "found": clean(str(error))}
    is_right = found.tolist() == [[0.0, 2.0]]
    return None if is_right else {"title": "", "found": f"max(0, [-1, 2]) is {found.tolist()}"}


if __name__ == "__main__":
    print(json.dumps(main(Device(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))))
