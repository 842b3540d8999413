"""Which record of which call a row is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nbmlops import calllog, calls, records, sheets
from nbmlops.calllog import redaction
from nbmlops.errors import NbmlopsError, UnknownCall, nearest
from nbmlops.records import CallRecord
from nbmlops.workspace import Workspace

CALL, CLIENT = "call_id", "client_id"


class InvalidActuals(NbmlopsError):
    """A truth cannot be one of the model's answers; the message names the row."""

    code = "invalid-actuals"


@dataclass(slots=True)
class Told:
    """A row of the file."""

    number: int
    key: str
    row: int | None
    truth: Any
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Place:
    """A record of a call, and the version that answered it."""

    call_id: str
    row: int
    at: datetime
    version: str


def by_call(
    workspace: Workspace, known: tuple[str, ...], told: list[Told], _by: str
) -> dict[int, tuple[Place, bool]]:
    """Return the record of each row that names a call."""
    ids: dict[str, list[str]] = {}
    for one in told:
        try:
            deployment_id = calllog.deployment_of(one.key)
        except UnknownCall:
            continue
        if deployment_id in known:
            ids.setdefault(deployment_id, []).append(one.key)
    names = calls.versions_of(workspace, list(ids))
    sizes: dict[str, tuple[int, CallRecord]] = {}
    for deployment_id, wanted in ids.items():
        for call in calls.find_many(workspace, deployment_id, wanted):
            sizes[call.call_id] = (
                len(call.records),
                records.replace(call, records=(), predictions=()),
            )
    found: dict[int, tuple[Place, bool]] = {}
    for one in told:
        if one.key not in sizes:
            continue
        size, call = sizes[one.key]
        row = one.row if one.row is not None else 0
        if (one.row is None and size > 1) or not 0 <= row < size:
            raise InvalidActuals(
                f"row {one.number:,}: call {one.key} had {size} records, from 0 on",
                "Add a column `row` that says which one is meant.",
                row=one.number,
            )
        found[one.number] = _place(call, row, names), False
    return found


def by_key(
    workspace: Workspace, known: tuple[str, ...], told: list[Told], by: str
) -> dict[int, tuple[Place, bool]]:
    """Return the record of each row that has a key: the newest, up to the row's own time."""
    names = calls.versions_of(workspace, known)
    key = redaction.read_key(workspace.home.calls)
    spelled = {one.key: one.key for one in told}
    hashes = {redaction.digest(by, one, key): one for one in spelled} if key else {}
    places: dict[str, list[Place]] = {}
    seen: set[str] = set()
    for call in calls.Calls(workspace, known):
        if by == CLIENT:
            values: Iterable[Any] = [call.client_id] * len(call.records)
        else:
            seen.update(*call.records[:1])
            values = [record.get(by) for record in call.records]
        for row, value in enumerate(values):
            text = None if value is None else redaction.spelled(value)
            if by in (call.redacted or ()):
                text = hashes.get(text)
            if text in spelled:
                places.setdefault(text, []).append(_place(call, row, names))
    if by != CLIENT and seen and by not in seen and not places:
        raise sheets.InvalidFile(
            f"`{by}` is no column of the logged calls", nearest(by, {*seen, CLIENT})
        )
    found: dict[int, tuple[Place, bool]] = {}
    for one in told:
        limit = one.at
        fitting = [p for p in places.get(one.key, ()) if limit is None or p.at <= limit]
        if fitting:
            newest = max(fitting, key=lambda place: (place.at, place.call_id, place.row))
            found[one.number] = newest, len(fitting) > 1
    return found


def _place(call: CallRecord, row: int, names: Mapping[str, str]) -> Place:
    return Place(call.call_id, row, call.at, calls.answered_by(call, names))
