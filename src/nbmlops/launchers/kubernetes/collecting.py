"""What a job has left when it ended: its log and its outbox, fetched once and kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbmlops import parcels
from nbmlops.errors import LauncherUnavailable, NbmlopsError
from nbmlops.launchers import places
from nbmlops.launchers.kubernetes import manifests, troubles
from nbmlops.launchers.kubernetes.cluster import Cluster, ClusterRefused
from nbmlops.launchers.kubernetes.keeping import Asked, Kept
from nbmlops.launchers.kubernetes.standing import Seen
from nbmlops.launchers.kubernetes.troubles import End
from nbmlops.parcels import ParcelRefused
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
            get_outbox(place, manifests.ATTEMPT, None, places.folder_of(asked.spec.outbox))
        except (NbmlopsError, OSError, ValueError):
            return seen.status
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
            get_outbox(place, attempt, digest, outbox)
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


# --- an object store ------------------------------------------------------------------------------


def send_inbox(folder: Path, place: str | None) -> None:
    """Put an inbox into the object store.

    Raises
    ------
    LauncherUnavailable
        When the store does not take it.
    """
    archive = parcels.pack(folder)
    try:
        with _fsspec().open(f"{place}/{parcels.INBOX_FILE}", "wb") as target:
            target.write(archive)
    except Exception as error:  # a store's library raises what it likes
        raise _refused(place, error) from error


def get_outbox(place: str, attempt: str, digest: str | None, folder: Path) -> None:
    """Get an outbox from the object store, and lay it.

    Raises
    ------
    ParcelRefused
        When it is not what was sent.
    LauncherUnavailable
        When the store does not give it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{attempt}.download")
    found = hashlib.sha256()
    try:
        try:
            where = f"{place}/{attempt}"
            if digest is None:
                with _fsspec().open(f"{where}/{parcels.DIGEST_FILE}", "rb") as source:
                    digest = source.read(64).decode(errors="replace")
            with (
                _fsspec().open(f"{where}/{parcels.OUTBOX_FILE}", "rb") as source,
                beside.open("wb") as target,
            ):
                while chunk := source.read(2**20):
                    found.update(chunk)
                    target.write(chunk)
        except Exception as error:  # a store's library raises what it likes
            raise _refused(place, error) from error
        if found.hexdigest() != digest:
            raise ParcelRefused(
                f"the outbox in {place} is not what the job has sent", "Run it again."
            )
        with beside.open("rb") as archive:
            parcels.lay(archive, folder)
    finally:
        beside.unlink(missing_ok=True)


def _refused(place: str | None, error: Exception) -> LauncherUnavailable:
    return LauncherUnavailable(
        f"the object store at {place} did not do it: {type(error).__name__}: {str(error)[:300]}",
        "See that [kubernetes] exchange is right, and that you are signed in to the store.",
    )


def _fsspec() -> Any:
    import fsspec

    return fsspec
