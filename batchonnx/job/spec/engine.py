"""The section `engine`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from batchonnx.job.spec.section import Place, Section, rule

LARGEST_BATCH = 2**31 - 1
"""Arrow and ONNX Runtime count rows of a batch with 32 bits in places."""

RAY_ONLY = ("address", "resources", "wait_s", "shared_output")


_DEVICES = "cpu, cuda, tensorrt, openvino, auto, plugin:LIBRARY"

DeviceName = (
    Literal["cpu", "cuda", "tensorrt", "openvino", "auto"]
    | Annotated[
        str,
        Field(
            pattern=r"^((cuda|tensorrt):\d{1,3}|plugin:.+)$",
            description="cuda:N, tensorrt:N or plugin:LIBRARY",
        ),
    ]
)


class Span(Section):
    """How many workers there may be: it grows and shrinks with the cluster."""

    min: Annotated[int, Field(ge=1)] = Field(1, description="Scoring doesn't begin with fewer.")
    max: Annotated[int, Field(ge=1)] = Field(description="No more are started.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            found = f"min: {self.min}, max: {self.max}"
            fix = "make max the larger one"
            raise rule("min above max", expected="min <= max", found=found, fix=fix, key="max")
        return self


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
    device: DeviceName = Field(
        "cpu",
        description="What the sessions run on: cpu; cuda, tensorrt (:N, one of several); openvino; "
        "plugin:LIBRARY, a provider that comes by itself; auto: cuda where it can be used, else cpu.",
    )
    provider_options: dict[str, bool | int | float | str] = Field(
        {}, description="Options of the device's execution provider, by ONNX Runtime's names."
    )
    fallback: Literal["warn", "allow", "forbid"] = Field(
        "warn",
        description="Heavy operators that the device leaves to the CPU: warn names them in a note, "
        "forbid makes them an error, allow says nothing.",
    )
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
    hook_processes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Python hooks run in so many processes beside the workers of a machine; 0: in the "
        "workers themselves.",
    )
    batch_rows: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="Rows in one call of the model; auto measures a few sizes first."
    )

    @field_validator("device", mode="before")
    @classmethod
    def _by_its_name(cls, device: object) -> object:
        if device == "gpu":
            raise rule("a device without a name", found="gpu", fix="say cuda, or auto", expected=_DEVICES)
        return device

    @field_validator("batch_rows", mode="after")
    @classmethod
    def _countable(cls, rows: int | str) -> int | str:
        if isinstance(rows, int) and rows > LARGEST_BATCH:
            fix = "leave it out: a batch that is larger than the input is no faster"
            raise rule("a batch too large", expected=f"at most {LARGEST_BATCH:,}", found=f"{rows:,}", fix=fix)
        return rows

    @model_validator(mode="after")
    def _of_a_device(self) -> Self:
        kind, _, number = self.device.partition(":")
        if self.provider_options and kind in ("cpu", "auto"):
            raise rule(
                "options of no provider",
                expected="a device that has some: cuda, tensorrt, openvino, plugin:LIBRARY",
                found=f"provider_options with device: {kind}",
                fix="name the device, or leave provider_options out",
                key="provider_options",
            )
        if self.name == "ray" and kind in ("cuda", "tensorrt"):
            if number:
                fix = f"say device: {kind}: Ray gives each worker its GPU"
                raise rule("a GPU's number, with Ray", found=self.device, fix=fix, key="device")
            if not self.resources.num_gpus:
                fix = "add resources: {num_gpus: 1}, or a share of one"
                found = f"device: {kind}, resources.num_gpus: 0"
                raise rule("a GPU that Ray isn't asked for", found=found, fix=fix, key="device")
        return self

    @model_validator(mode="after")
    def _of_ray(self) -> Self:
        if self.name != "ray":
            asked = [key for key in RAY_ONLY if getattr(self, key) != type(self).model_fields[key].default]
            asked += ["workers"] if isinstance(self.workers, Span) else []
            if asked:
                raise rule(
                    "a setting of Ray's, without Ray",
                    expected="engine.name: ray",
                    found=f"{asked[0]} with name: {self.name}",
                    fix=f"add name: ray, or leave {asked[0]} out",
                    key=asked[0],
                )
        return self
