"""Put what filetypes.yaml needs into models/: magika.onnx and magika-labels.txt.

magika (https://github.com/google/magika, Apache-2.0) tells a file's type from its bytes. Its model
and the names of its 214 classes are copied out of the installed Python package, which isn't imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path

from fetching import fail, report

HERE = Path(__file__).resolve().parent
MODEL = HERE / "models" / "magika.onnx"
LABELS = HERE / "models" / "magika-labels.txt"

MODEL_NAME = "standard_v3_3"
EXPECTED = {"beg_size": 1024, "mid_size": 0, "end_size": 1024, "block_size": 4096, "padding_token": 256}
"""How the model wants its bytes: what filetypes.yaml says in `bytes`."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    source = find_model()
    config = json.loads((source / "config.min.json").read_text())
    found = {key: config.get(key) for key in EXPECTED}
    if found != EXPECTED:
        fail(
            "this magika wants its bytes in another way than filetypes.yaml gives them",
            found=", ".join(f"{key}: {value}" for key, value in found.items() if value != EXPECTED[key]),
            fix="pip install magika==1.0.3",
        )
    labels = config["target_labels_space"]
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "model.onnx", MODEL)
    LABELS.write_text("".join(f"{label}\n" for label in labels))
    report(MODEL)
    report(LABELS)


def find_model() -> Path:
    """The folder of the model in the installed package."""
    spec = importlib.util.find_spec("magika")
    if spec is None or spec.origin is None:
        fail("the package magika is missing", fix="pip install magika==1.0.3")
    folder = Path(spec.origin).parent / "models" / MODEL_NAME
    if not (folder / "model.onnx").is_file():
        fail(
            "this magika has another model",
            expected=str(folder / "model.onnx"),
            fix="pip install magika==1.0.3",
        )
    return folder


if __name__ == "__main__":
    main()
