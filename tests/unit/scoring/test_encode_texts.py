"""Text to the model's inputs: what the tokenizer itself gives, padded; what is no text is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from batchonnx.planning.bindings import TextColumn
from batchonnx.planning.lattice import lengths
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode import Encoder
from batchonnx.scoring.encode.tokens import with_tokens
from batchonnx.scoring.pooling import pooled
from tests import texts

NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts.save_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def feature(file: Path) -> TextColumn:
    specs = tuple(TensorSpec(name, "int64", ("n", "t")) for name in NAMES)
    return TextColumn(specs, ("a",), file.read_bytes(), 16, False, "", None, texts.PAD, lengths(16))


def encode(feature: TextColumn, **columns: pa.Array) -> dict[str, np.ndarray]:
    chunk = pa.record_batch(columns)
    return Encoder([feature], 8, {}).load(chunk)(0, chunk.num_rows)


@given(st.lists(st.text("w0123456789 \n", max_size=40), min_size=1, max_size=40), st.sampled_from([1, 3]))
def test_ids_are_the_tokenizer_s_own_and_the_rest_is_padding(file, feature, given, threads):
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(16)
    tensors = Encoder([feature], 8, {}, threads).load(pa.record_batch({"a": given}))(0, len(given))
    for row, text in enumerate(given):
        ids = tokenizer.encode(text).ids
        filled = tensors["input_ids"].shape[1] - len(ids)
        assert tensors["input_ids"][row].tolist() == ids + [texts.PAD] * filled
        assert tensors["attention_mask"][row].tolist() == [1] * len(ids) + [0] * filled
        assert tensors["position_ids"][row].tolist() == list(range(len(ids) + filled))
    assert not tensors["token_type_ids"].any()


def test_the_second_of_a_pair_has_type_one_and_a_prefix_stands_before_the_first(feature):
    pair = dataclasses.replace(feature, columns=("a", "b"), prefix="w9 ")
    tensors = encode(pair, a=pa.array(["w0"]), b=pa.array(["w1 w2"]))
    w = len(texts.SPECIAL)
    expected = [texts.CLS, w + 9, w, texts.SEP, w + 1, w + 2, texts.SEP]
    assert tensors["input_ids"][0, : len(expected)].tolist() == expected
    assert tensors["token_type_ids"][0, : len(expected)].tolist() == [0] * 4 + [1] * 3


@pytest.mark.parametrize(("from_left", "left"), [(False, "w0 w1"), (True, "w8 w9")])
def test_a_text_that_is_too_long_is_cut_on_the_side_that_was_asked_for(feature, from_left, left):
    short = dataclasses.replace(feature, max_length=4, from_left=from_left, lengths=lengths(4))
    tensors = encode(short, a=pa.array([" ".join(texts.WORDS[:10])]))
    assert tensors["input_ids"][0].tolist() == texts.ids_of(left)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_any_layout_of_text_is_read(feature, kind):
    tensors = encode(feature, a=pa.array(["w1", "w2 w3", "w1"]).cast(kind))
    assert tensors["attention_mask"].sum(axis=1).tolist() == [3, 4, 3]


def invalid(values: list[bytes | None]) -> pa.Array:
    """Text that isn't UTF-8, as a file may hold it: Arrow doesn't look."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), array.buffers())


BROKEN = [b"w1", None, b"w1 \xed\xa0\x80", b"", b"\xff"]


def test_every_row_without_a_text_is_named_with_its_reason(feature):
    _, bad = with_tokens(feature, pa.record_batch({"a": invalid(BROKEN)}), 1)
    reasons = {row: one.reason for row, one in bad.items()}
    assert reasons == {
        1: "null, a text is wanted",
        2: "no UTF-8 text: invalid continuation byte at 3",
        4: "no UTF-8 text: invalid start byte at 0",
    }
    with pytest.raises(BadRow) as caught:
        encode(feature, a=invalid(BROKEN))
    assert [one.row for one in caught.value.each()] == [1, 2, 4]


def test_a_null_may_become_a_text(feature):
    tensors = encode(dataclasses.replace(feature, fill="w5"), a=pa.array(["w1", None]))
    assert tensors["input_ids"][1, :3].tolist() == texts.ids_of("w5")


def test_a_text_without_a_token_is_a_bad_row(feature, file):
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.post_processor = None
    bare = dataclasses.replace(feature, tokenizer=tokenizer.to_str().encode())
    _, bad = with_tokens(bare, pa.record_batch({"a": ["w1", "  "]}), 1)
    assert list(bad) == [1]
    assert bad[1].reason.startswith("no token")


def test_texts_that_a_tokenizer_fails_on_are_bad_rows_and_their_neighbours_are_not(feature, file):
    tokenizer = Tokenizer.from_str(
        file.read_text()
        .replace('"unk_token":"[UNK]"', '"unk_token":"[GONE]"')
        .replace('"unk_token": "[UNK]"', '"unk_token": "[GONE]"')
    )
    strict = dataclasses.replace(feature, tokenizer=tokenizer.to_str().encode())
    _, bad = with_tokens(strict, pa.record_batch({"a": ["w1", "w1 strange", "w2"]}), 1)
    assert list(bad) == [1]
    assert bad[1].reason.startswith("the tokenizer fails: ")


def test_without_padding_rows_of_another_length_are_named(feature):
    bare = dataclasses.replace(feature, inputs=feature.inputs[:1], lengths=())
    assert encode(bare, a=pa.array(["w1", "w2"]))["input_ids"].shape == (2, 3)
    with pytest.raises(BadRow, match="3 tokens, 4 like its neighbours"):
        encode(bare, a=pa.array(["w1 w2", "w2"]))


class TestPooled:
    VALUES = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)

    @pytest.mark.parametrize("mask", [None, MASK])
    def test_a_mean_is_of_the_tokens_that_the_mask_has(self, mask):
        kept = [self.VALUES[0] if mask is None else self.VALUES[0, :3], self.VALUES[1]]
        np.testing.assert_allclose(pooled(self.VALUES, mask, "mean"), [one.mean(axis=0) for one in kept])

    def test_the_first_and_the_last_token_are_those_of_the_mask(self):
        np.testing.assert_array_equal(pooled(self.VALUES, self.MASK, "cls"), self.VALUES[:, 0])
        last = [self.VALUES[0, 2], self.VALUES[1, 3]]
        np.testing.assert_array_equal(pooled(self.VALUES, self.MASK, "last"), last)
        left = self.MASK[:, ::-1]
        np.testing.assert_array_equal(
            pooled(self.VALUES, left, "cls"), [self.VALUES[0, 1], self.VALUES[1, 0]]
        )

    @pytest.mark.parametrize("pool", ["mean", "cls", "last"])
    def test_what_a_model_says_of_padding_reaches_no_row(self, pool):
        broken = self.VALUES.copy()
        broken[0, 3] = np.nan
        np.testing.assert_array_equal(pooled(broken, self.MASK, pool), pooled(self.VALUES, self.MASK, pool))
