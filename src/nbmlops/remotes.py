"""The git remote: what was decided here and elsewhere becomes one ledger, with what it names.

``sync`` fetches, lets our decisions that nobody has yet come after those that are there, and pushes
without force: the remote takes a ledger only if it goes on from its own. Of two who push at once
the second starts again from what the first has pushed.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Mapping

from nbmlops import (
    catalog,
    decisions,
    following,
    layout,
    ledger,
    rebuilding,
    renumbering,
    rules,
    snapshot,
    transport,
)
from nbmlops.errors import Conflict, LedgerDamaged, RemoteFailed, SecretLeaving
from nbmlops.records import (
    Decision,
    LedgerEntry,
    ModelVersion,
    Renumbered,
    SyncedSnapshots,
    SyncReport,
)
from nbmlops.transport import Remote
from nbmlops.workspace import Workspace

_LOCK = "sync"
_TRIES = 30
_LONGEST_PAUSE_S = 2.0
_COMMIT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")


def sync(workspace: Workspace, name: str = "origin") -> SyncReport:
    """Bring the ledger and the snapshots that it names to a git remote, and what it has here.

    Raises
    ------
    NoRemote, InvalidName
        When there is no such remote.
    RemoteFailed
        When it cannot be reached, or refuses; with its own words.
    SecretLeaving
        When a snapshot that would go holds a secret; nothing has been pushed then.
    LedgerDamaged
        When the remote's ledger was rewritten, or cannot be read.
    Conflict
        When others keep pushing first.
    """
    remote = transport.find(workspace.repo, name)
    with workspace.exclusively(_LOCK):
        following.settle(workspace)
        return _Sync(workspace, remote).run()


class _Sync:
    """One ``sync``: what it has done so far, over all its tries."""

    def __init__(self, workspace: Workspace, remote: Remote) -> None:
        self._workspace = workspace
        self._repo = workspace.repo
        self._remote = remote
        self._fetched: list[LedgerEntry] = []
        self._pushed: list[LedgerEntry] = []
        self._left_out: list[LedgerEntry] = []
        self._renumbered: list[Renumbered] = []
        self._sent: tuple[str, list[LedgerEntry]] | None = None
        self._passed: dict[str, str] = {}  # snapshots that hold no secret, with their commits
        self._snapshots_pushed: dict[str, None] = {}
        self._snapshots_fetched: dict[str, None] = {}

    def run(self) -> SyncReport:
        for number in range(_TRIES):
            self._workspace.say(f"fetching from {self._remote.name}")
            there = transport.look(self._remote)
            theirs = self._fetch(there)
            self._refuse_secrets(there, ledger.head(self._repo))
            self._take_in(theirs)
            self._fetch_snapshots(there)
            try:
                self._push(there, theirs)
                return self._report(there)
            except RemoteFailed as error:
                if not self._was_overtaken(theirs, error):
                    raise
            # Of two who go on in step the same one would lose each time.
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.1 * 2**number)))  # noqa: S311
        raise Conflict(
            f"others push to `{self._remote.name}` without a pause", "Try again in a moment."
        )

    # --- the ledger ---------------------------------------------------------------------------

    def _fetch(self, there: Mapping[str, str]) -> str | None:
        """Return the head of the remote's ledger, which is here now, and whole."""
        remote, ref = self._remote, self._remote.ledger_ref
        before = self._repo.resolve(ref)
        if layout.LEDGER_REF not in there:
            if before is not None:
                self._workspace.warn(f"warning: {remote.name} has lost its ledger; it gets ours")
            return None
        if there[layout.LEDGER_REF] != before:
            try:
                transport.fetch(remote, [(layout.LEDGER_REF, ref)])
            except RemoteFailed as error:
                if before is None or "non-fast-forward" not in error.message:
                    raise
                raise LedgerDamaged(
                    f"the ledger of `{remote.name}` does not go on from {before[:12]}, where it was"
                    " seen last: somebody has rewritten it",
                    "Who rewrote it? To put back what was there:"
                    f" `git push --force {remote.name} {ref}:{layout.LEDGER_REF}`.",
                ) from error
        head = self._repo.resolve(ref)
        if head is not None and head != before:
            faults = ledger.faults(self._repo, head)
            if faults:
                words = ("update-ref", ref, before) if before else ("update-ref", "-d", ref)
                self._repo.run(*words)  # what is remembered is what was good
                raise LedgerDamaged(
                    f"the ledger of `{remote.name}` is damaged: {faults[0].message}",
                    "Restore it from a clone that has it whole.",
                )
        if self._sent is not None and head is not None:
            sent, entries = self._sent
            if ledger.descends(self._repo, head, sent):  # it arrived; its answer did not
                self._pushed.extend(entries)
                self._sent = None
        return head

    def _take_in(self, theirs: str | None) -> None:
        ours = ledger.head(self._repo)
        if theirs is not None and (ours is None or not ledger.descends(self._repo, ours, theirs)):
            done = renumbering.join(self._workspace, theirs)
            self._fetched.extend(done.fetched)
            self._left_out.extend(done.left_out)
            self._renumbered.extend(done.renumbered)
            for item in done.renumbered:
                why = "is there already as" if item.already else "was taken; it is"
                self._workspace.warn(f"{item.model}:{item.was} {why} {item.model}:{item.version}")
        entries = list(ledger.entries(self._repo))
        for item in rebuilding.of_models(self._workspace, entries):
            item.mend()
        decisions.witness(self._workspace)

    def _push(self, there: Mapping[str, str], theirs: str | None) -> None:
        head = ledger.head(self._repo)
        if head is None:
            return
        self._refuse_secrets(there, head)  # what was registered meanwhile
        going = self._going(there, head)
        if going:
            # First, so that no entry on the remote names what is not there yet.
            self._workspace.say(f"pushing snapshots: {len(going)}")
            transport.push(self._remote, ((one.commit, _ref(one)) for one in going))
            self._snapshots_pushed.update(dict.fromkeys(one.snapshot for one in going))
        if head != theirs:
            known = _count(self._repo, theirs)
            entries = [e for e in ledger.entries_of(self._repo, head) if e.sequence > known]
            self._workspace.say(f"pushing decisions: {len(entries)}")
            self._sent = head, entries
            transport.push(self._remote, [(head, layout.LEDGER_REF)])
            self._repo.run("update-ref", self._remote.ledger_ref, head)
            self._pushed.extend(entries)
            self._sent = None

    def _was_overtaken(self, theirs: str | None, error: RemoteFailed) -> bool:
        """Return whether a push failed because somebody else has pushed, or does so just now."""
        if "[rejected]" in error.message or "lock" in error.message:
            return True
        try:
            return transport.look(self._remote).get(layout.LEDGER_REF) != theirs
        except RemoteFailed:
            return False

    # --- snapshots ----------------------------------------------------------------------------

    def _named(self, head: str | None) -> list[ModelVersion]:
        """Return versions with the snapshots that a ledger names, each once.

        The words of a ledger are others': what is no id and no commit gets nowhere near git.
        """
        entries = ledger.entries_of(self._repo, head) if head else ()
        return list(
            {
                version.snapshot: version
                for _, version in decisions.versions(entries)
                if layout.is_id(version.snapshot) and _COMMIT.fullmatch(version.commit)
            }.values()
        )

    def _going(self, there: Mapping[str, str], head: str | None) -> list[ModelVersion]:
        """Return versions with the snapshots that the remote lacks and we have."""
        return [
            version
            for version in self._named(head)
            if _ref(version) not in there and snapshot.exists(self._repo, version.commit)
        ]

    def _refuse_secrets(self, there: Mapping[str, str], head: str | None) -> None:
        for version in self._going(there, head):
            if version.snapshot in self._passed:
                continue
            files = transport.leaving(
                self._remote, version.commit, there.values(), self._passed.values()
            )
            for found in rules.leaving(self._workspace, files):
                where = found.path if found.cell is None else f"{found.path}, cell {found.cell}"
                told = f"{where}: {found.message} [{found.code}]"
                if found.level != "block":
                    self._workspace.warn(
                        f"warning: the snapshot {version.snapshot} goes with {told}"
                    )
                    continue
                raise SecretLeaving(
                    f"nothing was pushed: the snapshot {version.snapshot} of {version.name} holds"
                    f" a secret, {told}",
                    "Renew the secret. Once the old one is worth nothing, let it pass:"
                    f' `{found.code} = "warn"` in [rules] of {layout.SETTINGS_FILE}.',
                    snapshot=version.snapshot,
                    version=version.name,
                    path=found.path,
                    cell=found.cell,
                    line=found.line,
                )
            self._passed[version.snapshot] = version.commit

    def _fetch_snapshots(self, there: Mapping[str, str]) -> None:
        wanted = [
            version
            for version in self._named(ledger.head(self._repo))
            if there.get(_ref(version)) == version.commit
            and not snapshot.is_held(self._repo, version.snapshot, version.commit)
        ]
        if wanted:
            self._workspace.say(f"fetching snapshots: {len(wanted)}")
            transport.fetch(self._remote, ((_ref(one), _ref(one)) for one in wanted))
            self._snapshots_fetched.update(dict.fromkeys(one.snapshot for one in wanted))

    # --- what is told -------------------------------------------------------------------------

    def _report(self, there: Mapping[str, str]) -> SyncReport:
        missing = [
            version.snapshot
            for version in self._named(ledger.head(self._repo))
            if _ref(version) not in there and not snapshot.exists(self._repo, version.commit)
        ]
        return SyncReport(
            remote=self._remote.name,
            url=self._remote.url,
            pushed=_told(self._pushed),
            fetched=_told(self._fetched),
            renumbered=tuple(self._renumbered),
            left_out=_told(self._left_out),
            snapshots=SyncedSnapshots(
                pushed=tuple(self._snapshots_pushed),
                fetched=tuple(self._snapshots_fetched),
                missing=tuple(missing),
            ),
            head=ledger.head(self._repo),
        )


def _ref(version: ModelVersion) -> str:
    return f"{layout.SNAPSHOT_REFS}/{layout.checked_job(version.snapshot)}"


def _count(repo: snapshot.Repository, commit: str | None) -> int:
    """Return the last sequence of a ledger."""
    if commit is None:
        return 0
    return max((entry.sequence for entry in ledger.entries_of(repo, commit)), default=0)


def _told(entries: Iterable[LedgerEntry]) -> tuple[Decision, ...]:
    found = (catalog.decision(entry) for entry in entries)
    return tuple(decision for decision in found if decision is not None)
