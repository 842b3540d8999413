"""A folder of bytes by digest; a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nbmlops import digests, layout
from nbmlops.errors import ArtifactCorrupt

BLOCK = 1 << 20


def corrupt(name: str, expected: str, found: str) -> ArtifactCorrupt:
    """Return the error for bytes that are not what their name says."""
    return ArtifactCorrupt(
        f"{name} has the digest {found[:12]}, not {expected[:12]}: its bytes were changed",
        "Do not use it. See what is affected: `nbmlops doctor`.",
        expected=expected,
        found=found,
    )


def blocks_of(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, a block at a time."""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


class Present(NamedTuple):
    """What lies under a digest: its size, and when it was kept last."""

    digest: str
    bytes: int
    kept_at: float


class Folder:
    """Bytes in files below ``root``, named by their digest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return the file of a digest; anything else than a digest is refused."""
        checked = layout.checked_digest(digest)
        return self.root / checked[:2] / checked[2:]

    def incoming(self) -> Path:
        """Return a fresh name for bytes that are not known yet."""
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root / f".incoming-{os.getpid()}-{secrets.token_hex(4)}"

    def keep(self, blocks: Iterable[bytes], name: str, expected: str | None = None) -> str:
        """Write the bytes, durable and whole, and return their digest.

        What the file system refuses is not tried again: after a failed fsync nobody knows what of
        the bytes is on the disk. What stood under the digest is replaced, and so healed.

        Raises
        ------
        ArtifactCorrupt
            When they do not have the digest that was ``expected``.
        OSError
            When the file system refuses them; then nothing is left of them.
        """
        temporary = self.incoming()
        hashed = hashlib.sha256()
        try:
            with temporary.open("xb") as file:
                for block in blocks:
                    hashed.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            digest = hashed.hexdigest()
            if expected is not None and digest != expected:
                raise corrupt(name, expected, digest)
            self.adopt(temporary, digest)
        except OSError as error:
            if error.filename is None:  # a write tells no name
                error.filename = str(self.root)
            raise
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def adopt(self, temporary: Path, digest: str) -> None:
        """Give a synced file of this folder the name of its digest."""
        path = self.path(digest)
        made = not path.parent.exists()
        path.parent.mkdir(exist_ok=True)
        temporary.chmod(0o444)
        temporary.replace(path)
        layout.sync_folder(path.parent)
        if made:
            layout.sync_folder(self.root)

    def has(self, digest: str) -> bool:
        """Return whether there is a file of that digest."""
        return self.path(digest).exists()

    def renew(self, digest: str) -> None:
        """Make a file young again: whoever asks for it now counts on it from now on."""
        with contextlib.suppress(OSError):  # such as a disk that is only read
            self.path(digest).touch()

    def put(self, data: bytes) -> str:
        """Keep the bytes unless exactly these are there, and return their digest."""
        digest = digests.of_bytes(data)
        try:
            if self.path(digest).read_bytes() == data:
                self.renew(digest)
                return digest
        except FileNotFoundError:
            pass
        return self.keep((data,), digest[:12])

    def read(self, digest: str) -> bytes:
        """Return the bytes of a digest, verified.

        Raises
        ------
        FileNotFoundError
            When they are not there.
        ArtifactCorrupt
            When others are.
        """
        data = self.path(digest).read_bytes()
        if (found := digests.of_bytes(data)) != digest:
            raise corrupt(digest[:12], digest, found)
        return data

    def copy_to(self, digest: str, target: Path) -> None:
        """Write the bytes of a digest to a file, which appears only when they are verified."""
        source = self.path(digest).open("rb")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name[:60]}.{os.getpid()}.{secrets.token_hex(4)}")
        hashed = hashlib.sha256()
        try:
            with source, temporary.open("xb") as file:
                while block := source.read(BLOCK):
                    hashed.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if (found := hashed.hexdigest()) != digest:
                raise corrupt(digest[:12], digest, found)
            temporary.replace(target)
            layout.sync_folder(target.parent)
        except OSError as error:
            if error.filename is None:
                error.filename = str(target)
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Yield the digests that are there, sorted."""
        for path in sorted(self.root.glob("??/*")):
            if layout.is_digest(digest := path.parent.name + path.name):
                yield digest

    def present(self) -> Iterator[Present]:
        """Yield what is there, sorted by digest."""
        for digest in self.digests():
            with contextlib.suppress(FileNotFoundError):
                about = self.path(digest).stat()
                yield Present(digest, about.st_size, about.st_mtime)

    def remove(self, digest: str) -> None:
        """Remove the bytes of a digest; none are no mistake."""
        self.path(digest).unlink(missing_ok=True)

    def left_over(self) -> Iterator[tuple[Path, float]]:
        """Yield the files of writes that have not ended, and when they were written to last."""
        for path in sorted(self.root.glob(".incoming-*")):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat().st_mtime

    def damaged(self) -> Iterator[str]:
        """Yield the digests under which other bytes are found."""
        for digest in self.digests():
            if digests.of_file(self.path(digest)) != digest:
                yield digest

    def trim(self, limit_bytes: int) -> None:
        """Remove the files that were not used for longest until the rest is within the limit."""
        found: list[tuple[int, int, Path]] = []
        for path in self.root.glob("??/*"):
            try:
                about = path.stat()
            except FileNotFoundError:
                continue  # somebody else trims too
            found.append((about.st_mtime_ns, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size
