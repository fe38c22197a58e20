"""Text to vectors as others do it: a loop, Ray Data and Daft. Batches of 32 in the order of the rows, the
tokenizer's own padding. Each runs in a process of its own: python -m tests.benchmarks.text NAME FOLDER.

A loop is timed from its begin, the others from the moment when the first of their workers has its session.
`pip install -e '.[bench]'` brings Ray Data. Daft says that it wants an older pyarrow than that of
constraints.txt, but runs with it: pip install --no-deps daft.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from batchonnx.runtime.cores import usable_cores

MODEL = Path(__file__).parents[2] / "jobs" / "models" / "minilm"
MAX_LENGTH, ROWS, WIDTH = 256, 32, 384
INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
SCHEMA = pa.schema([("embedding", pa.list_(pa.float32(), WIDTH))])


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a contender is set. None: as it does by itself.

    workers: at once. cpus: that one of them asks for. threads: of one session; 0: ONNX Runtime's own choice.
    blocks: that Ray Data reads the input in.
    """

    workers: int | None = None
    cpus: float | None = None
    threads: int = 0
    blocks: int | None = None


TUNED = Setting(workers=usable_cores(), cpus=0.5, threads=1, blocks=8 * usable_cores())
"""A worker for each core, with a session of one thread; tasks that read and write find room beside them."""


def open_tokenizer() -> Any:
    """MiniLM's own, without padding."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.no_padding()
    return tokenizer


def tensors(made: Sequence[Any]) -> dict[str, np.ndarray]:
    """The model's inputs for texts of one length."""
    return {name: np.array([getattr(one, told) for one in made]) for name, told in INPUTS.items()}


class Embedder:
    """A worker's: tokenizer and session. ready: a folder that is told when both are there."""

    def __init__(self, threads: int, ready: Path | None = None) -> None:
        self._tokenizer = open_tokenizer()
        self._tokenizer.enable_padding(pad_id=0)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(MODEL / "model.onnx"), options, ["CPUExecutionProvider"])
        if ready is not None:
            (ready / str(time.time_ns())).touch()

    def embed(self, texts: Sequence[str]) -> pa.FixedSizeListArray:
        """One batch."""
        fed = tensors(self._tokenizer.encode_batch(texts))
        (hidden,) = self._session.run(["last_hidden_state"], fed)
        mask = fed["attention_mask"][:, :, np.newaxis].astype(np.float32)
        mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return pa.FixedSizeListArray.from_arrays(pa.array(unit.ravel()), WIDTH)


def loop(folder: Path) -> float:
    """What a user would write. Seconds."""
    begin = time.perf_counter()
    embedder = Embedder(0)
    with (
        tempfile.TemporaryDirectory(dir=folder) as out,
        pq.ParquetWriter(f"{out}/out.parquet", SCHEMA) as writer,
    ):
        for batch in pq.ParquetFile(folder / "in.parquet").iter_batches(ROWS):
            column = embedder.embed(batch.column(0).to_pylist())
            writer.write_batch(pa.record_batch([column], schema=SCHEMA))
    return time.perf_counter() - begin


class _RayWorker:
    def __init__(self, setting: Setting, ready: Path) -> None:
        self._embedder = Embedder(setting.threads, ready)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table([self._embedder.embed(batch["text"].to_pylist())], schema=SCHEMA)


def ray_data(setting: Setting, folder: Path) -> float:
    """read_parquet, map_batches by actors, write_parquet, on the cluster of RAY_ADDRESS. Seconds."""
    import ray
    import ray.data

    ray.init(log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    # The processes of tasks are there before it begins.
    ray.data.from_arrow([pa.table({"n": [number]}) for number in range(4)]).map_batches(_late).materialize()

    def work(out: Path, ready: Path) -> None:
        blocks = {} if setting.blocks is None else {"override_num_blocks": setting.blocks}
        dataset = ray.data.read_parquet(str(folder / "in.parquet"), **blocks)
        dataset.map_batches(
            _RayWorker,
            fn_constructor_args=(setting, ready),
            batch_size=ROWS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=setting.workers),
            num_cpus=setting.cpus,
        ).write_parquet(str(out))

    return _timed(folder, work)


def _late(batch: Any) -> Any:
    time.sleep(0.5)  # long enough for all cores to be asked
    return batch


def daft(setting: Setting, folder: Path) -> float:
    """read_parquet, a batch method of a class, write_parquet, by its native runner. Seconds."""
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    import daft

    vector = daft.DataType.fixed_size_list(daft.DataType.float32(), WIDTH)
    options = {} if setting.workers is None else {"max_concurrency": setting.workers, "use_process": True}

    @daft.cls(**options)
    class Worker:
        def __init__(self, ready: str) -> None:
            self._embedder = Embedder(setting.threads, Path(ready))

        @daft.method.batch(return_dtype=vector, batch_size=ROWS)
        def embed(self, text: Any) -> Any:
            return self._embedder.embed(text.to_pylist())

    def work(out: Path, ready: Path) -> None:
        rows = daft.read_parquet(str(folder / "in.parquet"))
        rows.select(Worker(str(ready)).embed(rows["text"]).alias("embedding")).write_parquet(str(out))

    return _timed(folder, work)


def _timed(folder: Path, work: Callable[[Path, Path], None]) -> float:
    """Seconds from the first session to the end. work: writes a vector for each text to the first folder."""
    out, ready = folder / "out-others", folder / "ready"
    for place in (out, ready):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    work(out, ready)
    seconds = time.time() - min(int(file.name) for file in ready.iterdir()) / 1e9
    written = sum(pq.read_metadata(file).num_rows for file in out.rglob("*.parquet"))
    assert written == pq.read_metadata(folder / "in.parquet").num_rows
    return seconds


OTHERS: Mapping[str, Callable[[Path], float]] = {
    "loop": loop,
    "daft": partial(daft, Setting()),
    "daft-tuned": partial(daft, TUNED),
    "ray": partial(ray_data, Setting()),
    "ray-tuned": partial(ray_data, TUNED),
}
