"""A model's bytes come to a machine once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchonnx.engines.ray.model_cache import KEPT, MODEL, local_model


def test_of_many_who_need_a_model_one_fetches_it(tmp_path: Path) -> None:
    fetched = []

    def fetch() -> dict[str, bytes]:
        fetched.append(1)
        return {MODEL: b"model", "sub/weights": b"weights"}

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: local_model("d1", fetch, tmp_path), range(16)))
    assert len(fetched) == 1
    (path,) = paths
    assert path.read_bytes() == b"model"
    assert (path.parent / "sub" / "weights").read_bytes() == b"weights"


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fetch() -> dict[str, bytes]:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        local_model("d1", fetch, tmp_path)
    assert local_model("d1", lambda: {MODEL: b"m"}, tmp_path).read_bytes() == b"m"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".new")] == []


def test_the_models_that_were_used_last_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        local_model(f"d{number}", lambda: {MODEL: b"m"}, tmp_path)
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == KEPT
