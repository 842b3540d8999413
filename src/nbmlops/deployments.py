"""Deployments: a worker of one model version, behind an endpoint whose URL stays.

Deploying starts the new worker, waits until it is ready, records the decision in the ledger,
re-points the endpoint, and only then stops the worker before. Every prefix of that is a legal
state, which :func:`settle` completes or rolls back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec

from nbmlops import (
    calllog,
    calls,
    decisions,
    endpoints,
    layout,
    ledger,
    models,
    records,
    sites,
    stints,
    workers,
)
from nbmlops.errors import (
    DeploymentFailed,
    EndpointUnreachable,
    NbmlopsError,
    NothingToGoBackTo,
    UnknownEndpoint,
    UnknownReference,
    WrongUse,
)
from nbmlops.records import (
    Cause,
    DeploymentDecision,
    DeploymentRecord,
    DeploymentStatus,
    EndpointRecord,
    JobHandle,
    LedgerEntry,
    ModelVersion,
    Route,
    replace,
)
from nbmlops.store import Kept
from nbmlops.workspace import FAR, Workspace

KIND = "deployment"
_ALL = 10_000
STEADY_S = 1.0  # with the traffic, before the version that had it is stopped
PROBATION_S = 300.0  # a version whose worker dies within that time gives the traffic back
_LIVE = (DeploymentStatus.STARTING.value, DeploymentStatus.RUNNING.value)


def deploy(
    workspace: Workspace,
    reference: str,
    *,
    endpoint: str | None = None,
    launcher: str | None = None,
    ephemeral_calls: bool = False,
) -> DeploymentRecord:
    """Serve a model version behind an endpoint, and return when it is ready.

    The endpoint has the model's name unless another is given. The version that already has all
    traffic changes nothing. Without a launcher it serves where the endpoint is up, else here.
    ``ephemeral_calls`` allows that the calls are lost with the pod that answers them.

    Raises
    ------
    InvalidName
        When the endpoint's name is not one.
    UnknownModel
        When there is no such version.
    CallsEphemeral
        When nothing would keep the calls, and that was not allowed.
    DeploymentFailed
        When the worker does not get ready; what served before still serves.
    """
    version = models.find(workspace, reference)
    name = layout.checked_name(endpoint or version.model, "endpoint")
    launcher = launcher or endpoints.launcher_of(workspace, name)
    workspace.launcher(launcher).check()
    endpoints.refuse_elsewhere(workspace, name)
    endpoints.refuse_ephemeral(workspace, name, launcher, allowed=ephemeral_calls)
    calls.warn_of_unknown(workspace, version)
    models.check_bounds(workspace, version)
    with workspace.exclusively(endpoints.lock(name)):
        version = models.again(workspace, version)  # it may have got another number meanwhile
        _settle(workspace, name)
        _awake(workspace, version, name)
        live = serves(workspace, version, name)
        if live is not None and live.launcher == launcher:
            return _refreshed(workspace, live)
        return _deploy(workspace, version, name, launcher)


def serves(workspace: Workspace, version: ModelVersion, endpoint: str) -> DeploymentRecord | None:
    """Return the deployment by which a version has all traffic of an endpoint, if it has it."""
    current = pointed(workspace, endpoint)
    if current is None or _name(current) != version.name:
        return None
    live = look(workspace, current)
    return live if live.status is DeploymentStatus.RUNNING and live.ready else None


def _awake(workspace: Workspace, version: ModelVersion, endpoint: str) -> None:
    """Wake a version that has an endpoint's traffic and sleeps; the caller holds the lock."""
    current = pointed(workspace, endpoint)
    if current is not None and current.asleep_since and _name(current) == version.name:
        _wake(workspace, current)


