"""Snapshots: the work tree as a commit, without touching what is the user's.

A private copy of the index takes every tracked and untracked-not-ignored file; notebooks are
stored without outputs and execution counts. HEAD, branch, index, stash and hooks stay as they
were. The commit is held by a ref of its own, so that no garbage collection takes it.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nbmlops import layout, repository, stripping
from nbmlops.errors import GitFailed, SnapshotRefused
from nbmlops.records import Snapshot
from nbmlops.repository import Repository

_STRIPPED_FILE = "notebooks.json"
_TRIES = 3
# How entries of `ls-files -v --stage` begin that are files or links, and that git looks at.
_PLAIN = (b"H 100", b"H 120")


def take(
    repo: Repository,
    scratch: Path,
    now: datetime,
    *,
    untracked_limit_mib: int = 10,
) -> Snapshot:
    """Capture the work tree as a commit that no ref holds yet (see :func:`hold`).

    The work tree is gone through once: git names what differs from the index, and only that is
    written into the private copy.

    Raises
    ------
    SnapshotRefused
        When a merge is in progress, a repository is inside this one, or an untracked file is
        larger than the limit, unreadable, or neither a file nor a link; the message names the
        files. Also when files come and go without a pause.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    vanished: list[str] = []
    for _ in range(_TRIES):
        try:
            return _taken(repo, scratch, now, untracked_limit_mib)
        except _Vanished as error:  # editors save by a file that they rename
            vanished = error.names
    raise SnapshotRefused(
        f"files come and go while the snapshot is taken: {', '.join(vanished[:5])}",
        "Wait until whatever writes them has ended; or add them to .gitignore.",
        files=vanished,
    )


