"""Data held against the columns that their model takes: what is found, said, kept, and refused."""

import contextlib
import json
import os
import sys
import tracemalloc

import pytest

import registered
from nbmlops import cli, datasets, models, project, records, render, rules, sheets
from nbmlops import workspace as workspaces
from nbmlops.errors import InvalidSettings, RuleBroken, StorageFailed
from nbmlops.records import Column
from nbmlops.rules import contents
from served import churn  # noqa: F401  # a fixture
from sources import SETTINGS, git, notebook_text

CODES = ("data-schema", "data-range")
COLUMNS = (
    Column(name="city", kind="category", categories=("Bern", "NA", "Zürich")),
    Column(name="age", kind="integer", low=18, high=90),
    Column(name="income", kind="number", nullable=True, low=0.5, high=100.5),
    Column(name="member", kind="boolean"),
    Column(name="note", kind="text", nullable=True),
)
GOOD = {"city": "Bern", "age": 41, "income": 7.25, "member": True, "note": "ok"}


@pytest.fixture
def at(folder):
    """The project with `data/raw.csv` declared for the model `churn`; opened."""
    (folder / "data").mkdir()
    opened = []

    def declare(path="data/raw.csv", schema="churn", more="", version=1, columns=COLUMNS):
        (folder / "nbmlops.toml").write_text(
            f'{SETTINGS}\n[data.raw]\npath = "{path}"\nschema = "{schema}"\n{more}'
        )
        opened.append(workspaces.open_at(folder))
        if version:
            register(opened[-1], version, columns)
        return opened[-1]

    yield declare
    for workspace in opened:
        workspace.close()


def register(workspace, number, columns=COLUMNS, model="churn"):
    """Register a version that takes these columns."""
    registered.version(workspace, number, model=model, columns=columns)


def csv(workspace, *rows, name="data/raw.csv", header=None):
    """Write rows, each the good one with changes, as CSV."""
    made = [{**GOOD, **row} for row in rows]
    names = header or list(made[0])
    lines = [",".join("" if row[n] is None else str(row[n]) for n in names) for row in made]
    path = workspace.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(names), *lines]) + "\n", encoding="utf-8")
    return path


def found(workspace, *kinds):
    """Return what the two rules find."""
    report = rules.check(workspace)
    return [f for f in report.findings if f.code in (kinds or CODES)]


def told(workspace):
    return [(f.code, f.path, f.message) for f in found(workspace)]


def settled(path):
    """Make a file look as if it was written a minute ago."""
    about = path.stat()
    os.utime(path, (about.st_atime - 60, about.st_mtime - 60))
    return path


# --- what is found ----------------------------------------------------------------------------


def test_good_data_are_clean_and_further_columns_are_fine(at):
    workspace = at()
    csv(workspace, *[{"target": 1, "id": n} for n in range(20)])
    assert found(workspace) == []
    assert rules.enforce(workspace, ["train.ipynb"]) == ()


def test_a_missing_column_is_named_with_the_one_that_may_be_meant(at):
    workspace = at()
    csv(workspace, {"Age": 3}, header=["city", "Age", "income", "member", "note"])
    (finding,) = found(workspace)
    assert (finding.code, finding.level, finding.path) == ("data-schema", "block", "data/raw.csv")
    assert finding.message == "it has no column `age`, which churn:1 takes"
    assert "Did you mean `Age`?" in finding.fix


def test_many_missing_columns_are_one_finding(at):
    columns = [Column(name=f"x{n}", kind="number") for n in range(30)]
    workspace = at(columns=tuple(columns))
    csv(workspace, {})
    (finding,) = found(workspace)
    assert finding.message.startswith("it has not the columns of churn:1: `x0`, `x1`")
    assert "(30 in all)" in finding.message


def test_a_text_in_a_column_of_numbers_is_found_with_row_value_and_count(at):
    workspace = at()
    csv(workspace, {}, {"age": "old"}, {"age": "older"}, {}, {"income": "1,5".replace(",", ";")})
    assert told(workspace) == [
        (
            "data-schema",
            "data/raw.csv",
            "row 2, column `age` is the text 'old', not an integer of 64 bits (2 of 5 rows, 40.0%)",
        ),
        (
            "data-schema",
            "data/raw.csv",
            "row 5, column `income` is the text '1;5', not a finite number (1 of 5 rows, 20.0%)",
        ),
    ]


