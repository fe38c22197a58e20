"""Tables as tests see them: each kind in each store, read by its own library, not by ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from tests import models
from tests.stores.s3server import Access


@dataclass(frozen=True)
class Lake:
    """One table, and the jobs that meet it.

    kind: delta or iceberg. folder: of jobs, models and local input. root: where the table's files go.
    access: to the store of an s3:// root.
    """

    kind: str
    folder: Path
    root: str
    access: Access | None = None

    def make(self) -> Lake:
        """With a model in its folder."""
        models.row_sum(self.folder / "model.onnx", 3)
        return self

    def write(self, name: str, rows: int, first: int = 0) -> str:
        """An input file of so many rows, ids from `first`: its path, for a job."""
        rng = np.random.default_rng(first)
        columns = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(3)}
        path = self.folder / f"{name}.parquet"
        pq.write_table(pa.table({"id": np.arange(first, first + rows), **columns}), path)
        return path.name

    def job(self, source: str | Mapping[str, Any], **changed: Any) -> JobFile:
        """A job whose result is added to the table. source: an input file, or the input itself.

        into: a folder of Parquet files, in place of the table.
        """
        into, more = changed.pop("into", None), changed.pop("output", {})
        output = self.output() | more if into is None else {"path": into}
        spec: dict[str, Any] = {
            "model": {"path": "model.onnx"},
            "input": {"path": source} if isinstance(source, str) else source,
            "features": {"x": {"columns": ["f0", "f1", "f2"]}},
            "keep": ["id"],
            "output": output,
            "engine": {"batch_rows": 64, "workers": 1},
        }
        return job_from_dict(spec | changed, folder=self.folder)

    def output(self) -> dict[str, Any]:
        """A job's output into the table."""
        if self.kind == "delta":
            return {"path": self.root, "format": "delta"}
        return {"path": f"{self.root}/new", "format": "iceberg", "table": self.name()}

    def input(self, **changed: Any) -> dict[str, Any]:
        """A job's input from the table."""
        named = {"path": self.root} if self.kind == "delta" else {"table": self.name()}
        return {"format": self.kind, **named, **changed}

    def name(self) -> dict[str, Any]:
        """An Iceberg table, in the words of a job."""
        warehouse = self.root if "://" in self.root else f"file://{self.root}"
        uri = f"sqlite:///{self.folder}/catalog.db"
        properties = {"type": "sql", "uri": uri, "warehouse": f"{warehouse}/warehouse"}
        return {"name": "db.scores", "catalog": "lake", "properties": properties}

    def read(self, version: int | None = None) -> pa.Table:
        """The table's rows; none where there is no table."""
        if self.kind == "delta":
            table = self.delta(version)
            return (
                table.to_pyarrow_table() if table is not None else pa.table({"id": pa.array([], pa.int64())})
            )
        loaded = self.iceberg()
        return loaded.scan(snapshot_id=version).to_arrow() if loaded is not None else pa.table({"id": []})

    def ids(self) -> list[int]:
        """Of all rows, sorted."""
        return sorted(self.read().column("id").to_pylist())

    def versions(self) -> int:
        """Commits so far."""
        if self.kind == "delta":
            table = self.delta()
            return int(table.version()) + 1 if table is not None else 0
        loaded = self.iceberg()
        return len(loaded.metadata.snapshots) if loaded is not None else 0

    def delta(self, version: int | None = None) -> Any:
        """deltalake's table; None if there is none."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(self.root, version=version, storage_options=self.options())
        except TableNotFoundError:
            return None

    def iceberg(self) -> Any:
        """pyiceberg's table; None if there is none."""
        from pyiceberg.exceptions import NoSuchTableError

        try:
            return self.catalog().load_table("db.scores")
        except NoSuchTableError:
            return None

    def catalog(self) -> Any:
        """pyiceberg's catalog, made when it is first asked for."""
        from pyiceberg.catalog import load_catalog

        access = self.access
        own = (
            {
                "s3.endpoint": access.endpoint,
                "s3.access-key-id": access.key,
                "s3.secret-access-key": access.secret,
                "s3.region": "us-east-1",
            }
            if access is not None
            else {}
        )
        catalog = load_catalog("lake", **self.name()["properties"], **own)
        catalog.create_namespace_if_not_exists("db")
        return catalog

    def options(self) -> dict[str, str] | None:
        """deltalake's storage options."""
        if self.access is None:
            return None
        return {
            "aws_endpoint": self.access.endpoint,
            "aws_access_key_id": self.access.key,
            "aws_secret_access_key": self.access.secret,
            "aws_region": "us-east-1",
            "aws_allow_http": "true",
            "aws_conditional_put": "etag",
        }
