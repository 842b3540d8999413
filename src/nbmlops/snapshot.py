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
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from nbmlops import layout, notebook, repository
from nbmlops.errors import GitFailed, InvalidNotebook, SnapshotRefused
from nbmlops.records import Snapshot
from nbmlops.repository import Repository


def take(
    repo: Repository,
    scratch: Path,
    now: datetime,
    *,
    untracked_limit_mib: int = 10,
) -> Snapshot:
    """Capture the work tree as a commit that no ref holds yet (see :func:`hold`).

    Raises
    ------
    SnapshotRefused
        When a merge is in progress, or an untracked file is larger than the limit, unreadable, or
        neither a file nor a link; the message names the files.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    _refuse_unmerged(repo)
    _refuse_untracked(repo, untracked_limit_mib)
    index = scratch / f"index-{os.getpid()}-{layout.new_id('s')}"
    try:
        own = repo.git_dir / "index"
        if own.exists():
            shutil.copy2(own, index)
        environment = {"GIT_INDEX_FILE": str(index)}
        _look_at_all(repo, environment)
        repo.run("add", "--all", "--", ":/", environment=environment)
        _refuse_repositories_inside(repo, environment)
        _strip_notebooks(repo, environment)
        tree = repo.text("write-tree", environment=environment)
    finally:
        index.unlink(missing_ok=True)
        index.with_name(index.name + ".lock").unlink(missing_ok=True)
    base = repo.resolve("HEAD^{commit}")
    dirty = base is None or repo.resolve("HEAD^{tree}") != tree
    return _commit(repo, tree, base, dirty, now)


def _look_at_all(repo: Repository, environment: dict[str, str]) -> None:
    """Take back, in the private index, the user's leave not to look at some files."""
    assumed: list[bytes] = []
    skipped: list[bytes] = []
    for entry in repo.run("ls-files", "-v", "-z", "--", ":/", environment=environment).split(b"\0"):
        flag, raw = entry[:1], entry[2:]
        if flag in (b"h", b"s"):
            assumed.append(raw)
        if flag in (b"S", b"s") and os.path.lexists(repo.top / os.fsdecode(raw)):
            skipped.append(raw)
    for option, names in (("--no-assume-unchanged", assumed), ("--no-skip-worktree", skipped)):
        if names:
            listed = b"".join(name + b"\0" for name in names)
            repo.run("update-index", option, "-z", "--stdin", stdin=listed, environment=environment)


def _refuse_repositories_inside(repo: Repository, environment: dict[str, str]) -> None:
    inside: list[str] = []
    listed = repo.run("ls-files", "--stage", "-z", "--", ":/", environment=environment)
    for entry in listed.split(b"\0"):
        if entry.startswith(b"160000 "):
            name = os.fsdecode(entry.split(b"\t", 1)[1])
            folder = repo.top / name
            if folder.is_dir() and any(folder.iterdir()):
                inside.append(name)
    if inside:
        raise SnapshotRefused(
            f"repositories inside this one are not part of a commit: {', '.join(inside[:5])}",
            f"Copy what you need of it into this one, or ignore it: `echo '/{inside[0]}/' >>"
            " .gitignore`.",
            files=inside,
        )


def _commit(repo: Repository, tree: str, base: str | None, dirty: bool, now: datetime) -> Snapshot:
    try:
        branch = repo.text("symbolic-ref", "--quiet", "--short", "HEAD")
    except GitFailed:
        branch = None
    snapshot_id = layout.new_id("s", now.timestamp())
    commit = base
    if dirty or base is None:
        parents = ("-p", base) if base else ()
        commit = (
            repo.run(
                "commit-tree",
                tree,
                *parents,
                stdin=f"nbmlops snapshot of {branch or 'a detached HEAD'}\n".encode(),
                environment=repo.identity(),
            )
            .decode()
            .strip()
        )
    return Snapshot(
        id=snapshot_id,
        commit=str(commit),
        tree=tree,
        base_commit=base,
        dirty=dirty,
        branch=branch,
        created_at=now,
    )


