"""Stores as fixtures: a server starts when the first test asks for it, and ends with the session.

    def test_it(s3, s3_folder, use_store):
        use_store(s3)                           # this process, and those it starts, now mean it by s3://
        batchonnx.run(...)                      # output: {path: f"{s3_folder}/out"}

    def test_a_fault(s3, proxy, s3_folder, use_store):
        use_store(s3.access.via(proxy.url))
        with proxy.fault("lost", op="PutObject", nth=1) as rule:
            ...
        assert rule.fired

pytest makes fixtures in the main thread, which a server needs to die with a killed session. At the
end it is killed: a SeaweedFS that is asked takes seconds.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.stores.badstore import BadStore
from tests.stores.faultproxy import FaultProxy
from tests.stores.s3server import Access, S3Server, Store

BUCKETS = ("lake", "scores")
COUNT = itertools.count()

UseStore = Callable[[Store | Access], None]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real store with the buckets lake and scores. Who stops or pauses it, asks for `s3_folder`, too."""
    with S3Server(tmp_path_factory.mktemp("s3"), buckets=BUCKETS) as server:
        yield server
        server.kill9()


@pytest.fixture(scope="session")
def s3_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """As `s3`, over https; the CA to trust is `s3_tls.access.ca_file`."""
    with S3Server(tmp_path_factory.mktemp("s3-tls"), buckets=BUCKETS, tls=True) as server:
        yield server
        server.kill9()


@pytest.fixture(scope="session")
def s3_roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """As `s3`, with a role that may be assumed: `s3server.ROLE`."""
    with S3Server(tmp_path_factory.mktemp("s3-roles"), buckets=BUCKETS, roles=True) as server:
        yield server
        server.kill9()


@pytest.fixture(scope="session")
def bad_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadStore]:
    """A store that accepts every conditional write, with the buckets of `s3`."""
    with BadStore(tmp_path_factory.mktemp("bad-store"), buckets=BUCKETS) as store:
        yield store
        store.kill9()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    """The way to `s3`, without rules yet and with counts from zero."""
    with FaultProxy(s3.endpoint) as running:
        yield running


@pytest.fixture
def s3_folder(s3: S3Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a folder in `s3` of this test's own; afterwards the store is up, even if it was killed."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    yield f"s3://{BUCKETS[0]}/{name[:60]}-{next(COUNT)}"
    s3.resume()
    if s3.process is None or s3.process.poll() is not None:
        s3.restart()


@pytest.fixture
def use_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[UseStore]:
    """Make a store, or one behind a proxy, the one that the environment means; may be called again."""

    def use(store: Store | Access) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        access = store.access if isinstance(store, Store) else store
        for name, value in access.env().items():
            monkeypatch.setenv(name, value)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        forget_clients()

    yield use
    forget_clients()


def forget_clients() -> None:
    """Both keep the keys that the environment had when they were first asked."""
    if "boto3" in sys.modules:
        sys.modules["boto3"].DEFAULT_SESSION = None
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
