"""Truths that come later, held beside their calls."""

import csv
from datetime import timedelta

import pandas as pd
import pytest

from nbmlops import actuals, calllog, calls, deployments, health
from nbmlops.actuals import InvalidActuals
from nbmlops.errors import ArtifactCorrupt, UnknownEndpoint, WrongUse
from nbmlops.project import CallSettings
from nbmlops.records import replace
from nbmlops.sheets import InvalidFile
from served import call, row
from test_calllog import DEPLOYMENT, ROUTE
from test_calls import lost, renumbered, written

serving = pytest.mark.slow


def write(path, header, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def counts(found):
    names = ("rows", "joined", "duplicates", "conflicting", "unknown", "late", "ambiguous")
    return tuple(getattr(found, name) for name in names)


@serving
def test_truths_join_their_calls_once(churn, tmp_path):
    ids = [call(churn, row(age))["call_id"] for age in (3, 4, 5)]
    file = write(
        tmp_path / "truths.csv",
        ["call_id", "actual"],
        [ids[0], "yes"],
        [f"call/{ids[1]}", "no"],
        ["nope", "yes"],
        [ids[2][:-1] + ("y" if ids[2].endswith("x") else "x"), "yes"],
    )
    assert counts(actuals.take(churn, "churn", file)) == (4, 2, 0, 0, 2, 0, 0)
    assert counts(actuals.take(churn, "churn", file)) == (4, 0, 2, 0, 2, 0, 0)
    other = write(tmp_path / "other.csv", ["call_id", "truth"], [ids[0], "no"], [ids[2], "no"])
    assert counts(actuals.take(churn, "churn", other)) == (2, 1, 0, 1, 0, 0, 0)
    since = calls.find(churn, ids[0]).at
    table = actuals.joined(churn, "churn", since).set_index("call_id").loc[ids]
    assert list(table["actual"]) == ["no", "no", "no"]
    assert list(table["prediction"]) == ["no", "no", "no"]


@serving
def test_a_record_of_several_is_named_by_its_row(churn, tmp_path):
    call_id = call(churn, row(50), row(70))["call_id"]
    with pytest.raises(InvalidActuals) as caught:
        actuals.take(
            churn, "churn", write(tmp_path / "a.csv", ["call_id", "actual"], [call_id, "no"])
        )
    assert "had 2 records" in caught.value.message
    header = ["call_id", "row", "actual"]
    file = write(tmp_path / "b.csv", header, [call_id, 0, "no"], [call_id, 1, "yes"])
    assert counts(actuals.take(churn, "churn", file)) == (2, 2, 0, 0, 0, 0, 0)
    table = actuals.joined(churn, "churn")
    mine = table[table["call_id"] == call_id]
    assert list(mine["actual"]) == ["no", "yes"]
    with pytest.raises(InvalidActuals):
        actuals.take(churn, "churn", write(tmp_path / "c.csv", header, [call_id, 2, "no"]))


@serving
def test_a_business_key_joins_the_newest_call_up_to_its_time(churn, tmp_path):
    first = call(churn, row(-5))["call_id"]
    second = call(churn, row(-5))["call_id"]
    alone = call(churn, row(-6))["call_id"]
    file = write(tmp_path / "keys.csv", ["age", "left"], [-5, "yes"], [-6, "no"], [-7, "no"])
    found = actuals.take(churn, "churn", file, by="age", label="left")
    assert counts(found) == (3, 2, 0, 0, 1, 0, 1)
    table = actuals.joined(churn, "churn").set_index("call_id")
    assert table.loc[second, "actual"] == "yes"
    assert table.loc[alone, "actual"] == "no"
    assert table.loc[first, "actual"] is None
    at = calls.find(churn, first).at
    pd.DataFrame({"age": [-5], "left": ["no"], "at": [at]}).to_parquet(tmp_path / "at.parquet")
    found = actuals.take(churn, "churn", tmp_path / "at.parquet", by="age", label="left")
    assert counts(found) == (1, 1, 0, 0, 0, 0, 0)
    assert actuals.joined(churn, "churn").set_index("call_id").loc[first, "actual"] == "no"


@serving
def test_a_hashed_key_is_joined_by_its_hash(churn, tmp_path):
    churn.settings = replace(churn.settings, calls=CallSettings(hashed=("age",)))
    try:
        deployments.deploy(churn, "churn:1")
        call_id = call(churn, row(-77))["call_id"]
        file = write(tmp_path / "keys.csv", ["age", "label"], ["-77", "yes"])
        assert counts(actuals.take(churn, "churn", file, by="age")) == (1, 1, 0, 0, 0, 0, 0)
    finally:
        churn.settings = replace(churn.settings, calls=CallSettings())
        deployments.deploy(churn, "churn:1")
    table = actuals.joined(churn, "churn").set_index("call_id")
    assert table.loc[call_id, "actual"] == "yes"
    assert pd.isna(table.loc[call_id, "inputs.age"])


@serving
def test_a_truth_that_is_no_answer_is_refused_by_its_row_and_nothing_is_kept(churn, tmp_path):
    ids = [call(churn, row(8))["call_id"] for _ in range(2)]
    file = write(tmp_path / "a.csv", ["call_id", "actual"], [ids[0], "yes"], [ids[1], "maybe"])
    with pytest.raises(InvalidActuals) as caught:
        actuals.take(churn, "churn", file)
    assert "a.csv row 2: 'maybe' is no class of churn:1" in caught.value.message
    assert "yes" in caught.value.hint
    known = actuals.standing(churn, "churn")
    assert not any((call_id, 0) in known for call_id in ids)
    with pytest.raises(InvalidActuals, match="missing"):
        actuals.take(churn, "churn", write(tmp_path / "b.csv", ["call_id", "actual"], [ids[0], ""]))


@serving
def test_truths_long_after_their_call_are_late(churn, tmp_path, monkeypatch):
    call_id = call(churn, row(9))["call_id"]
    file = write(tmp_path / "a.csv", ["call_id", "actual"], [call_id, "yes"])
    usual = churn.now
    monkeypatch.setattr(churn, "now", lambda: usual() + timedelta(days=31))
    assert counts(actuals.take(churn, "churn", file)) == (1, 1, 0, 0, 0, 1, 0)


@serving
def test_columns_that_are_not_there_are_said(churn, tmp_path):
    file = write(tmp_path / "a.csv", ["call_id", "one", "two"], ["x", "1", "2"])
    with pytest.raises(InvalidFile, match="which one is the truth"):
        actuals.take(churn, "churn", file)
    with pytest.raises(InvalidFile, match="`three`"):
        actuals.take(churn, "churn", file, label="three")
    with pytest.raises(InvalidFile, match="no column of the logged calls"):
        actuals.take(churn, "churn", file, by="one", label="two")
    with pytest.raises(UnknownEndpoint):
        actuals.take(churn, "nothing", file)


def test_truths_are_held_against_the_number_that_their_version_has_now(
    workspace, monkeypatch, tmp_path
):
    call_id = renumbered(workspace, monkeypatch).call_id
    good = write(tmp_path / "good.csv", ["call_id", "actual"], [call_id, "b"])
    assert counts(actuals.take(workspace, "iris", good)) == (1, 1, 0, 0, 0, 0, 0)
    bad = write(tmp_path / "bad.csv", ["call_id", "actual"], [call_id, "x"])
    with pytest.raises(InvalidActuals, match="'x' is no class of iris:2"):
        actuals.take(workspace, "iris", bad)
    keyed = write(tmp_path / "keyed.csv", ["width", "actual"], ["1", "a"])
    assert counts(actuals.take(workspace, "iris", keyed, by="width")) == (1, 0, 0, 1, 0, 0, 0)
    assert list(actuals.joined(workspace, "iris")["actual"]) == ["a"]


def test_truths_about_a_deployment_are_its_endpoints(workspace, monkeypatch, tmp_path):
    call_id = renumbered(workspace, monkeypatch).call_id
    file = write(tmp_path / "a.csv", ["call_id", "actual"], [call_id, "b"])
    found = actuals.take(workspace, "deployment/iris-d1", file)
    assert (found.endpoint, found.joined) == ("iris", 1)
    assert counts(actuals.take(workspace, "iris-d1", file)) == (1, 0, 1, 0, 0, 0, 0)
    assert [path.name for path in (workspace.home.root / "actuals").iterdir()] == ["iris"]
    for name in ("iris", "iris-d1", "deployment/iris-d1"):
        assert list(actuals.joined(workspace, name)["actual"]) == ["b"]
        assert (call_id, 0) in actuals.standing(workspace, name)


@pytest.mark.parametrize("chosen", [{"by": ""}, {"label": ""}])
def test_a_column_without_a_name_is_refused(workspace, tmp_path, chosen):
    written(workspace, 1)
    file = write(tmp_path / "a.csv", ["call_id", "actual"], ["x", 1])
    with pytest.raises(WrongUse, match="without a name"):
        actuals.take(workspace, "cancer", file, **chosen)


@pytest.fixture
def regressor(workspace, monkeypatch):
    """A project with logged calls of a model that answers numbers; each has two records."""
    made = written(workspace, 2)
    version = replace(ROUTE.schema)
    monkeypatch.setattr("nbmlops.models.find", lambda *_: "cancer:3")
    monkeypatch.setattr("nbmlops.models.schema", lambda *_: version)
    workspace.made = [call.call_id for call in made]
    return workspace


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("truth", ["inf", "-inf", "1e999", "nan"])
def test_truths_that_are_no_finite_numbers_are_refused(regressor, tmp_path, suffix, truth):
    file = tmp_path / f"a.{suffix}"
    row = {"call_id": regressor.made[0], "row": 0, "actual": float(truth)}
    if suffix == "csv":
        write(file, list(row), [*list(row.values())[:2], truth])
    elif suffix == "parquet":
        pd.DataFrame([row]).to_parquet(file)
    else:
        number = {"inf": "1e999", "-inf": "-1e999", "nan": "NaN"}.get(truth, truth)
        file.write_text(f'{{"call_id": "{regressor.made[0]}", "row": 0, "actual": {number}}}')
    with pytest.raises(InvalidActuals) as caught:
        actuals.take(regressor, "cancer", file)
    if truth == "nan":
        assert "missing" in caught.value.message
        assert "NaN counts as missing" in caught.value.hint
    else:
        assert "no finite number" in caught.value.message
    assert "row 1" in caught.value.message
    assert actuals.standing(regressor, "cancer") == {}


def test_a_whole_number_that_no_double_holds_is_refused(regressor, tmp_path):
    file = tmp_path / "a.jsonl"
    line = f'{{"call_id": "{regressor.made[0]}", "row": 0, "actual": 1{"0" * 400}}}'
    file.write_text(line)
    with pytest.raises(InvalidActuals, match="no finite number"):
        actuals.take(regressor, "cancer", file)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_that_pandas_made_floats_are_taken(regressor, tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    one, two = regressor.made
    table = pd.DataFrame(
        {"call_id": [one, two, "x"], "row": [0, 1, None], "actual": [1.5, 2.0, 3.0]}
    )
    table.to_csv(file, index=False) if suffix == "csv" else table.to_parquet(file)
    assert counts(actuals.take(regressor, "cancer", file))[:5] == (3, 2, 0, 0, 1)
    assert set(actuals.standing(regressor, "cancer")) == {(one, 0), (two, 1)}
    table["row"] = [0.5, 1.0, 2.0]
    table.to_csv(file, index=False) if suffix == "csv" else table.to_parquet(file)
    with pytest.raises(InvalidActuals, match=r"`row` is '0\.5'"):
        actuals.take(regressor, "cancer", file)


def test_truths_find_calls_whose_segments_are_in_the_artifacts_alone(regressor, tmp_path):
    lost(regressor)
    rows = [[call_id, 0, 1.5] for call_id in regressor.made]
    file = write(tmp_path / "a.csv", ["call_id", "row", "actual"], *rows)
    assert counts(actuals.take(regressor, "cancer", file))[:5] == (2, 2, 0, 0, 0)
    lost(regressor)
    keyed = write(tmp_path / "b.csv", ["client_id", "actual"], ["c1", 2.5])
    assert actuals.take(regressor, "cancer", keyed, by="client_id").conflicting == 0
    assert calllog.verify(regressor.home.calls, DEPLOYMENT).problems == ()


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b"\xff\xfe", b"[" * 5000])
def test_a_damaged_file_of_truths_is_named(regressor, tmp_path, line):
    file = write(tmp_path / "a.csv", ["call_id", "row", "actual"], [regressor.made[0], 0, 1.5])
    actuals.take(regressor, "cancer", file)
    (path,) = regressor.home.actuals("cancer").iterdir()
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ArtifactCorrupt) as caught:
        actuals.take(regressor, "cancer", file)
    assert f"line 2 of cancer/{path.name} was changed" in caught.value.message
    found = [one for one in health.check(regressor).findings if one.code == "actuals-damaged"]
    assert [one.message for one in found] == [caught.value.message]
    assert "backup" in found[0].fix


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_of_truths_without_rows_is_told_as_such(regressor, tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    table = pd.DataFrame({"call_id": pd.Series([], dtype="str"), "actual": []})
    table.to_csv(file, index=False) if suffix == "csv" else table.to_parquet(file)
    with pytest.raises(InvalidFile, match="has no rows"):
        actuals.take(regressor, "cancer", file)
