"""The job file's JSON Schema, for editors and for checking jobs elsewhere."""

from __future__ import annotations

from typing import Any

from batchonnx.job.spec import Job

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a job file, with its variables filled in.

    Holds for every job that loads, but for keys written without a value, which the loader takes
    as left out. Rules between keys (exactly one of column, columns and value, say) are in it
    where an editor can show them; the others are checked by `load_job` alone.
    """
    schema = Job.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs")
    definitions["Feature"] |= {
        "oneOf": [{"required": [key]} for key in ("column", "columns", "value")],
        "dependentRequired": {"python": ["columns"], "inputs": ["python"], "bytes": ["column"]},
    }
    cleaned: dict[str, Any] = _clean(schema)
    return {
        "$schema": _DIALECT,
        "title": "batchonnx job",
        **cleaned,
        "$defs": {name: _clean(definition) for name, definition in sorted(definitions.items())},
    }


def _clean(schema: Any, of_names: bool = False) -> Any:
    """Without generated titles, nulls and defaults that say nothing; of_names: keys are the user's."""
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if of_names:
        return {name: _clean(inner) for name, inner in schema.items()}
    cleaned = {}
    for key, value in schema.items():
        if key == "title" or (key == "default" and (value is None or isinstance(value, dict | list))):
            continue
        cleaned[key] = (
            value
            if key in ("default", "const", "enum", "dependentRequired")
            else _clean(value, key == "properties")
        )
    choices = [choice for choice in cleaned.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del cleaned["anyOf"]
        # The key's own description says more than its type's.
        return {**choices[0], **cleaned}
    return {**cleaned, "anyOf": choices} if choices else cleaned
