"""Decisions: the ledger read from its beginning, one entry after the other.

What stands follows from the entries in the order of their sequence; clocks have no say in it. An
entry that is of no known kind, or does not fit its kind, is passed over by every reader and named
by ``doctor``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from nbmlops import digests, ledger
from nbmlops.errors import Conflict
from nbmlops.records import (
    AliasDecision,
    DeploymentDecision,
    LedgerEntry,
    LedgerHead,
    ModelVersion,
)
from nbmlops.records.record import RecordT
from nbmlops.workspace import Workspace

Kind = Literal["version", "deployed", "undeployed", "alias"]
_FORMS: dict[str, type[msgspec.Struct]] = {
    "version": ModelVersion,
    "deployed": DeploymentDecision,
    "undeployed": DeploymentDecision,
    "alias": AliasDecision,
}
_KEPT = "ledger"


class Placed(NamedTuple):
    """A decision on a deployment, and the entry that holds it."""

    entry: LedgerEntry
    decision: DeploymentDecision


class Traffic(NamedTuple):
    """Where an endpoint's traffic goes, and the versions that one goes back through, last on top.

    ``standing`` is ``None`` while the endpoint is not up.
    """

    standing: Placed | None = None
    back: tuple[Placed, ...] = ()


# --- writing ------------------------------------------------------------------------------------


def decide(
    workspace: Workspace,
    kind: Kind,
    make: Callable[[list[LedgerEntry]], dict[str, Any] | LedgerEntry],
) -> LedgerEntry:
    """Append an entry, as :func:`ledger.append` does; the store remembers the ledger's head."""
    entry = ledger.append(workspace.repo, kind, make, workspace.now(), place(workspace))
    witness(workspace)
    return entry


def place(workspace: Workspace) -> str:
    """Return the id of this clone, drawn when it is first asked for."""
    return workspace.place()


def of_place(entries: Iterable[LedgerEntry], wanted: str | None) -> list[LedgerEntry]:
    """Return the entries without the deployments of other places than the one wanted.

    Each machine has endpoints of its own: two that have one name have nothing to do with each
    other. An entry that does not tell its place counts everywhere.
    """
    return [
        entry
        for entry in entries
        if entry.kind not in ("deployed", "undeployed") or entry.place in (None, wanted)
    ]


def here(workspace: Workspace) -> list[LedgerEntry]:
    """Return the ledger's entries without the deployments that were made elsewhere."""
    entries = list(ledger.entries(workspace.repo))
    if all(entry.place is None for entry in entries):
        return entries  # whoever only looks draws no id
    return of_place(entries, place(workspace))


def witness(workspace: Workspace, *, anew: bool = False) -> None:
    """Remember the ledger's head in the store, so that a rewritten ledger is found.

    A head that does not follow from the one that was seen before is not taken, unless ``anew``
    says that entries were appended again on purpose.
    """
    head = ledger.head(workspace.repo)
    if head is None:
        return
    kept = workspace.store.get(_KEPT, _clone(workspace), LedgerHead)
    revision = kept.revision if kept else 0
    seen = kept.record.commit if kept else None
    if seen == head or (seen and not anew and not ledger.descends(workspace.repo, head, seen)):
        return
    with contextlib.suppress(Conflict):  # somebody else has seen a later one
        key = f"{_KEPT}:{_clone(workspace)}:{head}:{revision}"
        made = LedgerHead(commit=head)
        workspace.store.swap(_KEPT, _clone(workspace), made, expected=revision, key=key)


def _clone(workspace: Workspace) -> str:
    """Return what tells this clone from others that share its store: each has its ledger."""
    place = f"{socket.gethostname()}:{workspace.repo.common_dir}"
    return digests.of_bytes(place.encode(errors="surrogateescape"))[:32]


def seen(workspace: Workspace) -> str | None:
    """Return the newest commit of the ledger that the store has seen."""
    kept = workspace.store.get(_KEPT, _clone(workspace), LedgerHead)
    return kept.record.commit if kept else None


# --- reading ------------------------------------------------------------------------------------


def read(entry: LedgerEntry, form: type[RecordT]) -> RecordT | None:
    """Return what an entry says, or ``None`` when it does not fit its kind."""
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(entry.body, form)
    return None


def misfits(entries: Iterable[LedgerEntry]) -> Iterator[tuple[LedgerEntry, str]]:
    """Yield the entries that every reader passes over, each with the reason."""
    for entry in entries:
        form = _FORMS.get(entry.kind)
        if form is None:
            yield entry, f"is of the kind {entry.kind[:40]!r}, which is not known here"
        elif read(entry, form) is None:
            yield entry, f"is no {entry.kind!r} that can be read"


def versions(
    entries: Iterable[LedgerEntry], model: str | None = None
) -> Iterator[tuple[LedgerEntry, ModelVersion]]:
    """Yield the registered versions of a model or of all, oldest first."""
    for entry in entries:
        if entry.kind != "version" or model not in {None, entry.body.get("model")}:
            continue
        if (version := read(entry, ModelVersion)) is not None:
            yield entry, version


