"""The job file as frozen, strict pydantic models: the single place that says what a job can say.

Descriptions end up in the JSON Schema, so an editor shows them while the file is written.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime
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

Role = Annotated[
    str,
    Field(
        pattern=r"^arn:[\w-]+:iam:.*:role/.+$", description="text like arn:aws:iam::123456789012:role/scorer"
    ),
]


Duration = Annotated[str, Field(pattern=r"^[1-9]\d{0,4}[mhd]$", description="a duration, like 30m, 6h or 1d")]

SECRETS = ("token", "credential", "password", "secret", "secret-access-key", "access-key-id")
PASSWORD = re.compile(r"://[^/@]*:[^/@]+@")
"""In a URL."""


LARGEST_ROW_GROUP = 1 << 24
SMALLEST_FILE = 64 << 10
_OF_PARQUET = ("zstd", "snappy", "lz4", "gzip", "none")
_COMPRESSIONS = {
    **dict.fromkeys(("parquet", "delta", "iceberg"), _OF_PARQUET),
    "arrow": ("zstd", "lz4", "none"),
    **dict.fromkeys(("csv", "jsonl"), ("gzip", "zstd", "none")),
}
"""How each format's files can be packed."""


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
            raise _rule("the root can't become a result", found=path, fix=fix)
        return path

    @model_validator(mode="after")
    def _of_the_format(self) -> Self:
        known = _COMPRESSIONS[self.format]
        if self.compression is not None and self.compression not in known:
            raise _rule(
                f"{self.format} has no such compression",
                expected=f"one of {', '.join(known)}",
                found=self.compression,
                fix="write one of these, or leave compression out",
                key="compression",
            )
        if self.row_group_rows is not None and self.format in ("csv", "jsonl"):
            raise _rule(
                "text has no row groups",
                expected="row_group_rows with parquet or arrow",
                found=f"format: {self.format}",
                fix="leave row_group_rows out; file_bytes limits the files' size",
                key="row_group_rows",
            )
        if self.partition_by and self.format in ("delta", "iceberg"):
            raise _rule(
                "a table has partitions of its own, and can't be partitioned here",
                expected="partition_by with parquet, arrow, csv or jsonl",
                found=f"format: {self.format}",
                fix="leave partition_by out",
                key="partition_by",
            )
        if len({*self.partition_by}) < len(self.partition_by):
            raise _rule(
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


class Span(Section):
    """How many workers there may be: it grows and shrinks with the cluster."""

    min: Annotated[int, Field(ge=1)] = Field(1, description="Scoring doesn't begin with fewer.")
    max: Annotated[int, Field(ge=1)] = Field(description="No more are started.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            found = f"min: {self.min}, max: {self.max}"
            fix = "make max the larger one"
            raise _rule("min above max", expected="min <= max", found=found, fix=fix, key="max")
        return self


RAY_ONLY = ("address", "resources", "wait_s", "shared_output")


class Resources(Section):
    """What Ray reserves for each worker."""

    num_cpus: Annotated[int, Field(ge=1)] = Field(
        1, description="Cores of one worker; its session uses as many threads."
    )
    num_gpus: Annotated[float, Field(ge=0)] | Annotated[int, Field(ge=0)] = Field(
        0, description="GPUs of one worker; a share (0.5) lets several workers use one."
    )
    memory: Annotated[int, Field(ge=1)] | None = Field(None, description="Bytes of memory of one worker.")
    custom: dict[str, Annotated[float, Field(gt=0)] | Annotated[int, Field(gt=0)]] = Field(
        {}, description="Custom resource of the cluster -> how much of it one worker takes."
    )
    accelerator_type: Place | None = Field(None, description="Kind of GPU, as Ray names it: A10G, H100.")


class Engine(Section):
    """Where the work is done."""

    name: Literal["local", "ray"] = Field(
        "local", description="local: threads of this process. ray: actors on a Ray cluster."
    )
    device: Literal["cpu"] = Field("cpu", description="What the sessions run on.")
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] | Span = Field(
        "auto",
        description="auto: one for each core; with Ray, as many as fit in the cluster. A number, or {min, "
        "max} with Ray, is the most there will be.",
    )
    address: Place | None = Field(
        None,
        description="With Ray: the cluster, as HOST:PORT, ray://HOST:PORT, auto, or local for one that lives "
        "as long as the run. Left out: RAY_ADDRESS, else local.",
    )
    resources: Resources = Field(Resources(), description="With Ray: what is reserved for each worker.")
    wait_s: Annotated[float, Field(gt=0)] | Annotated[int, Field(gt=0)] = Field(
        10,
        description="With Ray: seconds to wait for the first workers to have a place; more where an "
        "autoscaler has to start machines.",
    )
    shared_output: bool = Field(
        False,
        description="With Ray, for a local output.path: all nodes see it as the same folder (NFS, say).",
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

    @model_validator(mode="after")
    def _of_ray(self) -> Self:
        if self.name != "ray":
            asked = [key for key in RAY_ONLY if getattr(self, key) != type(self).model_fields[key].default]
            asked += ["workers"] if isinstance(self.workers, Span) else []
            if asked:
                raise _rule(
                    "a setting of Ray's, without Ray",
                    expected="engine.name: ray",
                    found=f"{asked[0]} with name: {self.name}",
                    fix=f"add name: ray, or leave {asked[0]} out",
                    key=asked[0],
                )
        return self


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
    role_arn: Role | None = Field(
        None, description="A role to assume with the credentials found, renewed as it expires."
    )
    path_style: bool | None = Field(
        None, description="Whether the bucket stands in the path, not in the host's name."
    )
    ca_file: Place | None = Field(
        None,
        description="Certificates to trust, in PEM form; relative to the job file. Left out: AWS_CA_BUNDLE.",
    )


class Schedule(Section):
    """When the job runs, and for which logical date: `{{ date }}`."""

    cron: Place = Field(description="Minute, hour, day of month, month, day of week: 15 2 * * *.")
    time_zone: Place = Field("UTC", description="Of the cron expression and of `{{ date }}`: Europe/Berlin.")
    lag: Duration | None = Field(
        None,
        description="How far the logical date lies behind the tick: with 1d, a tick scores the day before. "
        "Left out: it is the tick's own.",
    )
    date: Place | None = Field(
        None,
        description="How `{{ date }}` is written, as in strftime. Left out: %Y-%m-%d, or %Y-%m-%dT%H%M where "
        "a day may have several ticks.",
    )
    start: Place | None = Field(None, description="The first logical date of all: 2026-11-01.")
    catch_up: Annotated[int, Field(ge=0)] = Field(
        0,
        description="How many ticks before the newest may be made up, if their outputs aren't published. "
        "Needs start.",
    )
    overlap: Literal["wait", "skip", "replace"] = Field(
        "wait",
        description="A tick that comes due while another one's run goes on: wait for it, be left out, or "
        "take its place.",
    )
    deadline: Duration | None = Field(
        None, description="How long one tick's run may take. Left out: for ever."
    )

    @field_validator("cron", mode="after")
    @classmethod
    def _that_every_cron_knows(cls, cron: str) -> str:
        # Imported here: most jobs have no schedule, and a run begins without waiting for it.
        from cronsim import CronSim, CronSimError

        expected = "minute hour day-of-month month day-of-week, like 15 2 * * *"
        if len(cron.split()) != 5:
            fix = "write five fields; for every day at a quarter past two: 15 2 * * *"
            raise _rule("a cron expression has five fields", expected=expected, found=cron, fix=fix)
        if found := _ONLY_HERE.search(" ".join(cron.upper().split()[2:3] + cron.upper().split()[4:])):
            fix = "write it with *, numbers, names, lists, ranges and steps; Sunday is 0 or SUN"
            raise _rule("not every scheduler knows this", expected=expected, found=found[0], fix=fix)
        try:
            next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            fix = "look at this field; it takes *, numbers, lists, ranges and steps: */15, 1-5, 0,30"
            raise _rule(
                f"no cron expression: {str(error)[:1].lower()}{str(error)[1:]}",
                expected=expected,
                found=cron,
                fix=fix,
            ) from error
        except StopIteration:
            fix = "look at day of month and month"
            raise _rule("a schedule that never comes", expected=expected, found=cron, fix=fix) from None
        return cron

    @field_validator("time_zone", mode="after")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(name)
        except (ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise _no_zone(name) from error
        except KeyError as error:
            raise _no_zone(name) from error
        return name

    @field_validator("date", mode="after")
    @classmethod
    def _fit_for_a_path(cls, form: str | None) -> str | None:
        if form is None:
            return None
        bare = re.sub(r"%[YmdHMzj]", "", form)
        if bare == form or re.search(r"[^\w.=/T+-]", bare):
            raise _rule(
                "this can't write a date that is part of a path",
                expected="%Y, %m, %d, %H, %M, %z, %j and letters, digits, _ . = / -",
                found=form,
                fix="write %Y-%m-%d, for example",
            )
        return form

    @field_validator("start", mode="after")
    @classmethod
    def _a_day(cls, start: str | None) -> str | None:
        try:
            if start is not None:
                date.fromisoformat(start)
        except ValueError:
            fix = "write a day like 2026-11-01"
            raise _rule("start is no date", expected="YYYY-MM-DD", found=start or "", fix=fix) from None
        return start

    @model_validator(mode="after")
    def _start_of_catching_up(self) -> Self:
        if self.catch_up and self.start is None:
            raise _rule(
                "catch_up needs start",
                expected="start: the first logical date, like 2026-11-01",
                found="no start",
                fix="say since when results are to be there: start: 2026-11-01",
                key="catch_up",
            )
        return self


_ONLY_HERE = re.compile(r"[L#?]|W(?!ED)|(?<!\d)7(?!\d)(?=[^ ]*$)")
"""What some systems read otherwise or not at all: last days, nth days, Sunday as 7."""


def _no_zone(name: str) -> PydanticCustomError:
    fix = "write UTC, or a name like Europe/Berlin"
    return _rule("there is no such time zone", expected="a name of the IANA database", found=name, fix=fix)


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
    schedule: Schedule | None = Field(None, description="When the job runs, and for which logical dates.")
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
