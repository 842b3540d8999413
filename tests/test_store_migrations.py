"""The tables come from migrations: yesterday's stores are taken over, newer ones refused."""

import json
import multiprocessing
import sqlite3

import alembic.autogenerate
import alembic.command
import alembic.runtime.migration
import alembic.script
import pytest
import sqlalchemy as sa

from nbmlops.errors import StoreTooNew
from nbmlops.records import Record
from nbmlops.store import Store, tables, upgrade
from test_store import where  # noqa: F401  # fixture

pytestmark = pytest.mark.slow  # real processes and servers

# The tables of the first nbmlops, which knew no migrations.
YESTERDAY = """
CREATE TABLE revisions (kind VARCHAR(32) NOT NULL, id VARCHAR(128) NOT NULL,
  revision INTEGER NOT NULL, "key" VARCHAR(200) NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (kind, id, revision), UNIQUE ("key"));
CREATE TABLE heads (sequence INTEGER NOT NULL, kind VARCHAR(32) NOT NULL,
  id VARCHAR(128) NOT NULL, revision INTEGER NOT NULL, status VARCHAR(32) NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (sequence), UNIQUE (kind, id));
CREATE INDEX heads_by_status ON heads (kind, status, sequence);
CREATE TABLE leases (name VARCHAR(64) NOT NULL, holder VARCHAR(128) NOT NULL,
  until_s FLOAT NOT NULL, PRIMARY KEY (name));
CREATE TABLE about (name VARCHAR(32) NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (name));
INSERT INTO about VALUES ('schema', 1);
"""


class Run(Record, frozen=True, kw_only=True):
    """What a run's record needs here."""

    run_id: str
    pipeline: str
    metrics: dict[str, float | None] = {}  # noqa: RUF012


def yesterdays(path, runs=40):
    """Make a store as the first nbmlops left it."""
    with sqlite3.connect(path) as file:
        file.executescript(YESTERDAY)
        for number in range(1, runs + 1):
            metrics = {"accuracy": number / 100, "bad": None}
            run = {"run_id": f"r{number}", "pipeline": "ab"[number % 2], "metrics": metrics}
            body = json.dumps(run).encode()
            for revision in (1, 2):
                file.execute(
                    "INSERT INTO revisions VALUES ('run', ?, ?, ?, ?)",
                    (f"r{number}", revision, f"{number}:{revision}", body),
                )
            file.execute(
                "INSERT INTO heads VALUES (?, 'run', ?, 2, 'succeeded', ?)",
                (number * 3, f"r{number}", body),  # a sequence had gaps
            )
        file.execute("INSERT INTO heads VALUES (200, 'report', 'x', 1, '', ?)", (b"\xff broken",))
        file.execute("INSERT INTO revisions VALUES ('report', 'x', 1, 'x', ?)", (b"\xff broken",))
        file.execute("INSERT INTO leases VALUES ('tick', 'somebody', 1e12)")
    file.close()
    return path


def test_yesterdays_store_is_migrated_in_place_with_all_that_is_in_it(tmp_path):
    store = Store(yesterdays(tmp_path / "s.sqlite"))
    page = store.page("run", Run, limit=1000)
    assert [kept.record.run_id for kept in page] == [f"r{n}" for n in range(40, 0, -1)]
    assert {kept.revision for kept in page} == {2}
    assert store.faults() == []
    # What can be asked for was filled in from the records.
    best = store.best("run", Run, "accuracy", pipeline="a", limit=2)
    assert [kept.record.run_id for kept in best] == ["r40", "r38"]
    assert store.best("run", Run, "bad") == []
    # Keys still stand, and new records come after the old ones.
    run = Run(run_id="r1", pipeline="a")
    assert store.swap("run", "r1", run, expected=0, key="1:2") == 2
    store.swap("run", "new", Run(run_id="new", pipeline="a"), expected=0, key="new")
    assert [kept.sequence for kept in store.page("run", Run, limit=2)] == [201, 120]
    assert not store.lease("tick", "me", 1e12 - 1, 30.0)
    store.close()


