"""From a path or URL to the kind of output that lies there."""

from __future__ import annotations

import os
from pathlib import Path

from batchonnx.ledger.local import LocalOutput
from batchonnx.ledger.output import Output


def output_at(path: str, *, is_trusted: bool = False) -> Output:
    """The output at an absolute local path or a URL.

    is_trusted: there is no other writer, somebody says, so a store needn't keep preconditions.

    Raises DependencyError, StorageError for a scheme that nothing here knows.
    """
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if "://" not in path:
        # Of a link, what it points to is renamed, never the link; and all names of a folder have one lease.
        return LocalOutput(Path(os.path.realpath(path)))
    if path.startswith("s3://"):
        from batchonnx.ledger.object_folder import ObjectFolder
        from batchonnx.ledger.objects import StoreOutput

        return StoreOutput(ObjectFolder(path), is_trusted)
    from batchonnx.ledger.plain import PlainOutput

    return PlainOutput(path)