def hold(repo: Repository, snapshot: Snapshot) -> None:
    """Give the snapshot its ref, so that it stays; the same again changes nothing."""
    ref = f"{layout.SNAPSHOT_REFS}/{layout.checked_job(snapshot.id)}"
    repo.run("update-ref", ref, snapshot.commit)


def is_held(repo: Repository, snapshot_id: str, commit: str) -> bool:
    """Return whether the snapshot's ref stands, and leads to this commit."""
    ref = f"{layout.SNAPSHOT_REFS}/{layout.checked_job(snapshot_id)}"
    return repo.resolve(f"{ref}^{{commit}}") == commit


def _refuse_unmerged(repo: Repository) -> None:
    unmerged = repo.run("ls-files", "--unmerged", "-z").split(b"\0")
    names = sorted({line.split(b"\t", 1)[1].decode(errors="replace") for line in unmerged if line})
    if names:
        raise SnapshotRefused(
            f"a merge is in progress; unmerged: {', '.join(names[:10])}",
            "Finish it (`git status` shows how), or give it up: `git merge --abort`.",
            files=names,
        )


def _refuse_untracked(repo: Repository, limit_mib: int) -> None:
    listed = repo.run("ls-files", "--others", "--exclude-standard", "-z", "--", ":/")
    large: list[str] = []
    odd: list[str] = []
    for name in (os.fsdecode(raw) for raw in listed.split(b"\0") if raw):
        path = repo.top / name
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            continue  # a repository inside: git records its commit; a link: its target's name
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
            odd.append(name)
        elif found.st_size > limit_mib * 2**20:
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


def _strip_notebooks(repo: Repository, environment: dict[str, str]) -> None:
    listed = repo.run("ls-files", "--stage", "-z", "--", ":/*.ipynb", environment=environment)
    changed: list[bytes] = []
    for entry in listed.split(b"\0"):
        if not entry:
            continue
        meta, raw = entry.split(b"\t", 1)
        mode, blob, _ = meta.decode().split(" ")
        if mode not in ("100644", "100755"):
            continue
        data = repo.run("cat-file", "blob", blob)
        try:
            clean = notebook.stripped(data, os.fsdecode(raw))
        except InvalidNotebook:
            continue  # it is kept as it is; a step that uses it is refused where it is read
        if clean != data:
            new = repo.run("hash-object", "-w", "--stdin", stdin=clean).decode().strip()
            changed.append(f"{mode} {new}\t".encode() + raw + b"\0")
    if changed:
        repo.run(
            "update-index", "-z", "--index-info", stdin=b"".join(changed), environment=environment
        )


def read(repo: Repository, commit: str, path: str) -> tuple[str, bytes] | None:
    """Return the blob id and the bytes of a file in a commit, or ``None`` where it is not."""
    blob = repo.resolve(f"{commit}:{path}")
    return None if blob is None else (blob, repo.run("cat-file", "blob", blob))


def read_all(repo: Repository, commit: str, paths: Iterable[str]) -> dict[str, tuple[str, bytes]]:
    """Return the blob id and the bytes of those of the files that are in the commit.

    One call of git for all. A path with a newline is asked for by itself.
    """
    asked = list(dict.fromkeys(paths))
    plain = [path for path in asked if "\n" not in path]
    found = {path: one for path in asked if path not in plain and (one := read(repo, commit, path))}
    stdin = b"".join(os.fsencode(f"{commit}:{path}\n") for path in plain)
    stream = io.BytesIO(repo.run("cat-file", "--batch", stdin=stdin) if plain else b"")
    for path in plain:
        header = stream.readline().rstrip(b"\n").split(b" ")
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


def head(repo: Repository) -> str | None:
    """Return the commit that the user's HEAD leads to, or ``None`` on an unborn branch."""
    return repo.resolve("HEAD^{commit}")
