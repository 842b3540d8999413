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
        When others keep pushing first; or the remote has other versions under numbers that were
        pushed to another one.
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
        remote, ref = self._remote, ledger.remote_ref(self._remote.name)
        before = self._repo.resolve(ref)
        head = there.get(layout.LEDGER_REF)
        if head is None:
            if before is not None:
                self._workspace.warn(f"warning: {remote.name} has lost its ledger; it gets ours")
            return None
        if head != before:
            transport.fetch(remote, {layout.LEDGER_REF: head})
            if self._goes_on(head, before):
                # What is remembered is what was good, and only ever goes forwards.
                self._repo.run("update-ref", ref, head, before or "")
        if self._sent is not None:
            sent, entries = self._sent
            if ledger.descends(self._repo, head, sent):  # it arrived; its answer did not
                self._pushed.extend(entries)
                self._sent = None
        return head

    def _goes_on(self, head: str, before: str | None) -> bool:
        """Return whether a ledger goes on from where it was seen; ``False`` if it lost its end.

        A remote that was restored from a backup has the beginning of what it had.

        Raises
        ------
        LedgerDamaged
            When it is neither, or not whole, or would have a snapshot be another one.
        """
        remote, repo = self._remote, self._repo
        forwards = before is None or ledger.descends(repo, head, before)
        if before and not forwards and not ledger.descends(repo, before, head):
            ref = ledger.remote_ref(remote.name)
            base = ledger.common(repo, head, before)
            since = f"after {base[:12]}" if base else "from its beginning"
            raise LedgerDamaged(
                f"the ledger of `{remote.name}` was rewritten {since}: it does not go on from"
                f" {before[:12]}, where it was seen last",
                "Who rewrote it? To put back what was there:"
                f" `git push --force {remote.name} {ref}:{layout.LEDGER_REF}`. If `{remote.name}`"
                f" is another place by now: `git update-ref -d {ref}`.",
            )
        for fault in ledger.faults(repo, head):
            raise LedgerDamaged(
                f"the ledger of `{remote.name}` is damaged: {fault.message}",
                "Restore it from a clone that has it whole.",
            )
        held = snapshot.held(repo)
        for version in self._named(head):
            here = held.get(version.snapshot, version.commit)
            if here != version.commit:
                raise LedgerDamaged(
                    f"{version.name} of `{remote.name}` names {version.commit[:12]} as the snapshot"
                    f" {version.snapshot}, which is {here[:12]} here: a snapshot never changes",
                    f"Compare them: `git show {version.commit[:12]}`. Where the one here is wrong:"
                    f" `git update-ref {_ref(version)} {version.commit}`.",
                )
        return forwards

    def _take_in(self, theirs: str | None) -> None:
        ours = ledger.head(self._repo)
        if theirs is not None and (ours is None or not ledger.descends(self._repo, ours, theirs)):
            done = renumbering.join(self._workspace, theirs, self._remote.name)
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
            self._repo.run("update-ref", ledger.remote_ref(self._remote.name), head)
            self._pushed.extend(entries)
            self._sent = None

    def _was_overtaken(self, theirs: str | None, error: RemoteFailed) -> bool:
        """Return whether a push failed because somebody else has pushed, or does so just now."""
        if transport.was_overtaken(error):
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
        held = snapshot.held(self._repo)
        wanted: list[ModelVersion] = []
        for version in self._named(ledger.head(self._repo)):
            commit = there.get(_ref(version))
            if commit is not None and commit != version.commit:
                self._workspace.warn(
                    f"warning: {self._remote.name} has {commit[:12]} as the snapshot of"
                    f" {version.name}, which is {version.commit[:12]}; it is left there"
                )
            elif commit is not None and version.snapshot not in held:
                wanted.append(version)
        if wanted:
            self._workspace.say(f"fetching snapshots: {len(wanted)}")
            transport.fetch(self._remote, {_ref(one): one.commit for one in wanted})
            # One that was made meanwhile is not moved: all of them are made, or none.
            made = "".join(f"create {_ref(one)} {one.commit}\n" for one in wanted)
            self._repo.run("update-ref", "--stdin", stdin=made.encode())
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
