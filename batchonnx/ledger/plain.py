"""Results in any fsspec store: as in a bucket, but staged in a hidden folder and copied when published."""

from __future__ import annotations

from functools import cached_property

import pyarrow as pa

from batchonnx.ledger.object_folder import ObjectFolder
from batchonnx.ledger.object_lease import LEASE
from batchonnx.ledger.object_scoring import RECORDS
from batchonnx.ledger.objects import StoreOutput
from batchonnx.storage.paths import open_input
from batchonnx.storage.plain import PlainStore, open_plain

UPLOADS = f"{RECORDS}/uploads"


class PlainFolder(ObjectFolder):
    """A folder of an fsspec store; see `ObjectFolder`."""

    def __init__(self, url: str) -> None:
        self.url, self.bucket = url.rstrip("/"), ""
        self._filesystem, path = open_plain(self.url)
        self._prefix = f"{path}/"

    @cached_property
    def s3(self) -> PlainStore:  # type: ignore[override]
        """The store."""
        return PlainStore(self.url, self._filesystem, self.key(UPLOADS))


class PlainOutput(StoreOutput):
    """A folder of an fsspec store; see `output.Output`."""

    def __init__(self, url: str) -> None:
        self._plain = PlainFolder(url)
        super().__init__(self._plain, is_trusted=True)

    def settle(self) -> None:
        """As in a bucket; and files that a death has left half written are removed."""
        self._plain.s3.remove_halves(but=self._plain.key(LEASE))
        self._sizes = None
        super().settle()

    def open(self, path: str) -> pa.NativeFile:
        """By fsspec. Raises FileNotFoundError."""
        if self._folder.head(path) is None:
            raise FileNotFoundError(self._folder.url_of(path))
        return open_input(self._folder.url_of(path))
