"""What the store does when the disk, a process, the network or the server fails."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from nbmlops.errors import StoreUnavailable
from nbmlops.records import Cause
from nbmlops.store import Store, sqlite
from nbmlops.store import postgres as postgres_module
from services import until, wire_to

pytestmark = pytest.mark.slow  # real processes and servers


def word(text):
    return Cause(code="c", message=text)


def put(store, name):
    return store.swap("k", name, word(name), expected=0, key=name)


# --- SQLite -------------------------------------------------------------------------------------


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "s.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable, match=r"s\.sqlite"):
        Store(tmp_path / "s.sqlite")


def hold(path, told):
    store = Store(path)

    def work(_):
        told.put(os.getpid())
        signal.pause()

    store._database.write(work)


def test_a_stopped_process_that_holds_the_lock_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "_LOCK_PATIENCE_S", 0.5)
    store = Store(tmp_path / "s.sqlite")
    method = multiprocessing.get_context("spawn")
    told = method.Queue()
    holder = method.Process(target=hold, args=(tmp_path / "s.sqlite", told))
    holder.start()
    try:
        os.kill(told.get(timeout=30), signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match=f"process {holder.pid} has held"):
            put(store, "a")
        assert store.page("k", Cause) == []  # readers are not kept waiting
    finally:
        holder.kill()
        holder.join()
    assert put(store, "a") == 1
    store.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_a_clear_error_and_work_resumes_when_space_returns(small_disk):
    store = Store(small_disk / "s.sqlite")
    put(store, "before")
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    kept = ["before"]

    def fill():
        for number in range(1000):
            put(store, f"r{number}")
            kept.append(f"r{number}")

    with pytest.raises(StoreUnavailable) as caught:
        fill()
    assert "disk has room" in caught.value.hint
    assert {k.record.message for k in store.page("k", Cause, limit=2000)} == set(kept)
    filler.unlink()
    assert put(store, "after") == 1
    assert store.faults() == []
    store.close()


def test_a_read_only_disk_can_be_read_and_says_so_when_written(small_disk):
    store = Store(small_disk / "s.sqlite")
    put(store, "before")
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    store = Store(small_disk / "s.sqlite")
    assert len(store.page("k", Cause)) == 1
    with pytest.raises(StoreUnavailable, match=r"[Rr]ead-?only"):
        put(store, "after")
    store.close()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    store = Store(small_disk / "s.sqlite")
    assert put(store, "after") == 1
    store.close()


WRITE_ONCE = """
import sys
from pathlib import Path
from nbmlops.errors import StoreUnavailable
from nbmlops.records import Cause
from nbmlops.store import Store
try:
    store = Store(Path(sys.argv[1]))
    store.swap("k", sys.argv[2], Cause(code="c", message="x"), expected=0, key=sys.argv[2])
except StoreUnavailable as error:
    sys.exit(f"refused: {error.message}")
