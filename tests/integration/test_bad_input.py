"""What goes wrong, and what the user is told: the culprit, what was expected, found, the next step.

Each case is a real job on real files that is broken in one way; it runs through the command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from onnx import helper

from tests import models


class Bench:
    """A folder with a job that works, to be broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.model = models.linear(folder / "model.onnx")
        self.write("a.parquet")
        self.lines = {
            "model": "model: {path: model.onnx}",
            "input": "input: {path: data}",
            "features": "features: {x: {columns: [f0, f1, f2]}}",
            "outputs": "outputs: {s: {from: scores}}",
            "output": "output: {path: out}",
        }

    def table(self, rows: int = 100, **replaced: object) -> pa.Table:
        rng = np.random.default_rng(0)
        columns: dict[str, object] = {f"f{i}": rng.standard_normal(rows).astype(np.float32) for i in range(3)}
        return pa.table(columns | {"id": np.arange(rows)} | replaced)

    def write(self, name: str, table: pa.Table | None = None, **options: object) -> Path:
        pq.write_table(self.table() if table is None else table, self.data / name, **options)
        return self.data / name

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "job.yaml").write_text("\n".join(self.lines.values()) + "\n")
        command = [sys.executable, "-m", "batchonnx", "run", "job.yaml", *arguments]
        environment = os.environ | {"NO_COLOR": "1"}
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env=environment, check=False
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_job_works_before_it_is_broken(bench: Bench) -> None:
    done = bench.run()
    assert done.returncode == 0, done.stderr
    assert pq.read_table(bench.folder / "out").num_rows == 100


Break = Callable[[Bench], object]


def _line(key: str, text: str) -> Break:
    return lambda bench: bench.lines.__setitem__(key, text)


def _truncate(path: Path, keep: int) -> None:
    os.truncate(path, keep)


def _damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 64)


def _external(bench: Bench) -> None:
    model = onnx.load(bench.model)
    onnx.save(model, bench.model, save_as_external_data=True, location="model.onnx.data", size_threshold=0)


def _missing_external(bench: Bench) -> None:
    _external(bench)
    (bench.folder / "model.onnx.data").unlink()


def _escaping_external(bench: Bench) -> None:
    _external(bench)
    model = onnx.load(bench.model, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../elsewhere.data"
    bench.model.write_bytes(model.SerializeToString())


def _node(operator: str, domain: str = "", **opset: int) -> Break:
    def replace(bench: Bench) -> None:
        model = onnx.load(bench.model)
        model.graph.node[0].op_type = operator
        model.graph.node[0].domain = domain
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))
        for version in opset.values():
            model.opset_import[0].version = version
        bench.model.write_bytes(model.SerializeToString())

    return replace


def _hook(body: str) -> Break:
    def write(bench: Bench) -> None:
        (bench.folder / "hooks.py").write_text(f"import numpy as np\n\n\ndef encode(batch):\n{body}\n")
        bench.lines["features"] = "features: {x: {columns: [f0, f1, f2], python: 'hooks:encode'}}"

    return write


