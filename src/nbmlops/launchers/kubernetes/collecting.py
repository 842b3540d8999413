"""What a job has left when it ended: its log and its outbox, fetched once and kept.

How an outbox comes where the log does not carry it, from an object store or a claim, is the
launcher's to say: ``fetch(asked, attempt, digest)`` lays it. A store that does not answer makes no
end of a job; whoever looks is told, and looks again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from nbmlops import parcels
from nbmlops.errors import LauncherUnavailable, NbmlopsError
from nbmlops.launchers import places
from nbmlops.launchers.kubernetes import manifests, standing, troubles
from nbmlops.launchers.kubernetes.cluster import Cluster, ClusterRefused
from nbmlops.launchers.kubernetes.keeping import Asked, Ending, Kept
from nbmlops.launchers.kubernetes.standing import Seen
from nbmlops.launchers.kubernetes.troubles import End
from nbmlops.parcels import ParcelRefused
from nbmlops.records import Attempt, Cause, JobStatus, Status

Document = dict[str, Any]
Fetch = Callable[[Asked, str, str | None], None]

# A log that cannot be read for so long is lost with its node.
_LOG_PATIENCE_S = 45.0


def collected(
    cluster: Cluster,
    kept: Kept,
    asked: Asked,
    seen: Seen,
    fetch: Fetch | None,
    ending: Ending | None,
) -> JobStatus | None:
    """Return how a job ended, with its log and outbox kept; ``None`` when they cannot come yet."""
    if seen.ended_pod is None:
        begun = seen.status.status is Status.LOST or kept.log(asked.attempt) is not None
        return _without_pod(asked, seen, fetch if begun else None)
    return _fetched(cluster, kept, asked, seen.ended_pod, asked.attempt, fetch, ending)


def part(
    cluster: Cluster,
    kept: Kept,
    asked: Asked,
    pod: Document,
    index: int,
    fetch: Fetch | None,
    ending: Ending | None,
) -> JobStatus | None:
    """Return how a part of a batch ended; see :func:`collected`."""
    return _fetched(cluster, kept, asked, pod, f"i{index}", fetch, ending)


def _without_pod(asked: Asked, seen: Seen, fetch: Fetch | None) -> JobStatus:
    """Return the end of a job whose pod is gone; a store or a claim may have its outbox."""
    if fetch is not None and asked.spec.port is None:
        with contextlib.suppress(NbmlopsError):  # it may never have come so far
            fetch(asked, manifests.ATTEMPT, None)
    return seen.status


def _fetched(
    cluster: Cluster,
    kept: Kept,
    asked: Asked,
    pod: Document,
    name: str,
    fetch: Fetch | None,
    ending: Ending | None,
) -> JobStatus | None:
    end = troubles.end_of(pod, cancelled=ending is not None)
    gathered = parcels.Gathered(asked.marker)
    if end.exit_code is not None:
        lines = cluster.log(pod["metadata"]["name"], manifests.CONTAINER)
        try:
            kept.write_log(name, _told(lines, gathered))
        except (ClusterRefused, LauncherUnavailable) as error:
            if error.context.get("status") in (401, 403):
                raise  # it is there, and not ours to read
            if end.status is Status.LOST and pod["metadata"].get("deletionTimestamp"):
                return _status(asked, name, end, end.status, end.cause)  # it went with its pod
            if kept.standing_s("log-unreadable", time.time()) < _LOG_PATIENCE_S:
                return None
            lost = troubles.cause("log-unreadable", f"the job's log is lost: {error.message}")
            return _status(asked, name, end, Status.LOST, lost)
    status, why = (end.status, end.cause) if ending is None else standing.stopped(ending)
    if why is not None and why.code in ("job-failed", "job-killed") and end.exit_code is not None:
        why = places.failed(end.exit_code, places.last_words(kept.tail(name)))
    refused = _lay_outbox(asked, name, end, gathered, fetch)
    stood_s = kept.standing_s(refused.code if refused else None, time.time())
    if refused is not None and fetch is None and stood_s < _LOG_PATIENCE_S:
        return None  # the log may have been cut off on its way; it can be read again
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
    asked: Asked, name: str, end: End, gathered: parcels.Gathered, fetch: Fetch | None
) -> Cause | None:
    """Lay what came back, where something was sent; return what is wrong with it."""
    digest = end.outcome.digest if end.outcome else None
    if digest is None or asked.spec.port is not None:
        return None
    try:
        if fetch is None:
            archive = gathered.archive(digest)
            parcels.lay_small(archive, places.folder_of(asked.spec.outbox))
        else:
            fetch(asked, manifests.ATTEMPT if asked.spec.parallel is None else name, digest)
    except ParcelRefused as error:
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
