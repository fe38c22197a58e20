"""What every test shares: nothing of the user's own is read or written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.stores.fixtures"]


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the test session's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
