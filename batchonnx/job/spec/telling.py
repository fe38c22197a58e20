"""The sections `metrics` and `notify`: whom a run tells of itself."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from batchonnx.job.spec.section import PASSWORD, Place, Section, rule

Url = Annotated[
    str, Field(pattern=r"^https?://[^\s/?#]+[^\s]*$", description="a URL like https://hooks.example.com/x")
]
Variable = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="the name of an environment variable"),
]


class Metrics(Section):
    """Where figures of a run go, as Prometheus takes them."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Serve them here, for as long as the run lasts."
    )
    textfile: Place | None = Field(
        None, description="Write them here at the end: a file named *.prom, for node_exporter's collector."
    )
    pushgateway: Url | None = Field(None, description="Push them there at the end.")

    @field_validator("pushgateway", mode="after")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        return _public(url)

    @field_validator("textfile", mode="after")
    @classmethod
    def _collected(cls, path: str | None) -> str | None:
        if path is not None and not path.endswith(".prom"):
            fix = f"name it {path.rpartition('.')[0] or path}.prom"
            raise rule("node_exporter reads files of one ending only", expected="*.prom", found=path, fix=fix)
        return path


class Notice(Section):
    """Whom to tell, and how."""

    webhook: Url | None = Field(None, description="POST a JSON object there.")
    webhook_env: Variable | None = Field(
        None, description="The same, where the URL itself is a secret: a variable that holds it."
    )
    secret_env: Variable | None = Field(
        None, description="A variable with the key that the webhook is signed with, as Standard Webhooks say."
    )
    command: Annotated[list[Place], Field(min_length=1)] | None = Field(
        None, description="Run this, in the job's folder, with the same JSON object on standard input."
    )

    @field_validator("webhook", mode="after")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        return _public(url)

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.webhook is not None and self.webhook_env is not None:
            raise rule("a webhook has one URL", found="webhook and webhook_env", fix="keep one of them")
        if self.webhook is None and self.webhook_env is None:
            if self.secret_env is not None:
                fix = "add webhook, or leave secret_env out"
                raise rule("a key without a webhook to sign", found="secret_env", fix=fix, key="secret_env")
            if self.command is None:
                raise rule(
                    "nobody is told",
                    expected="webhook, webhook_env or command",
                    found="none of them",
                    fix="say whom to tell, or leave it out",
                )
        return self


class Notify(Section):
    """Who is told how a run has ended. What goes wrong with that is a warning, and changes no exit code."""

    on_success: Notice | None = Field(None, description="A result was published now.")
    on_failure: Notice | None = Field(None, description="The run has ended without one, for whatever reason.")
    on_quarantine: Notice | None = Field(
        None, description="A result was published now, and rows of it are in quarantine."
    )


def _public(url: str | None) -> str | None:
    if url is not None and PASSWORD.search(url):
        raise rule(
            "a job file holds no secrets: it is copied into records",
            found="a password in the URL",
            fix="leave it out; webhook_env names a variable that may hold all of a URL",
        )
    return url
