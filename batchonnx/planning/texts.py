"""`tokenizer`: what job, tokenizer and model say, as one way from text to tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from batchonnx.errors import BatchonnxError, ContractError, Problem
from batchonnx.job.spec import Feature, JobFile
from batchonnx.planning.bindings import TOKEN_INPUTS, FeatureBinding, RowShape, TextColumn
from batchonnx.planning.encoded import require
from batchonnx.planning.lattice import lengths
from batchonnx.planning.types import column_shape, is_text
from batchonnx.runtime.signature import TensorSpec
from batchonnx.runtime.tokenizer import open_tokenizer
from batchonnx.storage.whole import read_whole

TOKENIZER_FILE = "tokenizer.json"
UNTOLD_LENGTH = 1_000_000
"""Hugging Face writes larger numbers where there is no limit."""

_PAD_TOKENS = ("[PAD]", "<pad>")


def bind_text(
    spec: TensorSpec,
    feature: Feature,
    job: JobFile,
    schema: pa.Schema,
    specs: Mapping[str, TensorSpec],
    wanted: RowShape | None,
) -> TextColumn:
    """Bind a column of texts. wanted: the model's shape for one row; None: unknown rank.

    Raises ContractError for what doesn't fit together, DependencyError without the package.
    """
    assert feature.tokenizer is not None
    where = f"features.{spec.name}"
    require("tokenizers", "text", job.where(f"{where}.tokenizer"))
    columns = tuple(feature.columns or [feature.column or ""])
    for column in columns:
        if (
            not is_text(column_shape(schema.field(column).type).value)
            or column_shape(schema.field(column).type).shape
        ):
            facts = {"job": job.where(where), "found": f"column {column} {schema.field(column).type}"}
            raise ContractError(Problem(f'column "{column}" holds no text', facts, "name a column of text"))
    asked = job.job.features or {}
    others = [
        specs[name] for name in TOKEN_INPUTS if name in specs and name not in asked and name != spec.name
    ]
    inputs = (spec, *others)
    fixed = _fixed_length(inputs, wanted, job, where)
    file, data = _read(job.resolve(feature.tokenizer), job.where(f"{where}.tokenizer"))
    facts = {"job": job.where(f"{where}.tokenizer"), "file": file}
    try:
        tokenizer = open_tokenizer(data)
    except ValueError as error:
        facts["found"] = str(error)[:300]
        fix = f"name a {TOKENIZER_FILE} as the tokenizers package writes it"
        raise ContractError(Problem("the tokenizer can't be read", facts, fix)) from error
    settings = _settings(file.rpartition("/")[0], facts)
    max_length = feature.max_length or fixed or _told_length(tokenizer, settings)
    if max_length is None:
        fix = f"say how many tokens the model takes at most: {where}.max_length"
        raise ContractError(Problem("nothing says how long a text may be", facts, fix))
    special = tokenizer.num_special_tokens_to_add(len(columns) == 2)
    if max_length <= special or (fixed is not None and max_length > fixed):
        most = f" and at most {fixed}" if fixed is not None else ""
        facts = {"job": job.where(f"{where}.max_length"), "model": str(spec), "found": f"{max_length}"}
        facts["expected"] = f"more than the {special} special tokens{most}"
        raise ContractError(Problem("max_length doesn't fit", facts, "correct it, or leave it out"))
    may_pad = feature.pad is not None or any(one.name == TOKEN_INPUTS[0] for one in specs.values())
    if fixed is not None and not may_pad:
        facts = {"job": job.where(where), "model": str(spec)}
        fix = f"the model has no attention_mask: if it knows padding by its id, say which: {where}.pad"
        raise ContractError(Problem("texts have to be padded, and nothing says with what", facts, fix))
    if feature.pad is not None and feature.pad > np.iinfo(spec.dtype).max:
        facts = {"job": job.where(f"{where}.pad"), "model": str(spec), "found": f"{feature.pad}"}
        raise ContractError(Problem(f"pad is no {spec.dtype}", facts, "name a token that the model knows"))
    points = (fixed,) if fixed is not None else lengths(max_length)
    return TextColumn(
        inputs=inputs,
        columns=columns,
        tokenizer=data,
        max_length=max_length,
        from_left=feature.truncate == "left",
        prefix=feature.prefix or "",
        fill=feature.fill if isinstance(feature.fill, str) else None,
        pad_id=feature.pad if feature.pad is not None else _pad_id(tokenizer, settings),
        lengths=points if may_pad else (),
    )


def text_of(features: tuple[FeatureBinding, ...]) -> TextColumn | None:
    """The feature that is tokenized, if there is one."""
    return next((feature for feature in features if isinstance(feature, TextColumn)), None)


def one_text(job: JobFile) -> list[Problem]:
    """Rows are arranged by the tokens of one text: a second tokenizer is a problem."""
    asked = [name for name, feature in (job.job.features or {}).items() if feature.tokenizer is not None]
    if len(asked) < 2:
        return []
    facts = {"job": job.where(f"features.{asked[1]}"), "found": ", ".join(asked)}
    fix = "give each text a job of its own, or tokenize one of them in a function: python: module:function"
    return [Problem("two features have a tokenizer", facts, fix)]


def _fixed_length(
    inputs: tuple[TensorSpec, ...], wanted: RowShape | None, job: JobFile, where: str
) -> int | None:
    """Tokens that the model takes in each call; None: any number."""
    spec = inputs[0]
    for one in inputs:
        if one.dtype not in ("int32", "int64"):
            facts = {"job": job.where(where), "model": str(one), "expected": "int64 or int32"}
            fix = "name the input that takes token ids"
            raise ContractError(Problem(f'tokens can\'t become {one.dtype} for "{one.name}"', facts, fix))
    if wanted is not None and len(wanted) != 1:
        facts = {"job": job.where(where), "model": str(spec), "expected": "[batch, tokens]"}
        fix = "name the input that takes token ids"
        raise ContractError(Problem(f'model input "{spec.name}" takes no tokens', facts, fix))
    return wanted[0] if wanted is not None else None


def _read(path: str, where: str) -> tuple[str, bytes]:
    """A tokenizer's file and its bytes. path: of it, or of its folder; absolute, or a URL."""
    file = path if path.endswith(".json") else f"{path.rstrip('/')}/{TOKENIZER_FILE}"
    facts = {"job": where, "file": file}
    try:
        data = read_whole(file)
    except BatchonnxError as error:
        facts["found"] = error.problems[0].facts.get("found", error.problems[0].title)
        fix = error.problems[0].fix
        raise ContractError(Problem("the tokenizer can't be read", facts, fix)) from error
    if data is None:
        fix = f"name a {TOKENIZER_FILE}, or the folder that holds it"
        raise ContractError(Problem("the tokenizer isn't there", facts, fix))
    return file, data


