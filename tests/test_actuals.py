"""Truths that come later, held beside their calls."""

import csv
from datetime import timedelta

import pandas as pd
import pytest

from nbmlops import actuals, calls, deployments
from nbmlops.actuals import InvalidActuals
from nbmlops.errors import UnknownEndpoint
from nbmlops.project import CallSettings
from nbmlops.records import replace
from nbmlops.sheets import InvalidFile
from served import call, row

pytestmark = pytest.mark.slow


def write(path, header, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def counts(found):
    names = ("rows", "joined", "duplicates", "conflicting", "unknown", "late", "ambiguous")
    return tuple(getattr(found, name) for name in names)


def test_truths_join_their_calls_once(churn, tmp_path):
    ids = [call(churn, row(age))["call_id"] for age in (3, 4, 5)]
    file = write(
        tmp_path / "truths.csv",
        ["call_id", "actual"],
        [ids[0], "yes"],
        [f"call/{ids[1]}", "no"],
        ["nope", "yes"],
        [ids[2][:-1] + "x", "yes"],
    )
    assert counts(actuals.take(churn, "churn", file)) == (4, 2, 0, 0, 2, 0, 0)
    assert counts(actuals.take(churn, "churn", file)) == (4, 0, 2, 0, 2, 0, 0)
    other = write(tmp_path / "other.csv", ["call_id", "truth"], [ids[0], "no"], [ids[2], "no"])
    assert counts(actuals.take(churn, "churn", other)) == (2, 1, 0, 1, 0, 0, 0)
    since = calls.find(churn, ids[0]).at
    table = actuals.joined(churn, "churn", since).set_index("call_id").loc[ids]
    assert list(table["actual"]) == ["no", "no", "no"]
    assert list(table["prediction"]) == ["no", "no", "no"]


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


def test_truths_long_after_their_call_are_late(churn, tmp_path, monkeypatch):
    call_id = call(churn, row(9))["call_id"]
    file = write(tmp_path / "a.csv", ["call_id", "actual"], [call_id, "yes"])
    usual = churn.now
    monkeypatch.setattr(churn, "now", lambda: usual() + timedelta(days=31))
    assert counts(actuals.take(churn, "churn", file)) == (1, 1, 0, 0, 0, 1, 0)


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
