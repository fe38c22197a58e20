"""The page on a result tells what is so, needs nothing, and does nothing that data or model want it to do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchonnx import api
from batchonnx.cli import main
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger.records import Manifest, StoredFile, to_bytes
from batchonnx.parts.layout import Layout, encoded
from batchonnx.report.prices import FREE, Prices, Requests
from batchonnx.report.text import amount
from tests import models
from tests.benchmarks.taken_up import make_commit, make_plan
from tests.browser import find_browser
from tests.stores.fixtures import UseStore
from tests.stores.s3server import S3Server

CODE = "document.body.append('PW'+'NED')"
HOSTILE = [
    f"<script>{CODE}</script>",
    f"</style><img src=x onerror={CODE}>",
    f"'\"><svg onload={CODE}>",
    f"]]>--><iframe srcdoc='<script>parent.{CODE}</script>'>",
    "a\x1b[31m\u202e\ufeffb",
]


def make_job(folder: Path, rows: int = 900, shift: float = 0.0, **more: Any) -> JobFile:
    """x float32[n, 3] -> a class of two, and its probability; row 7 of each file is bad."""
    if not (folder / "model.onnx").exists():
        models.linear(folder / "model.onnx")
    (folder / "in").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        columns: dict[str, Any] = {
            f"f{i}": (rng.standard_normal(rows // 3) + shift).astype(np.float32) for i in range(3)
        }
        ids = np.arange(rows // 3)
        columns["id"] = pa.array(ids + number * 1000)
        pq.write_table(pa.table(columns), folder / "in" / f"{number}.parquet")
    job: dict[str, Any] = {
        "name": "page",
        "model": {"path": "model.onnx"},
        "input": {"path": "in"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "outputs": {
            "score": {"from": "scores", "softmax": True, "index": 1},
            "label": {"from": "scores", "argmax": True, "labels": ["good", "bad"]},
        },
        "keep": ["id"],
        "output": {"path": "out"},
    }
    return job_from_dict({**job, **more}, folder=folder)


def text_of(page: bytes) -> str:
    """The page's words, in one line."""
    body = page.decode().partition("</style>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("&gt;", ">").replace("&lt;", "<")


def test_the_page_accounts_for_every_row_with_the_proof_s_verdict(tmp_path: Path) -> None:
    api.run(make_job(tmp_path))
    page = api.report(tmp_path / "out")
    words = text_of(page.html)
    assert not page.broken
    assert "900 rows in = 900 predicted + 0 quarantined + 0 filtered out" in words
    assert "Proved: 1 part with size" in words
    for told in (
        "x float32[n, 3]",
        "scores float32[n, 2]",
        "local, ",
        "name: page",
        "score float",
        "label string",
    ):
        assert told in words, told
    assert "http" not in page.html.decode().replace("http-equiv", "")
    assert "<script" not in page.html.decode()


def test_a_result_that_was_changed_is_said_not_to_be_proved(tmp_path: Path) -> None:
    api.run(make_job(tmp_path))
    part = min((tmp_path / "out").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    done = CliRunner().invoke(main, ["report", str(tmp_path / "out"), "-o", str(tmp_path / "p.html")])
    assert done.exit_code == 4
    words = text_of((tmp_path / "p.html").read_bytes())
    assert "Not proved" in words
    assert part.name in words


def test_predictions_are_shown_beside_those_that_they_took_the_place_of(tmp_path: Path) -> None:
    api.run(make_job(tmp_path))
    first = json.loads((tmp_path / "out/_batchonnx/manifest.json").read_text())
    api.run(make_job(tmp_path, shift=1.0), overwrite=True)
    manifest = json.loads((tmp_path / "out/_batchonnx/manifest.json").read_text())
    assert [past["run"] for past in manifest["history"]] == [first["run"]]
    assert [profile["column"] for profile in manifest["before"]] == ["score", "label"]
    words = text_of(api.report(tmp_path / "out").html)
    assert f"beside run {first['run']}, which this one took the place of" in words
    assert "(was " in words
    assert "Before it, at the same place" in words


def test_predictions_are_shown_beside_another_result_s(tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 1.0)):
        (tmp_path / name).mkdir()
        api.run(make_job(tmp_path / name, shift=shift))
    words = text_of(api.report(tmp_path / "a/out", against=tmp_path / "b/out").html)
    assert f"at {tmp_path / 'b/out'}" in words
    assert "before: " in words


def test_a_run_writes_its_page_where_it_is_told_to(tmp_path: Path) -> None:
    make_job(tmp_path)
    (tmp_path / "job.yaml").write_text(
        "model: {path: model.onnx}\ninput: {path: in}\nfeatures: {x: {columns: [f0, f1, f2]}}\n"
        "output: {path: out}\n"
    )
    told = ["run", str(tmp_path / "job.yaml"), "--quiet", "--report", str(tmp_path / "p" / "page.html")]
    assert CliRunner().invoke(main, told).exit_code == 0
    assert "Recorded, not proved" in text_of((tmp_path / "p/page.html").read_bytes())
    again = CliRunner().invoke(main, told)  # nothing is to be scored: the page is of what is there
    assert again.exit_code == 0


def test_the_page_tells_what_the_run_has_cost(tmp_path: Path) -> None:
    """By the hours that its workers had their cores, and the bytes of its result."""
    make_job(tmp_path)
    (tmp_path / "job.yaml").write_text(
        "model: {path: model.onnx}\ninput: {path: in}\nfeatures: {x: {columns: [f0, f1, f2]}}\n"
        "output: {path: out}\n"
    )
    (tmp_path / "prices.yaml").write_text("currency: CHF\ncpu_hour: 3600000\ngb_month: 1000000000\n")
    told = ["run", str(tmp_path / "job.yaml"), "--quiet", "--prices", str(tmp_path / "prices.yaml")]
    assert CliRunner().invoke(main, told).exit_code == 2, "there is no page to tell it on"
    assert CliRunner().invoke(main, [*told, "--report", str(tmp_path / "page.html")]).exit_code == 0
    work = json.loads((tmp_path / "out/_batchonnx/manifest.json").read_text())["work"]
    seconds = work["workers"] * work["threads_per_worker"] * work["elapsed_s"]
    size = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.parquet"))
    words = text_of((tmp_path / "page.html").read_bytes())
    assert f"core hours {amount(seconds / 3600)} " in words
    assert f"CHF: cpu {amount(1000 * seconds)}, storage {size:,}; storage is for a month" in words
    assert f"{amount(1000 * seconds + size)} estimated cost, CHF" in words


def test_reasons_are_told_with_rows_that_have_them(tmp_path: Path) -> None:
    models.identity(tmp_path / "model.onnx", "int64", ["n"])
    codes = pa.array([1, None, 3, None], pa.int64())
    pq.write_table(pa.table({"code": codes}), tmp_path / "in.parquet")
    job = {
        "model": {"path": "model.onnx"},
        "input": {"path": "in.parquet"},
        "features": {"x": {"column": "code"}},
        "errors": {"max_bad_rows": 2},
        "output": {"path": "out"},
    }
    api.run(job_from_dict(job, folder=tmp_path))
    words = text_of(api.report(tmp_path / "out").html)
    assert "2 rows couldn't be scored" in words
    assert f"{tmp_path / 'in.parquet'} 1 null" in words


def test_a_model_that_has_gone_or_changed_is_said_to_have(tmp_path: Path) -> None:
    api.run(make_job(tmp_path))
    models.linear(tmp_path / "model.onnx", classes=3)
    assert "is another model by now" in text_of(api.report(tmp_path / "out").html)
    (tmp_path / "model.onnx").unlink()
    assert "sha256" in text_of(api.report(tmp_path / "out").html)


def test_the_stage_that_a_hook_holds_up_is_named(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time, numpy as np\n\ndef encode(rows):\n    time.sleep(0.1)\n"
        "    return np.stack([rows.column(n).to_numpy() for n in ('f0', 'f1', 'f2')], axis=1)\n"
    )
    features = {"x": {"columns": ["f0", "f1", "f2"], "python": "slow:encode"}}
    summary = api.run(make_job(tmp_path, features=features, engine={"batch_rows": 300}))
    assert max(summary.busy_s, key=lambda stage: summary.busy_s[stage]) == "encode"
    assert "encode held workers back" in text_of(api.report(tmp_path / "out").html)


def test_a_result_in_a_bucket_has_a_page(tmp_path: Path, s3: S3Server, use_store: UseStore) -> None:
    use_store(s3)
    for shift in (0.0, 1.0):
        summary = api.run(
            make_job(tmp_path, shift=shift, output={"path": "s3://scores/page"}), overwrite=True
        )
    prices = Prices(currency="EUR", requests=Requests(put=1000, get=1000, list=1000))
    words = text_of(api.report("s3://scores/page", prices=prices).html)
    assert "Proved: 1 part with size" in words
    assert "PutObject" in words
    (cost,) = re.findall(r"([0-9.,]+) EUR: requests", words)
    free = sum(number for name, number in summary.requests.items() if name in FREE)
    before_publishing = sum(summary.requests.values()) - free
    assert 0 < float(cost.replace(",", "")) <= before_publishing
    assert "(was " in words


def make_hostile(folder: Path) -> JobFile:
    """Column names, labels, errors, values, metadata, file and job: all would like to run something."""
    script, image, svg, frame, control = HOSTILE
    models.identity(folder / "model.onnx", "string", ["n"])
    model = onnx.load(folder / "model.onnx")
    model.producer_name = script
    for i, text in enumerate(HOSTILE):
        entry = model.metadata_props.add()
        entry.key, entry.value = f"{i}{text}", text
    onnx.save(model, folder / "model.onnx")
    (folder / "hostile.py").write_text(
        "def encode(rows):\n    values = rows.column(0)\n"
        f"    if 'bad' in values.to_pylist():\n        raise ValueError({image!r})\n"
        "    return values.to_numpy(zero_copy_only=False)\n"
    )
    file = folder / f"{svg.replace('/', '')}.parquet"
    values = pa.array([*HOSTILE, *HOSTILE, "bad"])
    pq.write_table(pa.table({frame: values, script: values}), file)
    return job_from_dict(
        {
            "name": script,
            "model": {"path": "model.onnx"},
            "input": {"path": str(file)},
            "features": {"x": {"columns": [frame], "python": "hostile:encode"}},
            "outputs": {image: {"from": "y"}, control: {"from": "y"}},
            "keep": [script],
            "errors": {"max_bad_rows": 1},
            "output": {"path": "out"},
        },
        folder=folder,
    )


@pytest.mark.slow
def test_a_browser_runs_nothing_that_data_and_model_would_have_it_run(tmp_path: Path) -> None:
    browser = find_browser(tmp_path / "profile")
    api.run(make_hostile(tmp_path))
    page = tmp_path / "page.html"
    page.write_bytes(api.report(tmp_path / "out").html)
    dom = browser.dom(page)
    assert "1 row couldn't be scored" in re.sub(r"<[^>]+>", "", dom)
    assert "PWNED" not in dom
    assert not re.search(r"<(script|img|iframe|object|link|a)\b", dom)
    assert not re.search(r"<[^>]*\son\w+=", dom)
    # The same code, put in as markup, does run where nothing keeps it away: the test can fail.
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    page.write_text(policy.sub("", page.read_text()).replace("</main>", f"{HOSTILE[0]}</main>"))
    assert "PWNED" in browser.dom(page)
    page.write_bytes(api.report(tmp_path / "out").html.replace(b"</main>", HOSTILE[0].encode() + b"</main>"))
    assert "PWNED" not in browser.dom(page), "the page's policy keeps it from being run, too"


@pytest.mark.slow
def test_the_page_is_drawn_in_light_dark_on_a_phone_and_on_paper(tmp_path: Path) -> None:
    """Text within the window's width, other colours in the dark, pictures that are there."""
    from PIL import Image

    browser = find_browser(tmp_path / "profile")
    api.run(make_job(tmp_path))
    page = tmp_path / "page.html"
    page.write_bytes(api.report(tmp_path / "out").html)
    seen = {}
    for name, width, options in (
        ("light", 1100, ["--blink-settings=preferredColorScheme=1"]),
        ("dark", 1100, ["--blink-settings=preferredColorScheme=0"]),
        ("phone", 500, []),
    ):
        browser.screenshot(page, tmp_path / f"{name}.png", width, 2600, *options)
        seen[name] = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
    assert np.median(seen["light"]) > 200
    assert np.median(seen["dark"]) < 60
    for picture in seen.values():
        margin = picture[:, -6:]  # nothing runs out of the page
        assert margin.max() - margin.min() < 10
    browser.print(page, tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def moment(second: int) -> str:
    return f"2026-01-01T{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}.000Z"


@pytest.mark.slow
def test_a_run_of_100_000_shards_has_a_page_of_less_than_three_megabytes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "_batchonnx").mkdir(parents=True)
    (out / "_SUCCESS").touch()
    plan = make_plan(100_000, tmp_path)
    pq.write_table(pa.table({"score": np.linspace(0, 1, 200)}), out / "one.parquet")
    part = StoredFile("one.parquet", 200, (out / "one.parquet").stat().st_size, "0" * 64)
    commits = tuple(
        replace(
            make_commit(shard),
            at=moment(shard.shard),
            parts=(part,),
            worker=f"worker-{shard.shard % 16}",
            host=f"node-{shard.shard % 40}",
            took_s=1.0 + shard.shard % 7,
            memory=1 << 28,
        )
        for shard in plan.shards
    )
    layout = Layout(schema=encoded(pa.schema([("score", pa.float64())])))
    rows = 200 * len(commits)
    manifest = Manifest(
        plan.run, plan.fingerprint, "0" * 64, None, rows, rows, 0, 0, 1024, None, (), (), commits, layout
    )  # fmt: skip
    (out / "_batchonnx/plan.json").write_bytes(to_bytes(plan))
    (out / "_batchonnx/manifest.json").write_bytes(to_bytes(manifest))
    page = api.report(out, prove=False)
    assert len(page.html) < 3_000_000
    assert "score double" in text_of(page.html)
    browser = find_browser(tmp_path / "profile")
    (tmp_path / "page.html").write_bytes(page.html)
    begin = perf_counter()
    assert "100,000 shards" in browser.dom(tmp_path / "page.html")
    print(f"{len(page.html):,} bytes, opened in {perf_counter() - begin:.1f} s")


def test_a_chain_s_models_have_a_card_each_and_one_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    models.linear(tmp_path / "first.onnx", 3, 4)
    models.linear(tmp_path / "second.onnx", 4, 2)
    pq.write_table(pa.table({f"f{i}": np.zeros(9, np.float32) for i in range(3)}), tmp_path / "rows.parquet")
    chain = {
        "encoder": {"path": "first.onnx"},
        "head": {"path": "second.onnx", "inputs": {"x": "encoder.scores"}},
    }
    job = {
        "models": chain,
        "input": {"path": "rows.parquet"},
        "features": {"x": {"columns": ["f0", "f1", "f2"]}},
        "output": {"path": "out"},
    }
    api.run(job_from_dict(job, folder=tmp_path))
    words = text_of(api.report(tmp_path / "out").html)
    assert words.index("scores float32[n, 4]") < words.index(" head ") < words.index("scores float32[n, 2]")
    models.linear(tmp_path / "second.onnx", 4, 3)
    words = text_of(api.report(tmp_path / "out").html)
    assert "scores float32[n, 4]" in words
    assert "second.onnx is another model by now" in words