def test_a_gap_is_found_where_training_had_none(at):
    workspace = at()
    csv(workspace, {"income": None, "note": None}, {"age": None}, {"age": "NA", "income": "NaN"})
    (finding,) = found(workspace)
    assert finding.message == (
        "row 2, column `age` is null, and training had no gaps in it (2 of 3 rows, 66.7%)"
    )


def test_what_pandas_reads_as_a_gap_is_a_gap_unless_it_is_a_category(at):
    columns = (
        Column(name="city", kind="category", categories=("Bern", "NA"), nullable=True),
        Column(name="land", kind="category", categories=("Ghana",)),
    )
    workspace = at(columns=columns)
    (workspace.root / "data/raw.csv").write_text("city,land\nNA,Ghana\nnull,Ghana\nBern,NA\n")
    (finding,) = found(workspace)
    assert finding.code == "data-range"
    assert "column `land` has a category that churn:1 was not trained with: 'NA'" in finding.message


def test_numbers_are_held_against_the_training_s_range_widened(at):
    workspace = at()
    csv(workspace, {"age": 126, "income": 150.5}, {"age": -18, "income": -49.5})
    assert found(workspace) == []  # half of the range more on each side
    csv(workspace, {"age": 127}, {"age": 400}, {"age": -19}, {"income": 1e300}, *[{}] * 4)
    findings = found(workspace)
    assert [(f.code, f.level) for f in findings] == [("data-range", "warn")] * 3
    assert "has -19 in row 3, the least in the training of churn:1 was 18" in findings[0].message
    assert findings[1].message == (
        "column `age` has 400 in row 2, the greatest in the training of churn:1 was 90"
        " (2 of 8 rows, 25.0%, above 126)"
    )
    assert "has 1e+300 in row 4" in findings[2].message


def test_the_extreme_of_many_chunks_is_told_with_its_row(at, monkeypatch):
    monkeypatch.setattr(sheets, "CHUNK_ROWS", 3)
    workspace = at()
    csv(workspace, *[{"age": age} for age in (300, 20, 500, 20, 20, 20, 20, 400)])
    (finding,) = found(workspace)
    assert "has 500 in row 3" in finding.message
    assert "3 of 8 rows" in finding.message


def test_new_categories_are_told_the_newest_few_with_their_shares(at):
    workspace = at()
    csv(workspace, {}, {"city": "Rome"}, {"city": "Rome"}, {"city": "Lima"})
    (finding,) = found(workspace)
    assert (finding.code, finding.level) == ("data-range", "warn")
    assert finding.message == (
        "column `city` has 2 categories that churn:1 was not trained with: 'Rome' (50.0%),"
        " 'Lima' (25.0%); first in row 2 (3 of 4 rows, 75.0%)"
    )
    csv(workspace, *[{"city": f"c{n}"} for n in range(500)])
    (finding,) = found(workspace)
    assert "more than 100 categories" in finding.message
    assert "the newest: 'c495' (0.2%), 'c496'" in finding.message
    assert "500 of 500 rows, 100.0%" in finding.message


