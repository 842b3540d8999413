"""Alerts in the store: taken from a window, kept until everybody was told.

What has happened is written together with the state that it follows from, so nothing is lost or
told twice whoever is killed when; each alert then gets a record of its own, which says who was
told.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from nbmlops import digests, layout, records
from nbmlops.alerts import telling, webhooks
from nbmlops.alerts.advancing import advance
from nbmlops.errors import Conflict
from nbmlops.records import Alert, AlertState, Delivery, MonitorReport, replace
from nbmlops.workspace import Workspace

KIND = "alert"
STATES = "alert-state"
MAX_ATTEMPTS = 10
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
LIMIT_S = 10.0  # of one look: no further delivery is begun then
_LOCK = "alerts"
_LOG_LOCK = "alerts-log"
_ALL = 1_000
_TAIL_BYTES = 256 * 1024
_WAITING = "waiting"


def take(workspace: Workspace, endpoint: str, report: MonitorReport) -> tuple[Alert, ...]:
    """Count a window of an endpoint, and tell what follows from it; return what that is.

    The same report taken again changes nothing. Whoever cannot be told keeps nobody from counting:
    the alert is in the store, and :func:`deliver` goes on with it.
    """
    found = _counted(workspace, endpoint, report)
    deliver(workspace)
    return tuple(_again(workspace, alert) for alert in found)


def _counted(workspace: Workspace, endpoint: str, report: MonitorReport) -> tuple[Alert, ...]:
    """Move an endpoint's state on by a window, with what follows from it, in one write."""
    settings = workspace.settings.monitoring.alerts
    told = telling.deliveries(settings)
    while True:
        kept = workspace.store.get(STATES, endpoint, AlertState)
        state = kept.record if kept else _first(workspace, endpoint)
        state = replace(state, place=workspace.place())
        moved, found = advance(state, report, settings, workspace.now())
        if moved == state:
            return ()
        found = tuple(replace(telling.bounded(alert), deliveries=told) for alert in found)
        moved = replace(moved, waiting=(*moved.waiting, *found))
        key = f"{endpoint}:{digests.of_bytes(records.dump(report))}"
        before = kept.revision if kept else 0
        with contextlib.suppress(Conflict):
            # A report that was taken before leaves the revision that it led to then.
            return found if _keep_state(workspace, moved, before, key) == before + 1 else ()


def state_of(workspace: Workspace, endpoint: str) -> AlertState | None:
    """Return how it stands with an endpoint's windows; ``None`` when nobody has counted any."""
    kept = workspace.store.get(STATES, endpoint, AlertState)
    return None if kept is None else kept.record


def listed(workspace: Workspace, endpoint: str | None = None, *, limit: int = 50) -> list[Alert]:
    """Return what people were told, or are to be told, newest first."""
    kept = workspace.store.page(KIND, Alert, limit=_ALL if endpoint else limit)
    found = [item.record for item in kept if endpoint in (None, item.record.endpoint)]
    return found[:limit]


def _first(workspace: Workspace, endpoint: str) -> AlertState:
    series = layout.new_id(endpoint, workspace.now().timestamp())
    return AlertState(endpoint=endpoint, series=series, place=workspace.place())


def _again(workspace: Workspace, alert: Alert) -> Alert:
    kept = workspace.store.get(KIND, alert.event_id, Alert)
    return alert if kept is None else kept.record


def _keep_state(workspace: Workspace, state: AlertState, before: int, key: str) -> int:
    status = _WAITING if state.waiting else "raised" if state.alert_id else "quiet"
    return workspace.store.swap(
        STATES, state.endpoint, state, expected=before, key=f"{STATES}:{key}", status=status
    )


def _file(workspace: Workspace, endpoint: str) -> None:
    """Give each alert that waits in an endpoint's state a record of its own."""
    while True:
        kept = workspace.store.get(STATES, endpoint, AlertState)
        if kept is None or not kept.record.waiting:
            return
        for alert in kept.record.waiting:
            workspace.store.swap(
                KIND,
                alert.event_id,
                alert,
                expected=0,
                key=f"{KIND}:{alert.event_id}",
                status=alert.status,
            )
        with contextlib.suppress(Conflict):
            filed = replace(kept.record, waiting=())
            _keep_state(workspace, filed, kept.revision, f"{endpoint}:filed:{kept.revision}")


# --- telling ------------------------------------------------------------------------------------


def deliver(workspace: Workspace, *, limit_s: float = LIMIT_S) -> None:
    """Tell whoever is due to be told of this clone's alerts: first the log, then webhooks.

    Each sink is told in the order in which things happened, at least once. After ``limit_s`` no
    further delivery is begun; who is at it already is left to it.
    """
    began_s = time.monotonic()
    place = workspace.place()
    for kept in workspace.store.page(STATES, AlertState, limit=_ALL, status=(_WAITING,)):
        if kept.record.place in (None, place):
            _file(workspace, kept.record.endpoint)
    _log(workspace)
    with workspace.exclusively(_LOCK, wait=False) as ours:
        if not ours:
            return
        behind: set[str] = set()
        for alert, delivery in _open(workspace):
            in_time = time.monotonic() - began_s <= limit_s
            due = in_time and _is_due(delivery, workspace.now())
            if delivery.sink in behind or not due or not _told(workspace, alert, delivery):
                behind.add(delivery.sink)


