"""The catalogue: a model with its versions, what stands where, and who decided it when.

Everything here is read from the ledger, in the order of its entries, so it can be asked of any
moment. An entry counts as before a moment by its own time, the clock of whoever decided; among
those that count, what comes later in the ledger stands, whatever the clocks say.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Any, Literal

import msgspec

from nbmlops import decisions, deployments, ledger, models, rebuilding
from nbmlops.decisions import Placed
from nbmlops.errors import NbmlopsError, UnknownModel, UnknownReference, WrongUse
from nbmlops.records import (
    AliasDecision,
    CatalogVersion,
    Decision,
    LedgerEntry,
    Lineage,
    ModelReport,
    ModelVersion,
    Placement,
    replace,
)
from nbmlops.workspace import Workspace

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def report(workspace: Workspace, reference: str, *, at: str | None = None) -> ModelReport:
    """Return a model as it stands, or as it stood at a moment.

    ``reference`` is ``NAME`` (its newest version), ``NAME:V`` or ``NAME@ALIAS``, each as of that
    moment.

    Raises
    ------
    UnknownModel
        When there was no such version.
    UnknownAlias
        When no version had that alias.
    WrongUse
        When ``at`` is no date.
    """
    moment = None if at is None else moment_of(at)
    model = re.split("[:@]", reference)[0]
    models.versions(workspace, model)  # an unknown name is answered with the nearest one
    everything = list(ledger.entries(workspace.repo))
    entries = [entry for entry in everything if moment is None or entry.at <= moment]
    known = [version for _, version in decisions.versions(entries) if version.model == model]
    if not known:
        raise _not_yet(everything, model, moment)
    aliases = decisions.aliases(entries).get(model, {})
    asked = _asked(reference, known, aliases, moment)
    placed = _placements(workspace, entries, model, live=moment is None)
    return ModelReport(
        model=model,
        version=asked.version,
        at=moment,
        versions=tuple(_version(version, aliases, placed) for version in reversed(known)),
        aliases=dict(sorted(aliases.items())),
        deployed=placed,
        lineage=_lineage(workspace, asked),
        history=tuple(
            made
            for entry in entries
            if (made := decision(entry)) is not None and _is_of(entry, model)
        ),
    )


def moment_of(text: str) -> datetime:
    """Return the moment that a person means: the end of a day in UTC, or an RFC 3339 time.

    >>> moment_of("2026-05-01")
    datetime.datetime(2026, 5, 1, 23, 59, 59, 999999, tzinfo=datetime.timezone.utc)
    >>> moment_of("2026-05-01T14:00:00+02:00")
    datetime.datetime(2026, 5, 1, 12, 0, tzinfo=datetime.timezone.utc)

    Raises
    ------
    WrongUse
        When it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
        if _DATE.fullmatch(text):
            return datetime.combine(moment.date(), time.max, UTC)
        if moment.tzinfo is not None and "T" in text.upper():
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise WrongUse(
        f"{text[:60]!r} is neither a date nor a time with its zone",
        "Write `2026-05-01` (the end of that day, UTC) or `2026-05-01T12:00:00Z`.",
    )


def _not_yet(entries: list[LedgerEntry], model: str, moment: datetime | None) -> UnknownModel:
    first = next(
        (entry for entry, version in decisions.versions(entries) if version.model == model), None
    )
    if first is None or moment is None:
        return UnknownModel(
            f"model `{model}` is not in the ledger", "See: `nbmlops doctor`.", model=model
        )
    return UnknownModel(
        f"model `{model}` had no version at {_shown(moment)}",
        f"Its first was registered at {_shown(first.at)}.",
        model=model,
    )


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _asked(
    reference: str, known: list[ModelVersion], aliases: dict[str, int], moment: datetime | None
) -> ModelVersion:
    model, at, alias = reference.partition("@")
    number = str(models.named(model, aliases, alias)) if at else reference.partition(":")[2]
    if not number and ":" not in reference:
        return max(known, key=lambda version: version.version)
    for version in known:
        if str(version.version) == number:
            return version
    when = "" if moment is None else f" at {_shown(moment)}"
    raise UnknownModel(
        f"model `{known[0].model}` has no version `{number[:20]}`{when}",
        f"It has {', '.join(str(version.version) for version in known[-10:])}.",
        model=reference[:200],
    )


def _version(
    version: ModelVersion, aliases: dict[str, int], placed: tuple[Placement, ...]
) -> CatalogVersion:
    return CatalogVersion(
        model=version.model,
        version=version.version,
        digest=version.digest,
        run_id=version.run_id,
        commit=version.commit,
        created_at=version.created_at,
        stage=version.stage,
        aliases=models.names_of(aliases, version.version),
        metrics=version.metrics,
        author=version.author,
        endpoints=tuple(item.endpoint for item in placed if item.version == version.version),
    )


