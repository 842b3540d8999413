"""Verifying the call log: every digest, chain, sequence and count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nbmlops.calllog.expiring import SUFFIX, tombstone
from nbmlops.calllog.ids import checked_deployment
from nbmlops.calllog.segments import (
    COUNT_NAME,
    COUNTS,
    Count,
    Line,
    Segment,
    decoded,
    first_link,
    is_live,
    next_link,
    segments_of,
)
from nbmlops.errors import ArtifactCorrupt


@dataclass(frozen=True, slots=True)
class Verification:
    """What a deployment's log holds.

    ``answered`` = ``records`` + ``drops`` + ``expired`` when all is well; ``expired`` counts the
    records whose segments were removed when their time was over.

    ``last_sequence`` is that of each writer; ``removed`` counts the records that were removed on
    purpose; ``problems`` says in a sentence each what does not agree.
    """

    answered: int
    records: int
    drops: int
    removed: int
    last_sequence: dict[str, int]
    problems: tuple[str, ...]
    expired: int = 0


@dataclass(slots=True)
class _Tally:
    """What verifying one writer has found so far."""

    chain: str
    records: int = 0
    expired: int = 0
    removed: int = 0
    sequence: int = 0
    counted_chain: str = ""
    problems: list[str] = field(default_factory=list[str])


def verify(calls: Path, deployment_id: str) -> Verification:
    """Check every digest, chain, sequence and count of a deployment's log.

    A log that is being written may be verified too, or one of which segments are being removed.
    """
    folder = calls / checked_deployment(deployment_id)
    while True:
        before = _buried(folder)
        found = _verified(folder)
        if _buried(folder) == before:
            return found


def _buried(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob(f"*{SUFFIX}")}


def _verified(folder: Path) -> Verification:
    counts: dict[str, tuple[Count | None, bool]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if found := COUNT_NAME.fullmatch(path.name):
                # Read before the segments, so that a live writer is only ever ahead of it.
                counts[found[1]] = (_read_count(path), is_live(path))
    by_writer: dict[str, list[Segment]] = {name: [] for name in counts}
    for segment in segments_of(folder):
        by_writer.setdefault(segment.writer, []).append(segment)
    tallies: dict[str, _Tally] = {}
    answered = drops = 0
    for writer, segments in by_writer.items():
        if counts.get(writer, (None,))[0] is None:  # it began as the counts were read
            path = folder / f"{writer}.count"
            counts[writer] = (_read_count(path), is_live(path)) if path.exists() else (None, False)
        count, live = counts[writer]
        if count is None and not segments:
            continue  # made a moment ago and not written yet: there is nothing to account for
        tally = _tally(folder, writer, segments, count)
        tallies[writer] = tally
        if count is None:
            tally.problems.append(f"writer {writer} has no readable count file")
            answered += tally.sequence
            continue
        answered += max(count.answered, tally.sequence)
        drops += count.dropped
        tally.problems += _disagreements(writer, tally, count, live=live or count.copied)
    return Verification(
        answered=answered,
        records=sum(tally.records for tally in tallies.values()),
        expired=sum(tally.expired for tally in tallies.values()),
        drops=drops,
        removed=sum(tally.removed for tally in tallies.values()),
        last_sequence={name: tally.sequence for name, tally in tallies.items()},
        problems=tuple(problem for tally in tallies.values() for problem in tally.problems),
    )


def _tally(folder: Path, writer: str, segments: Sequence[Segment], count: Count | None) -> _Tally:
    tally = _Tally(chain=first_link(folder.name, writer))
    try:
        buried = tombstone(folder, writer)
    except ArtifactCorrupt as error:
        buried = None
        tally.problems.append(error.message)
    if buried is not None:
        tally.chain, tally.sequence, tally.expired = buried.chain, buried.sequence, buried.records
    tally.counted_chain = tally.chain
    for segment in segments:
        for number, text in enumerate(segment.lines(), 1):
            where = f"{segment.path.name} line {number}"
            try:
                line = decoded(text, segment.path)
            except ArtifactCorrupt as error:
                tally.problems.append(f"{where}: {error.message}")
                continue
            if buried is not None and line.sequence <= buried.sequence:
                continue  # its segment is being removed
            _take(tally, line, where)
            if count is not None and line.sequence <= count.answered:
                tally.counted_chain = line.chain
    return tally


def _take(tally: _Tally, line: Line, where: str) -> None:
    content = bytes(line.record)
    if content == b"null":
        tally.removed += 1
    elif hashlib.sha256(content).hexdigest() != line.digest:
        tally.problems.append(f"{where}: the record does not have its digest")
    if next_link(tally.chain, line.call_id, line.sequence, line.digest) != line.chain:
        tally.problems.append(f"{where}: the chain is broken")
    if line.sequence <= tally.sequence:
        tally.problems.append(f"{where}: sequence {line.sequence} after {tally.sequence}")
    tally.chain = line.chain
    tally.sequence = max(tally.sequence, line.sequence)
    tally.records += 1


def _disagreements(writer: str, tally: _Tally, count: Count, *, live: bool) -> Iterator[str]:
    ahead = tally.sequence - count.answered
    missing = count.answered - count.dropped - tally.records - tally.expired
    if missing > 0:
        yield f"writer {writer} answered {count.answered} calls: {missing} records are missing"
    elif not live and (ahead > 1 or -missing > max(ahead, 0)):
        yield f"writer {writer} has {-missing} records more than it counted"
    elif tally.counted_chain != count.chain:
        yield f"writer {writer} counted another last record than the log has"


def _read_count(path: Path) -> Count | None:
    try:
        return COUNTS.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
