"""What a model takes and gives, as plain values: no ONNX Runtime in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Dim = int | str | None
"""A fixed size, a symbolic name, or unknown."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    dtype: numpy's name ("float32", "int64", "bool", ...), "string", or ONNX's own name for what
        numpy has not ("bfloat16", "float8e4m3fn", ...).
    shape: as declared or inferred, the batch axis included; None where not even the rank is known.
    kind: "maps" is a sequence of maps (one map for each row), as scikit-learn's ZipMap gives;
        dtype is then the value's type and key_dtype the key's ("int64" or "string").
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    kind: Literal["tensor", "maps", "other"] = "tensor"
    key_dtype: str | None = None

    def __str__(self) -> str:
        """`x float32[batch, 28]`, as shown to users; `[?, 3]`: unknown size, `[...]`: unknown rank."""
        if self.kind != "tensor":
            return f"{self.name} {self.kind}<{self.key_dtype or '?'}, {self.dtype}>"
        dims = "..." if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype}[{dims}]"


@dataclass(frozen=True)
class OpLibrary:
    """A library of custom operators. name: absolute path, or a package's. digest: SHA-256 of its file."""

    name: str
    digest: str


@dataclass(frozen=True)
class ModelSignature:
    """A model's face: enough to check a job against, and to tell one model from another.

    path: absolute path or URL.
    digest: SHA-256 of the file, and of its external data where it has any.
    bytes: of the file and its external data.
    members: the models of a chain, in the order in which they run; the rest is then what the chain as a
        whole takes and gives (see `runtime.chain`). Empty for a single model.
    libraries: of custom operators, that its session needs.
    """

    path: str
    digest: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    libraries: tuple[OpLibrary, ...] = ()

    @property
    def files(self) -> tuple[ModelSignature, ...]:
        """The single models that this is made of: itself, or a chain's members."""
        return tuple(member.model for member in self.members) or (self,)


@dataclass(frozen=True)
class Member:
    """A model of a chain.

    sources: its input -> where that comes from: an output of a member before, as `output_key` names it,
        or an input of the chain's own.
    """

    name: str
    model: ModelSignature
    sources: Mapping[str, str]


def output_key(member: str, output: str) -> str:
    """What a chain calls a member's output."""
    return f"{member}.{output}"
