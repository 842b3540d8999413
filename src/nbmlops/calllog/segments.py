"""A call log's files: lines, counts, the chain, the names of segments."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nbmlops.calllog.ids import UUID7, milliseconds
from nbmlops.errors import ArtifactCorrupt

SEGMENT_SPAN_MS = 3_600_000
_SEGMENT = re.compile(rf"({UUID7})-([0-9a-f]{{8}})\.jsonl")
COUNT_NAME = re.compile(r"([0-9a-f]{8})\.count")


class Line(msgspec.Struct):
    """A line of a segment; the record's bytes as they were written."""

    call_id: str
    sequence: int
    digest: str
    chain: str
    record: msgspec.Raw


class Count(msgspec.Struct):
    """What a writer counts; ``chain`` is that of its last record.

    ``copied`` is whether the log is read as copies that were made while it was written: the count
    may then be older than the records, though its writer is no more.
    """

    answered: int
    dropped: int
    chain: str
    copied: bool = False

    def line(self) -> bytes:
        """Return the counts in a fixed number of bytes, which is JSON all the same."""
        text = f'{{"answered":{self.answered:20d},"dropped":{self.dropped:20d},"chain":"'
        more = ',"copied":true' if self.copied else ""
        return f'{text}{self.chain}"{more}}}\n'.encode()


LINES = msgspec.json.Decoder(Line)
COUNTS = msgspec.json.Decoder(Count)


def first_link(deployment_id: str, writer: str) -> str:
    """Return the chain's link before a writer's first record."""
    return hashlib.sha256(f"{deployment_id}\0{writer}".encode()).hexdigest()


def next_link(chain: str, call_id: str, sequence: int, digest: str) -> str:
    """Return the chain's link after a record."""
    return hashlib.sha256(f"{chain}\0{call_id}\0{sequence}\0{digest}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment's file and what its name says."""

    first: str
    writer: str
    path: Path

    @property
    def begins_ms(self) -> int:
        """When its first call came."""
        return milliseconds(self.first)

    @property
    def is_sealed(self) -> bool:
        """Whether nothing is written to it any more."""
        return not self.path.stat().st_mode & 0o200

    def lines(self) -> Iterator[bytes]:
        """Yield the full lines: one that a killed writer left unfinished does not count.

        A segment that has been removed meanwhile, when its time was over, has none.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line


def segments_of(folder: Path, suffix: str = "") -> list[Segment]:
    """Return the segments of a deployment, oldest first.

    With a ``suffix``, those beside which, or beside whose former place, a file with it lies.
    """
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 names are all that is needed
    except FileNotFoundError:
        return []
    return [
        Segment(found[1], found[2], folder / found[0])
        for name in names
        if name.endswith(suffix) and (found := _SEGMENT.fullmatch(name.removesuffix(suffix)))
    ]


def is_live(counter: Path) -> bool:
    """Whether the writer of a count file is still there."""
    descriptor = os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def decoded(line: bytes, path: Path) -> Line:
    """Return a line, or refuse one that was changed."""
    try:
        return LINES.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(
            f"a line of {path.name} was changed: {error}", "Restore it from a backup."
        ) from error