def test_a_client_of_yesterday_refuses_the_store_of_today(tmp_path):
    for path in (yesterdays(tmp_path / "old.sqlite"), tmp_path / "new.sqlite"):
        Store(path).close()
        with sqlite3.connect(path) as file:
            # Its check: a schema above its own, which was 1, is too new.
            assert file.execute("SELECT value FROM about WHERE name = 'schema'").fetchone() == (2,)
        file.close()


def test_the_migrations_lead_to_exactly_the_tables_that_the_code_declares(where):  # noqa: F811
    store = Store(where)
    with store._database._engine.connect() as connection:
        context = alembic.runtime.migration.MigrationContext.configure(
            connection,
            opts={
                "version_table": tables.VERSION_TABLE,
                "include_name": lambda name, kind, _: (
                    kind != "table" or name != tables.OLD_VERSION_TABLE
                ),
            },
        )
        found = alembic.autogenerate.compare_metadata(context, tables.metadata)
    assert found == []
    store.close()


def test_the_code_names_all_migrations_and_writes_the_last():
    scripts = alembic.script.ScriptDirectory(f"{upgrade.__file__.rpartition('/')[0]}/migrations")
    assert tuple(s.revision for s in scripts.walk_revisions())[::-1] == tables.MIGRATIONS
    assert scripts.get_current_head() == tables.HEAD


def test_a_migration_that_breaks_off_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    path = yesterdays(tmp_path / "s.sqlite")
    real = alembic.command.upgrade

    def breaks_off(config, _):
        real(config, "0001")
        raise KeyboardInterrupt

    monkeypatch.setattr(alembic.command, "upgrade", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        Store(path)
    with sqlite3.connect(path) as file:
        names = {
            row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        assert names == {"revisions", "heads", "leases", "about"}
        assert file.execute("SELECT count(*) FROM heads").fetchone() == (41,)
    file.close()
    monkeypatch.undo()
    store = Store(path)
    assert len(store.page("run", Run, limit=1000)) == 40
    store.close()


def test_a_store_one_migration_behind_is_brought_up(where, monkeypatch):  # noqa: F811
    real = alembic.command.upgrade
    monkeypatch.setattr(alembic.command, "upgrade", lambda config, _: real(config, "0001"))
    Store(where).close()
    monkeypatch.undo()
    store = Store(where)
    store.swap("run", "a", Run(run_id="a", pipeline="p", metrics={"m": 1}), expected=0, key="1")
    assert len(store.best("run", Run, "m")) == 1
    store.close()


def open_together(where, together, told):  # noqa: F811
    together.wait()
    store = Store(where)
    told.put(len(store.page("run", Run, limit=1000)))
    store.close()


@pytest.mark.parametrize("kind", ["yesterday", "postgresql"])
def test_of_processes_that_migrate_at_once_one_migrates_and_the_others_wait(
    kind, tmp_path, request
):
    if kind == "yesterday":
        where, count = yesterdays(tmp_path / "s.sqlite", runs=400), 400
    else:
        server = request.getfixturevalue("postgres")
        where, count = server.url(server.create()), 0
    method = multiprocessing.get_context("spawn")
    together, told = method.Barrier(4), method.Queue()
    openers = [method.Process(target=open_together, args=(where, together, told)) for _ in range(4)]
    for opener in openers:
        opener.start()
    assert [told.get(timeout=60) for _ in openers] == [count] * 4
    for opener in openers:
        opener.join()
        assert opener.exitcode == 0


def test_a_newer_store_is_refused_with_the_remedy_and_not_touched(where):  # noqa: F811
    store = Store(where)
    with store._database._engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {tables.VERSION_TABLE} SET version_num = '0003'"))
    store.close()
    with pytest.raises(StoreTooNew) as caught:
        Store(where)
    assert "0003" in caught.value.message
    assert "pip install --upgrade" in caught.value.hint
