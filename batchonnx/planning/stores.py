"""The stores that a job means by its URLs."""

from __future__ import annotations

from pathlib import Path

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.spec import JobFile
from batchonnx.storage.settings import StorageSettings, use_settings


def use_stores(job: JobFile) -> None:
    """Have all following requests of this process go to the stores of the job's `storage:`.

    To be called before anything is done for a job. Raises JobFileError for a ca_file that isn't there.
    """
    storage = job.job.storage
    ca_file = job.resolve(storage.ca_file) if storage.ca_file is not None else None
    if ca_file is not None and not Path(ca_file).is_file():
        facts = {"job": job.where("storage.ca_file"), "path": ca_file}
        fix = "name a file of certificates in PEM form"
        raise JobFileError(Problem("the file of trusted certificates isn't there", facts, fix))
    use_settings(
        StorageSettings(
            storage.endpoint,
            storage.region,
            storage.profile,
            storage.role_arn,
            storage.path_style,
            ca_file,
        )
    )