class _Vanished(Exception):
    """Files that were listed are not there any more."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(*names)
        self.names = names


def _taken(repo: Repository, scratch: Path, now: datetime, untracked_limit_mib: int) -> Snapshot:
    index = scratch / f"index-{os.getpid()}-{layout.new_id('s')}"
    try:
        own = repo.git_dir / "index"
        if own.exists():
            shutil.copy2(own, index)
        environment = {"GIT_INDEX_FILE": str(index)}
        with ThreadPoolExecutor(3) as at_once:
            head = at_once.submit(_head, repo)
            differing = at_once.submit(_differing, repo, environment)
            untracked = at_once.submit(_untracked, repo, environment)
            known = _Index.of(repo, environment)
        known.refuse(repo)
        if known.look_at_all(repo, environment):
            changed, gone = _differing(repo, environment)
        else:
            changed, gone = differing.result()
        _refuse_untracked(repo, untracked.result(), changed, untracked_limit_mib)
        there = [*changed, *untracked.result()]
        known.forget([*gone, *there])
        memory = stripping.Memory(scratch.parent / _STRIPPED_FILE)
        try:
            entries = stripping.of_files(repo, there, memory)
            _write(repo, environment, [name for name in there if name not in entries], gone)
        except (GitFailed, FileNotFoundError):
            names = [os.fsdecode(name) for name in there]
            if vanished := [name for name in names if not os.path.lexists(repo.top / name)]:
                raise _Vanished(vanished) from None
            raise
        entries |= stripping.of_blobs(repo, known.notebooks, memory)
        _enter(repo, environment, entries)
        memory.keep()
        tree = repo.text("write-tree", environment=environment)
    finally:
        index.unlink(missing_ok=True)
        index.with_name(index.name + ".lock").unlink(missing_ok=True)
    return _commit(repo, tree, head.result(), now)


@dataclass(frozen=True, slots=True)
class _Index:
    """What of the index needs a closer look; of its other entries nothing is kept."""

    unmerged: tuple[str, ...]
    assumed: tuple[bytes, ...]
    skipped: tuple[bytes, ...]
    repositories: tuple[str, ...]
    notebooks: dict[bytes, tuple[str, str]]  # name -> mode, blob

    @classmethod
    def of(cls, repo: Repository, environment: dict[str, str]) -> _Index:
        """Read the index; a flag in front of each entry says how git looks at it."""
        listed = repo.run("ls-files", "-v", "--stage", "-z", "--", ":/", environment=environment)
        unmerged: set[str] = set()
        assumed: list[bytes] = []
        skipped: list[bytes] = []
        repositories: list[str] = []
        entries = listed.split(b"\0")[:-1]
        for entry in [entry for entry in entries if not entry.startswith(_PLAIN)]:
            flag, (meta, name) = entry[:1], entry.split(b"\t", 1)
            if flag == b"M":
                unmerged.add(os.fsdecode(name))
            if flag in (b"h", b"s"):
                assumed.append(name)
            if flag in (b"S", b"s"):
                skipped.append(name)
            if meta[2:8] == b"160000":
                repositories.append(os.fsdecode(name))
        notebooks: dict[bytes, tuple[str, str]] = {}
        for entry in [entry for entry in entries if entry.endswith(b".ipynb")]:
            meta, name = entry.split(b"\t", 1)
            _, mode, blob_id, _ = meta.decode().split(" ")
            notebooks[name] = mode, blob_id
        return cls(
            tuple(sorted(unmerged)), tuple(assumed), tuple(skipped), tuple(repositories), notebooks
        )

    def refuse(self, repo: Repository) -> None:
        """Refuse what a commit cannot hold."""
        if self.unmerged:
            raise SnapshotRefused(
                f"a merge is in progress; unmerged: {', '.join(self.unmerged[:10])}",
                "Finish it (`git status` shows how), or give it up: `git merge --abort`.",
                files=list(self.unmerged),
            )
        inside = [
            name
            for name in self.repositories
            if (folder := repo.top / name).is_dir() and any(folder.iterdir())
        ]
        if inside:
            raise _repositories_inside(inside)

    def forget(self, names: list[bytes]) -> None:
        """Forget notebooks that are gone, or others than the index says."""
        for name in names:
            self.notebooks.pop(name, None)

    def look_at_all(self, repo: Repository, environment: dict[str, str]) -> bool:
        """Take back, in the private index, the user's leave not to look at some files.

        Returns whether there were any.
        """
        there = [name for name in self.skipped if os.path.lexists(repo.top / os.fsdecode(name))]
        for option, names in (
            ("--no-assume-unchanged", self.assumed),
            ("--no-skip-worktree", there),
        ):
            if names:
                listed = b"".join(name + b"\0" for name in names)
                repo.run(
                    *("update-index", option, "-z", "--stdin"),
                    stdin=listed,
                    environment=environment,
                )
        return bool(self.assumed or there)


def _repositories_inside(names: list[str]) -> SnapshotRefused:
    return SnapshotRefused(
        f"repositories inside this one are not part of a commit: {', '.join(names[:5])}",
        f"Copy what you need of it into this one, or ignore it: `echo '/{names[0]}/' >>"
        " .gitignore`.",
        files=names,
    )


def _differing(repo: Repository, environment: dict[str, str]) -> tuple[list[bytes], list[bytes]]:
    """Return the files that differ from the index, and those that are gone.

    A file whose place a folder or a link to a folder has taken is gone too.
    """
    listed = repo.run("diff-files", "--name-status", "-z", environment=environment).split(b"\0")
    pairs = list(zip(listed[::2], listed[1::2], strict=False))
    return (
        [name for status, name in pairs if status != b"D"],
        [name for status, name in pairs if status == b"D"],
    )


def _untracked(repo: Repository, environment: dict[str, str]) -> list[bytes]:
    """Return the files that are neither in the index nor ignored."""
    listed = repo.run(
        *("ls-files", "--others", "--exclude-standard", "-z", "--", ":/"), environment=environment
    )
    return listed.split(b"\0")[:-1]


def _write(
    repo: Repository, environment: dict[str, str], there: list[bytes], gone: list[bytes]
) -> None:
    """Write the files as they are into the private index, and take out those that are gone."""
    for options, names in ((("--force-remove",), gone), (("--add", "--replace"), there)):
        if names:
            repo.run(
                *("update-index", *options, "-z", "--stdin"),
                stdin=b"".join(name + b"\0" for name in names),
                environment=environment,
            )


def _commit(
    repo: Repository, tree: str, head: tuple[str | None, str | None, str | None], now: datetime
) -> Snapshot:
    base, base_tree, branch = head
    dirty = base is None or base_tree != tree
    commit = base
    if dirty or base is None:
        parents = ("-p", base) if base else ()
        message = f"nbmlops snapshot of {branch or 'a detached HEAD'}\n".encode()
        commit = repo.commit_tree(tree, *parents, message=message)
    return Snapshot(
        id=layout.new_id("s", now.timestamp()),
        commit=str(commit),
        tree=tree,
        base_commit=base,
        dirty=dirty,
        branch=branch,
        created_at=now,
    )


def _head(repo: Repository) -> tuple[str | None, str | None, str | None]:
    """Return HEAD's commit and tree (``None`` on an unborn branch), and the branch's name."""
    asked = ("HEAD^{commit}", "HEAD^{tree}", "--symbolic-full-name", "HEAD")
    try:
        commit, tree, name = repo.text("rev-parse", *asked).split("\n")
    except GitFailed:
        try:
            return None, None, repo.text("symbolic-ref", "--quiet", "--short", "HEAD")
        except GitFailed:
            return None, None, None
    branch = name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else None
    return commit, tree, branch


def hold(repo: Repository, snapshot: Snapshot) -> None:
    """Give the snapshot its ref, so that it stays; the same again changes nothing."""
    ref = f"{layout.SNAPSHOT_REFS}/{layout.checked_job(snapshot.id)}"
    repo.run("update-ref", ref, snapshot.commit)


def hold_again(repo: Repository, snapshot_id: str, commit: str) -> None:
    """Give a commit that is there the ref of its snapshot back."""
    ref = f"{layout.SNAPSHOT_REFS}/{layout.checked_job(snapshot_id)}"
    repo.run("update-ref", ref, commit)


def is_held(repo: Repository, snapshot_id: str, commit: str) -> bool:
    """Return whether the snapshot's ref stands, and leads to this commit."""
    ref = f"{layout.SNAPSHOT_REFS}/{layout.checked_job(snapshot_id)}"
    return repo.resolve(f"{ref}^{{commit}}") == commit


