"""Checks Kubernetes and KubeRay manifests without a cluster, as strictly as an API server does.

    python -m tests.manifests.validate deploy/*.yaml              exit code 1 if anything is wrong
    kubectl kustomize deploy/ | python -m tests.manifests.validate -

    deploy/job.yaml:14: RayJob/score: spec.rayClusterSpec.headGroupSpec.template.spec.containers[0]:
        unknown field "imagePullPolcy"; did you mean "imagePullPolicy"?

    assert validate(path.read_text()) == []           # in a test

RayCluster, RayJob and RayCronJob are checked against their resource definitions (crds/, or
--crds DIR with definitions as .json, .yaml, also .gz): types, enums, patterns, required fields,
names that must differ, and unknown fields, down into the pod templates. All other kinds are
checked against the schemas that come with `kubernetes-validate`, for the newest Kubernetes in it
(--kubernetes 1.33 for another). A key that is given twice is an error, too.

Not checked: rules in CEL (x-kubernetes-validations); what an operator or admission webhook
refuses later; references to objects that do not exist; the syntax of quantities in core kinds.
Two things are taken from KubeRay's operator, not from the definitions: the values of
`submissionMode` and how long a name may be.

    pip install jsonschema pyyaml kubernetes-validate        (the last for core kinds only)

Needs no other file but the definitions.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import gzip
import importlib.resources
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

CRDS = Path(__file__).parent / "crds"
Json = Any

TEXTS: Json = {"type": "object", "additionalProperties": {"type": "string"}}
NAME_LENGTHS = {"RayCluster": 53, "RayJob": 47, "RayCronJob": 36}  # the operator's limits
METADATA: Json = {  # what an author may write; the server adds more
    "type": "object",
    "properties": {
        "name": {
            "type": "string",
            "maxLength": 253,
            "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        },
        "generateName": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": TEXTS,
        "annotations": TEXTS,
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array"},
    },
    "additionalProperties": False,
    "anyOf": [{"required": ["name"]}, {"required": ["generateName"]}],
}

# Texts for which the definitions name no values, but the operator knows only these.
VALUES = {"submissionMode": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    line: int
    resource: str
    path: str
    message: str

    def __str__(self) -> str:
        """As after the file's name in a report."""
        where = f"{self.path}: " if self.path else ""
        return f"{self.line}: {self.resource}: {where}{self.message}"


def validate(text: str, *, crds: Path = CRDS, kubernetes: str = "") -> list[Problem]:
    """All problems of a YAML text with one or more documents, in their order."""
    problems = []
    try:
        for node, document in load(text):
            if document is not None:
                problems += list(check(node, document, crds, kubernetes))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(Problem(mark.line + 1 if mark else 1, "YAML", "", str(error.problem)))
    return problems


def check(node: yaml.Node, document: Json, crds: Path, kubernetes: str) -> Iterator[Problem]:
    """The problems of one document."""
    if not isinstance(document, dict) or not {"apiVersion", "kind"} <= set(document):
        yield Problem(node.start_mark.line + 1, "?", "", "needs apiVersion and kind")
        return
    api, kind = str(document["apiVersion"]), str(document["kind"])
    metadata = document.get("metadata")
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    resource = f"{kind}/{name}"
    validator = custom_kinds(crds).get((api, kind)) or core_kind(api, kind, kubernetes)
    if validator is None:
        line = line_of(node, ["kind"])
        yield Problem(line, resource, "", f"no schema for {kind} of apiVersion {api}")
        return
    if not metadata or not ({"name", "generateName"} & set(metadata)):
        yield Problem(line_of(node, ["metadata"]), resource, "metadata", "needs a name")
        if not metadata:
            return
    for error in leaves(validator.iter_errors(document)):
        path = list(error.absolute_path)
        if error.validator == "anyOf" and path == ["metadata"]:
            continue  # told above
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            schema = error.schema if isinstance(error.schema, dict) else {}
            known = list(schema.get("properties", {}))
            for key in (key for key in error.instance if key not in known):
                message = f'unknown field "{key}"{nearest(str(key), known)}'
                yield Problem(line_of(node, [*path, key]), resource, dotted(path), message)
        else:
            yield Problem(line_of(node, path), resource, dotted(path), error.message[:300])


def leaves(errors: Iterator[jsonschema.ValidationError]) -> Iterator[jsonschema.ValidationError]:
    """The errors in order of place; of a failed choice, the reason where it has only one."""
    for error in sorted(errors, key=lambda error: [str(part) for part in error.absolute_path]):
        yield error.context[0] if error.context and len(error.context) == 1 else error


