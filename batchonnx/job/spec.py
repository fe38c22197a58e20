"""The job file as frozen, strict pydantic models: the single place that says what a job can say.

Descriptions end up in the JSON Schema, so an editor shows them while the file is written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Scalar = bool | int | float | str
Place = Annotated[str, Field(min_length=1)]
LARGEST_BATCH = 2**31 - 1
"""Arrow and ONNX Runtime count rows of a batch with 32 bits in places."""
Hook = Annotated[
    str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="text like module:function")
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits, in lower case")]


Share = Annotated[str, Field(pattern=r"^\d{1,3}(\.\d+)?%$", description="a share, like 0.1%")]

Requirement = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][\w.-]*\s*(\[[\w\s,.-]*\])?\s*([<>=!~(@;][^\n]*)?$",
        description="a package like pillow==11.3",
    ),
]

Endpoint = Annotated[
    str,
    Field(pattern=r"^https?://[^@/?#]+(/[^@?#]*)?$", description="a URL like https://s3.example.com:9000"),
]


SECRETS = ("token", "credential", "password", "secret", "secret-access-key", "access-key-id")
PASSWORD = re.compile(r"://[^/@]*:[^/@]+@")
"""In a URL."""


class Section(BaseModel):
    """Strict and frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


def _rule(title: str, *, found: str, fix: str, expected: str = "", key: str = "") -> PydanticCustomError:
    """A broken rule between the keys of a section, as fields; key: the one to point at."""
    context = {"expected": expected, "found": found, "fix": fix, "key": key}
    return PydanticCustomError("job_rule", title, context)