def call(workspace: Workspace, endpoint: str, payload: bytes) -> bytes:
    """Send a prediction to an endpoint, woken first where it sleeps; return its answer's body.

    Raises
    ------
    UnknownEndpoint, EndpointUnreachable, CallFailed
        As :func:`nbmlops.endpoints.call`.
    DeploymentFailed
        When it does not wake.
    """
    current = pointed(workspace, endpoints.running(workspace, endpoint).endpoint)
    if current is not None and current.asleep_since is not None:
        with workspace.exclusively(endpoints.lock(endpoint)):
            current = pointed(workspace, endpoint)
            if current is not None and current.asleep_since is not None:
                _wake(workspace, current)
    return endpoints.call(workspace, endpoint, payload)


def _wake(workspace: Workspace, record: DeploymentRecord) -> DeploymentRecord:
    """Start the worker of a deployment that sleeps, and wait until its front has it back."""
    workspace.say(f"waking {record.deployment_id}")
    handle = _handle(record)
    workspace.launcher(handle.launcher).scale(handle, 1)
    endpoints.until_ready(workspace, handle, record.deployment_id)
    endpoint = endpoints.find(workspace, record.endpoint)
    if endpoint is not None:  # so it is in the front's inbox too, and the front sees it ready
        told = endpoints.point(workspace, record.endpoint, record.deployment_id)
        endpoints.serve(workspace, told, (_route(workspace, record),))
    awake = replace(record, asleep_since=None, desired=1, ready=1)
    _keep(workspace, awake)
    return awake


def rest(workspace: Workspace) -> None:
    """Stop the workers of deployments that nobody calls, and start those that somebody does.

    That is for clusters whose settings say ``idle_s``. The front stays: it answers 503 with
    Retry-After, and tells that it was called.
    """
    idle_s = workspace.settings.kubernetes.idle_s
    if idle_s is None:
        return
    for endpoint in endpoints.every(workspace):
        far = endpoint.running and endpoint.launcher in FAR
        if not far or not endpoints.is_here(workspace, endpoint):
            continue
        with workspace.exclusively(endpoints.lock(endpoint.endpoint), wait=False) as ours:
            current = pointed(workspace, endpoint.endpoint) if ours else None
            if current is not None and current.status is DeploymentStatus.RUNNING:
                with contextlib.suppress(EndpointUnreachable, DeploymentFailed):
                    _rest(workspace, endpoint, current, idle_s)


def _rest(
    workspace: Workspace, endpoint: EndpointRecord, current: DeploymentRecord, idle_s: int
) -> None:
    called_at = endpoints.called_at(workspace, endpoint)
    if current.asleep_since is not None:
        if called_at is not None and called_at > current.asleep_since:
            _wake(workspace, current)
        return
    handle, now = _handle(current), workspace.now()
    status = workspace.launcher(handle.launcher).poll([handle])[handle]
    begun = status.attempts[-1].started_at if status.attempts else current.created_at
    since = max(begun, called_at or begun)
    if (now - since).total_seconds() < idle_s:
        return
    workspace.say(f"{current.endpoint} was not called for {idle_s} s: it sleeps until it is")
    # First the record: a worker that is gone without it would be taken for one that failed.
    _keep(workspace, replace(current, asleep_since=now, desired=0, ready=0))
    workspace.launcher(handle.launcher).scale(handle, 0)


def rollback(workspace: Workspace, endpoint: str, to: str | None = None) -> DeploymentRecord:
    """Go back to the version that took an endpoint's traffic before, or to an earlier one.

    It goes the way of :func:`deploy`, so no call fails. Rolled back once more, it goes to the
    version before that one. ``to`` names any version that has taken the traffic, by its number or
    as ``NAME:V``; the one that has it changes nothing.

    Raises
    ------
    UnknownEndpoint
        When the endpoint is not up.
    NothingToGoBackTo
        When there is no such version.
    WrongUse
        When a number alone may be several models'.
    DeploymentFailed
        When the worker does not get ready; what served before still serves.
    """
    launcher = endpoints.running(workspace, endpoint).launcher
    endpoints.refuse_elsewhere(workspace, endpoint)
    workspace.launcher(launcher).check()
    with workspace.exclusively(endpoints.lock(endpoint)):
        _settle(workspace, endpoint)
        endpoints.running(workspace, endpoint)
        current = pointed(workspace, endpoint)
        target = _earlier(workspace, endpoint, current, to)
        version = _decided(workspace, target)
        if current is not None and _name(current) == version.name:
            live = look(workspace, current)
            if live.status is DeploymentStatus.RUNNING and live.ready:
                return live
        left = current.version if current else None
        return _deploy(workspace, version, endpoint, launcher, rolled_back_from=left)