CASES: list[tuple[str, Break, int, Sequence[str]]] = [
    ("missing input", _line("input", "input: {path: date}"), 3, ["date", "did you mean", "data"]),
    (
        "empty folder",
        lambda b: ((b.folder / "empty").mkdir(), _line("input", "input: {path: empty}")(b)),
        3,
        ["no files", "empty"],
    ),
    ("glob of nothing", _line("input", "input: {path: data/*.csv}"), 3, ["no file matches", "*.csv"]),
    (
        "unknown format",
        lambda b: (b.data / "notes.txt").write_text("x"),
        3,
        ["notes.txt", "input.format"],
    ),
    (
        "a column of another type in a second file",
        lambda b: b.write("b.parquet", b.table(f1=np.arange(100))),
        2,
        ["b.parquet", "f1", "int64", "float"],
    ),
    (
        "a column that a second file lacks",
        lambda b: b.write("b.parquet", b.table().drop_columns(["f2"])),
        2,
        ["b.parquet", "f2"],
    ),
    (
        "no Parquet",
        lambda b: (b.data / "a.parquet").write_bytes(b"hello, world, this is no table"),
        3,
        ["a.parquet", "isn't Parquet"],
    ),
    (
        "Parquet without its end",
        lambda b: _truncate(b.data / "a.parquet", 900),
        3,
        ["a.parquet", "cut short"],
    ),
    ("an empty file", lambda b: (b.data / "a.parquet").write_bytes(b""), 3, ["a.parquet", "empty"]),
    (
        "a damaged row group",
        lambda b: _damage(b.write("a.parquet", b.table(20_000)), 4),
        3,
        ["a.parquet", "row group"],
    ),
    (
        "flipped bits in a file with page checksums",
        lambda b: _damage(b.write("a.parquet", b.table(20_000), write_page_checksum=True), 40_000),
        3,
        ["a.parquet", "row group", "CRC"],
    ),
    (
        "a missing column",
        _line("features", "features: {x: {columns: [f0, f1, idd]}}"),
        2,
        ["job.yaml:3", "idd", 'did you mean "id"'],
    ),
    (
        "too few columns",
        _line("features", "features: {x: {columns: [f0, f1]}}"),
        2,
        ["2 wide", "wants 3", "x float32[n, 3]"],
    ),
    (
        "a column of text",
        lambda b: b.write("a.parquet", b.table(f1=["x"] * 100)),
        2,
        ["f1", "string", "float32"],
    ),
    (
        "integers that could be lost",
        lambda b: b.write("a.parquet", b.table(f1=np.arange(100))),
        2,
        ["f1", "int64", "cast: true"],
    ),
    (
        "lists of another length",
        lambda b: (
            b.write("a.parquet", b.table(v=pa.array([[1.0, 2.0]] * 100, pa.list_(pa.float32(), 2)))),
            _line("features", "features: {x: {column: v}}")(b),
        ),
        2,
        ["v", "[2]", "[3]"],
    ),
    (
        "lists of unequal length",
        lambda b: (
            b.write("a.parquet", b.table(v=[[1.0, 2.0, 3.0]] * 77 + [[1.0]] + [[1.0, 2.0, 3.0]] * 22)),
            _line("features", "features: {x: {column: v}}")(b),
        ),
        3,
        ["a.parquet", "row 77", "v"],
    ),
    (
        "nulls that the footer knows of",
        lambda b: (
            models.identity(b.model, "int64"),
            b.write("a.parquet", pa.table({f"f{i}": pa.array([1, None, 3]) for i in range(3)})),
            _line("outputs", "outputs: {s: {from: y}}")(b),
        ),
        2,
        ["f0", "1 nulls", "fill"],
    ),
    (
        "a fill of another type",
        _line("features", "features: {x: {columns: [f0, f1, f2], fill: none}}"),
        2,
        ["job.yaml:3", 'fill of "x" is no float32', "'none': text is no float32"],
    ),
    (
        "a fill that is too large",
        _line("features", "features: {x: {columns: [f0, f1, f2], fill: 1.0e+300}}"),
        2,
        ["job.yaml:3", "it doesn't fit float32"],
    ),
    (
        "a fraction for integers",
        lambda b: (
            models.identity(b.model, "int64"),
            b.write("a.parquet", pa.table({f"f{i}": pa.array([1, None, 3]) for i in range(3)})),
            _line("outputs", "outputs: {s: {from: y}}")(b),
            _line("features", "features: {x: {columns: [f0, f1, f2], fill: 0.5}}")(b),
        ),
        2,
        ["job.yaml:3", "0.5: it doesn't fit int64"],
    ),
    (
        "a constant that is too large",
        _line("features", "features: {x: {value: [0, 0, 1.0e+300]}}"),
        2,
        ["job.yaml:3", "it doesn't fit float32"],
    ),
    (
        "a value that would become infinite",
        lambda b: b.write("a.parquet", b.table(f1=np.append(np.zeros(99), 1e300))),
        3,
        ["a.parquet", "row 99", "f1", "1e+300 doesn't fit float32"],
    ),
    (
        "a filter that doesn't parse",
        _line("input", "input: {path: data, filter: 'id >'}"),
        2,
        ["filter", "id >", "^"],
    ),
    (
        "a filter that names no column",
        _line("input", "input: {path: data, filter: 'idd > 3'}"),
        2,
        ["idd", 'did you mean "id"'],
    ),
    ("no model", _line("model", "model: {path: modl.onnx}"), 2, ["modl.onnx", "did you mean", "model.onnx"]),
    ("an empty model", lambda b: b.model.write_bytes(b""), 2, ["model.onnx", "empty"]),
    (
        "a Git-LFS pointer",
        lambda b: b.model.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        2,
        ["Git-LFS", "git lfs pull"],
    ),
    ("an HTML page", lambda b: b.model.write_text("<!DOCTYPE html><html></html>"), 2, ["HTML"]),
    ("a truncated model", lambda b: _truncate(b.model, 120), 2, ["model.onnx", "truncated"]),
    ("weights that are missing", _missing_external, 2, ["model.onnx.data", "weights"]),
    ("weights outside the folder", _escaping_external, 2, ["../elsewhere.data", "outside"]),
    ("an unknown operator", _node("Frobnicate"), 2, ["Frobnicate"]),
    ("an unknown domain", _node("Frobnicate", "com.example"), 2, ["com.example", "Frobnicate"]),
    ("an opset too new", _node("Gemm", version=99), 2, ["too new"]),
    (
        "another model than the pinned one",
        _line("model", f"model: {{path: model.onnx, sha256: {'a' * 64}}}"),
        2,
        ["pinned", "a" * 64],
    ),
    (
        "an output that doesn't exist",
        _line("outputs", "outputs: {s: {from: score}}"),
        2,
        ["score", 'did you mean "scores"'],
    ),
    (
        "labels of the wrong number",
        _line("outputs", "outputs: {s: {from: scores, argmax: true, labels: [a, b, c]}}"),
        2,
        ["3 names", "2 values", "job.yaml:4"],
    ),
    (
        "an empty labels file",
        lambda b: (
            (b.folder / "labels.txt").write_text(""),
            _line("outputs", "outputs: {s: {from: scores, argmax: true, labels: labels.txt}}")(b),
        ),
        2,
        ["labels file is empty", "labels.txt", "job.yaml:4"],
    ),
    (
        "an index beyond",
        _line("outputs", "outputs: {s: {from: scores, index: 2}}"),
        2,
        ["index 2", "2 values"],
    ),
    (
        "a kept column that isn't there",
        lambda b: b.lines.__setitem__("keep", "keep: [idd]"),
        2,
        ["idd", 'did you mean "id"'],
    ),
    (
        "a kept column that Parquet can't hold",
        lambda b: (
            (b.data / "a.parquet").unlink(),
            feather.write_feather(
                b.table(gap=pa.array([pa.MonthDayNano([1, 2, 3])] * 100)), b.data / "a.arrow", "uncompressed"
            ),
            b.lines.__setitem__("keep", "keep: [gap]"),
        ),
        2,
        ["job.yaml:6", "gap", "month_day_nano_interval", "leave it out of keep"],
    ),
    (
        "a column that no quarantine can hold",
        lambda b: (
            (b.data / "a.parquet").unlink(),
            feather.write_feather(b.table(nothing=[{}] * 100), b.data / "a.arrow", "uncompressed"),
            _hook("    return np.zeros((batch.num_rows, 3), np.float32)")(b),
            _line("features", "features: {x: {columns: [nothing], python: 'hooks:encode'}}")(b),
            b.lines.__setitem__("errors", "errors: {max_bad_rows: 1}"),
        ),
        2,
        ["job.yaml:6", "nothing", "struct<>", "max_bad_rows: 0"],
    ),
    (
        "a batch that no machine can count",
        lambda b: b.lines.__setitem__("engine", "engine: {batch_rows: 1000000000000}"),
        2,
        ["job.yaml:6", "batch_rows", "at most 2,147,483,647"],
    ),
    (
        "an unknown key",
        lambda b: b.lines.__setitem__("x", "enigne: {}"),
        2,
        ["enigne", "engine", "job.yaml:6"],
    ),
    ("an unset variable", _line("output", "output: {path: 'out-{{ day }}'}"), 2, ["day", "--set day="]),
    (
        "an output that isn't ours",
        lambda b: ((b.folder / "out").mkdir(), (b.folder / "out" / "thesis.tex").write_text("…")),
        2,
        ["other files", "thesis.tex"],
    ),
    (
        "a hook that raises",
        _hook("    raise ValueError('no luck')"),
        2,
        ["hooks:encode", "no luck", "hooks.py:5"],
    ),
    (
        "a hook that ends the process",
        _hook("    raise SystemExit(0)"),
        2,
        ["hooks:encode", "SystemExit: 0", "hooks.py:5"],
    ),
    (
        "a hook with the wrong shape",
        _hook("    return np.zeros((7, 3), np.float32)"),
        2,
        ["hooks:encode", "[7, 3]", "rows on axis 0"],
    ),
    (
        "a hook with the wrong type",
        _hook("    return np.zeros((batch.num_rows, 3), complex)"),
        2,
        ["hooks:encode", "complex128", "float32"],
    ),
    (
        "a hook that isn't there",
        _line("features", "features: {x: {columns: [f0], python: 'hoks:encode'}}"),
        2,
        ["hoks", "hoks.py"],
    ),
    (
        "one answer for a whole batch",
        lambda b: (models.batch_mean(b.model), _line("outputs", "outputs: {s: {from: mean}}")(b)),
        2,
        ["mean", "each input row", "batch_axis"],
    ),
]


