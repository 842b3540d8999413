"""The ledger: what was decided, for ever, as an append-only chain of commits.

Each commit under ``refs/nbmlops/ledger`` adds one small JSON entry, in a folder for its month.
The ref moves by compare-and-swap: of two people who append at once both land, one after the other.
"""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nbmlops import layout, records
from nbmlops.errors import Conflict, GitFailed
from nbmlops.records import LedgerEntry
from nbmlops.repository import Repository

_TRIES = 100
_LOCKED_TRIES = 10
_PAUSE_MS = 160
_NAME = re.compile(r"(\d{4}-\d{2})/(\d{8,})\.json")


class Fault(NamedTuple):
    """Something that no append leaves behind; ``good`` is the last commit before it."""

    code: str
    message: str
    good: str | None = None


class _File(NamedTuple):
    """A file of the ledger: the sequence that its name tells, and its bytes if they are there."""

    path: str
    sequence: int | None
    content: bytes | None


def head(repo: Repository) -> str | None:
    """Return the newest commit of the ledger, or ``None`` while it is empty."""
    return repo.resolve(layout.LEDGER_REF)


def entries(repo: Repository) -> Iterator[LedgerEntry]:
    """Yield all entries, oldest first."""
    commit = head(repo)
    return iter(()) if commit is None else entries_of(repo, commit)


def entries_of(repo: Repository, commit: str) -> Iterator[LedgerEntry]:
    """Yield the entries of a ledger as it stood, or stands elsewhere, oldest first."""
    try:
        return iter(_whole(repo, commit))
    except _NotWhole as damaged:
        return iter(damaged.readable)


class _NotWhole(Exception):
    """Some entries cannot be read; they may be there again tomorrow."""

    def __init__(self, readable: tuple[LedgerEntry, ...]) -> None:
        super().__init__()
        self.readable = readable


@functools.lru_cache(4)
def _whole(repo: Repository, commit: str) -> tuple[LedgerEntry, ...]:
    """Return the entries of a commit, which never change, or raise what cannot be kept."""
    files = _files(repo, commit)
    found = [entry for file in files if (entry := _read(file)) is not None]
    entries = tuple(sorted(found, key=lambda entry: entry.sequence))
    if len(found) < len(files):
        raise _NotWhole(entries)
    return entries


def remote_heads(repo: Repository) -> dict[str, str] | None:
    """Return the ledgers of git remotes as they were seen last; ``None`` without any remote.

    What was seen of a remote that has another name by now, or is gone, does not count.
    """
    names = {remote_ref(name): name for name in repo.text("remote").splitlines()}
    if not names:
        return None
    listed = repo.text("for-each-ref", "--format=%(objectname) %(refname)", *names)
    found = (line.split(" ", 1) for line in listed.splitlines())
    return {names[ref]: commit for commit, ref in found if ref in names}


def remote_ref(name: str) -> str:
    """Return the ref under which the ledger of a git remote is remembered here."""
    return f"{layout.REMOTE_REFS}/{name}/ledger"


def _read(file: _File) -> LedgerEntry | None:
    """Return what a file says, or ``None`` for one that is none of ours or was damaged."""
    if file.content is None:
        return None
    with contextlib.suppress(msgspec.ValidationError, msgspec.DecodeError):
        return records.load(file.content, LedgerEntry)
    return None


def _files(repo: Repository, commit: str) -> list[_File]:
    listed = repo.run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")
    files = sorted(
        (line.split(b"\t", 1)[1].decode(errors="replace"), line.split(b"\t", 1)[0].split(b" ")[2])
        for line in listed
        if line
    )
    contents = _contents(repo, [blob.decode() for _, blob in files])
    return [
        _File(path, int(named[2]) if (named := _NAME.fullmatch(path)) else None, content)
        for (path, _), content in zip(files, contents, strict=True)
    ]


def _contents(repo: Repository, blobs: list[str]) -> list[bytes | None]:
    """Return the bytes of many blobs; ``None`` for one that is gone or damaged."""
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    try:
        output = repo.run("cat-file", "--batch", stdin=asked)
    except GitFailed:  # it stops at the first that is damaged
        return [_content(repo, blob) for blob in blobs]
    found: list[bytes | None] = []
    place = 0
    for _ in blobs:
        end = output.index(b"\n", place)
        words = output[place:end].split()
        place = end + 1
        if words[1] == b"missing":
            found.append(None)
            continue
        size = int(words[2])
        found.append(output[place : place + size])
        place += size + 1
    return found


