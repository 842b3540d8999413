"""The spans of a deployment's calls, each segment of the call log counted once.

What a sealed segment holds never changes, so its spans are kept and read from then on. The spans of
a segment that is being written are counted anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec

from nbmlops import calls, layout, records
from nbmlops.calllog.segments import Segment
from nbmlops.monitoring import spans
from nbmlops.monitoring.spans import Against, Span
from nbmlops.records import Record
from nbmlops.workspace import Workspace


class Kept(Record, frozen=True, kw_only=True):
    """The spans of a segment, counted on the reference of that name."""

    format: int
    reference: str
    spans: tuple[Span, ...]


def of_deployment(
    workspace: Workspace,
    deployment_id: str,
    against: Against,
    since: datetime | None,
    until: datetime | None,
) -> list[Span]:
    """Return the spans of a deployment's calls from ``since`` up to and without ``until``."""
    found: list[Span] = []
    for segment, kept in of_segments(workspace, deployment_id, against.name, since, until):
        read = partial(calls.of_segment, segment)
        whole = kept
        if whole is None:
            sealed = segment.path.exists() and segment.is_sealed
            whole = list(spans.counted(read(None, None), against))
            if sealed:
                keep(workspace, deployment_id, segment.path.name, against.name, whole)
        found += spans.between(whole, read, against, since, until)
    return sorted(found, key=lambda one: one.since)


def of_segments(
    workspace: Workspace,
    deployment_id: str,
    reference: str,
    since: datetime | None,
    until: datetime | None,
) -> Iterator[tuple[Segment, list[Span] | None]]:
    """Yield the segments that may have calls of a window, each with its spans if those are kept."""
    for segment in calls.segments(workspace, deployment_id, since, until):
        yield segment, _kept(_place(workspace, deployment_id, segment.path.name), reference)


def keep(
    workspace: Workspace, deployment_id: str, name: str, reference: str, found: list[Span]
) -> None:
    """Keep the spans of a segment that is sealed; where that fails it is counted again."""
    told = Kept(format=spans.FORMAT, reference=reference, spans=tuple(found))
    with contextlib.suppress(OSError):
        place = _place(workspace, deployment_id, name)
        layout.write_file(place, records.dump(told), mode=0o600)


def _place(workspace: Workspace, deployment_id: str, name: str) -> Path:
    return workspace.home.monitored(deployment_id) / f"{name}.json"


def _kept(place: Path, reference: str) -> list[Span] | None:
    try:
        kept = records.load(place.read_bytes(), Kept)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    fits = kept.format == spans.FORMAT and kept.reference == reference
    return list(kept.spans) if fits else None
