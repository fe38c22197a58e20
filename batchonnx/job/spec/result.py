"""The section `output`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from batchonnx.job.spec.section import Place, Section, rule
from batchonnx.job.spec.source import Table

LARGEST_ROW_GROUP = 1 << 24
SMALLEST_FILE = 64 << 10

_OF_PARQUET = ("zstd", "snappy", "lz4", "gzip", "none")

_COMPRESSIONS = {
    **dict.fromkeys(("parquet", "delta", "iceberg"), _OF_PARQUET),
    "arrow": ("zstd", "lz4", "none"),
    **dict.fromkeys(("csv", "jsonl"), ("gzip", "zstd", "none")),
}
"""How each format's files can be packed."""


class Result(Section):
    """Where predictions go."""

    path: Place = Field(
        description="A folder, or s3://bucket/folder; it appears when the run is complete. Relative to the "
        "job file. Of a Delta table: its root; with Iceberg: the folder for its new files."
    )
    format: Literal["parquet", "arrow", "csv", "jsonl", "delta", "iceberg"] = Field(
        "parquet",
        description="Of the parts. delta, iceberg: they are Parquet, and added to a table in one commit.",
    )
    table: Table | None = Field(None, description="With format: iceberg, the table; made if there is none.")
    overwrite: bool = Field(
        False,
        description="Replace a former result, or whatever the table holds, when this one is complete.",
    )
    single_writer: Literal["proved", "trusted"] = Field(
        "proved",
        description="`trusted`: a store that ignores preconditions may be written to; nothing keeps a "
        "second run away.",
    )
    compression: Literal["zstd", "snappy", "lz4", "gzip", "none"] | None = Field(
        None, description="Of the parts. Left out: zstd for Parquet, none for arrow, csv and jsonl."
    )
    row_group_rows: Annotated[int, Field(ge=1, le=LARGEST_ROW_GROUP)] | None = Field(
        None,
        description="Rows of a row group of Parquet, or of a record batch of an Arrow file. Left out: about "
        "32 MiB of them, at most 262,144.",
    )
    file_bytes: Annotated[int, Field(ge=SMALLEST_FILE)] | None = Field(
        None,
        description="About how large a file may become before the shard's next rows go to another. Left out: "
        "a shard's rows are one file, however large.",
    )
    partition_by: list[Place] = Field(
        [],
        description="Columns of outputs or keep whose values stand in folders' names, as in "
        "day=2026-11-22/country=DE/, and not in the files.",
    )

    @field_validator("path", mode="after")
    @classmethod
    def _a_folder(cls, path: str) -> str:
        if not path.partition("://")[2].strip("/") and not path.strip("/"):
            fix = "name a folder of its own: the result replaces it as a whole"
            raise rule("the root can't become a result", found=path, fix=fix)
        return path

    @model_validator(mode="after")
    def _of_the_format(self) -> Self:
        known = _COMPRESSIONS[self.format]
        if self.compression is not None and self.compression not in known:
            raise rule(
                f"{self.format} has no such compression",
                expected=f"one of {', '.join(known)}",
                found=self.compression,
                fix="write one of these, or leave compression out",
                key="compression",
            )
        if self.row_group_rows is not None and self.format in ("csv", "jsonl"):
            raise rule(
                "text has no row groups",
                expected="row_group_rows with parquet or arrow",
                found=f"format: {self.format}",
                fix="leave row_group_rows out; file_bytes limits the files' size",
                key="row_group_rows",
            )
        if self.partition_by and self.format in ("delta", "iceberg"):
            raise rule(
                "a table has partitions of its own, and can't be partitioned here",
                expected="partition_by with parquet, arrow, csv or jsonl",
                found=f"format: {self.format}",
                fix="leave partition_by out",
                key="partition_by",
            )
        if len({*self.partition_by}) < len(self.partition_by):
            raise rule(
                "a column is named twice",
                expected="each column once",
                found=", ".join(self.partition_by),
                fix="name it once",
                key="partition_by",
            )
        return self

    @model_validator(mode="after")
    def _table_of_iceberg(self) -> Self:
        if (self.table is not None) != (self.format == "iceberg"):
            raise rule(
                "table and format: iceberg go together",
                expected="format: iceberg, table: {name: NAMESPACE.NAME}, and path for the new files",
                found=f"format: {self.format}" if self.table is not None else "no table",
                fix="name the table: table: {name: db.scores, catalog: lake}"
                if self.table is None
                else "add format: iceberg, or leave table out",
                key="" if self.table is None else "table",
            )
        return self
