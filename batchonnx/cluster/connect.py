"""From an address to a cluster that answers, or to the reason why none does."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batchonnx.errors import ClusterError, DependencyError, Problem

HERE = "http://127.0.0.1:8265"
"""Where Ray's dashboard is unless it was told another place."""
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""That name a cluster, as Ray reads them: the first one that is set counts."""
CONNECT_S, ANSWER_S = 5, 30
QUIET = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray's that would tell of each step on its way, between our own lines."""


@dataclass(frozen=True)
class Cluster:
    """A cluster's dashboard that has answered, and let us in.

    url: of its dashboard. client: Ray's JobSubmissionClient. headers: they hold the token, so never shown.
    verify: certificates to trust, in PEM form, as a file or folder; True for the usual ones.
    """

    url: str
    ray_version: str
    client: Any = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    verify: str | bool = True

    @property
    def name(self) -> str:
        """The URL, to be shown."""
        return shown(self.url)

    def get(self, path: str) -> Any:
        """The JSON at a path of the dashboard. Raises ClusterError."""
        import requests

        with asking(self.url):
            answer = requests.get(
                self.url + path, headers=dict(self.headers), verify=self.verify, timeout=(CONNECT_S, ANSWER_S)
            )
            answer.raise_for_status()
            return answer.json()


def connect(address: str | None = None) -> Cluster:
    """Reach a cluster's dashboard.

    address: a dashboard's URL, or a head's `host:port`. Left out: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, this
    machine's port 8265. The token is RAY_AUTH_TOKEN, or the file RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token
    with RAY_AUTH_MODE=token, and for a dashboard of this machine unless that is `disabled`; other headers are
    RAY_JOB_HEADERS, as for `ray job`.
    Certificates to trust: REQUESTS_CA_BUNDLE, else SSL_CERT_FILE.
    Raises DependencyError without ray[default], ClusterError if nothing answers, or doesn't let us in.
    """
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        facts = {"found": str(error)}
        fix = "pip install 'batchonnx[ray]'"
        raise DependencyError(Problem("a cluster needs Ray with its dashboard", facts, fix)) from error
    for logger in QUIET:
        logging.getLogger(logger).setLevel(logging.ERROR)  # what matters of it is in our own errors
    url = _dashboard(address or next(filter(None, map(os.environ.get, VARIABLES)), HERE))
    headers = _headers(url)
    verify: str | bool = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True
    version = _version(url, headers, verify)
    with asking(url), _meaning(url):
        client = JobSubmissionClient(url, headers=dict(headers), verify=verify)
    return Cluster(url, version, client, headers, verify)


def shown(address: str) -> str:
    """An address without the password that it may hold."""
    return re.sub(r"://[^/@]*@", "://", address)


@contextmanager
def asking(url: str) -> Iterator[None]:
    """What Ray and requests raise, as ClusterErrors that say what to do about it."""
    import requests
    from ray.exceptions import AuthenticationError

    facts = {"cluster": shown(url)}
    try:
        yield
    except AuthenticationError as error:
        raise refused(url, is_wrong="Authentication failed" in str(error)) from error
    except requests.exceptions.SSLError as error:
        fix = "name the certificates to trust: export REQUESTS_CA_BUNDLE=ca.pem"
        facts["found"] = _reason(error)
        raise ClusterError(Problem("the cluster's certificate isn't trusted", facts, fix)) from error
    except requests.exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise refused(url, is_wrong=status == 403) from error
        facts["found"] = f"HTTP status {status}"
        fix = "correct --address: it wants the address of a Ray dashboard, http://HEAD:8265"
        raise ClusterError(Problem("what answers there is no Ray dashboard", facts, fix)) from error
    except requests.exceptions.JSONDecodeError as error:
        facts["found"] = "an answer that isn't JSON"
        fix = "correct --address: it wants the address of a Ray dashboard, http://HEAD:8265"
        raise ClusterError(Problem("what answers there is no Ray dashboard", facts, fix)) from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        facts["found"] = _reason(error)
        fix = "see whether the cluster is up and can be reached, then run the same command again"
        raise ClusterError(Problem("the cluster doesn't answer", facts, fix)) from error


def refused(url: str, *, is_wrong: bool) -> ClusterError:
    """The error of a cluster that wants a token. is_wrong: it was given another one than it wants."""
    facts = {"cluster": shown(url), "found": "a token that it doesn't know" if is_wrong else "no token"}
    fix = "set RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_TOKEN_PATH to a file with it"
    title = "the cluster refuses the token" if is_wrong else "the cluster wants a token"
    return ClusterError(Problem(title, facts, fix))


