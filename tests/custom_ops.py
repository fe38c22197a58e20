"""Small real models with operators of onnxruntime-extensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests import models, texts

DOMAIN = "ai.onnx.contrib"


def _save(path: Path, nodes: list[Any], given: Any, made: Any, weights: Any = None) -> Path:
    models.save(path, nodes, [given], [made], weights)
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)
    return path


def save_upper(path: Path) -> Path:
    """text string[n] -> upper string[n]."""
    node = helper.make_node("StringUpper", ["text"], ["upper"], domain=DOMAIN)
    return _save(path, [node], models.value("text", "string", ["n"]), models.value("upper", "string", ["n"]))


def save_lower(path: Path) -> Path:
    """text string[n] -> lower string[n]."""
    node = helper.make_node("StringLower", ["text"], ["lower"], domain=DOMAIN)
    return _save(path, [node], models.value("text", "string", ["n"]), models.value("lower", "string", ["n"]))


def save_embedder(path: Path) -> Path:
    """text string[1] -> mean float32[1, WIDTH] of its tokens' weights; the tokenizer is one of the nodes."""
    vocabulary = "\n".join([*texts.SPECIAL, *texts.WORDS, "[MASK]"])
    weights = {"weights": texts.embeddings(), "first": np.array([0], np.int64)}
    nodes = [
        helper.make_node(
            "BertTokenizer", ["text"], ["ids", "types", "mask"], domain=DOMAIN, vocab_file=vocabulary
        ),
        helper.make_node("Gather", ["weights", "ids"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["flat"], axes=[0], keepdims=0),
        helper.make_node("Unsqueeze", ["flat", "first"], ["mean"]),
    ]
    mean = models.value("mean", "float32", [1, texts.WIDTH])
    return _save(path, nodes, models.value("text", "string", [1]), mean, weights)