def _earlier(
    workspace: Workspace, endpoint: str, left: DeploymentRecord | None, to: str | None
) -> DeploymentDecision:
    """Return the decision that a rollback goes back to."""
    entries = decisions.here(workspace)
    took = [
        item.decision
        for item in decisions.placed(entries)
        if item.entry.kind == "deployed" and item.decision.endpoint == endpoint
    ]
    if to is not None:
        return _named(endpoint, took, to)
    traffic = decisions.traffic(entries).get(endpoint, decisions.Traffic())
    back = [item.decision for item in traffic.back]
    while back and left is not None and _name(back[-1]) == _name(left):
        back.pop()
    if back:
        return back[-1]
    of = left.model if left else took[-1].model if took else None
    raise NothingToGoBackTo(
        f"no version took the traffic of `{endpoint}` before {_name(left) if left else 'now'}",
        f"See what was decided: `nbmlops model {of}`." if of else "See: `nbmlops models`.",
        endpoint=endpoint,
    )


def _decided(workspace: Workspace, target: DeploymentDecision) -> ModelVersion:
    """Return the version that a decision was about, under the number that it has now."""
    version = models.of_digest(workspace, target.model, target.version_digest)
    return version or models.find(workspace, _name(target))


def _named(endpoint: str, took: list[DeploymentDecision], to: str) -> DeploymentDecision:
    """Return the last decision on the version that ``NAME:V`` or a number names."""
    known = {_name(decision): decision for decision in took}
    found = [name for name in known if to in (name, name.rpartition(":")[2])]
    if len(found) == 1:
        return known[found[0]]
    if found:
        raise WrongUse(
            f"version {to} of {' and of '.join(known[name].model for name in found)} took the"
            f" traffic of `{endpoint}`",
            f"Name the model too: `nbmlops rollback {endpoint} --to {found[0]}`.",
            endpoint=endpoint,
        )
    wanted = to if ":" in to or not took else f"{took[-1].model}:{to}"
    shown = ", ".join(sorted(known, key=lambda name: (known[name].model, known[name].version)))
    raise NothingToGoBackTo(
        f"{to[:80]} never took the traffic of `{endpoint}`; those that did: {shown}",
        f"Name one of these; another version is deployed: `{_deploying(wanted[:80], endpoint)}`.",
        endpoint=endpoint,
    )


def _name(one: DeploymentDecision | DeploymentRecord) -> str:
    return f"{one.model}:{one.version}"


def deploying(record: DeploymentRecord) -> str:
    """Return what to type to deploy the same once more."""
    return _deploying(_name(record), record.endpoint)


def _deploying(version: str, endpoint: str) -> str:
    elsewhere = "" if version.partition(":")[0] == endpoint else f" --endpoint {endpoint}"
    return f"nbmlops deploy {version}{elsewhere}"


def pointed(workspace: Workspace, endpoint: str) -> DeploymentRecord | None:
    """Return the deployment that an endpoint points at, or ``None``."""
    found = endpoints.find(workspace, endpoint)
    if found is None or found.deployment_id is None:
        return None
    kept = workspace.store.get(KIND, found.deployment_id, DeploymentRecord)
    return None if kept is None else _numbered(workspace, kept.record)


def _numbered(workspace: Workspace, record: DeploymentRecord) -> DeploymentRecord:
    """Return a deployment with the numbers that the ledger gives now, if it was decided on."""
    for item in decisions.placed(ledger.entries(workspace.repo)):
        decision = item.decision
        if item.entry.kind == "deployed" and decision.deployment_id == record.deployment_id:
            left = decision.rolled_back_from
            return replace(record, version=decision.version, rolled_back_from=left)
    return record


