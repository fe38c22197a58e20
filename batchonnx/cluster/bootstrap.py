"""The first thing that a submitted job does on the cluster: is this the environment it was made in?

Runs as a script beside `submission.json`, with nothing but Python: what is missing here may be batchonnx.
"""

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = {
    "batchonnx": ("batchonnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "ray": ("ray",),
}
"""What has to be the same -> the wheels that may bring it."""


def environment() -> dict[str, str]:
    """Name -> version of what decides a result's bytes or whether both sides understand each other.

    Left out: what isn't installed.
    """
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name, wheels in PACKAGES.items():
        for wheel in wheels:
            try:
                found[name] = version(wheel)
                break
            except PackageNotFoundError:
                continue
    return found


def mismatches(there: dict[str, str], here: dict[str, str]) -> list[dict[str, object]]:
    """Problems, as `--json` shows them. there: where the job was submitted; here: on the cluster."""
    problems: list[dict[str, object]] = []
    for name, wanted in there.items():
        has = here.get(name, "none")
        if has != wanted:
            pin = f"dependencies: {{pip: ['{name}=={wanted}']}} in the job, or the same version here"
            fix = f"use Python {wanted} on the cluster, or {has} here" if name == "python" else f"have {pin}"
            facts = {"here": f"{name} {wanted}", "cluster": f"{name} {has}"}
            problems.append(
                {"title": f"the cluster has another version of {name}", "facts": facts, "fix": fix}
            )
    return problems


def main() -> None:
    """Go on as batchonnx if the environment is right; else say what isn't, and exit with 3."""
    folder = Path(__file__).resolve().parent
    wanted = json.loads((folder / "submission.json").read_text())["environment"]
    here = environment()
    if problems := mismatches(wanted, here):
        told = {"kind": "error", "error": "ClusterError", "exit_code": 3, "problems": problems}
        for problem in problems:
            print(f"error: {problem['title']}: {problem['facts']}", flush=True)
        print("batchonnx " + json.dumps(told), flush=True)
        sys.exit(3)
    print("batchonnx " + json.dumps({"kind": "ready", **here}), flush=True)
    # -P: a module in the job's folder doesn't take the place of one that batchonnx imports.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "batchonnx", "drive", str(folder)])


if __name__ == "__main__":
    main()