def _placements(
    workspace: Workspace, entries: list[LedgerEntry], model: str, *, live: bool
) -> tuple[Placement, ...]:
    found: list[Placement] = []
    standing = {
        # What tells no place counts in each: it stands once all the same.
        (name, traffic.standing.decision.deployment_id if traffic.standing else ""): traffic
        for place in dict.fromkeys(entry.place for entry in entries)
        for name, traffic in decisions.traffic(decisions.of_place(entries, place)).items()
    }
    for (name, _), traffic in sorted(standing.items(), key=lambda pair: pair[0]):
        item = traffic.standing
        if item is None or item.decision.model != model:
            continue
        made = Placement(
            endpoint=name,
            version=item.decision.version,
            deployment_id=item.decision.deployment_id,
            since=item.entry.at,
            author=item.entry.author,
            sequence=item.entry.sequence,
            reason=item.decision.reason,
            url=item.decision.url,
        )
        found.append(_seen(workspace, made) if live else made)
    return tuple(found)


def _seen(workspace: Workspace, placement: Placement) -> Placement:
    """Return a placement with what is seen of it now."""
    try:
        record = deployments.get(workspace, placement.deployment_id)
    except UnknownReference:
        return placement
    return replace(placement, url=record.url, status=record.status.value, ready=record.ready)


def _lineage(workspace: Workspace, version: ModelVersion) -> Lineage:
    missing: list[str] = []
    parameters: dict[str, Any] = {}
    columns: dict[str, str] = {}
    output: Literal["label", "value"] | None = None
    try:
        parameters = rebuilding.run(workspace, version).parameters
    except (NbmlopsError, msgspec.DecodeError):
        missing.append(f"run/{version.run_id}")
    try:
        schema = models.schema(workspace, version)
        columns = {column.name: column.kind for column in schema.columns}
        output = schema.output.kind
    except (NbmlopsError, msgspec.DecodeError, KeyError):
        missing.append("schema")
    return Lineage(
        version=version.version,
        digest=version.digest,
        run_id=version.run_id,
        run_digest=version.run_digest,
        commit=version.commit,
        snapshot=version.snapshot,
        notebook=version.notebook,
        notebook_blob=version.notebook_blob,
        cell=version.cell,
        cell_id=version.cell_id,
        cell_is=version.cell_is,
        parameters=parameters,
        data=version.data,
        environment_id=version.environment_id,
        format=version.format,
        files=version.files,
        columns=columns,
        output=output,
        missing=tuple(missing),
    )


# --- what was decided, in words -----------------------------------------------------------------


def _is_of(entry: LedgerEntry, model: str) -> bool:
    return entry.body.get("model") == model


def decision(entry: LedgerEntry) -> Decision | None:
    """Return an entry as a decision with a sentence; ``None`` for one of another kind."""
    for _, version in decisions.versions([entry]):
        return Decision(
            sequence=entry.sequence,
            kind="version",
            at=entry.at,
            author=entry.author,
            what=f"registered {version.name}",
            version=version.version,
        )
    for _, alias in decisions.moved([entry]):
        return Decision(
            sequence=entry.sequence,
            kind="alias",
            at=entry.at,
            author=entry.author,
            what=_alias_words(alias),
            version=alias.version,
            alias=alias.alias,
            removed=alias.removed,
        )
    for item in decisions.placed([entry]):
        return _placed_words(item)
    return None


def _alias_words(decision: AliasDecision) -> str:
    name = f"{decision.model}:{decision.version}"
    if decision.removed:
        return f"took the alias {decision.alias} from {name}"
    if decision.moved_from is not None:
        return f"moved the alias {decision.alias} from {decision.moved_from} to {name}"
    return f"gave {name} the alias {decision.alias}"


def _placed_words(item: Placed) -> Decision:
    decision = item.decision
    name = f"{decision.model}:{decision.version}"
    kind: Literal["deployed", "rolled-back", "undeployed", "taken-back"] = "deployed"
    what = f"deployed {name} at {decision.endpoint}"
    if item.entry.kind == "undeployed":
        kind = "undeployed"
        what = f"stopped {decision.endpoint}, which served {name}"
        if decision.cause is not None:
            kind = "taken-back"
            what = f"took back {name} from {decision.endpoint}: {decision.cause.message}"
    elif decision.reason == "rollback":
        kind = "rolled-back"
        what = f"rolled {decision.endpoint} back from {decision.rolled_back_from} to {name}"
    return Decision(
        sequence=item.entry.sequence,
        kind=kind,
        at=item.entry.at,
        author=item.entry.author,
        what=what,
        version=decision.version,
        endpoint=decision.endpoint,
        deployment_id=decision.deployment_id,
    )
