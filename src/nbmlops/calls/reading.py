"""One call by its id, or a window of them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from nbmlops import calllog, decisions, ledger, models, shipping
from nbmlops.calllog.ids import checked_deployment
from nbmlops.calllog.reading import overlaps, within
from nbmlops.calllog.segments import Segment
from nbmlops.calls import gathering, tables
from nbmlops.errors import (
    ArtifactMissing,
    UnknownCall,
    UnknownEndpoint,
    UnknownModel,
    nearest,
)
from nbmlops.records import CallRecord, DeploymentRecord, ModelSchema
from nbmlops.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BATCH_CALLS = 2000  # calls that are in memory at once
_DEPLOYMENT = "deployment"  # the kind of their records in the store
_PREFIX = "deployment/"
_ALL = 100_000


@dataclass(frozen=True)
class Calls:
    """The calls of some deployments from ``since`` up to and without ``until``.

    They come deployment by deployment, and in order within each writer. Nothing is read before
    somebody asks, and a part of it at a time.
    """

    workspace: Workspace
    deployment_ids: tuple[str, ...]
    since: datetime | None = None
    until: datetime | None = None

    def __iter__(self) -> Iterator[CallRecord]:
        calls = self.workspace.home.calls
        for deployment_id in self.deployment_ids:
            shipping.restore(
                self.workspace,
                deployment_id,
                lambda segment: overlaps(segment, self.since, self.until),
            )
            yield from calllog.window(calls, deployment_id, self.since, self.until)

    def batches(self, calls: int = BATCH_CALLS) -> Iterator[list[CallRecord]]:
        """Yield the calls, at most so many at once."""
        found = iter(self)
        while batch := list(islice(found, calls)):
            yield batch

    def schemas(self) -> list[ModelSchema]:
        """Return the schemas of the versions that answered, as far as they are known."""
        names = versions_of(self.workspace, self.deployment_ids)
        found: dict[str, ModelSchema] = {}
        for deployment_id in self.deployment_ids:
            # One deployment is one version, so its first call is as good as any.
            first = next(calllog.window(self.workspace.home.calls, deployment_id, None, None), None)
            if first is None or (name := answered_by(first, names)) in found:
                continue
            try:
                version = models.find(self.workspace, name)
                found[name] = models.schema(self.workspace, version)
            except (UnknownModel, ArtifactMissing):
                continue  # the columns are text then
        return list(found.values())

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the table in parts, all of one schema.

        Raises
        ------
        MissingExtra
            When pyarrow is not installed.
        """
        arrow = tables.arrow()
        columns = tables.columns_of(self.schemas())
        schema = arrow.schema(
            [(name, tables.arrow_type(arrow, kind)) for name, kind in columns.items()]
        )
        for batch in self.batches():
            rows = [row for call in batch for row in tables.rows_of(call, columns)]
            arrays = [
                arrow.array([row.get(name) for row in rows], type=schema.field(name).type)
                for name in columns
            ]
            yield arrow.RecordBatch.from_arrays(arrays, schema=schema)

    def arrow(self) -> pa.Table:
        """Return the table as Arrow has it.

        Raises
        ------
        MissingExtra
            When pyarrow is not installed.
        """
        arrow = tables.arrow()
        batches = list(self.record_batches())
        if batches:
            return arrow.Table.from_batches(batches)
        columns = tables.columns_of(self.schemas())
        fields = [(name, tables.arrow_type(arrow, kind)) for name, kind in columns.items()]
        return arrow.schema(fields).empty_table()

    def pandas(self) -> pd.DataFrame:
        """Return the table as pandas has it.

        Raises
        ------
        MissingExtra
            When pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise tables.missing("pandas") from error
        columns = tables.columns_of(self.schemas())
        parts = [
            tables.frame(
                pd, [row for call in batch for row in tables.rows_of(call, columns)], columns
            )
            for batch in self.batches()
        ]
        return pd.concat(parts, ignore_index=True) if parts else tables.frame(pd, [], columns)


def window(
    workspace: Workspace,
    name: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Calls:
    """Return the logged calls of a deployment, or of all deployments of an endpoint.

    Raises
    ------
    UnknownEndpoint
        When there never was a deployment or an endpoint of that name.
    """
    return Calls(workspace, deployments_of(workspace, name), since, until)


def segments(
    workspace: Workspace, deployment_id: str, since: datetime | None, until: datetime | None
) -> list[Segment]:
    """Return the segments that may have calls of a deployment from ``since`` up to ``until``.

    What was logged far from here is brought before, and so is what lies among the artifacts alone.
    """
    gathering.gather_all(workspace)
    shipping.restore(workspace, deployment_id, lambda segment: overlaps(segment, since, until))
    found = calllog.segments_of(workspace.home.calls / checked_deployment(deployment_id))
    return [segment for segment in found if overlaps(segment, since, until)]


def deployments_of(workspace: Workspace, name: str) -> tuple[str, ...]:
    """Return the deployment of that id, or those of the endpoint of that name, oldest first.

    ``deployment/ID`` is a deployment and no endpoint.

    Raises
    ------
    UnknownEndpoint
        When there never was one.
    """
    told, name = name, name.removeprefix(_PREFIX)
    checked_deployment(name)
    gathering.gather_all(workspace)
    # A call log may be left where the store was lost, and a deployment without a call has none.
    kept = workspace.store.page(_DEPLOYMENT, DeploymentRecord, limit=_ALL)
    by_endpoint: dict[str, list[str]] = {}
    for item in reversed(kept):
        by_endpoint.setdefault(item.record.endpoint, []).append(item.record.deployment_id)
    known = {one for ids in by_endpoint.values() for one in ids}
    folders = workspace.home.calls
    logged = {path.name for path in folders.glob("*/")} if folders.is_dir() else set[str]()
    if name in known | logged:
        return (name,)
    if told != name:
        hint = nearest(name, known) if known else "See them: `nbmlops deployments --every`."
        raise UnknownEndpoint(f"there is no deployment `{name}`", hint, deployment_id=name)
    lost = sorted(one for one in logged - known if one.rpartition("-")[0] == name)
    found = (*lost, *by_endpoint.get(name, ()))
    if not found:
        deploy = f"Deploy one: `nbmlops deploy {name}`."
        hint = nearest(name, by_endpoint) if by_endpoint else deploy
        raise UnknownEndpoint(f"there is no endpoint or deployment `{name}`", hint, endpoint=name)
    return found


def endpoint_of(workspace: Workspace, name: str) -> str:
    """Return the endpoint of the deployment of that id; a name that is none stays as it is."""
    name = name.removeprefix(_PREFIX)
    kept = workspace.store.get(_DEPLOYMENT, checked_deployment(name), DeploymentRecord)
    if kept is not None:
        return kept.record.endpoint
    for item in decisions.placed(ledger.entries(workspace.repo)):  # the store may have been lost
        if item.decision.deployment_id == name:
            return item.decision.endpoint
    first = next(calllog.window(workspace.home.calls, name, None, None), None)
    return name if first is None else first.endpoint


def versions_of(workspace: Workspace, deployment_ids: Collection[str]) -> dict[str, str]:
    """Return the version of each deployment, by the name that it has now.

    The log keeps the number of that day, which a sync may have changed since. What neither the
    store nor the ledger knows is left out.
    """
    found: dict[str, str] = {}
    for deployment_id in deployment_ids:
        kept = workspace.store.get(_DEPLOYMENT, deployment_id, DeploymentRecord)
        if kept is not None:
            found[deployment_id] = f"{kept.record.model}:{kept.record.version}"
    if any(one not in found for one in deployment_ids):  # the store may have been lost
        for item in decisions.placed(ledger.entries(workspace.repo)):
            decision = item.decision
            if decision.deployment_id in deployment_ids:
                name = f"{decision.model}:{decision.version}"
                found.setdefault(decision.deployment_id, name)
    return found


def answered_by(call: CallRecord, names: Mapping[str, str]) -> str:
    """Return the version that answered a call, by what :func:`versions_of` says; else the log."""
    return names.get(call.deployment_id, f"{call.model}:{call.version}")


def find(workspace: Workspace, call_id: str) -> CallRecord:
    """Return a logged call; from the artifacts, where its segment was shipped and is gone here.

    Raises
    ------
    UnknownCall
        When no such call was logged, or its record was removed.
    ArtifactCorrupt
        When the record is not the one that was written.
    """
    with contextlib.suppress(UnknownCall):
        return calllog.find(workspace.home.calls, call_id)
    gathering.gather_all(workspace)
    try:
        return calllog.find(workspace.home.calls, call_id)
    except UnknownCall:
        deployment_id = calllog.deployment_of(call_id)
        wanted = calllog.candidates(workspace.home.calls / deployment_id, call_id, shipping.SUFFIX)
        if not shipping.restore(workspace, deployment_id, lambda segment: segment in wanted):
            raise
        return calllog.find(workspace.home.calls, call_id)


def find_many(
    workspace: Workspace, deployment_id: str, call_ids: Iterable[str]
) -> Iterator[CallRecord]:
    """Yield those of a deployment's calls that were logged, each segment opened once.

    Segments that were shipped and are gone here come from the artifacts.

    Raises
    ------
    ArtifactCorrupt
        When a record is not the one that was written.
    """
    wanted = sorted(set(call_ids))
    gathering.gather_all(workspace)
    shipping.restore(workspace, deployment_id, lambda segment: bool(within(segment, wanted)))
    yield from calllog.find_many(workspace.home.calls, deployment_id, wanted)


def drop_expired(workspace: Workspace) -> calllog.Dropped:
    """Remove the calls that are older than ``keep`` of ``[calls]`` says, and return what went."""
    keep = workspace.settings.calls.kept_for
    if keep is None:
        return calllog.Dropped()
    return calllog.drop_expired(workspace.home.calls, workspace.now(), keep)


def newest(calls: Iterable[CallRecord], count: int) -> list[CallRecord]:
    """Return the newest of some calls, oldest first."""
    import heapq

    return sorted(
        heapq.nlargest(count, calls, key=lambda call: call.call_id), key=lambda call: call.call_id
    )
