"""Models: a version is registered when its whole run has succeeded; the ledger numbers it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from nbmlops import decisions, digests, layout, ledger, records
from nbmlops import schema as contracts
from nbmlops.errors import (
    ArtifactMissing,
    Conflict,
    InvalidName,
    InvalidSettings,
    UnknownAlias,
    UnknownModel,
    nearest,
)
from nbmlops.records import (
    AliasDecision,
    ArtifactRecord,
    Bounds,
    Environment,
    LedgerEntry,
    LoggedModel,
    ModelSchema,
    ModelVersion,
    RunRecord,
    RunResult,
    Sample,
)
from nbmlops.store import Kept
from nbmlops.workspace import Workspace

KIND = "version"
LOCK = "versions"  # held while a version gets its number, or another one
_ALL = 100_000
_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}")


def register(
    workspace: Workspace, run: RunRecord, result: RunResult, run_digest: str
) -> tuple[str, ...]:
    """Give each model that the run logged its version; the same digest keeps the one it has."""
    environment = workspace.artifacts.get(_environment_file(run).digest)
    names: list[str] = []
    for logged in result.models:
        with workspace.exclusively(LOCK):
            version = _append(workspace, run, logged, environment, run_digest)
            keep(workspace, version)
        names.append(version.name)
    return tuple(names)


def _file(run: RunRecord, name: str) -> ArtifactRecord:
    for artifact in run.artifacts:
        if artifact.name == name and artifact.kind == "model":
            return artifact
    raise ArtifactMissing(f"the run left no {name}", f"See: `nbmlops logs {run.run_id}`.")


def _environment_file(run: RunRecord) -> ArtifactRecord:
    return next(artifact for artifact in run.artifacts if artifact.kind == "environment")


def _append(
    workspace: Workspace, run: RunRecord, logged: LoggedModel, environment: bytes, run_digest: str
) -> ModelVersion:
    files = {role: _file(run, name) for role, name in logged.files.items()}
    files["environment"] = _environment_file(run)
    identity = {
        "model": logged.name,
        "format": logged.format,
        "environment": records.load(environment, Environment).environment_id,
        "files": {role: files[role].digest for role in ("model", "schema")},
    }
    if logged.loader or logged.command or logged.image:  # what it answers follows from code as well
        identity |= {"loader": logged.loader, "command": logged.command, "commit": run.commit}
    if logged.image:
        identity["image"] = logged.image
    digest = digests.of_bytes(msgspec.json.encode(identity, order="sorted"))

    def make(earlier: list[LedgerEntry]) -> dict[str, Any] | LedgerEntry:
        own = [
            e
            for e in earlier
            if e.kind == KIND
            and e.body.get("model") == logged.name
            and isinstance(e.body.get("version"), int)
        ]
        for entry in own:
            if entry.body.get("digest") == digest:
                return entry
        version = ModelVersion(
            model=logged.name,
            version=1 + max([_highest(workspace, logged.name), *(e.body["version"] for e in own)]),
            digest=digest,
            run_id=run.run_id,
            commit=run.commit,
            created_at=workspace.now(),
            metrics=logged.metrics,
            format=logged.format,
            files=files,
            environment_id=run.environment_id,
            notebook=logged.notebook,
            notebook_blob=logged.notebook_blob,
            cell_id=logged.cell_id,
            cell=logged.cell,
            cell_is="tagged" if logged.tagged else "log_model",
            snapshot=run.snapshot,
            run_digest=run_digest,
            data=run.data,
            author=run.author,
            probe=logged.probe,
            loader=logged.loader,
            command=logged.command,
            image=logged.image,
            project_dir=run.project_dir,
        )
        return records.plain(version)

    entry = decisions.decide(workspace, KIND, make)
    return msgspec.convert(entry.body, ModelVersion)


def _highest(workspace: Workspace, model: str) -> int:
    """Return the highest number that the store knows: one is never given twice."""
    kept = workspace.store.page(KIND, ModelVersion, limit=_ALL)
    return max((item.record.version for item in kept if item.record.model == model), default=0)


def keep(workspace: Workspace, version: ModelVersion) -> None:
    """Write a version of the ledger into the store's index of versions.

    Raises
    ------
    Conflict
        When the store has another model under that name.
    """
    found = workspace.store.get(KIND, version.name, ModelVersion)
    if found is None:
        key = f"{KIND}:{version.name}:{version.digest}"
        workspace.store.swap(KIND, version.name, version, expected=0, key=key)
    elif found.record.name != version.name:  # what had the name has another one now
        key = f"{KIND}:{version.name}:{version.digest}:{found.revision}"
        workspace.store.swap(KIND, version.name, version, expected=found.revision, key=key)
    elif found.record.digest != version.digest:
        raise Conflict(
            f"ledger and store have different models as {version.name}", "See: `nbmlops doctor`."
        )


def index(workspace: Workspace) -> int:
    """Write all versions of the ledger into the store; return how many were missing there."""
    there = {kept.record.name for kept in workspace.store.page(KIND, ModelVersion, limit=_ALL)}
    missing = [version for version in recorded(workspace) if version.name not in there]
    for version in missing:
        keep(workspace, version)
    return len(missing)


def recorded(workspace: Workspace) -> list[ModelVersion]:
    """Return the versions of the ledger; an entry that is none is passed over."""
    return [version for _, version in decisions.versions(ledger.entries(workspace.repo))]


def aliased(workspace: Workspace, found: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Return the versions with the aliases that stand now."""
    standing = decisions.aliases(ledger.entries(workspace.repo))
    return [
        records.replace(version, aliases=names_of(standing.get(version.model, {}), version.version))
        for version in found
    ]