def _dashboard(address: str) -> str:
    """The URL of an address's dashboard, as far as TCP tells."""
    if address.startswith(("http://", "https://")):
        url = address.rstrip("/")
        parts = urlsplit(url)
        _require_port(url, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        return url
    if "://" in address or address == "auto":
        return _asked_of_ray(address)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        facts = {"found": shown(address)}
        fix = "name the dashboard: --address http://HEAD:8265"
        raise ClusterError(Problem("that is no cluster's address", facts, fix))
    _require_port(address, host, int(port))
    return f"http://{address}" if _speaks_http(host, int(port)) else _asked_of_ray(address)


def _asked_of_ray(address: str) -> str:
    """The dashboard of a head that is named by its own port, or of Ray's client, or that runs here."""
    from ray.dashboard.utils import get_address_for_submission_client

    facts = {"cluster": shown(address)}
    fix = "name the dashboard: --address http://HEAD:8265; a head has one with ray[default]"
    try:
        with _meaning(address):
            url = get_address_for_submission_client(address)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        facts["found"] = _reason(error)
        raise ClusterError(Problem("no dashboard was found by that address", facts, fix)) from error
    parts = urlsplit(url)
    if not parts.hostname or parts.hostname == "None" or parts.port is None:
        facts["found"] = "a cluster without a dashboard"
        raise ClusterError(Problem("the cluster has no dashboard, which takes jobs", facts, fix))
    _require_port(url, parts.hostname, parts.port)
    return str(url)


@contextmanager
def _meaning(address: str) -> Iterator[None]:
    """Ray lets its variables win over an argument; here what was asked for wins."""
    former = os.environ.get(VARIABLES[0])
    os.environ[VARIABLES[0]] = address
    try:
        yield
    finally:
        del os.environ[VARIABLES[0]]
        if former is not None:
            os.environ[VARIABLES[0]] = former


def _require_port(address: str, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        facts = {"cluster": shown(address), "found": error.strerror or str(error)}
        fix = (
            "check --address (or RAY_ADDRESS), and that the head runs with ray[default] and its dashboard; "
            "in Kubernetes: kubectl port-forward service/CLUSTER-head-svc 8265"
        )
        raise ClusterError(Problem("no cluster answers at the address", facts, fix)) from error


def _speaks_http(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S) as asked:
            asked.settimeout(CONNECT_S)
            asked.sendall(f"HEAD /api/version HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            return asked.recv(5) == b"HTTP/"
    except OSError:
        return False


def _version(url: str, headers: Mapping[str, str], verify: str | bool) -> str:
    import requests

    with asking(url):
        answer = requests.get(
            f"{url}/api/version", headers=dict(headers), verify=verify, timeout=(CONNECT_S, ANSWER_S)
        )
        answer.raise_for_status()
        return str(answer.json().get("ray_version", "unknown"))


def _headers(url: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    if given := os.environ.get("RAY_JOB_HEADERS"):
        try:
            headers = {str(name): str(text) for name, text in json.loads(given).items()}
        except (ValueError, AttributeError) as error:
            fix = """write it like this: export RAY_JOB_HEADERS='{"X-Team": "lake"}'"""
            raise ClusterError(Problem("RAY_JOB_HEADERS isn't a JSON object", {}, fix)) from error
    token = _token(url)
    if token and "authorization" not in {name.lower() for name in headers}:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _token(url: str) -> str | None:
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    # A head that was started here with no mode set wants this machine's token, if there is one.
    is_ours = mode == "token" or (not mode and urlsplit(url).hostname in THIS_MACHINE)
    if path is None and is_ours:
        path = str(Path.home() / ".ray" / "auth_token")
        if not Path(path).exists():
            return None
    if path is None:
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        facts = {"file": path, "found": error.strerror or str(error)}
        fix = "correct RAY_AUTH_TOKEN_PATH"
        raise ClusterError(Problem("the file with the cluster's token can't be read", facts, fix)) from error


def _reason(error: BaseException) -> str:
    """The innermost cause in one line, without the objects' addresses that requests prints."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    inner = re.search(r"\[Errno -?\d+\] ([^'\")]+)|(certificate verify failed[^'\")(]*)", text)
    return shown((inner[1] or inner[2]).strip() if inner else text)
