"""What machines, storage and requests cost, as somebody has written it into a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batchonnx.errors import JobFileError, Problem
from batchonnx.report.text import amount

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]

LIST = frozenset({"ListObjectsV2", "ListMultipartUploads", "ListParts"})
FREE = frozenset({"DeleteObject", "DeleteObjects", "AbortMultipartUpload"})
PER_REQUESTS = 1000
PER_HOUR = 3600


class Requests(BaseModel):
    """Of 1,000 requests. put: also of uploads and their pieces."""

    model_config = ConfigDict(extra="forbid", strict=False)

    get: Price = 0.0
    put: Price = 0.0
    list: Price = 0.0


class Prices(BaseModel):
    """In any one currency. gb_month: of 10^9 bytes of the result, kept for a month."""

    model_config = ConfigDict(extra="forbid")

    currency: str = "USD"
    cpu_hour: Price = 0.0
    gpu_hour: Price = 0.0
    gb_month: Price = 0.0
    requests: Requests = Requests()


@dataclass(frozen=True)
class Hours:
    """Of the cores and the GPUs that a run's workers have, whether they use them or not."""

    cpu: float
    gpu: float


@dataclass(frozen=True)
class Cost:
    """What a run costs, by kind. storage: of its result, for a month."""

    cpu: float
    gpu: float
    requests: float
    storage: float

    @property
    def total(self) -> float:
        """Of all kinds."""
        return self.cpu + self.gpu + self.requests + self.storage


def read_prices(path: Path) -> Prices:
    """The table in a YAML file. Raises JobFileError naming what isn't a price."""
    fix = "write cpu_hour, gpu_hour, gb_month and requests: {get, put, list}, as docs/rehearsals.md shows"
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text()) or {})
    except ValidationError as error:
        first = error.errors()[0]
        facts = {
            "file": str(path),
            "key": ".".join(map(str, first["loc"])) or "the whole",
            "expected": first["msg"],
            "found": str(first["input"])[:100],
        }
        raise JobFileError(Problem("the table of prices has something else in it", facts, fix)) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        facts = {"file": str(path), "found": str(error).splitlines()[0]}
        raise JobFileError(Problem("the table of prices can't be read", facts, fix)) from error


def hours_of(seconds: float, workers: int, cores: int, gpus: float) -> Hours:
    """Of so many workers for so long. cores, gpus: of each one."""
    hours = workers * seconds / PER_HOUR
    return Hours(hours * cores, hours * gpus)


def cost_of(prices: Prices, hours: Hours, requests: Mapping[str, float], output_bytes: float) -> Cost:
    """requests: operation, as S3 names it -> how many."""
    table = prices.requests
    asked = sum(number * _price(table, name) for name, number in requests.items()) / PER_REQUESTS
    return Cost(
        cpu=prices.cpu_hour * hours.cpu,
        gpu=prices.gpu_hour * hours.gpu,
        requests=asked,
        storage=prices.gb_month * output_bytes / 1e9,
    )


def format_cost(cost: Cost, currency: str) -> str:
    """The sum, and what it is made of."""
    kinds = ", ".join(f"{kind} {amount(price)}" for kind, price in asdict(cost).items() if price)
    return f"{amount(cost.total)} {currency}: {kinds or 'nothing'}; storage is for a month"


def _price(table: Requests, operation: str) -> float:
    if operation in FREE:
        return 0.0
    if operation in LIST:
        return table.list
    return table.get if operation.startswith(("Get", "Head")) else table.put