def _settings(folder: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """What the files beside a tokenizer say, those of sentence-transformers first."""
    said: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "sentence_bert_config.json"):
        data = read_whole(f"{folder}/{name}")
        try:
            said |= json.loads(data) if data is not None else {}
        except (ValueError, TypeError, RecursionError) as error:
            told = {**facts, "file": f"{folder}/{name}", "found": str(error)}
            fix = "mend the file, or take it away and set max_length"
            raise ContractError(
                Problem("a file beside the tokenizer is no JSON object", told, fix)
            ) from error
    return said


def _told_length(tokenizer: Any, settings: Mapping[str, Any]) -> int | None:
    truncation = tokenizer.truncation or {}
    for said in (
        settings.get("max_seq_length"),
        truncation.get("max_length"),
        settings.get("model_max_length"),
    ):
        if isinstance(said, int | float) and 0 < said < UNTOLD_LENGTH:
            return int(said)
    return None


def _pad_id(tokenizer: Any, settings: Mapping[str, Any]) -> int:
    """Behind a mask any id would do that the model knows, but this one it was trained with."""
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    said = settings.get("pad_token")
    said = said.get("content") if isinstance(said, dict) else said
    known = (tokenizer.token_to_id(token) for token in (said, *_PAD_TOKENS) if isinstance(token, str))
    return next((found for found in known if found is not None), 0)
