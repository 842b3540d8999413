"""What artifacts do when the disk is full, the network lies or the credentials have expired."""

import contextlib
import errno
import os
import subprocess
import time

import pytest

from nbmlops.artifacts import Artifacts
from nbmlops.artifacts.folder import Folder
from nbmlops.errors import ArtifactCorrupt, InvalidSettings, MissingExtra, StorageFailed
from services import free_port
from test_store_faults import small_disk  # noqa: F401  # fixture

pytestmark = pytest.mark.slow  # real processes and servers

DATA = b"some bytes " * 1000


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


# --- this machine's disk ------------------------------------------------------------------------


def test_a_full_disk_is_a_clear_error_and_leaves_no_half_file(small_disk, tmp_path):  # noqa: F811
    kept = Artifacts(small_disk / "a")
    small = kept.put(b"small")
    (tmp_path / "large").write_bytes(os.urandom(2 << 20))
    for keep in (
        lambda: kept.put((tmp_path / "large").read_bytes()),
        lambda: kept.put_file(tmp_path / "large"),
    ):
        with pytest.raises(StorageFailed, match="No space left on device") as caught:
            keep()
        assert str(small_disk) in caught.value.message
        assert "room" in caught.value.hint
    assert [path.name for path in files_in(small_disk)] == [small[2:]]
    elsewhere = Artifacts(tmp_path / "b")
    digest = elsewhere.put_file(tmp_path / "large")
    with pytest.raises(StorageFailed, match="No space left on device"):
        elsewhere.copy_to(digest, small_disk / "out")
    assert [path.name for path in files_in(small_disk)] == [small[2:]]
    assert kept.get(kept.put(b"resumed")) == b"resumed"
    assert list(kept.damaged()) == []


def test_a_read_only_disk_can_be_read_and_says_so_when_written(small_disk):  # noqa: F811
    kept = Artifacts(small_disk / "a")
    digest = kept.put(b"small")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert kept.get(digest) == b"small"
    assert kept.put(b"small") == digest
    with pytest.raises(StorageFailed, match="Read-only"):
        kept.put(b"other")


def test_a_failed_fsync_is_not_tried_again_and_leaves_nothing(tmp_path, monkeypatch):
    kept, asked = Artifacts(tmp_path / "a"), []

    def fails(descriptor):
        asked.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StorageFailed, match="Input/output error"):
        kept.put(DATA)
    assert len(asked) == 1
    assert files_in(tmp_path / "a") == []


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StorageFailed, match="no-such-file"):
        Artifacts(tmp_path / "a").put_file(tmp_path / "no-such-file")


# --- the network --------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3):
    yield s3.bucket()
    s3.heal()


@pytest.fixture
def kept(s3, bucket, tmp_path):
    """Artifacts in a bucket; nothing of what is put here stays on this machine."""
    return Artifacts(f"s3://{bucket}/p", options=s3.options, cache=tmp_path / "c", patience_s=2.0)


def elsewhere(s3, bucket, tmp_path):
    return Artifacts(
        f"s3://{bucket}/p", options=s3.options, cache=tmp_path / "other", patience_s=2.0
    )


class Fault:
    """Change the body and the promised length of the first answers to GET."""

    def __init__(self, change, times=10**6):
        self.change, self.times = change, times

    def __call__(self, method, path, content):
        if method != "GET" or "list-type" in path or not self.times:
            return None
        self.times -= 1
        return 200, *self.change(content)


class Refusal:
    """Refuse the first requests of a method."""

    def __init__(self, method, status, code, times=10**6):
        self.method, self.status, self.code, self.times = method, status, code, times

    def __call__(self, method, path):
        if method != self.method or not self.times:
            return None
        self.times -= 1
        return self.status, (
            f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>The request by"
            " AKIATESTKEY0 was refused.</Message></Error>"
        ).encode()


CUT_OFF = {
    "wire cut": lambda content: (content[:100], len(content)),
    "short answer": lambda content: (content[:100], 100),
    "wrong bytes": lambda content: (b"x" * len(content), len(content)),
}


@pytest.mark.parametrize("code", ["SlowDown", "InternalError", "ServiceUnavailable"])
def test_throttling_and_server_errors_are_waited_out(s3, kept, bucket, tmp_path, code):
    status = 500 if code == "InternalError" else 503
    s3.refusal = Refusal("PUT", status, code, times=3)
    digest = kept.put(DATA)
    assert s3.refusal.times == 0
    s3.refusal = Refusal("GET", status, code, times=3)
    assert elsewhere(s3, bucket, tmp_path).get(digest) == DATA
    assert s3.refusal.times == 0


