"""What the get_*.py scripts share: packages that are fetched, and how they say what is wrong."""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

UNREACHABLE = 3
"""Exit code where a package can't be fetched; 1 for anything else that is wrong."""


def arguments(what: str, package: str, told: str) -> argparse.Namespace:
    """What a script was called with: a package that was fetched before, and whether to make everything anew.

    what: the script's docstring. package, told: the option for the package, and its help.
    """
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(package, type=Path, help=told)
    parser.add_argument("--force", action="store_true", help="make everything anew")
    return parser.parse_args()


def npm_tarball(package: str, sha256: str, given: Path | None, folder: Path) -> Path:
    """A package as npm packs it: the given file, or fetched into `folder`, with npm where that is installed.

    package: NAME@VERSION. sha256: what it has to be.
    """
    name, _, version = package.rpartition("@")
    tarball = given or _fetch(package, f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz", folder)
    if not tarball.is_file():
        fail("the tarball isn't there", file=str(tarball), fix="correct --tarball, or leave it out")
    check(tarball, package, sha256, f"fetch it anew: npm pack {package}")
    return tarball


def _fetch(package: str, url: str, folder: Path) -> Path:
    fix = f"check the network, or give the file: --tarball {url.rpartition('/')[2]}"
    npm = shutil.which("npm")
    if npm is None:
        return download(url, package, folder, fix)
    print(f"fetching {package} with npm …")
    command = [npm, "pack", package, "--loglevel=error", "--fetch-retries=1"]
    packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode != 0:
        said = [line for line in packed.stderr.splitlines() if "error network" not in line]
        found = " / ".join(said[:3]) or f"npm ended with {packed.returncode}"
        fail(f"npm can't fetch {package}", code=UNREACHABLE, found=found, fix=fix)
    return folder / packed.stdout.strip().splitlines()[-1]


def debian_package(package: str, url: str, sha256: str, given: Path | None, folder: Path) -> Path:
    """A package of Debian's: the given file, or fetched into `folder`, with apt-get where that is installed.

    sha256: what it has to be.
    """
    deb = given or _fetch_debian(package, url, folder)
    check(deb, package, sha256, "leave --deb out, so that the right one is fetched")
    return deb


def _fetch_debian(package: str, url: str, folder: Path) -> Path:
    apt = shutil.which("apt-get")
    if apt is None:
        return download(url, package, folder, "check the network, or give the file: --deb FILE")
    print(f"fetching {package} with apt-get …")
    fetched = subprocess.run(
        [apt, "download", package], cwd=folder, capture_output=True, text=True, check=False
    )
    found = sorted(folder.glob("*.deb"))
    if not found:
        said = " / ".join(fetched.stderr.splitlines()[:3])
        fix = f"check the network, or give the file: --deb {url.rpartition('/')[2]}"
        fail(f"apt-get can't fetch {package}", code=UNREACHABLE, found=said, fix=fix)
    return found[0]


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


def download(url: str, what: str, folder: Path, fix: str) -> Path:
    """The file of a URL, put into `folder`."""
    print(f"fetching {url} …")
    target = folder / url.rpartition("/")[2]
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        found = str(getattr(error, "reason", error))
        fail(f"can't fetch {what}", code=UNREACHABLE, url=url, found=found, fix=fix)
    return target


def check(file: Path, what: str, sha256: str, fix: str) -> None:
    """End the script unless a file is the one that was meant."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != sha256:
        found = f"SHA-256 {digest}"
        fail(f"this isn't {what}", file=str(file), expected=f"SHA-256 {sha256}", found=found, fix=fix)


def report(path: Path) -> None:
    """Say that a file was made."""
    print(f"wrote {path}  {path.stat().st_size:,} bytes")


def fail(title: str, code: int = 1, **facts: str) -> NoReturn:
    """End the script with what is wrong and how to mend it."""
    print(
        f"error: {title}", *(f"  {key:<8} {value}" for key, value in facts.items()), sep="\n", file=sys.stderr
    )
    sys.exit(code)
