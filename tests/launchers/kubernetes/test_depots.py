"""An object store between this machine and pods, as a folder that fsspec opens."""

import os
import shutil

import pytest

from nbmlops import digests, parcels
from nbmlops.errors import LauncherUnavailable
from nbmlops.launchers.kubernetes import depots
from nbmlops.parcels import ParcelRefused


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store" / "job"
    (folder / "a1" / "files" / "calls").mkdir(parents=True)
    return folder


def sent(store, tmp_path, content="x"):
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "f").write_text(content)
    archive = parcels.pack(tmp_path / "out")
    (store / "a1" / parcels.OUTBOX_FILE).write_bytes(archive)
    (store / "a1" / parcels.DIGEST_FILE).write_text(digests.of_bytes(archive))
    return digests.of_bytes(archive)


def test_an_outbox_is_taken_when_it_is_what_was_sent(store, tmp_path):
    digest = sent(store, tmp_path)
    depots.get_outbox(store.as_uri(), "a1", digest, tmp_path / "got")
    assert (tmp_path / "got" / "f").read_text() == "x"
    depots.get_outbox(store.as_uri(), "a1", None, tmp_path / "again")
    assert (tmp_path / "again" / "f").read_text() == "x"
    with pytest.raises(ParcelRefused):
        depots.get_outbox(store.as_uri(), "a1", "0" * 64, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("again", "got", "other", "out", "store")
    ]


def test_an_outbox_without_its_digest_has_not_come_yet(store, tmp_path):
    sent(store, tmp_path)
    (store / "a1" / parcels.DIGEST_FILE).unlink()
    with pytest.raises(LauncherUnavailable) as caught:
        depots.get_outbox(store.as_uri(), "a1", None, tmp_path / "got")
    assert caught.value.hint


def test_files_of_a_service_come_as_they_grow_and_what_was_removed_here_stays_so(store, tmp_path):
    log = store / "a1" / "files" / "calls" / "log"
    came = {}
    for content in ("one\n", "one\ntwo\n"):
        log.write_text(content)
        depots.get_files(store.as_uri(), "a1", tmp_path / "got", came)
        assert (tmp_path / "got" / "calls" / "log").read_text() == content
    (tmp_path / "got" / "calls" / "log").unlink()
    depots.get_files(store.as_uri(), "a1", tmp_path / "got", came)
    assert not (tmp_path / "got" / "calls" / "log").exists()


def test_a_file_that_changes_and_keeps_its_size_comes_again(store, tmp_path):
    count = store / "a1" / "files" / "calls" / "w.count"
    came = {}
    for number in (1, 2):
        count.write_text(f"answered {number}")
        os.utime(count, (number, number))
        depots.get_files(store.as_uri(), "a1", tmp_path / "got", came)
        assert (tmp_path / "got" / "calls" / "w.count").read_text() == f"answered {number}"


def test_what_counts_a_log_is_brought_before_it_and_never_ahead_of_it(store, tmp_path, monkeypatch):
    calls = store / "a1" / "files" / "calls"
    (calls / "a.log").write_bytes(b"1" * 5000)
    (calls / "z.count").write_text("5000")
    came, copied = {}, shutil.copyfileobj

    def goes_on(source, target, size):
        copied(source, target, size)
        if target.name.split(".")[1] == "z":  # the writer goes on just then
            (calls / "a.log").write_bytes(b"1" * 6000)
            (calls / "z.count").write_text("6000")

    monkeypatch.setattr(depots.shutil, "copyfileobj", goes_on)
    depots.get_files(store.as_uri(), "a1", tmp_path / "got", came)
    got = tmp_path / "got" / "calls"
    assert (got / "a.log").stat().st_size >= int((got / "z.count").read_text())


def test_a_job_that_has_written_nothing_yet_gives_nothing(store, tmp_path):
    depots.get_files(store.as_uri(), "a9", tmp_path / "got", {})
    assert not (tmp_path / "got").exists()


def test_what_has_been_read_is_removed(store, tmp_path):
    depots.remove(store.as_uri())
    assert not store.exists()
    depots.remove(store.as_uri())
