"""What a run costs follows from the user's table, and a table that isn't one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchonnx.errors import JobFileError
from batchonnx.report.prices import Hours, Prices, cost_of, read_prices

TABLE = """
currency: EUR
cpu_hour: 0.04
gpu_hour: 1.5
gb_month: 0.02
requests: {get: 0.0004, put: 0.005, list: 0.005}   # of 1,000
"""


def test_each_kind_is_charged_at_its_price(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(TABLE)
    requests = {
        "GetObject": 2000,
        "HeadObject": 1000,
        "UploadPart": 3000,
        "CompleteMultipartUpload": 1000,
        "ListObjectsV2": 1000,
        "AbortMultipartUpload": 5000,
        "DeleteObjects": 5000,
    }
    cost = cost_of(read_prices(tmp_path / "prices.yaml"), Hours(10.0, 2.0), requests, 5e9)
    assert (cost.cpu, cost.gpu, cost.storage) == pytest.approx((0.4, 3.0, 0.1))
    assert cost.requests == pytest.approx(3 * 0.0004 + 4 * 0.005 + 0.005)
    assert cost.total == pytest.approx(0.4 + 3.0 + 0.1 + cost.requests)


def test_a_table_without_prices_costs_nothing() -> None:
    assert cost_of(Prices(), Hours(10.0, 2.0), {"GetObject": 1000}, 1e9).total == 0.0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("cpu_hours: 1", "cpu_hours"),
        ("cpu_hour: -1", "cpu_hour"),
        ("cpu_hour: cheap", "cpu_hour"),
        ("requests: {gets: 1}", "requests.gets"),
        ("gb_month: .nan", "gb_month"),
        ("[1, 2]", "the whole"),
    ],
)
def test_what_is_no_price_is_named(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(JobFileError) as caught:
        read_prices(tmp_path / "prices.yaml")
    assert caught.value.problems[0].facts["key"] == key
