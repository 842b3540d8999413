"""One contract, crossed over a SQLite file and a PostgreSQL database."""

import concurrent.futures
import math
import sys
import threading

import pytest

from nbmlops.errors import Conflict, InvalidSettings, StoreTooNew
from nbmlops.records import Cause, Record
from nbmlops.store import Store, tables


class Sum(Record, frozen=True, kw_only=True):
    """A record with what can be asked for."""

    name: str
    pipeline: str = "train"
    metrics: dict[str, float | None] = {}  # noqa: RUF012


def word(text):
    return Cause(code="c", message=text)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """Where a fresh store is: a path or a URL."""
    if request.param == "sqlite":
        return tmp_path / "s.sqlite"
    server = request.getfixturevalue("postgres")
    return server.url(server.create())


@pytest.fixture
def store(where):
    opened = Store(where)
    yield opened
    opened.close()


def test_a_record_moves_on_by_compare_and_swap(store):
    assert store.get("k", "a", Cause) is None
    store.swap("k", "a", word("one"), expected=0, key="1", status="open")
    store.swap("k", "a", word("two"), expected=1, key="2", status="shut")
    kept = store.get("k", "a", Cause)
    assert kept is not None
    assert (kept.record.message, kept.revision) == ("two", 2)
    with pytest.raises(Conflict):
        store.swap("k", "a", word("three"), expected=1, key="3")
    assert [k.record.message for k in store.page("k", Cause, status=("shut",))] == ["two"]
    assert store.page("k", Cause, status=("open",)) == []
    assert store.faults() == []


def test_the_same_key_again_changes_nothing(store):
    assert store.swap("k", "a", word("one"), expected=0, key="1") == 1
    assert store.swap("k", "a", word("other"), expected=0, key="1") == 1
    kept = store.get("k", "a", Cause)
    assert kept is not None
    assert kept.record.message == "one"


def test_pages_go_newest_first_and_on_from_a_cursor(store):
    for number in range(5):
        store.swap("k", f"r{number}", word(str(number)), expected=0, key=str(number))
    first = store.page("k", Cause, limit=2)
    assert [kept.record.message for kept in first] == ["4", "3"]
    rest = store.page("k", Cause, limit=9, before=first[-1].sequence)
    assert [kept.record.message for kept in rest] == ["2", "1", "0"]


def test_a_record_is_found_by_the_beginning_of_its_id_and_nothing_is_a_pattern(store):
    for number, name in enumerate(("r3", "r31", "R3", "r%", "s")):
        store.swap("k", name, word(name), expected=0, key=str(number))
    assert [k.record.message for k in store.find("k", "r3", Cause)] == ["r3", "r31"]
    assert [k.record.message for k in store.find("k", "r%", Cause)] == ["r%"]
    assert store.find("k", "%", Cause) == store.find("other", "r", Cause) == []


def test_pages_are_filtered_by_status_and_pipeline_and_stay_newest_first(store):
    for number in range(12):
        record = Sum(name=str(number), pipeline="ab"[number % 2])
        status = ("good", "bad", "ugly")[number % 3]
        store.swap("k", f"r{number}", record, expected=0, key=str(number), status=status)

    def names(**filters):
        return [kept.record.name for kept in store.page("k", Sum, **filters)]

    assert names(status=("good",)) == ["9", "6", "3", "0"]
    assert names(status=("good", "ugly", "good"), limit=3) == ["11", "9", "8"]
    assert names(pipeline="b", limit=2) == ["11", "9"]
    assert names(status=("good", "bad"), pipeline="a") == ["10", "6", "4", "0"]
    assert names(status=()) == []
    cursor = store.page("k", Sum, status=("good",), limit=2)[-1].sequence
    assert names(status=("good",), before=cursor) == ["3", "0"]


def test_the_best_by_a_metric_come_first_and_the_newest_among_equals(store):
    values = [0.5, None, math.nan, math.inf, 0.9, 0.5, -1.0]
    for number, value in enumerate(values):
        record = Sum(name=str(number), metrics={"accuracy": value, "loss": 1.0})
        store.swap("k", f"r{number}", record, expected=0, key=str(number), status="open")
    store.swap("k", "none", Sum(name="none"), expected=0, key="none")

    def names(metric="accuracy", **words):
        return [kept.record.name for kept in store.best("k", Sum, metric, **words)]

    assert names() == ["4", "5", "0", "6"]
    assert names(lowest=True) == ["6", "5", "0", "4"]
    assert names(limit=2) == ["4", "5"]
    assert names("loss")[0] == "6"
    assert names("no-such") == names(status=("shut",)) == names(pipeline="other") == []
    assert names(status=("open",), pipeline="train", limit=1) == ["4"]


def test_the_metrics_asked_for_are_those_of_the_newest_revision(store):
    first = Sum(name="one", metrics={"a": 1.0, "b": 2.0})
    store.swap("k", "r", first, expected=0, key="1")
    store.swap("k", "r", Sum(name="two", metrics={"a": 3.0}), expected=1, key="2")
    assert [kept.record.name for kept in store.best("k", Sum, "a")] == ["two"]
    assert store.best("k", Sum, "b") == []


def test_a_metric_with_a_name_that_no_index_holds_is_kept_and_not_asked_for(store):
    odd = {"\0": 1.0, "x" * 5000: 2.0, "größe; DROP TABLE": 3.0}
    store.swap("k", "r", Sum(name="odd", metrics=odd), expected=0, key="1")
    kept = store.get("k", "r", Sum)
    assert kept is not None
    assert kept.record.metrics == odd
    assert len(store.best("k", Sum, "größe; DROP TABLE")) == 1


