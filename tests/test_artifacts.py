"""One contract, crossed over a folder, memory and an S3 server."""

import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import time

import fsspec
import pytest

from nbmlops.artifacts import Artifacts
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing, InvalidName

KINDS = ["folder", "url of a folder", "memory", "s3"]


class Kept:
    """Artifacts, and how to reach behind them."""

    def __init__(self, artifacts, cache, fs, root):
        self.artifacts, self.cache, self.fs, self.root = artifacts, cache, fs, root

    def path(self, digest):
        return f"{self.root}/{digest[:2]}/{digest[2:]}"

    def write(self, digest, data):
        """Put other bytes under a digest."""
        path = self.path(digest)
        if self.fs.protocol[0] == "file":
            self.fs.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.exists(path):
                os.chmod(path, 0o644)
        self.fs.pipe_file(path, data)
        self.forget()

    def forget(self):
        """Remove the copies of this machine."""
        for file in self.cache.rglob("*"):
            if file.is_file():
                file.unlink()

    def names(self):
        return sorted(self.fs.find(self.root)) if self.fs.exists(self.root) else []


@pytest.fixture(params=KINDS)
def kept(request, tmp_path):
    cache = tmp_path / "cache"
    if request.param == "folder":
        return Kept(
            Artifacts(tmp_path / "a"), cache, fsspec.filesystem("file"), str(tmp_path / "a")
        )
    if request.param == "url of a folder":
        root = tmp_path / "b c"
        url = f"file://{str(root).replace(' ', '%20')}"
        return Kept(Artifacts(url, cache=cache), cache, fsspec.filesystem("file"), str(root))
    if request.param == "memory":
        root = f"/{tmp_path.name}"
        fs = fsspec.filesystem("memory")
        return Kept(Artifacts(f"memory:/{root}", cache=cache), cache, fs, root)
    server = request.getfixturevalue("s3")
    root = f"{server.bucket()}/deep/prefix"
    fs = fsspec.filesystem("s3", **server.options, use_listings_cache=False)
    return Kept(Artifacts(f"s3://{root}", options=server.options, cache=cache), cache, fs, root)


def test_bytes_come_back_by_digest_and_are_kept_once(kept, tmp_path):
    digest = kept.artifacts.put(b"abc")
    assert digest == hashlib.sha256(b"abc").hexdigest()
    assert kept.artifacts.put(b"abc") == digest
    (tmp_path / "f").write_bytes(b"abc")
    assert kept.artifacts.put_file(tmp_path / "f") == digest
    assert kept.artifacts.get(digest) == b"abc"
    assert kept.artifacts.has(digest)
    kept.forget()
    assert kept.artifacts.get(digest) == b"abc"
    assert len(kept.names()) == 1
    assert list(kept.artifacts.damaged()) == []


def test_no_bytes_are_bytes_too(kept):
    digest = kept.artifacts.put(b"")
    kept.forget()
    assert kept.artifacts.get(digest) == b""


