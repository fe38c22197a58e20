"""Arrow's own S3 file system, for readers that take one: set up as our client is."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from batchonnx.storage.settings import current_settings


def arrow_s3() -> pafs.S3FileSystem:
    """The service that the settings in force name, or the environment.

    Arrow obeys AWS_ENDPOINT_URL only in URLs and AWS_CA_BUNDLE never; credentials come from its own chain.
    """
    settings = current_settings()
    endpoint = (
        settings.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    )
    options: dict[str, object] = {}
    if endpoint:
        url = urlsplit(endpoint)
        options |= {"scheme": url.scheme, "endpoint_override": url.netloc}
        options["force_virtual_addressing"] = settings.path_style is False
    region = settings.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    if ca_file := settings.ca_file or os.environ.get("AWS_CA_BUNDLE"):
        options["tls_ca_file_path"] = ca_file
    return pafs.S3FileSystem(**options)
