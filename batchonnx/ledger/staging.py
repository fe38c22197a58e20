"""Where a run grows unseen, and the rename that publishes it.

The staging folder is a hidden sibling of the output, on the same file system, so that publishing
is one rename and moves no data. A former result is exchanged with the new one in one step where
the system can (Linux's renameat2), and removed afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from batchonnx.errors import OutputExistsError, Problem, StorageError
from batchonnx.ledger.commit import Commit

RECORDS = "_batchonnx"
FORMAT_VERSION = 1


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
    if RECORDS not in names:
        facts["found"] = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        fix = "name another folder; batchonnx replaces nothing but its own results"
        raise OutputExistsError(Problem("the output folder holds other files", facts, fix))
    if not overwrite:
        fix = "set output.overwrite: true (or run --overwrite) to replace it, or name another folder"
        raise OutputExistsError(Problem("the output holds a former result", facts, fix))


def create_staging(output: Path) -> Path:
    """Make the hidden folder that a run grows in. Raises StorageError."""
    staging = output.parent / f".{output.name}.batchonnx-{secrets.token_hex(4)}"
    try:
        (staging / RECORDS).mkdir(parents=True)
    except OSError as error:
        raise disk_error(error, staging) from error
    return staging


def discard_staging(staging: Path) -> None:
    """Remove what a run left that will not be published."""
    shutil.rmtree(staging, ignore_errors=True)


def write_records(staging: Path, plan: Mapping[str, object], commits: Iterable[Commit]) -> None:
    """Write plan and manifest, then `_SUCCESS`. Raises StorageError."""
    ordered = sorted(commits, key=lambda commit: commit.shard)
    manifest = {
        "format": FORMAT_VERSION,
        "fingerprint": plan["fingerprint"],
        "rows_in": sum(commit.rows_in for commit in ordered),
        "predicted": sum(commit.predicted for commit in ordered),
        "filtered": sum(commit.filtered for commit in ordered),
        "parts": [asdict(commit) for commit in ordered],
    }
    try:
        for name, record in (("plan.json", {"format": FORMAT_VERSION, **plan}), ("manifest.json", manifest)):
            (staging / RECORDS / name).write_text(json.dumps(record, indent=1) + "\n")
        (staging / "_SUCCESS").touch()
    except OSError as error:
        raise disk_error(error, staging) from error


def read_plan_record(output: Path) -> dict[str, object]:
    """The plan record of a former result; empty where there is none that can be read."""
    try:
        record = json.loads((output / RECORDS / "plan.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("format") == FORMAT_VERSION else {}


def publish(staging: Path, output: Path, overwrite: bool) -> None:
    """Make the result visible by one rename.

    Raises OutputExistsError if something else has appeared at the output meanwhile, StorageError
    if the file system refuses.
    """
    check_output(output, overwrite)
    try:
        if not output.exists():
            staging.rename(output)
        elif not any(output.iterdir()):
            staging.replace(output)  # an empty folder may be replaced by rename(2)
        else:
            _exchange(staging, output)
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise disk_error(error, output) from error


def _exchange(staging: Path, output: Path) -> None:
    """Swap two folders in one step; where the system can't, in two renames."""
    if sys.platform == "linux":
        at_cwd, rename_exchange = -100, 2
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.renameat2(at_cwd, os.fsencode(staging), at_cwd, os.fsencode(output), rename_exchange)
        if done == 0:
            return
        if (code := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(output))
    aside = staging.with_name(f"{staging.name}-former")
    output.rename(aside)
    staging.rename(output)
    aside.rename(staging)


def disk_error(error: OSError, path: Path) -> StorageError:
    """The operating system's refusal of a write, told with what to do."""
    facts = {"path": str(path), "found": error.strerror or str(error)}
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        fix = "free some space, or send the output to a larger disk; then run the same command again"
        return StorageError(Problem("the disk is full", facts, fix))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            Problem("the output can't be written", facts, "name a folder that you may write to")
        )
    return StorageError(
        Problem("writing the output failed", facts, "mend the cause and run the same command again")
    )
