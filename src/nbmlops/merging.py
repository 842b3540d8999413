"""Merging: what was decided here and not pushed yet, after what others have pushed meanwhile.

Pure: entries in, entries out. The order of the remote stands; ours come after it, in their order,
and each is checked again against what then stands, as if it were decided anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from nbmlops import decisions, records
from nbmlops.records import (
    AliasDecision,
    DeploymentDecision,
    LedgerEntry,
    ModelVersion,
    Renumbered,
)

_SUBJECTS = ("model", "digest", "version_digest", "alias", "deployment_id")
_NUMBERS = ("version", "moved_from", "rolled_back_from")


class Merged(NamedTuple):
    """What is to be appended to the remote's ledger, and what became of the rest.

    ``left_out`` says nothing that does not stand already, or nothing any more. ``changed`` are
    entries of theirs that tell of a decision of ours something else than ours do.
    """

    entries: tuple[LedgerEntry, ...]
    left_out: tuple[LedgerEntry, ...]
    renumbered: tuple[Renumbered, ...]
    changed: tuple[LedgerEntry, ...] = ()


def merged(theirs: Sequence[LedgerEntry], ours: Iterable[LedgerEntry], last: int) -> Merged:
    """Return our entries as they are to be appended after theirs.

    A version that is there already, by model and digest, becomes that one; one whose number was
    taken gets the next free number; what names it follows.

    Parameters
    ----------
    theirs
        The entries of the remote's ledger.
    ours
        Our entries that it lacks, in their order.
    last
        The last sequence that the remote's ledger has given.
    """
    merge = _Merge(theirs)
    appended: list[LedgerEntry] = []
    left_out: list[LedgerEntry] = []
    changed: list[LedgerEntry] = []
    subjects = {_subject(entry): entry for entry in theirs}
    for entry in ours:
        known = _identity(entry) in merge.known
        if not known and (other := subjects.get(_subject(entry))) is not None:
            changed.append(other)
        body = None if known else merge.body_of(entry)
        if body is None:
            merge.follow(entry)
            left_out.append(entry)
            continue
        sequence = last + len(appended) + 1
        made = records.replace(entry, sequence=sequence, body=body)
        merge.take(made)
        appended.append(made)
    return Merged(tuple(appended), tuple(left_out), tuple(merge.renumbered), tuple(changed))


def _identity(entry: LedgerEntry) -> bytes:
    """Return what two copies of one entry share, whatever numbers they give."""
    body = {key: value for key, value in entry.body.items() if key not in _NUMBERS}
    about = (entry.kind, entry.at, entry.author, entry.place, body)
    return msgspec.json.encode(about, order="sorted")


def _subject(entry: LedgerEntry) -> bytes:
    """Return what tells a decision from all others: what it is about, when, where, and by whom."""
    about = [entry.body.get(key) for key in _SUBJECTS]
    made = (entry.kind, entry.at, entry.author, entry.place, about)
    return msgspec.json.encode(made)


class _Merge:
    """What stands so far."""

    def __init__(self, theirs: Sequence[LedgerEntry]) -> None:
        self.known = {_identity(entry) for entry in theirs}
        self.renumbered: list[Renumbered] = []
        self._numbers: dict[tuple[str, str], int] = {}  # by model and digest
        self._moved: dict[tuple[str, int], int] = {}  # from our number to the one that counts
        self._aliases = decisions.aliases(theirs)
        self._placed = {
            (item.entry.kind, item.decision.deployment_id) for item in decisions.placed(theirs)
        }
        self._models: dict[str, str] = {}  # of the deployments
        for _, version in decisions.versions(theirs):
            self._numbers.setdefault((version.model, version.digest), version.version)
        for item in decisions.placed(theirs):
            self._models[item.decision.deployment_id] = item.decision.model

    def body_of(self, entry: LedgerEntry) -> dict[str, Any] | None:
        """Return what an entry of ours is to say; ``None`` when it says nothing new."""
        for _, version in decisions.versions([entry]):
            return self._version(entry.body, version)
        for _, alias in decisions.moved([entry]):
            return self._alias(entry.body, alias)
        for item in decisions.placed([entry]):
            return self._placing(entry, item.decision)
        return entry.body  # of a kind that a newer nbmlops knows

    def _version(self, body: dict[str, Any], version: ModelVersion) -> dict[str, Any] | None:
        if (version.model, version.digest) in self._numbers:
            return None
        taken = {number for (model, _), number in self._numbers.items() if model == version.model}
        number = max(taken) + 1 if version.version in taken else version.version
        self._renumber(version, number, already=False)
        return {**body, "version": number}

    def _alias(self, body: dict[str, Any], alias: AliasDecision) -> dict[str, Any] | None:
        number = self._number(alias.model, alias.version, alias.version_digest)
        named = self._aliases.get(alias.model, {}).get(alias.alias)
        if (named == number) is not alias.removed:
            return None  # it stands already, or somebody has moved it on
        moved_from = None if alias.removed else named
        return {**body, "version": number, "moved_from": moved_from}

    def _placing(self, entry: LedgerEntry, decision: DeploymentDecision) -> dict[str, Any] | None:
        if (entry.kind, decision.deployment_id) in self._placed:
            return None
        body = {
            **entry.body,
            "version": self._number(decision.model, decision.version, decision.version_digest),
        }
        left = decision.rolled_back_from
        if left is not None:
            # An endpoint can have served another model before.
            of = self._models.get(decision.replaces or "", decision.model)
            body["rolled_back_from"] = self._moved.get((of, left), left)
        return body

    def _number(self, model: str, number: int, digest: str) -> int:
        moved = self._moved.get((model, number), number)
        return self._numbers.get((model, digest), moved)

    def _renumber(self, version: ModelVersion, number: int, *, already: bool) -> None:
        self._moved[version.model, version.version] = number
        if number != version.version:
            self.renumbered.append(
                Renumbered(
                    model=version.model,
                    was=version.version,
                    version=number,
                    digest=version.digest,
                    already=already,
                )
            )

    def follow(self, entry: LedgerEntry) -> None:
        """Take note of a version that is left out: what names it means the one that is there."""
        for _, version in decisions.versions([entry]):
            there = self._numbers.get((version.model, version.digest))
            if there is not None:
                self._renumber(version, there, already=True)

    def take(self, entry: LedgerEntry) -> None:
        """Let an entry stand."""
        for _, version in decisions.versions([entry]):
            self._numbers[version.model, version.digest] = version.version
        for _, alias in decisions.moved([entry]):
            standing = self._aliases.setdefault(alias.model, {})
            if alias.removed:
                standing.pop(alias.alias, None)
            else:
                standing[alias.alias] = alias.version
        for item in decisions.placed([entry]):
            self._placed.add((item.entry.kind, item.decision.deployment_id))
            self._models[item.decision.deployment_id] = item.decision.model
