"""A run's way to its cluster: one that is there, or one that lives as long as the run."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from batchonnx.engines.ray.reaper import MARK, Reaper
from batchonnx.errors import ClusterError, DependencyError, Problem
from batchonnx.runtime.cores import usable_cores

LOCAL = "local"
NAMESPACE = "batchonnx"
REACH_S = 5.0
SHOWN = 300
ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A call that every head answers, be it with a refusal."""


def address_of(asked: str | None) -> str:
    """Where the cluster is: as the job says, as RAY_ADDRESS says, or one of this run's own."""
    return asked or os.environ.get("RAY_ADDRESS") or LOCAL


@contextmanager
def connected(asked: str | None) -> Iterator[str]:
    """Be a driver of the cluster until the block ends; gives its address.

    A cluster of the run's own is taken down again, whatever ends this process. A process that is a driver
    already stays one. Raises DependencyError, ClusterError.
    """
    address = address_of(asked)
    if "ray" in sys.modules and _import_ray().is_initialized():
        yield address
    elif address == LOCAL:
        with _own_cluster():
            yield address
    else:
        ray = _import_ray()
        _require_somebody(address)
        _require_entry(address)
        with _handlers_kept(), _errors_only():
            try:
                ray.init(address=address, **_QUIET)
            except Exception as error:
                raise _refused(address, error) from error
        try:
            yield address
        finally:
            ray.shutdown()


_QUIET: Mapping[str, Any] = {
    "namespace": NAMESPACE,
    "log_to_driver": False,
    "configure_logging": False,
    "logging_level": logging.ERROR,
}


@contextmanager
def _own_cluster() -> Iterator[None]:
    mark = secrets.token_hex(8)
    # Short: sockets lie in it, whose paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="bx-", dir=os.environ.get("RAY_TMPDIR", "/tmp")))
    reaper = Reaper(mark, folder)
    try:
        with _environment(_own_environment(mark)):
            ray = _import_ray()
            with _handlers_kept(), _errors_only():
                try:
                    ray.init(
                        address=LOCAL,
                        num_cpus=usable_cores(),
                        include_dashboard=False,
                        _temp_dir=str(folder),
                        **_QUIET,
                    )
                except Exception as error:
                    raise _refused(LOCAL, error) from error
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        reaper.finish()


def _own_environment(mark: str) -> dict[str, str]:
    """For the processes of a cluster of one's own: known by a mark, closed to others, telling nobody."""
    return {MARK: mark, "RAY_USAGE_STATS_ENABLED": "0", **_own_token()}


@cache
def _own_token() -> dict[str, str]:
    """One for all clusters of this process's own: Ray reads it once, when it is imported."""
    if "RAY_AUTH_MODE" in os.environ or "ray" in sys.modules:
        return {}
    # Else Ray makes a token of its own accord and leaves it in the home folder.
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; here it means: stop, and keep what is scored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _errors_only() -> Iterator[None]:
    """Ray warns that it leaves signals alone where it is started by another thread than the first."""
    log = logging.getLogger("ray")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        facts = {"job": "engine.name: ray", "found": str(error)}
        fix = 'install it: pip install "batchonnx[ray]"'
        raise DependencyError(Problem("Ray isn't installed", facts, fix)) from error
    return ray


def _require_somebody(address: str) -> None:
    """Ray itself takes minutes to find out that nobody is there."""
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if place is None:
        return
    try:
        socket.create_connection((place[1].strip("[]"), int(place[2])), REACH_S).close()
    except OSError as error:
        raise ClusterError(_nobody(address, str(error))) from error


def _require_entry(address: str) -> None:
    """Raises ClusterError where a head wants another token: Ray tries for 20 s, and then finds nobody.

    Whatever else is wrong there is left to Ray to find.
    """
    if "://" in address or not re.fullmatch(r".+:\d+", address):
        return
    try:
        import grpc
        from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    except ImportError:  # not a public function of Ray's: it may be gone
        return
    token = tuple(get_auth_headers_if_auth_enabled({}).items())
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(ALIVE)(b"", timeout=REACH_S, metadata=token)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise _refused(address, error) from error


def _nobody(address: str, found: str) -> Problem:
    facts = {"address": address, "found": found}
    fix = "start a cluster (ray start --head) or correct engine.address or RAY_ADDRESS; engine.address: local"
    return Problem("no Ray cluster at the address", facts, f"{fix} needs none")


def _refused(address: str, error: Exception) -> ClusterError:
    """Ray's own words, under the name of what they mean."""
    text = " ".join(str(error).split())
    told = {"address": address, "found": text[:SHOWN]}
    if "ersion mismatch" in text:
        fix = "use the cluster's versions of Python and Ray here, or its image there"
        return ClusterError(Problem("the cluster has other versions of Ray or Python", told, fix))
    if re.search(r"auth|token|Unauthenticated|401|403", text, re.IGNORECASE):
        fix = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the cluster's own"
        return ClusterError(Problem("the cluster refuses this token", told, fix))
    if isinstance(error, ConnectionError) or "Could not find any running Ray" in text:
        return ClusterError(_nobody(address, text[:SHOWN]))
    fix = "see what Ray says; its logs are in /tmp/ray/session_latest/logs"
    return ClusterError(Problem("Ray doesn't start" if address == LOCAL else "Ray refuses", told, fix))