def test_a_flipped_bit_is_noticed_at_every_read(kept, tmp_path):
    digest = kept.artifacts.put(b"abc")
    kept.write(digest, b"abb")
    with pytest.raises(ArtifactCorrupt):
        kept.artifacts.get(digest)
    with pytest.raises(ArtifactCorrupt):
        kept.artifacts.copy_to(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(kept.artifacts.damaged()) == [digest]


def test_truncated_bytes_are_made_whole_by_keeping_them_again(kept, tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 1000)
    digest = kept.artifacts.put_file(tmp_path / "f")
    kept.write(digest, b"abc" * 10)
    with pytest.raises(ArtifactCorrupt):
        kept.artifacts.get(digest)
    assert kept.artifacts.put(b"abc" * 1000) == digest
    kept.forget()
    assert kept.artifacts.get(digest) == b"abc" * 1000


def test_what_is_not_there_and_what_is_no_digest_are_refused(kept, tmp_path):
    assert not kept.artifacts.has("0" * 64)
    for read in (kept.artifacts.get, lambda d: kept.artifacts.copy_to(d, tmp_path / "out")):
        with pytest.raises(ArtifactMissing):
            read("0" * 64)
        for name in ("../../etc/passwd", "A" * 64, "", "0" * 63, "0" * 64 + "\n", "/" * 64):
            with pytest.raises(InvalidName):
                read(name)
    assert not (tmp_path / "out").exists()


def test_a_file_with_other_bytes_than_promised_is_not_taken(kept, tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(ArtifactCorrupt):
        kept.artifacts.put_file(tmp_path / "f", expected="0" * 64)
    assert kept.names() == []
    assert not any(file.is_file() for file in kept.cache.rglob("*"))


PEAK = """
import json, os, resource, sys
from pathlib import Path
from nbmlops.artifacts import Artifacts
where, options, folder = json.loads(sys.argv[1])
folder = Path(folder)
kept = Artifacts(where, options=options, cache=folder / "cache")
(folder / "small").write_bytes(b"small")
kept.copy_to(kept.put_file(folder / "small"), folder / "out")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
digest = kept.put_file(folder / "large")
for copy in (folder / "cache").rglob(digest[2:]):
    copy.unlink()
kept.copy_to(digest, folder / "out")
print(digest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_large_file_goes_and_comes_back_in_blocks(kind, tmp_path, request):
    size, block = 192 << 20, os.urandom(1 << 20)
    with (tmp_path / "large").open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    if kind == "folder":
        where, options, limit = str(tmp_path / "a"), {}, 16 << 10
    else:
        server = request.getfixturevalue("s3")
        where, options, limit = f"s3://{server.bucket()}/p", server.options, 128 << 10
    told = subprocess.run(
        [sys.executable, "-c", PEAK, json.dumps([where, options, str(tmp_path)])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    digest, grown_kib = told.stdout.split()
    assert (tmp_path / "out").stat().st_size == size
    with (tmp_path / "out").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    print(f"{kind}: {int(grown_kib) >> 10} MiB above a small file's")
    assert int(grown_kib) < limit


def test_many_who_keep_the_same_bytes_at_once_keep_them_once(kept):
    data = os.urandom(100_000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: kept.artifacts.put(data), range(32)))
    assert made == {hashlib.sha256(data).hexdigest()}
    kept.forget()
    assert kept.artifacts.get(made.pop()) == data
    assert len(kept.names()) == 1


def test_what_is_there_is_told_with_its_size_and_its_time(kept):
    began = time.time()
    digests = sorted(kept.artifacts.put(data) for data in (b"abc", b"defgh"))
    kept.write("stranger" + "x" * 60, b"whatever")
    found = list(kept.artifacts.present())
    assert [item.digest for item in found] == digests
    assert sorted(item.bytes for item in found) == [3, 5]
    # The clock of the place may be coarse.
    assert all(began - 2 <= item.kept_at <= time.time() + 2 for item in found)


def test_what_was_removed_is_gone_here_and_there_and_can_be_kept_again(kept):
    digest, other = kept.artifacts.put(b"abc"), kept.artifacts.put(b"def")
    assert kept.artifacts.get(digest) == b"abc"
    kept.artifacts.remove(digest)
    assert not kept.artifacts.has(digest)
    with pytest.raises(ArtifactMissing):
        kept.artifacts.get(digest)
    assert [item.digest for item in kept.artifacts.present()] == [other]
    kept.artifacts.remove(digest)  # once more changes nothing
    with pytest.raises(InvalidName):
        kept.artifacts.remove("../x")
    assert kept.artifacts.put(b"abc") == digest
    assert kept.artifacts.get(digest) == b"abc"


def test_where_nothing_was_kept_nothing_is_told(kept):
    assert list(kept.artifacts.present()) == []
    assert list(kept.artifacts.left_over()) == []


def test_what_lies_there_under_other_names_is_not_looked_at(kept):
    digest = kept.artifacts.put(b"abc")
    kept.write("stranger" + "x" * 60, b"whatever")
    assert list(kept.artifacts.damaged()) == []
    assert kept.artifacts.get(digest) == b"abc"
