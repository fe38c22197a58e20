"""What a look at a model tells, and the pages that show it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

from batchonnx.cli import main
from batchonnx.errors import ContractError
from batchonnx.lifecycle.flops import count_flops
from batchonnx.lifecycle.graph_outline import outline
from batchonnx.lifecycle.inspection import look_into
from batchonnx.lifecycle.profile import profile_model
from batchonnx.report.model_page import model_page
from batchonnx.report.profile_view import profile_page
from batchonnx.runtime.profiler import read_events
from tests import awkward, models


def test_arithmetic_is_counted_as_by_hand(tmp_path: Path) -> None:
    linear = count_flops(onnx.load(models.linear(tmp_path / "m.onnx", width=10, classes=4)), {})
    assert linear is not None
    assert (linear.per_row, linear.by_operator) == (2 * 10 * 4 + 4, {"Gemm": 84})
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], group=2)
    inputs = [models.value("x", "float32", ["n", 4, "height", 6])]
    outputs = [models.value("y", "float32", ["n", 8, "height", 6])]
    weights = {"w": np.zeros((8, 2, 3, 3), np.float32)}
    conv = count_flops(
        onnx.load(models.save(tmp_path / "c.onnx", [node], inputs, outputs, weights)), {"height": 5}
    )
    assert conv is not None
    assert (conv.per_row, conv.sizes) == (2 * 8 * 5 * 6 * (2 * 3 * 3), {"height": 5})


def test_a_fixed_batch_is_counted_by_the_row_and_what_can_t_be_counted_is_named(tmp_path: Path) -> None:
    fixed = count_flops(onnx.load(models.identity(tmp_path / "i.onnx", shape=[4, 3])), {})
    assert fixed is not None
    assert fixed.per_row == 0
    loop = count_flops(onnx.load(awkward.endless(tmp_path / "l.onnx")), {})
    assert loop is not None
    assert (loop.per_row, loop.uncounted) == (0, {"Loop": 1})


def test_a_look_tells_open_dimensions_and_who_would_run_it(tmp_path: Path) -> None:
    found = look_into(str(awkward.pooled(tmp_path / "m.onnx", heeds_mask=True)))
    assert found.symbols == {"n": ("x", "attention_mask", "y"), "length": ("x", "attention_mask")}
    cpu = next(one for one in found.placement if one.provider == "CPUExecutionProvider")
    assert cpu.nodes is not None
    assert sum(cpu.nodes.values()) > 0
    json.dumps(found.as_dict())


def test_boxes_stand_below_what_they_hang_on_and_no_two_in_one_place(tmp_path: Path) -> None:
    drawn = outline(onnx.load(awkward.pooled(tmp_path / "m.onnx", heeds_mask=True)))
    assert [box.title for box in drawn.boxes if box.kind != "node"] == ["x", "attention_mask", "y"]
    assert all(drawn.boxes[a.start].layer < drawn.boxes[a.end].layer for a in drawn.arrows)
    assert len({(box.layer, box.place) for box in drawn.boxes}) == len(drawn.boxes)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


EVIL = "\"><script>alert(1)</script><img src=x onerror='alert(1)'>"


def hostile(path: Path) -> Path:
    """Every text that a model holds is markup."""
    node = helper.make_node("Elu", [EVIL], ["y" + EVIL], name=EVIL, doc_string=EVIL)
    inputs, outputs = (
        [models.value(EVIL, "float32", [EVIL, 3])],
        [models.value("y" + EVIL, "float32", [EVIL, 3])],
    )
    model = onnx.load(models.save(path, [node], inputs, outputs))
    model.producer_name = EVIL
    helper.set_model_props(model, {EVIL: EVIL})
    onnx.save(model, path)
    return path


def test_nothing_in_a_model_is_markup_on_a_page_and_a_page_loads_nothing(tmp_path: Path) -> None:
    path = str(hostile(tmp_path / "m.onnx"))
    for text in (model_page(look_into(path)), profile_page(profile_model(path, calls=2))):
        seen = Tags()
        seen.feed(text.decode())
        assert not seen.tags & {"script", "img", "iframe", "object", "link", "a"}
        assert not [name for name in seen.attributes if name.startswith("on") or name in ("src", "href")]
        assert b"default-src 'none'" in text


def test_a_graph_that_nobody_could_see_isn_t_drawn(tmp_path: Path) -> None:
    drawn = outline(onnx.load(awkward.growing_bomb(tmp_path / "m.onnx", times=3001)))
    assert (drawn.boxes, drawn.nodes) == ((), 3003)


def test_a_profile_names_the_operators_that_ran(tmp_path: Path) -> None:
    found = profile_model(str(models.linear(tmp_path / "m.onnx")), batch_rows=16, calls=3)
    assert found.rows == 16
    assert "Gemm" in {one.operator for one in found.operators}
    assert sum(one.share for one in found.operators) == pytest.approx(1)
    assert {one.provider for one in found.nodes} == {"CPUExecutionProvider"}
    with pytest.raises(ContractError, match="can't be profiled"):
        profile_model(str(awkward.one_row_only(tmp_path / "one.onnx")), batch_rows=2, calls=1)


def test_only_the_last_calls_of_a_profile_count() -> None:
    def event(name: str, at: int, taken: int) -> dict[str, object]:
        told = {"op_name": "Add", "provider": "CPUExecutionProvider", "output_size": "8"}
        return {"cat": "Node", "name": name, "ts": at, "dur": taken, "args": told}

    events = [
        event("a_kernel_time", 1, 900),
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 1000, "args": {}},
        event("a_kernel_time", 2001, 30),
        event("a_kernel_time", 2040, 50),
        {"cat": "Session", "name": "model_run", "ts": 2000, "dur": 100, "args": {}},
    ]
    found = read_events(events, 1)
    assert found.call_s == pytest.approx(1e-4)
    (node,) = found.nodes
    assert (node.name, node.calls, node.bytes) == ("a", 2, 16)
    assert node.seconds == pytest.approx(8e-5)


def test_the_commands_write_pages_and_json(tmp_path: Path) -> None:
    path = str(models.linear(tmp_path / "m.onnx"))
    for command in (["inspect"], ["profile", "--calls", "2", "--batch", "4"]):
        page = tmp_path / f"{command[0]}.html"
        done = CliRunner().invoke(main, ["model", *command, path, "--html", str(page), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)
        assert page.read_text().startswith("<!doctype html>")
    done = CliRunner().invoke(main, ["model", "inspect", path, "--html", str(tmp_path / "no" / "x.html")])
    assert done.exit_code == 3
    assert "can't be written" in done.stderr
    done = CliRunner().invoke(main, ["model", "profile", path, "--calls", "2"])
    assert "Gemm" in done.stdout
