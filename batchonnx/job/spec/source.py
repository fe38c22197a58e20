"""The sections `model` and `input`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchonnx.job.spec.section import PASSWORD, SECRETS, Digest, Place, Scalar, Section, rule

REGISTRY = "models:/"
"""What the name of a model in an MLflow registry begins with; it is no path of a job's folder."""


class Model(Section):
    """The ONNX model."""

    path: Place = Field(
        description="Local path or URL of the .onnx file, relative to the job file; or models:/NAME/VERSION, "
        "of an MLflow registry."
    )
    sha256: Digest | None = Field(None, description="Refuse a model with another SHA-256 digest.")


class ChainedModel(Model):
    """A model of several."""

    inputs: dict[str, Place] = Field(
        {},
        description="Input of this model -> where it comes from: MODEL.OUTPUT of one before, or a name in "
        "features. Left out: the feature of the input's own name, which models may share.",
    )


class Table(Section):
    """An Iceberg table."""

    name: Place = Field(description="Namespace and name, like db.scores.")
    catalog: Place = Field(
        "default",
        description="The catalog's name, as ~/.pyiceberg.yaml or the PYICEBERG_CATALOG__… variables know it.",
    )
    properties: dict[str, Scalar] = Field(
        {}, description="Of the catalog, in place of configured ones; secrets don't belong here."
    )

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        named = [key for key in self.properties if key.lower().endswith(SECRETS)]
        inside = [key for key, value in self.properties.items() if PASSWORD.search(str(value))]
        if found := [*named, *inside]:
            variable = f"PYICEBERG_CATALOG__{self.catalog.upper()}__{found[0].upper().replace('-', '_')}"
            raise rule(
                "a job file holds no secrets: it is copied into records",
                found=found[0],
                fix=f"set it in ~/.pyiceberg.yaml, or as {variable}",
                key="properties",
            )
        return self


class Input(Section):
    """The rows."""

    path: Place | Annotated[list[Place], Field(min_length=1)] | None = Field(
        None,
        description="File, folder, glob or a list of them, or a Delta table; relative to the job file.",
    )
    format: Literal["parquet", "arrow", "csv", "jsonl", "files", "delta", "iceberg"] | None = Field(
        None,
        description="Left out: told by the file names. `files` makes a row of every file, with columns "
        "path, size and bytes.",
    )
    table: Table | None = Field(None, description="With format: iceberg, the table, in place of path.")
    version: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Of a Delta table, or an Iceberg table's snapshot id. Left out: the newest."
    )
    filter: str | None = Field(
        None, description="Rows to score, as in SQL's WHERE: amount > 0 and country in ('DE', 'FR')."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.format == "iceberg":
            if self.table is None or self.path is not None:
                raise rule(
                    "an Iceberg table is named by table",
                    expected="table: {name: NAMESPACE.NAME}, and no path",
                    found="path" if self.path is not None else "no table",
                    fix="name the table: table: {name: db.events, catalog: lake}",
                )
        elif self.table is not None:
            raise rule(
                "table goes with Iceberg only",
                expected="format: iceberg",
                found=f"format: {self.format}" if self.format else "no format",
                fix="add format: iceberg, or name files by path",
                key="table",
            )
        elif self.path is None:
            raise rule(
                'no "path"',
                expected="path: a file, folder, glob or a list of them",
                found="none",
                fix='add "path: …" under input',
            )
        if self.format == "delta" and not isinstance(self.path, str):
            raise rule(
                "a Delta table is one folder",
                expected="path: the table's folder",
                found="a list",
                fix="name one table",
                key="path",
            )
        if self.version is not None and self.format not in ("delta", "iceberg"):
            raise rule(
                "version goes with tables only",
                expected="format: delta or iceberg",
                found=f"format: {self.format}" if self.format else "no format",
                fix="leave version out, or say which kind of table it is: format",
                key="version",
            )
        return self
