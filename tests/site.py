"""A site folder of its own: this environment's packages as links, to be taken away and put back at will."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


class Site:
    """A site folder of links to this environment's packages, to be broken at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for kind in ("purelib", "platlib"):
            self.link(Path(sysconfig.get_paths()[kind]))

    def link(self, packages: Path) -> None:
        """What lies in another site folder, and isn't here."""
        for entry in packages.iterdir():
            link = self.folder / entry.name
            if not link.exists() and not entry.name.endswith(".pth") and entry.name != "__pycache__":
                link.symlink_to(entry)

    def remove(self, prefix: str) -> None:
        for link in self.folder.glob(f"{prefix}*"):
            link.unlink() if link.is_symlink() else shutil.rmtree(link)

    def install(self, name: str, number: str) -> None:
        """A distribution's metadata, in place of what is there of it."""
        self.remove(f"{name.replace('-', '_')}-")
        info = self.folder / f"{name.replace('-', '_')}-{number}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")

    def run(self, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """The command line, by a Python that has this site folder alone. env: more of it."""
        return subprocess.run(
            [sys.executable, "-S", "-m", "batchonnx", *arguments],
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{self.folder}", **env},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
