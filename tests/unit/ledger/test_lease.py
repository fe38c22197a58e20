"""A lease on a disk: what it has beyond one in a store; see `test_leases`."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchonnx.errors import StorageError
from batchonnx.ledger.lease import hold_lease


def never() -> None:
    raise AssertionError("the lease was lost")


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    with hold_lease(tmp_path / "out", never):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError), hold_lease(tmp_path / "file" / "out", never):
        pytest.fail("held")
