"""Parcels: how an inbox and an outbox travel where launcher and job share no disk.

A folder travels as one compressed archive. Where nothing but a pod's log leads back, the archive
is lines of text at its end, frames, each behind a marker that the launcher has drawn; how the
program ended is the pod's last message, an :class:`Outcome`. Both sides speak by this module.
"""

from __future__ import annotations

import base64
import binascii
import errno
import gzip
import io
import secrets
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from nbmlops import archives, digests, layout
from nbmlops.errors import NbmlopsError
from nbmlops.records.record import Record

# Set by a launcher for the program that brings and ships, and taken away from the job's own.
PLAN_VARIABLE = "NBMLOPS_EXCHANGE_PLAN"
MARKER_VARIABLE = "NBMLOPS_EXCHANGE_MARKER"
CREDENTIALS_PREFIX = "NBMLOPS_EXCHANGE_STORE_"

INBOX_FILE = "inbox.tar.gz"
OUTBOX_FILE = "outbox.tar.gz"
DIGEST_FILE = "outbox.sha256"  # written last: without it there is no outbox yet

# A Secret holds 1 MiB; its other keys are small.
INBOX_LIMIT_BYTES = 1_000_000
OUTBOX_LIMIT_BYTES = 2 * 2**20
MESSAGE_LIMIT_BYTES = 4096
# What an outbox may become on this machine, whatever the archive says.
LAID_LIMIT_BYTES = 64 * 2**30
LAID_LIMIT_FILES = 200_000
_SMALL_LAID_LIMIT_BYTES = 256 * 2**20
# What names that cannot stand side by side, or at all, make of the file system.
_OF_NAMES = (None, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)
# A file of this size may say how far larger ones have come. Copied while they are written, it is
# read before them and put after them, so that it never tells of more than they hold.
SMALL_BYTES = 4096
# A frame is one write that a pipe takes whole, so that no other line gets into it.
_FRAME_BYTES = 2880
_COPY_BYTES = 2**20


class ParcelRefused(NbmlopsError):
    """What came back from a job is not what it has sent, or leads out of its folder."""

    code = "parcel-refused"
    exit_code = 1


class ParcelTooLarge(NbmlopsError):
    """An inbox or an outbox is larger than its way can carry."""

    code = "parcel-too-large"


class Plan(Record, frozen=True, kw_only=True):
    """What the program in the pod is to do; nothing in it is secret.

    ``way`` is ``secret``, ``url`` or ``claim``; ``place`` is the folder of this job in the object
    store or on the claim. ``inbox`` is the file of a mounted Secret, where the inbox comes by one.
    With ``apart`` each part of a batch has a parcel of its own besides, :func:`part_file`.
    """

    way: str
    work: str
    attempt: str
    inbox: str | None = None
    place: str | None = None
    message: str = "/dev/termination-log"
    port: int | None = None
    timeout_s: int | None = None
    drain_s: float = 0.0
    apart: bool = False


class Outcome(Record, frozen=True, kw_only=True):
    """How a job's program ended; an ``exit_code`` below zero is the signal that ended it.

    ``reason`` is ``time-limit``, ``out-of-memory``, ``cannot-start``, ``cancelled``, or what kept
    the outbox from being sent; ``digest`` and ``size_bytes`` are those of its archive.
    """

    exit_code: int
    reason: str | None = None
    message: str | None = None
    digest: str | None = None
    size_bytes: int = 0
    started_s: float = 0.0
    finished_s: float = 0.0


def new_marker() -> str:
    """Return a marker that nobody can guess."""
    return f"nbmlops-outbox-{secrets.token_hex(16)}"


def ways_of(exchange: str) -> str:
    """Return the way of an ``exchange`` setting: ``secret``, ``url`` or ``claim``."""
    if "://" in exchange:
        return "url"
    return "claim" if exchange.startswith("pvc:") else "secret"


def part_file(index: int) -> str:
    """Return the name of the parcel that only one part of a batch gets."""
    return f"{layout.EACH_FOLDER}/{index}.tar.gz"


def pack(folder: Path, *, without: str | None = None) -> bytes:
    """Return the files below a folder as a compressed archive, the same files as the same bytes.

    ``without`` names a folder in it that is left out.
    """
    found = sorted(digests.files_below(folder))
    kept = [(name, path) for name, path in found if PurePosixPath(name).parts[0] != without]
    buffer = io.BytesIO()
    archives.write(buffer, kept)
    return gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)


def pack_to(folder: Path, target: Path) -> str:
    """Pack a folder into a file, piece by piece, and return the digest of that file."""
    _pack_to(target, sorted(digests.files_below(folder)), level=6)
    return digests.of_file(target)


def pack_part(folder: Path, target: Path, index: int) -> None:
    """Pack what of an inbox only one part of a batch gets, quickly: somebody waits for each."""
    own = f"{layout.EACH_FOLDER}/{index}"
    found = sorted(digests.files_below(folder / own))
    _pack_to(target, [(f"{own}/{name}", path) for name, path in found], level=1)


def _pack_to(target: Path, files: Iterable[tuple[str, Path]], *, level: int) -> None:
    with target.open("wb") as file, gzip.GzipFile("", "wb", level, file, mtime=0) as packed:
        archives.write(packed, files)


