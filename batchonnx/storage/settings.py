"""Where object stores are and who asks: what a job's `storage:` says, else the environment.

One set for a process: a process works for one job at a time. Nothing here is secret; credentials come
from the standard chains alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StorageSettings:
    """Left out (None): the environment and the files of the AWS tools decide.

    endpoint: URL of the S3 service. region: its name. profile: of ~/.aws/config, for roles as well.
    role_arn: a role to assume with the credentials that were found.
    path_style: the bucket in the path, not in the host's name. ca_file: certificates to trust, in PEM form.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    path_style: bool | None = None
    ca_file: str | None = None


_current = StorageSettings()


def use_settings(settings: StorageSettings) -> None:
    """Have all following requests of this process go by these settings."""
    global _current
    _current = settings


def current_settings() -> StorageSettings:
    """The settings in force."""
    return _current
