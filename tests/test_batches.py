"""Whole files answered by a version in its own environment."""

import json
import os
import signal
import subprocess
import sys
import time

import msgspec
import pandas as pd
import pyarrow.parquet as pq
import pytest

from nbmlops import batches, digests, health, models, stints, tick, workers
from nbmlops.errors import DeploymentFailed, InvalidRecords, UnknownModel, WrongUse
from nbmlops.sheets import InvalidFile
from served import call, row

pytestmark = pytest.mark.slow


@pytest.fixture
def table():
    return pd.DataFrame(
        [{"customer": f"c{n}", **row(n % 120, city=["Bern", "Rome"][n % 2])} for n in range(300)]
    )


def write(table, path):
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)
    return path


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_json(path, lines=True)


def stray(opened):
    return [h.name for h in opened.launcher("local").jobs() if h.name.startswith(stints.PREFIX)]


@pytest.mark.parametrize(
    ("source", "target"),
    [("parquet", "parquet"), ("csv", "csv"), ("jsonl", "jsonl"), ("csv", "parquet")],
)
def test_a_file_gets_the_answers_that_calls_would_get(churn, tmp_path, table, source, target):
    given = write(table, tmp_path / f"in.{source}")
    out = tmp_path / f"out.{target}"
    record = batches.predict(churn, "churn:1", given, out)
    found = read(out)
    assert (record.rows, record.model, record.version) == (300, "churn", 1)
    assert record.commit == models.find(churn, "churn:1").commit
    assert record.source_digest == digests.of_file(given)
    assert record.out_digest == digests.of_file(out)
    assert list(found.columns[:5]) == list(table.columns)
    assert list(found["customer"]) == list(table["customer"])
    assert list(found["age"]) == list(table["age"])
    records = json.loads(table.drop(columns="customer").head(40).to_json(orient="records"))
    answers = call(churn, *records)["predictions"]
    assert list(found["prediction"][:40]) == [answer["label"] for answer in answers]
    for name in ("yes", "no"):
        shares = [answer["probabilities"][name] for answer in answers]
        assert list(found[f"probability.{name}"][:40]) == pytest.approx(shares, rel=1e-9)
    assert set(found["nbmlops_version"]) == {1}
    assert set(found["within_bounds"]) == {True}
    if target == "parquet":
        assert pq.read_schema(out).metadata[b"nbmlops_commit"].decode() == record.commit
        assert str(pq.read_schema(out).field("age").type) == "int64"
    assert stray(churn) == []
    assert churn.store.get(batches.KIND, record.batch_id, type(record)).record == record


def test_a_file_of_many_chunks_keeps_its_order(churn, tmp_path, table):
    given = write(pd.concat([table] * 60, ignore_index=True), tmp_path / "in.parquet")
    batches.predict(churn, "churn:2", given, tmp_path / "out.parquet")
    found = read(tmp_path / "out.parquet")
    assert list(found["customer"]) == list(table["customer"]) * 60


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_value_that_does_not_fit_is_named_by_row_and_column(churn, tmp_path, table, form):
    table["age"] = table["age"].astype(object if form != "parquet" else "float64")
    table.loc[123, "age"] = "old" if form != "parquet" else 2.5
    given = write(table, tmp_path / f"in.{form}")
    out = tmp_path / "out.csv"
    with pytest.raises(InvalidRecords) as caught:
        batches.predict(churn, "churn:1", given, out)
    assert f"in.{form} row 124, column `age`" in caught.value.message
    assert caught.value.context == {"row": 124, "column": "age"}
    assert [path.name for path in tmp_path.iterdir()] == [f"in.{form}"]
    assert stray(churn) == []


def test_what_is_missing_is_named_all_at_once_before_anything_starts(churn, tmp_path, table):
    given = write(table.drop(columns=["city", "income"]), tmp_path / "in.csv")
    with pytest.raises(InvalidFile) as caught:
        batches.predict(churn, "churn:1", given, tmp_path / "out.csv")
    assert "`city`, `income`" in caught.value.message
    again = write(table.assign(prediction=1), tmp_path / "again.csv")
    with pytest.raises(InvalidFile, match="`prediction` already"):
        batches.predict(churn, "churn:1", again, tmp_path / "out.csv")
    for form in ("parquet", "csv", "jsonl"):
        none = write(table.head(0), tmp_path / f"none.{form}")
        with pytest.raises(InvalidFile, match=rf"none\.{form} has no rows"):
            batches.predict(churn, "churn:1", none, tmp_path / "o.csv")


def test_a_worker_that_does_not_start_is_told_in_a_line_with_its_log_beside(
    churn, tmp_path, table, monkeypatch
):
    made = workers.job

    def broken(*words):
        job = made(*words)
        program = "print('first\\nsecond'); import nothing_of_this_name"
        return msgspec.structs.replace(job, command=(sys.executable, "-c", program))

    monkeypatch.setattr(workers, "job", broken)
    given = write(table, tmp_path / "in.csv")
    with pytest.raises(DeploymentFailed) as caught:
        batches.predict(churn, "churn:1", given, tmp_path / "out.csv")
    assert "churn:1 did not start" in caught.value.message
    assert "\n" not in caught.value.message
    assert "nothing_of_this_name" in caught.value.context["log"][-1]
    assert stray(churn) == []


def test_what_is_there_is_never_written_over_without_force(churn, tmp_path, table):
    given, out = write(table.head(3), tmp_path / "in.csv"), tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(WrongUse, match="already"):
        batches.predict(churn, "churn:1", given, out)
    assert out.read_text() == "mine"
    assert batches.predict(churn, "churn:1", given, out, force=True).rows == 3
    with pytest.raises(WrongUse, match="that is read"):
        batches.predict(churn, "churn:1", given, given, force=True)
    with pytest.raises(UnknownModel):
        batches.predict(churn, "churn:9", given, tmp_path / "new.csv")
    with pytest.raises(InvalidFile, match="neither"):
        batches.predict(churn, "churn:1", given, tmp_path / "out.xlsx")


def test_a_worker_that_a_killed_command_left_is_ended_by_the_next_look(churn, tmp_path, table):
    program = (
        "import sys, time; from pathlib import Path; from nbmlops import models, stints, workspace"
        "\nopened = workspace.open_at(Path(sys.argv[1]))"
        "\nwith stints.stint(opened, models.find(opened, 'churn:1')): print('up', flush=True)"
        "; time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, churn.root], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    (name,) = stray(churn)
    # While its command is there nobody takes it for an orphan, and no tick ends it.
    assert not [f for f in health.check(churn).findings if f.code == "job-orphaned"]
    tick.tick(churn)
    assert stray(churn) == [name]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [f.message for f in health.check(churn).findings if name in f.message]
    tick.tick(churn)
    deadline = time.monotonic() + 20
    while stray(churn):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not churn.home.job(name).root.exists()
