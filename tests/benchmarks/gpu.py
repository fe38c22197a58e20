"""batchonnx on a device, beside what a user would write for it: rows, images and tokens in a second.

    python -m tests.benchmarks.gpu                     a GPU: some eight minutes, about 2 GB of disk
    python -m tests.benchmarks.gpu --device cpu --seconds 3     whether it works, where there is no GPU

    tensors  a CNN of ResNet-50's size on images that are tensors already: `raw` binds ready arrays and calls
             the session, in one thread, at the best of some batch sizes; `data` is Ray Data with that session
    sizes    the same CNN: what `batch_rows: auto` finds, beside each size given
    jpeg     the same CNN on JPEGs of 256 x 256, cut and scaled
    text     MiniLM (jobs/models/minilm, if python jobs/get_glosses.py has made it; else a transformer of its
             size, and a tokenizer of docstrings) on docstrings: `loop` pads batches of 32, as they come

All weights and images are made here; every contender runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZES = (8, 16, 32, 64, 128, 256)
GOALS = {"busy": 0.9, "raw": 0.95, "text": 3.0, "auto": 0.95}
SIDE, UNIT, MAX_LENGTH, LOOP_ROWS = 224, 128, 256, 32
"""UNIT: rows of one file, of which there are as many links as it takes."""

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
MINILM = Path(__file__).parents[2] / "jobs" / "models" / "minilm"


def opened(model: Path, device: str) -> Any:
    """What a user opens: a session with its defaults."""
    import onnxruntime

    if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(str(model), providers=[PROVIDERS[device]], enable_fallback=0)
    if session.get_providers()[0] != PROVIDERS[device]:
        raise SystemExit(f"no {PROVIDERS[device]} here: batchonnx doctor says why")
    return session


# The contenders, each in a process of its own


def raw(folder: Path, device: str, seconds: float) -> dict[str, Any]:
    """Rows/s of a loop of bindings on arrays that are ready, at each size."""
    session = opened(folder / "resnet.onnx", device)
    pixels = np.random.default_rng(0).integers(0, 255, (max(SIZES), 3, SIDE, SIDE), np.uint8)
    rates: dict[int, float] = {}
    for size in SIZES:

        def call(size: int = size) -> None:
            binding = session.io_binding()
            binding.bind_cpu_input("pixels", pixels[:size])
            binding.bind_output("scores", "cpu")
            session.run_with_iobinding(binding)
            binding.get_outputs()[0].numpy().argmax(axis=1)

        call()
        calls, begin = 0, perf_counter()
        while perf_counter() - begin < seconds / len(SIZES):
            call()
            calls += 1
        rates[size] = calls * size / (perf_counter() - begin)
        if rates[size] < 0.8 * max(rates.values()):
            break
    best = max(rates, key=lambda size: rates[size])
    return {"rate": rates[best], "batch_rows": best, "rates": rates}


def ours(folder: Path, device: str, rows: int, out: str, **engine: Any) -> dict[str, Any]:
    """A run of the folder's job; its rate is that of scoring alone, of the rows behind the first batch."""
    import yaml

    from batchonnx import api
    from batchonnx.report.verdict import verdict

    asked = yaml.safe_load((folder / "job.yaml").read_text())
    asked["engine"] = {"device": device, **engine}
    asked["output"] = {"path": str(folder / out), "overwrite": True}
    (folder / f"{out}.yaml").write_text(yaml.safe_dump(asked))
    summary = api.run(folder / f"{out}.yaml")
    scoring_s = summary.elapsed_s - (summary.first_row_s or 0.0)
    figures = {
        "rate": max(0, rows - summary.batch_rows) / scoring_s,
        "batch_rows": summary.batch_rows,
        "seconds": summary.elapsed_s,
    }
    busy = [one.busy for one in summary.devices]
    used = [one.utilisation for one in summary.devices if one.utilisation is not None]
    figures |= {"busy": sum(busy) / len(busy) if busy else 0.0}
    figures |= {"utilisation": sum(used) / len(used)} if used else {}
    return figures | {"verdict": verdict(summary.devices, summary.busy_s) or ""}


def ray_data(folder: Path, device: str, rows: int, size: int) -> dict[str, Any]:
    """Ray Data with the same session in one actor, from reading to writing."""
    import ray
    import ray.data

    class Predict:
        def __init__(self) -> None:
            self._session = opened(folder / "resnet.onnx", device)

        def __call__(self, batch: Any) -> dict[str, np.ndarray]:
            x = np.stack(batch["pixels"]).reshape(-1, 3, SIDE, SIDE)
            (scores,) = self._session.run(["scores"], {"pixels": x})
            return {"best": scores.argmax(axis=1)}

    ray.init(log_to_driver=False, logging_level="ERROR", num_gpus=int(device == "cuda"))
    ray.data.DataContext.get_current().enable_progress_bars = False
    out = folder / "ray-data"
    shutil.rmtree(out, ignore_errors=True)
    options = {"num_gpus": 1} if device == "cuda" else {"num_cpus": 1}
    begin = perf_counter()
    dataset = ray.data.read_parquet(str(folder / "in"))
    dataset = dataset.map_batches(Predict, batch_size=size, concurrency=1, **options)
    dataset.write_parquet(str(out))
    seconds = perf_counter() - begin
    ray.shutdown()
    return {"rate": rows / seconds, "seconds": seconds}


