"""What is found at a path, in which order, and what is said when it isn't as it should be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchonnx.errors import ContractError, InputError
from batchonnx.planning.listing import check_columns, list_input
from batchonnx.storage.paths import list_files


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    for name in ("part-10", "part-2", "_tmp", ".hidden", "sub/part-1", "_delta/part-0", "sub/.x/part-0"):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"a": [1]}), path)
    return tmp_path


def found(folder: Path, *patterns: str) -> list[str]:
    return [
        entry.path.removeprefix(f"{folder}/") for entry in list_files([f"{folder}/{p}" for p in patterns])
    ]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([""], ["part-2.parquet", "part-10.parquet", "sub/part-1.parquet"]),
        (["*.parquet"], ["part-2.parquet", "part-10.parquet"]),
        (["**/*.parquet"], ["part-2.parquet", "part-10.parquet", "sub/part-1.parquet"]),
        (["part-?.parquet"], ["part-2.parquet"]),
        (["part-[!2]*.parquet"], ["part-10.parquet"]),
        (["sub", "sub/part-1.parquet"], ["sub/part-1.parquet"]),
        (["_tmp.parquet"], ["_tmp.parquet"]),
        (["s*/*"], ["sub/part-1.parquet"]),
    ],
)
def test_folders_globs_and_files_are_listed_in_natural_order(
    lake: Path, patterns: list[str], names: list[str]
) -> None:
    assert found(lake, *patterns) == names


def test_a_name_with_brackets_is_found_by_itself(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a[1] é.parquet")
    assert found(tmp_path, "a[1] é.parquet") == ["a[1] é.parquet"]


def partitioned(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"a": [1]}), folder / path)


def test_hive_folders_become_columns_integers_where_all_are(tmp_path: Path) -> None:
    partitioned(tmp_path, "n=1/s=a%20b/x.parquet", "n=20/s=__HIVE_DEFAULT_PARTITION__/x.parquet")
    listing = list_input([str(tmp_path)], None)
    assert listing.partition_columns == ("n", "s")
    assert [f.partition for f in listing.files] == [{"n": 1, "s": "a b"}, {"n": 20, "s": None}]
    assert listing.schema == pa.schema([("a", pa.int64()), ("n", pa.int64()), ("s", pa.string())])


def test_leading_zeros_are_text(tmp_path: Path) -> None:
    partitioned(tmp_path, "m=01/x.parquet", "m=2/x.parquet")
    assert [f.partition for f in list_input([str(tmp_path)], None).files] == [{"m": "01"}, {"m": "2"}]


def test_a_file_in_another_layout_is_named(tmp_path: Path) -> None:
    partitioned(tmp_path, "n=1/x.parquet", "y.parquet")
    with pytest.raises(InputError, match="partition folders differ") as caught:
        list_input([str(tmp_path)], None)
    assert caught.value.problems[0].facts["file"].endswith("y.parquet")


def test_a_partition_that_is_a_column_too_is_refused(tmp_path: Path) -> None:
    partitioned(tmp_path, "a=1/x.parquet")
    with pytest.raises(InputError, match="both a column and a partition"):
        list_input([str(tmp_path)], None)


def test_columns_of_one_name_are_refused_by_that_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "b", "a"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match='several columns named "a"'):
        list_input([str(tmp_path)], None)


def test_formats_may_not_be_mixed_unless_one_is_named(tmp_path: Path) -> None:
    partitioned(tmp_path, "x.parquet")
    (tmp_path / "y.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="mixes formats"):
        list_input([str(tmp_path)], None)
    assert list_input([str(tmp_path)], "files").format == "files"


def test_all_damaged_files_are_told_at_once_ten_in_full(tmp_path: Path) -> None:
    for i in range(13):
        (tmp_path / f"{i}.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError) as caught:
        list_input([str(tmp_path)], None)
    assert len(caught.value.problems) == 11
    assert "3 more" in caught.value.problems[-1].title


def test_files_need_to_agree_on_the_columns_that_are_used_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": ["x"], "a": [1]}), tmp_path / "2.parquet")
    listing = list_input([str(tmp_path)], None)
    check_columns(listing, ["a"])
    with pytest.raises(ContractError) as caught:
        check_columns(listing, ["a", "b"])
    (problem,) = caught.value.problems
    assert (problem.facts["column"], problem.facts["found"]) == ("b", "string")


def test_equal_schemas_are_kept_once(tmp_path: Path) -> None:
    for i in range(20):
        pq.write_table(pa.table({"a": [1]}), tmp_path / f"{i}.parquet")
    assert len({id(f.footer.schema) for f in list_input([str(tmp_path)], None).files}) == 1


@pytest.mark.parametrize(
    "value", ["99999999999999999999", "--1", "-0", "9223372036854775808", "007", "\u0665"]
)
def test_what_no_int64_gives_back_is_text(tmp_path: Path, value: str) -> None:
    (tmp_path / f"k={value}").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / f"k={value}" / "a.parquet")
    listing = list_input([str(tmp_path)], None)
    assert listing.files[0].partition == {"k": value}
    assert listing.schema.field("k").type == pa.string()
