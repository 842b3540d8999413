"""Git remotes: what they have, fetching from them, pushing to them; only refs of our own.

A remote is named, never given as a URL, and must be configured. Hooks are off as in all our calls;
only known protocols are spoken, so that a remote's URL starts no program of its choice; the
programs at the other end have their usual names. Whatever else the user's configuration says of
pushing and fetching (tags, pruning, mirrors, submodules) does not count here, but for what gives
them access: credentials and ssh.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from nbmlops.errors import GitFailed, InvalidName, NoRemote, RemoteFailed, nearest
from nbmlops.repository import Repository, telling

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_NAME = re.compile(rf"(?=.{{1,100}}$){_PART}(?:/{_PART})*")
_PROTOCOLS = ("file", "git", "http", "https", "ssh")
_REFS_AT_ONCE = 200  # an argument list has an end
_SILENCE_S = "60"
_AT_ONCE_BYTES = 32 * 2**20
_ONCE = "and try again."


@dataclass(frozen=True, slots=True)
class Remote:
    """A configured remote; ``url`` is where it is, for people: never with credentials."""

    repo: Repository
    name: str
    url: str
    secrets: tuple[str, ...] = ()


def find(repo: Repository, name: str) -> Remote:
    """Return the remote of that name.

    Raises
    ------
    InvalidName
        When it cannot be the name of a remote: a URL, an option.
    NoRemote
        When there is none.
    """
    if not _NAME.fullmatch(name) or ".." in name or f"{name}/".count(".lock/"):
        raise InvalidName(
            f"{name[:80]!r} cannot be the name of a git remote",
            "Name a remote, not its URL: `git remote -v` lists them.",
            remote=name[:200],
        )
    known = repo.text("remote").splitlines()
    if name not in known:
        add = f"Add it: `git remote add {name} URL`."
        raise NoRemote(
            f"the repository has no git remote `{name}`",
            f"{nearest(name, known)} {add}" if known else add,
            remote=name,
        )
    address = repo.text("remote", "get-url", "--end-of-options", name)
    shown, secrets = _shown(address)
    settings = (
        ("protocol.allow", "never"),
        *((f"protocol.{protocol}.allow", "always") for protocol in _PROTOCOLS),
        ("protocol.ext.allow", "never"),
        (f"remote.{name}.mirror", "false"),
        (f"remote.{name}.prune", "false"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", _SILENCE_S),
    )
    return Remote(
        replace(repo, settings=(*repo.settings, *settings)), name, shown, (address, *secrets)
    )


def _shown(address: str) -> tuple[str, tuple[str, ...]]:
    """Return a URL without credentials, and what must not be told of it.

    >>> _shown("https://ada:s3cret@git.example.org/team/repo.git?t=1")
    ('https://git.example.org/team/repo.git', ('ada:s3cret', 's3cret', 't=1'))
    >>> _shown("git@git.example.org:team/repo.git")
    ('git@git.example.org:team/repo.git', ())
    """
    if "://" not in address:
        return address, ()
    try:
        parts = urlsplit(address)
        password = parts.password
    except ValueError:  # what git makes of it is git's business
        return "(a URL that cannot be read)", (address,)
    user, at, place = parts.netloc.rpartition("@")
    told = tuple(text for text in (user if password else "", password, parts.query) if text)
    # A name alone opens nothing over ssh; over HTTP it may be a token.
    kept = f"{user}@" if at and not password and parts.scheme == "ssh" else ""
    return f"{parts.scheme}://{kept}{place}{parts.path}", told


def look(remote: Remote) -> Mapping[str, str]:
    """Return the refs of a remote with the objects that they lead to.

    Raises
    ------
    RemoteFailed
        When it cannot be reached; with git's own words.
    """
    listed = _asked(remote, "ls-remote", "--quiet", "--upload-pack=git-upload-pack")
    return {ref: found for found, _, ref in (line.partition("\t") for line in listed.splitlines())}


def fetch(remote: Remote, refs: Mapping[str, str]) -> None:
    """Bring the commits that refs of a remote lead to; no ref of ours leads there by this.

    Whatever the user's configuration makes of such refs: with an empty ``--refmap`` git moves none.
    Whoever called looks at what has come, and then lets a ref lead to it.

    Parameters
    ----------
    remote
        Where they are.
    refs
        The refs, with the commits that they lead to by :func:`look`.

    Raises
    ------
    RemoteFailed
        When the remote cannot be reached, or a ref leads to something else by now.
    """
    for some in _some(refs.items()):
        _asked(
            remote,
            *("fetch", "--quiet", "--no-tags", "--no-prune", "--no-recurse-submodules"),
            *("--no-write-fetch-head", "--no-auto-maintenance", "--refmap="),
            "--upload-pack=git-upload-pack",
            refs=[ref for ref, _ in some],
        )
    here = _types(remote.repo, refs.values())
    for ref, commit in refs.items():
        if here.get(commit) != "commit":
            raise RemoteFailed(
                f"`{ref}` of the git remote `{remote.name}` does not lead to the commit"
                f" {commit[:12]}, as the remote said",
                f"Somebody moves it just now? Try again: `nbmlops sync --remote {remote.name}`.",
                remote=remote.name,
            )


def shared(remote: Remote, commits: Iterable[str]) -> list[str]:
    """Return commits that the remote has, among these and what is below them, as far as it tells.

    Git asks by the words with which it finds out what to send, so nothing is fetched. A remote
    that cannot be asked so (version 2 of the protocol is needed) is believed to have nothing.
    """
    tips = [f"--negotiation-tip={commit}" for commit in commits]
    try:
        told = _asked(
            remote,
            *("fetch", "--quiet", "--negotiate-only", *tips),
            "--upload-pack=git-upload-pack",
        )
    except RemoteFailed:
        return []
    return told.split()


def push(remote: Remote, refs: Iterable[tuple[str, str]]) -> None:
    """Push commits of ours to refs of a remote, each only forwards.

    Without force: the remote takes a ref only if it goes on from what the remote has at that very
    moment, so nobody's entry can be overwritten, whatever we believe to know.

    Raises
    ------
    RemoteFailed
        When the remote cannot be reached, or refuses; with git's own words.
    """
    for some in _some(refs):
        _asked(
            remote,
            *("push", "--quiet", "--no-follow-tags", "--no-signed", "--no-verify"),
            *("--recurse-submodules=no", "--receive-pack=git-receive-pack"),
            refs=[f"{commit}:{ref}" for commit, ref in some],
        )


def _some(refs: Iterable[tuple[str, str]]) -> Iterable[Sequence[tuple[str, str]]]:
    every = list(refs)
    return (every[at : at + _REFS_AT_ONCE] for at in range(0, len(every), _REFS_AT_ONCE))


def _asked(remote: Remote, *words: str, refs: Iterable[str] = ()) -> str:
    try:
        return remote.repo.text(*words, "--end-of-options", remote.name, *refs)
    except GitFailed as error:
        said = str(error.context.get("stderr") or error.message)
        for secret in sorted(remote.secrets, key=len, reverse=True):
            said = said.replace(secret, remote.url if secret == remote.secrets[0] else "***")
        raise RemoteFailed(
            f"the git remote `{remote.name}` ({remote.url}) failed: {telling(said)}",
            _way_out(remote, said),
            remote=remote.name,
            stderr=said,
        ) from error


def _way_out(remote: Remote, said: str) -> str:
    """Return what to do about what git said."""
    if "shallow update not allowed" in said:
        return f"This clone lacks history that the remote wants: `git fetch --unshallow` {_ONCE}"
    if "hook declined" in said:
        return f"A hook of `{remote.name}` refused it: do what it says, {_ONCE}"
    return (
        "See that it can be reached and is yours to push to:"
        f" `git ls-remote {remote.name}`; then try again."
    )


def was_overtaken(error: RemoteFailed) -> bool:
    r"""Return whether a push was refused because somebody else has pushed, or does so just now.

    >>> was_overtaken(RemoteFailed("x", stderr="To /x\n ! [rejected] a -> b (fetch first)"))
    True
    >>> was_overtaken(RemoteFailed("x", stderr="To /cannot lock ref\n ! [remote rejected] a"))
    False
    """
    lines = (line.strip() for line in str(error.context.get("stderr", "")).splitlines())
    return any(
        line.startswith("! [rejected]") or "cannot lock ref" in line
        for line in lines
        if not line.startswith("To ")
    )


def leaving(
    remote: Remote, commit: str, there: Iterable[str], passed: Iterable[str] = ()
) -> Iterator[tuple[str, bytes]]:
    """Yield the files that a push of a commit would send, whole histories included.

    Parameters
    ----------
    remote
        Where it would go.
    commit
        What would be pushed.
    there
        The objects that the remote's refs lead to; those that we do not know are passed over.
    passed
        Commits that were looked through before.
    """
    repo = remote.repo
    advertised = {*there}
    known = _types(repo, advertised)
    has = {one for one, kind in known.items() if kind != "blob"}
    if len(known) < len(advertised):  # it has gone on from what we have seen of it
        has.update(shared(remote, [commit]))
    asked = [commit, *(f"^{one}" for one in (*has, *passed))]
    told = repo.run("rev-list", "--objects", "--stdin", stdin="\n".join(asked).encode() + b"\n")
    paths = {
        line[:at].decode(): os.fsdecode(line[at + 1 :])
        for line in told.splitlines()
        if (at := line.find(b" ")) > 0
    }
    for blob, content in _blobs(repo, paths):
        yield paths[blob], content


def _blobs(repo: Repository, objects: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield those of the objects that are blobs, with their bytes; some megabytes at a time."""
    asked = "".join(f"{one}\n" for one in objects).encode()
    listed = repo.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", stdin=asked
    )
    some: list[str] = []
    size = 0
    for name, *about in (line.split() for line in listed.decode().splitlines()):
        if about[0] != "blob":
            continue
        if some and size + int(about[1]) > _AT_ONCE_BYTES:
            yield from _read(repo, some)
            some, size = [], 0
        some.append(name)
        size += int(about[1])
    yield from _read(repo, some)


def _read(repo: Repository, blobs: list[str]) -> Iterator[tuple[str, bytes]]:
    if not blobs:
        return
    told = repo.run("cat-file", "--batch", stdin="".join(f"{one}\n" for one in blobs).encode())
    place = 0
    for blob in blobs:
        end = told.index(b"\n", place)
        size = int(told[place:end].split()[2])
        yield blob, told[end + 1 : end + 1 + size]
        place = end + size + 2


def _types(repo: Repository, objects: Iterable[str]) -> dict[str, str]:
    """Return the types of those objects that are here."""
    asked = "".join(f"{one}\n" for one in objects).encode()
    listed = repo.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked)
    lines = (line.split() for line in listed.decode().splitlines())
    return {words[0]: words[1] for words in lines if words[1] != "missing"}
