"""Git, called in one way: fixed argument lists, no hooks, no file-system monitor, no prompts.

Only ``snapshot`` and ``ledger`` use this; everybody else calls their functions.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from nbmlops.errors import GitFailed, NoGit

# A repository's own configuration may name programs; none of them runs for our calls.
_SAFE = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.untrackedCache=keep",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "gc.auto=0",
)

_FAULT = re.compile(r"(fatal|error|ssh): |! \[", re.IGNORECASE)
_SUMMARY = "failed to push some refs"  # says that there is something, and not what

_PLACES = ("--show-toplevel", "--git-dir", "--git-common-dir")

# What `git rev-parse --local-env-vars` lists, but for the identity; and what gives the paths that
# we name another meaning.
_LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GLOB_PATHSPECS",
    "GIT_GRAFT_FILE",
    "GIT_ICASE_PATHSPECS",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository: the work tree's top folder and the git folder that work trees share.

    ``settings`` are held against the repository's own configuration in every call.
    """

    top: Path
    git_dir: Path
    common_dir: Path
    settings: tuple[tuple[str, str], ...] = ()

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> bytes:
        """Run git in the work tree and return its standard output, byte for byte.

        Raises
        ------
        GitFailed
            With git's own words, when it exits with an error.
        """
        told = {**_settings(self.settings), **(environment or {})}
        return _run(self.top, arguments, stdin=stdin, environment=told)

    def text(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run git and return its output as text without the last newline."""
        return self.run(*arguments, environment=environment).decode().rstrip("\n")

    def resolve(self, revision: str) -> str | None:
        """Return the object that a ref or revision names, or ``None``."""
        try:
            return self.text("rev-parse", "--verify", "--quiet", "--end-of-options", revision)
        except GitFailed:
            return None

    def author(self) -> str:
        """Return who acts, as ``Name <e-mail>``; git's identity if there is one."""
        try:
            identity = self.text("var", "GIT_AUTHOR_IDENT")
        except GitFailed:
            return "nbmlops <nbmlops@localhost>"
        return identity[: identity.rindex(">") + 1]

    def identity(self) -> dict[str, str]:
        """Return the environment in which our own commits are made; no configuration is written."""
        name, _, mail = self.author().partition(" <")
        return {
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": mail.rstrip(">"),
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": mail.rstrip(">"),
        }

    def commit_tree(self, tree: str, *options: str, message: bytes) -> str:
        """Make a commit of a tree that no ref holds, and return it.

        As whoever git says acts; where git does not know, as nbmlops.
        """
        arguments = ("commit-tree", tree, *options)
        try:
            return self.run(*arguments, stdin=message).decode().strip()
        except GitFailed:
            told = self.run(*arguments, stdin=message, environment=self.identity())
            return told.decode().strip()


def _unset(given: Mapping[str, str]) -> list[str]:
    """Return the words that take away what would lead git into another repository.

    A hook or ``rebase --exec`` sets such variables; GitPython can only add some.
    """
    found = [n for n in _LOCAL_VARIABLES if n in os.environ and n not in given]
    return ["env", *(word for name in found for word in ("-u", name))] if found else []


def _run(
    folder: Path,
    arguments: tuple[str, ...],
    *,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    try:
        from git.cmd import Git
        from git.exc import GitCommandError, GitCommandNotFound
    except ImportError as error:  # GitPython looks for git when it is imported
        raise NoGit("git is not installed", "Install git, then try again.") from error
    variables = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    with contextlib.ExitStack() as held:
        source = None
        if stdin is not None:
            source = held.enter_context(TemporaryFile())
            source.write(stdin)
            source.seek(0)
        try:
            output: Any = Git(folder).execute(
                [*_unset(environment or {}), "git", *_SAFE, *arguments],
                istream=source,
                env={**variables, **(environment or {})},
                strip_newline_in_stdout=False,
                stdout_as_string=False,
            )
        except GitCommandNotFound as error:
            raise NoGit("git is not installed", "Install git, then try again.") from error
        except GitCommandError as error:
            words = str(error.stderr).strip().removeprefix("stderr: ").strip("'\n ")
            raise GitFailed(
                f"git {_verb(arguments)} failed: {telling(words) or f'exit code {error.status}'}",
                f"Look at the repository: `git -C {folder} status`.",
                command=_verb(arguments),
                stderr=words,
            ) from error
    return bytes(output)


def telling(words: str) -> str:
    r"""Return the one line of git's words that tells most.

    What a hook of a remote says comes before git's own summary of it.

    >>> telling("remote: \nremote: not today\n! [remote rejected] x (pre-receive hook declined)")
    'not today'
    >>> telling("To /x\n ! [rejected] a -> b (fetch first)\nerror: failed to push some refs")
    '! [rejected] a -> b (fetch first)'
    """
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    theirs = [said for line in lines if (said := line.removeprefix("remote:").strip()) != line]
    if "hook declined" in words and (said := next(filter(None, theirs), None)):
        return said
    faults = (line for line in lines if _FAULT.match(line) and _SUMMARY not in line)
    return next(faults, next(iter(lines), ""))


def _verb(arguments: tuple[str, ...]) -> str:
    """Return git's command, behind the options."""
    return next(word for word in arguments if not word.startswith("-"))


def _settings(settings: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the variables by which git is told settings; a name may hold any character there."""
    if not settings:
        return {}
    given = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(given) if given.isdigit() else 0
    told = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (key, value) in enumerate(settings, first):
        told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return told


def _no_filters(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the settings under which git runs no filter program that a repository configures."""
    asked = ("config", "-z", "--name-only", "--get-regexp", r"^filter\..*")
    try:
        listed = _run(folder, asked)
    except GitFailed:  # git's way to say that there are none
        return ()
    names = {os.fsdecode(raw)[len("filter.") :].rpartition(".")[0] for raw in listed.split(b"\0")}
    return tuple(
        (f"filter.{name}.{key}", value)
        for name in sorted(names - {""})
        for key, value in (("clean", ""), ("smudge", ""), ("process", ""), ("required", "false"))
    )


def find(start: Path) -> Repository | None:
    """Return the repository that ``start`` stands in, or ``None``.

    Raises
    ------
    NoGit
        When git is missing, or the repository has no work tree.
    """
    try:
        lines = _run(
            start,
            ("rev-parse", "--path-format=absolute", *_PLACES),
        ).decode()
    except GitFailed as error:
        if "work tree" in error.message:
            raise NoGit(
                f"{start} is a repository without a work tree", "Clone it, and run there."
            ) from error
        if "dubious ownership" in error.message:
            raise NoGit(
                f"git refuses {start}, which belongs to somebody else",
                f"If you trust it: `git config --global --add safe.directory {start}`.",
            ) from error
        return None
    top, git_dir, common_dir = lines.split("\n")[:3]
    return Repository(Path(top), Path(git_dir), Path(common_dir), _no_filters(start))


def create(folder: Path) -> Repository:
    """Make a repository in ``folder``; the first branch is called main unless git says else."""
    arguments = ["init", "--quiet"]
    if not os.environ.get("GIT_CONFIG_COUNT"):
        arguments += ["--initial-branch=main"]
    _run(folder, tuple(arguments))
    found = find(folder)
    if found is None:
        raise NoGit(f"git made no repository in {folder}", f"Try `git -C {folder} init`.")
    return found


def commit_all(repository: Repository, message: str) -> str:
    """Commit everything in the work tree to the current branch and return the commit.

    Only for a repository that we have just made: the user's own are never committed to.
    """
    repository.run("add", "--all", "--", ".")
    repository.run("commit", "--quiet", "-m", message, environment=repository.identity())
    return repository.text("rev-parse", "HEAD")
