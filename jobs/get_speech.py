"""Fetch 568 spoken phrases and the model that speech.yaml finds speech in them with.

The phrases (WAV, 8 kHz, one channel) are Asterisk's, as Debian packs them: asterisk-core-sounds-en-wav
comes by `apt-get download` where that is installed. The model is silero-vad's; it is copied out of the
installed Python package, which isn't imported. Files that are there already are kept:

  data/speech.parquet      name, and audio: struct{bytes, path}
  models/silero-vad.onnx   input float32[batch, 288], state float32[2, batch, 128], sr int64
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path

from fetching import arguments, debian_package, fail, files_of, report

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "speech.parquet"
MODEL = HERE / "models" / "silero-vad.onnx"

PACKAGE = "asterisk-core-sounds-en-wav"
DEB_URL = (
    "https://deb.debian.org/debian/pool/main/a/asterisk-core-sounds/"
    "asterisk-core-sounds-en-wav_1.6.1-1_all.deb"
)
DEB_SHA256 = "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d"
ROW_GROUP_ROWS = 100


def main() -> None:
    asked = arguments(__doc__, "--deb", f"Debian's {PACKAGE}, instead of fetching it")
    try:
        if asked.force or not DATA.exists():
            with tempfile.TemporaryDirectory() as scratch:
                write_data(debian_package(PACKAGE, DEB_URL, DEB_SHA256, asked.deb, Path(scratch)))
            report(DATA)
        else:
            print(f"kept  {DATA}")
        if asked.force or not MODEL.exists():
            copy_model()
            report(MODEL)
        else:
            print(f"kept  {MODEL}")
    except ModuleNotFoundError as error:
        fail(
            f"the package {error.name} is missing",
            fix="pip install pyarrow; pip install --no-deps silero-vad==6.2.3",
        )


def write_data(deb: Path) -> None:
    """One row for each phrase, by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"name": path.stem, "audio": {"bytes": content, "path": path.name}}
        for path, content in sorted(files_of(deb))
        if path.suffix == ".wav"
    ]
    DATA.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole, so that a killed run leaves nothing that looks like data.
    unfinished = DATA.with_suffix(".unfinished")
    pq.write_table(pa.Table.from_pylist(rows), unfinished, row_group_size=ROW_GROUP_ROWS)
    unfinished.rename(DATA)


def copy_model() -> None:
    """The model out of the installed package."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name="silero_vad")
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(spec.origin).parent / "data" / "silero_vad.onnx", MODEL)


if __name__ == "__main__":
    main()