def pack_inbox(folder: Path) -> bytes:
    """Return an inbox that is small enough for a Secret.

    Raises
    ------
    ParcelTooLarge
        When it is not.
    """
    packed = pack(folder)
    if len(packed) > INBOX_LIMIT_BYTES:
        raise ParcelTooLarge(
            f"the inbox of the job has {len(packed):,} bytes when packed, and a Secret of the"
            f" cluster carries {INBOX_LIMIT_BYTES:,}",
            'Name an object store or a claim in nbmlops.toml: [kubernetes] exchange = "s3://..."'
            ' or "pvc:NAME".',
        )
    return packed


def frames(archive: bytes, marker: str) -> Iterator[bytes]:
    """Yield an archive as lines of a log.

    >>> [line.split()[1] for line in frames(b"x" * 5000, "m")]
    [b'0/2', b'1/2']
    """
    count = max(1, -(-len(archive) // _FRAME_BYTES))
    for number in range(count):
        part = archive[number * _FRAME_BYTES : (number + 1) * _FRAME_BYTES]
        yield b"%s %d/%d %s\n" % (marker.encode(), number, count, base64.b64encode(part))


class Gathered:
    """The frames that were met in a log; what is not a frame is a line for people."""

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._parts: dict[int, str] = {}
        self._count = 0

    def take(self, line: str) -> str | None:
        """Return what of a line is for people, or ``None`` when it is a frame and nothing else."""
        if not self._marker or self._marker not in line:
            return line
        before, _, frame = line.partition(self._marker)
        words = frame.split()
        number, _, count = words[0].partition("/") if len(words) == 2 else ("", "", "")
        if number.isdecimal() and count.isdecimal():
            self._parts[int(number)] = words[1]
            self._count = int(count)
        return before or None

    def archive(self, digest: str | None) -> bytes:
        """Return the archive that was sent.

        Raises
        ------
        ParcelRefused
            When a frame is missing, or the bytes are not those that were sent.
        """
        parts = [self._parts.get(number) for number in range(self._count)]
        try:
            whole = b"".join(base64.b64decode(part or "!", validate=True) for part in parts)
        except binascii.Error:
            whole = b""
        if not self._count or digests.of_bytes(whole) != digest:
            raise ParcelRefused(
                f"the outbox at the end of the job's log is not whole: {len(self._parts)} of"
                f" {self._count} pieces came",
                'Run it again, or name an object store: [kubernetes] exchange = "s3://...".',
            )
        return whole


def shown(lines: Iterable[str], marker: str) -> Iterator[str]:
    """Yield the lines of a log that are for people."""
    gathered = Gathered(marker)
    for line in lines:
        told = gathered.take(line)
        if told is not None:
            yield told


def message(outcome: Outcome) -> bytes:
    """Return an outcome that fits into a pod's last message."""
    data = msgspec.json.encode(outcome)
    if len(data) > MESSAGE_LIMIT_BYTES:
        short = (outcome.message or "").encode()[:600].decode(errors="replace")
        data = msgspec.json.encode(msgspec.structs.replace(outcome, message=short))
    return data


def outcome_of(text: str | None) -> Outcome | None:
    """Return what a pod's last message says; ``None`` for one that is not ours."""
    try:
        return msgspec.json.decode(text or "", type=Outcome)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def lay(
    archive: BinaryIO,
    folder: Path,
    *,
    limit_bytes: int = LAID_LIMIT_BYTES,
    limit_files: int = LAID_LIMIT_FILES,
) -> None:
    """Lay the files of an archive below a folder, results last; what is there is replaced.

    An archive comes from a job, which may be hostile: it has files only, all inside, so many, so
    large.

    Raises
    ------
    ParcelRefused
        When it is anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        names = _unpack(archive, beside, limit_bytes, limit_files)
        for name in sorted(names, key=lambda name: (name.name == layout.RESULT_FILE, name)):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (beside / name).replace(target)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _OF_NAMES:
            raise
        raise ParcelRefused(
            f"the outbox is no archive of files: {error}", "Run it again."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def lay_small(archive: bytes, folder: Path) -> None:
    """Lay the files of an archive that came by a log; see :func:`lay`."""
    lay(io.BytesIO(archive), folder, limit_bytes=_SMALL_LAID_LIMIT_BYTES, limit_files=20_000)


def _unpack(
    archive: BinaryIO, folder: Path, limit_bytes: int, limit_files: int
) -> list[PurePosixPath]:
    folder.mkdir()
    names: list[PurePosixPath] = []
    left = limit_bytes
    with tarfile.open(fileobj=archive, mode="r|gz") as source:
        for member in source:
            name = PurePosixPath(member.name)
            left -= member.size
            if left < 0 or len(names) >= limit_files:
                raise ParcelRefused(
                    f"the outbox has more than {limit_bytes:,} bytes or {limit_files:,} files",
                    "Write fewer or smaller files.",
                )
            content = source.extractfile(member) if member.isreg() else None
            if content is None or name.is_absolute() or ".." in name.parts or not name.parts:
                raise ParcelRefused(
                    f"{member.name[:200]} in the outbox is not a file inside of it",
                    "Write plain files; links are not taken.",
                )
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as target:
                shutil.copyfileobj(content, target, _COPY_BYTES)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
            names.append(name)
    return names
