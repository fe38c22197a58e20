"""The command line: quick, helpful, harmless."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchonnx.cli import main
from batchonnx.cli.errors import render
from batchonnx.cli.seconds import SECONDS
from batchonnx.errors import Problem
from tests import models

COMMANDS = [[], ["init"], ["plan"], ["run"], ["schema"], ["model"], ["model", "inspect"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.linear(tmp_path / "model.onnx")
    columns = {f"f{i}": np.arange(100, dtype=np.float32) for i in range(3)} | {"event_id": np.arange(100)}
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    return tmp_path


def call(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(command: list[str]) -> None:
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert "Example" in out
    assert "batchonnx " + " ".join(command) in out


@pytest.mark.parametrize("module", ["pyarrow", "numpy", "onnx", "onnxruntime", "pydantic", "ray", "rich"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = (
        "import sys\nfrom batchonnx.cli import main\ntry: main(['--help'])\n"
        f"except SystemExit: pass\nsys.exit({module!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_python_m_does_the_same(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batchonnx", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("batchonnx ")


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    code, _, err = call("pln")
    assert code == 2
    assert "Did you mean 'plan'?" in err


def test_init_plan_and_run_follow_each_other_without_an_edit(folder: Path) -> None:
    job = folder / "jobs" / "job.yaml"
    code, _, err = call("init", folder / "model.onnx", folder / "events.parquet", "-o", job)
    assert code == 0, err
    code, out, err = call("plan", job)
    assert code == 0, err
    assert "x float32[n, 3] <- f0, f1, f2" in out
    code, out, err = call("run", job)
    assert code == 0, err
    assert "100 rows in = 100 predicted + 0 filtered" in out
    assert "event_id" in out
    assert pq.read_table(folder / "jobs" / "predictions" / "score-events").column_names == [
        "event_id",
        "scores",
    ]


def test_init_does_not_overwrite_a_job(folder: Path) -> None:
    (folder / "job.yaml").write_text("precious")
    code, _, err = call("init", folder / "model.onnx", folder / "events.parquet", "-o", folder / "job.yaml")
    assert code == 2
    assert "exists already" in err
    assert (folder / "job.yaml").read_text() == "precious"


def test_init_says_which_columns_it_looked_at_where_nothing_fits(folder: Path) -> None:
    models.identity(folder / "image.onnx", "float32", ["n", 3, 224, 224])
    code, _, err = call("init", folder / "image.onnx", folder / "events.parquet")
    assert code == 2
    assert "x float32[n, 3, 224, 224]" in err
    assert "f0 float" in err


def test_json_is_json_and_nothing_else(folder: Path) -> None:
    job = folder / "job.yaml"
    call("init", folder / "model.onnx", folder / "events.parquet", "-o", job)
    plan = json.loads(call("plan", job, "--json")[1])
    assert (plan["input"]["rows"], plan["outputs"], plan["keep"]) == (
        100,
        {"scores": "fixed_size_list<item: float>[2]"},
        ["event_id"],
    )
    code, out, err = call("run", job, "--json")
    summary = json.loads(out)
    assert (code, err, summary["predicted"], summary["filtered"]) == (0, "", 100, 0)
    assert set(summary["busy_s"]) == {"read", "encode", "predict", "decode", "write"}
    card = json.loads(call("model", "inspect", folder / "model.onnx", "--json")[1])
    assert card["operators"] == {"Gemm": 1}
    schema = json.loads(call("schema")[1])
    assert "features" in schema["properties"]


def test_quiet_says_nothing(folder: Path) -> None:
    job = folder / "job.yaml"
    call("init", folder / "model.onnx", folder / "events.parquet", "-o", job)
    assert call("run", job, "--quiet") == (0, "", "")


def test_a_setting_without_a_value_is_told(folder: Path) -> None:
    code, _, err = call("plan", folder / "job.yaml", "--set", "day")
    assert code == 2
    assert "day" in err


def test_a_bug_keeps_its_traceback_and_says_that_it_is_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchonnx import api

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    job = folder / "job.yaml"
    call("init", folder / "model.onnx", folder / "events.parquet", "-o", job)
    monkeypatch.setattr(api, "plan", broken)
    code, _, err = call("plan", job)
    assert code == 1
    assert "ZeroDivisionError: oops" in err
    assert "bug of batchonnx" in err


def test_foreign_text_cannot_colour_or_rewrite_the_terminal() -> None:
    text = render(Problem('column "\x1b[31mred\n\rgone" [bold]', {"file": "a\x07b"}, "fix\u202eit"))
    assert "\x1b" not in text
    assert "\\x1b[31mred\\n\\rgone" in text
    assert "[bold]" in text
    assert "\x07" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(("told", "seconds"), [("90", 90.0), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0)])
def test_a_length_of_time_is_read_with_its_unit(told: str, seconds: float) -> None:
    assert SECONDS.convert(told, None, None) == seconds


@pytest.mark.parametrize("told", ["", "0s", "-1s", "5 minutes", "s"])
def test_what_is_no_length_of_time_is_refused(told: str) -> None:
    done = CliRunner().invoke(main, ["tune", "job.yaml", "--budget", told])
    assert done.exit_code == 2
    assert "write 90s, 2m or 1h" in done.stderr


@pytest.mark.parametrize("option", [["--budget", "5s"], ["--engine", "ray"]])
def test_what_only_a_probe_heeds_goes_with_one(option: list[str]) -> None:
    done = CliRunner().invoke(main, ["plan", "job.yaml", *option])
    assert done.exit_code == 2
    assert f"{option[0]} goes with --probe" in done.stderr
