"""Errors that people meet: each says what happened and what to type next.

A child of :class:`NbmlopsError` has a stable kebab-case ``code``, a ``message`` (what, with which
value), a ``hint`` (what to type next) and a ``context`` for programs. ``exit_code`` is what the
command line ends with: 1 the work failed, 2 wrong use or input, 5 the outside is not there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, ClassVar

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class NbmlopsError(Exception):
    """Base of all errors that nbmlops raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, hint: str = "", **context: Any) -> None:
        self.message = _whole(message)
        self.hint = _whole(hint)
        self.context = {name: _whole(value) for name, value in context.items()}
        super().__init__(self.message)

    def document(self) -> dict[str, Any]:
        """Return the error as the JSON document that every door answers with."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "hint": self.hint,
                "context": self.context,
            }
        }

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def _whole(value: Any) -> Any:
    """Return text in which half characters, and what could steer a terminal, are escapes."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if not isinstance(value, str):
        return value
    whole = value.encode("utf-8", "backslashreplace").decode()
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), whole)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean ...?`` or the list of known names, for a hint.

    >>> nearest("max_deph", ["max_depth", "seed"])
    'Did you mean `max_depth`?'
    >>> nearest("x", ["max_depth", "seed"])
    'Known: max_depth, seed.'
    >>> nearest("x", [])
    'There are none yet.'
    """
    names = sorted(known)
    # Names come from outside, and comparing takes as long as the product of their lengths.
    close = difflib.get_close_matches(name[:200], names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean `{close[0]}`?"
    if not names:
        return "There are none yet."
    return f"Known: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}."


class WrongUse(NbmlopsError):
    """The command was used in a way that has no meaning."""

    code = "wrong-use"


class ProjectExists(NbmlopsError):
    """A folder already holds a project."""

    code = "project-exists"


class NoProject(NbmlopsError):
    """No ``nbmlops.toml`` here or above."""

    code = "no-project"


class InvalidSettings(NbmlopsError):
    """``nbmlops.toml`` says something that has no meaning."""

    code = "invalid-settings"


class InvalidName(NbmlopsError):
    """A name or id has characters that are not allowed."""

    code = "invalid-name"


class NoGit(NbmlopsError):
    """There is no git, or no repository where one is needed."""

    code = "no-git"
    exit_code = 5


class SnapshotRefused(NbmlopsError):
    """The work tree cannot be captured as it is."""

    code = "snapshot-refused"


class GitFailed(NbmlopsError):
    """A git command failed."""

    code = "git-failed"
    exit_code = 5


class NoRemote(NbmlopsError):
    """The repository has no git remote of that name."""

    code = "no-remote"


class RemoteFailed(NbmlopsError):
    """A git remote cannot be reached, or refuses us."""

    code = "remote-failed"
    exit_code = 5


class LedgerDamaged(NbmlopsError):
    """A ledger, here or on a git remote, was rewritten or damaged."""

    code = "ledger-damaged"
    exit_code = 1


class SecretLeaving(NbmlopsError):
    """A snapshot that would be pushed holds a secret."""

    code = "secret-leaving"
    exit_code = 1


class InvalidNotebook(NbmlopsError):
    """A notebook cannot be read, or cannot be run as a step."""

    code = "invalid-notebook"


class DataMissing(NbmlopsError):
    """Data that ``[data]`` names are not there."""

    code = "data-missing"


class RuleBroken(NbmlopsError):
    """A notebook or the project breaks a rule whose level is ``block``."""

    code = "rule-broken"


class Unmendable(NbmlopsError):
    """A file cannot be mended without a change of more than the rule asks."""

    code = "unmendable"


class UnknownPipeline(NbmlopsError):
    """No pipeline has that name."""

    code = "unknown-pipeline"


class UnknownParameter(NbmlopsError):
    """No step declares a parameter of that name."""

    code = "unknown-parameter"


class InvalidParameter(NbmlopsError):
    """A parameter's value is not of its declared type."""

    code = "invalid-parameter"


class UnknownRun(NbmlopsError):
    """No run has that id."""

    code = "unknown-run"


class UnknownModel(NbmlopsError):
    """No model or version has that name."""

    code = "unknown-model"


class UnknownAlias(NbmlopsError):
    """No version of the model has that alias."""

    code = "unknown-alias"


class NothingToGoBackTo(NbmlopsError):
    """No other version took an endpoint's traffic before."""

    code = "no-earlier-version"


class UnknownEndpoint(NbmlopsError):
    """No endpoint has that name."""

    code = "unknown-endpoint"


class UnknownCall(NbmlopsError):
    """No logged call has that id."""

    code = "unknown-call"


class UnknownReference(NbmlopsError):
    """A reference such as ``call/ID`` does not lead anywhere."""

    code = "unknown-reference"


class InvalidRecords(NbmlopsError):
    """Records do not fit the model's schema; the message names the column."""

    code = "invalid-records"


class EnvironmentFailed(NbmlopsError):
    """The project's environment cannot be made."""

    code = "environment-failed"


class EnvironmentUnreachable(NbmlopsError):
    """The package index cannot be reached."""

    code = "environment-unreachable"
    exit_code = 5


class LauncherUnavailable(NbmlopsError):
    """The place where jobs run is not there."""

    code = "launcher-unavailable"
    exit_code = 5


class StoreUnavailable(NbmlopsError):
    """The store cannot be opened or written."""

    code = "store-unavailable"
    exit_code = 5


class StoreTooNew(NbmlopsError):
    """The store was written by a newer nbmlops."""

    code = "store-too-new"
    exit_code = 5


class Conflict(NbmlopsError):
    """Somebody else changed a record first."""

    code = "conflict"
    exit_code = 5


class ArtifactMissing(NbmlopsError):
    """Bytes that a record names are not there."""

    code = "artifact-missing"
    exit_code = 5


class RunFreed(NbmlopsError):
    """What a run left was freed by ``gc``."""

    code = "run-freed"


class ArtifactCorrupt(NbmlopsError):
    """Bytes do not have the digest by which they are known."""

    code = "artifact-corrupt"
    exit_code = 5


class ModelRefused(NbmlopsError):
    """A model cannot be kept or loaded safely."""

    code = "model-refused"


class DeploymentFailed(NbmlopsError):
    """A deployment did not get ready; what served before still serves."""

    code = "deployment-failed"
    exit_code = 1


class EndpointUnreachable(NbmlopsError):
    """An endpoint does not answer."""

    code = "endpoint-unreachable"
    exit_code = 5


class CallFailed(NbmlopsError):
    """An endpoint answered a call with an error."""

    code = "call-failed"
    exit_code = 1


class Detached(NbmlopsError):
    """Watching was interrupted; the work goes on."""

    code = "interrupted"
    exit_code = 130


class InternalError(NbmlopsError):
    """A fault of ours."""

    code = "internal-error"
    exit_code = 1


class StorageFailed(NbmlopsError):
    """A file cannot be written or read: a full disk, a read-only folder, missing rights."""

    code = "storage-failed"
    exit_code = 5


def storage_failed(error: OSError) -> StorageFailed:
    """Return the error for what the file system refused."""
    where = f" {error.filename}" if error.filename else ""
    return StorageFailed(
        f"the file system refused{where}: {error.strerror or error}",
        "See that the disk has room and the folder is yours to write; then try again.",
    )


class MissingExtra(NbmlopsError):
    """A package that an extra of nbmlops brings is not installed."""

    code = "missing-extra"
