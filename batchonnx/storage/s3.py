"""An S3 service: read ranges fast, and make an object exist exactly once.

One client of botocore for everything: its credentials renew themselves, its adaptive mode slows all
threads down together where the store asks for it and spreads retries at random. What it can't know is
made here: whether a write whose answer was lost has happened, and how a read that broke off goes on.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from weakref import WeakSet

from batchonnx.errors import BatchonnxError, InputError, Problem, StorageError
from batchonnx.storage.s3_codes import GONE, RACED, REFUSED, UNKNOWN
from batchonnx.storage.s3_role import assume_role, is_aws
from batchonnx.storage.settings import StorageSettings, current_settings

TRIES = 9
"""Of one request, within botocore: with its waits of up to 20 s each, about a minute and a half."""

FIRST_TRIES = 3
"""Of a store that has never answered: it is more likely the wrong one than out of order."""

CONNECT_S, ANSWER_S = 5, 20
RACE_TRIES, BODY_TRIES = 8, 5
"""Of a request whose outcome nobody knows, and of one whose answer broke off in its body."""
BODY_BYTES = 1 << 18
CONNECTIONS = 64
ATTEMPT = "batchonnx-attempt"
"""The key of the metadata by which an object is known for one attempt's."""


@dataclass(frozen=True)
class S3Object:
    """An object as a listing or a HEAD tells of it."""

    key: str
    size: int
    etag: str
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True)
class S3Access:
    """What another client needs to be let in as this one is. Short-lived: never kept, never shown.

    endpoint: None where it is AWS's own.
    """

    endpoint: str | None
    region: str
    key: str | None
    secret: str | None = field(repr=False)
    token: str | None = field(repr=False)


_made: WeakSet[S3] = WeakSet()

before_requests: list[Callable[..., Any]] = []
"""Called with `request=` before each is sent, by clients that are made from now on; what one gives is taken
for the store's answer, what it raises for the network's. Empty, but where failures are tried."""


def requests_sent() -> Counter[str]:
    """Operation -> requests that this process has sent so far, retries included."""
    return sum((client.requests for client in list(_made)), Counter())


def retries_made() -> int:
    """How many of this process's requests were sent again, since the store had failed or refused them."""
    return sum(client.retries for client in list(_made))


class Changed(Exception):
    """The object isn't the one of that etag any more."""


