"""Notebooks without their outputs, as blobs: what a snapshot has of them.

Outputs are large and may show a secret, so a notebook of the work tree is stripped before git sees
it. What a notebook becomes is remembered by its blob, and not made again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from nbmlops import layout, notebook
from nbmlops.errors import InvalidNotebook
from nbmlops.repository import Repository

Entries = dict[bytes, tuple[str, str]]  # of an index: name -> mode, blob


class Memory:
    """Which blob a notebook becomes without its outputs, by its own; a mere cache.

    What was read before is not read again. Only what this snapshot asked for is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._before = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            self._before = {}
        self._now: dict[str, str] = {}

    def get(self, repo: Repository, blobs: Iterable[str]) -> dict[str, str]:
        """Return what is known of these blobs; what the repository has lost is not."""
        found = {blob: self._before[blob] for blob in blobs if blob in self._before}
        lost = _absent(repo, {new for old, new in found.items() if old != new})
        found = {old: new for old, new in found.items() if new not in lost}
        self._now |= found
        return found

    def put(self, blob: str, clean: str) -> None:
        """Remember what a notebook becomes."""
        self._now[blob] = clean

    def keep(self) -> None:
        """Write down what was learned."""
        if self._now.items() - self._before.items():
            layout.write_file(self._path, msgspec.json.encode(self._now))


def of_files(
    repo: Repository, names: Iterable[bytes], memory: Memory
) -> dict[bytes, tuple[str, str]]:
    """Return for each notebook of the work tree that has outputs its entry without them.

    The file as it is never becomes a blob: outputs are large, and may show a secret.
    """
    own: dict[bytes, tuple[str, str, Path]] = {}
    for name in names:
        path = repo.top / os.fsdecode(name)
        if name.endswith(b".ipynb") and stat.S_ISREG((found := path.lstat()).st_mode):
            mode = "100755" if found.st_mode & 0o100 else "100644"
            own[name] = mode, _blob_id(path), path
    known = memory.get(repo, {blob for _, blob, _ in own.values()})
    entries: dict[bytes, tuple[str, str]] = {}
    for name, (mode, blob, path) in own.items():
        clean = known.get(blob)
        if clean is None:
            data = path.read_bytes()
            made = _without_outputs(data, os.fsdecode(name))
            read = _id_of([data], len(data))  # it may have been saved since the first look
            clean = blob if made == data else _written(repo, made)
            memory.put(read, read if made == data else clean)
        if clean != blob:
            entries[name] = mode, clean
    return entries


def of_blobs(
    repo: Repository, notebooks: Mapping[bytes, tuple[str, str]], memory: Memory
) -> dict[bytes, tuple[str, str]]:
    """Return for each notebook of the index that has outputs its entry without them."""
    own = {name: entry for name, entry in notebooks.items() if entry[0] in ("100644", "100755")}
    known = memory.get(repo, {blob for _, blob in own.values()})
    entries: dict[bytes, tuple[str, str]] = {}
    for name, (mode, blob) in own.items():
        clean = known.get(blob)
        if clean is None:
            data = repo.run("cat-file", "blob", blob)
            made = _without_outputs(data, os.fsdecode(name))
            clean = known[blob] = blob if made == data else _written(repo, made)
            memory.put(blob, clean)
        if clean != blob:
            entries[name] = mode, clean
    return entries


def _without_outputs(data: bytes, name: str) -> bytes:
    try:
        return notebook.stripped(data, name)
    except InvalidNotebook:
        return data  # kept as it is; a step that uses it is refused where it is read


def _written(repo: Repository, data: bytes) -> str:
    return repo.run("hash-object", "-w", "--stdin", stdin=data).decode().strip()


def _blob_id(path: Path) -> str:
    """Return what git would call the file's bytes, but for repositories that use SHA-256."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return _id_of(iter(lambda: file.read(1 << 20), b""), size)


def _id_of(blocks: Iterable[bytes], size: int) -> str:
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _absent(repo: Repository, blob_ids: set[str]) -> set[str]:
    """Return those of the blobs that the repository has lost."""
    if not blob_ids:
        return set()
    stdin = "".join(f"{blob_id}\n" for blob_id in sorted(blob_ids)).encode()
    told = repo.run("cat-file", "--batch-check", stdin=stdin).decode()
    return {line.split(" ")[0] for line in told.splitlines() if line.endswith(" missing")}
