"""Requests to a store that fail, in this process: refused, cut off, or done without an answer.

They fail where they are sent, behind the client's own retries and in front of the network, so that it is the
same for any store, by any address and with any certificate; a proxy would have to sign for AWS anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

from batchonnx.rehearsal.rehearse import Faults
from batchonnx.storage.s3_requests import before_requests

_REFUSED = b"<Error><Code>%s</Code><Message>a drill</Message></Error>"


def fail_requests(faults: Faults) -> None:
    """For the rest of this process."""
    draw, lock = Random(faults.seed), threading.Lock()

    def answer(request: Any, **_: object) -> Any:
        with lock:
            is_hit = draw.random() < faults.share
            way = draw.choice(_WAYS)
        return way(request) if is_hit else None

    before_requests.append(answer)


def _refuse(request: Any) -> Any:
    """500, as any store answers now and then."""
    return _answer(request, 500, b"InternalError")


def _slow_down(request: Any) -> Any:
    """503, as a store answers to too many requests."""
    return _answer(request, 503, b"SlowDown")


def _cut(request: Any) -> Any:
    """The connection is gone before the request was sent."""
    raise _closed(request)


def _lose_the_answer(request: Any) -> Any:
    """The store has done what was asked, and nobody hears of it."""
    from botocore.httpsession import URLLib3Session

    if request.method != "GET":
        URLLib3Session().send(request)
    raise _closed(request)


_WAYS: tuple[Callable[[Any], Any], ...] = (_refuse, _refuse, _slow_down, _cut, _cut, _lose_the_answer)


def _answer(request: Any, status: int, code: bytes) -> Any:
    from botocore.awsrequest import AWSResponse

    class Body:
        """As much of urllib3's response as botocore reads."""

        def stream(self, *_: object, **__: object) -> Any:
            yield _REFUSED % code

    return AWSResponse(request.url, status, {}, Body())


def _closed(request: Any) -> Exception:
    from botocore.exceptions import ConnectionClosedError

    error: Exception = ConnectionClosedError(endpoint_url=request.url)
    return error
