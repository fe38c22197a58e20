"""A shard's predictions as files: one, or one for each folder, each cut where it is large enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchonnx.errors import ContractError, Problem
from batchonnx.ledger.output import Staged
from batchonnx.ledger.records import StoredFile
from batchonnx.parts.kinds import Writer, get_kind
from batchonnx.parts.layout import Layout, file_path, without
from batchonnx.parts.partitions import NULL, split
from batchonnx.parts.row_groups import ROW_GROUP_BYTES, RowGroups, row_group_rows
from batchonnx.scoring.pick import take

MOST_FOLDERS = 256
"""Folders that one shard may write to: each holds rows in memory, and is a file for each shard."""

OF_EACH_FOLDER = ROW_GROUP_BYTES >> 3
"""Bytes of a row group where a shard writes to many files side by side."""

FOLDER = "folder"


@dataclass(frozen=True)
class Sizes:
    """How files are cut: rows of a row group (None: as the schema tells), and bytes of a file (None: any)."""

    row_group_rows: int | None = None
    file_bytes: int | None = None


class PartFile:
    """A file that is being written, and how many rows it has."""

    def __init__(self, staged: Staged, schema: pa.Schema, layout: Layout, lineage: Mapping[str, str]) -> None:
        self.staged, self.rows = staged, 0
        self._is_ended = False
        self._sink = pa.PythonFile(staged.sink, "w")
        try:
            kind = get_kind(layout.format)
            self._writer: Writer = kind.open_writer(self._sink, schema, layout.compression, lineage)
        except BaseException:
            staged.abandon()
            raise

    @property
    def bytes(self) -> int:
        """What was written so far."""
        return int(self._sink.tell())

    def write(self, group: pa.Table) -> None:
        """Add a row group."""
        self._writer.write(group)
        self.rows += group.num_rows

    def finish(self) -> StoredFile:
        """Its end, and then for good. Raises StorageError or OSError."""
        self._is_ended = True
        self._writer.close()
        return self.staged.finish(self.rows)

    def let_go(self) -> None:
        """Close it, after an error: it will never count."""
        if not self._is_ended:  # a second end would be written behind the first
            self._is_ended = True
            with suppress(OSError, pa.ArrowException, ValueError):
                self._writer.close()


class _Folder:
    """What goes to one folder: rows that wait for their row group, and the file that is open."""

    def __init__(self, schema: pa.Schema, group_rows: int, most_bytes: int | None) -> None:
        self.groups = RowGroups(schema, group_rows, most_bytes)
        self.file: PartFile | None = None
        self.files = 0


class PartFiles:
    """The files of one shard, whose bytes follow from its rows alone.

    part: the name that the plan has for them. stage: number and path -> a new file of the attempt.
    """

    def __init__(
        self,
        part: str,
        layout: Layout,
        sizes: Sizes,
        lineage: Mapping[str, str],
        stage: Callable[[int, str], Staged],
    ) -> None:
        assert layout.arrow_schema is not None
        self._part, self._layout, self._sizes, self._lineage = part, layout, sizes, lineage
        self._stage = stage
        self._schema = without(layout.arrow_schema, layout.partition_by)
        most = OF_EACH_FOLDER if layout.partition_by else ROW_GROUP_BYTES
        most = min(most, sizes.file_bytes or most)
        self._group_rows = sizes.row_group_rows or row_group_rows(self._schema, most)
        self._most_bytes = most if sizes.row_group_rows is None else None
        self._folders: dict[str, _Folder] = {}
        self._begun: list[PartFile] = []
        self._done: dict[int, StoredFile] = {}

    def write(self, rows: pa.RecordBatch) -> pa.RecordBatch | None:
        """Add rows; each reaches its file with its row group. Each row's folder, if there are any."""
        columns = self._layout.partition_by
        if not columns:
            self._add("", rows)
            return None
        try:
            found = list(split(rows, columns))
        except ValueError as error:
            raise self._no_value(columns) from error
        stored = rows.select(self._schema.names)
        order = np.zeros(rows.num_rows, np.int32)
        for number, (folder, places) in enumerate(found):
            self._add(folder, stored if len(found) == 1 else take(stored, places))
            order[places] = number
        folders = pa.DictionaryArray.from_arrays(order, pa.array([name for name, _ in found], pa.string()))
        return pa.RecordBatch.from_arrays([folders.cast(pa.string())], schema=ORDER_SCHEMA)

    def finish(self) -> tuple[StoredFile, ...]:
        """Write what waits, and end every file, in the order in which they were begun."""
        if not self._layout.partition_by:
            self._folder("")
        for name, folder in self._folders.items():
            for group in folder.groups.rest():
                self._write(name, folder, group)
            if folder.file is None and not folder.files:
                self._open(name, folder)
            if folder.file is not None:
                self._end(folder)
        return tuple(self._done[number] for number in range(len(self._begun)))

    def let_go(self) -> None:
        """Close all files; see `PartFile.let_go`."""
        for file in self._begun:
            file.let_go()

    def abandon(self) -> None:
        """Leave no trace of them."""
        for file in self._begun:
            file.staged.abandon()

    def _add(self, name: str, rows: pa.RecordBatch) -> None:
        folder = self._folder(name)
        for group in folder.groups.add(rows):
            self._write(name, folder, group)

    def _write(self, name: str, folder: _Folder, group: pa.Table) -> None:
        file = folder.file or self._open(name, folder)
        file.write(group)
        if self._sizes.file_bytes is not None and file.bytes >= self._sizes.file_bytes:
            self._end(folder)

    def _folder(self, name: str) -> _Folder:
        if name not in self._folders:
            if len(self._folders) == MOST_FOLDERS:
                raise self._too_many()
            self._folders[name] = _Folder(self._schema, self._group_rows, self._most_bytes)
        return self._folders[name]

    def _open(self, name: str, folder: _Folder) -> PartFile:
        number = folder.files if self._sizes.file_bytes is not None else None
        path = file_path(self._part, name, number)
        file = PartFile(self._stage(len(self._begun), path), self._schema, self._layout, self._lineage)
        self._begun.append(file)
        folder.file, folder.files = file, folder.files + 1
        return file

    def _end(self, folder: _Folder) -> None:
        assert folder.file is not None
        self._done[self._begun.index(folder.file)] = folder.file.finish()
        folder.file = None

    def _too_many(self) -> ContractError:
        facts = {
            "output.partition_by": ", ".join(self._layout.partition_by),
            "expected": f"at most {MOST_FOLDERS} folders for one shard",
            "found": "more",
            "part": self._part,
        }
        fix = "partition by a column with fewer values; or sort the input by it, so that a shard has few"
        return ContractError(Problem("the result is partitioned into too many files", facts, fix))

    def _no_value(self, columns: tuple[str, ...]) -> ContractError:
        facts = {"output.partition_by": ", ".join(columns), "found": NULL, "part": self._part}
        fix = "give the value another text, or partition by another column"
        return ContractError(
            Problem("a value is the very text that stands for null in folders' names", facts, fix)
        )


ORDER_SCHEMA = pa.schema([(FOLDER, pa.string())])
"""Of the file that tells each line's folder."""