def pushed(workspace: Workspace, found: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Return the versions, each with whether a git remote has its number too.

    Without a remote nobody else can give a number: then it is ``None``.
    """
    heads = ledger.remote_heads(workspace.repo)
    if heads is None:
        return list(found)
    there = {
        (version.name, version.digest)
        for head in heads.values()
        for _, version in decisions.versions(ledger.entries_of(workspace.repo, head))
    }
    return [
        records.replace(version, pushed=(version.name, version.digest) in there)
        for version in found
    ]


def names_of(aliases: dict[str, int], version: int) -> tuple[str, ...]:
    """Return the aliases that name a version, sorted."""
    return tuple(sorted(alias for alias, named in aliases.items() if named == version))


def checked_alias(alias: str) -> str:
    """Return a word that can be an alias, or refuse it.

    Raises
    ------
    InvalidName
        For anything but a letter and up to 62 letters, digits and hyphens, all lower-case; and for
        ``latest``, which would say what it does not mean.
    """
    if alias == "latest" or not _ALIAS.fullmatch(alias):
        raise InvalidName(
            f"{alias[:60]!r} cannot be an alias",
            "The newest version needs none: its model's name alone means it."
            if alias == "latest"
            else "Use a lower-case letter, then letters, digits and hyphens, such as `best`.",
            alias=alias[:200],
        )
    return alias


def set_alias(workspace: Workspace, reference: str, alias: str) -> AliasDecision | None:
    """Let an alias name a version; ``None`` when it does so already.

    Raises
    ------
    UnknownModel
        When there is no such version.
    InvalidName
        When the word cannot be an alias.
    """
    version = find(workspace, reference)
    return _decide_alias(workspace, version, checked_alias(alias), removed=False)


def take_alias(workspace: Workspace, reference: str, alias: str) -> AliasDecision | None:
    """Take an alias from the version that it names.

    Raises
    ------
    UnknownAlias
        When it does not name that version.
    """
    version = find(workspace, reference)
    return _decide_alias(workspace, version, checked_alias(alias), removed=True)


def _decide_alias(
    workspace: Workspace, version: ModelVersion, alias: str, *, removed: bool
) -> AliasDecision | None:
    stands = False

    def make(earlier: list[LedgerEntry]) -> dict[str, Any] | LedgerEntry:
        nonlocal stands
        number = decisions.numbered(earlier, version)
        named = decisions.aliases(earlier).get(version.model, {}).get(alias)
        if removed and named != number:
            raise UnknownAlias(
                f"`{alias}` is no alias of {version.model}:{number}",
                f"It names {version.model}:{named}." if named else "See them: `nbmlops models`.",
                model=version.model,
                alias=alias,
            )
        stands = named == number and not removed
        if stands:
            return earlier[-1]
        return records.plain(
            AliasDecision(
                model=version.model,
                version=number,
                version_digest=version.digest,
                alias=alias,
                removed=removed,
                moved_from=None if removed else named,
            )
        )

    entry = decisions.decide(workspace, "alias", make)
    return None if stands else decisions.read(entry, AliasDecision)


def versions(workspace: Workspace, model: str | None = None) -> list[ModelVersion]:
    """Return the versions, of one model or all, newest first, as the ledger counts them.

    Clocks have no say in it, nor has the store, which may have yet to follow the ledger. Of the
    store alone are those whose entry is lost or cannot be read; they come last.

    Raises
    ------
    UnknownModel
        When the named model has none.
    """
    return _versions(workspace, list(ledger.entries(workspace.repo)), model)


def _versions(
    workspace: Workspace, entries: Iterable[LedgerEntry], model: str | None
) -> list[ModelVersion]:
    every: dict[str, ModelVersion] = {}
    for _, version in decisions.versions(entries):
        every.setdefault(version.name, version)
    every = dict(reversed(every.items()))
    known = {(version.model, version.digest) for version in every.values()}
    kept: list[Kept[ModelVersion]] = workspace.store.page(KIND, ModelVersion, limit=_ALL)
    for item in kept:
        if (item.record.model, item.record.digest) not in known:
            every.setdefault(item.record.name, item.record)
    found = [version for version in every.values() if model is None or version.model == model]
    if model is not None and not found:
        names = {version.model for version in every.values()}
        raise UnknownModel(
            f"there is no model `{model}`",
            nearest(model, names) if names else "Train one: `nbmlops train`.",
            model=model,
        )
    return found


def find(workspace: Workspace, reference: str) -> ModelVersion:
    """Return the version that ``NAME`` (its newest), ``NAME:V`` or ``NAME@ALIAS`` names.

    Raises
    ------
    UnknownModel
        When there is none.
    UnknownAlias
        When no version has that alias.
    """
    entries = list(ledger.entries(workspace.repo))
    name, at, alias = reference.partition("@")
    if at:
        _versions(workspace, entries, name)
        standing = decisions.aliases(entries).get(name, {})
        reference = f"{name}:{named(name, standing, alias)}"
    name, colon, number = reference.partition(":")
    for _, version in decisions.versions(entries, name if colon else ""):
        if number == str(version.version):
            return version
    found = _versions(workspace, entries, name)
    if not colon:
        return max(found, key=lambda version: version.version)
    for version in found:
        if number == str(version.version):
            return version
    raise UnknownModel(
        f"model `{name}` has no version `{number}`",
        f"It has {', '.join(str(version.version) for version in found[:10])}.",
        model=reference,
    )


def again(workspace: Workspace, version: ModelVersion) -> ModelVersion:
    """Return a version that was found before, under the number that it has now.

    Raises
    ------
    UnknownModel
        When it is gone.
    """
    found = of_digest(workspace, version.model, version.digest)
    return find(workspace, version.name) if found is None else found


def of_digest(workspace: Workspace, model: str, digest: str) -> ModelVersion | None:
    """Return the version of a model that has this digest, whatever its number."""
    entries = list(ledger.entries(workspace.repo))
    number = decisions.number(entries, model, digest)
    return None if number is None else find(workspace, f"{model}:{number}")


def named(model: str, aliases: dict[str, int], alias: str) -> int:
    """Return the version that an alias names.

    Raises
    ------
    UnknownAlias
        When it names none.
    """
    if alias not in aliases:
        raise UnknownAlias(
            f"no version of `{model}` has the alias `{alias[:60]}`",
            nearest(alias, aliases) if aliases else f"Set it: `nbmlops alias {model} NAME`.",
            model=model,
            alias=alias[:200],
        )
    return aliases[alias]


def schema(workspace: Workspace, version: ModelVersion) -> ModelSchema:
    """Return what the version takes and answers."""
    return records.load(workspace.artifacts.get(version.files["schema"].digest), ModelSchema)


def bounded(workspace: Workspace, version: ModelVersion, *, lenient: bool = False) -> ModelSchema:
    """Return what the version takes and answers, within the bounds that ``nbmlops.toml`` declares.

    They belong to whoever judges answers, not to the version: they change without a training.
    ``lenient`` warns of bounds that cannot be this version's, and leaves what was inferred: what
    was decided to serve, serves.

    Raises
    ------
    InvalidSettings
        When the declared bounds cannot be this version's.
    """
    contract = schema(workspace, version)
    declared = declared_bounds(workspace, version)
    if declared is None:
        return contract
    where = f"{workspace.root / layout.SETTINGS_FILE}: [models.{version.model}.bounds]"
    try:
        output = contracts.bounded(contract.output, declared, where)
    except InvalidSettings as error:
        if not lenient:
            raise
        workspace.warn(f"warning: {version.name} has its inferred bounds: {error.message}")
        return contract
    return records.replace(contract, output=output)


def declared_bounds(workspace: Workspace, version: ModelVersion) -> Bounds | None:
    """Return what ``nbmlops.toml`` says of the model's answers."""
    entry = workspace.settings.models.get(version.model)
    return entry.bounds if entry else None


def check_bounds(workspace: Workspace, version: ModelVersion) -> None:
    """Refuse declared bounds that cannot be this version's, and warn of those of no model.

    Raises
    ------
    InvalidSettings
        When they cannot.
    """
    if declared_bounds(workspace, version) is not None:
        bounded(workspace, version)
    named = [name for name, entry in workspace.settings.models.items() if entry.bounds]
    if all(name == version.model for name in named):
        return
    known = {one.model for one in versions(workspace)}
    for name in named:
        if name not in known:
            workspace.warn(
                f"[models.{name}.bounds] bounds nothing: no model is called `{name}`."
                f" {nearest(name, known)}"
            )


def sample(workspace: Workspace, version: ModelVersion) -> Sample | None:
    """Return rows with the version's own predictions for them, if it has any."""
    file = version.files.get("sample")
    return None if file is None else records.load(workspace.artifacts.get(file.digest), Sample)


def environment(workspace: Workspace, version: ModelVersion) -> Environment:
    """Return the environment that the version was trained in."""
    return records.load(workspace.artifacts.get(version.files["environment"].digest), Environment)