def _open(workspace: Workspace) -> list[tuple[Alert, Delivery]]:
    """Return which webhooks have yet to be told of what, oldest first."""
    return [
        (alert, delivery)
        for alert in _pending(workspace)
        for delivery in alert.deliveries
        if delivery.sink != telling.LOG and not delivery.is_over
    ]


def _pending(workspace: Workspace) -> list[Alert]:
    """Return this clone's alerts that somebody has yet to be told of, oldest first."""
    place = workspace.place()
    kept = workspace.store.page(KIND, Alert, limit=_ALL, status=("pending",))
    return [item.record for item in reversed(kept) if item.record.place in (None, place)]


def _is_due(delivery: Delivery, now: datetime) -> bool:
    # Further off than any pause is what a clock said that was ahead.
    left = (delivery.next_at or now) - now
    return left <= timedelta(0) or left > LONGEST_PAUSE


def _told(workspace: Workspace, alert: Alert, delivery: Delivery) -> bool:
    """Try to tell a webhook, and keep what came of it; return whether nothing stands in the way."""
    try:
        _send(workspace, alert, delivery.sink)
    except webhooks.NotDelivered as error:
        tried = _failed(delivery, str(error), workspace.now())
        if tried.attempts == 1 or tried.given_up:
            going = (
                "is given up"
                if tried.given_up
                else "is tried again while JupyterLab or `nbmlops scheduler` is up"
            )
            workspace.warn(
                f"the webhook {delivery.sink} was not told of {alert.event_id}: {error}; it {going}"
            )
    else:
        tried = replace(
            delivery,
            attempts=delivery.attempts + 1,
            delivered_at=workspace.now(),
            next_at=None,
            error=None,
        )
    _mark(workspace, alert.event_id, tried)
    return tried.is_over


def _send(workspace: Workspace, alert: Alert, sink: str) -> None:
    settings = workspace.settings.monitoring.alerts
    found = telling.urls(settings, workspace.environ)
    if sink not in found:
        raise webhooks.NotDelivered(_NOT_NAMED)
    url = found[sink]
    if not url:
        raise webhooks.NotDelivered("the variable is not set on this machine")
    allowed = webhooks.allowed_hosts(workspace.environ.get("NBMLOPS_WEBHOOK_HOSTS") or "")
    webhooks.post(url.strip(), telling.body(alert), alert.event_id, allowed)


_NOT_NAMED = "nbmlops.toml no longer names it"


def _failed(delivery: Delivery, why: str, now: datetime) -> Delivery:
    attempts = delivery.attempts + 1
    over = attempts >= MAX_ATTEMPTS or why == _NOT_NAMED
    pause = min(FIRST_PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE)
    return replace(
        delivery,
        attempts=attempts,
        error=why,
        given_up=over,
        next_at=None if over else now + pause,
    )


def _mark(workspace: Workspace, event_id: str, tried: Delivery) -> None:
    """Keep how far a sink has been told."""

    def changed(alert: Alert) -> Alert:
        others = (tried if one.sink == tried.sink else one for one in alert.deliveries)
        return replace(alert, deliveries=tuple(others))

    _change(workspace, event_id, changed)


def _change(workspace: Workspace, event_id: str, changed: Callable[[Alert], Alert]) -> None:
    while True:
        kept = workspace.store.get(KIND, event_id, Alert)
        if kept is None:
            return
        moved = changed(kept.record)
        with contextlib.suppress(Conflict):
            workspace.store.swap(
                KIND,
                event_id,
                moved,
                expected=kept.revision,
                key=f"{KIND}:{event_id}:{layout.new_id('t')}",
                status=moved.status,
            )
            return


# --- the log ------------------------------------------------------------------------------------


def _log(workspace: Workspace) -> None:
    """Write the alerts that are not in the log yet, and say them."""
    with workspace.exclusively(_LOG_LOCK):
        for alert in _pending(workspace):
            for delivery in alert.deliveries:
                if delivery.sink == telling.LOG and not delivery.is_over:
                    _logged(workspace, alert, delivery)


def _logged(workspace: Workspace, alert: Alert, delivery: Delivery) -> None:
    try:
        _append(workspace, alert)
    except OSError as error:
        why = error.strerror or type(error).__name__
        _mark(
            workspace, alert.event_id, replace(delivery, attempts=delivery.attempts + 1, error=why)
        )
        workspace.warn(f"the log of alerts cannot be written: {why}")
        return
    workspace.warn(f"alert: {telling.sentence(alert)}")
    now = workspace.now()
    done = replace(delivery, attempts=delivery.attempts + 1, delivered_at=now, error=None)
    _mark(workspace, alert.event_id, done)


def _append(workspace: Workspace, alert: Alert) -> None:
    """Append an alert to the log, once; the caller holds its lock."""
    path = workspace.home.alerts
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL_BYTES, 0))
        tail = file.read()
        # Whoever was killed before it was marked as told has left the line, or half of one.
        if f'"event_id":"{alert.event_id}"'.encode() in tail and tail.endswith(b"\n"):
            return
        torn = b"\n" if tail and not tail.endswith(b"\n") else b""
        file.write(torn + telling.line(alert))
        file.flush()
        os.fsync(file.fileno())
