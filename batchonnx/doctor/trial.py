"""A process that may die: it runs a tiny model on a provider and says how that went, as JSON.

python -m batchonnx.doctor.trial PROVIDER
"""

from __future__ import annotations

import json
import sys


def main(provider: str) -> dict[str, object]:
    """available: providers that the wheel was built with. used: those of the session. error: else."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    told: dict[str, object] = {"available": onnxruntime.get_available_providers()}
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "trial", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        if provider == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[provider], enable_fallback=0
        )
        (found,) = session.run(None, {"x": np.array([[-1, 2]], np.float32)})
        told["used"] = session.get_providers()
        if found.tolist() != [[0.0, 2.0]]:
            told["error"] = f"max(0, [-1, 2]) is {found.tolist()}"
    except Exception as error:  # whatever the provider raises is what is to be told
        told["error"] = " ".join(str(error).split())
    return told


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