def number(entries: Iterable[LedgerEntry], model: str, digest: str) -> int | None:
    """Return the number that these entries give a version, or ``None`` if they do not know it."""
    return next(
        (version.version for _, version in versions(entries, model) if version.digest == digest),
        None,
    )


def numbered(entries: Iterable[LedgerEntry], version: ModelVersion) -> int:
    """Return the number to write for a version that was looked up a moment ago.

    It may have got another one since: what a decision names is the model of that digest.

    Raises
    ------
    Conflict
        When these entries do not know it, and its number is another version's.
    """
    known = list(entries)
    found = number(known, version.model, version.digest)
    if found is None and any(other.name == version.name for _, other in versions(known)):
        raise Conflict(
            f"{version.name} is another version by now", "See what is there: `nbmlops models`."
        )
    return version.version if found is None else found


def astray(entries: Iterable[LedgerEntry]) -> Iterator[tuple[LedgerEntry, str]]:
    """Yield the standing decisions that name a version by its number and another by its digest.

    A later decision on the same alias or endpoint puts it right, so only the last one counts.
    """
    known = list(entries)
    digests_of = {
        (version.model, version.version): version.digest for _, version in versions(known)
    }
    standing: dict[tuple[str, ...], tuple[LedgerEntry, AliasDecision | DeploymentDecision]] = {}
    for entry, alias in moved(known):
        standing["alias", alias.model, alias.alias] = entry, alias
    for item in placed(known):
        standing["endpoint", str(item.entry.place), item.decision.endpoint] = item
    for entry, decision in standing.values():
        right = digests_of.get((decision.model, decision.version))
        if right is not None and right != decision.version_digest:
            right = f"and that is {right[:12]}"
            name = f"{decision.model}:{decision.version}"
            yield entry, f"names {name} as {decision.version_digest[:12]}, {right}"


def moved(entries: Iterable[LedgerEntry]) -> Iterator[tuple[LedgerEntry, AliasDecision]]:
    """Yield the decisions on aliases, oldest first."""
    for entry in entries:
        if entry.kind == "alias" and (decision := read(entry, AliasDecision)) is not None:
            yield entry, decision


def placed(entries: Iterable[LedgerEntry]) -> Iterator[Placed]:
    """Yield the decisions on deployments, oldest first."""
    for entry in entries:
        if entry.kind in ("deployed", "undeployed"):
            decision = read(entry, DeploymentDecision)
            if decision is not None:
                yield Placed(entry, decision)


def aliases(entries: Iterable[LedgerEntry]) -> dict[str, dict[str, int]]:
    """Return the aliases that stand: of each model, the version that each names."""
    found: dict[str, dict[str, int]] = {}
    for _, decision in moved(entries):
        standing = found.setdefault(decision.model, {})
        if decision.removed:
            standing.pop(decision.alias, None)
        else:
            standing[decision.alias] = decision.version
    return found


def traffic(entries: Iterable[LedgerEntry]) -> dict[str, Traffic]:
    """Return where the traffic of each endpoint goes, and what it can go back to.

    Going back is not one more version on the stack: after A, B, C and one rollback to B the next
    one leads to A.
    """
    found: dict[str, Traffic] = {}
    undo: dict[str, Traffic] = {}
    for item in placed(entries):
        name = item.decision.endpoint
        before = found.get(name, Traffic())
        if item.entry.kind == "deployed":
            undo[name] = before
            found[name] = Traffic(item, _pushed(before.back, item))
        elif before.standing is not None and _same(before.standing, item):
            failed = item.decision.cause is not None
            found[name] = undo[name] if failed else before._replace(standing=None)
    return found


def _same(one: Placed, other: Placed) -> bool:
    return one.decision.deployment_id == other.decision.deployment_id


def _pushed(back: tuple[Placed, ...], item: Placed) -> tuple[Placed, ...]:
    def is_same(other: Placed) -> bool:
        here, there = item.decision, other.decision
        return (here.model, here.version) == (there.model, there.version)

    if back and is_same(back[-1]):
        return (*back[:-1], item)
    if item.decision.reason == "rollback":
        for place in reversed(range(len(back))):
            if is_same(back[place]):
                return (*back[:place], item)
    return (*back, item)


def ended_at(entries: Iterable[LedgerEntry], deployment_id: str) -> datetime | None:
    """Return when it was decided that a deployment ends, or ``None`` while it has its traffic."""
    endpoint: str | None = None
    ends: list[Placed] = []
    for item in placed(entries):
        decision = item.decision
        if item.entry.kind == "deployed":
            if decision.deployment_id == deployment_id:
                endpoint, ends = decision.endpoint, []
            elif decision.endpoint == endpoint:
                ends.append(item)
        elif decision.deployment_id == deployment_id:
            ends.append(item)
        elif decision.cause is not None:  # what would have replaced it did not come into effect
            ends = [one for one in ends if not _same(one, item)]
    return ends[0].entry.at if ends else None
