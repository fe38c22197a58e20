"""Fetch 568 spoken phrases and the model that speech.yaml finds speech in them with.

The phrases (WAV, 8 kHz, one channel) are Asterisk's, as Debian packs them: asterisk-core-sounds-en-wav
comes by `apt-get download` where that is installed. The model is silero-vad's; it is copied out of the
installed Python package, which isn't imported. Files that are there already are kept:

  data/speech.parquet      name, and audio: struct{bytes, path}
  models/silero-vad.onnx   input float32[batch, 288], state float32[2, batch, 128], sr int64
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fetching import UNREACHABLE, arguments, check, download, fail, report

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
                deb = asked.deb or fetch(Path(scratch))
                check(deb, PACKAGE, DEB_SHA256, "leave --deb out, so that the right one is fetched")
                write_data(deb)
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


def fetch(folder: Path) -> Path:
    """Debian's package, put into `folder`."""
    apt = shutil.which("apt-get")
    if apt is None:
        return download(DEB_URL, PACKAGE, folder, "check the network, or give the file: --deb FILE")
    print(f"fetching {PACKAGE} with apt-get …")
    fetched = subprocess.run(
        [apt, "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False
    )
    found = sorted(folder.glob("*.deb"))
    if not found:
        said = " / ".join(fetched.stderr.splitlines()[:3])
        fix = f"check the network, or give the file: --deb {DEB_URL.rpartition('/')[2]}"
        fail(f"apt-get can't fetch {PACKAGE}", code=UNREACHABLE, found=said, fix=fix)
    return found[0]


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


def files_of(deb: Path) -> Iterator[tuple[Path, bytes]]:
    """The files that a Debian package installs: it is an `ar` archive with a tar file of them."""
    with deb.open("rb") as archive:
        archive.seek(8)
        while header := archive.read(60):
            name, size = header[:16].decode().strip(), int(header[48:58])
            content = archive.read(size + size % 2)[:size]
            if name.startswith("data.tar"):
                with tarfile.open(fileobj=io.BytesIO(content)) as files:
                    for member in files:
                        if member.isfile() and (opened := files.extractfile(member)) is not None:
                            yield Path(member.name), opened.read()


def copy_model() -> None:
    """The model out of the installed package."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name="silero_vad")
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(spec.origin).parent / "data" / "silero_vad.onnx", MODEL)


if __name__ == "__main__":
    main()
