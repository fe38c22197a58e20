"""The section `storage`."""

from __future__ import annotations

from pydantic import Field

from batchonnx.job.spec.section import Endpoint, Place, Role, Section


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
