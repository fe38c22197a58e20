"""`tokenizer` held against model and data: what is left out is settled, misfits are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

import batchonnx
from batchonnx.cluster.places import named_places
from batchonnx.errors import ContractError
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.planning.bindings import TextColumn
from batchonnx.planning.plan import Plan
from batchonnx.report.plan_view import format_plan
from tests import models, texts

MASKED = ("input_ids", "attention_mask")


def job(folder: Path, feature: dict[str, Any], output: dict[str, Any] | None = None) -> JobFile:
    if not (folder / "tokenizer.json").exists():
        texts.save_tokenizer(folder / "tokenizer.json")
    if not (folder / "in.parquet").exists():
        pq.write_table(pa.table({"text": ["w1", "w2"], "number": [1, 2]}), folder / "in.parquet")
    spec = {
        "model": {"path": "m.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"input_ids": {"column": "text", "tokenizer": "tokenizer.json"} | feature},
        "outputs": {"y": {"from": "hidden"} | (output or {})},
        "output": {"path": "out"},
    }
    return job_from_dict(spec, folder=folder)


def plan(
    folder: Path,
    feature: dict[str, Any],
    inputs: Sequence[str] = MASKED,
    *,
    tokens: int | str = "t",
    output: dict[str, Any] | None = None,
) -> Plan:
    texts.save_encoder(folder / "m.onnx", inputs, tokens=tokens)
    return batchonnx.plan(job(folder, feature, output))


def text(folder: Path, feature: dict[str, Any], **changes: Any) -> TextColumn:
    (found,) = plan(folder, feature, **changes).features
    assert isinstance(found, TextColumn)
    return found


def refusal(folder: Path, feature: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ContractError) as caught:
        plan(folder, feature, **changes)
    return "; ".join(
        f"{problem.title} | {problem.facts} | {problem.fix}" for problem in caught.value.problems
    )


def test_a_tokenizer_feeds_whatever_the_model_asks_for(tmp_path: Path) -> None:
    for inputs in (MASKED, ("input_ids", "position_ids", "token_type_ids", "attention_mask")):
        found = text(tmp_path, {"max_length": 9}, inputs=inputs)
        assert {spec.name for spec in found.inputs} == {*inputs}
        assert found.inputs[0].name == "input_ids"


def test_the_length_is_the_job_s_the_model_s_the_folder_s_or_the_tokenizer_s(tmp_path: Path) -> None:
    assert "nothing says how long a text may be" in refusal(tmp_path, {})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert "nothing says how long a text may be" in refusal(tmp_path, {})
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 40, "pad_token": "[UNK]"})
    )
    assert text(tmp_path, {}).max_length == 40
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(30)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert text(tmp_path, {}).max_length == 30
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    found = text(tmp_path, {"tokenizer": "."})
    assert (found.max_length, found.pad_id) == (20, texts.UNKNOWN)
    assert text(tmp_path, {}, tokens=12).lengths == (12,)
    assert text(tmp_path, {"max_length": 8}).lengths[-1] == 8


def test_only_a_mask_or_the_job_lets_texts_be_padded(tmp_path: Path) -> None:
    assert text(tmp_path, {"max_length": 9}, inputs=("input_ids",)).lengths == ()
    padded = text(tmp_path, {"max_length": 9, "pad": 3}, inputs=("input_ids",))
    assert (padded.pad_id, padded.lengths[-1]) == (3, 9)
    assert "texts have to be padded" in refusal(tmp_path, {}, inputs=("input_ids",), tokens=12)


def test_what_doesn_t_fit_is_told(tmp_path: Path) -> None:
    assert 'column "number" holds no text' in refusal(tmp_path, {"column": "number"})
    assert "the tokenizer isn't there" in refusal(tmp_path, {"tokenizer": "gone.json"})
    (tmp_path / "broken.json").write_text("{}")
    told = refusal(tmp_path, {"tokenizer": "broken.json"})
    assert "the tokenizer can't be read" in told
    assert f"{tmp_path}/broken.json" in told
    assert "attention_mask" not in told  # it would be fed, too, if nothing were wrong
    assert "pad is no int64" in refusal(tmp_path, {"max_length": 9, "pad": 2**63})
    assert "more than the 2 special tokens" in refusal(tmp_path, {"max_length": 2})
    assert "at most 12" in refusal(tmp_path, {"max_length": 13}, tokens=12)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    assert "no JSON object" in refusal(tmp_path, {})
    models.identity(tmp_path / "m.onnx", "float32", ["n", "t"])
    asked = job(tmp_path, {"max_length": 9}).job.model_dump(by_alias=True, exclude_none=True)
    asked["features"] = {"x": asked["features"]["input_ids"]}
    asked["outputs"] = {"y": {"from": "y"}}
    with pytest.raises(ContractError, match="tokens can't become float32"):
        batchonnx.plan(job_from_dict(asked, folder=tmp_path))


def test_pooling_wants_a_vector_for_each_token(tmp_path: Path) -> None:
    pooled = plan(tmp_path, {"max_length": 9}, output={"pool": "mean"})
    assert str(pooled.outputs[0].type) == f"fixed_size_list<item: float>[{texts.WIDTH}]"
    texts.save_mean(tmp_path / "m.onnx")
    asked = job(tmp_path, {"max_length": 9}, {"from": "mean", "pool": "mean"})
    with pytest.raises(ContractError, match="pool needs a vector for each token"):
        batchonnx.plan(asked)


def test_another_tokenizer_is_another_job_and_it_travels(tmp_path: Path) -> None:
    before = plan(tmp_path, {"max_length": 9})
    assert before.fingerprint == plan(tmp_path, {"max_length": 9}).fingerprint
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.add_tokens(["more"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    after = plan(tmp_path, {"max_length": 9})
    changed = {name for name in before.identity if before.identity[name] != after.identity[name]}
    assert changed == {"tokenizer of input_ids"}
    places = {place.key: place.resolved for place in named_places(job(tmp_path, {"max_length": 9}))}
    assert places["features.input_ids.tokenizer"] == str(tmp_path / "tokenizer.json")


def test_the_plan_tells_how_text_becomes_tokens(tmp_path: Path) -> None:
    found = plan(tmp_path, {"max_length": 9, "prefix": "query: "}, output={"pool": "mean", "normalize": True})
    told = format_plan(found)
    assert "text, tokens, 'query: ' in front, at most 9, cut on the right, padded with 0" in told
    assert "(pool mean, normalize)" in told