def test_a_lease_has_one_holder_until_it_runs_out_or_is_given_back(store):
    assert store.lease("tick", "a", 100.0, 30.0)
    assert store.lease("tick", "a", 101.0, 30.0)
    assert not store.lease("tick", "b", 110.0, 30.0)
    assert store.lease("tick", "b", 132.0, 30.0)
    store.release("tick", "a")
    assert not store.lease("tick", "a", 133.0, 30.0)
    store.release("tick", "b")
    assert store.lease("tick", "a", 133.0, 30.0)


def test_a_lease_from_a_clock_that_was_set_back_does_not_stand_for_ever(store):
    assert store.lease("tick", "a", 1e9, 30.0)
    assert store.lease("tick", "b", 1000.0, 30.0)


def test_projects_that_share_a_database_do_not_see_each_other(where):
    ours, theirs = Store(where, project="ours"), Store(where, project="theirs")
    for number in range(3):
        ours.swap("k", f"r{number}", word("ours"), expected=0, key=str(number))
    record = Sum(name="theirs", metrics={"a": 1.0})
    assert theirs.swap("k", "r0", record, expected=0, key="0") == 1
    assert [kept.record.name for kept in theirs.page("k", Sum)] == ["theirs"]
    assert theirs.page("k", Sum)[0].sequence == 1
    assert ours.best("k", Sum, "a") == []
    assert theirs.lease("tick", "a", 1.0, 30.0)
    assert ours.lease("tick", "b", 1.0, 30.0)
    ours.close()
    theirs.close()


def test_of_many_who_write_the_same_revision_one_wins(where):
    stores = [Store(where) for _ in range(6)]
    together = threading.Barrier(6)

    def one(number):
        together.wait()
        try:
            return stores[number].swap("k", "r", word(str(number)), expected=0, key=str(number))
        except Conflict:
            return None

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        won = [who for who, revision in enumerate(pool.map(one, range(6))) if revision]
    assert len(won) == 1
    kept = stores[0].get("k", "r", Cause)
    assert kept is not None
    assert kept.record.message == str(won[0])
    assert stores[0].faults() == []
    for store in stores:
        store.close()


def test_of_many_who_send_the_same_key_all_are_told_the_same(where):
    stores = [Store(where) for _ in range(6)]
    together = threading.Barrier(6)

    def one(store):
        together.wait()
        return store.swap("k", "r", word("x"), expected=0, key="the-key")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, stores)) == [1] * 6
    for store in stores:
        store.close()


def test_sequences_have_no_gaps_and_a_reader_who_pages_on_misses_nobody(where):
    writers, reader = [Store(where) for _ in range(4)], Store(where)
    ended = threading.Event()
    seen: list[list[int]] = []

    def write(who):
        for number in range(25):
            name = f"{who}-{number}"
            writers[who].swap("k", name, word(name), expected=0, key=name)

    def watch():
        while not ended.is_set():
            seen.append([kept.sequence for kept in reader.page("k", Cause, limit=1000)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    ended.set()
    watcher.join()
    assert [kept.sequence for kept in reader.page("k", Cause, limit=1000)] == [*range(100, 0, -1)]
    # Whatever a reader saw at any moment had no hole that was filled later.
    assert all(page == [*range(len(page), 0, -1)] for page in seen)
    for store in (*writers, reader):
        store.close()


def test_a_store_that_is_migrated_while_it_is_open_is_not_written_by_an_older_client(where):
    store = Store(where)
    store.swap("k", "a", word("one"), expected=0, key="1")
    with store._database._engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreTooNew) as caught:
        store.swap("k", "a", word("two"), expected=1, key="2")
    assert "pip install --upgrade" in caught.value.hint
    with pytest.raises(StoreTooNew):
        store.lease("tick", "a", 1.0, 30.0)
    with pytest.raises(StoreTooNew):
        Store(where)
    store.close()


def test_a_missing_revision_is_a_fault(store):
    store.swap("k", "a", word("one"), expected=0, key="1")
    store.swap("k", "a", word("two"), expected=1, key="2")
    with store._database._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM nbmlops_revisions WHERE revision = 1")
    assert [fault.split(" from ")[0] for fault in store.faults()] == [
        "revisions of k a are missing"
    ]


@pytest.mark.parametrize("url", ["mysql://u:s3cr3t@h/d", "no url: s3cr3t", "sqlite://"])
def test_other_databases_are_refused_and_no_password_is_shown(url):
    with pytest.raises(InvalidSettings) as caught:
        Store(url)
    assert "s3cr3t" not in str(caught.value)


def test_a_sqlite_file_can_be_named_by_url(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/deep/s.sqlite", project="p")
    store.swap("k", "a", word("one"), expected=0, key="1")
    assert store.shown == str(tmp_path / "deep/s.sqlite")
    assert (tmp_path / "deep/s.sqlite").exists()
    store.close()


def test_opening_a_store_that_is_there_loads_no_migrations(tmp_path):
    import subprocess

    Store(tmp_path / "s.sqlite").close()
    code = (
        "import sys; from pathlib import Path; from nbmlops.store import Store;"
        f"Store(Path({str(tmp_path / 's.sqlite')!r}));"
        "print(sorted({'alembic', 'psycopg', 'mako'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
