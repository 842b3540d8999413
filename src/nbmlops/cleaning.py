"""Cleaning: frees what no decision names and nothing young needs.

What goes is found first, as a list; ``--dry-run`` ends there. A run is marked in the store before
anything of it is removed, so that whoever is killed in between leaves no record that promises what
is gone; the next ``gc`` goes on. Names are looked at again just before each removal, while nobody
else can name anything (``workspace.NAMING``).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from nbmlops import (
    calllog,
    calls,
    holdings,
    layout,
    leftovers,
    project,
    records,
    runs,
    shipping,
    snapshot,
    submission,
)
from nbmlops.errors import Conflict
from nbmlops.holdings import Holdings
from nbmlops.records import (
    Freed,
    GcReport,
    RunRecord,
)
from nbmlops.workspace import NAMING, Workspace

_LOCK = "gc"
_ALL = 1_000_000
_DAY = timedelta(days=1)
_LEFT = "gc-"


class _Item(NamedTuple):
    """Something that is to go: ``do`` removes it, or says that it has to stay after all."""

    freed: Freed
    do: Callable[[], bool]


def clean(
    workspace: Workspace, *, keep: str = "90d", dry_run: bool = False, shared: bool = False
) -> GcReport:
    """Free what may go; return what did, or would.

    Raises
    ------
    WrongUse
        When ``keep`` is no length of time.
    """
    length = timedelta(0) if re.fullmatch("0+[mhd]", keep) else project.length(keep)
    with workspace.exclusively(_LOCK):
        runs.unfinished(workspace)  # what has ended is collected first: its files have a name then
        cleaning = _Cleaning(workspace, length, shared=shared)
        freed: list[Freed] = []
        for stage in cleaning.stages():
            freed.extend(item.freed for item in stage if dry_run or item.do())
        if not dry_run:
            leftovers.sweep_scratch(workspace)
    return GcReport(
        dry_run=dry_run,
        keep=keep,
        freed=tuple(freed),
        bytes=sum(item.bytes for item in freed),
        kept=cleaning.kept,
    )


class _Cleaning:
    """What goes of a project, found once; each stage counts what it leaves."""

    def __init__(self, workspace: Workspace, keep: timedelta, *, shared: bool) -> None:
        self._workspace = workspace
        self._keep = keep
        self._shared = shared
        self._holdings: Holdings = holdings.looked_at(workspace, keep)
        # What another clone has left lies there, and is for that clone to free.
        self._leaving = {
            run.run_id: run
            for run in self._holdings.leaving
            if workspace.reaches(run.launcher, run.place)
        }
        self._segments = self._expired()
        self.kept: dict[str, int] = {}
        for why in self._holdings.runs.values():
            self._keeps(f"runs: {why}")

    def stages(self) -> list[list[_Item]]:
        """Return what goes, in the order in which it goes: marks first."""
        made = (
            self._marks(),
            self._calls(),
            self._artifacts(),
            self._jobs(),
            self._copies(),
            self._snapshots(),
            self._environments(),
            self._sockets(),
        )
        # All of it before anything goes: so a dry run says the same.
        return [list(stage) for stage in made]

    def _keeps(self, why: str, count: int = 1) -> None:
        self.kept[why] = self.kept.get(why, 0) + count

    # --- runs -----------------------------------------------------------------------------------

    def _marks(self) -> Iterator[_Item]:
        for run in self._leaving.values():
            if run.freed_at is None:
                ended = run.finished_at or run.created_at
                why = f"ended on {ended:%Y-%m-%d}, and no version names it"
                freed = Freed(kind="run", name=run.run_id, why=why)
                yield _Item(freed, lambda run=run: self._mark(run))

    def _mark(self, run: RunRecord) -> bool:
        """Say in the store that a run's files go, unless it has to stay after all."""
        workspace = self._workspace
        with workspace.exclusively(submission.lock(run.content_key or run.run_id)):
            kept = workspace.store.get(runs.KIND, run.run_id, RunRecord)
            if kept is None or kept.record != run or self._is_named(run):
                self._leaving.pop(run.run_id)
                return False
            marked = records.replace(run, freed_at=workspace.now())
            try:
                runs.keep(workspace, marked, kept.revision, f"freed:{run.run_id}:{kept.revision}")
            except Conflict:
                self._leaving.pop(run.run_id)
                return False
        return True

    def _is_named(self, run: RunRecord) -> bool:
        return holdings.is_named(self._workspace, run)

    # --- calls ----------------------------------------------------------------------------------

    def _expired(self) -> dict[str, Path]:
        keep = self._workspace.settings.calls.kept_for
        if keep is None:
            return {}
        found = calllog.expired(self._workspace.home.calls, self._workspace.now(), keep)
        return {segment.path.name: segment.path for segment in found}

    def _calls(self) -> Iterator[_Item]:
        for path in self._segments.values():
            told = f"older than {self._workspace.settings.calls.keep}, as [calls] keep says"
            name = f"{path.parent.name}/{path.name}"
            freed = Freed(kind="calls", name=name, bytes=path.stat().st_size, why=told)
            yield _Item(freed, lambda path=path: self._drop(path))

    def _drop(self, path: Path) -> bool:
        if path.exists():
            calls.drop_expired(self._workspace)  # all of them, each writer's oldest first
        return not path.exists()

    # --- artifacts ------------------------------------------------------------------------------

    def _artifacts(self) -> Iterator[_Item]:
        workspace = self._workspace
        owners = self._owners()
        named = holdings.digests(workspace, self._leaving, self._segments)
        now_s = workspace.now().timestamp()
        batch = leftovers.Batch(workspace, self._names_now, workspace.artifacts.remove)
        own = workspace.artifacts_are_own or self._shared
        for found in workspace.artifacts.present():
            if found.digest in named:
                self._keeps("artifacts: named")
                continue
            why = owners.get(found.digest, "nothing names it")
            if not own:
                self._keeps("artifacts: in a place that others may share")
                continue
            if found.digest not in owners and now_s - found.kept_at < _DAY.total_seconds():
                self._keeps("artifacts: younger than a day, they may be about to be named")
                continue
            freed = Freed(kind="artifact", name=found.digest, bytes=found.bytes, why=why)
            batch.add(found.digest)
            yield _Item(freed, lambda digest=found.digest: batch.remove(digest))
        for path, at in workspace.artifacts.left_over():
            if now_s - at >= _DAY.total_seconds():
                why = "a write that was killed has left it"
                freed = Freed(kind="partial", name=path.name, bytes=path.stat().st_size, why=why)
                yield _Item(freed, lambda path=path: leftovers.unlinked(path))

    def _owners(self) -> dict[str, str]:
        """Return whose the digests are that go with runs and calls."""
        found: dict[str, str] = {}
        for run in self._leaving.values():
            for artifact in (*run.artifacts, *(a for one in run.earlier for a in one.artifacts)):
                found.setdefault(artifact.digest, f"{artifact.name} of {run.run_id}")
            if run.record_digest is not None:
                found.setdefault(run.record_digest, f"the record of {run.run_id}")
        for segment, shipment in shipping.shipments(self._workspace.home.calls):
            if segment.name in self._segments:
                found.setdefault(shipment.digest, f"calls of {segment.parent.name}")
        return found

    def _names_now(self) -> set[str]:
        workspace = self._workspace
        gone = {run_id for run_id, run in self._leaving.items() if _is_marked(workspace, run)}
        return holdings.digests(workspace, gone)

    # --- folders of jobs ------------------------------------------------------------------------

    def _jobs(self) -> Iterator[_Item]:
        for name, why in self._ended_jobs():
            folders = [
                folder
                for folder in (
                    self._workspace.home.job(name).root,
                    *(known / name for known in self._workspace.home.launcher_folders),
                )
                if folder.is_dir()
            ]
            if not folders or not leftovers.has_ended(self._workspace, name):
                continue
            size = sum(leftovers.size(folder) for folder in folders)
            freed = Freed(kind="job", name=name, bytes=size, why=why)
            yield _Item(freed, lambda name=name, folders=folders: self._remove(name, folders))

    def _ended_jobs(self) -> Iterator[tuple[str, str]]:
        for run in self._leaving.values():
            for name in holdings.jobs_of(run):
                yield name, f"of {run.run_id}"
        yield from leftovers.ended_jobs(self._workspace, self._keep)

    def _remove(self, name: str, folders: list[Path]) -> bool:
        run_id = re.sub(r"-r\d+$", "", name)
        for run in (self._leaving.get(name), self._leaving.get(run_id)):
            if run is not None and not _is_marked(self._workspace, run):
                return False
        is_run = name in self._leaving or run_id in self._leaving
        if not is_run and name not in {job for job, _ in self._ended_jobs()}:
            return False
        if not leftovers.has_ended(self._workspace, name):
            return False
        for folder in folders:
            leftovers.removed(self._workspace, folder)
        return True

    def _copies(self) -> Iterator[_Item]:
        """Yield the outboxes of runs that stay: what was collected of them is in the artifacts."""
        workspace = self._workspace
        for kept in workspace.store.page(runs.KIND, RunRecord, limit=_ALL):
            run = kept.record
            mine = workspace.reaches(run.launcher, run.place)
            if run.run_id in self._leaving or not mine or not leftovers.is_collected(run):
                continue
            if workspace.now() - (run.finished_at or run.created_at) < self._keep:
                continue
            for name in holdings.jobs_of(run):
                files = leftovers.copies(workspace, name)
                if not files or not leftovers.has_ended(workspace, name):
                    continue
                freed = Freed(
                    kind="job",
                    name=f"{name}/outbox",
                    bytes=sum(path.stat().st_size for path in files),
                    why=f"the artifacts have what {run.run_id} left",
                )
                yield _Item(freed, lambda files=files: all(map(leftovers.unlinked, files)))

    # --- snapshots, environments, sockets -------------------------------------------------------

    def _snapshots(self) -> Iterator[_Item]:
        repo = self._workspace.repo
        held = snapshot.held(repo)
        batch = leftovers.Batch(
            self._workspace,
            lambda: holdings.looked_at(self._workspace, self._keep).snapshots,
            lambda name: snapshot.let_go(repo, name, held[name]),
        )
        owners = {run.snapshot: run.run_id for run in self._leaving.values()}
        limit_s = (self._workspace.now() - _DAY).timestamp()
        for name in held:
            if name in self._holdings.snapshots:
                self._keeps("snapshots: named")
                continue
            made_s = layout.seconds_of(name)
            alone = made_s is not None and made_s < limit_s and self._workspace.home_is_own
            if name not in owners and not alone:
                self._keeps("snapshots: not known here")
                continue
            why = f"of {owners[name]}" if name in owners else "no run names it"
            freed = Freed(kind="snapshot", name=name, why=why)
            batch.add(name)
            yield _Item(freed, lambda name=name: batch.remove(name))

    def _environments(self) -> Iterator[_Item]:
        """Yield the environments that runs of this project had, and none has that stays."""
        used = {run.environment_id for run in self._leaving.values()}
        for name in sorted(used - self._holdings.environments):
            folder = self._workspace.cache / "environments" / layout.checked_job(name)
            if not folder.is_dir():
                continue
            if leftovers.is_in_use(self._workspace, folder, self._keep):
                self._keeps("environments: in use, maybe by another project")
                continue
            why = "no version and no run that stays has it; it can be made again"
            freed = Freed(kind="environment", name=name, bytes=leftovers.size(folder), why=why)
            yield _Item(freed, lambda folder=folder: self._unmake(folder))

    def _unmake(self, folder: Path) -> bool:
        with self._workspace.exclusively(NAMING):
            held = holdings.looked_at(self._workspace, self._keep).environments
            if folder.name in held or leftovers.is_in_use(self._workspace, folder, self._keep):
                return False
            # The kernel's own rename: nobody meets half an environment.
            aside = folder.with_name(f".{layout.new_id('gone')}")
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def _sockets(self) -> Iterator[_Item]:
        limit_s = (self._workspace.now() - _DAY).timestamp()
        for path in sorted(layout.socket_dir().glob("*.sock")):
            if path.lstat().st_mtime < limit_s and not leftovers.listens(path):
                freed = Freed(kind="socket", name=path.name, why="nobody listens on it")
                yield _Item(
                    freed,
                    lambda path=path: not leftovers.listens(path) and leftovers.unlinked(path),
                )


def _is_marked(workspace: Workspace, run: RunRecord) -> bool:
    kept = workspace.store.get(runs.KIND, run.run_id, RunRecord)
    return kept is not None and kept.record.freed_at is not None
