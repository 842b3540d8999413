"""Reading the call log: a call by its id, a window of calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nbmlops.calllog.ids import checked_deployment, milliseconds, parsed
from nbmlops.calllog.segments import SEGMENT_SPAN_MS, Line, Segment, decoded, segments_of
from nbmlops.errors import ArtifactCorrupt, UnknownCall
from nbmlops.records import CallRecord, load


def find(calls: Path, call_id: str) -> CallRecord:
    """Return a logged call, from the few segments that its id allows.

    Raises
    ------
    UnknownCall
        When the id is none, or no such call was logged, or its record was removed.
    ArtifactCorrupt
        When the record is not the one that was written.
    """
    uuid_hex, deployment_id = parsed(call_id)
    latest: dict[str, Segment] = {}
    for segment in segments_of(calls / deployment_id):
        age_ms = milliseconds(uuid_hex) - segment.begins_ms
        if segment.first <= uuid_hex and age_ms <= SEGMENT_SPAN_MS:
            latest[segment.writer] = segment
    for segment in latest.values():
        line = _line_of(segment.path, call_id)
        if line is not None:
            return _record(line)
    raise UnknownCall(
        f"no call {call_id} is in the log",
        "It may have been answered elsewhere, or dropped on a full disk: `nbmlops doctor`.",
        call_id=call_id,
    )


def _line_of(path: Path, call_id: str) -> Line | None:
    # Inside a JSON text a quote is escaped and a line never ends, so this is no record's content.
    start = f'{{"call_id":"{call_id}",'.encode()
    data = path.read_bytes()
    at = 0 if data.startswith(start) else data.find(b"\n" + start) + 1
    end = data.find(b"\n", at)
    if end < 0 or not data.startswith(start, at):
        return None
    return decoded(data[at:end], path)


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
    begins_ms = _epoch_ms(since) if since else 0
    for segment in segments_of(calls / checked_deployment(deployment_id)):
        if segment.begins_ms + SEGMENT_SPAN_MS < begins_ms:
            continue
        if until and segment.begins_ms >= _epoch_ms(until):
            break
        for text in segment.lines():
            line = decoded(text, segment.path)
            at_ms = milliseconds(line.call_id)
            after = at_ms >= begins_ms and bytes(line.record) != b"null"
            if after and (until is None or at_ms < _epoch_ms(until)):
                yield _record(line)


def _epoch_ms(moment: datetime) -> int:
    # Rounded up: an id has whole milliseconds.
    return -((datetime(1970, 1, 1, tzinfo=UTC) - moment) // timedelta(milliseconds=1))
