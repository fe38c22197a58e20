"""The whole job file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batchonnx.job.spec.audio import State
from batchonnx.job.spec.engine import Engine
from batchonnx.job.spec.features import Feature
from batchonnx.job.spec.limits import Check, Errors
from batchonnx.job.spec.outputs import Output
from batchonnx.job.spec.result import Result
from batchonnx.job.spec.schedule import Schedule
from batchonnx.job.spec.section import PASSWORD, Requirement, Section, rule
from batchonnx.job.spec.session import Session
from batchonnx.job.spec.source import REGISTRY, ChainedModel, Input, Model
from batchonnx.job.spec.storage import Storage
from batchonnx.job.spec.telling import Metrics, Notify

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Dependencies(Section):
    """What hooks need beyond what is installed; `submit` has Ray install it for this job alone."""

    pip: list[Requirement] = Field(
        [], description="Requirements as pip reads them: pillow==11.3, mypackage[extra]>=2."
    )

    @field_validator("pip", mode="after")
    @classmethod
    def _without_passwords(cls, pip: list[str]) -> list[str]:
        if found := [entry for entry in pip if PASSWORD.search(entry)]:
            raise rule(
                "a job file holds no secrets: it is copied into records",
                found=f"a password in the URL of {found[0].partition('@')[0].strip()}",
                fix="name the package alone; the cluster's pip.conf or PIP_INDEX_URL says where it is",
            )
        return pip


class Job(Section):
    """A job: model, input, features, outputs and where the predictions go."""

    name: str = Field("job", description="Shown in progress and records.")
    models: dict[str, ChainedModel] = Field(
        {}, description="Name -> model, in place of model: several, run in this order on each row."
    )
    model: Model | None = Field(None, validate_default=True, description="The ONNX model.")
    input: Input = Field(description="The rows to score.")
    features: dict[str, Feature] | None = Field(
        None, description="Model input -> how columns become it. Left out: matched by name, type and shape."
    )
    scan: dict[str, State] = Field(
        {},
        description="Model input that carries state from window to window -> the output that it comes from.",
    )
    outputs: dict[str, Output] | None = Field(
        None,
        description="Column of predictions -> how it is made. Left out: every model output, by its name.",
    )
    keep: list[str] = Field([], description="Input columns to carry along, beside the predictions.")
    output: Result = Field(description="Where the predictions go.")
    engine: Engine = Field(Engine(), description="Where and how the work is done.")
    session: Session = Field(Session(), description="What ONNX Runtime's sessions are given.")
    errors: Errors = Field(Errors(), description="What may go wrong before the job does.")
    storage: Storage = Field(Storage(), description="Where object stores are and who asks.")
    schedule: Schedule | None = Field(None, description="When the job runs, and for which logical dates.")
    gate: dict[str, Check] = Field(
        {},
        description="Column of the result -> what it has to be like; else the result is kept back, until "
        "`batchonnx publish --force`.",
    )
    metrics: Metrics = Field(Metrics(), description="Where figures of a run go, for Prometheus.")
    notify: Notify = Field(Notify(), description="Who is told how a run has ended.")
    dependencies: Dependencies = Field(Dependencies(), description="What a submitted job has installed.")

    @property
    def named_models(self) -> dict[str, Model]:
        """Key in the job file -> the model there: `model`, or `models.NAME` for each of a chain."""
        if self.model is not None:
            return {"model": self.model}
        return {f"models.{name}": model for name, model in self.models.items()}

    @field_validator("models", mode="after")
    @classmethod
    def _plainly_named(cls, models: dict[str, ChainedModel]) -> dict[str, ChainedModel]:
        if odd := [name for name in models if not _NAME.fullmatch(name)]:
            raise rule(
                "a model's name stands before the dot in MODEL.OUTPUT",
                expected="letters, digits, _ and -",
                found=", ".join(odd),
                fix="give it a plain name",
            )
        return models

    @field_validator("model", mode="after")
    @classmethod
    def _one_or_several(cls, model: Model | None, info: ValidationInfo) -> Model | None:
        if model is None and info.data.get("models") == {}:
            raise PydanticCustomError("missing", "Field required")
        if model is not None and info.data.get("models"):
            raise rule(
                "goes without models",
                expected="model for one, or models for several",
                found="both",
                fix="move it into models, under a name",
            )
        return model

    @field_validator("keep", mode="after")
    @classmethod
    def _each_once(cls, keep: list[str]) -> list[str]:
        twice = sorted({name for name in keep if keep.count(name) > 1})
        if twice:
            fix = "name each column once"
            raise rule("a column is kept twice", expected="each column once", found=", ".join(twice), fix=fix)
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

    def having(self, **sections: object) -> JobFile:
        """The same job with other sections; they aren't validated again."""
        return self.model_copy(update={"job": self.job.model_copy(update=sections)})

    def resolve(self, path: str) -> str:
        """A path of the job as an absolute path or URL."""
        if "://" in path or path.startswith(REGISTRY):
            return path
        # Unlike Path.expanduser, which raises, this leaves "~nobody" as it is: a missing file like any other.
        return str((self.folder / os.path.expanduser(path)).absolute())  # noqa: PTH111