def test_all_kinds_of_trouble_of_a_file_are_found_at_once(at):
    workspace = at()
    csv(workspace, {"age": "x"}, {"age": None}, {"age": 500}, {"city": "Rome"}, {"member": "ja"})
    assert [f.code for f in found(workspace)] == [*["data-schema"] * 3, *["data-range"] * 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "raw.csv is empty"),
        ("city,age,income,member,note\n", "it has no rows"),
        ("city,city\n1,2\n", "two columns `city`"),
        ("city,age\nBern\n", "row 1 has 1 cells, not 2"),
        ('city,age\n"Bern,4\n', "cannot be read"),
        ("\udcff\udcfe,x\n1,2\n", "cannot be read"),
    ],
)
def test_a_file_without_rows_or_that_is_no_table_is_found(at, text, said):
    workspace = at()
    (workspace.root / "data/raw.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    messages = [f.message for f in found(workspace)]
    assert said in messages[0]
    with pytest.raises(RuleBroken):
        rules.enforce(workspace, ["train.ipynb"])


def test_rows_before_a_broken_one_are_looked_at(at):
    workspace = at()
    path = csv(workspace, {"age": "x"}, *[{}] * 9000)
    with path.open("a") as file:
        file.write("1,2\n")
    messages = [f.message for f in found(workspace)]
    assert "row 9002 has 2 cells, not 5" in messages[0]
    assert "row 1, column `age` is the text 'x'" in messages[1]


def test_csv_with_quotes_unicode_and_line_ends_within_cells_is_read(at):
    workspace = at()
    (workspace.root / "data/raw.csv").write_text(
        '\ufeff"note",city,age,income,member\r\n"a ""b"", c\nd",Zürich,41,1e1,TRUE\r\n'
        '"😀",Bern, 42 ,,false\r\n',
        encoding="utf-8",
        newline="",
    )
    assert found(workspace) == []
    path = workspace.root / "data/raw.csv"
    path.write_bytes(path.read_bytes().replace("Zürich".encode(), "Zürich😀\x1b[31m".encode()))
    (finding,) = found(workspace)
    assert "'Zürich😀\\x1b[31m'" in finding.message


@pytest.mark.parametrize("name", ["data/raw.parquet", "data/raw.jsonl"])
def test_parquet_and_json_lines_are_held_as_csv_is(at, name):
    import pandas as pd

    workspace = at(path=name)
    rows = [
        GOOD,
        {**GOOD, "age": 500, "when": "2024"},
        {**GOOD, "income": None},
        {**GOOD, "city": None},
        {**GOOD, "member": None},
    ]
    table = pd.DataFrame(rows)
    if name.endswith("parquet"):
        table["when"] = pd.to_datetime(table["when"])
        table.to_parquet(workspace.root / name)
    else:
        table.to_json(workspace.root / name, orient="records", lines=True)
    assert [f.message.partition(" (")[0] for f in found(workspace)] == [
        "row 4, column `city` is null, and training had no gaps in it",
        "row 5, column `member` is null, and training had no gaps in it",
        "column `age` has 500 in row 2, the greatest in the training of churn:1 was 90",
    ]


def test_parquet_of_other_types_is_found_and_none_is_a_traceback(at):
    import pandas as pd

    workspace = at(path="data/raw.parquet")
    pd.DataFrame(
        {
            "city": pd.Categorical(["Bern"]),
            "age": pd.to_datetime(["2024-01-01"]),
            "income": ["1.5"],
            "member": [1],
            "note": [[1, 2]],
        }
    ).to_parquet(workspace.root / "data/raw.parquet")
    assert [f.message.partition(" (")[0] for f in found(workspace)] == [
        "row 1, column `age` is an object, not an integer of 64 bits",
        "row 1, column `income` is the text '1.5', not a finite number",
        "row 1, column `member` is the number 1, not true or false",
        "row 1, column `note` is a list, not a text",
    ]


def test_json_integers_that_no_double_holds_are_placed(at):
    workspace = at(path="data/raw.jsonl")
    rows = [GOOD, {**GOOD, "income": 2**60 + 1}, {**GOOD, "income": 10**400}]
    text = "\n".join(json.dumps(row) for row in rows)
    (workspace.root / "data/raw.jsonl").write_text(text)
    wrong, above = found(workspace)
    assert "row 3, column `income` is an integer beyond 64 bits" in wrong.message
    assert "in row 2" in above.message


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("raw.parquet", b"no parquet", "is no Parquet file"),
        ("raw.jsonl", b"{broken", "is not JSON"),
        ("raw.jsonl", b"[1]\n", "is no object with columns"),
        ("raw.xlsx", b"PK", "neither Parquet, CSV nor JSON lines"),
        ("raw.csv", b"\x00\x01\x02" * 50, ""),
    ],
)
def test_a_file_that_is_not_a_table_is_found(at, name, data, said):
    workspace = at(path=f"data/{name}")
    (workspace.root / "data" / name).write_bytes(data)
    (finding,) = found(workspace)
    assert (finding.code, finding.level, finding.path) == ("data-schema", "block", f"data/{name}")
    assert said in finding.message
    assert finding.fix