def _content(repo: Repository, blob: str) -> bytes | None:
    try:
        return repo.run("cat-file", "blob", blob)
    except GitFailed:
        return None


def append(
    repo: Repository,
    kind: str,
    make: Callable[[list[LedgerEntry]], dict[str, Any] | LedgerEntry],
    now: datetime,
    place: str | None = None,
) -> LedgerEntry:
    """Add one entry; ``make`` gets all earlier ones and returns the body.

    When ``make`` returns an entry instead, the decision stands in the ledger already, and that
    entry is the answer: so the same decision is recorded once, however often it is sent.

    Raises
    ------
    Conflict
        When others kept appending first for a hundred times.
    GitFailed
        When git cannot write, or the ref stays locked.
    """
    locked = 0
    for number in range(_TRIES):
        before = head(repo)
        files = _files(repo, before) if before else []
        read = (entry for file in files if (entry := _read(file)) is not None)
        earlier = sorted(read, key=lambda entry: entry.sequence)
        made = make(earlier)
        if isinstance(made, LedgerEntry):
            return made
        # By the names of the files: an entry that cannot be read has its number all the same.
        taken = [file.sequence for file in files if file.sequence is not None]
        entry = records.load(
            records.dump(
                {
                    "sequence": max(taken, default=0) + 1,
                    "kind": kind,
                    "at": now,
                    "author": repo.author(),
                    "place": place,
                    "body": made,
                }
            ),
            LedgerEntry,
        )
        try:
            if move(repo, appended(repo, before, entry), before):
                return entry
        except GitFailed as error:
            # Somebody else moves the ref just now, or was killed while doing so.
            locked += 1
            if ".lock" not in error.message or locked == _LOCKED_TRIES:
                raise
        # Of two who go on in step the same one would lose each time.
        time.sleep(secrets.randbelow(min(_PAUSE_MS, 10 << min(number, 8))) / 1000)
    raise Conflict("others are writing to the ledger without a pause", "Try again in a moment.")


def appended(repo: Repository, before: str | None, entry: LedgerEntry) -> str:
    """Return a commit that adds an entry to the ledger of ``before``; no ref leads to it yet."""
    blob = repo.run("hash-object", "-w", "--stdin", stdin=records.dump(entry) + b"\n")
    month = f"{entry.at:%Y-%m}"
    tree = _tree_with(repo, before, month, f"{entry.sequence:08d}.json", blob.decode().strip())
    parents = ("-p", before) if before else ()
    commit = repo.run(
        "commit-tree",
        tree,
        *parents,
        stdin=f"{entry.kind} {entry.sequence}\n".encode(),
        environment=repo.identity(),
    )
    return commit.decode().strip()


def move(repo: Repository, commit: str, before: str | None) -> bool:
    """Let the ledger's ref lead to a commit, unless it does not lead to ``before`` any more.

    Raises
    ------
    GitFailed
        When git cannot write the ref, or somebody else has it locked.
    """
    try:
        repo.run("update-ref", layout.LEDGER_REF, commit, before or "")  # empty: there is none
    except GitFailed:
        if head(repo) == before:
            raise
        return False
    return True


def common(repo: Repository, one: str, other: str) -> str | None:
    """Return the last commit that two ledgers share, or ``None`` when they have none."""
    try:
        return repo.text("merge-base", one, other)
    except GitFailed:
        return None


def _tree_with(repo: Repository, before: str | None, month: str, name: str, blob: str) -> str:
    """Return a tree like that of ``before`` with one more file; only two small trees are made."""
    months = _tree(repo, before) if before else {}
    inner = _tree(repo, f"{before}:{month}") if month.encode() in months else {}
    inner[name.encode()] = f"100644 blob {blob}".encode()
    months[month.encode()] = b"040000 tree " + _make_tree(repo, inner).encode()
    return _make_tree(repo, months)


def _tree(repo: Repository, treeish: str) -> dict[bytes, bytes]:
    lines = repo.run("ls-tree", "-z", treeish).split(b"\0")
    return {line.split(b"\t", 1)[1]: line.split(b"\t", 1)[0] for line in lines if line}


