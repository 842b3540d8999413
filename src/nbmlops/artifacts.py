"""Artifacts: bytes that are known by their SHA-256, and checked by it at every read."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from nbmlops import layout
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing

_BLOCK = 1 << 20


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of the bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Artifacts:
    """A folder of bytes by digest; a file is there whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, digest: str) -> Path:
        checked = layout.checked_digest(digest)
        return self._root / checked[:2] / checked[2:]

    def put(self, data: bytes) -> str:
        """Keep the bytes and return their digest; the same bytes are kept once."""
        digest = digest_of(data)
        path = self._path(digest)
        if not path.exists():
            layout.write_file(path, data, mode=0o444)
        return digest

    def put_file(self, source: Path, expected: str | None = None) -> str:
        """Keep a file's bytes and return their digest.

        Raises
        ------
        ArtifactCorrupt
            When the bytes do not have the digest that was ``expected`` of them.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        temporary = self._root / f".incoming-{os.getpid()}-{secrets.token_hex(4)}"
        hashed = hashlib.sha256()
        try:
            with source.open("rb") as file, temporary.open("xb") as copy:
                while block := file.read(_BLOCK):
                    hashed.update(block)
                    copy.write(block)
                copy.flush()
                os.fsync(copy.fileno())
            digest = hashed.hexdigest()
            if expected is not None and digest != expected:
                raise _corrupt(source.name, expected, digest)
            path = self._path(digest)
            path.parent.mkdir(exist_ok=True)
            temporary.chmod(0o444)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of that digest.

        Raises
        ------
        ArtifactMissing
            When they are not there.
        ArtifactCorrupt
            When what is there has another digest.
        """
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError as error:
            raise ArtifactMissing(
                f"the artifact {digest[:12]} is not there",
                "See what is affected: `nbmlops doctor`.",
            ) from error
        if (found := digest_of(data)) != digest:
            raise _corrupt(digest[:12], digest, found)
        return data

    def has(self, digest: str) -> bool:
        """Return whether bytes of that digest are there; they are not read."""
        return self._path(digest).exists()

    def copy_to(self, digest: str, target: Path) -> None:
        """Write the bytes of that digest to a file, checked."""
        layout.write_file(target, self.get(digest))

    def damaged(self) -> Iterator[str]:
        """Yield the digests under which other bytes are found."""
        for path in sorted(self._root.glob("??/*")):
            digest = path.parent.name + path.name
            if digest_of_file(path) != digest:
                yield digest


def _corrupt(name: str, expected: str, found: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(
        f"{name} has the digest {found[:12]}, not {expected[:12]}: its bytes were changed",
        "Do not use it. See what is affected: `nbmlops doctor`.",
        expected=expected,
        found=found,
    )
