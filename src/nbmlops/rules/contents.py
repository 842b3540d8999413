"""What stands in the files of ``[data]``, held against the model that they are for.

Files are read a chunk at a time. What was found is kept by the bytes of file and schema, so that
data which have not changed are not read again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from nbmlops import datasets, layout, models, sheets
from nbmlops.datasets import Present
from nbmlops.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    MissingExtra,
    UnknownModel,
    nearest,
)
from nbmlops.project import DataSettings
from nbmlops.records import Column, ModelSchema, ModelVersion
from nbmlops.rules.rule import Fault, Tree
from nbmlops.schema import MANY_CATEGORIES, Audit, Audited, Trouble, checking
from nbmlops.workspace import Workspace

SCHEMA, RANGE = CODES = ("data-schema", "data-range")

_ANEW = 1  # counts how files are looked at; another way gets another number
_KEPT_SCHEMAS = 32
_KEPT_FILES = 20_000
_KEEP_EVERY_S = 5.0
_SAY_EVERY_S = 1.0
_CHUNK_CELLS = 500_000
_SHOWN_CATEGORIES = 5
_LISTED_COLUMNS = 12  # a finding each; of more that are missing there is one in all
_OF_RANGE = ("below", "above", "new")
# What pandas reads as a gap when nothing else is asked of it, which notebooks rarely do.
_GAPS = {
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}


def unlike_schema(tree: Tree) -> Iterator[Fault]:
    """Find data that a model could not take: columns, kinds, gaps."""
    return (fault for code, fault in tree.data if code == SCHEMA)


def out_of_range(tree: Tree) -> Iterator[Fault]:
    """Find numbers and categories that the model's training had nothing like."""
    return (fault for code, fault in tree.data if code == RANGE)


def look(
    workspace: Workspace, *, say: Callable[[str], None], fetch: bool
) -> Iterator[tuple[str, Fault]]:
    """Yield the faults of all data with a ``schema``, each with the code of its rule.

    Parameters
    ----------
    workspace
        The project.
    say
        Takes a line of progress.
    fetch
        Whether data at a URL are fetched where they have changed; else what was fetched last is
        looked at, if anything.

    Raises
    ------
    DataMissing, StorageFailed
        With ``fetch``, when there is nothing at a URL, or it cannot be read.
    """
    advised: set[str] = set()
    for name, entry in workspace.settings.data_settings().items():
        if entry.schema is None:
            continue
        try:
            version = models.find(workspace, entry.schema)
        except UnknownModel as error:
            if entry.schema not in advised:
                yield SCHEMA, _without_version(workspace, name, entry.schema, error)
            advised.add(entry.schema)
            continue
        try:
            yield from _Entry(workspace, name, entry, version, say).look(fetch=fetch)
        except (ArtifactCorrupt, ArtifactMissing, MissingExtra) as error:
            message = f"it cannot be held against {version.name}: {error.message}"
            yield SCHEMA, Fault(message, error.hint, path=entry.path)
        except OSError as error:
            yield SCHEMA, _unreadable(entry.path, error)


def _without_version(workspace: Workspace, name: str, reference: str, error: UnknownModel) -> Fault:
    """Return advice before the first version of a model; a wrong number is a fault."""
    try:
        models.versions(workspace, reference.partition(":")[0])
    except UnknownModel:
        return Fault(
            f"[data] `{name}` is held against `{reference}` once it has a version:"
            f" {error.message} yet",
            error.hint,
            path=layout.SETTINGS_FILE,
            level="advise",
        )
    return Fault(
        f"[data] `{name}` has the schema `{reference}`: {error.message}",
        error.hint,
        path=layout.SETTINGS_FILE,
    )


def _unreadable(path: str, error: Exception) -> Fault:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)[:200]
    return Fault(f"it cannot be read: {reason}", "Make it readable, or write it anew.", path=path)


