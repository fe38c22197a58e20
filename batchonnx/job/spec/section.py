"""What every section of the job file shares: strictness, rules between keys, kinds of text."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Scalar = bool | int | float | str
Place = Annotated[str, Field(min_length=1)]

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


class Section(BaseModel):
    """Strict and frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


def rule(title: str, *, found: str, fix: str, expected: str = "", key: str = "") -> PydanticCustomError:
    """A broken rule between the keys of a section, as fields; key: the one to point at."""
    context = {"expected": expected, "found": found, "fix": fix, "key": key}
    return PydanticCustomError("job_rule", title, context)