class Model(Section):
    """The ONNX model."""

    path: Place = Field(description="Local path or URL of the .onnx file; relative to the job file.")
    sha256: Digest | None = Field(None, description="Refuse a model with another SHA-256 digest.")


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
            raise _rule(
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
                raise _rule(
                    "an Iceberg table is named by table",
                    expected="table: {name: NAMESPACE.NAME}, and no path",
                    found="path" if self.path is not None else "no table",
                    fix="name the table: table: {name: db.events, catalog: lake}",
                )
        elif self.table is not None:
            raise _rule(
                "table goes with Iceberg only",
                expected="format: iceberg",
                found=f"format: {self.format}" if self.format else "no format",
                fix="add format: iceberg, or name files by path",
                key="table",
            )
        elif self.path is None:
            raise _rule(
                'no "path"',
                expected="path: a file, folder, glob or a list of them",
                found="none",
                fix='add "path: …" under input',
            )
        if self.format == "delta" and not isinstance(self.path, str):
            raise _rule(
                "a Delta table is one folder",
                expected="path: the table's folder",
                found="a list",
                fix="name one table",
                key="path",
            )
        if self.version is not None and self.format not in ("delta", "iceberg"):
            raise _rule(
                "version goes with tables only",
                expected="format: delta or iceberg",
                found=f"format: {self.format}" if self.format else "no format",
                fix="leave version out, or say which kind of table it is: format",
                key="version",
            )
        return self


class BytesWindow(Section):
    """A binary column as integers: the first and last bytes of each value."""

    head: int = Field(0, ge=0, description="How many bytes from the front.")
    tail: int = Field(0, ge=0, description="How many bytes from the back, right-aligned.")
    window: int | None = Field(
        None, ge=1, description="Look only at so many bytes at each end (before stripping)."
    )
    strip: bool = Field(False, description="Leave out white space at the outer ends first.")
    pad: int = Field(256, description="Where there is no byte.")

    @model_validator(mode="after")
    def _some_bytes(self) -> Self:
        if self.head + self.tail == 0:
            raise _rule(
                "no bytes are taken: head and tail are both 0",
                expected="head or tail above 0",
                found="head: 0, tail: 0",
                fix="say how many bytes to take from the front (head) and from the back (tail)",
            )
        return self


class Feature(Section):
    """How input columns become one model input: one of column, columns, value or python."""

    column: str | None = Field(None, description="One column: a scalar, a list or a tensor per row.")
    columns: list[str] | None = Field(
        None, min_length=1, description="Scalar columns, stacked to [batch, k]; or what `python` is given."
    )
    value: Scalar | list[Any] | None = Field(None, description="A constant, the same for every row.")
    python: Hook | None = Field(
        None,
        description="module:function, given a RecordBatch of columns, returns a tensor or a dict of them.",
    )
    inputs: list[str] | None = Field(
        None, min_length=1, description="With python: the model inputs that the function returns as a dict."
    )
    bytes: BytesWindow | None = Field(None, description="With column: a binary column as integers.")
    shape: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="Each row's shape, where a flat list is to be seen as a tensor."
    )
    fill: Scalar | None = Field(None, description="What a null becomes. Floats need none: null is NaN.")
    cast: bool = Field(False, description="Allow a cast that can lose integers (int64 to float32, say).")
    batch_axis: int = Field(0, ge=0, description="The model input's axis that counts rows.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [k for k in ("column", "columns", "value") if getattr(self, k) is not None]
        if len(given) != 1:
            raise _rule(
                "a feature comes from exactly one of column, columns and value",
                expected="one of column, columns, value",
                found=", ".join(given) or "none of them",
                fix="keep one of them" if given else "say which column it is: column: NAME",
            )
        if self.python is not None and self.columns is None:
            raise _rule(
                "python needs columns",
                expected="columns: the list of columns that the function is given",
                found=given[0],
                fix=f"replace {given[0]} by columns: [NAME, ...]",
                key="python",
            )
        if self.inputs is not None and self.python is None:
            raise _rule(
                "inputs goes with python only",
                expected="python: module:function, which returns a dict of these inputs",
                found="inputs without python",
                fix="add python, or leave inputs out and write a feature for each input",
                key="inputs",
            )
        if self.bytes is not None and self.column is None:
            raise _rule(
                "bytes goes with column only",
                expected="column: the binary column to take bytes of",
                found=given[0],
                fix=f"replace {given[0]} by column: NAME, or leave bytes out",
                key="bytes",
            )
        return self


class Output(Section):
    """How one model output becomes one column of predictions.

    The order of work: softmax or sigmoid, then one of index, argmax or top_k, then threshold.
    """

    from_: str = Field(alias="from", description="The model output.")
    softmax: bool = Field(False, description="Turn scores into shares over the last axis.")
    sigmoid: bool = Field(False, description="Turn scores into probabilities, each for itself.")
    index: int | None = Field(None, description="Take one element of each row; negative counts from the end.")
    argmax: bool = Field(False, description="The position (or label) of the largest element of each row.")
    top_k: int | None = Field(None, ge=1, description="The k largest elements, as a list of {label, score}.")
    threshold: float | None = Field(
        None, description="True (or the second label) where the value is at least this."
    )
    labels: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Names of the classes: a list, or a file with one a line; relative to the job file."
    )
    python: Hook | None = Field(
        None,
        description="module:function, given the output's array, returns an array with a row for each row.",
    )
    batch_axis: int = Field(0, ge=0, description="The model output's axis that counts rows.")

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        # By identity: `index: 0` equals False.
        picks = [
            k
            for k in ("index", "argmax", "top_k")
            if getattr(self, k) is not None and getattr(self, k) is not False
        ]
        scores = [k for k in ("softmax", "sigmoid") if getattr(self, k)]
        steps = [*scores, *picks, *(["threshold"] if self.threshold is not None else [])]
        if self.python is not None and steps:
            raise _rule(
                "python goes alone",
                expected="from and python, without other steps",
                found=f"python with {', '.join(steps)}",
                fix=f"do it in the function, or leave python out (or {', '.join(steps)})",
                key="python",
            )
        for given, told in ((scores, "softmax and sigmoid"), (picks, "index, argmax and top_k")):
            if len(given) > 1:
                raise _rule(
                    f"{told} exclude each other", found=", ".join(given), fix="keep one of them", key=given[1]
                )
        if self.threshold is not None and (self.argmax or self.top_k):
            raise _rule(
                "threshold goes with a single value per row",
                expected="threshold with index, or with an output of one value per row",
                found=f"threshold with {picks[0]}",
                fix=f"leave out threshold or {picks[0]}, or take one value: index: 1",
                key="threshold",
            )
        if self.labels is not None and not (self.argmax or self.top_k or self.threshold is not None):
            raise _rule(
                "labels needs something to label",
                expected="labels with argmax, top_k or threshold",
                found="labels alone" if not steps else f"labels with {', '.join(steps)}",
                fix="add argmax: true, or leave labels out",
                key="labels",
            )
        return self