class S3:
    """One service as one identity. Safe to share between threads.

    requests: operation -> requests sent so far, retries included. retries: how many were sent again.
    Every method raises StorageError, or the class given as `kind`, with the request's id.
    """

    def __init__(self, settings: StorageSettings) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        self.requests: Counter[str] = Counter()
        self.retries = 0
        self._lock = threading.Lock()
        addressing = {True: "path", False: "virtual", None: "auto"}[settings.path_style]
        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=ANSWER_S,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "adaptive", "total_max_attempts": TRIES},
            s3={"addressing_style": addressing},
            tcp_keepalive=True,
        )
        try:
            session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
            if settings.role_arn is not None:
                session = assume_role(session, settings)
            self._client: Any = session.client(
                "s3",
                endpoint_url=settings.endpoint,
                verify=settings.ca_file,
                config=config,
                region_name=settings.region or session.region_name or "us-east-1",
            )
        except (BotoCoreError, ValueError) as error:
            facts = {"found": str(error)}
            fix = "correct storage: in the job, or the AWS_… variables"
            raise StorageError(Problem("the S3 service can't be set up", facts, fix)) from error
        self.endpoint: str = self._client.meta.endpoint_url
        self._has_answered = False
        self._session = session
        self._client.meta.events.register("before-send.s3", self._count)
        for answer in before_requests:
            self._client.meta.events.register("before-send.s3", answer)
        self._client.meta.events.register("needs-retry.s3", self._require_answer)
        _made.add(self)

    def access(self) -> S3Access:
        """Endpoint and credentials as they are now, for a client that isn't ours.

        Such clients know of certificates by OpenSSL's variable alone, which is set where it isn't.
        Raises StorageError if the credentials can't be renewed.
        """
        from botocore.exceptions import BotoCoreError

        from batchonnx.storage.s3_errors import store_error

        try:
            found = self._session.get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except BotoCoreError as error:
            raise store_error(error, "s3://", self.endpoint, StorageError) from error
        if (trusted := current_settings().ca_file or os.environ.get("AWS_CA_BUNDLE")) is not None:
            os.environ.setdefault("SSL_CERT_FILE", trusted)
        key, secret, token = (frozen.access_key, frozen.secret_key, frozen.token) if frozen else (None,) * 3
        return S3Access(
            None if is_aws(self.endpoint) else self.endpoint,
            self._client.meta.region_name,
            key,
            secret,
            token,
        )

    def list(self, bucket: str, prefix: str, kind: type[BatchonnxError] = StorageError) -> Iterator[S3Object]:
        """Objects whose key begins with `prefix`, by key."""
        token: dict[str, str] = {}
        while True:
            page = self._ask(
                "list_objects_v2", f"s3://{bucket}/{prefix}", kind, Bucket=bucket, Prefix=prefix, **token
            )
            for entry in page.get("Contents", ()):
                yield S3Object(entry["Key"], entry["Size"], entry["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def head(self, bucket: str, key: str, kind: type[BatchonnxError] = StorageError) -> S3Object | None:
        """An object without its bytes; None if there is none."""
        found = self._find("head_object", bucket, key, kind)
        if found is None:
            return None
        return S3Object(key, found["ContentLength"], found["ETag"].strip('"'), found.get("Metadata"))

    def get(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """A small object's bytes and etag; None if there is none."""
        for tries_left in reversed(range(RACE_TRIES)):
            found = self._find("get_object", bucket, key, StorageError)
            if found is None:
                return None
            try:
                return found["Body"].read(), found["ETag"].strip('"')
            except Exception as error:
                self._require_broken(error, tries_left, f"s3://{bucket}/{key}", StorageError)
        raise AssertionError

    def begin(
        self, bucket: str, key: str, most: int, kind: type[BatchonnxError] = InputError
    ) -> tuple[bytes, S3Object] | None:
        """The first bytes of an object, `most` of them at most, and what it is; None if there is none."""
        url = f"s3://{bucket}/{key}"
        for tries_left in reversed(range(RACE_TRIES)):
            try:
                answer = self._call("get_object", Bucket=bucket, Key=key, Range=f"bytes=0-{most - 1}")
            except Exception as error:
                code = self._code(error)
                if code in GONE:
                    return None
                if code != "InvalidRange":
                    raise self._told(error, url, kind) from error
                found = self.head(bucket, key, kind)  # there is no first byte
                return None if found is None else (b"", found)
            try:
                data: bytes = answer["Body"].read()
                size = int(answer.get("ContentRange", f"/{len(data)}").rpartition("/")[2])
                return data, S3Object(key, size, answer["ETag"].strip('"'), answer.get("Metadata"))
            except Exception as error:
                self._require_broken(error, tries_left, url, kind)
        raise AssertionError

    def read_into(
        self,
        bucket: str,
        key: str,
        start: int,
        out: memoryview,
        etag: str | None = None,
        kind: type[BatchonnxError] = InputError,
    ) -> None:
        """Fill `out` with an object's bytes from `start` on; what broke off is gone on with where it did.

        Raises Changed if the object isn't that of the etag; `kind` if it is gone.
        """
        url = f"s3://{bucket}/{key}"
        done, tries_left = 0, RACE_TRIES
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        while done < len(out):
            where = f"bytes={start + done}-{start + len(out) - 1}"
            answer = self._ask("get_object", url, kind, Bucket=bucket, Key=key, Range=where, **condition)
            if etag and answer["ETag"].strip('"') != etag:  # a store that ignores the condition
                raise Changed(url)
            if "ContentRange" not in answer:
                facts = {"path": url, "endpoint": self.endpoint}
                raise kind(Problem("the store ignores ranges", facts, "use a store that answers them"))
            body = answer["Body"]
            try:
                while block := body.read(min(BODY_BYTES, len(out) - done)):
                    out[done : done + len(block)] = block
                    done += len(block)
                if done < len(out):
                    raise EOFError(f"{done:,} of {len(out):,} bytes")
            except Exception as error:
                tries_left -= 1
                self._require_broken(error, tries_left, url, kind)
            finally:
                body.close()

    def create(self, bucket: str, key: str, data: bytes) -> str | None:
        """Make an object unless there is one: its etag. Of several attempts at once, one is told it.

        The data has to differ between attempts: after a lost answer, that tells whose object it is.
        """
        return self._put(bucket, key, data, {"IfNoneMatch": "*"})

    def swap(self, bucket: str, key: str, data: bytes, etag: str) -> str | None:
        """Replace the object of that etag: the new one's, or None if another one is there, or none.

        The data has to differ between attempts, as for `create`.
        """
        return self._put(bucket, key, data, {"IfMatch": f'"{etag}"'})

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Write an object, in place of any former one: its etag."""
        answer = self._ask(
            "put_object", f"s3://{bucket}/{key}", StorageError, Bucket=bucket, Key=key, Body=data
        )
        return str(answer["ETag"]).strip('"')

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Remove objects; those that aren't there are no error."""
        for first in range(0, len(keys), 1000):
            wanted = [{"Key": key} for key in keys[first : first + 1000]]
            url = f"s3://{bucket}/{keys[first]}"
            gone = {"Objects": wanted, "Quiet": True}
            answer = self._ask("delete_objects", url, StorageError, Bucket=bucket, Delete=gone)
            for error in answer.get("Errors", ()):
                facts = {
                    "path": f"s3://{bucket}/{error.get('Key')}",
                    "endpoint": self.endpoint,
                    "expected": "s3:DeleteObject on the object",
                    "found": f"{error.get('Code')} {error.get('Message', '')}".strip(),
                    "operation": "DeleteObjects",
                }
                fix = "ask for the right to do this, or use other credentials"
                raise StorageError(Problem("an object can't be removed", facts, fix))

    def delete_if(self, bucket: str, key: str, etag: str) -> None:
        """Remove the object of that etag; another one stays, unless the store can't tell them apart here."""
        try:
            self._call("delete_object", Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
        except Exception as error:
            code = self._code(error)
            if code in UNKNOWN:
                self.delete(bucket, [key])
            elif code not in {*GONE, *REFUSED}:
                raise self._told(error, f"s3://{bucket}/{key}", StorageError) from error

    def begin_upload(self, bucket: str, key: str, attempt: str) -> str:
        """Open an upload: nobody sees the object before it is completed. Its id."""
        url, named = f"s3://{bucket}/{key}", {ATTEMPT: attempt}
        answer = self._ask(
            "create_multipart_upload", url, StorageError, Bucket=bucket, Key=key, Metadata=named
        )
        return str(answer["UploadId"])

    def upload(self, bucket: str, key: str, upload: str, number: int, data: bytes | memoryview) -> str:
        """Send a piece of an upload, from 1: its etag. All but the last have at least 5 MiB."""
        answer = self._ask(
            "upload_part",
            f"s3://{bucket}/{key}",
            StorageError,
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=bytes(data),
        )
        return str(answer["ETag"])

    def complete_upload(
        self, bucket: str, key: str, upload: str, etags: Sequence[str], size: int, attempt: str
    ) -> None:
        """Make an upload's object exist; one that does already, by this very attempt, is left as it is."""
        pieces = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            self._call(
                "complete_multipart_upload",
                Bucket=bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": pieces},
            )
        except Exception as error:
            # An answer that was lost, or a run that died after it had asked: the object tells.
            if self._code(error) not in GONE or not self.is_of(bucket, key, size, attempt):
                raise self._told(error, f"s3://{bucket}/{key}", StorageError) from error

    def is_of(self, bucket: str, key: str, size: int, attempt: str) -> bool:
        """Whether an object is that of an attempt's completed upload."""
        found = self.head(bucket, key)
        return found is not None and found.size == size and (found.metadata or {}).get(ATTEMPT) == attempt

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        """Give an upload up, with what was sent; one that isn't open is no error."""
        try:
            self._call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
        except Exception as error:
            if self._code(error) not in GONE:
                raise self._told(error, f"s3://{bucket}/{key}", StorageError) from error

    def uploads(self, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and id of the uploads that are open below `prefix`."""
        markers: dict[str, str] = {}
        while True:
            page = self._ask(
                "list_multipart_uploads",
                f"s3://{bucket}/{prefix}",
                StorageError,
                Bucket=bucket,
                Prefix=prefix,
                **markers,
            )
            for entry in page.get("Uploads", ()):
                if entry["Key"].startswith(prefix):
                    yield entry["Key"], entry["UploadId"]
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _put(self, bucket: str, key: str, data: bytes, condition: Mapping[str, str]) -> str | None:
        """Write under a condition: the new object's etag, or None if the condition doesn't hold.

        After a refusal, which may be of a retry whose first try has won, or an answer that was lost, the
        object itself tells whether it is ours.
        """
        for tries_left in reversed(range(RACE_TRIES)):
            try:
                answer = self._call("put_object", Bucket=bucket, Key=key, Body=data, **condition)
                return str(answer["ETag"]).strip('"')
            except Exception as error:
                code = self._code(error)
                found = self.get(bucket, key)
                if found is not None and found[0] == data:
                    return found[1]
                if code in REFUSED or (code in GONE and "IfMatch" in condition):
                    return None
                if code not in RACED or not tries_left:
                    raise self._told(error, f"s3://{bucket}/{key}", StorageError) from error
            _wait(RACE_TRIES - tries_left)
        raise AssertionError

    def _find(self, operation: str, bucket: str, key: str, kind: type[BatchonnxError]) -> Any:
        try:
            return self._call(operation, Bucket=bucket, Key=key)
        except Exception as error:
            if self._code(error) in GONE:
                return None
            raise self._told(error, f"s3://{bucket}/{key}", kind) from error

    def _ask(self, operation: str, url: str, kind: type[BatchonnxError], **arguments: Any) -> Any:
        try:
            return self._call(operation, **arguments)
        except Exception as error:
            if "IfMatch" in arguments and self._code(error) in REFUSED:
                raise Changed(url) from error
            raise self._told(error, url, kind) from error

    def _call(self, operation: str, **arguments: Any) -> Any:
        """An answer with a whole body; as any other request, one whose body breaks off is made again."""
        from botocore.exceptions import BotoCoreError, ConnectionClosedError
        from urllib3.exceptions import HTTPError

        method: Callable[..., Any] = getattr(self._client, operation)
        for tries_left in reversed(range(BODY_TRIES)):
            try:
                return method(**arguments)
            except BotoCoreError:  # some are OSErrors or urllib3's as well: those it has tried again
                raise
            except (HTTPError, OSError) as error:
                if not tries_left:
                    raise ConnectionClosedError(endpoint_url=self.endpoint, error=error) from error
            _wait(BODY_TRIES - tries_left)
        raise AssertionError

    def _require_broken(
        self, error: Exception, tries_left: int, url: str, kind: type[BatchonnxError]
    ) -> None:
        """Wait before a read that broke off is gone on with; any other error is raised."""
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        if not isinstance(error, BotoCoreError | HTTPError | OSError | EOFError):
            raise error
        if tries_left <= 0:
            facts = {"path": url, "endpoint": self.endpoint, "found": str(error).splitlines()[0][:300]}
            fix = "check the network; the same command goes on where this one stopped"
            raise kind(Problem("reading from the store broke off again and again", facts, fix)) from error
        _wait(RACE_TRIES - tries_left)

    def _code(self, error: Exception) -> str:
        """The store's word for an error; empty for one of the way to it. Bugs are raised."""
        from botocore.exceptions import BotoCoreError, ClientError

        from batchonnx.storage.s3_errors import code_of

        if isinstance(error, ClientError):
            return code_of(error)
        if isinstance(error, BotoCoreError):
            return ""
        raise error

    def _told(self, error: Exception, url: str, kind: type[BatchonnxError]) -> BatchonnxError:
        from botocore.exceptions import BotoCoreError, ClientError

        from batchonnx.storage.s3_errors import store_error

        if not isinstance(error, ClientError | BotoCoreError):
            raise error
        return store_error(error, url, self.endpoint, kind)

    def _require_answer(
        self, response: Any = None, attempts: int = 0, caught_exception: Exception | None = None, **_: Any
    ) -> None:
        """Called after each try: raising ends them."""
        from botocore.exceptions import SSLError

        self._has_answered = self._has_answered or response is not None
        is_enough = attempts >= FIRST_TRIES or isinstance(caught_exception, SSLError)
        if caught_exception is not None and is_enough and not self._has_answered:
            raise caught_exception

    def _count(self, event_name: str = "", request: Any = None, **_: Any) -> None:
        told = request.headers.get("amz-sdk-request", "") if request is not None else ""
        attempt = told.decode() if isinstance(told, bytes) else str(told)
        with self._lock:
            self.requests[event_name.rpartition(".")[2]] += 1
            self.retries += "attempt=" in attempt and "attempt=1" not in attempt


def s3_client() -> S3:
    """The service that the settings in force name; one client for each set of settings.

    What the environment says is part of them: a process may be told of another store.
    """
    named = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client(current_settings(), named)


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key; the key is taken as it is, nothing in it is unescaped."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


@lru_cache(maxsize=8)
def _client(settings: StorageSettings, environment: tuple[tuple[str, str], ...]) -> S3:
    return S3(settings)


def _wait(tried: int) -> None:
    """Full jitter: any time up to a bound that doubles, so that many who failed together don't return so."""
    time.sleep(random.uniform(0, min(5.0, 0.05 * 2**tried)))
