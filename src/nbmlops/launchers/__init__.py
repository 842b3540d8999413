"""Launchers: where jobs run. One protocol, several implementations, none of which knows notebooks.

A launcher starts a command with an inbox and an outbox, says how it fares, and ends it. Whoever
implements one passes the contract suite in ``tests/launchers``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from nbmlops.records import JobHandle, JobSpec, JobStatus


class Launcher(Protocol):
    """A place where jobs run."""

    @property
    def name(self) -> str:
        """How people call it: ``local``."""
        ...

    def check(self) -> None:
        """Raise :class:`~nbmlops.errors.LauncherUnavailable` with the remedy when it is not there.

        Cheap enough to be called before each submission.
        """
        ...

    def launch(self, job: JobSpec) -> JobHandle:
        """Start a job and return at once; the same name again adopts it, never starts a second.

        A job with a port that is not up any more is started anew.
        """
        ...

    def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Return how the jobs fare; finished implies that the outbox is filled."""
        ...

    def logs(
        self,
        handle: JobHandle,
        *,
        attempt: str | None = None,
        since_line: int = 0,
        follow: bool = False,
    ) -> Iterator[str]:
        """Yield the lines that the job's newest (or named) attempt wrote, without newlines."""
        ...

    def scale(self, handle: JobHandle, replicas: int) -> None:
        """Set how many replicas a job with a port has; 0 stops it and keeps its name."""
        ...

    def cancel(self, handle: JobHandle) -> None:
        """End the job; asked again, or of one that has ended, it changes nothing."""
        ...

    def jobs(self) -> Sequence[JobHandle]:
        """Return all jobs that are up, so that one without an owner is found."""
        ...

    def gather(self, handle: JobHandle) -> None:
        """Bring what a job with a port has written so far to its outbox.

        Where it writes there itself, as on this machine, nothing is to be done.
        """
        ...

    def ending(self, handle: JobHandle) -> str:
        """Return what a person types to end a job that no record wants."""
        ...

    def reach(self, handle: JobHandle) -> AbstractContextManager[str]:
        """Lead this machine to a job with a port, for as long as the block lasts.

        Yields ``tcp:HOST:PORT`` or ``unix:/path``, which may differ from the address by which other
        jobs know it; ``""`` for a job that is not there.
        """
        ...

    def planned(self, job: JobSpec) -> Sequence[Mapping[str, Any]]:
        """Return what :meth:`launch` would send, as documents of the launcher's own kind; pure."""
        ...

    def live(self, handle: JobHandle) -> Sequence[Mapping[str, Any]]:
        """Return what stands of a job now, to be held against :meth:`planned`; none: empty."""
        ...
