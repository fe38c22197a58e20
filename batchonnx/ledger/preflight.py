"""Whether a store keeps what the ledger builds on, and lets us do what a run needs: asked before any work."""

from __future__ import annotations

import secrets
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from batchonnx.errors import Problem, StorageError
from batchonnx.ledger.object_folder import ObjectFolder

PREFLIGHT = "_batchonnx/preflight"
ASKED_AT_ONCE = 4


def check_store(folder: ObjectFolder, *, is_trusted: bool) -> None:
    """Write, be refused, list, open an upload, find it, give it up, remove: on an object that is then gone.

    The lease is held: of one that died here, all is removed along with it. is_trusted: preconditions may be
    ignored. Raises StorageError: for a store that ignores them or doesn't list what there is, and for
    rights that are missing.
    """
    # Side by side: where every request takes its time, the questions would else take a second.
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        upload = pool.submit(_check_upload, folder)
        _check_object(folder, pool, is_trusted=is_trusted)
        upload.result()


def _check_object(folder: ObjectFolder, pool: ThreadPoolExecutor, *, is_trusted: bool) -> None:
    folder.put(PREFLIGHT, secrets.token_bytes(16))
    try:
        listing = pool.submit(lambda: [entry.key for entry in folder.list(PREFLIGHT)])
        writes: list[Future[str | None]] = []
        if not is_trusted:
            # Each looks at the object once it is refused: a store that refuses and writes is found out.
            writes.append(pool.submit(folder.create, PREFLIGHT, secrets.token_bytes(16)))
            writes.append(pool.submit(folder.swap, PREFLIGHT, secrets.token_bytes(16), "0" * 32))
        asked: list[Future[Any]] = [listing, *writes]
        wait(asked)  # before the object is removed: none may bring it back
        if any(write.result() is not None for write in writes):
            raise _lies(folder)
        if PREFLIGHT not in listing.result():
            raise _hides(folder, "an object")
    finally:
        folder.delete([PREFLIGHT])


def _check_upload(folder: ObjectFolder) -> None:
    upload = folder.s3.begin_upload(folder.bucket, folder.key(PREFLIGHT), "preflight")
    listed = list(folder.uploads(PREFLIGHT))
    folder.abort({*listed, (PREFLIGHT, upload)})
    if (PREFLIGHT, upload) not in listed:
        raise _hides(folder, "an upload")


def _lies(folder: ObjectFolder) -> StorageError:
    facts = {
        "output": folder.url,
        "endpoint": folder.s3.requests.endpoint,
        "expected": "a write with If-None-Match or If-Match is refused where the condition doesn't hold",
        "found": "it was carried out",
    }
    fix = "write to another store: on this one two runs could both believe to be the only writer; or, where"
    fix += " you know that there is one, set output.single_writer: trusted to go on without the guarantee"
    return StorageError(Problem("the store ignores preconditions", facts, fix))


def _hides(folder: ObjectFolder, what: str) -> StorageError:
    facts = {
        "output": folder.url,
        "endpoint": folder.s3.requests.endpoint,
        "expected": f"a listing of {folder.url_of(PREFLIGHT)} has {what} of that name, which was just made",
        "found": "it hasn't",
    }
    fix = "name an output without // in its path: some stores take it for /; or write to another store"
    return StorageError(Problem("the store doesn't list what is there", facts, fix))
