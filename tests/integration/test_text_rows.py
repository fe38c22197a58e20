"""Tables of text as people have them: each row is scored once, in its place, or put aside with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper
from tokenizers import Tokenizer

import batchonnx
from batchonnx.job.load import job_from_dict
from tests import models, texts
from tests.benchmarks.memory import peak_mb

LONG = " ".join(texts.WORDS) * 3_000
LONGEST = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts.save_tokenizer(tmp_path / "tokenizer.json")
    texts.save_encoder(tmp_path / "model.onnx")
    texts.save_mean(tmp_path / "mean.onnx")
    return tmp_path


def job(folder: Path, **changes: Any) -> dict[str, Any]:
    feature = {"column": "text", "tokenizer": "tokenizer.json", "max_length": LONGEST}
    return {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"input_ids": feature},
        "outputs": {"embedding": {"from": "hidden", "pool": "mean"}},
        "keep": ["id"],
        "output": {"path": "out", "overwrite": True},
    } | changes


def run(folder: Path, **changes: Any) -> batchonnx.api.RunSummary:
    return batchonnx.run(job_from_dict(job(folder, **changes), folder=folder))


def write(folder: Path, column: list[str] | pa.Array, row_group_size: int = 500) -> None:
    table = pa.table({"id": np.arange(len(column)), "text": column})
    pq.write_table(table, folder / "in.parquet", row_group_size=row_group_size)


def expected(given: list[str]) -> np.ndarray:
    """float32[n, WIDTH]: the mean over each text's tokens, cut at LONGEST."""
    weights = texts.embeddings()
    cut = [
        [*ids[: LONGEST - 1], texts.SEP] if len(ids) > LONGEST else ids for ids in map(texts.ids_of, given)
    ]
    return np.stack([weights[ids].mean(axis=0) for ids in cut])


def column_of(output: str, name: str = "embedding") -> np.ndarray:
    column = pq.read_table(output)[name].combine_chunks()
    return np.asarray(column.flatten().to_numpy().reshape(len(column), -1))


def parts(output: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(output).glob("*.parquet")}


def test_every_text_is_scored_or_put_aside_with_its_reason(folder: Path) -> None:
    rows = {
        "plain": b"w1 w2",
        "empty": b"",
        "long": LONG.encode(),
        "unknown": "ŵ 漢字 🙂".encode(),
        "null": None,
        "lone surrogate": b"w1 \xed\xa0\x80",
        "half a letter": b"\xc3",
    }
    array = pa.array(list(rows.values()), pa.binary())
    write(folder, pa.Array.from_buffers(pa.string(), len(rows), array.buffers()))
    summary = run(folder, errors={"max_bad_rows": 3})
    assert (summary.predicted, summary.quarantined) == (4, 3)
    given = [value.decode() for value in list(rows.values())[:4] if value is not None]
    np.testing.assert_allclose(column_of(summary.output), expected(given), rtol=1e-5)
    bad = pq.read_table(Path(summary.output) / "_batchonnx" / "quarantine")
    assert bad["batchonnx_row"].to_pylist() == [4, 5, 6]
    assert bad["batchonnx_error"].to_pylist() == [
        "text: null, a text is wanted",
        "text: no UTF-8 text: invalid continuation byte at 3",
        "text: no UTF-8 text: unexpected end of data at 0",
    ]
    assert bad["text"].to_pylist() == [None, None, None], "what is no text can't be kept as one"
    batchonnx.verify(summary.output, deep=True)