def _deploy(
    workspace: Workspace,
    version: ModelVersion,
    name: str,
    launcher: str,
    rolled_back_from: int | None = None,
) -> DeploymentRecord:
    sites.refuse_here(version, launcher)
    endpoint = endpoints.located(workspace, endpoints.made(workspace, name, launcher))
    token = endpoints.access_token(workspace, endpoint)
    deployment_id = layout.new_id(version.model, workspace.now().timestamp())
    record = DeploymentRecord(
        endpoint=endpoint.endpoint,
        url=endpoint.url,
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        commit=version.commit,
        launcher=launcher,
        status=DeploymentStatus.STARTING,
        created_at=workspace.now(),
        author=workspace.repo.author(),
        handle=JobHandle(launcher=launcher, name=deployment_id),
        rolled_back_from=rolled_back_from,
        token_file=str(token) if token else None,
        ephemeral_calls=endpoints.calls_are_ephemeral(workspace, launcher),
        place=endpoint.place,
    )
    workspace.say(f"starting {version.name} as {deployment_id}")
    job = workers.job(workspace, version, deployment_id, launcher)
    record = replace(record, image=job.labels.get("image"))
    _keep(workspace, record)
    try:
        workspace.launcher(launcher).launch(job)
        endpoints.until_ready(workspace, _handle(record), deployment_id)
        if version.served_by_program:  # ours has compared its sample before it is ready
            stints.check_sample(workspace, version, _handle(record))
        before = pointed(workspace, record.endpoint)
        _decide(workspace, "deployed", record, before, version=version)
        return _take_traffic(workspace, _numbered(workspace, record))
    except DeploymentFailed as failure:
        _give_up(workspace, record, failure, before_id=endpoint.deployment_id)
        raise


def _take_traffic(workspace: Workspace, record: DeploymentRecord) -> DeploymentRecord:
    """Point the endpoint at a ready deployment that was decided on, and stop all others.

    Raises
    ------
    DeploymentFailed
        When the worker ends as soon as it has the traffic, which the others can still take back.
    """
    _check_alive(workspace, record)
    endpoint = endpoints.find(workspace, record.endpoint)
    if endpoint is None or endpoint.deployment_id != record.deployment_id:
        endpoint = endpoints.point(workspace, record.endpoint, record.deployment_id)
    endpoints.serve(workspace, endpoint, (_route(workspace, record),))
    others = [
        other
        for other in _live(workspace, record.endpoint)
        if other.deployment_id != record.deployment_id
    ]
    steady = time.monotonic() + STEADY_S
    while others and time.monotonic() < steady:
        _check_alive(workspace, record)
        time.sleep(0.1)
    taken = replace(record, status=DeploymentStatus.RUNNING, ready=1)
    _keep(workspace, taken)
    for other in others:
        _stop(workspace, other)
    return taken


def _check_alive(workspace: Workspace, record: DeploymentRecord) -> None:
    handle = _handle(record)
    status = workspace.launcher(handle.launcher).poll([handle])[handle]
    if status.status.is_final:
        cause = status.cause.message if status.cause else "it ended"
        raise DeploymentFailed(
            f"{record.deployment_id} did not stay up: {cause}",
            f"See what it wrote: `nbmlops logs {record.deployment_id}`.",
            job=record.deployment_id,
        )


def _refreshed(workspace: Workspace, record: DeploymentRecord) -> DeploymentRecord:
    """Tell the front of a deployment that has its traffic what has changed.

    That is what ``[calls]`` and ``[models.NAME.bounds]`` say, or the version's number.
    """
    version = models.find(workspace, _name(record))
    output = models.bounded(workspace, version, lenient=True).output
    settings = workspace.settings.calls
    wanted = (settings.never, settings.hashed, record.version, output)
    routes = endpoints.told(workspace, record.endpoint)
    if any(
        (route.never, route.hashed, route.version, route.schema.output) != wanted
        or (route.profile is None and _profile(workspace, version) is not None)
        for route in routes
    ):
        pointed = endpoints.point(workspace, record.endpoint, record.deployment_id)
        endpoints.serve(workspace, pointed, (_route(workspace, record),))
    return record