class Result(Section):
    """Where predictions go."""

    path: Place = Field(
        description="A folder, or s3://bucket/folder; it appears when the run is complete. Relative to the "
        "job file. Of a Delta table: its root; with Iceberg: the folder for its new files."
    )
    format: Literal["parquet", "delta", "iceberg"] = Field(
        "parquet", description="delta, iceberg: the parts are added to a table in one commit."
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
    compression: Literal["zstd", "snappy", "lz4", "none"] = Field("zstd", description="Of the Parquet parts.")

    @field_validator("path", mode="after")
    @classmethod
    def _a_folder(cls, path: str) -> str:
        if not path.partition("://")[2].strip("/") and not path.strip("/"):
            fix = "name a folder of its own: the result replaces it as a whole"
            raise _rule("the root can't become a result", found=path, fix=fix)
        return path

    @model_validator(mode="after")
    def _table_of_iceberg(self) -> Self:
        if (self.table is not None) != (self.format == "iceberg"):
            raise _rule(
                "table and format: iceberg go together",
                expected="format: iceberg, table: {name: NAMESPACE.NAME}, and path for the new files",
                found=f"format: {self.format}" if self.table is not None else "no table",
                fix="name the table: table: {name: db.scores, catalog: lake}"
                if self.table is None
                else "add format: iceberg, or leave table out",
                key="" if self.table is None else "table",
            )
        return self


class Engine(Section):
    """Where the work is done."""

    name: Literal["local"] = Field("local", description="local: threads of this process.")
    device: Literal["cpu"] = Field("cpu", description="What the sessions run on.")
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="auto: one for each core."
    )
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="Rows in one call of the model; auto measures a few sizes first."
    )

    @field_validator("batch_rows", mode="after")
    @classmethod
    def _countable(cls, rows: int | str) -> int | str:
        if isinstance(rows, int) and rows > LARGEST_BATCH:
            fix = "leave it out: a batch that is larger than the input is no faster"
            raise _rule(
                "a batch too large", expected=f"at most {LARGEST_BATCH:,}", found=f"{rows:,}", fix=fix
            )
        return rows


class Errors(Section):
    """What may go wrong before the job does."""

    max_bad_rows: Annotated[int, Field(ge=0)] | Share = Field(
        0,
        description="Rows that can't be scored and go to quarantine, as a count or as a share of all rows "
        "(0.1%), before the run ends. 0: the first one ends it.",
    )


