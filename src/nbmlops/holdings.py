"""Holdings: what must stay, since a decision, an unfinished run or a young one needs it.

Whatever a decision says is believed to name something: each SHA-256 in an entry of the ledger, of
whatever kind, holds the artifact of that digest. What is not understood here is never freed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from nbmlops import (
    batches,
    decisions,
    deployments,
    layout,
    ledger,
    models,
    monitors,
    records,
    runs,
    shipping,
    sweeps,
)
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing, LedgerDamaged
from nbmlops.records import (
    BatchRecord,
    DeploymentRecord,
    ModelVersion,
    MonitorReport,
    RunRecord,
    SweepRecord,
)
from nbmlops.workspace import Workspace

_ALL = 1_000_000
_DIGEST = re.compile(rb"[0-9a-f]{64}")


class Holdings(NamedTuple):
    """What stays: runs with the reason, snapshots and environments by their ids.

    ``leaving`` are the runs whose files go, and those that a killed ``gc`` has marked before.
    """

    runs: dict[str, str]
    leaving: tuple[RunRecord, ...]
    snapshots: frozenset[str]
    environments: frozenset[str]


def looked_at(workspace: Workspace, keep: timedelta) -> Holdings:
    """Return what stays of a project that keeps what is younger than ``keep``.

    Raises
    ------
    LedgerDamaged
        When the ledger is not whole: what it does not say any more would be freed.
    """
    _check_whole(workspace)
    versions = [
        *models.recorded(workspace),
        *(k.record for k in workspace.store.page(models.KIND, ModelVersion, limit=_ALL)),
    ]
    made = {version.run_id for version in versions}
    kept_sweeps = [
        kept.record
        for kept in workspace.store.page(sweeps.KIND, SweepRecord, limit=_ALL)
        if not kept.record.status.is_final
        or _is_young(workspace, keep, kept.record.finished_at or kept.record.created_at)
    ]
    of_sweeps = {sweep.sweep_id for sweep in kept_sweeps}
    held: dict[str, str] = {}
    holding: list[RunRecord] = []
    leaving: list[RunRecord] = []
    for kept in workspace.store.page(runs.KIND, RunRecord, limit=_ALL):
        run = kept.record
        why = _why(workspace, run, keep, made, of_sweeps)
        if why is None:
            leaving.append(run)
        else:
            held[run.run_id] = why
            holding.append(run)
    return Holdings(
        held,
        tuple(leaving),
        frozenset(
            (
                *(version.snapshot for version in versions),
                *(run.snapshot for run in holding),
                *(sweep.snapshot.id for sweep in kept_sweeps),
            )
        ),
        frozenset(
            (
                *(version.environment_id for version in versions),
                *(run.environment_id for run in holding),
                *(sweep.environment_id for sweep in kept_sweeps),
            )
        ),
    )


def _check_whole(workspace: Workspace) -> None:
    for fault in ledger.faults(workspace.repo):
        raise LedgerDamaged(
            f"nothing is freed while the ledger is damaged: {fault.message}",
            "What it named could be freed for good. See: `nbmlops doctor`.",
        )
    seen, head = decisions.seen(workspace), ledger.head(workspace.repo)
    if seen and (head is None or not ledger.descends(workspace.repo, head, seen)):
        raise LedgerDamaged(
            "nothing is freed while the ledger does not go on from where it was seen last,"
            f" {seen[:12]}",
            "What it named could be freed for good. See: `nbmlops doctor`.",
        )


def _why(
    workspace: Workspace, run: RunRecord, keep: timedelta, made: set[str], of_sweeps: set[str]
) -> str | None:
    """Return why a run's files stay; ``None`` when they go."""
    if run.run_id in made:
        return "made a version"
    if run.freed_at is not None:
        return None
    if not run.status.is_final:
        return "unfinished"
    if run.sweep in of_sweeps:
        return "of a sweep that stays"
    if _is_young(workspace, keep, run.finished_at or run.created_at):
        return "younger"
    return None


def _is_young(workspace: Workspace, keep: timedelta, at: datetime) -> bool:
    return workspace.now() - at < keep


def is_named(workspace: Workspace, run: RunRecord) -> bool:
    """Return whether a version names a run, as things stand at this moment."""
    return any(version.run_id == run.run_id for version in models.recorded(workspace))


# --- artifacts ----------------------------------------------------------------------------------


def digests(workspace: Workspace, without: Iterable[str], segments: Iterable[str] = ()) -> set[str]:
    """Return the digests that something names which stays.

    Parameters
    ----------
    workspace
        The project.
    without
        The runs whose files go.
    segments
        The segments of the call log that go.

    Raises
    ------
    LedgerDamaged
        When the ledger is not whole.
    """
    _check_whole(workspace)
    found: set[str] = set()
    for text in _texts(workspace, frozenset(without), frozenset(segments)):
        found.update(match.decode() for match in _DIGEST.findall(text))
    for version in models.recorded(workspace):
        # A version's run may be in no store of ours; its record says what it left.
        try:
            body = workspace.artifacts.get(version.run_digest)
        except (ArtifactMissing, ArtifactCorrupt):
            continue
        found.update(match.decode() for match in _DIGEST.findall(body))
    return found


def _texts(
    workspace: Workspace, without: frozenset[str], segments: frozenset[str]
) -> Iterator[bytes]:
    for entry in ledger.entries(workspace.repo):
        yield records.dump(entry)
    gone: set[str] = set()
    for kept in workspace.store.page(runs.KIND, RunRecord, limit=_ALL):
        if kept.record.run_id in without:
            gone.update(jobs_of(kept.record))
        else:
            yield records.dump(kept.record)
    yield from _inboxes(workspace, gone)
    for segment, shipment in shipping.shipments(workspace.home.calls):
        if segment.name not in segments:
            yield shipment.digest.encode()
    for kind, form in (
        (models.KIND, ModelVersion),
        (deployments.KIND, DeploymentRecord),
        (sweeps.KIND, SweepRecord),
        (monitors.KIND, MonitorReport),
        (batches.KIND, BatchRecord),
    ):
        for item in workspace.store.page(kind, form, limit=_ALL):
            yield records.dump(item.record)


def _inboxes(workspace: Workspace, gone: set[str]) -> Iterator[bytes]:
    """Yield what jobs were asked to do: whoever runs one again needs its data."""
    for path in (workspace.home.root / "jobs").glob(f"*/inbox/{layout.SPEC_FILE}"):
        if path.parent.parent.name not in gone:
            with contextlib.suppress(FileNotFoundError):
                yield path.read_bytes()


def jobs_of(run: RunRecord) -> tuple[str, ...]:
    """Return the names of the jobs of a run, one for each attempt."""
    return (run.run_id, *(f"{run.run_id}-r{number}" for number in range(2, run.attempts + 1)))


def standing(workspace: Workspace) -> set[str]:
    """Return the deployments that have their traffic by what was decided."""
    found = decisions.traffic(decisions.here(workspace)).values()
    return {one.standing.decision.deployment_id for one in found if one.standing is not None}