def held(repo: Repository) -> dict[str, str]:
    """Return the snapshots that a ref holds, by their ids, with their commits."""
    told = repo.text(
        "for-each-ref", "--format=%(refname:lstrip=3) %(objectname)", layout.SNAPSHOT_REFS
    )
    return dict(line.split(" ", 1) for line in told.splitlines())


def let_go(repo: Repository, snapshot_id: str, commit: str) -> None:
    """Take a snapshot's ref away, if it still leads to this commit; git frees the rest."""
    ref = f"{layout.SNAPSHOT_REFS}/{layout.checked_job(snapshot_id)}"
    repo.run("update-ref", "-d", ref, commit)


def _refuse_untracked(
    repo: Repository, untracked: list[bytes], changed: list[bytes], limit_mib: int
) -> None:
    """Refuse what is too large, and what cannot be read: a pipe may stand for a tracked file."""
    names = [os.fsdecode(name) for name in untracked]
    known = [os.fsdecode(name) for name in changed]
    large: list[str] = []
    odd: list[str] = []
    inside = [name.rstrip("/") for name in names if name.endswith("/")]
    if inside:
        raise _repositories_inside(inside)
    for name in (*names, *known):
        path = repo.top / name
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISLNK(found.st_mode):
            continue  # its target's name is what is kept
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
            odd.append(name)
        elif found.st_size > limit_mib * 2**20 and name not in known:
            large.append(name)
    if large:
        raise SnapshotRefused(
            f"untracked files above {limit_mib} MiB would become part of the commit:"
            f" {', '.join(large[:5])}",
            f"Is it data? Add it to .gitignore (`echo '/{large[0]}' >> .gitignore`) and name it"
            " under [data] in nbmlops.toml. Or commit it, or raise `untracked_limit_mib` there.",
            files=large,
        )
    if odd:
        raise SnapshotRefused(
            f"these cannot be read as files: {', '.join(odd[:5])}",
            f"Remove them, or add them to .gitignore: `echo '/{odd[0]}' >> .gitignore`.",
            files=odd,
        )