@pytest.mark.parametrize(("broken", "code", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_error_names_the_culprit_and_the_next_step(
    bench: Bench, broken: Break, code: int, words: Sequence[str]
) -> None:
    broken(bench)
    done = bench.run()
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert len(done.stderr.splitlines()) < 30
    left = {entry.name for entry in bench.folder.iterdir()}
    assert not any(name.startswith(".out") for name in left)
    assert not (bench.folder / "out" / "_SUCCESS").exists()


def test_a_result_is_never_its_own_input(bench: Bench) -> None:
    bench.lines["output"] = "output: {path: data/out, overwrite: true}"
    done = bench.run()
    assert done.returncode == 2
    assert "the output would be a part of the input" in done.stderr
    bench.lines["input"] = "input: {path: data/**/*.parquet}"
    assert bench.run().returncode == 0
    done = bench.run()
    assert done.returncode == 2
    assert "the output holds a file of the input" in done.stderr


def test_zero_rows_are_a_valid_empty_result(bench: Bench) -> None:
    bench.write("a.parquet", bench.table(0))
    done = bench.run()
    assert done.returncode == 0, done.stderr
    result = pq.read_table(bench.folder / "out")
    assert result.num_rows == 0
    assert result.schema.field("s").type == pa.list_(pa.float32(), 2)


def test_a_filter_that_drops_all_rows_is_a_valid_empty_result(bench: Bench) -> None:
    bench.lines["input"] = "input: {path: data, filter: 'id > 1000 and f0 > 0'}"
    done = bench.run()
    assert done.returncode == 0, done.stderr
    assert "100 rows in = 0 predicted + 100 filtered" in done.stdout


def test_a_former_result_is_kept_unless_overwriting_is_asked_for(bench: Bench) -> None:
    assert bench.run().returncode == 0
    before = {p.name: p.read_bytes() for p in (bench.folder / "out").glob("*.parquet")}
    bench.lines["keep"] = "keep: [id]"
    refused = bench.run()
    assert refused.returncode == 2
    assert "overwrite: true" in refused.stderr
    assert {p.name: p.read_bytes() for p in (bench.folder / "out").glob("*.parquet")} == before
    assert bench.run("--overwrite").returncode == 0


def test_every_mismatch_is_told_at_once(bench: Bench) -> None:
    bench.lines["features"] = "features: {x: {columns: [f0, f1]}, z: {column: f0}}"
    bench.lines["outputs"] = "outputs: {s: {from: nope}}"
    bench.lines["keep"] = "keep: [gone]"
    done = bench.run()
    assert done.stderr.count("error: ") == 4


def test_an_error_is_json_where_json_is_asked_for(bench: Bench) -> None:
    import json

    bench.lines["outputs"] = "outputs: {s: {from: score}}"
    done = bench.run("--json")
    error = json.loads(done.stdout)
    assert (error["error"], error["exit_code"], done.returncode) == ("ContractError", 2, 2)
    assert "score" in error["problems"][0]["title"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_told_and_leaves_nothing(bench: Bench) -> None:
    small = bench.folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        bench.write("a.parquet", bench.table(200_000))
        bench.lines["output"] = "output: {path: small/out}"
        done = bench.run()
        assert done.returncode == 3, done.stderr
        assert "the disk is full" in done.stderr
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