def loop(folder: Path, device: str, rows: int) -> dict[str, Any]:
    """Texts in batches of 32 in their order, the tokenizer's own padding, mean pooling in numpy."""
    from tokenizers import Tokenizer

    session = opened(folder / "model.onnx", device)
    names = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    fed = {spec.name: names[spec.name] for spec in session.get_inputs()}
    (output,) = [spec.name for spec in session.get_outputs()][:1]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding()
    texts = pq.read_table(folder / "in")["text"].to_pylist()[:rows]
    begin, tokens = perf_counter(), 0
    for first in range(0, len(texts), LOOP_ROWS):
        encoded = tokenizer.encode_batch(texts[first : first + LOOP_ROWS])
        feed = {name: np.array([getattr(one, key) for one in encoded]) for name, key in fed.items()}
        (hidden,) = session.run([output], feed)
        mask = feed["attention_mask"][:, :, None]
        (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        tokens += int(mask.sum())
    seconds = perf_counter() - begin
    return {"rate": len(texts) / seconds, "tokens": tokens / len(texts)}


# What they are fed


def links(folder: Path, table: pa.Table, rows: int) -> int:
    """As many files of a table as make about so many rows; gives their number."""
    shutil.rmtree(folder / "in", ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    pq.write_table(table, folder / "unit.parquet", compression="none", use_dictionary=False)
    count = max(2, -(-rows // table.num_rows))
    for number in range(count):
        os.link(folder / "unit.parquet", folder / "in" / f"{number:06}.parquet")
    return count * table.num_rows


def tensors(rows: int) -> pa.Table:
    """Noise, as images that are decoded already."""
    values = np.random.default_rng(0).integers(0, 255, rows * 3 * SIDE * SIDE, np.uint8)
    return pa.table({"pixels": pa.FixedSizeListArray.from_arrays(pa.array(values), 3 * SIDE * SIDE)})


def jpegs(rows: int) -> pa.Table:
    """Smooth colours with some noise, of about 20 KB each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(rows):
        coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).resize((256, 256))
        noisy = np.asarray(coarse, np.int16) + rng.integers(-12, 12, (256, 256, 3))
        file = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        pictures.append(file.getvalue())
    return pa.table({"image": pictures})


def text_model(folder: Path, texts: list[str]) -> str:
    """Model and tokenizer in the folder; gives what they are."""
    if MINILM.exists():
        for name in ("model.onnx", "tokenizer.json"):
            shutil.copy(MINILM / name, folder / name)
        return "MiniLM"
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordPiece
    from tokenizers.trainers import WordPieceTrainer

    from tests.benchmarks.gpu_models import encoder

    encoder(folder / "model.onnx")
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, WordPieceTrainer(vocab_size=30_522, special_tokens=special, show_progress=False)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return "a transformer of MiniLM's size"


CNN_JOB = {
    "model": {"path": "resnet.onnx"},
    "input": {"path": "in"},
    "features": {"pixels": {"column": "pixels", "shape": [3, SIDE, SIDE]}},
    "outputs": {"best": {"from": "scores", "argmax": True}},
}
IMAGE = {"size": [SIDE, SIDE], "layout": "NCHW"}


class Bench:
    """Where it runs, and how long each contender may take."""

    def __init__(self, folder: Path, device: str, seconds: float) -> None:
        self.folder, self.device, self.seconds = folder, device, seconds
        self.unit = UNIT if device != "cpu" else 8
        self._raw: dict[str, Any] | None = None

    def apart(self, contender: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        """A contender's figures, from a process of its own."""
        told = json.dumps([contender, str(self.folder), self.device, arguments, options])
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--contender", told]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{contender} failed:\n{done.stderr[-3000:]}{done.stdout[-1000:]}")
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(f"  {contender} {arguments} {options} {figures}", file=sys.stderr, flush=True)
        return figures

    def cnn(self) -> dict[str, Any]:
        """The CNN in the folder; what a raw loop makes of it, found once."""
        if self._raw is None:
            from tests.benchmarks.gpu_models import resnet

            resnet(self.folder / "resnet.onnx")
            self._raw = self.apart("raw", self.seconds)
        return self._raw

    def job(self, asked: dict[str, Any]) -> None:
        """The job that `ours` runs."""
        (self.folder / "job.yaml").write_text(json.dumps(asked))

    def tensors(self) -> Iterator[str]:
        """A CNN on tensors."""
        bare = self.cnn()
        self.job(CNN_JOB)
        rows = links(self.folder, tensors(self.unit), int(bare["rate"] * self.seconds))
        mine = self.apart("ours", rows, "out")
        yield f"tensors: {rows:,} of 3 x {SIDE} x {SIDE} bytes through a CNN of ResNet-50's size"
        yield f"  raw   {bare['rate']:10,.1f} rows/s  batches of {bare['batch_rows']}"
        yield f"  ours  {mine['rate']:10,.1f} rows/s  batches of {mine['batch_rows']}{_told(mine)}"
        yield f"  {mine['rate'] / bare['rate']:.2f} of the raw loop   (goal: {GOALS['raw']})"
        try:
            import ray.data  # noqa: F401
        except ImportError:
            yield "  data  left out: pip install -e '.[bench]'"
            return
        theirs = self.apart("ray_data", rows, bare["batch_rows"])
        whole = rows / mine["seconds"]
        yield f"  data  {theirs['rate']:10,.1f} rows/s, its start in it; with its start, ours {whole:,.1f}"

    def sizes(self) -> Iterator[str]:
        """auto beside each size."""
        bare = self.cnn()
        self.job(CNN_JOB)
        rows = links(self.folder, tensors(self.unit), int(bare["rate"] * self.seconds / 3))
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self.apart("ours", rows, "out-auto")
        again = self.apart("ours", rows, "out-auto-2")
        rates = {}
        for size in SIZES:
            rates[size] = self.apart("ours", rows, f"out-{size}", batch_rows=size)["rate"]
            if rates[size] < 0.8 * max(rates.values()):
                break
        yield f"sizes: {rows:,} of the same tensors, by batch_rows"
        yield "  " + "  ".join(f"{size}: {rate:,.1f} rows/s" for size, rate in rates.items())
        share = again["rate"] / max(rates.values())
        yield f"  auto: {again['batch_rows']}, {share:.2f} of the best   (goal: {GOALS['auto']})"

    def jpeg(self) -> Iterator[str]:
        """A CNN on encoded images."""
        bare = self.cnn()
        self.job(CNN_JOB | {"features": {"pixels": {"column": "image", "image": IMAGE}}})
        table = jpegs(self.unit)
        rows = links(self.folder, table, int(min(bare["rate"], 300 * (os.cpu_count() or 1)) * self.seconds))
        mine = self.apart("ours", rows, "out-jpeg")
        size = table.nbytes / table.num_rows
        yield f"jpeg: {rows:,} JPEGs of 256 x 256, {size / 1000:.0f} KB each, through the same CNN"
        yield f"  ours  {mine['rate']:10,.1f} images/s  batches of {mine['batch_rows']}{_told(mine)}"

    def text(self) -> Iterator[str]:
        """Docstrings to vectors."""
        from tests.benchmarks.text import docstrings

        some = docstrings(20_000)
        what = text_model(self.folder, some)
        few = 64 if self.device == "cpu" else 6_400
        links(self.folder, pa.table({"text": some}), len(some))
        theirs = self.apart("loop", few)
        rows = links(self.folder, pa.table({"text": some[:few]}), int(3 * theirs["rate"] * self.seconds))
        output = "last_hidden_state" if MINILM.exists() else "hidden"
        feature = {"column": "text", "tokenizer": "tokenizer.json", "max_length": MAX_LENGTH}
        self.job(
            {
                "model": {"path": "model.onnx"},
                "input": {"path": "in"},
                "features": {"input_ids": feature},
                "outputs": {"vector": {"from": output, "pool": "mean", "normalize": True}},
            }
        )
        mine = self.apart("ours", rows, "out-text")
        tokens = theirs["tokens"]
        yield f"text: {rows:,} docstrings of {tokens:.0f} tokens through {what}"
        yield f"  loop  {theirs['rate']:10,.1f} rows/s  {theirs['rate'] * tokens:12,.0f} tokens/s"
        told = f"{mine['rate'] * tokens:12,.0f} tokens/s  batches of {mine['batch_rows']}{_told(mine)}"
        yield f"  ours  {mine['rate']:10,.1f} rows/s  {told}"
        yield f"  {mine['rate'] / theirs['rate']:.2f}x the loop   (goal: {GOALS['text']})"


def _told(figures: dict[str, Any]) -> str:
    """How busy the device was."""
    used = f", computing {figures['utilisation']:.0%}" if "utilisation" in figures else ""
    goal = f"(goal: {GOALS['busy']:.0%} busy)" if figures["verdict"] else ""
    return f"  {figures['verdict']}{used}   {goal}".rstrip()


CONTENDERS = {"raw": raw, "ours": ours, "ray_data": ray_data, "loop": loop}
CASES = ("tensors", "sizes", "jpeg", "text")


def main() -> None:
    """Run the cases asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=list(PROVIDERS), default="cuda")
    parser.add_argument("--only", choices=CASES, action="append", help="a case; may be repeated")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each contender (default 20)")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        name, folder, device, arguments, named = json.loads(options.contender)
        print(json.dumps(CONTENDERS[name](Path(folder), device, *arguments, **named)))
        return
    with tempfile.TemporaryDirectory(prefix="batchonnx-gpu-") as scratch:
        bench, lines = Bench(Path(scratch), options.device, options.seconds), []
        for case in options.only or CASES:
            lines += [*getattr(bench, case)(), ""]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