def test_a_damaged_parquet_file_is_a_finding(at):
    import pandas as pd

    workspace = at(path="data/raw.parquet")
    path = workspace.root / "data/raw.parquet"
    pd.DataFrame([GOOD] * 5000).assign(note=[str(n) for n in range(5000)]).to_parquet(path)
    data = bytearray(path.read_bytes())
    data[100 : len(data) // 2] = bytes(len(data) // 2 - 100)
    path.write_bytes(data)
    assert {f.code for f in found(workspace)} == {"data-schema"}


def test_a_folder_s_files_are_looked_at_each_and_told_together(at):
    workspace = at(path="data/raw")
    for name in "abc":
        csv(workspace, {}, {}, name=f"data/raw/deep/{name}.csv")
    (workspace.root / "data/raw/README.txt").write_text("not a table")
    assert found(workspace) == []
    csv(workspace, {}, {"age": "x"}, name="data/raw/deep/b.csv")
    csv(workspace, {"age": "y"}, {"age": 900}, name="data/raw/deep/c.csv")
    csv(workspace, {"age": 800}, {}, name="data/raw/d.csv")
    wrong, above = found(workspace)
    assert (wrong.path, above.path) == ("data/raw/deep/b.csv", "data/raw/deep/c.csv")
    assert wrong.message == (
        "row 2, column `age` is the text 'x', not an integer of 64 bits"
        " (2 of 8 rows, 25.0%, in 2 files)"
    )
    assert above.message.startswith("column `age` has 900 in row 2")


@pytest.mark.parametrize("name", [None, "notes.txt"])
def test_a_folder_without_tables_is_found(at, name):
    workspace = at(path="data/raw")
    (workspace.root / "data/raw").mkdir()
    if name:
        (workspace.root / "data/raw" / name).write_text("x")
    expected = [("data-schema", "data/raw", "there is no Parquet, CSV or JSON lines in it")]
    assert told(workspace) == expected


def test_a_file_that_may_not_be_read_is_a_finding(at, monkeypatch):
    workspace = at()
    csv(workspace, {})

    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(datasets.digests, "of_file", refuse)
    (finding,) = found(workspace)
    assert finding.message == "it cannot be read: Permission denied"


def test_without_pyarrow_parquet_is_a_finding_and_csv_is_looked_at(at, monkeypatch):
    import pandas as pd

    more = '[data.table]\npath = "data/table.parquet"\nschema = "churn"\n'
    workspace = at(more=more)
    csv(workspace, {"age": "x"})
    pd.DataFrame([GOOD]).to_parquet(workspace.root / "data/table.parquet")
    for name in [name for name in sys.modules if name.partition(".")[0] in {"pyarrow", "pandas"}]:
        monkeypatch.setitem(sys.modules, name, None)
    first, second = found(workspace)
    assert "column `age` is the text 'x'" in first.message
    assert "it cannot be held against churn:1: pyarrow is not installed" in second.message
    assert "pip install 'nbmlops[lab]'" in second.fix
    monkeypatch.undo()
    assert len(found(workspace)) == 1  # it was not kept that it could not be looked at


# --- which version ----------------------------------------------------------------------------


def test_before_the_first_version_there_is_one_advice_and_runs_start(at):
    more = '[data.more]\npath = "data/more.csv"\nschema = "churn"\n'
    workspace = at(version=0, more=more)
    csv(workspace, {"age": "x"})
    csv(workspace, {"age": "x"}, name="data/more.csv")
    (finding,) = found(workspace)
    assert (finding.code, finding.level, finding.path) == ("data-schema", "advise", "nbmlops.toml")
    assert "once it has a version: there is no model `churn` yet" in finding.message
    assert "nbmlops train" in finding.fix
    assert rules.enforce(workspace, ["train.ipynb"]) == ()
    register(workspace, 1, model="churm")
    assert "Did you mean `churm`?" in found(workspace)[0].fix


def test_the_newest_version_counts_or_the_one_that_is_named(at):
    workspace = at()
    csv(workspace, {}, {"age": 300})
    assert [f.code for f in found(workspace)] == ["data-range"]
    wider = tuple(records.replace(c, high=300) if c.name == "age" else c for c in COLUMNS)
    register(workspace, 2, wider)
    assert found(workspace) == []
    named = at(schema="churn:1", version=0)
    assert "churn:1" in found(named)[0].message


def test_a_version_that_there_is_not_is_a_fault(at):
    workspace = at(schema="churn:7")
    csv(workspace, {})
    (finding,) = found(workspace)
    assert (finding.level, finding.path) == ("block", "nbmlops.toml")
    assert "model `churn` has no version `7`" in finding.message
    assert finding.fix == "It has 1."


def test_a_schema_that_is_lost_is_a_finding(at):
    workspace = at()
    csv(workspace, {})
    version = models.find(workspace, "churn")
    digest = version.files["schema"].digest
    (workspace.home.artifacts / digest[:2] / digest[2:]).unlink()
    (finding,) = found(workspace)
    assert "it cannot be held against churn:1: the artifact" in finding.message
    assert "nbmlops doctor" in finding.fix


@pytest.mark.parametrize("reference", ["Churn", "churn:", "churn:0", "churn:x", "a b", "", "a@b"])
def test_a_schema_that_names_no_model_is_refused(folder, reference):
    (folder / "nbmlops.toml").write_text(
        f'{SETTINGS}\n[data.raw]\npath = "x.csv"\nschema = "{reference}"\n'
    )
    with pytest.raises(InvalidSettings, match=r"\[data\.raw\] has the schema") as caught:
        project.read(folder)
    assert "churn:3" in caught.value.hint


def test_a_misspelt_key_is_refused_with_the_nearest(folder):
    (folder / "nbmlops.toml").write_text(f'{SETTINGS}\n[data.raw]\npath = "x"\nshema = "churn"\n')
    with pytest.raises(InvalidSettings, match="unknown key `shema`") as caught:
        project.read(folder)
    assert "`schema`" in caught.value.hint


# --- levels, runs -----------------------------------------------------------------------------


def test_what_blocks_refuses_a_run_and_what_warns_is_told(at):
    workspace = at()
    csv(workspace, {"age": "x"}, {"age": 500})
    with pytest.raises(RuleBroken) as caught:
        rules.enforce(workspace, ["train.ipynb"])
    assert "data/raw.csv: row 1, column `age` is the text 'x'" in caught.value.message
    assert '`data-schema = "warn"`' in caught.value.hint
    lenient = at(more='[rules]\ndata-schema = "warn"\n', version=0)
    warned = [(f.code, f.level) for f in rules.enforce(lenient, ["train.ipynb"])]
    assert warned == [("data-range", "warn"), ("data-schema", "warn")]
    strict = at(more='[rules]\ndata-schema = "off"\ndata-range = "block"\n', version=0)
    with pytest.raises(RuleBroken, match="500"):
        rules.enforce(strict, ["train.ipynb"])


def test_data_are_not_read_where_both_rules_are_off_or_nothing_is_asked(at, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("data were looked at")

    monkeypatch.setattr(contents.datasets, "present", fail)
    off = at(more='[rules]\ndata-schema = "off"\ndata-range = "off"\n')
    csv(off, {"age": "x"})
    assert found(off) == []
    advised = at(more='[rules]\ndata-schema = "advise"\ndata-range = "advise"\n', version=0)
    assert rules.enforce(advised, ["train.ipynb"]) == ()
    plain = at(version=0)
    (plain.root / "nbmlops.toml").write_text(f'{SETTINGS}\n[data]\nraw = "data/raw.csv"\n')
    assert found(workspaces.open_at(plain.root)) == []
    named = at(version=0)
    assert rules.check(named, files=[named.root / "train.ipynb"]).findings == ()


def test_data_that_are_not_here_are_passed_over_and_a_run_names_them_itself(at):
    workspace = at()
    assert found(workspace) == []
    assert rules.enforce(workspace, ["train.ipynb"]) == ()


def test_findings_are_shown_by_file(at):
    workspace = at()
    csv(workspace, {"age": "x"})
    shown = render.text(render.view(rules.check(workspace)), 200)
    assert "data/raw.csv" in shown
    assert "data-schema" in shown


# --- data at a URL ----------------------------------------------------------------------------


def test_data_at_a_url_are_looked_at_once_they_were_fetched(at, tmp_path):
    source = tmp_path / "far"
    source.mkdir()
    workspace = at(path="data/far", more=f'url = "file://{source}"\n')
    csv(workspace, {"age": "x"}).rename(source / "one.csv")
    assert found(workspace) == []  # nobody asks a network in a check
    with pytest.raises(RuleBroken, match=r"data/far/one\.csv: row 1, column `age`"):
        rules.enforce(workspace, ["train.ipynb"])
    assert [f.path for f in found(workspace)] == ["data/far/one.csv"]
    csv(workspace, {}).rename(source / "one.csv")
    assert len(found(workspace)) == 1
    assert rules.enforce(workspace, ["train.ipynb"]) == ()
    assert found(workspace) == []
    csv(workspace, {"age": "x"}).rename(source / "two.csv")
    with pytest.raises(RuleBroken):
        rules.enforce(workspace, ["train.ipynb"])
    (source / "two.csv").unlink()
    assert rules.enforce(workspace, ["train.ipynb"]) == ()
    assert found(workspace) == []
    assert not any(workspace.home.scratch.glob("data*"))


def test_a_url_that_cannot_be_read_stops_the_run_as_ever(at):
    workspace = at(path="data/far.csv", more='url = "nonsense://x/far.csv"\n')
    assert found(workspace) == []
    with pytest.raises(StorageFailed):
        rules.enforce(workspace, ["train.ipynb"])


# --- what it costs ----------------------------------------------------------------------------


@contextlib.contextmanager
def opened_files(folder):
    """Collect the names of the files below a folder that are opened."""
    names = []
    active = True

    def hook(event, args):
        if active and event == "open" and str(args[0]).startswith(f"{folder}{os.sep}"):
            names.append(str(args[0]))

    sys.addaudithook(hook)
    yield names
    active = False


def test_data_that_have_not_changed_are_not_opened_again(at, monkeypatch):
    workspace = at()
    settled(csv(workspace, {"age": "x"}))
    with opened_files(workspace.root / "data") as names:
        first = found(workspace)
        assert names
    reads = []
    monkeypatch.setattr(sheets, "read", lambda *a: reads.append(a))
    with opened_files(workspace.root / "data") as names:
        assert found(workspace) == first
        with pytest.raises(RuleBroken):
            rules.enforce(workspace, ["train.ipynb"])
        assert names == []
    assert reads == []
    monkeypatch.undo()
    settled(csv(workspace, {"age": 5}))
    assert found(workspace) == []
    settled(csv(workspace, {"age": "x"}))
    reads.clear()
    monkeypatch.setattr(sheets, "read", lambda *a: reads.append(a))
    assert found(workspace) == first  # the same bytes once more are known by their digest
    assert reads == []
    monkeypatch.undo()
    register(workspace, 2, (records.replace(COLUMNS[1], nullable=True),))
    (finding,) = found(workspace)  # another schema, another look
    assert "churn:2" in finding.fix


def test_of_a_folder_only_new_files_are_read(at, monkeypatch):
    workspace = at(path="data/raw")
    for name in "abc":
        settled(csv(workspace, {"id": name}, name=f"data/raw/{name}.csv"))
    assert found(workspace) == []
    settled(csv(workspace, {"age": "x"}, name="data/raw/d.csv"))
    reads = []
    real = sheets.read
    monkeypatch.setattr(sheets, "read", lambda p, *a: reads.append(p.name) or real(p, *a))
    assert len(found(workspace)) == 1
    assert reads == ["d.csv"]


def test_a_file_that_changes_while_it_is_read_is_not_kept(at, monkeypatch):
    workspace = at()
    path = settled(csv(workspace, {}))
    real = sheets.read

    def meddle(file, *rest):
        yield from real(file, *rest)
        csv(workspace, {"age": "x"}, {"age": "y"})

    monkeypatch.setattr(sheets, "read", meddle)
    found(workspace)
    monkeypatch.undo()
    assert not list(workspace.home.data_checks.glob("*.json"))
    settled(path)
    assert len(found(workspace)) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"x": 1}', b"[]"])
def test_a_damaged_cache_is_passed_over(at, damage):
    workspace = at()
    settled(csv(workspace, {"age": "x"}))
    first = found(workspace)
    (kept,) = workspace.home.data_checks.glob("*.json")
    kept.write_bytes(damage)
    assert found(workspace) == first


def test_the_cache_does_not_grow_without_an_end(at):
    workspace = at()
    folder = workspace.home.data_checks
    folder.mkdir(parents=True)
    for number in range(50):
        (folder / f"{number:064x}.json").write_text("{}")
    csv(workspace, {})
    found(workspace)
    assert len(list(folder.glob("*.json"))) <= 32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data/raw.csv", "data/raw.parquet"])
def test_memory_does_not_grow_with_the_file(at, name):
    import pandas as pd

    workspace = at(path=name)
    peaks = []
    for rows in (20_000, 200_000):
        table = pd.DataFrame([GOOD] * 1000 + [{**GOOD, "age": 700, "city": "new"}])
        table = pd.concat([table] * (rows // 1000), ignore_index=True)
        table["note"] = [f"note {n}" for n in range(len(table))]
        if name.endswith("csv"):
            table.to_csv(workspace.root / name, index=False)
        else:
            table.to_parquet(workspace.root / name)
        tracemalloc.start()
        try:
            seen = list(contents.look(workspace, say=print, fetch=False))
            assert [code for code, _ in seen] == ["data-range"] * 2
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 2**20
    assert peaks[1] < 40 * 2**20


def test_parquet_of_one_row_group_is_not_loaded_at_once(at, tmp_path):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "one.parquet"
    numbers = np.random.default_rng(1).random((4, 1_000_000))
    table = pa.table({f"x{n}": values for n, values in enumerate(numbers)})
    pq.write_table(table, path, row_group_size=1_000_000)
    size, before = path.stat().st_size, pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - before for _ in sheets.read(path, ["x0"]))
    assert peak < size / 2


# --- through the door -------------------------------------------------------------------------


def typed(*words):
    """Run a command; return its document and exit code."""
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = cli.run([*words], as_json=True)
    return json.loads(out.getvalue()), code


@pytest.mark.slow
def test_train_is_refused_by_data_that_its_own_model_could_not_take(folder, monkeypatch):
    """A model is trained, and the next data are held against what it has learned."""
    monkeypatch.chdir(folder)
    (folder / "data").mkdir()
    (folder / "nbmlops.toml").write_text(
        f'{SETTINGS}\n[data.raw]\npath = "data/raw.csv"\nschema = "churn"\n'
    )
    (folder / "train.ipynb").write_text(
        notebook_text(
            ("parameters", "strength = 1.0"),
            "import nbmlops as mlops, pandas as pd\n"
            "from sklearn.linear_model import LogisticRegression\n"
            "table = pd.read_csv(mlops.data('raw'))\n"
            "y = table.pop('target')\n"
            "model = LogisticRegression(C=strength).fit(table, y)\n"
            "mlops.log_model(model, name='churn', train=(table, y))",
        )
    )
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "data")
    path = folder / "data/raw.csv"
    lines = [f"{n},{n / 4},{n % 2}" for n in range(20, 60)]
    path.write_text("\n".join(["age,income,target", *lines]))
    document, code = typed("train")
    assert (code, document["model_versions"]) == (0, ["churn:1"])
    before = typed("runs")[0]["items"]

    path.write_text("\n".join(["age,income,target", *lines, "old,7.5,1"]))
    document, code = typed("train")
    assert code == 2
    assert document["error"]["code"] == "rule-broken"
    assert "data/raw.csv: row 41, column `age` is the text 'old'" in document["error"]["message"]
    assert typed("runs")[0]["items"] == before
    document, code = typed("check")
    assert code == 1
    assert "data-schema" in {f["code"] for f in document["findings"]}
    assert typed("sweep", "train", "-p", "strength=0.1,1")[1] == 2

    path.write_text("\n".join(["age,income,target", *lines, "400,7.5,1"]))
    document, code = typed("train")
    assert (code, document["model_versions"]) == (0, ["churn:2"])
    assert "data-range" not in {f["code"] for f in typed("check")[0]["findings"]}