"""


def test_a_failed_fsync_is_an_error_and_nothing_of_the_write_stands(tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace, which makes fsync fail, is not installed")
    if subprocess.run(["strace", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let strace make fsync fail")
    path, trace = tmp_path / "s.sqlite", tmp_path / "trace"
    Store(path).close()
    done = subprocess.run(
        [
            *("strace", "-f", "-o", str(trace), "-e", "trace=fsync,fdatasync"),
            *("-e", "inject=fsync,fdatasync:error=EIO"),
            *(sys.executable, "-c", WRITE_ONCE, str(path), "a"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("refused: "), done.stderr
    assert "disk I/O error" in done.stderr
    store = Store(path)
    assert store.get("k", "a", Cause) is None
    assert put(store, "a") == 1
    assert store.faults() == []
    store.close()


# --- PostgreSQL ---------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [True, False], ids=["carried-out", "not-carried-out"])
def test_a_connection_cut_at_commit_neither_loses_nor_doubles(postgres, answered):
    database = postgres.create()
    Store(postgres.url(database)).close()
    with wire_to(postgres.port) as wire:
        store = Store(postgres.url(database, wire.port))
        wire.answered = answered
        for number in range(1, 6):
            wire.cuts += 1
            assert put(store, f"r{number}") == 1
            assert wire.done == number
        wire.cuts += 1
        assert store.swap("k", "r1", word("two"), expected=1, key="two") == 2
        wire.cuts += 1
        assert store.lease("tick", "me", 1.0, 30.0)
        store.close()
    store = Store(postgres.url(database))
    assert [kept.sequence for kept in store.page("k", Cause)] == [5, 4, 3, 2, 1]
    assert store.faults() == []
    assert not store.lease("tick", "other", 2.0, 30.0)
    assert postgres.execute("SELECT count(*) FROM nbmlops_revisions", database) == [(6,)]
    store.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_in_the_middle_of_writes_costs_nobody_a_record(postgres, mode):
    url = postgres.url(postgres.create())
    stores = [Store(url) for _ in range(4)]
    begun, ended = threading.Event(), threading.Event()

    def write(who):
        number = 0
        while not ended.is_set():
            assert put(stores[who], f"{who}-{number}") == 1
            number += 1
            if number == 20:
                begun.set()
        return [f"{who}-{one}" for one in range(number)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, who) for who in range(4)]
        try:
            assert begun.wait(60)
            postgres.stop(mode)
            postgres.start()
            reached = len(stores[0].page("k", Cause, limit=10**6))
            until(
                lambda: len(stores[0].page("k", Cause, limit=10**6)) > reached + 20,
                "writes after the restart",
            )
        finally:
            ended.set()
        acknowledged = {name for one in writing for name in one.result(60)}
    kept = [k.record.message for k in stores[0].page("k", Cause, limit=10**6)]
    assert len(kept) == len(set(kept))
    assert set(kept) == acknowledged
    assert stores[0].faults() == []
    for store in stores:
        store.close()


def test_an_idle_connection_that_the_server_ended_is_made_again(postgres):
    database = postgres.create()
    store = Store(postgres.url(database))
    put(store, "a")
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    postgres.execute(end)
    assert len(store.page("k", Cause)) == 1
    postgres.execute(end)
    assert put(store, "b") == 1
    store.close()


def test_a_server_that_stays_away_is_an_error_by_the_deadline_without_the_password(postgres):
    with wire_to(postgres.port) as wire:
        url = postgres.url(postgres.create(), wire.port)
        store = Store(url, patience_s=1.0)
        wire.close()
        store._database._engine.dispose()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            put(store, "a")
        assert time.monotonic() - began < 10
        assert "NBMLOPS_STORE_URL" in caught.value.hint
        assert postgres.password not in str(caught.value) + repr(caught.value.context)
        store.close()


@pytest.mark.parametrize("wrong", ["password", "database"])
def test_a_refused_log_in_is_told_at_once_without_the_password(postgres, wrong):
    url = postgres.url("nowhere" if wrong == "database" else "postgres")
    if wrong == "password":
        url = url.replace(postgres.password, "canary-word")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        Store(url)
    assert time.monotonic() - began < 10
    assert "~/.pgpass" in caught.value.hint
    assert "canary-word" not in str(caught.value)
    assert postgres.password not in str(caught.value)


def test_a_session_that_stopped_within_a_transaction_is_named(postgres, monkeypatch):
    shorter = postgres_module._SESSION.replace("'10s'", "'1s'")
    monkeypatch.setattr(postgres_module, "_SESSION", shorter)
    database = postgres.create()
    store = Store(postgres.url(database))
    put(store, "a")
    with psycopg.connect(postgres.url(database), application_name="nbmlops stuck") as stuck:
        stuck.execute("UPDATE nbmlops_sequences SET last = last")
        with pytest.raises(StoreUnavailable, match="`nbmlops stuck, process"):
            put(store, "b")
    assert put(store, "b") == 1
    store.close()


def test_a_user_who_may_not_write_is_told_so(postgres):
    database = postgres.create()
    Store(postgres.url(database)).close()
    postgres.execute("CREATE USER reader PASSWORD 'r'", database)
    postgres.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database)
    url = f"postgresql://reader:r@127.0.0.1:{postgres.port}/{database}"
    store = Store(url)
    assert store.page("k", Cause) == []
    with pytest.raises(StoreUnavailable, match="permission denied"):
        put(store, "a")
    store.close()
