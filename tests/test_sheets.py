"""Files of rows, read and written a chunk at a time."""

import contextlib
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops import sheets
from nbmlops.sheets import Added, InvalidFile


def whole(path, **options):
    chunks = list(sheets.read(path, **options))
    assert [chunk.first for chunk in chunks] == [
        1 + sum(one.rows for one in chunks[:number]) for number in range(len(chunks))
    ]
    return {
        name: [value for chunk in chunks for value in chunk.columns[name]]
        for name in chunks[0].columns
    }


CELLS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))


@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=20), st.sampled_from(["csv", "jsonl"])
)
def test_what_is_written_is_read_again_as_it_was(tmp_path_factory, rows, form):
    path = tmp_path_factory.mktemp("sheets") / f"one.{form}"
    columns = {"a": [one for one, _ in rows], "b": [two or "-" for _, two in rows]}
    chunk = sheets.Chunk(1, len(rows), columns)
    with sheets.written(path, {}, {}) as sheet:
        sheet.add(chunk, {"n": Added("int64", list(range(len(rows))))})
    found = whole(path, rows=3)
    assert found["a"] == columns["a"]
    assert found["b"] == columns["b"]
    assert sheets.told(found["n"], "integer") == list(range(len(rows)))


def test_parquet_keeps_types_and_gets_columns_and_metadata(tmp_path):
    table = pd.DataFrame({"x": [1.5, None, 3.0], "n": [1, 2, 3], "t": ["a", None, "c"]})
    table["when"] = pd.Timestamp("2026-01-01", tz="UTC")
    table.to_parquet(tmp_path / "in.parquet")
    with sheets.written(tmp_path / "out.parquet", {"who": "me"}, {}) as sheet:
        for chunk in sheets.read(tmp_path / "in.parquet", ["x"], rows=2):
            assert list(chunk.columns) == ["x"]
            sheet.add(chunk, {"y": Added("double", [0.5] * chunk.rows)})
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert list(found["y"]) == [0.5] * 3
    pd.testing.assert_frame_equal(found.drop(columns="y"), table, check_dtype=False)
    assert str(found["when"].dtype).endswith("UTC]")
    assert whole(tmp_path / "in.parquet")["x"] == [1.5, None, 3.0]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, form):
    chunk = sheets.Chunk(1, 1, {"a": ["x"]})
    path = tmp_path / f"o.{form}"
    with contextlib.suppress(ZeroDivisionError), sheets.written(path, {}, {}) as sheet:
        sheet.add(chunk, {})
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"a,b\n1\n", "row 1 has 1 cells, not 2"),
        ("a.csv", b"a,a\n1,2\n", "two columns `a`"),
        ("a.csv", b"a\n\xff\n", "cannot be read"),
        ("a.csv", b'a\n"x', "cannot be read"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "row 2 is no object"),
        ("a.jsonl", b'{"a": 1}\n{"b": 1}\n', "row 2 and row 1 differ in `a`"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "row 2 is not JSON"),
        ("a.parquet", b"PAR1 no more", "is no Parquet file"),
        ("a.xlsx", b"", "neither Parquet"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidFile) as caught:
        list(sheets.read(tmp_path / name))
    assert message in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_is_said():
    for name in ("/nowhere/a.csv", "/nowhere/a.parquet", "/nowhere/a.jsonl"):
        with pytest.raises(InvalidFile, match="there is no file"):
            sheets.names(Path(name))


def test_missing_columns_are_named_all_at_once():
    with pytest.raises(InvalidFile) as caught:
        sheets.require(Path("a.csv"), ["city", "agee"], ["city", "age", "income"], "churn:1")
    assert "`age`, `income`" in caught.value.message
    assert caught.value.hint == "Did you mean `agee`?"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5", "integer", 5),
        ("5.0", "integer", 5.0),
        ("1_000", "integer", "1_000"),
        ("9007199254740993", "integer", 9007199254740993),
        ("1e3", "number", 1000.0),
        ("nan", "number", None),
        ("old", "number", "old"),
        ("True", "boolean", True),
        ("0", "boolean", "0"),
        ("5", "text", "5"),
    ],
)
def test_a_cell_is_told_by_its_columns_kind(text, kind, value):
    (found,) = sheets.told([text], kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_file_without_rows_is_told_as_such_and_not_as_lacking_columns(tmp_path, form):
    path = tmp_path / f"a.{form}"
    table = pd.DataFrame({"x": pd.Series([], dtype="float64"), "y": pd.Series([], dtype="str")})
    if form == "parquet":
        table.to_parquet(path)
    else:
        path.write_text("x,y\n\n" if form == "csv" else "\n")
    assert list(sheets.read(path)) == []
    with pytest.raises(InvalidFile, match=rf"a\.{form} has no rows"):
        sheets.names(path)


def test_parquet_that_is_damaged_inside_is_told_as_the_files_fault(tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"a": range(100_000)}).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[200:20_000] = b"\xff" * 19_800
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match=r"rows\.parquet"):
        list(sheets.read(path))