def _make_tree(repo: Repository, entries: dict[bytes, bytes]) -> str:
    lines = b"".join(meta + b"\t" + name + b"\0" for name, meta in sorted(entries.items()))
    return repo.run("mktree", "-z", stdin=lines).decode().strip()


# --- looking for what no append leaves behind ---------------------------------------------------


def lock_file(repo: Repository) -> Path:
    """Return the file by which git locks the ledger's ref; one that stays was left by a kill."""
    return repo.common_dir / f"{layout.LEDGER_REF}.lock"


def descends(repo: Repository, commit: str, earlier: str) -> bool:
    """Return whether ``commit`` is ``earlier``, or was appended to it."""
    try:
        repo.run("merge-base", "--is-ancestor", earlier, commit)
    except GitFailed:
        return False
    return True


def faults(repo: Repository, commit: str | None = None) -> list[Fault]:
    """Return what is wrong with the ledger, or another of that head, in itself.

    Entries that cannot be read, numbers that are missing or given twice, and commits of the chain
    that did anything but add one entry.
    """
    commit = commit or head(repo)
    if commit is None:
        return []
    try:
        return [*_faults_of_files(repo, commit), *_faults_of_chain(repo, commit)]
    except GitFailed as error:
        return [Fault("ledger-unreadable", f"the ledger cannot be read: {error.message}")]


def _faults_of_files(repo: Repository, commit: str) -> Iterator[Fault]:
    numbers: dict[int, str] = {}
    for file in _files(repo, commit):
        entry = _read(file)
        if file.sequence is None:
            yield Fault("ledger-unreadable", f"{file.path[:80]} in the ledger is no entry")
            continue
        if entry is None:
            what = "is gone or damaged" if file.content is None else "cannot be read"
            yield Fault("ledger-unreadable", f"entry {file.sequence} of the ledger {what}")
        elif (f"{entry.at:%Y-%m}", entry.sequence) != (file.path[:7], file.sequence):
            yield Fault(
                "ledger-changed",
                f"entry {file.sequence} of the ledger says that it is {entry.sequence}"
                f" of {entry.at:%Y-%m}",
            )
        if file.sequence in numbers:
            yield Fault("ledger-doubled", f"the ledger has two entries {file.sequence}")
        numbers[file.sequence] = file.path
    for number in sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers)):
        yield Fault("ledger-gap", f"entry {number} of the ledger is missing")


def _faults_of_chain(repo: Repository, commit: str) -> Iterator[Fault]:
    listed = repo.run("rev-list", "--reverse", "--topo-order", "--parents", commit)
    chain = [line.split() for line in listed.decode().splitlines()]
    parents = {commit: before for commit, *before in chain}
    output = repo.run(
        "diff-tree", "--stdin", "-r", "--root", "--no-renames", "--always",
        stdin="".join(f"{one}\n" for one in parents).encode(),
    ).decode(errors="replace")  # fmt: skip
    changes: dict[str, list[list[str]]] = {one: [] for one in parents}
    current = ""
    for line in output.splitlines():
        if line.startswith(":"):
            changes[current].append(line.removeprefix(":").split(maxsplit=5))
        else:
            current = line.split()[0]
    for number, (one, before) in enumerate(parents.items(), 1):
        good = before[0] if before else None
        if len(before) > 1:
            yield Fault("ledger-changed", f"commit {one[:12]} of the ledger joins two", good)
        elif (said := _not_an_append(changes[one], number)) is not None:
            yield Fault("ledger-changed", f"commit {one[:12]} of the ledger {said}", good)


def _not_an_append(changes: list[list[str]], number: int) -> str | None:
    """Return what a commit did besides adding the entry of its place in the chain."""
    added: list[str] = []
    for _, mode, _, _, how, path in changes:
        if how != "A" or mode != "100644":
            return f"{'removes' if how == 'D' else 'changes'} {path[:80]}"
        added.append(path)
    named = [found for path in added if (found := _NAME.fullmatch(path))]
    if len(added) != 1 or len(named) != 1:
        return f"adds {len(added)} files instead of one entry"
    if int(named[0][2]) != number:
        return f"adds entry {int(named[0][2])} in place of {number}"
    return None
