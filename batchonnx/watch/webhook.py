"""One JSON object, POSTed until somebody has taken it; signed as Standard Webhooks say."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import urllib.request
from time import time
from typing import Any
from urllib.parse import urlsplit

TRIES = 5
CONNECT_S, ANSWER_S = 5.0, 10.0
"""Of each try."""

WAIT_S, MOST_WAIT_S, JITTER_S = 0.5, 20.0, 1.0
"""Between tries: twice as long each time, and something at random, so that many runs don't come together."""

AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""What a server says that may say something else next time."""


def post(url: str, body: bytes, message_id: str, key: str | None = None) -> None:
    """Send it; the same id each time, by which a receiver knows it again.

    key: what it is signed with. Raises OSError if nobody takes it, without the URL, which may be a secret.
    """
    import urllib3

    headers = {"Content-Type": "application/json", "User-Agent": "batchonnx"}
    headers |= signature(body, message_id, int(time()), key)
    retry = urllib3.Retry(
        total=TRIES - 1,
        redirect=False,
        status_forcelist=AGAIN,
        allowed_methods=None,
        backoff_factor=WAIT_S,
        backoff_max=MOST_WAIT_S,
        backoff_jitter=JITTER_S,
        respect_retry_after_header=False,  # it may say: in a day
        raise_on_status=False,
    )
    timeout = urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S)
    try:
        with _pool(url) as pool:
            answer = pool.request(
                "POST", url, body=body, headers=headers, retries=retry, timeout=timeout, redirect=False
            )
    except urllib3.exceptions.HTTPError as error:
        raise OSError(f"{TRIES} tries: {_reason(error)}") from error
    if not 200 <= answer.status < 300:
        raise OSError(f"{answer.status} {answer.reason or ''}".strip())


def signature(body: bytes, message_id: str, at: int, key: str | None) -> dict[str, str]:
    """The headers that tell a message from a forged or an old one. at: Unix seconds. key: as given, or
    base64 behind `whsec_`.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(at)}
    if key is not None:
        signed = f"{message_id}.{at}.".encode() + body
        digest = hmac.new(_key_bytes(key), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _key_bytes(key: str) -> bytes:
    if key.startswith("whsec_"):
        try:
            return base64.b64decode(key.removeprefix("whsec_"), validate=True)
        except binascii.Error as error:
            raise OSError("the key behind whsec_ isn't base64") from error
    return key.encode()


def _pool(url: str) -> Any:
    """By way of the proxy that the environment names, if it names one for this host."""
    import urllib3

    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager()
    return urllib3.ProxyManager(proxy)


def _reason(error: BaseException) -> str:
    """The innermost cause, by its kind: its text may hold the URL."""
    while isinstance(inner := getattr(error, "reason", None), BaseException):
        error = inner
    text = getattr(error.__cause__ or error.__context__, "strerror", None)
    return text if isinstance(text, str) else type(error).__name__