def tell(workspace: Workspace, endpoint: str, *, wait: bool = True) -> None:
    """Tell an endpoint's front what has changed of the version that has its traffic.

    Without ``wait`` an endpoint on which a command is at work is left to it.

    Raises
    ------
    DeploymentFailed
        When it does not take it.
    """
    with workspace.exclusively(endpoints.lock(endpoint), wait=wait) as ours:
        current = pointed(workspace, endpoint) if ours else None
        here = current is not None and endpoints.is_here(workspace, current)
        if current is not None and here and current.status is DeploymentStatus.RUNNING:
            live = look(workspace, current)
            if live.ready:
                _refreshed(workspace, live)


def _route(workspace: Workspace, record: DeploymentRecord) -> Route:
    if workspace.settings.calls.hashed:
        calllog.ensure_key(workspace.home.calls)
    handle = _handle(record)
    status = workspace.launcher(handle.launcher).poll([handle])[handle]
    version = models.find(workspace, _name(_numbered(workspace, record)))
    profile = _profile(workspace, version)
    if profile is None:
        workspace.warn(f"/metrics will not tell how far calls of {version.name} lie from training")
    return Route(
        deployment_id=record.deployment_id,
        role="champion",
        share=100.0,
        address=str(status.address),
        model=version.model,
        version=version.version,
        commit=version.commit,
        schema=models.bounded(workspace, version, lenient=True),
        batches=version.probe.independent,
        matrix=not version.served_by_program,
        binary=workers.takes_binary(workspace, version, handle),
        token=sites.token_for(workspace, handle),
        never=workspace.settings.calls.never,
        hashed=workspace.settings.calls.hashed,
        profile=profile,
    )


def _profile(workspace: Workspace, version: ModelVersion) -> bytes | None:
    """Return what a front holds live calls against, ``None`` where it cannot be had.

    A front may be far from here, and whoever can read its routes sees the profile: columns that
    are kept out of the call log are not in it.
    """
    from nbmlops.monitoring import profile

    file, settings = version.files.get("profile"), workspace.settings.calls
    if file is None:
        return None
    try:
        reference = records.load(workspace.artifacts.get(file.digest), profile.Profile)
        if reference.format != profile.FORMAT:
            return None
        return profile.packed(reference, frozenset((*settings.never, *settings.hashed)))
    except (NbmlopsError, msgspec.MsgspecError, ValueError):  # it serves all the same
        return None


def undeploy(workspace: Workspace, endpoint: str) -> DeploymentRecord:
    """Stop an endpoint and its deployment; the URL stays reserved for the next one.

    Raises
    ------
    UnknownEndpoint
        When there is no such endpoint, or it is not up.
    """
    endpoints.running(workspace, endpoint)
    endpoints.refuse_elsewhere(workspace, endpoint)
    with workspace.exclusively(endpoints.lock(endpoint)):
        found = endpoints.running(workspace, endpoint)
        current = pointed(workspace, endpoint)
        if current is None:
            raise UnknownEndpoint(
                f"nothing is deployed at `{endpoint}`", "See what is up: `nbmlops deployments`."
            )
        workspace.say(f"stopping {endpoint}")
        endpoints.point(workspace, endpoint, None)
        _settle(workspace, endpoint)
        endpoints.until_ended(workspace, [endpoints.handle(found), _handle(current)])
        if found.launcher in FAR:  # the last calls, which its front sent as it ended
            calls.gather(workspace, found)
        return get(workspace, current.deployment_id)


def _handle(record: DeploymentRecord) -> JobHandle:
    return record.handle or JobHandle(launcher=record.launcher, name=record.deployment_id)


