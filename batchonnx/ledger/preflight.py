"""Whether a store keeps what the ledger builds on, and lets us do what a run needs: asked before any work."""

from __future__ import annotations

import secrets

from batchonnx.errors import Problem, StorageError
from batchonnx.ledger.object_folder import ObjectFolder


def check_store(folder: ObjectFolder, *, is_trusted: bool) -> None:
    """Create, refuse, swap, open an upload, remove: on an object that is gone afterwards.

    is_trusted: preconditions may be ignored. Raises StorageError: for a store that ignores them, and for
    rights that are missing.
    """
    name = f"_batchonnx/preflight-{secrets.token_hex(8)}"
    first, second = secrets.token_bytes(16), secrets.token_bytes(16)
    folder.create(name, first)
    try:
        if not is_trusted:
            if folder.create(name, second) or folder.swap(name, second, "0" * 32) is not None:
                raise _lies(folder)
            found = folder.get(name)
            if found is None or found[0] != first:
                raise _lies(folder)
        upload = folder.s3.begin_upload(folder.bucket, folder.key(name), "preflight")
        folder.s3.abort_upload(folder.bucket, folder.key(name), upload)
    finally:
        folder.delete([name])


def _lies(folder: ObjectFolder) -> StorageError:
    facts = {
        "output": folder.url,
        "endpoint": folder.s3.endpoint,
        "expected": "a write with If-None-Match or If-Match is refused where the condition doesn't hold",
        "found": "it was carried out",
    }
    fix = "write to another store: on this one two runs could both believe to be the only writer; or, where"
    fix += " you know that there is one, set output.single_writer: trusted to go on without the guarantee"
    return StorageError(Problem("the store ignores preconditions", facts, fix))
