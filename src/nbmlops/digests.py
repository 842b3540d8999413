"""Digests: SHA-256 of bytes, files and folders, the same on both sides of a job."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def of_bytes(data: bytes) -> str:
    """Return the SHA-256 of the bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_tree(entries: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a folder from the relative names of its files and their digests.

    >>> of_tree([("b", "1"), ("a", "2")]) == of_tree([("a", "2"), ("b", "1")])
    True
    """
    digest = hashlib.sha256()
    for name, content in sorted(entries):
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def files_below(folder: Path, *, follow: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder with their relative names.

    With ``follow`` also those behind links to folders, but for links to a folder above.
    """
    for place, folders, names in os.walk(folder, followlinks=follow):
        folders[:] = sorted(name for name in folders if not follow or not _loops(Path(place), name))
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _loops(place: Path, name: str) -> bool:
    """Return whether a link leads to a folder that this path has come through."""
    path = place / name
    if not path.is_symlink():
        return False
    target = path.resolve()
    return any(above.resolve() == target for above in (place, *place.parents))


def of_path(path: Path) -> str:
    """Return the digest of a file, or of a folder over all files below it."""
    if path.is_dir():
        return of_tree((name, of_file(file)) for name, file in files_below(path, follow=True))
    return of_file(path)
