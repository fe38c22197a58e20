"""What an S3 service, or the way to it, says of a request that failed, told with what to do."""

from __future__ import annotations

from collections.abc import Mapping

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from batchonnx.errors import BatchonnxError, Problem, StorageError

_KEYS = "check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or storage.profile"
_ADVICE: Mapping[str, tuple[str, str]] = {
    "NoSuchBucket": ("the bucket isn't there", "correct the bucket's name, or make it"),
    "NoSuchKey": ("the object isn't there", "correct the path; run again if the input was being replaced"),
    "NoSuchUpload": (
        "an upload that was held open is gone",
        "run the job again: it scores what was lost. Have no rule of the bucket end uploads so soon",
    ),
    "404": ("the object isn't there", "correct the path; run again if the input was being replaced"),
    "InvalidAccessKeyId": ("the access key isn't known to the store", _KEYS),
    "SignatureDoesNotMatch": ("the secret key is wrong", _KEYS),
    "AccessDenied": ("the store denies access", "ask for the right to do this, or use other credentials"),
    "403": ("the store denies access", "check the credentials in use and what they may do"),
    "ExpiredToken": ("the credentials have expired", "renew them; the same command then goes on"),
    "ExpiredTokenException": ("the credentials have expired", "renew them; the same command then goes on"),
    "RequestExpired": ("the credentials have expired", "renew them; the same command then goes on"),
    "InvalidToken": ("the session token isn't valid", "renew the credentials; the same command then goes on"),
    "RequestTimeTooSkewed": ("this machine's clock is off", "set the clock, by NTP for instance"),
    "PermanentRedirect": ("the bucket is in another region", "set storage.region to the bucket's"),
    "AuthorizationHeaderMalformed": ("the region is wrong", "set storage.region to the bucket's"),
    "IllegalLocationConstraintException": ("the region is wrong", "set storage.region to the bucket's"),
    "301": ("the bucket is in another region", "set storage.region to the bucket's"),
    "SlowDown": ("the store is overloaded", "run the same command again later: it goes on where it stopped"),
    "503": ("the store is overloaded", "run the same command again later: it goes on where it stopped"),
    "400": (
        "that isn't how the store is spoken to",
        "correct storage.endpoint or AWS_ENDPOINT_URL: http or https, host and port",
    ),
    "InvalidBucketName": ("that can't be a bucket's name", "correct the bucket's name"),
}
_RIGHTS: Mapping[str, str] = {
    "GetObject": "s3:GetObject on the object (where there is none, s3:ListBucket on the bucket)",
    "HeadObject": "s3:GetObject on the object (where there is none, s3:ListBucket on the bucket)",
    "ListObjectsV2": "s3:ListBucket on the bucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads on the bucket",
    "PutObject": "s3:PutObject on the object",
    "CreateMultipartUpload": "s3:PutObject on the object",
    "UploadPart": "s3:PutObject on the object",
    "CompleteMultipartUpload": "s3:PutObject on the object",
    "AbortMultipartUpload": "s3:AbortMultipartUpload on the object",
    "DeleteObject": "s3:DeleteObject on the object",
    "DeleteObjects": "s3:DeleteObject on the object",
}
"""Operation -> what its user has to be allowed."""

_DENIED = frozenset({"AccessDenied", "403"})
_CHECK = "look at the request by its id in the store's log; the same command goes on where this one stopped"


def code_of(error: ClientError) -> str:
    """The store's word for what was wrong, as `NoSuchKey`; the status where it gave none."""
    found = str(error.response.get("Error", {}).get("Code", ""))
    return found or str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def store_error(
    error: ClientError | BotoCoreError, url: str, endpoint: str, kind: type[BatchonnxError]
) -> BatchonnxError:
    """An error for the user. url: what was asked for.

    It is of the class `kind`; a StorageError where that would blame the job, or the model, for the store.
    """
    facts = {"path": url, "endpoint": endpoint}
    kind = kind if kind.exit_code == StorageError.exit_code else StorageError
    if isinstance(error, ClientError):
        return kind(_refused(error, facts))
    title, fix = _unreachable(error)
    return kind(Problem(title, {**facts, "found": _first_line(error)}, fix))


def _refused(error: ClientError, facts: dict[str, str]) -> Problem:
    code = code_of(error)
    meta = error.response.get("ResponseMetadata", {})
    message = str(error.response.get("Error", {}).get("Message", "")).splitlines()
    status = str(meta.get("HTTPStatusCode", ""))
    title, fix = _ADVICE.get(code) or (f"the store refuses a request: {code}", _CHECK)
    operation = str(error.operation_name)
    if operation.startswith("AssumeRole"):
        title, fix = "the role can't be assumed", "correct the role; its trust policy has to let this user in"
    if code in _DENIED and operation in _RIGHTS:
        facts["expected"] = _RIGHTS[operation]
    facts["found"] = " ".join(
        dict.fromkeys(word for word in (status, code, message[0] if message else "") if word)
    )
    facts["operation"] = operation
    if request := meta.get("RequestId"):
        facts["request id"] = str(request)
    return Problem(title, facts, fix)


def _unreachable(error: BotoCoreError) -> tuple[str, str]:
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "there are no credentials for the store", (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or storage.profile"
        )
    if isinstance(error, boto.ProfileNotFound):
        return "there is no such profile", "correct storage.profile or AWS_PROFILE"
    if isinstance(error, boto.CredentialRetrievalError | boto.SSOError | boto.TokenRetrievalError):
        return "the credentials can't be renewed", "sign in again; the same command then goes on"
    if isinstance(error, boto.SSLError):
        return "the store's certificate isn't trusted, or it speaks no TLS", (
            "set storage.ca_file or AWS_CA_BUNDLE to the CA's certificate, or correct the http or https of "
            "storage.endpoint or AWS_ENDPOINT_URL"
        )
    if isinstance(error, boto.ConnectionClosedError | boto.HTTPClientError | boto.EndpointConnectionError):
        return "the store can't be reached", (
            "check storage.endpoint or AWS_ENDPOINT_URL (http or https, host and port) and the network; "
            "then run the same again"
        )
    return "the store can't be asked", "correct storage: in the job, or the environment"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
