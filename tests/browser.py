"""A real browser without a window, for pages that people open."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Browser:
    """Chromium, with a profile of its own. Nothing that it opens is fetched: there is no network for it."""

    def __init__(self, program: str, profile: Path) -> None:
        self._command = [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
        ]

    def dom(self, page: Path) -> str:
        """The document as it is once whatever it holds was run."""
        return self._run("--virtual-time-budget=2000", "--dump-dom", page.as_uri())

    def screenshot(self, page: Path, picture: Path, width: int, height: int, *options: str) -> None:
        """Write a PNG of the page in a window of that size."""
        self._run(f"--window-size={width},{height}", f"--screenshot={picture}", *options, page.as_uri())

    def print(self, page: Path, pdf: Path) -> None:
        """Write what a printer would get."""
        self._run("--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def find_browser(profile: Path) -> Browser:
    """Skips the test where no Chromium is installed."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed here: apt-get install chromium")
    return Browser(program, profile)
