"""A model's bytes: its digest, the weights beside it, a URL, and what can be wrong with files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from batchonnx.errors import BatchonnxError, ModelFileError, Problem
from batchonnx.runtime.model_file import find_model
from batchonnx.runtime.session import open_model
from tests import models

ROWS = np.random.default_rng(3).standard_normal((5, 200)).astype(np.float32)


def sha256(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def externalize(path: Path, location: str = "m.data") -> Path:
    """Move a model's weights into a file beside it, whose path is given back."""
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=0)
    return path.parent / location


def relocate(path: Path, location: str) -> None:
    """Let all weights point to another file name."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def problem(path: Path | str, kind: type[BatchonnxError] = ModelFileError, **options: str) -> Problem:
    with pytest.raises(kind) as caught:
        open_model(str(path), **options)  # type: ignore[arg-type]
    return caught.value.problems[0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return models.linear(tmp_path / "models" / "m.onnx", width=200)


def test_the_digest_is_sha256sum_s_where_all_is_in_one_file(model: Path) -> None:
    signature = open_model(str(model)).signature
    assert (signature.digest, signature.bytes) == (sha256(model), model.stat().st_size)


def test_the_digest_goes_on_through_the_weights_in_order_of_their_names(model: Path) -> None:
    proto = onnx.load(model)
    for name, tensor in zip(("z.data", "a.data"), proto.graph.initializer, strict=True):
        onnx.external_data_helper.set_external_data(tensor, name)
    onnx.save(proto, model)
    files = [model, model.parent / "a.data", model.parent / "z.data"]
    file = find_model(str(model))
    assert file.external == ("a.data", "z.data")
    assert file.digest == sha256(*files)
    assert file.bytes == sum(f.stat().st_size for f in files)
    assert file.size == model.stat().st_size


def test_one_changed_byte_of_the_weights_is_another_model(model: Path) -> None:
    data = externalize(model)
    before = find_model(str(model))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    assert find_model(str(model)).digest != before.digest


def test_weights_of_nodes_and_of_branches_are_found_too(tmp_path: Path) -> None:
    def outside(name: str, location: str) -> onnx.TensorProto:
        tensor = helper.make_tensor(name, TensorProto.FLOAT, [2], b"\0\0\0\0\0\0\0\0", raw=True)
        onnx.external_data_helper.set_external_data(tensor, location, 0, 8)
        tensor.ClearField("raw_data")
        (tmp_path / location).write_bytes(np.array([1, 2], np.float32).tobytes())
        return tensor

    held = helper.make_node("Constant", [], ["k"], value=outside("k", "constant.data"))
    add = helper.make_node("Add", ["x", "k"], ["t"])
    mul = helper.make_node("Mul", ["x", "m"], ["e"])
    then = helper.make_graph([held, add], "then", [], [models.value("t", "float32", [2])])
    other = helper.make_graph(
        [mul], "else", [], [models.value("e", "float32", [2])], [outside("m", "inner.data")]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    inputs = [models.value("x", "float32", [2]), models.value("c", "bool", [])]
    path = models.save(tmp_path / "m.onnx", [node], inputs, [models.value("y", "float32", [2])])
    assert find_model(str(path)).external == ("constant.data", "inner.data")


@pytest.mark.parametrize("location", ["m.data", "weights/m.data", "./m.data"])
def test_a_model_with_weights_beside_it_scores_as_before(model: Path, location: str) -> None:
    before = open_model(str(model)).run(["scores"], {"x": ROWS})[0]
    (model.parent / "weights").mkdir()
    externalize(model, location)
    assert np.array_equal(open_model(str(model)).run(["scores"], {"x": ROWS})[0], before)


def test_weights_may_be_links_as_model_hubs_make_them(model: Path) -> None:
    data = externalize(model)
    data.rename(model.parent / "blob")
    data.symlink_to(model.parent / "blob")
    assert open_model(str(model)).signature.bytes == model.stat().st_size + data.stat().st_size


def test_a_url_brings_its_weights_along_and_stays_the_model_s_path(model: Path) -> None:
    externalize(model)
    url = model.as_uri()
    found = open_model(url)
    assert found.signature.path == url
    assert found.signature.digest == find_model(str(model)).digest
    assert found.run(["scores"], {"x": ROWS})[0].shape == (5, 2)


def test_a_url_without_its_weights_says_so(model: Path) -> None:
    externalize(model).unlink()
    found = problem(model.as_uri())
    assert "weights" in found.title
    assert "m.data" in found.title
    assert found.facts["path"].startswith("file://")


def test_a_missing_model_s_nearest_neighbour_is_named(model: Path) -> None:
    found = problem(model.with_name("n.onnx"))
    assert found.facts["path"].endswith("n.onnx")
    assert str(model) in found.fix


def test_a_folder_is_no_model(model: Path) -> None:
    found = problem(model.parent)
    assert "folder" in found.title
    assert found.facts["path"] == str(model.parent)


def test_missing_weights_are_named_with_where_they_were_looked_for(model: Path) -> None:
    externalize(model).unlink()
    found = problem(model)
    assert '"m.data"' in found.title
    assert found.facts["looked in"] == str(model.parent)


@pytest.mark.parametrize("cut", [1, 100, None])
def test_weights_that_are_cut_short_are_measured(model: Path, cut: int | None) -> None:
    data = externalize(model)
    whole = data.stat().st_size
    data.write_bytes(data.read_bytes()[: -cut if cut else 0])
    found = problem(model)
    assert "cut short" in found.title
    assert f"{data.stat().st_size:,} bytes" in found.facts["weights"]
    assert f"{whole:,} bytes" in found.facts["expected"]


def test_weights_that_are_a_git_lfs_pointer_are_fetched_by_git(model: Path) -> None:
    data = externalize(model)
    data.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1608\n")
    found = problem(model)
    assert "Git-LFS pointer" in found.title
    assert "git lfs pull" in found.fix


@pytest.mark.parametrize("where", ["../m.data", "sub/../../m.data", "absolute"])
def test_weights_outside_the_model_s_folder_are_refused(model: Path, where: str) -> None:
    data = externalize(model)
    outside = model.parent.parent / "m.data"
    shutil.move(data, outside)
    location = str(outside) if where == "absolute" else where
    relocate(model, location)
    found = problem(model)
    assert "outside its folder" in found.title
    assert location in found.title


def test_a_pin_accepts_its_model_alone(model: Path) -> None:
    assert open_model(str(model), sha256=sha256(model)).signature.digest == sha256(model)
    found = problem(model, sha256="a" * 64)
    assert "pinned" in found.title
    assert "a" * 64 in found.facts["expected"]
    assert sha256(model) in found.facts["found"]


def test_a_pin_covers_the_weights_beside_the_model(model: Path) -> None:
    data = externalize(model)
    pin = find_model(str(model)).digest
    open_model(str(model), sha256=pin)
    data.write_bytes(bytes(data.stat().st_size))
    assert "m.data" in problem(model, sha256=pin).facts["model"]


def test_a_pinned_model_that_is_a_pointer_is_called_one(model: Path) -> None:
    pin = sha256(model)
    model.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{pin}\nsize 1900\n")
    assert "Git-LFS pointer" in problem(model, sha256=pin).title
