"""What a job has left when it ended: its log and its outbox, fetched once and kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from nbmlops import parcels
from nbmlops.errors import LauncherUnavailable, NbmlopsError
from nbmlops.launchers import places
from nbmlops.launchers.kubernetes import depots, manifests, troubles
from nbmlops.launchers.kubernetes.cluster import Cluster, ClusterRefused
from nbmlops.launchers.kubernetes.keeping import Asked, Kept
from nbmlops.launchers.kubernetes.standing import Seen
from nbmlops.launchers.kubernetes.troubles import End
from nbmlops.records import Attempt, Cause, JobStatus, Status

Document = dict[str, Any]

# A log that cannot be read for so long is lost with its node.
_LOG_PATIENCE_S = 45.0


def collected(
    cluster: Cluster, kept: Kept, asked: Asked, seen: Seen, place: str | None, *, cancelled: bool
) -> JobStatus | None:
    """Return how a job ended, with its log and outbox kept; ``None`` when they cannot come yet."""
    if seen.ended_pod is None:
        return _without_pod(asked, seen, place)
    return _fetched(cluster, kept, asked, seen.ended_pod, asked.attempt, place, cancelled=cancelled)


def part(
    cluster: Cluster,
    kept: Kept,
    asked: Asked,
    pod: Document,
    index: int,
    place: str | None,
    *,
    cancelled: bool,
) -> JobStatus | None:
    """Return how a part of a batch ended; see :func:`collected`."""
    return _fetched(cluster, kept, asked, pod, f"i{index}", place, cancelled=cancelled)


def _without_pod(asked: Asked, seen: Seen, place: str | None) -> JobStatus:
    """Return the end of a job whose pod is gone; an object store may have its outbox."""
    if place is not None and "://" in place and asked.spec.port is None:
        try:
            depots.get_outbox(place, manifests.ATTEMPT, None, places.folder_of(asked.spec.outbox))
        except NbmlopsError:
            return seen.status  # it has not come so far
    return seen.status


def _fetched(
    cluster: Cluster,
    kept: Kept,
    asked: Asked,
    pod: Document,
    name: str,
    place: str | None,
    *,
    cancelled: bool,
) -> JobStatus | None:
    end = troubles.end_of(pod, cancelled=cancelled)
    gathered = parcels.Gathered(asked.marker)
    if end.exit_code is not None:
        lines = cluster.log(pod["metadata"]["name"], manifests.CONTAINER)
        try:
            kept.write_log(name, _told(lines, gathered))
        except (ClusterRefused, LauncherUnavailable) as error:
            if kept.standing_s("log-unreadable", time.time()) < _LOG_PATIENCE_S:
                return None
            lost = troubles.cause("log-unreadable", f"the job's log is lost: {error.message}")
            return _status(asked, name, end, Status.LOST, lost)
    status, why = end.status, end.cause
    if why is not None and why.code in ("job-failed", "job-killed") and end.exit_code is not None:
        why = places.failed(end.exit_code, places.last_words(kept.tail(name)))
    refused = _lay_outbox(asked, name, end, gathered, place)
    if refused is not None and status in (Status.SUCCEEDED, Status.FAILED):
        status = Status.LOST if status is Status.SUCCEEDED else status
        why = why or refused
    return _status(asked, name, end, status, why)


def _told(lines: Iterator[str], gathered: parcels.Gathered) -> Iterator[str]:
    for line in lines:
        told = gathered.take(line)
        if told is not None:
            yield told


def _lay_outbox(
    asked: Asked, name: str, end: End, gathered: parcels.Gathered, place: str | None
) -> Cause | None:
    """Lay what came back, where something was sent; return what is wrong with it."""
    digest = end.outcome.digest if end.outcome else None
    if digest is None or asked.spec.port is not None:
        return None
    outbox = places.folder_of(asked.spec.outbox)
    attempt = manifests.ATTEMPT if asked.spec.parallel is None else name
    try:
        if place is None:
            parcels.lay_small(gathered.archive(digest), outbox)
        elif "://" in place:
            depots.get_outbox(place, attempt, digest, outbox)
    except NbmlopsError as error:
        return Cause(code=error.code, message=error.message, hint=error.hint or None)
    return None


def _status(asked: Asked, name: str, end: End, status: Status, why: Cause | None) -> JobStatus:
    asked_at = datetime.fromtimestamp(asked.asked_s, UTC)
    attempt = Attempt(
        name=name,
        started_at=end.started_at or asked_at,
        finished_at=end.finished_at or datetime.now(UTC),
        exit_code=end.exit_code,
    )
    return JobStatus(status=status, desired=0, attempts=(attempt,), cause=why)
