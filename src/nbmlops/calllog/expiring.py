"""Retention: sealed segments whose time is over are removed, and the chain of the rest holds.

In a removed segment's place a tombstone stands, ``<writer>.expired``: how many records went, the
sequence and the link of the last of them. It is written first, so a removal that is interrupted is
completed by the next one, and verifying goes on from the link.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from nbmlops import layout
from nbmlops.calllog.segments import SEGMENT_SPAN_MS, Segment, decoded, segments_of
from nbmlops.errors import ArtifactCorrupt

SUFFIX = ".expired"


class Tombstone(msgspec.Struct, frozen=True):
    """What a writer's removed segments held: ``sequence`` and ``chain`` are the last record's."""

    records: int
    sequence: int
    chain: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was removed."""

    segments: int = 0
    records: int = 0
    bytes: int = 0


def tombstone(folder: Path, writer: str) -> Tombstone | None:
    """Return a writer's tombstone, or ``None`` when nothing of it was removed.

    Raises
    ------
    ArtifactCorrupt
        When it was changed.
    """
    path = folder / f"{writer}{SUFFIX}"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Tombstone)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(
            f"{path.name} was changed: {error}", "Restore it from a backup."
        ) from error


def expired(calls: Path, now: datetime, keep: timedelta) -> Iterator[Segment]:
    """Yield the sealed segments all of whose calls are older than ``keep``, oldest first.

    They are each writer's first ones: no segment goes before one that was written earlier.
    """
    limit_ms = int((now - keep).timestamp() * 1000)
    for folder in sorted(calls.iterdir()) if calls.is_dir() else ():
        staying: set[str] = set()
        for segment in segments_of(folder) if folder.is_dir() else ():
            over = segment.begins_ms + SEGMENT_SPAN_MS < limit_ms
            if segment.writer in staying or not over or not segment.is_sealed:
                staying.add(segment.writer)
            else:
                yield segment


def drop_expired(calls: Path, now: datetime, keep: timedelta) -> Dropped:
    """Remove the segments that :func:`expired` yields, and return what went.

    A segment that was changed stays, with all that its writer wrote later: ``verify`` tells it.
    """
    segments = count = size = 0
    damaged: set[tuple[Path, str]] = set()
    for segment in list(expired(calls, now, keep)):
        name = (segment.path.parent, segment.writer)
        if name in damaged:
            continue
        try:
            count += _bury(segment)
        except ArtifactCorrupt:
            damaged.add(name)
            continue
        size += segment.path.stat().st_size
        segments += 1
        # Notes about it first: what is noted and not there would be brought back.
        for path in (*segment.path.parent.glob(f"{segment.path.name}.*"), segment.path):
            path.unlink(missing_ok=True)
        layout.sync_folder(segment.path.parent)
    return Dropped(segments, count, size)


def _bury(segment: Segment) -> int:
    """Write the tombstone over a segment, and return how many records it has come to stand for."""
    folder = segment.path.parent
    before = tombstone(folder, segment.writer)
    last: bytes | None = None
    count = 0
    for text in segment.lines():
        last, count = text, count + 1
    if last is None:
        return 0
    line = decoded(last, segment.path)
    if before is not None and line.sequence <= before.sequence:
        return 0  # buried by a command that was killed then
    records = count + (before.records if before else 0)
    told = Tombstone(records=records, sequence=line.sequence, chain=line.chain)
    path = folder / f"{segment.writer}{SUFFIX}"
    layout.write_file(path, msgspec.json.encode(told) + b"\n", mode=0o600)
    return count
