"""Taking in a file of truths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nbmlops import calls, digests, models, sheets
from nbmlops.actuals.keeping import Actual, keep, kept
from nbmlops.actuals.matching import CALL, InvalidActuals, Place, Told, by_call, by_key
from nbmlops.calllog import redaction
from nbmlops.errors import WrongUse, nearest
from nbmlops.records import Actuals, OutputSchema
from nbmlops.schema import spelled_class
from nbmlops.workspace import Workspace

LATE = timedelta(days=30)
_LEAVE_OUT = "Leave such rows out; NaN counts as missing."
_ROW = re.compile(r"([0-9]{1,18})(?:\.0*)?")  # with a point where some rows have none, from pandas
LABELS = ("actual", "label", "truth", "target")


def take(
    workspace: Workspace,
    endpoint: str,
    file: Path,
    *,
    by: str | None = None,
    label: str | None = None,
) -> Actuals:
    """Take in the truths of a file: Parquet, CSV or JSON lines.

    Of a deployment, truths about its calls alone; they are kept with those of its endpoint.
    A row names its record by ``call_id``, and ``row`` where the call had several; or, with ``by``,
    by a column of the inputs or by ``client_id``. Where several calls share the key, the newest
    counts, or the newest up to the row's ``at``. ``label`` is the column of the truth; without it
    ``actual``, ``label``, ``truth`` or ``target``, or the only column that is left. A truth that is
    NaN counts as missing, and every row has one.

    Raises
    ------
    UnknownEndpoint
        When there never was such an endpoint.
    InvalidFile
        When the file cannot be read or lacks a column.
    InvalidActuals
        When a truth is no answer that the model can give, or a row's record is not clear.
    """
    if "" in (by, label):
        raise WrongUse("a column without a name is none", "Name it: `--by COLUMN --label COLUMN`.")
    by = CALL if by is None else by
    known = calls.deployments_of(workspace, endpoint)
    endpoint = calls.endpoint_of(workspace, endpoint)
    header = sheets.names(file)
    sheets.require(file, header, [by, *([label] if label else [])], "the actuals")
    label = label or _label(file, [name for name in header if name not in {by, "row", "at"}])
    digest = digests.of_file(file)
    told = list(_rows(file, by, label, header))
    with workspace.exclusively(f"actuals-{endpoint}"):
        find = by_call if by == CALL else by_key
        found = find(workspace, known, told, by)
        tally, fresh = _judged(workspace, endpoint, file, told, found)
        if fresh:
            keep(workspace, endpoint, digest, fresh)
    return Actuals(
        endpoint=endpoint,
        source=str(file),
        source_digest=digest,
        label=label,
        by=by,
        rows=len(told),
        created_at=workspace.now(),
        **tally,
    )


def _label(file: Path, left: list[str]) -> str:
    for name in LABELS:
        if name in left:
            return name
    if len(left) == 1:
        return left[0]
    listed = ", ".join(f"`{name}`" for name in left) or "no other column"
    raise sheets.InvalidFile(
        f"{file.name} has {listed}: which one is the truth?", "Name it: --label COLUMN."
    )


def _rows(file: Path, by: str, label: str, header: list[str]) -> Iterator[Told]:
    wanted = [name for name in (by, "row", label, "at") if name in header]
    for chunk in sheets.read(file, wanted):
        none = [None] * chunk.rows
        columns = (chunk.columns.get(name, none) for name in (by, "row", label, "at"))
        for number, (key, row, truth, at) in enumerate(zip(*columns, strict=True), chunk.first):
            place = f"{file.name} row {number:,}"
            if key is None or truth is None:
                what = by if key is None else label
                raise InvalidActuals(f"{place}: `{what}` is missing", _LEAVE_OUT)
            yield Told(
                number,
                redaction.spelled(key).removeprefix("call/" if by == CALL else ""),
                None if row is None else _whole(row, place),
                truth,
                None if at is None else _time(at, place),
            )


def _whole(row: Any, place: str) -> int:
    found = _ROW.fullmatch(str(row))
    if found is None:
        raise InvalidActuals(
            f"{place}: `row` is {str(row)[:40]!r}", "It counts a call's records from 0."
        )
    return int(found[1])


def _time(at: Any, place: str) -> datetime:
    try:
        found = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    except ValueError:
        raise InvalidActuals(
            f"{place}: `at` is {str(at)[:40]!r}, no time", "Write it as 2026-01-31T12:00:00Z."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _judged(
    workspace: Workspace,
    endpoint: str,
    file: Path,
    told: list[Told],
    found: dict[int, tuple[Place, bool]],
) -> tuple[dict[str, int], list[Actual]]:
    """Return the counts, and the truths that are new."""
    concerned = {(place.call_id, place.row) for place, _ in found.values()}
    standing = {
        (one.call_id, one.row): one.actual
        for one in kept(workspace, endpoint)
        if (one.call_id, one.row) in concerned
    }
    tally: dict[str, int] = dict.fromkeys(
        ("joined", "duplicates", "conflicting", "unknown", "late", "ambiguous"), 0
    )
    outputs: dict[str, OutputSchema] = {}
    fresh: dict[tuple[str, int], Actual] = {}
    now = workspace.now()
    for one in told:
        if one.number not in found:
            tally["unknown"] += 1
            continue
        place, ambiguous = found[one.number]
        if place.version not in outputs:
            version = models.find(workspace, place.version)
            outputs[place.version] = models.schema(workspace, version).output
        truth = _checked(outputs[place.version], one, file, place.version)
        name = (place.call_id, place.row)
        if name not in standing:
            tally["joined"] += 1
        elif standing[name] == truth:
            tally["duplicates"] += 1
        else:
            tally["conflicting"] += 1
        tally["late"] += (one.at or now) - place.at > LATE
        tally["ambiguous"] += ambiguous
        if standing.get(name) != truth or name not in standing:
            standing[name] = truth
            fresh[name] = Actual(*name, truth, now)
    return tally, list(fresh.values())


def _is_finite(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # whole numbers that no double can hold
        return False


def _checked(output: OutputSchema, one: Told, file: Path, version: str) -> Any:
    """Return a truth as the model answers it."""
    place = f"{file.name} row {one.number:,}"
    kind = "number" if output.kind == "value" else output.class_kind
    value = sheets.told([one.truth], kind)[0] if isinstance(one.truth, str) else one.truth
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise InvalidActuals(
            f"{place}: the truth is missing: {str(one.truth)[:60]!r}",
            _LEAVE_OUT,
            row=one.number,
        )
    if output.kind == "value":
        if _is_finite(value):
            return float(value)
        raise InvalidActuals(
            f"{place}: {str(one.truth)[:60]!r} is no finite number, as {version} answers them",
            "Correct it, or name another column: --label COLUMN.",
            row=one.number,
        )
    classes = output.classes or ()
    convert: dict[str, Callable[[Any], Any]] = {"integer": int, "boolean": bool, "number": float}
    fits = isinstance(value, bool if kind == "boolean" else str if kind == "text" else int | float)
    if kind == "text" and not fits:
        value, fits = redaction.spelled(value), True
    finite = not isinstance(value, float) or math.isfinite(value)
    if fits and finite and spelled_class(kind, value) in classes:
        return convert.get(kind, str)(value)
    raise InvalidActuals(
        f"{place}: {str(one.truth)[:60]!r} is no class of {version}",
        nearest(str(one.truth), classes),
        row=one.number,
    )
