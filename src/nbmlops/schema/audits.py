"""Tables held against a schema, a chunk at a time: what is wrong in each column, and how often.

:func:`~nbmlops.schema.checking.check` refuses a call at its first bad value. An :class:`Audit`
goes on to the table's end and counts. What fits is decided by the same functions; besides, it says
which numbers and categories are unlike the training's, which a call may have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from nbmlops.errors import InvalidRecords
from nbmlops.records import Column, ModelSchema
from nbmlops.records.record import Record
from nbmlops.schema.checking import checked, misfit
from nbmlops.schema.inference import MAX_CATEGORY_LENGTH, widened

MANY_CATEGORIES = 100  # so many new ones are told apart

_OTHERS, _NAME_LENGTH = 200, 120  # of them that are kept, and of each
_NUMBER = Column(name="", kind="number")

TroubleKind = Literal["unreadable", "missing", "wrong", "gap", "below", "above", "new"]


class Trouble(Record, frozen=True, kw_only=True):
    """One kind of trouble in one column, over all rows.

    ``unreadable`` is of the whole file, ``missing`` of a column. ``rows`` says how many rows have
    it, ``row`` (from 1) is the first of them, or that of the extreme value. ``value`` is the
    extreme of ``below`` and ``above``, ``trained`` that of the training, ``limit`` what rows are
    counted beyond. ``words`` say what is wrong with the first value, or with the file, ``hint``
    what mends the file. ``categories`` are the new ones with their rows, the newest last, up to
    ``MANY_CATEGORIES``; ``more`` says that there are others.
    """

    kind: TroubleKind
    column: str = ""
    rows: int = 0
    row: int | None = None
    value: float = 0.0
    trained: float = 0.0
    limit: float = 0.0
    words: str = ""
    hint: str = ""
    categories: dict[str, int] = {}  # noqa: RUF012  # msgspec gives each record its own
    more: bool = False


class Audited(Record, frozen=True, kw_only=True):
    """What an audit found in so many rows.

    ``others`` are the columns of a table that lacks some which the schema does not have: one of
    them may be meant.
    """

    rows: int
    others: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()


class Audit:
    """Holds a table's columns against a schema.

    >>> from nbmlops.records import load
    >>> schema = load(
    ...     '{"columns": [{"name": "age", "kind": "integer", "low": 18, "high": 90}],'
    ...     ' "output": {"kind": "value"}}',
    ...     ModelSchema,
    ... )
    >>> audit = Audit(schema)
    >>> audit.add(1, 3, {"age": [41, None, 400]})
    >>> [(trouble.kind, trouble.row, trouble.rows) for trouble in audit.result().troubles]
    [('gap', 2, 1), ('above', 3, 1)]
    """

    def __init__(self, schema: ModelSchema) -> None:
        self._columns = {column.name: _ColumnAudit(column) for column in schema.columns}
        self._present: tuple[str, ...] = ()
        self._rows = 0
        self._unreadable: tuple[Trouble, ...] = ()

    def add(self, first: int, rows: int, columns: Mapping[str, list[Any]]) -> None:
        """Look at some rows, all of the table's columns or those of the schema.

        ``first`` is the number of the first row.
        """
        if not self._rows:
            self._present = tuple(name for name in columns if name in self._columns)
        self._rows += rows
        for name in self._present:
            self._columns[name].add(first, columns[name])

    def unreadable(self, words: str, hint: str) -> None:
        """Say why the rows after those that were added could not be read."""
        self._unreadable = (Trouble(kind="unreadable", words=words, hint=hint),)

    @property
    def missing(self) -> tuple[str, ...]:
        """The columns that the rows lack; none before there are rows."""
        return tuple(name for name in self._columns if self._rows and name not in self._present)

    def result(self, names: Iterable[str] = ()) -> Audited:
        """Return what was found so far, column by column.

        ``names`` are all columns of the table, asked for where some are missing.
        """
        found = [Trouble(kind="missing", column=name, rows=self._rows) for name in self.missing]
        for name in self._present:
            found += self._columns[name].troubles()
        others = [name[:_NAME_LENGTH] for name in names if name not in self._columns]
        return Audited(
            rows=self._rows,
            others=tuple(others[:_OTHERS]) if self.missing else (),
            troubles=(*self._unreadable, *found),
        )


class _ColumnAudit:
    """One column, so far."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._known = None if column.categories is None else frozenset(column.categories)
        self._bounds: tuple[float, float] | None = None
        if column.low is not None and column.high is not None:
            self._bounds = widened(column.low, column.high)
        self._found: dict[TroubleKind, Trouble] = {}
        self._new: dict[str, int] = {}

    def add(self, first: int, values: list[Any]) -> None:
        """Look at some values, the first of them of row ``first``."""
        present = [value for value in values if value is not None]
        if len(present) < len(values) and (words := misfit(self._column, None)) is not None:
            row = first + values.index(None)
            self._count("gap", len(values) - len(present), row, words=words)
        try:
            plain = checked(self._column, present)
        except InvalidRecords:
            plain = checked(self._column, self._apart(first, values))
        if self._bounds is not None and plain:
            self._hold_numbers(self._bounds, first, plain, values)
        if self._known is not None and (new := set(plain) - self._known):
            self._keep_new(new, first, plain, values)

    def _apart(self, first: int, values: list[Any]) -> list[Any]:
        """Count the values that do not fit, and return the others."""
        good: list[Any] = []
        for row, value in enumerate(values, first):
            if value is None:
                continue
            words = misfit(self._column, value)
            if words is None:
                good.append(value)
            else:
                self._count("wrong", 1, row, words=words)
        return good

    def _count(self, kind: TroubleKind, rows: int, row: int, words: str = "") -> None:
        earlier = self._found.get(kind)
        self._found[kind] = Trouble(
            kind=kind,
            column=self._column.name,
            rows=rows + (earlier.rows if earlier else 0),
            row=earlier.row if earlier else row,
            words=earlier.words if earlier else words,
        )

    def _hold_numbers(
        self, bounds: tuple[float, float], first: int, plain: list[Any], values: list[Any]
    ) -> None:
        low, high = bounds
        least, greatest = min(plain), max(plain)
        if least < low:
            rows = sum(value < low for value in plain)
            row = first + _place(values, least)
            self._count_beyond("below", rows, row, float(least))
        if greatest > high:
            rows = sum(value > high for value in plain)
            row = first + _place(values, greatest)
            self._count_beyond("above", rows, row, float(greatest))

    def _count_beyond(
        self, kind: Literal["below", "above"], rows: int, row: int, value: float
    ) -> None:
        earlier = self._found.get(kind)
        if earlier is not None:
            rows += earlier.rows
            outer = min if kind == "below" else max
            if outer(earlier.value, value) == earlier.value:
                row, value = earlier.row or row, earlier.value
        trained = self._column.low if kind == "below" else self._column.high
        self._found[kind] = Trouble(
            kind=kind,
            column=self._column.name,
            rows=rows,
            row=row,
            value=value,
            trained=trained or 0.0,
            limit=(self._bounds or (0.0, 0.0))[kind == "above"],
        )

    def _keep_new(self, new: set[str], first: int, plain: list[Any], values: list[Any]) -> None:
        # Counter keeps the order of the first appearance.
        seen = Counter(value for value in plain if value in new)
        self._count("new", seen.total(), first + values.index(next(iter(seen))))
        for value, rows in seen.items():
            short = value[:MAX_CATEGORY_LENGTH]
            self._new[short] = self._new.get(short, 0) + rows
            if len(self._new) > MANY_CATEGORIES + 1:  # one more tells that there are more
                self._new.pop(next(iter(self._new)))

    def troubles(self) -> list[Trouble]:
        """Return what was found in the column."""
        found = [trouble for kind, trouble in self._found.items() if kind != "new"]
        if "new" in self._found:
            about = self._found["new"]
            newest = list(self._new.items())[-MANY_CATEGORIES:]
            found.append(
                Trouble(
                    kind="new",
                    column=about.column,
                    rows=about.rows,
                    row=about.row,
                    categories=dict(newest),
                    more=len(self._new) > MANY_CATEGORIES,
                )
            )
        return found


def _place(values: list[Any], number: float) -> int:
    """Return where a number stands that was one of the values before it was converted."""
    for place, value in enumerate(values):
        # Large integers differ from the double that they became.
        if isinstance(value, int | float) and not isinstance(value, bool) and value == number:
            return place
    return next(
        place
        for place, value in enumerate(values)
        if isinstance(value, int) and misfit(_NUMBER, value) is None and float(value) == number
    )
