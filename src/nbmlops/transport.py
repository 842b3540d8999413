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

from nbmlops import layout
from nbmlops.errors import GitFailed, InvalidName, NoRemote, RemoteFailed, nearest
from nbmlops.repository import Repository

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_PROTOCOLS = ("file", "git", "http", "https", "ssh")
_REFS_AT_ONCE = 200  # an argument list has an end
_SILENCE_S = "60"


@dataclass(frozen=True, slots=True)
class Remote:
    """A configured remote; ``url`` is where it is, for people: never with credentials."""

    repo: Repository
    name: str
    url: str
    secrets: tuple[str, ...] = ()

    @property
    def ledger_ref(self) -> str:
        """The ref under which the remote's ledger is remembered here."""
        return f"{layout.REMOTE_REFS}/{self.name}/ledger"


def find(repo: Repository, name: str) -> Remote:
    """Return the remote of that name.

    Raises
    ------
    InvalidName
        When it cannot be the name of a remote: a URL, an option.
    NoRemote
        When there is none.
    """
    if not _NAME.fullmatch(name) or ".." in name or name.endswith(".lock"):
        raise InvalidName(
            f"{name[:80]!r} cannot be the name of a git remote",
            "Name a remote, not its URL: `git remote -v` lists them.",
            remote=name[:200],
        )
    known = repo.text("remote").split()
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


def fetch(remote: Remote, refs: Iterable[tuple[str, str]]) -> None:
    """Fetch refs of a remote into refs of ours, each only forwards.

    Raises
    ------
    RemoteFailed
        When the remote cannot be reached, or a ref would not go on from where it was.
    """
    for some in _some(refs):
        _asked(
            remote,
            *("fetch", "--quiet", "--no-tags", "--no-prune", "--no-recurse-submodules"),
            *("--no-write-fetch-head", "--no-auto-maintenance", "--no-show-forced-updates"),
            "--upload-pack=git-upload-pack",
            refs=[f"{theirs}:{ours}" for theirs, ours in some],
        )


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
        said = error.message
        for secret in sorted(remote.secrets, key=len, reverse=True):
            said = said.replace(secret, remote.url if secret == remote.secrets[0] else "***")
        raise RemoteFailed(
            f"the git remote `{remote.name}` ({remote.url}) failed: {said}",
            "See that it can be reached and is yours to push to:"
            f" `git ls-remote {remote.name}`; then try again.",
            remote=remote.name,
        ) from error


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
    known = _types(repo, {*there})
    asked = [commit, *(f"^{one}" for one in (*known, *passed) if known.get(one) != "blob")]
    told = repo.run("rev-list", "--objects", "--stdin", stdin="\n".join(asked).encode() + b"\n")
    paths = {
        line[:at].decode(): os.fsdecode(line[at + 1 :])
        for line in told.splitlines()
        if (at := line.find(b" ")) > 0
    }
    for blob in (one for one, kind in _types(repo, paths).items() if kind == "blob"):
        yield paths[blob], repo.run("cat-file", "blob", blob)


def _types(repo: Repository, objects: Iterable[str]) -> dict[str, str]:
    """Return the types of those objects that are here."""
    asked = "".join(f"{one}\n" for one in objects).encode()
    listed = repo.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked)
    lines = (line.split() for line in listed.decode().splitlines())
    return {words[0]: words[1] for words in lines if words[1] != "missing"}
