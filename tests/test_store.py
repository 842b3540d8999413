import multiprocessing
import os
import random
import signal
import time

import pytest

from nbmlops.errors import Conflict, StoreTooNew, StoreUnavailable
from nbmlops.records import Cause
from nbmlops.store import Store


def word(text):
    return Cause(code="c", message=text)


def test_a_record_moves_on_by_compare_and_swap(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    assert store.get("k", "a", Cause) is None
    store.swap("k", "a", word("one"), expected=0, key="1", status="open")
    store.swap("k", "a", word("two"), expected=1, key="2", status="shut")
    kept = store.get("k", "a", Cause)
    assert kept is not None
    assert (kept.record.message, kept.revision) == ("two", 2)
    with pytest.raises(Conflict):
        store.swap("k", "a", word("three"), expected=1, key="3")
    assert [k.record.message for k in store.page("k", Cause, status=("shut",))] == ["two"]


def test_the_same_key_again_changes_nothing(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    assert store.swap("k", "a", word("one"), expected=0, key="1") == 1
    assert store.swap("k", "a", word("other"), expected=0, key="1") == 1
    kept = store.get("k", "a", Cause)
    assert kept is not None
    assert kept.record.message == "one"


def test_pages_go_newest_first_and_on_from_a_cursor(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    for number in range(5):
        store.swap("k", f"r{number}", word(str(number)), expected=0, key=str(number))
    first = store.page("k", Cause, limit=2)
    assert [kept.record.message for kept in first] == ["4", "3"]
    rest = store.page("k", Cause, limit=9, before=first[-1].sequence)
    assert [kept.record.message for kept in rest] == ["2", "1", "0"]
    assert [k.record.message for k in store.find("k", "r3", Cause)] == ["3"]
    assert store.find("k", "%", Cause) == []


def test_a_lease_has_one_holder_until_it_runs_out_or_is_given_back(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    assert store.lease("tick", "a", 100.0, 30.0)
    assert store.lease("tick", "a", 101.0, 30.0)
    assert not store.lease("tick", "b", 110.0, 30.0)
    assert store.lease("tick", "b", 132.0, 30.0)
    store.release("tick", "b")
    assert store.lease("tick", "a", 133.0, 30.0)


def test_a_lease_from_a_clock_that_was_set_back_does_not_stand_for_ever(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    assert store.lease("tick", "a", 1e9, 30.0)
    assert store.lease("tick", "b", 1000.0, 30.0)


def test_a_newer_store_is_refused_with_the_remedy(tmp_path):
    import sqlite3

    Store(tmp_path / "s.sqlite").close()
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        connection.execute("UPDATE about SET value = 99")
    with pytest.raises(StoreTooNew) as caught:
        Store(tmp_path / "s.sqlite")
    assert "pip install --upgrade" in caught.value.hint


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "s.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable, match=r"s\.sqlite"):
        Store(tmp_path / "s.sqlite")


def write_many(path, who, count):
    store = Store(path)
    for number in range(count):
        store.swap("k", f"{who}-{number}", word("x"), expected=0, key=f"{who}:{number}")
        print(f"{who}-{number}", flush=True)


@pytest.mark.slow
def test_writers_at_once_all_land(tmp_path):
    method = multiprocessing.get_context("spawn")
    path = tmp_path / "s.sqlite"
    writers = [method.Process(target=write_many, args=(path, who, 30)) for who in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(Store(path).page("k", Cause, limit=1000)) == 180


def acknowledge_many(path, told):
    store = Store(path)
    number = 0
    with told.open("a") as file:
        while True:
            store.swap("k", f"r{number}", word("x"), expected=0, key=f"{number}")
            file.write(f"{number}\n")
            file.flush()
            number += 1


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_there(tmp_path):
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    method = multiprocessing.get_context("spawn")
    for turn in range(5):
        path, told = tmp_path / f"{turn}.sqlite", tmp_path / f"{turn}.txt"
        writer = method.Process(target=acknowledge_many, args=(path, told))
        writer.start()
        deadline = time.monotonic() + 30
        while (not told.exists() or not told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        store = Store(path)
        assert store.faults() == []
        kept = {k.record.message for k in store.page("k", Cause, limit=10**6)}
        acknowledged = told.read_text().splitlines()
        assert acknowledged
        assert kept == {"x"}
        for number in acknowledged:
            assert store.get("k", f"r{number}", Cause) is not None
        # At most the one that was under way came on top, and sending it again is no second one.
        extra = store.get("k", f"r{len(acknowledged)}", Cause)
        store.swap("k", f"r{len(acknowledged)}", word("x"), expected=0, key=f"{len(acknowledged)}")
        again = store.get("k", f"r{len(acknowledged)}", Cause)
        assert again is not None
        assert again.revision == 1
        assert extra is None or extra.revision == 1