class _Entry:
    """An entry of ``[data]`` and the version whose columns it must have."""

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        settings: DataSettings,
        version: ModelVersion,
        say: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._name = name
        self._path = settings.path
        self._from_url = settings.url is not None
        self._version = version
        self._say = say

    def look(self, *, fetch: bool) -> Iterator[tuple[str, Fault]]:
        """Yield what is wrong with its files; nothing where none is here."""
        found = datasets.present(self._workspace, self._name, fetch=fetch)
        is_there = fetch if self._from_url else (self._workspace.root / self._path).is_dir()
        if not found and not is_there:  # a run says so itself, and names what is missing
            return
        single = len(found) == 1 and found[0].path == self._path
        files = [one for one in found if single or Path(one.path).suffix.lower() in sheets.FORMATS]
        if not files:
            yield (
                SCHEMA,
                Fault(
                    "there is no Parquet, CSV or JSON lines in it",
                    f"Name them by what they are: {', '.join(sheets.FORMATS)}; or take `schema`"
                    f" out of [data.{self._name}].",
                    path=self._path,
                ),
            )
            return
        audits = self._audits(files)
        if not any(audit.rows or audit.troubles for _, audit in audits):
            fix = "Put rows into it, or correct what writes it."
            yield SCHEMA, Fault("it has no rows", fix, path=self._path)
        yield from _faults(self._version, self._name, audits)

    def _audits(self, files: Sequence[Present]) -> list[tuple[str, Audited]]:
        digest = self._version.files["schema"].digest
        contract: ModelSchema | None = None
        audits: list[tuple[str, Audited]] = []
        with _Kept(self._workspace.home.data_checks / f"{digest}.json") as kept:
            for one in files:
                key = f"{_ANEW}{Path(one.path).suffix.lower()}:{one.digest}"
                audit = kept.get(key)
                if audit is None:
                    contract = contract or models.schema(self._workspace, self._version)
                    with self._opened(one) as file:
                        audit = _audited(file, one.path, contract, self._say)
                    if one.file is None or datasets.marked(one.file) == one.mark:
                        kept.put(key, audit)
                audits.append((one.path, audit))
        return audits

    @contextmanager
    def _opened(self, one: Present) -> Generator[Path, None, None]:
        """Give a file to read under its own name: of an artifact a copy that is removed."""
        if one.file is not None:
            yield one.file
            return
        folder = self._workspace.home.scratch / layout.new_id("data")
        try:
            self._workspace.artifacts.copy_to(one.digest, folder / Path(one.path).name)
            yield folder / Path(one.path).name
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _audited(file: Path, path: str, contract: ModelSchema, say: Callable[[str], None]) -> Audited:
    """Read a file to its end, or to where it cannot be read."""
    wanted = {column.name: column for column in contract.columns}
    audit = Audit(contract)
    rows_at_once = max(1, min(sheets.CHUNK_ROWS, _CHUNK_CELLS // max(1, len(wanted))))
    said_s = time.monotonic()
    try:
        is_text = sheets.format_of(file) == "csv"
        for chunk in sheets.read(file, list(wanted), rows_at_once):
            columns = {
                name: _told(values, wanted[name]) if is_text else values
                for name, values in chunk.columns.items()
                if name in wanted
            }
            audit.add(chunk.first, chunk.rows, columns)
            if time.monotonic() - said_s >= _SAY_EVERY_S:
                said_s = time.monotonic()
                say(f"looking at {path}: {chunk.first + chunk.rows - 1:,} rows")
    except sheets.InvalidFile as error:
        audit.unreadable(error.message, error.hint)
    except (ArithmeticError, NotImplementedError, ValueError) as error:  # as pyarrow raises them
        audit.unreadable(f"it cannot be read: {error}"[:300], "Write it anew.")
    return audit.result(sheets.names(file) if audit.missing else ())


def _told(values: list[Any], column: Column) -> list[Any]:
    """Return the texts of a CSV column as a notebook reads them: of their kind, with their gaps."""
    told = sheets.told(values, column.kind)
    if column.kind in {"category", "text"}:
        if not column.nullable or _GAPS.isdisjoint(told):
            return told
        known = column.categories or ()
        return [None if value in _GAPS and value not in known else value for value in told]
    return [None if type(value) is str and value in _GAPS else value for value in told]


class _Kept:
    """What was found before in files that were held against one schema; a mere cache."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._wrote_s = time.monotonic()
        try:
            self._kept = msgspec.json.decode(path.read_bytes(), type=dict[str, Audited])
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            self._kept = {}

    def get(self, key: str) -> Audited | None:
        """Return what was found in the same bytes."""
        return self._kept.get(key)

    def put(self, key: str, audit: Audited) -> None:
        """Remember what was found; written now and then, since looking takes its time."""
        self._kept[key] = audit
        self._changed = True
        if time.monotonic() - self._wrote_s >= _KEEP_EVERY_S:
            self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._changed:
            self._write()

    def _write(self) -> None:
        newest = dict(list(self._kept.items())[-_KEPT_FILES:])
        layout.write_file(self._path, msgspec.json.encode(newest))
        self._wrote_s, self._changed = time.monotonic(), False
        others = sorted(self._path.parent.glob("*.json"), key=_changed_at, reverse=True)
        for path in others[_KEPT_SCHEMAS:]:
            path.unlink(missing_ok=True)


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # somebody else tidies up too
        return 0.0


# --- in words -----------------------------------------------------------------------------------

_Found = Sequence[tuple[str, Audited, Trouble]]


def _faults(
    version: ModelVersion, name: str, audits: Iterable[tuple[str, Audited]]
) -> Iterator[tuple[str, Fault]]:
    """Yield one fault for each column and kind of trouble, over all files of an entry."""
    by_kind: dict[tuple[str, str], list[tuple[str, Audited, Trouble]]] = {}
    rows = 0
    for path, audit in audits:
        rows += audit.rows
        for trouble in audit.troubles:
            by_kind.setdefault((trouble.kind, trouble.column), []).append((path, audit, trouble))
    missing = [found for (kind, _), found in by_kind.items() if kind == "missing"]
    correct = f"Correct the file, or what writes it; or take `schema` out of [data.{name}]."
    if len(missing) > _LISTED_COLUMNS:
        columns = checking.listed([found[0][2].column for found in missing])
        what = f"it has not the columns of {version.name}: {columns}"
        yield SCHEMA, Fault(what, correct, path=missing[0][0][0])
    for (kind, _), found in by_kind.items():
        path, audit, trouble = found[0]
        column = f"column `{trouble.column[:120]}`"
        if kind == "unreadable":
            yield SCHEMA, Fault(f"{trouble.words}{_also(found)}", trouble.hint, path=path)
        elif kind == "missing":
            if len(missing) <= _LISTED_COLUMNS:
                near = f"{nearest(trouble.column, audit.others)} " if audit.others else ""
                what = f"it has no {column}, which {version.name} takes{_also(found)}"
                yield SCHEMA, Fault(what, near + correct, path=path)
        elif kind == "new":
            yield RANGE, _new(column, version, found, rows)
        elif kind in {"below", "above"}:
            yield RANGE, _beyond(column, version, found, rows)
        else:
            what = f"row {trouble.row:,}, {column} {trouble.words} ({_of(found, rows)})"
            fix = f"Correct the file, or what writes it; {version.name} was trained without such."
            yield SCHEMA, Fault(what, fix, path=path)


def _beyond(column: str, version: ModelVersion, found: _Found, rows: int) -> Fault:
    """Return numbers outside the training's range, with the most extreme of them."""
    below = found[0][2].kind == "below"
    path, _, trouble = (min if below else max)(found, key=lambda one: one[2].value)
    side, most = ("below", "least") if below else ("above", "greatest")
    return Fault(
        f"{column} has {_number(trouble.value)} in row {trouble.row:,}, the {most} in the training"
        f" of {version.name} was {_number(trouble.trained)} ({_of(found, rows)},"
        f" {side} {_number(trouble.limit)})",
        "Correct the rows; or, if they are right, train a version with them.",
        path=path,
    )


def _new(column: str, version: ModelVersion, found: _Found, rows: int) -> Fault:
    """Return categories that training never had, the newest few by name."""
    path, _, trouble = found[0]
    seen: dict[str, int] = {}
    for _, _, each in found:
        for category, count in each.categories.items():
            seen[category] = seen.get(category, 0) + count
    newest = list(seen.items())[-_SHOWN_CATEGORIES:]
    shown = ", ".join(f"{text[:40]!r} ({_share(count, rows)})" for text, count in newest)
    more = any(each.more for _, _, each in found) or len(seen) > MANY_CATEGORIES
    count = f"more than {MANY_CATEGORIES}" if more else f"{len(seen)}"
    what = "a category" if count == "1" else f"{count} categories"
    last = ", the newest" if more or len(seen) > len(newest) else ""
    return Fault(
        f"{column} has {what} that {version.name} was not trained with{last}: {shown}; first in"
        f" row {trouble.row:,} ({_of(found, rows)})",
        "Correct the rows; or, if they are right, train a version with them.",
        path=path,
    )


def _number(value: float) -> str:
    return f"{value:.10g}"


def _of(found: _Found, rows: int) -> str:
    count = sum(trouble.rows for _, _, trouble in found)
    files = f", in {len(found)} files" if len(found) > 1 else ""
    return f"{count:,} of {rows:,} rows, {_share(count, rows)}{files}"


def _share(count: int, rows: int) -> str:
    share = count / max(rows, 1)
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _also(found: _Found) -> str:
    """Say that other files of a folder have the same trouble."""
    return f"; so it is in {len(found)} files" if len(found) > 1 else ""