def nearest(key: str, known: Sequence[str]) -> str:
    """The field that was probably meant."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(key.lower(), by_lower, n=1, cutoff=0.6)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def dotted(path: Sequence[str | int]) -> str:
    """spec.containers[0].name"""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).lstrip(".")


# Schemas


@functools.cache
def custom_kinds(crds: Path) -> dict[tuple[str, str], Any]:
    """A validator for each version and kind that the folder's definitions define."""
    kinds = {}
    for path in sorted(crds.glob("*.*")):
        if not {".json", ".yaml", ".yml"} & set(path.suffixes):
            continue
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        spec = (json.loads(data) if ".json" in path.suffixes else yaml.safe_load(data))["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            kind, api = spec["names"]["kind"], f"{spec['group']}/{version['name']}"
            name = METADATA["properties"]["name"] | {"maxLength": NAME_LENGTHS.get(kind, 253)}
            fields = METADATA["properties"] | {"name": name}
            schema["properties"]["metadata"] = METADATA | {"properties": fields}
            kinds[api, kind] = Structural(schema)
    return kinds


def strict(schema: Mapping[str, Json]) -> Json:
    """A structural OpenAPI schema as JSON Schema in which unknown fields are errors.

    A required field that has a default counts as present, as in the API server, which fills it
    in first.
    """
    out = {k: v for k, v in schema.items() if k not in {"default", "format", "nullable"}}
    if "properties" in schema:
        out["properties"] = {k: strict(v) for k, v in schema["properties"].items()}
        for name in out["properties"].keys() & VALUES.keys():
            out["properties"][name].setdefault("enum", VALUES[name])
    if isinstance(schema.get("items"), dict):
        out["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = strict(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("properties", {})
        out["additionalProperties"] = False
    if schema.get("x-kubernetes-embedded-resource"):
        whole: Json = {"apiVersion": {}, "kind": {}, "metadata": {}}
        out["properties"] = whole | out.get("properties", {})
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("anyOf", None)
        out["type"] = ["integer", "string"]
    if "required" in schema:
        fields = schema.get("properties", {})
        out["required"] = [k for k in schema["required"] if "default" not in fields.get(k, {})]
    if schema.get("format") in {"int32", "int64"} and out.get("type") == "integer":
        most = 2 ** (int(schema["format"][3:]) - 1) - 1
        out = {"minimum": -most - 1, "maximum": most} | out
    if schema.get("nullable") and "type" in out:
        out = {"anyOf": [{"type": "null"}, out]}
    return out


def differ(
    _validator: Any, keys: Sequence[str], items: Json, _schema: Json
) -> Iterator[jsonschema.ValidationError]:
    """x-kubernetes-list-map-keys: no two items of a list may agree in all of these."""
    if not isinstance(items, list):
        return
    seen = set()
    for n, item in enumerate(items):
        if isinstance(item, dict) and any(key in item for key in keys):
            name = tuple(json.dumps(item.get(key)) for key in keys)
            if name in seen:
                message = f"a second item with {dict(zip(keys, name, strict=True))}"
                yield jsonschema.ValidationError(message, path=[n])
            seen.add(name)


Structural: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"x-kubernetes-list-map-keys": differ}
)


@functools.cache
def core_kind(api: str, kind: str, kubernetes: str) -> Any:
    """A validator for a kind of Kubernetes itself; None if there is no such kind."""
    root = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    versions = [entry.name for entry in root.iterdir() if entry.name.endswith("-strict")]
    versions.sort(key=lambda name: [int(part) for part in name[1:].split("-")[0].split(".")])
    wanted = [name for name in versions if name.startswith(f"v{kubernetes}")]
    if not wanted:
        raise SystemExit(f"error: no schemas for Kubernetes {kubernetes}; there are {versions}")
    group, _, version = api.rpartition("/")
    stem = "-".join(part for part in (kind.lower(), group.split(".")[0], version) if part)
    file = root / wanted[-1] / f"{stem}.json"
    if not file.is_file():
        return None
    schema = json.loads(file.read_text())
    if schema.get("properties", {}).get("apiVersion", {}).get("enum") != [api]:
        return None
    return jsonschema.Draft202012Validator(schema, registry=core_definitions(wanted[-1]))


@functools.cache
def core_definitions(version: str) -> Registry[Json]:
    """The types that the schemas of core kinds refer to."""
    root = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    text = (root / version / "_definitions.json").read_text()
    definitions: Resource[Json] = Resource.from_contents(json.loads(text))
    registry: Registry[Json] = definitions @ Registry()
    return registry


# YAML


class Loader(yaml.SafeLoader):
    """As Kubernetes reads YAML: dates stay texts, a key may be given once."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base class, but a second value for a key is an error."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.value != "<<":
                problem = f'key "{key.value}" is given twice'
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(text: str) -> Iterator[tuple[yaml.Node, Json]]:
    """Each document of a text: its nodes, which know their lines, and its value."""
    loader = Loader(text)
    while loader.check_node():
        if node := loader.get_node():
            yield node, loader.construct_document(node)


def line_of(node: yaml.Node, path: Sequence[str | int]) -> int:
    """The line of the value at a path, or of the last part of it that is there."""
    line = node.start_mark.line
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", help="YAML files; - for standard input")
    parser.add_argument("--crds", type=Path, default=CRDS, help="folder of resource definitions")
    parser.add_argument("--kubernetes", default="", help="version, as 1.33 (default: newest)")
    args = parser.parse_args()
    is_wrong = False
    for name in args.files:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        for problem in validate(text, crds=args.crds, kubernetes=args.kubernetes):
            is_wrong = True
            print(f"{name}:{problem}")
    return is_wrong


if __name__ == "__main__":
    sys.exit(main())
