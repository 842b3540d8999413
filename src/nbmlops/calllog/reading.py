"""Reading the call log: a call by its id, a window of calls."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nbmlops.calllog.ids import checked_deployment, deployment_of, milliseconds, parsed
from nbmlops.calllog.seeking import sought
from nbmlops.calllog.segments import SEGMENT_SPAN_MS, Line, Segment, decoded, segments_of
from nbmlops.errors import ArtifactCorrupt, UnknownCall
from nbmlops.records import CallRecord, load

_SOUGHT = 500  # so many calls are sought one by one; for more, their segment is read


def find(calls: Path, call_id: str) -> CallRecord:
    """Return a logged call, from the few segments that its id allows.

    Raises
    ------
    UnknownCall
        When the id is none, or no such call was logged, or its record was removed.
    ArtifactCorrupt
        When the record is not the one that was written.
    """
    for segment in candidates(calls / deployment_of(call_id), call_id):
        line = _line_of(segment.path, call_id)
        if line is not None:
            return _record(line)
    raise UnknownCall(
        f"no call {call_id} is in the log",
        "It may have been answered elsewhere, or dropped on a full disk: `nbmlops doctor`.",
        call_id=call_id,
    )


def candidates(folder: Path, call_id: str, suffix: str = "") -> list[Segment]:
    """Return the segments that may have a call, by their names: one of each writer at most."""
    uuid_hex, _ = parsed(call_id)
    latest: dict[str, Segment] = {}
    for segment in segments_of(folder, suffix):
        age_ms = milliseconds(uuid_hex) - segment.begins_ms
        if segment.first <= uuid_hex and age_ms <= SEGMENT_SPAN_MS:
            latest[segment.writer] = segment
    return list(latest.values())


def _line_of(path: Path, call_id: str) -> Line | None:
    try:
        with path.open("rb", buffering=0) as file:
            text = sought(file.fileno(), call_id)
    except FileNotFoundError:  # its time was over
        return None
    return None if text is None else decoded(text, path)


def find_many(calls: Path, deployment_id: str, call_ids: Iterable[str]) -> Iterator[CallRecord]:
    """Yield those of a deployment's calls that are in the log, each segment opened once.

    What is no call's id, and calls whose records were removed, are left out.

    Raises
    ------
    ArtifactCorrupt
        When a record is not the one that was written.
    """
    wanted = sorted(set(call_ids))
    for segment in segments_of(calls / checked_deployment(deployment_id)):
        for line in _lines_of(segment, within(segment, wanted)):
            if bytes(line.record) != b"null":
                yield _record(line)


def within(segment: Segment, call_ids: Sequence[str]) -> Sequence[str]:
    """Return those of some sorted ids that a segment may have, by its name."""
    last = f"{segment.begins_ms + SEGMENT_SPAN_MS:012x}~"  # behind all ids of that time
    return call_ids[bisect_left(call_ids, segment.first) : bisect_right(call_ids, last)]


def _lines_of(segment: Segment, call_ids: Sequence[str]) -> Iterator[Line]:
    if len(call_ids) > _SOUGHT:
        starts = {f'{{"call_id":"{call_id}",'.encode() for call_id in call_ids}
        lengths = {len(start) for start in starts}
        for text in segment.lines():
            if any(text[:length] in starts for length in lengths):
                yield decoded(text, segment.path)
    elif call_ids:
        with segment.path.open("rb", buffering=0) as file:
            for call_id in call_ids:
                text = sought(file.fileno(), call_id)
                if text is not None:
                    yield decoded(text, segment.path)


def _record(line: Line) -> CallRecord:
    content = bytes(line.record)
    if content == b"null":
        raise UnknownCall(f"the record of call {line.call_id} was removed", call_id=line.call_id)
    if hashlib.sha256(content).hexdigest() != line.digest:
        raise ArtifactCorrupt(
            f"the record of call {line.call_id} is not the one that was written",
            "Restore it from a backup; `nbmlops doctor` names all that were changed.",
            call_id=line.call_id,
        )
    return load(content, CallRecord)


def window(
    calls: Path, deployment_id: str, since: datetime | None, until: datetime | None
) -> Iterator[CallRecord]:
    """Yield a deployment's logged calls from ``since`` up to and without ``until``.

    They come segment by segment, so in order within each writer. Segments whose names lie outside
    are not opened; records that were removed are left out.

    Raises
    ------
    ArtifactCorrupt
        When a record is not the one that was written.
    """
    for segment in segments_of(calls / checked_deployment(deployment_id)):
        if overlaps(segment, since, until):
            yield from of_segment(segment, since, until)


def of_segment(
    segment: Segment, since: datetime | None = None, until: datetime | None = None
) -> Iterator[CallRecord]:
    """Yield the calls of one segment, as :func:`window` does.

    Raises
    ------
    ArtifactCorrupt
        When a record is not the one that was written.
    """
    begins_ms = _epoch_ms(since) if since else 0
    for text in segment.lines():
        line = decoded(text, segment.path)
        at_ms = milliseconds(line.call_id)
        after = at_ms >= begins_ms and bytes(line.record) != b"null"
        if after and (until is None or at_ms < _epoch_ms(until)):
            yield _record(line)


def overlaps(segment: Segment, since: datetime | None, until: datetime | None) -> bool:
    """Return whether a segment may have calls from ``since`` up to and without ``until``."""
    if since is not None and segment.begins_ms + SEGMENT_SPAN_MS < _epoch_ms(since):
        return False
    return until is None or segment.begins_ms < _epoch_ms(until)


def _epoch_ms(moment: datetime) -> int:
    # Rounded up: an id has whole milliseconds.
    return -((datetime(1970, 1, 1, tzinfo=UTC) - moment) // timedelta(milliseconds=1))
