"""Batch sizes that were found are remembered, and nothing depends on that."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchonnx.scoring.known_sizes import MOST_SIZES, find_size, keep_size


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "batchonnx" / "batch-rows-1.json"


def test_what_was_kept_last_is_found() -> None:
    assert find_size("a") is None
    keep_size("a", 64)
    keep_size("b", 8)
    keep_size("a", 32)
    assert (find_size("a"), find_size("b"), find_size("c")) == (32, 8, None)


@pytest.mark.parametrize(
    "damage", [b"", b"[1, 2]", b'{"a": "many", "b": -1', b'{"a": true, "b": 0}', b"\xff\xfe"]
)
def test_a_damaged_file_is_as_none(cache: Path, damage: bytes) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(damage)
    assert find_size("a") is None
    keep_size("b", 16)
    assert find_size("b") == 16


def test_a_folder_that_can_t_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_size("a", 64)
    assert find_size("a") is None


def test_the_oldest_are_forgotten(cache: Path) -> None:
    import json

    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({f"k{number}": 8 for number in range(MOST_SIZES)}))
    keep_size("new", 8)
    assert (find_size("k0"), find_size("k1"), find_size("new")) == (None, 8, 8)