def _give_up(
    workspace: Workspace, record: DeploymentRecord, why: DeploymentFailed, before_id: str | None
) -> None:
    """Leave a deployment that did not get ready; the endpoint points where it did before."""
    endpoint = endpoints.find(workspace, record.endpoint)
    if endpoint is not None and endpoint.deployment_id == record.deployment_id:
        pointed = endpoints.point(workspace, record.endpoint, before_id)
        if before_id is not None:
            with contextlib.suppress(DeploymentFailed):
                route = _route(workspace, _kept(workspace, before_id).record)
                endpoints.serve(workspace, pointed, (route,))
    cause = Cause(code=why.code, message=why.message, hint=why.hint)
    if _is_decided(workspace, "deployed", record):
        _decide(workspace, "undeployed", record, None, cause)
    workspace.launcher(record.launcher).cancel(_handle(record))
    left = endpoints.find(workspace, record.endpoint)
    if left is not None and not left.running:  # its front was to serve this one alone
        endpoints.stop(workspace, left)
    failed = replace(
        record,
        status=DeploymentStatus.FAILED,
        stopped_at=_ended_at(workspace, record),
        cause=cause,
    )
    _keep(workspace, failed)


def _stop(workspace: Workspace, record: DeploymentRecord) -> None:
    workspace.launcher(record.launcher).cancel(_handle(record))
    stopped = replace(
        record,
        status=DeploymentStatus.STOPPED,
        ready=0,
        desired=0,
        stopped_at=_ended_at(workspace, record),
    )
    _keep(workspace, stopped)


def _ended_at(workspace: Workspace, record: DeploymentRecord) -> datetime:
    """Return when it was decided that it ends: the ledger says the same after the store is lost."""
    decided = decisions.ended_at(decisions.here(workspace), record.deployment_id)
    return decided or workspace.now()


# --- what is kept -------------------------------------------------------------------------------


def _is_decided(workspace: Workspace, kind: str, record: DeploymentRecord) -> bool:
    return any(
        entry.kind == kind and entry.body.get("deployment_id") == record.deployment_id
        for entry in ledger.entries(workspace.repo)
    )


def _decide(
    workspace: Workspace,
    kind: Literal["deployed", "undeployed"],
    record: DeploymentRecord,
    before: DeploymentRecord | None,
    cause: Cause | None = None,
    version: ModelVersion | None = None,
) -> None:
    """Write a decision into the ledger, once.

    ``version`` is the one that it was started with; of one that was decided on the ledger tells.
    """

    def make(earlier: list[LedgerEntry]) -> dict[str, Any] | LedgerEntry:
        begun: DeploymentDecision | None = None
        for entry in earlier:
            if entry.body.get("deployment_id") != record.deployment_id:
                continue
            if entry.kind == kind:
                return entry
            if entry.kind == "deployed":
                begun = decisions.read(entry, DeploymentDecision)
        if begun is not None:
            number, digest, left = begun.version, begun.version_digest, begun.rolled_back_from
        else:
            of = version or models.find(workspace, _name(record))
            number, digest = decisions.numbered(earlier, of), of.digest
            left = before.version if before and record.rolled_back_from is not None else None
        return records.plain(
            DeploymentDecision(
                endpoint=record.endpoint,
                deployment_id=record.deployment_id,
                model=record.model,
                version=number,
                version_digest=digest,
                commit=record.commit,
                launcher=record.launcher,
                replaces=before.deployment_id if before else None,
                url=record.url,
                created_at=record.created_at,
                reason="deploy" if record.rolled_back_from is None else "rollback",
                rolled_back_from=record.rolled_back_from if left is None else left,
                cause=cause,
                image=record.image,
            )
        )

    decisions.decide(workspace, kind, make)


def get(workspace: Workspace, deployment_id: str) -> DeploymentRecord:
    """Return the deployment as it is now.

    Raises
    ------
    UnknownReference
        When there is none of that id.
    """
    return look(workspace, _kept(workspace, deployment_id).record)


def recorded(workspace: Workspace, deployment_id: str) -> DeploymentRecord:
    """Return the deployment as it was recorded last, without a look at its jobs.

    Raises
    ------
    UnknownReference
        When there is none of that id.
    """
    return _kept(workspace, deployment_id).record


