from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from batchonnx.errors import JobFileError
from batchonnx.job.load import job_from_dict
from batchonnx.job.schema import job_schema

JOBS = sorted(Path(__file__).parents[3].glob("jobs/*.yaml"))
MINIMAL: dict[str, Any] = {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": "o"}}


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(job_schema())


def is_valid(job: dict[str, Any]) -> bool:
    return bool(validator().is_valid(job))


def loads(job: dict[str, Any]) -> bool:
    try:
        job_from_dict(job)
    except JobFileError:
        return False
    return True


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and every schema inside of it."""
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from parts(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from parts(inner)


def test_the_schema_is_json_schema_2020_12():
    schema = job_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "batchonnx job"
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema)))


def test_every_key_has_a_description_or_that_of_its_section():
    schema = job_schema()
    sections = [schema, *schema["$defs"].values()]
    for section in sections:
        assert section["description"]
        assert section["additionalProperties"] is False
        for key, value in section["properties"].items():
            assert value.get("description") or "$ref" in value, key


def test_the_schema_says_from_as_the_job_does():
    output = job_schema()["$defs"]["Output"]
    assert "from" in output["properties"]
    assert output["required"] == ["from"]


def test_nothing_in_the_schema_is_left_over_from_how_it_is_made():
    schema = job_schema()
    for part in parts({key: value for key, value in schema.items() if key != "title"}):
        assert "title" not in part
        assert part.get("type") != "null"
        assert part.get("default", 0) is not None
        assert len(part.get("anyOf", [1, 2])) > 1
    assert "from_" not in json.dumps(schema)


@pytest.mark.parametrize("path", JOBS, ids=[path.name for path in JOBS])
def test_every_example_job_fits_the_schema(path):
    text = re.sub(r"\{\{.*?\}\}", "filled-in", path.read_text())
    validator().validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"input": {"path": ["a", "b"], "format": "csv", "filter": "a > 0"}},
        {"features": {"x": {"columns": ["a"], "python": "m:f", "inputs": ["p"]}, "y": {"value": [[1.5]]}}},
        {"features": {"x": {"column": "a", "bytes": {"head": 3}, "fill": "b", "shape": [1, 2]}}},
        {"outputs": {"y": {"from": "p", "threshold": 1}, "z": {"from": "p", "top_k": 2, "labels": ["a"]}}},
        {"schedule": {"cron": "0 2 * * *", "lag": "1d", "start": "2026-11-01", "catch_up": 3}},
        {"engine": {"workers": 3, "batch_rows": "auto"}, "keep": ["a"], "name": "n"},
    ],
)
def test_what_loads_fits_the_schema(more):
    assert loads(MINIMAL | more)
    assert is_valid(MINIMAL | more)


@pytest.mark.parametrize(
    "more",
    [
        {"nme": "a"},
        {"model": {}},
        {"model": {"path": ""}},
        {"model": {"path": "m", "sha256": "abc"}},
        {"input": {"path": []}},
        {"input": {"path": 5}},
        {"keep": "a"},
        {"schedule": {"cron": "0 2 * * *", "lag": "1 day"}},
        {"schedule": {"cron": "0 2 * * *", "overlap": "queue"}},
        {"schedule": {"time_zone": "UTC"}},
        {"features": {"x": {}}},
        {"features": {"x": {"column": "a", "columns": ["b"]}}},
        {"features": {"x": {"column": "a", "python": "m:f"}}},
        {"features": {"x": {"columns": ["a"], "inputs": ["p"]}}},
        {"features": {"x": {"columns": ["a"], "bytes": {"head": 1}}}},
        {"features": {"x": {"column": "a", "shape": [0]}}},
        {"outputs": {"y": {"from_": "p"}}},
        {"outputs": {"y": {"from": "p", "top_k": 0}}},
        {"engine": {"workers": "many"}},
        {"engine": {"name": "spark"}},
    ],
)
def test_what_does_not_fit_the_schema_does_not_load(more):
    assert not is_valid(MINIMAL | more)
    assert not loads(MINIMAL | more)