def _enter(
    repo: Repository, environment: dict[str, str], entries: Mapping[bytes, tuple[str, str]]
) -> None:
    """Enter blobs that are there into the private index: mode and blob by name."""
    lines = [f"{mode} {blob}\t".encode() + name + b"\0" for name, (mode, blob) in entries.items()]
    if lines:
        repo.run(
            *("update-index", "--add", "--replace", "-z", "--index-info"),
            stdin=b"".join(lines),
            environment=environment,
        )


def read(repo: Repository, commit: str, path: str) -> tuple[str, bytes] | None:
    """Return the blob id and the bytes of a file in a commit, or ``None`` where it is not."""
    # Not `rev-parse COMMIT:PATH`, which takes two dots in a path for a range of commits.
    try:
        listed = repo.run(
            *("ls-tree", "-z", "--full-tree", "--end-of-options", commit, path),
            environment={"GIT_LITERAL_PATHSPECS": "1"},
        )
    except GitFailed:  # there is no such commit
        return None
    about, _, name = listed.rstrip(b"\0").partition(b"\t")
    if name != os.fsencode(path) or (found := about.split())[1] != b"blob":
        return None
    blob = found[2].decode()
    return blob, repo.run("cat-file", "blob", blob)


def read_all(repo: Repository, commit: str, paths: Iterable[str]) -> dict[str, tuple[str, bytes]]:
    """Return the blob id and the bytes of those of the files that are in the commit.

    One call of git for all; links are followed within the commit. A path with a newline is asked
    for by itself.

    Raises
    ------
    SnapshotRefused
        When a link leads out of the commit, or nowhere.
    """
    asked = list(dict.fromkeys(paths))
    plain = [path for path in asked if "\n" not in path]
    found = {path: one for path in asked if path not in plain and (one := read(repo, commit, path))}
    stdin = b"".join(os.fsencode(f"{commit}:{path}\n") for path in plain)
    stream = io.BytesIO(
        repo.run("cat-file", "--batch", "--follow-symlinks", stdin=stdin) if plain else b""
    )
    for path in plain:
        header = stream.readline().rstrip(b"\n").split(b" ")
        if header[0] in (b"symlink", b"dangling", b"loop", b"notdir") and header[-1].isdigit():
            raise SnapshotRefused(
                f"{path} is a link that leads out of the commit, or nowhere",
                "Put a copy of the file in its place.",
                files=[path],
            )
        if len(header) != 3 or header[1] not in (b"blob", b"tree") or not header[2].isdigit():
            continue  # `... missing`
        data = stream.read(int(header[2]))
        stream.read(1)
        if header[1] == b"blob":
            found[path] = header[0].decode(), data
    return found


def listing(repo: Repository, commit: str) -> dict[str, str]:
    """Return the files of a commit, each with its mode and blob id as one text."""
    found: dict[str, str] = {}
    for entry in repo.run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
        if entry:
            meta, raw = entry.split(b"\t", 1)
            found[os.fsdecode(raw)] = meta.decode()
    return found


