"""The ledger: what was decided, for ever, as an append-only chain of commits.

Each commit under ``refs/nbmlops/ledger`` adds one small JSON entry, in a folder for its month.
The ref moves by compare-and-swap: of two people who append at once both land, one after the other.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from nbmlops import layout, records
from nbmlops.errors import Conflict, GitFailed
from nbmlops.records import LedgerEntry
from nbmlops.repository import Repository

_TRIES = 20


def head(repo: Repository) -> str | None:
    """Return the newest commit of the ledger, or ``None`` while it is empty."""
    return repo.resolve(layout.LEDGER_REF)


def entries(repo: Repository) -> Iterator[LedgerEntry]:
    """Yield all entries, oldest first."""
    commit = head(repo)
    return iter(()) if commit is None else _entries_of(repo, commit)


def _entries_of(repo: Repository, commit: str) -> Iterator[LedgerEntry]:
    listed = repo.run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")
    files = sorted(
        (line.split(b"\t", 1)[1], line.split(b"\t", 1)[0].split(b" ")[2]) for line in listed if line
    )
    stream = io.BytesIO(
        repo.run("cat-file", "--batch", stdin=b"".join(blob + b"\n" for _, blob in files))
    )
    found: list[LedgerEntry] = []
    for _ in files:
        size = int(stream.readline().split()[2])
        with contextlib.suppress(msgspec.ValidationError, msgspec.DecodeError):
            found.append(records.load(stream.read(size), LedgerEntry))
        stream.read(1)
    return iter(sorted(found, key=lambda entry: entry.sequence))


def append(
    repo: Repository,
    kind: str,
    make: Callable[[list[LedgerEntry]], dict[str, Any] | LedgerEntry],
    now: datetime,
) -> LedgerEntry:
    """Add one entry; ``make`` gets all earlier ones and returns the body.

    When ``make`` returns an entry instead, the decision stands in the ledger already, and that
    entry is the answer: so the same decision is recorded once, however often it is sent.

    Raises
    ------
    Conflict
        When others kept appending first for twenty times.
    """
    for _ in range(_TRIES):
        before = head(repo)
        earlier = list(_entries_of(repo, before)) if before else []
        made = make(earlier)
        if isinstance(made, LedgerEntry):
            return made
        entry = records.load(
            records.dump(
                {
                    "sequence": earlier[-1].sequence + 1 if earlier else 1,
                    "kind": kind,
                    "at": now,
                    "author": repo.author(),
                    "body": made,
                }
            ),
            LedgerEntry,
        )
        if _try(repo, before, entry):
            return entry
    raise Conflict("others are writing to the ledger without a pause", "Try again in a moment.")


def _try(repo: Repository, before: str | None, entry: LedgerEntry) -> bool:
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
    try:
        repo.run("update-ref", layout.LEDGER_REF, commit.decode().strip(), before or "0" * 40)
    except GitFailed:
        if head(repo) == before:
            raise
        return False
    return True


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
