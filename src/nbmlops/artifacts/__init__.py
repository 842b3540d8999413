"""Artifacts: bytes that are known by their SHA-256, and checked by it at every read.

They are kept in a folder of the machine, or below any URL that fsspec knows.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nbmlops import layout
from nbmlops.artifacts.folder import Folder, Present, blocks_of
from nbmlops.artifacts.remote import Remote
from nbmlops.errors import ArtifactMissing, storage_failed


class Artifacts:
    """Bytes by digest; whoever can see the place can read all of them."""

    def __init__(
        self,
        where: Path | str,
        *,
        options: Mapping[str, Any] | None = None,
        cache: Path | None = None,
        patience_s: float = 30.0,
    ) -> None:
        """Keep bytes below ``where``: a folder, or an fsspec URL with its ``options``.

        Nothing is opened yet. Bytes from a URL have copies in the folder ``cache``. What a network
        refuses for a moment is tried again for up to ``patience_s`` seconds.
        """
        local = where if isinstance(where, Path) else _local(where)
        self._place: Folder | Remote
        if local is not None:
            self._place = Folder(local)
            self.shown = str(local)
        else:
            near = Folder(cache or layout.cache_dir(os.environ) / "artifacts")
            self._place = Remote(str(where), options or {}, near, patience_s)
            self.shown = self._place.shown

    def put(self, data: bytes) -> str:
        """Keep the bytes and return their digest; the same bytes are kept once.

        Raises
        ------
        StorageFailed
            When they cannot be kept; then nothing of them is visible.
        """
        with _storage():
            return self._place.put(data)

    def put_file(self, source: Path, expected: str | None = None) -> str:
        """Keep a file's bytes, a block at a time, and return their digest.

        Raises
        ------
        ArtifactCorrupt
            When the bytes do not have the digest that was ``expected`` of them.
        StorageFailed
            When they cannot be read or kept; then nothing of them is visible.
        """
        with _storage():
            return self._place.keep(blocks_of(source), source.name, expected)

    def get(self, digest: str) -> bytes:
        """Return the bytes of that digest.

        Raises
        ------
        ArtifactMissing
            When they are not there.
        ArtifactCorrupt
            When what is there has another digest.
        StorageFailed
            When the place cannot be read.
        """
        with _storage(), self._present(digest):
            return self._place.read(digest)

    def has(self, digest: str) -> bool:
        """Return whether bytes of that digest are there; they are not read."""
        with _storage():
            return self._place.has(digest)

    def copy_to(self, digest: str, target: Path) -> None:
        """Write the bytes of that digest to a file, a block at a time, checked before it appears.

        Raises
        ------
        ArtifactMissing, ArtifactCorrupt, StorageFailed
            As ``get``, and when the target cannot be written.
        """
        with _storage(), self._present(digest):
            self._place.copy_to(digest, target)

    def present(self) -> Iterator[Present]:
        """Yield what is there, by its name alone: with its size, and when it was kept last."""
        with _storage():
            yield from self._place.present()

    def remove(self, digest: str) -> None:
        """Remove the bytes of a digest; who does so knows that nothing names them.

        Raises
        ------
        StorageFailed
            When the place refuses.
        """
        with _storage():
            self._place.remove(digest)

    def left_over(self) -> Iterator[tuple[Path, float]]:
        """Yield the files of this machine that writes have left, or are at, and their times."""
        with _storage():
            yield from self._place.left_over()

    def damaged(self) -> Iterator[str]:
        """Yield the digests under which other bytes are found; reads everything."""
        with _storage():
            yield from self._place.damaged()

    @contextmanager
    def _present(self, digest: str) -> Generator[None, None, None]:
        try:
            yield
        except FileNotFoundError as error:
            if self.has(digest):
                raise
            raise ArtifactMissing(
                f"the artifact {digest[:12]} is not in {self.shown}",
                "See what is affected: `nbmlops doctor`.",
            ) from error


def _local(url: str) -> Path | None:
    """Return the folder that a URL or path names, if it is on this machine."""
    parts = urlsplit(url)
    if "://" not in url:
        return Path(url).absolute()
    if parts.scheme in {"file", "local"}:
        return Path(unquote(parts.netloc + parts.path)).absolute()
    return None


@contextmanager
def _storage() -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise storage_failed(error) from error
