"""Small real tokenizers and models of text, made by their own libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import helper
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

from tests import models

WORDS = tuple(f"w{number}" for number in range(100))
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PAD, UNKNOWN, CLS, SEP = range(4)
WIDTH = 12


def save_tokenizer(path: Path) -> Path:
    """One token a word: `w7` is 11; [CLS] in front, [SEP] behind; the second of a pair has type 1."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.save(str(path))
    return path


def ids_of(text: str) -> list[int]:
    """What that tokenizer makes of one text."""
    known = {word: number for number, word in enumerate(WORDS, len(SPECIAL))}
    return [CLS, *(known.get(word, UNKNOWN) for word in text.split()), SEP]


def embeddings() -> np.ndarray:
    """float32[tokens, WIDTH]: the weights of `save_encoder`'s model."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((len(SPECIAL) + len(WORDS), WIDTH)).astype(np.float32)


def save_encoder(
    path: Path, inputs: Sequence[str] = ("input_ids", "attention_mask"), *, tokens: int | str = "t"
) -> Path:
    """input_ids int64[n, t] -> hidden float32[n, t, WIDTH]: the embedding of each token, times its mask.

    What has the type 1 is added ten times its type, and each position a thousandth.
    """
    nodes = [helper.make_node("Gather", ["weights", "input_ids"], ["h0"])]
    scales = {"attention_mask": None, "token_type_ids": 10.0, "position_ids": 0.001}
    weights = {"weights": embeddings(), "last": np.array([2], np.int64)}
    for number, name in enumerate(inputs[1:]):
        nodes.append(helper.make_node("Cast", [name], [f"{name} f"], to=1))
        nodes.append(helper.make_node("Unsqueeze", [f"{name} f", "last"], [f"{name} u"]))
        value = f"{name} u"
        if (scale := scales[name]) is not None:
            weights[f"{name} scale"] = np.array(scale, np.float32)
            nodes.append(helper.make_node("Mul", [value, f"{name} scale"], [f"{name} v"]))
            value = f"{name} v"
        how = "Mul" if scale is None else "Add"
        nodes.append(helper.make_node(how, [f"h{number}", value], [f"h{number + 1}"]))
    nodes.append(helper.make_node("Identity", [f"h{len(inputs) - 1}"], ["hidden"]))
    given = [models.value(name, "int64", ["n", tokens]) for name in inputs]
    return models.save(path, nodes, given, [models.value("hidden", "float32", ["n", tokens, WIDTH])], weights)


def save_mean(path: Path) -> Path:
    """input_ids int64[n, t] -> mean float32[n, WIDTH], of all ids: a model that has no mask."""
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["mean"], axes=[1], keepdims=0),
    ]
    ids, mean = models.value("input_ids", "int64", ["n", "t"]), models.value("mean", "float32", ["n", WIDTH])
    return models.save(path, nodes, [ids], [mean], {"weights": embeddings()})


def draw_texts(count: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Texts of 0 to `longest` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size)) for size in rng.integers(0, longest + 1, count)]