@pytest.mark.parametrize("model", ["model.onnx", "mean.onnx"])
def test_bytes_are_the_same_whatever_the_workers_and_the_rows_in_their_order(
    folder: Path, model: str
) -> None:
    given = texts.draw_texts(9_000)
    write(folder, [None if row in (17, 4_321) else text for row, text in enumerate(given)], 7_000)
    outputs = {} if model == "model.onnx" else {"outputs": {"embedding": {"from": "mean"}}}
    made = []
    for workers in (1, 7):
        engine = {"workers": workers, "batch_rows": 8}
        summary = run(folder, model={"path": model}, errors={"max_bad_rows": 2}, engine=engine, **outputs)
        made.append(parts(summary.output))
    assert made[0] == made[1]
    assert len(made[0]) > 1
    del given[4_321], given[17]
    np.testing.assert_allclose(column_of(summary.output), expected(given), rtol=1e-4, atol=1e-6)
    assert 0 < batchonnx.verify(summary.output, deep=True, rows=100).rescored < 1_000


def test_a_text_that_the_model_fails_on_costs_its_own_row(folder: Path) -> None:
    """Tokens that the model has no weights for, as where a tokenizer was extended."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["beyond"])
    tokenizer.save(str(folder / "tokenizer.json"))
    given = texts.draw_texts(300)
    given[40] = "w1 beyond"
    write(folder, given)
    summary = run(folder, errors={"max_bad_rows": 1})
    assert (summary.predicted, summary.quarantined) == (299, 1)
    del given[40]
    np.testing.assert_allclose(column_of(summary.output), expected(given), rtol=1e-4, atol=1e-6)
    assert 40 not in pq.read_table(summary.output)["id"].to_pylist()


def test_vectors_are_normalized_and_kept_in_fewer_bits(folder: Path) -> None:
    given = texts.draw_texts(50)
    write(folder, given)
    vector = {"from": "hidden", "pool": "mean", "normalize": True}
    precisions = {"float32": None, "float16": "float16", "int8": "int8", "binary": "binary"}
    outputs = {
        name: vector | ({"precision": asked} if asked else {}) for name, asked in precisions.items()
    } | {"first": {"from": "hidden", "pool": "cls"}}
    summary = run(folder, outputs=outputs)
    schema = pq.read_schema(next(Path(summary.output).glob("*.parquet")))
    assert [str(schema.field(name).type) for name in outputs] == [
        "fixed_size_list<element: float>[12]",
        "fixed_size_list<element: halffloat>[12]",
        "fixed_size_list<element: int8>[12]",
        "fixed_size_list<element: uint8>[2]",
        "fixed_size_list<element: float>[12]",
    ]
    plain = expected(given)
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(column_of(summary.output, "float32"), unit, atol=1e-6)
    np.testing.assert_array_equal(
        column_of(summary.output, "float16"), column_of(summary.output, "float32").astype(np.float16)
    )
    np.testing.assert_allclose(column_of(summary.output, "int8"), unit * 127, atol=0.51)
    np.testing.assert_array_equal(column_of(summary.output, "binary"), np.packbits(unit > 0, axis=1))
    np.testing.assert_array_equal(column_of(summary.output, "first"), [texts.embeddings()[texts.CLS]] * 50)


def test_pairs_of_texts_and_other_columns_reach_the_model_together(folder: Path) -> None:
    """A second feature is a row's own, although rows go in another order."""
    add = helper.make_node("Add", ["hidden", "u"], ["out"])
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["hidden"]),
        helper.make_node("Cast", ["token_type_ids"], ["types"], to=1),
        helper.make_node("ReduceSum", ["types", "last"], ["second"], keepdims=1),
        helper.make_node("Add", ["second", "extra"], ["y"]),
        helper.make_node("Unsqueeze", ["y", "two"], ["u"]),
        add,
    ]
    inputs = [models.value(name, "int64", ["n", "t"]) for name in ("input_ids", "token_type_ids")]
    inputs.append(models.value("extra", "float32", ["n", 1]))
    weights = {"weights": texts.embeddings(), "last": np.array([1]), "two": np.array([2])}
    models.save(folder / "model.onnx", nodes, inputs, [models.value("y", "float32", ["n", 1])], weights)
    first, second = texts.draw_texts(200, 1, 9), texts.draw_texts(200, 2, 9)
    extra = np.arange(200, dtype=np.float32) * 100
    pq.write_table(
        pa.table({"id": np.arange(200), "a": first, "b": second, "extra": extra}), folder / "in.parquet"
    )
    features = {
        "input_ids": {"columns": ["a", "b"], "tokenizer": "tokenizer.json", "max_length": LONGEST, "pad": 0},
        "extra": {"column": "extra"},
    }
    summary = run(folder, features=features, outputs={"y": {"from": "y"}})
    counts = [len(text.split()) + 1 for text in second]
    assert pq.read_table(summary.output)["y"].to_pylist() == (extra + counts).tolist()


