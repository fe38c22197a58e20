"""What the operating system says of a write that failed, told with what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from batchonnx.errors import Problem, StorageError


def disk_error(error: OSError, path: Path | str) -> StorageError:
    """The operating system's refusal of a write as an error for the user."""
    facts = {"path": str(path), "found": error.strerror or str(error)}
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        fix = "free some space, then run the same command again: it goes on where it stopped"
        return StorageError(Problem("the disk is full", facts, fix))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            Problem("the output can't be written", facts, "name a folder that you may write to")
        )
    return StorageError(
        Problem("writing the output failed", facts, "mend the cause and run the same command again")
    )