class Check(Section):
    """What a column of the result has to be like before it is published."""

    max_null: Share | None = Field(None, description="Share of rows that may be null or NaN.")
    min: float | None = Field(None, description="No value may be smaller.")
    max: float | None = Field(None, description="No value may be larger.")
    varies: bool = Field(False, description="Not all values may be the same.")
    max_psi: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="How far numbers may have moved since the published result: the population stability "
        "index over its deciles (0.1 is a small shift, 0.25 a large one).",
    )
    max_shift: Share | None = Field(
        None, description="How far any label's share of the rows may have moved since the published result."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self == Check.model_construct():
            raise _rule(
                "a check that checks nothing",
                expected="max_null, min, max, varies, max_psi or max_shift",
                found="none of them",
                fix="say what the column has to be like, or leave it out",
            )
        return self


class Storage(Section):
    """Where object stores are and who asks; credentials come from the environment and its files alone."""

    endpoint: Endpoint | None = Field(
        None, description="The S3 service's URL. Left out: AWS_ENDPOINT_URL, else AWS."
    )
    region: Place | None = Field(None, description="The S3 service's region. Left out: AWS_REGION.")
    profile: Place | None = Field(
        None, description="A profile of ~/.aws/config, which may assume a role. Left out: AWS_PROFILE."
    )
    path_style: bool | None = Field(
        None, description="Whether the bucket stands in the path, not in the host's name."
    )
    ca_file: Place | None = Field(
        None,
        description="Certificates to trust, in PEM form; relative to the job file. Left out: AWS_CA_BUNDLE.",
    )


class Dependencies(Section):
    """What hooks need beyond what is installed; `submit` has Ray install it for this job alone."""

    pip: list[Requirement] = Field(
        [], description="Requirements as pip reads them: pillow==11.3, mypackage[extra]>=2."
    )

    @field_validator("pip", mode="after")
    @classmethod
    def _without_passwords(cls, pip: list[str]) -> list[str]:
        if found := [entry for entry in pip if PASSWORD.search(entry)]:
            raise _rule(
                "a job file holds no secrets: it is copied into records",
                found=f"a password in the URL of {found[0].partition('@')[0].strip()}",
                fix="name the package alone; the cluster's pip.conf or PIP_INDEX_URL says where it is",
            )
        return pip


class Job(Section):
    """A job: model, input, features, outputs and where the predictions go."""

    name: str = Field("job", description="Shown in progress and records.")
    model: Model = Field(description="The ONNX model.")
    input: Input = Field(description="The rows to score.")
    features: dict[str, Feature] | None = Field(
        None, description="Model input -> how columns become it. Left out: matched by name, type and shape."
    )
    outputs: dict[str, Output] | None = Field(
        None,
        description="Column of predictions -> how it is made. Left out: every model output, by its name.",
    )
    keep: list[str] = Field([], description="Input columns to carry along, beside the predictions.")
    output: Result = Field(description="Where the predictions go.")
    engine: Engine = Field(Engine(), description="Where and how the work is done.")
    errors: Errors = Field(Errors(), description="What may go wrong before the job does.")
    storage: Storage = Field(Storage(), description="Where object stores are and who asks.")
    gate: dict[str, Check] = Field(
        {},
        description="Column of the result -> what it has to be like; else the result is kept back, until "
        "`batchonnx publish --force`.",
    )
    dependencies: Dependencies = Field(Dependencies(), description="What a submitted job has installed.")

    @field_validator("keep", mode="after")
    @classmethod
    def _each_once(cls, keep: list[str]) -> list[str]:
        twice = sorted({name for name in keep if keep.count(name) > 1})
        if twice:
            fix = "name each column once"
            raise _rule(
                "a column is kept twice", expected="each column once", found=", ".join(twice), fix=fix
            )
        return keep


class JobFile(BaseModel):
    """A validated job together with the file that it came from.

    lines: dotted key -> line number (from 1) in the file, for error messages.
    """

    model_config = ConfigDict(frozen=True)

    job: Job
    path: Path | None = Field(None, description="None for a job built in Python.")
    folder: Path = Field(description="Relative paths count from here; hooks are imported from here.")
    lines: dict[str, int] = {}

    def where(self, key: str) -> str:
        """`jobs/score.yaml:9  features.x.columns`, as far as the line is known."""
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            line = self.lines.get(".".join(parts[:end]))
            if line is not None:
                return f"{self.path}:{line}  {key}"
        return f"{self.path}  {key}" if self.path else key

    def resolve(self, path: str) -> str:
        """A path of the job as an absolute path or URL."""
        if "://" in path:
            return path
        # Unlike Path.expanduser, which raises, this leaves "~nobody" as it is: a missing file like any other.
        return str((self.folder / os.path.expanduser(path)).absolute())  # noqa: PTH111
