"""What may be replaced, what may not, and how a result takes its place."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from batchonnx.errors import OutputExistsError, StorageError
from batchonnx.ledger.commit import Commit
from batchonnx.ledger.staging import (
    check_output,
    create_staging,
    discard_staging,
    disk_error,
    publish,
    read_plan_record,
    write_records,
)


def staged(output: Path, text: str) -> Path:
    staging = create_staging(output)
    (staging / "part-00000.parquet").write_text(text)
    write_records(staging, {"fingerprint": text}, [Commit(0, "part-00000.parquet", 3, 2, 1, 9)])
    return staging


def test_a_staging_folder_is_hidden_beside_the_output_and_becomes_it(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    staging = staged(output, "one")
    assert staging.parent == output.parent
    assert staging.name.startswith(".out.")
    publish(staging, output, overwrite=False)
    assert {p.name for p in output.iterdir()} == {"part-00000.parquet", "_batchonnx", "_SUCCESS"}
    assert not staging.exists()
    assert read_plan_record(output)["fingerprint"] == "one"


def test_a_former_result_is_replaced_in_one_step_and_removed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    publish(staged(output, "one"), output, overwrite=False)
    publish(staged(output, "two"), output, overwrite=True)
    assert (output / "part-00000.parquet").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_former_result_is_not_replaced_unless_that_is_said(tmp_path: Path) -> None:
    output = tmp_path / "out"
    publish(staged(output, "one"), output, overwrite=False)
    with pytest.raises(OutputExistsError, match="former result"):
        publish(staged(output, "two"), output, overwrite=False)
    assert (output / "part-00000.parquet").read_text() == "one"


def test_what_is_not_a_result_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError, match="is a file"):
        check_output(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputExistsError, match="other files") as caught:
        check_output(tmp_path / "folder", overwrite=True)
    assert "thesis.tex" in caught.value.problems[0].facts["found"]
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "link", overwrite=True)


def test_nothing_is_left_of_what_is_discarded(tmp_path: Path) -> None:
    discard_staging(staged(tmp_path / "out", "one"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError) as caught:
        create_staging(tmp_path / "file" / "out")
    assert str(tmp_path / "file") in caught.value.problems[0].facts["path"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2}'])
def test_a_plan_record_that_cannot_be_read_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "_batchonnx").mkdir()
    (tmp_path / "_batchonnx" / "plan.json").write_text(text)
    assert read_plan_record(tmp_path) == {}


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "can't be written"), (errno.EIO, "failed")],
)
def test_what_the_system_refuses_is_told_with_what_to_do(number: int, words: str) -> None:
    error = disk_error(OSError(number, "because"), Path("/out"))
    assert words in str(error)
    assert error.exit_code == 3