@pytest.mark.slow
def test_a_million_texts_go_in_few_shapes_and_in_constant_memory(folder: Path) -> None:
    """The model tells in which shape it was run: its second output is that, for each row."""
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=1),
        helper.make_node("ReduceSum", ["mask", "last"], ["tokens"], keepdims=0),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Unsqueeze", ["shape", "zero"], ["one row"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Concat", ["rows", "ones"], ["times"], axis=0),
        helper.make_node("Tile", ["one row", "times"], ["shapes"]),
    ]
    inputs = [models.value(name, "int64", ["n", "t"]) for name in ("input_ids", "attention_mask")]
    outputs = [models.value("tokens", "float32", ["n"]), models.value("shapes", "int64", ["n", 2])]
    weights = {"last": np.array([1]), "zero": np.array([0]), "ones": np.array([1])}
    models.save(folder / "model.onnx", nodes, inputs, outputs, weights)
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(0, np.log(511), 1_000_000)).astype(int)
    words = " ".join(rng.choice(texts.WORDS, 600))
    ends = [at for at, letter in enumerate(words + " ") if letter == " "]
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(folder / "in.parquet", schema) as writer:
        for first in range(0, len(sizes), 20_000):
            rows = range(first, first + 20_000)
            column = [words[: ends[size - 1]] if size else "" for size in sizes[rows.start : rows.stop]]
            writer.write_batch(pa.record_batch([pa.array(rows, pa.int64()), column], schema=schema))
    seen: list[tuple[int, float]] = []
    feature = {"column": "text", "tokenizer": "tokenizer.json", "max_length": 512}
    asked = {"tokens": {"from": "tokens"}, "shape": {"from": "shapes"}}
    made = []
    for workers in (1, 7):
        spec = job(folder, features={"input_ids": feature}, outputs=asked, engine={"workers": workers})
        summary = batchonnx.run(
            job_from_dict(spec, folder=folder),
            on_progress=lambda progress: seen.append((progress.rows_in, peak_mb())),
        )
        made.append(parts(summary.output))
        if workers == 1:
            at_tenth = next(peak for rows, peak in seen if rows >= len(sizes) // 10)
            assert seen[-1][1] < at_tenth * 1.05
    assert made[0] == made[1]
    table = pq.read_table(summary.output)
    assert table["id"].to_pylist() == list(range(len(sizes)))
    np.testing.assert_array_equal(table["tokens"].to_numpy(), np.minimum(sizes + 2, 512))
    shapes = table["shape"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
    assert len(np.unique(shapes, axis=0)) <= 32


def test_a_job_is_guessed_for_a_model_with_a_tokenizer_beside_it(folder: Path, tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "synset": ["c", "d"], "text": ["the cat", "on a mat"]})
    pq.write_table(table, folder / "in.parquet")
    (folder / "tokenizer_config.json").write_text(f'{{"model_max_length": {LONGEST}}}')
    home = tmp_path / "jobs"
    home.mkdir()
    text = batchonnx.init(str(folder / "model.onnx"), str(folder / "in.parquet"), folder=home)
    assert "{column: text, tokenizer: ../tokenizer.json}" in text
    (home / "job.yaml").write_text(text)
    assert batchonnx.run(home / "job.yaml").predicted == 2