def test_throttling_that_does_not_end_is_an_error_by_the_deadline(s3, kept, bucket):
    s3.refusal = Refusal("PUT", 503, "SlowDown")
    began = time.monotonic()
    with pytest.raises(StorageFailed, match=f"write artifacts in s3://{bucket}/p"):
        kept.put(DATA)
    assert time.monotonic() - began < 30
    s3.heal()
    assert kept.get(kept.put(DATA)) == DATA


@pytest.mark.parametrize("how", CUT_OFF)
def test_an_answer_that_is_wrong_once_is_asked_for_again(s3, kept, bucket, tmp_path, how):
    digest = kept.put(DATA)
    s3.fault = Fault(CUT_OFF[how], times=1)
    assert elsewhere(s3, bucket, tmp_path).get(digest) == DATA
    assert s3.fault.times == 0


@pytest.mark.parametrize("how", CUT_OFF)
def test_an_answer_that_stays_wrong_is_never_taken(s3, kept, bucket, tmp_path, how):
    digest = kept.put(DATA)
    s3.fault = Fault(CUT_OFF[how])
    other = elsewhere(s3, bucket, tmp_path)
    with pytest.raises((ArtifactCorrupt, StorageFailed)) as caught:
        other.copy_to(digest, tmp_path / "out")
    if how != "wire cut":
        assert isinstance(caught.value, ArtifactCorrupt)
        assert 10**6 - s3.fault.times < 10
    assert not (tmp_path / "out").exists()
    assert files_in(tmp_path / "other") == []


@pytest.mark.parametrize(("method", "status"), [("PUT", 403), ("HEAD", 400), ("HEAD", 403)])
def test_expired_credentials_are_told_at_once_and_never_shown(s3, kept, method, status):
    s3.refusal = Refusal(method, status, "ExpiredToken")
    began = time.monotonic()
    with pytest.raises(StorageFailed) as caught:
        kept.put(DATA)
    assert time.monotonic() - began < 2
    assert "credentials" in caught.value.hint
    told = str(caught.value) + repr(caught.value.context)
    assert s3.options["secret"] not in told
    assert s3.options["key"] not in told


def test_credentials_in_a_url_are_never_shown(tmp_path):
    kept = Artifacts(
        f"ftp://ada:c4nary-word@127.0.0.1:{free_port()}/a", cache=tmp_path, patience_s=0.1
    )
    assert kept.shown.startswith("ftp://127.0.0.1:")
    with pytest.raises(StorageFailed) as caught:
        kept.put(DATA)
    assert "c4nary-word" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_told(s3, tmp_path):
    kept = Artifacts("s3://no-such-bucket/p", options=s3.options, cache=tmp_path)
    with pytest.raises(StorageFailed, match="s3://no-such-bucket/p"):
        kept.put(DATA)


def test_a_server_that_is_away_is_an_error_by_the_deadline(s3, tmp_path):
    endpoint = {"endpoint_url": f"http://127.0.0.1:{free_port()}", "region_name": "us-east-1"}
    options = {**s3.options, "client_kwargs": endpoint}
    kept = Artifacts("s3://b/p", options=options, cache=tmp_path, patience_s=1.0)
    began = time.monotonic()
    with pytest.raises(StorageFailed) as caught:
        kept.put(DATA)
    assert time.monotonic() - began < 30
    assert "[artifacts] url" in caught.value.hint


def test_unknown_places_and_missing_packages_say_what_to_type(tmp_path):
    with pytest.raises(InvalidSettings, match="nosuchplace"):
        Artifacts("nosuchplace://b/p", cache=tmp_path).put(DATA)
    with contextlib.suppress(ImportError):
        import gcsfs  # noqa: F401

        pytest.skip("gcsfs, whose absence is tested, is installed")
    with pytest.raises(MissingExtra, match="gs://b/p"):
        Artifacts("gs://b/p", cache=tmp_path).put(DATA)


def test_what_was_read_once_is_read_from_this_machine_and_verified_there_too(
    s3, kept, bucket, tmp_path
):
    digest = kept.put(DATA)
    other = elsewhere(s3, bucket, tmp_path)
    assert other.get(digest) == DATA
    s3.seen.clear()
    assert other.get(digest) == DATA
    assert s3.seen == []
    (copy,) = files_in(tmp_path / "other")
    copy.chmod(0o644)
    copy.write_bytes(b"changed")
    assert other.get(digest) == DATA
    assert copy.read_bytes() == DATA


def test_the_cache_keeps_what_was_used_last(tmp_path):
    folder = Folder(tmp_path)
    kept = [folder.put(bytes([number]) * 1000) for number in range(5)]
    for age, digest in enumerate(reversed(kept)):
        os.utime(folder.path(digest), (10**9 - age, 10**9 - age))
    folder.trim(2500)
    assert sorted(folder.digests()) == sorted(kept[3:])