def changed(repo: Repository, snapshot: Snapshot, limit_bytes: int) -> dict[str, bytes]:
    """Return the files that the snapshot has and the commit below it has not, up to a size."""
    if not snapshot.dirty:
        return {}
    base = snapshot.base_commit or repo.text("hash-object", "-t", "tree", "/dev/null")
    listed = repo.run("diff-tree", "-r", "-z", "--no-renames", base, snapshot.tree).split(b"\0")
    wanted: dict[str, str] = {}
    for meta, raw in zip(listed[::2], listed[1::2], strict=False):
        _, mode, _, blob_id, status = meta.decode().split(" ")
        if status != "D" and mode in ("100644", "100755"):
            wanted[os.fsdecode(raw)] = blob_id
    stdin = "".join(f"{blob_id}\n" for blob_id in wanted.values()).encode()
    sizes = repo.run("cat-file", "--batch-check=%(objectsize)", stdin=stdin).split()
    return {
        name: repo.run("cat-file", "blob", blob_id)
        for (name, blob_id), size in zip(wanted.items(), sizes, strict=True)
        if int(size) <= limit_bytes
    }


def exists(repo: Repository, commit: str) -> bool:
    """Return whether the commit and its tree can be read."""
    return repo.resolve(f"{commit}^{{tree}}") is not None


def blob(repo: Repository, blob_id: str) -> bytes | None:
    """Return the bytes of a blob, or ``None`` when the repository has lost it."""
    try:
        return repo.run("cat-file", "blob", _checked_object(blob_id))
    except GitFailed:
        return None


def _checked_object(blob_id: str) -> str:
    """Return the id of a git object if it is one, or refuse it."""
    if not blob_id.isalnum() or len(blob_id) not in (40, 64):
        raise SnapshotRefused(f"{blob_id[:80]!r} is not the id of a git object", "Copy it whole.")
    return blob_id


def export(repo: Repository, commit: str, target: Path) -> None:
    """Write the commit's files as a tar archive, byte for byte as git stores them.

    Attributes and filters of the repository have no say in it: what is in the commit is what a
    job gets, and the same commit gives the same archive.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, mode, data in _files(repo, commit):
                entry = tarfile.TarInfo(name)
                entry.mode = 0o755 if mode == "100755" else 0o644
                if mode == "120000":
                    entry.type = tarfile.SYMTYPE
                    entry.linkname = os.fsdecode(data)
                    archive.addfile(entry)
                else:
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _files(repo: Repository, commit: str) -> Iterator[tuple[str, str, bytes]]:
    entries: list[tuple[str, str, str]] = []
    for name, meta in listing(repo, commit).items():
        mode, kind, blob_id = meta.split(" ")
        if kind == "blob":
            entries.append((name, mode, blob_id))
    wanted = "".join(f"{blob_id}\n" for _, _, blob_id in entries).encode()
    stream = io.BytesIO(repo.run("cat-file", "--batch", stdin=wanted))
    for name, mode, blob_id in entries:
        header = stream.readline().decode().split()
        if len(header) != 3 or header[0] != blob_id:
            raise SnapshotRefused(
                f"git has lost the contents of {name}", "Check it: `git fsck --full`."
            )
        data = stream.read(int(header[2]))
        stream.read(1)
        yield name, mode, data


def repository_at(folder: Path) -> Repository | None:
    """Return the repository that a folder stands in."""
    return repository.find(folder)


def default_branch(repo: Repository) -> str:
    """Return the branch that others start from: the remote's, else the one that one stands on."""
    for words in (("refs/remotes/origin/HEAD",), ("HEAD",)):
        try:
            found = repo.text("symbolic-ref", "--quiet", "--short", *words)
        except GitFailed:  # no remote, or a detached HEAD
            continue
        return found.removeprefix("origin/")
    return "main"


def head(repo: Repository) -> str | None:
    """Return the commit that the user's HEAD leads to, or ``None`` on an unborn branch."""
    return repo.resolve("HEAD^{commit}")
