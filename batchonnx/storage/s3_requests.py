"""Requests to an S3 service: signed, counted, sent again where that helps, and told of when they fail.

One client of botocore for everything: its credentials renew themselves, its adaptive mode slows all
threads down together where the store asks for it and spreads retries at random.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batchonnx.errors import BatchonnxError, Problem, StorageError
from batchonnx.storage.s3_codes import GONE, REFUSED
from batchonnx.storage.s3_role import assume_role, is_aws
from batchonnx.storage.settings import StorageSettings, current_settings

TRIES = 9
"""Of one request, within botocore: with its waits of up to 20 s each, about a minute and a half."""

FIRST_TRIES = 3
"""Of a store that has never answered: it is more likely the wrong one than out of order."""

CONNECT_S, ANSWER_S = 5, 20
RACE_TRIES, BODY_TRIES = 8, 5
"""Of a request whose outcome nobody knows, and of one whose answer broke off in its body."""
CONNECTIONS = 64


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


_sent: Counter[str] = Counter()
_sent_again: Counter[str] = Counter()
_counting = threading.Lock()
"""Of the process, not of a client: what one has sent counts when it is gone as well."""

before_requests: list[Callable[..., Any]] = []
"""Called with `request=` before each is sent, by clients that are made from now on; what one gives is taken
for the store's answer, what it raises for the network's. Empty, but where failures are tried."""


def requests_sent() -> Counter[str]:
    """Operation -> requests that this process has sent so far, retries included."""
    with _counting:
        return _sent.copy()


def retries_made() -> int:
    """How many of this process's requests were sent again, since the store had failed or refused them."""
    with _counting:
        return _sent_again.total()


class Changed(Exception):
    """The object isn't the one of that etag any more."""


class Requests:
    """To one service, as one identity. Safe to share between threads.

    endpoint: the service's URL.
    """

    def __init__(self, settings: StorageSettings) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

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
        self._client.meta.events.register("before-send.s3", _count)
        for answer in before_requests:
            self._client.meta.events.register("before-send.s3", answer)
        self._client.meta.events.register("needs-retry.s3", self._require_answer)

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

    def find(self, operation: str, bucket: str, key: str, kind: type[BatchonnxError]) -> Any:
        """The answer to a request for an object; None if there is no such object."""
        try:
            return self.call(operation, Bucket=bucket, Key=key)
        except Exception as error:
            if self.code(error) in GONE:
                return None
            raise self.told(error, f"s3://{bucket}/{key}", kind) from error

    def ask(self, operation: str, url: str, kind: type[BatchonnxError], **arguments: Any) -> Any:
        """The answer to a request. url: what it is about.

        Raises `kind`, or Changed where the request is for an object of an etag and that is another's.
        """
        try:
            return self.call(operation, **arguments)
        except Exception as error:
            if "IfMatch" in arguments and self.code(error) in REFUSED:
                raise Changed(url) from error
            raise self.told(error, url, kind) from error

    def call(self, operation: str, **arguments: Any) -> Any:
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
            wait(BODY_TRIES - tries_left)
        raise AssertionError

    def require_broken(self, error: Exception, tries_left: int, url: str, kind: type[BatchonnxError]) -> None:
        """Wait before a read that broke off is gone on with; any other error is raised."""
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        if not isinstance(error, BotoCoreError | HTTPError | OSError | EOFError):
            raise error
        if tries_left <= 0:
            facts = {"path": url, "endpoint": self.endpoint, "found": str(error).splitlines()[0][:300]}
            fix = "check the network; the same command goes on where this one stopped"
            raise kind(Problem("reading from the store broke off again and again", facts, fix)) from error
        wait(RACE_TRIES - tries_left)

    def code(self, error: Exception) -> str:
        """The store's word for an error; empty for one of the way to it. Bugs are raised."""
        from botocore.exceptions import BotoCoreError, ClientError

        from batchonnx.storage.s3_errors import code_of

        if isinstance(error, ClientError):
            return code_of(error)
        if isinstance(error, BotoCoreError):
            return ""
        raise error

    def told(self, error: Exception, url: str, kind: type[BatchonnxError]) -> BatchonnxError:
        """An error of `call` as the user reads it. Bugs are raised."""
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


def _count(event_name: str = "", request: Any = None, **_: Any) -> None:
    told = request.headers.get("amz-sdk-request", "") if request is not None else ""
    attempt = told.decode() if isinstance(told, bytes) else str(told)
    operation = event_name.rpartition(".")[2]
    with _counting:
        _sent[operation] += 1
        _sent_again[operation] += "attempt=" in attempt and "attempt=1" not in attempt


def wait(tried: int) -> None:
    """Full jitter: any time up to a bound that doubles, so that many who failed together don't return so."""
    time.sleep(random.uniform(0, min(5.0, 0.05 * 2**tried)))
