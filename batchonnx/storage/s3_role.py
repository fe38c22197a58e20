"""A role that is assumed with credentials found elsewhere, and assumed again before it expires."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from batchonnx.storage.settings import StorageSettings

SESSION_NAME = "batchonnx"
"""By which the service's log tells who came in the role."""


def assume_role(session: Any, settings: StorageSettings) -> Any:
    """A session of boto3 in the role of the settings. Nothing is asked before its credentials are wanted.

    STS is asked at AWS_ENDPOINT_URL_STS or AWS_ENDPOINT_URL, else where the store is, if that isn't AWS.
    """
    import boto3
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import NoCredentialsError
    from botocore.session import get_session

    source = session.get_credentials()
    if source is None:
        raise NoCredentialsError

    def client(service: str, **keys: Any) -> Any:
        return session.client(
            service,
            endpoint_url=_sts_endpoint(settings),
            verify=settings.ca_file,
            region_name=settings.region or session.region_name or "us-east-1",
            **keys,
        )

    named = {"RoleSessionName": SESSION_NAME}
    fetcher = AssumeRoleCredentialFetcher(client, source, settings.role_arn, extra_args=named)
    inner = get_session()
    inner._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    return boto3.Session(botocore_session=inner, region_name=settings.region or session.region_name)


def is_aws(endpoint: str) -> bool:
    """Whether it is AWS's own."""
    return (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _sts_endpoint(settings: StorageSettings) -> str | None:
    """None: as the environment says, else AWS."""
    if settings.endpoint is None or is_aws(settings.endpoint) or "AWS_ENDPOINT_URL_STS" in os.environ:
        return None
    return settings.endpoint