def _kept(workspace: Workspace, deployment_id: str) -> Kept[DeploymentRecord]:
    kept = workspace.store.get(KIND, deployment_id, DeploymentRecord)
    if kept is None:
        raise UnknownReference(
            f"there is no deployment `{deployment_id}`", "See them: `nbmlops deployments`."
        )
    return kept


def _keep(workspace: Workspace, record: DeploymentRecord) -> None:
    record = _numbered(workspace, record)
    kept = workspace.store.get(KIND, record.deployment_id, DeploymentRecord)
    revision = kept.revision if kept else 0
    workspace.store.swap(
        KIND,
        record.deployment_id,
        record,
        expected=revision,
        key=f"{KIND}:{record.deployment_id}:{record.status.value}:{revision}",
        status=record.status.value,
    )


# --- looking and settling -----------------------------------------------------------------------


def look(workspace: Workspace, record: DeploymentRecord) -> DeploymentRecord:
    """Return the deployment as it is now: ready only when its worker and its front are.

    That of another clone is shown as it was written last.
    """
    if not endpoints.is_here(workspace, record):
        return replace(record, elsewhere=True)
    if record.status not in (DeploymentStatus.STARTING, DeploymentStatus.RUNNING):
        return record
    if record.asleep_since is not None:
        return replace(record, ready=0, desired=0)
    worker = _handle(record)
    front = JobHandle(launcher=record.launcher, name=f"endpoint-{record.endpoint}")
    seen = workspace.launcher(record.launcher).poll([worker, front])
    if seen[worker].status.is_final:
        cause = seen[worker].cause
        return replace(record, status=DeploymentStatus.FAILED, ready=0, cause=cause)
    return replace(record, ready=int(bool(seen[worker].ready and seen[front].ready)))


def listed(workspace: Workspace, *, every: bool = False) -> list[DeploymentRecord]:
    """Return the deployments that should be up, or all there ever were, newest first."""
    kept = workspace.store.page(KIND, DeploymentRecord, limit=_ALL, status=None if every else _LIVE)
    return [look(workspace, item.record) for item in kept]


def _live(workspace: Workspace, endpoint: str) -> list[DeploymentRecord]:
    kept = workspace.store.page(KIND, DeploymentRecord, limit=_ALL, status=_LIVE)
    return [
        item.record
        for item in kept
        if item.record.endpoint == endpoint and endpoints.is_here(workspace, item.record)
    ]


def settle(workspace: Workspace) -> None:
    """Complete or roll back what a killed command has left half done.

    An endpoint on which a living command is at work is left to it.
    """
    for endpoint in endpoints.every(workspace):
        if not endpoints.is_here(workspace, endpoint) or _is_settled(workspace, endpoint):
            continue
        with workspace.exclusively(endpoints.lock(endpoint.endpoint), wait=False) as ours:
            if ours:
                _settle_and_wait(workspace, endpoint)


def recover(workspace: Workspace) -> None:
    """Give the traffic of versions whose workers died young back to the versions before them.

    An endpoint on which a living command is at work is left to it.
    """
    for endpoint in endpoints.every(workspace):
        name = endpoint.endpoint
        if not endpoints.is_here(workspace, endpoint) or _fallen(workspace, name) is None:
            continue
        with workspace.exclusively(endpoints.lock(name), wait=False) as ours:
            if ours and (fallen := _fallen(workspace, name)) is not None:
                _go_back(workspace, fallen)


def _fallen(workspace: Workspace, endpoint: str) -> DeploymentRecord | None:
    """Return the deployment that has the traffic, if its worker died before it had proved itself.

    One that was gone back to has nothing to prove.
    """
    current = pointed(workspace, endpoint)
    if (
        current is None
        or current.status is not DeploymentStatus.RUNNING
        or current.rolled_back_from is not None
        or (workspace.now() - current.created_at).total_seconds() > PROBATION_S
    ):
        return None
    seen = look(workspace, current)
    return seen if seen.status is DeploymentStatus.FAILED else None


