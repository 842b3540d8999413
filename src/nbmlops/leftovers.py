"""Leftovers: folders of jobs that have ended, environments, sockets; what removes them whole."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from nbmlops import batches, deployments, endpoints, holdings, layout, stints, sweeps
from nbmlops.monitors import jobs as looks
from nbmlops.records import DeploymentRecord, JobHandle, RunRecord, SweepRecord
from nbmlops.workspace import NAMING, Workspace

_ALL = 1_000_000
_DAY = timedelta(days=1)
_LEFT = "gc-"
_AT_ONCE = 200


def ended_jobs(workspace: Workspace, keep: timedelta) -> Iterator[tuple[str, str]]:
    """Yield the jobs of services, sweeps and commands that ended long ago, each with what it was.

    Jobs of runs are their runs' business.
    """
    yield from _of_services(workspace, keep)
    for kept in workspace.store.page(sweeps.KIND, SweepRecord, limit=_ALL):
        if kept.record.status.is_final and _is_old(workspace, kept.record.finished_at, keep):
            yield kept.record.sweep_id, "a sweep that has ended"
            for folder in sorted(workspace.home.batches_of(kept.record.sweep_id)):
                yield folder.name, "trials of a sweep that has ended"
    yield from _of_commands(workspace, workspace.now() - max(keep, _DAY))


def _of_commands(workspace: Workspace, before: datetime) -> Iterator[tuple[str, str]]:
    limit_s = before.timestamp()
    for job in batches.jobs(workspace, every=True):
        made_s = layout.seconds_of(job.job)
        if made_s is not None and made_s < limit_s:
            yield job.job, "a job that answered files"
    for look in looks.every(workspace):
        if look.ended and look.asked_at < before:
            yield look.job, "a job that looked at calls"
    for place in workspace.home.launcher_folders:
        for folder in sorted(place.glob(f"{stints.PREFIX}*")):
            if folder.stat().st_mtime < limit_s:
                yield folder.name, "a command's worker that has ended"


def _of_services(workspace: Workspace, keep: timedelta) -> Iterator[tuple[str, str]]:
    standing = holdings.standing(workspace)
    ended: dict[str, bool] = {}
    for kept in workspace.store.page(deployments.KIND, DeploymentRecord, limit=_ALL):
        record = kept.record
        is_over = record.status.value in ("stopped", "failed")
        over = is_over and _is_old(workspace, record.stopped_at, keep)
        if over and record.deployment_id not in standing:
            yield record.deployment_id, "a worker that has ended"
        ended[record.endpoint] = ended.get(record.endpoint, True) and over
    for endpoint in endpoints.every(workspace):
        if not endpoint.running and ended.get(endpoint.endpoint):
            yield endpoints.handle(endpoint).name, "a front that has ended"


def is_collected(run: RunRecord) -> bool:
    """Return whether a run has ended and its files are kept as artifacts."""
    return run.status.is_final and run.record_digest is not None


def copies(workspace: Workspace, name: str) -> list[Path]:
    """Return the files of a job's outboxes that the artifacts have too, each under its digest.

    Of a job that was collected nobody reads them any more.
    """
    return [
        path
        for path in sorted(workspace.home.job(name).outbox.glob("*/files/*"))
        if path.is_file()
        and not path.is_symlink()
        and layout.is_digest(path.name)
        and workspace.artifacts.has(path.name)
    ]


def _is_old(workspace: Workspace, at: datetime | None, keep: timedelta) -> bool:
    return at is not None and workspace.now() - at >= keep


def has_ended(workspace: Workspace, name: str) -> bool:
    """Return whether nothing of a job runs any more."""
    for launcher in workspace.launchers():
        handle = JobHandle(launcher=launcher.name, name=name)
        if not launcher.poll([handle])[handle].status.is_final:
            return False
    return True


def size(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    return sum(
        path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink()
    )


def removed(workspace: Workspace, folder: Path) -> None:
    """Remove a folder: gone at once, then emptied."""
    workspace.home.scratch.mkdir(parents=True, exist_ok=True)
    aside = workspace.home.scratch / layout.new_id(f"{_LEFT}{folder.parent.name}")
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def sweep_scratch(workspace: Workspace) -> None:
    """Remove what a killed ``gc`` had put aside."""
    for folder in workspace.home.scratch.glob(f"{_LEFT}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (workspace.cache / "environments").glob(".gone-*"):
        shutil.rmtree(folder, ignore_errors=True)


def unlinked(path: Path) -> bool:
    """Remove a file; one that is gone is no mistake."""
    path.unlink(missing_ok=True)
    return True


def listens(path: Path) -> bool:
    """Return whether somebody may be listening on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def is_in_use(workspace: Workspace, folder: Path, keep: timedelta) -> bool:
    """Return whether any project has asked for an environment lately, or runs from it now."""
    used = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    if workspace.now() - used < keep:
        return True
    inside = f"{folder}/"
    for process in psutil.process_iter(["cmdline"]):
        if any(inside in word for word in process.info["cmdline"] or ()):
            return True
    return False


class Batch:
    """Removes things, many under one look at the names that stay."""

    def __init__(
        self,
        workspace: Workspace,
        names: Callable[[], Iterable[str]],
        remove: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._names = names
        self._remove = remove
        self._waiting: list[str] = []
        self._done: dict[str, bool] = {}

    def add(self, name: str) -> None:
        """Take note of one that is to go, in its turn."""
        self._waiting.append(name)

    def remove(self, name: str) -> bool:
        """Remove one, and with it those that come next; ``False`` when it has to stay."""
        if name not in self._done:
            some, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            with self._workspace.exclusively(NAMING):
                named = set(self._names())
                for one in some:
                    self._done[one] = one not in named
                    if self._done[one]:
                        self._remove(one)
        return self._done[name]
