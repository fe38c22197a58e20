"""The one step that makes a result visible: a rename that moves no data.

A former result is exchanged with the new one in one step where the system can (Linux's
renameat2), and removed afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from pathlib import Path

from batchonnx.errors import OutputExistsError, Problem
from batchonnx.ledger.disk import disk_error
from batchonnx.ledger.durable import libc, sync_folder
from batchonnx.ledger.records import Manifest
from batchonnx.ledger.run_folder import (
    RECORDS,
    SUCCESS,
    gone_of,
    is_former_result,
    remove_at_once,
    reveal,
    staging_of,
)
from batchonnx.parts.layout import looks_like_part

_OURS = re.compile(rf"part-\d{{6,}}\.parquet|{RECORDS}|{SUCCESS}|\.{SUCCESS}\.[0-9a-f]{{8}}|(.*/)?\.DS_Store")
"""What a former result has in it beside its parts, or a death left there, or a file manager unasked."""


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that holds something, unless it is a former result that may be replaced.

    Raises OutputExistsError.
    """
    if not os.path.lexists(output):
        return
    facts = {"output": str(output)}
    if not output.is_dir():
        raise OutputExistsError(
            Problem("the output is a file, a folder is wanted", facts, "name another path")
        )
    names = sorted(entry.name for entry in output.iterdir())
    if not names:
        return
    foreign = [name for name in names if not _is_ours(output, name)] if RECORDS in names else names
    if foreign:
        facts["found"] = ", ".join(foreign[:5]) + (" …" if len(foreign) > 5 else "")
        fix = "move them, or name another folder; batchonnx replaces nothing but its own results"
        raise OutputExistsError(Problem("the output folder holds other files", facts, fix))
    if not overwrite:
        fix = "set output.overwrite: true (or run --overwrite) to replace it, or name another folder"
        raise OutputExistsError(Problem("the output holds another run's result", facts, fix))


def publish(run: Path, output: Path, manifest: Manifest, overwrite: bool) -> None:
    """Make a complete run visible by one rename.

    Raises OutputExistsError if something else has appeared at the output meanwhile, StorageError
    if the file system refuses.
    """
    check_output(output, overwrite)
    try:
        reveal(run, manifest.commits)
        if not output.exists():
            run.rename(output)
        elif not any(output.iterdir()):
            run.replace(output)  # an empty folder may be replaced by rename(2)
        else:
            _exchange(run, output)
        sync_folder(output.parent)
        for replaced in replaced_beside(output):
            remove_at_once(replaced, output)
    except OSError as error:
        raise disk_error(error, output) from error


def settle_former(output: Path) -> None:
    """After a crash: undo half an exchange, remove what a whole one has replaced. Raises StorageError."""
    aside = _aside(output)
    try:
        if aside.exists() and not os.path.lexists(output):
            aside.rename(output)
        for replaced in replaced_beside(output):
            remove_at_once(replaced, output)
    except OSError as error:
        raise disk_error(error, output) from error


def replaced_beside(output: Path) -> list[Path]:
    """What the output, or a run that began anew, has replaced, and is still there. Raises StorageError."""
    gone, aside, run = gone_of(output), _aside(output), staging_of(output)
    found = [gone] if gone.exists() else []
    found += [aside] if aside.exists() and output.exists() else []
    return found + ([run] if is_former_result(run, output) else [])


def _is_ours(output: Path, name: str) -> bool:
    """Whether a name in the output is of a former result; a folder, if all is that lies in it."""
    if _OURS.fullmatch(name) or looks_like_part(name):
        return True
    if "=" not in name.rpartition("/")[2] or not (output / name).is_dir():
        return False
    return all(_is_ours(output, f"{name}/{entry.name}") for entry in (output / name).iterdir())


def _aside(output: Path) -> Path:
    """A former result that is back if its replacement doesn't come."""
    return output.with_name(f".{output.name}.batchonnx-former")


def _exchange(run: Path, output: Path) -> None:
    """Swap two folders in one step; where the system can't, two renames leave the former result aside."""
    if sys.platform == "linux":
        at_cwd, rename_exchange = -100, 2
        done = libc().renameat2(at_cwd, os.fsencode(run), at_cwd, os.fsencode(output), rename_exchange)
        if done == 0:
            return
        if (code := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(output))
    aside = _aside(output)
    output.rename(aside)
    run.rename(output)