def _go_back(workspace: Workspace, fallen: DeploymentRecord) -> None:
    """Give the traffic back to the version before; the caller holds the endpoint's lock."""
    try:
        target = _earlier(workspace, fallen.endpoint, fallen, None)
    except NothingToGoBackTo:
        return
    version = _decided(workspace, target)
    why = fallen.cause.message if fallen.cause else "it ended"
    workspace.say(f"{_name(fallen)} did not stay up ({why}); going back to {version.name}")
    try:
        _deploy(
            workspace, version, fallen.endpoint, fallen.launcher, rolled_back_from=fallen.version
        )
    except DeploymentFailed as failure:
        workspace.say(f"{failure.message}; {fallen.endpoint} is down. {failure.hint}")


def _settle_and_wait(workspace: Workspace, endpoint: EndpointRecord) -> None:
    """Settle an endpoint, and see off what was stopped: nobody else waits for it."""
    before = {record.deployment_id: record for record in _live(workspace, endpoint.endpoint)}
    _settle(workspace, endpoint.endpoint)
    live = {record.deployment_id for record in _live(workspace, endpoint.endpoint)}
    ending = [_handle(record) for name, record in before.items() if name not in live]
    left = endpoints.find(workspace, endpoint.endpoint)
    if left is not None and not left.running:
        ending.append(endpoints.handle(left))
    endpoints.until_ended(workspace, ending)


def _is_settled(workspace: Workspace, endpoint: EndpointRecord) -> bool:
    live = _live(workspace, endpoint.endpoint)
    if not endpoint.running:
        return not live
    return [(d.deployment_id, d.status.value) for d in live] in (
        [(endpoint.deployment_id, "running")],
        [],
    )


def _settle(workspace: Workspace, name: str) -> None:
    """Bring one endpoint to the state that was decided; the caller holds its lock."""
    for record in _live(workspace, name):
        endpoint = endpoints.find(workspace, name)
        current = endpoint.deployment_id if endpoint else None
        if record.status is DeploymentStatus.RUNNING and record.deployment_id != current:
            if current is None:
                _decide(workspace, "undeployed", record, None)
            if current is None or _is_running(workspace, current):
                _stop(workspace, record)
        elif record.status is DeploymentStatus.STARTING:
            _resume(workspace, record)
    endpoint = endpoints.find(workspace, name)
    if endpoint is not None and not endpoint.running:
        endpoints.stop(workspace, endpoint)


def _is_running(workspace: Workspace, deployment_id: str) -> bool:
    """Whether the deployment has its traffic, so that the one before it may go."""
    return _kept(workspace, deployment_id).record.status is DeploymentStatus.RUNNING


def _resume(workspace: Workspace, record: DeploymentRecord) -> None:
    """Go on with a deployment whose command was killed, or leave it if it was not decided on."""
    before = [d for d in _live(workspace, record.endpoint) if d.status is DeploymentStatus.RUNNING]
    handle = _handle(record)
    ready = workspace.launcher(handle.launcher).poll([handle])[handle].ready
    why = DeploymentFailed(
        f"the command that started {record.deployment_id} was ended before it was ready",
        f"Deploy it again: `{deploying(record)}`.",
    )
    if ready and _is_decided(workspace, "deployed", record):
        try:
            _take_traffic(workspace, record)
            return
        except DeploymentFailed as failure:
            why = failure
    _give_up(workspace, record, why, before[0].deployment_id if before else None)


def logs(workspace: Workspace, name: str, *, follow: bool = False) -> Iterator[str] | None:
    """Return the lines of a deployment's worker or an endpoint's front; ``None`` if it is none."""
    name = name.removeprefix("deployment/")
    kept = workspace.store.get(KIND, name, DeploymentRecord)
    if kept is not None:
        if not endpoints.is_here(workspace, kept.record):
            endpoints.refuse_elsewhere(workspace, kept.record.endpoint)
        handle = _handle(kept.record)
    elif name.startswith("endpoint-") and (
        front := endpoints.find(workspace, name.removeprefix("endpoint-"))
    ):
        handle = endpoints.handle(front)
    else:
        return None
    return workspace.launcher(handle.launcher).logs(handle, follow=follow)
