"""Profiles: bounded, mergeable summaries of training data and of windows of calls.

A reference profile is made beside the model, in the user's own environment, where nothing but
numpy and msgspec need be; it says on which cells each column is counted, and what training had
there. A window is counted on the same cells, in one pass, and windows add up: a month is the sum of
its hours. Neither holds rows.

A *variable* is what is counted of one column: its numbers, its names (categories, truth values), or
the lengths of its texts where there are too many names to know. The counts of all variables lie one
after another in one array, so that hundreds of windows are read and added in a moment.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring import columns, copies, dispersion
from nbmlops.monitoring.arrays import pack, unpack
from nbmlops.monitoring.cells import FINITE_LIMIT, Grid, Ruler, grid
from nbmlops.monitoring.coarse import Coarse, of_names, of_numbers
from nbmlops.monitoring.columns import Codes, Floats, Names, Numbers
from nbmlops.monitoring.copies import RowDigests, RowSample
from nbmlops.monitoring.dispersion import Blocks
from nbmlops.records import Prediction, Record, dump, replace

FORMAT = 3

HEAD_LIMIT = 250
"""How many categories a profile names."""

NEW_LIMIT = 100
"""How many new categories a window names."""

HEAD_SHARE_LEAST = 0.5
"""Categories are counted by name where those that repeat hold this share of the training rows."""

LOGS_OUTER = 0.02
"""Which share of values, on either side, is clipped for the sums of logarithms."""

OUTPUT = "prediction"
"""What the variable of labels and predictions is called."""

_RUNS_ROWS = 10
_FIRST = 256  # values, which are looked at before all are
_CANCELLED = 16  # times fewer than the squares, and a digit of their difference is lost
_IDS_ROWS = 100
_IDS_SPAN = 10
_PACKED_COLUMNS = 200
_PACKED_BYTES = 256 * 1024
Counts = NDArray[np.int64]


class Variable(Record, frozen=True, kw_only=True):
    """What is counted of a column, and on which cells.

    With ``names`` there is a cell for each, the most frequent first, and one for all others;
    ``closed`` says that training had no others, and ``distinct`` how many it had. ``clock`` says
    that the values grew from row to row, or number the rows.
    """

    name: str
    kind: str
    by: Literal["numbers", "names", "lengths"]
    grid: Grid = Grid()
    names: tuple[str, ...] = ()
    closed: bool = True
    distinct: int = 0
    clock: bool = False


class Logs(NamedTuple):
    """How many numbers there are that are not 0; sum, and sum of squares, of the logarithms.

    Those of their absolute values, by which a change of unit is told from others.
    """

    rows: int = 0
    first: float = 0.0
    second: float = 0.0


NO_LOGS = Logs()


class Tally(Record, frozen=True, kw_only=True):
    """What was counted of some rows.

    ``cells`` has the counts of all variables' cells; ``sums`` of each variable how many values were
    there, missing, not finite, and of another type; ``moments`` the least, the greatest, the mean
    and the sum of squared differences from it, NaN where there are none. ``unseen`` has the most
    frequent of the names that training did not have, by the variable's place; ``beyond`` how large
    the numbers outside of training's range are. ``predictions`` and ``out_of_bounds`` count
    answers.
    """

    rows: int
    cells: bytes
    sums: bytes
    moments: bytes
    unseen: dict[int, dict[str, int]] = msgspec.field(default_factory=dict)
    beyond: dict[int, Logs] = msgspec.field(default_factory=dict)
    blocks: Blocks = Blocks()
    row_sample: RowSample = RowSample()
    predictions: int = 0
    out_of_bounds: int = 0


class Profile(Record, frozen=True, kw_only=True):
    """The training data: the variables, the last of which is the output where there is one.

    ``ordered`` says that rows may stand in the order of time; then ``stretches`` has how far parts
    of so many rows lie from the whole: see :mod:`~nbmlops.monitoring.dispersion`. ``answered`` is
    what the model itself answered when it was logged: of labels the counts of the coarse cells, of
    values the mean, the variance and how many they were.
    """

    format: int = FORMAT
    variables: tuple[Variable, ...]
    has_output: bool
    tally: Tally
    ordered: bool = False
    stretches: dict[int, bytes] = msgspec.field(default_factory=dict)
    answered: bytes = b""

    @property
    def rows(self) -> int:
        """How many rows training had."""
        return self.tally.rows


@dataclass(frozen=True, slots=True)
class Counted:
    """One variable's counts: ``cells`` the values that are there, and the ``rows`` of all kinds."""

    cells: Counts
    missing: int
    non_finite: int
    odd: int
    low: float
    high: float
    mean: float
    m2: float
    unseen: Mapping[str, int]
    beyond: Logs = NO_LOGS

    @property
    def count(self) -> int:
        """How many values are there."""
        return int(self.cells.sum())

    @property
    def lost(self) -> int:
        """How many values are infinite, or of another type."""
        return self.non_finite + self.odd

    @property
    def rows(self) -> int:
        """All rows, whatever they held."""
        return self.count + self.missing + self.lost


# --- training -----------------------------------------------------------------------------------


def reference_profile(
    features: Mapping[str, Any],
    kinds: Mapping[str, str],
    target: Any = None,
    *,
    label: bool = True,
    answers: Any = None,
    rows: int | None = None,
) -> Profile:
    """Summarise training data, a column at a time.

    Parameters
    ----------
    features
        Column name to a one-dimensional list, numpy array, Arrow array or pandas Series. A column
        of ``kinds`` that is not there counts as missing throughout; one of no kind is left out.
    kinds
        Which columns there are: ``number``, ``integer``, ``boolean``, ``category``, ``text`` or
        ``datetime``.
    target
        The training labels or values, one for each row; ``None`` where there are none.
    label
        Whether ``target`` holds labels.
    answers
        What the model answers on data like these, on the test set if there is one.
    rows
        How many there are, where ``features`` gives a column only when it is its turn.
    """
    wanted = {str(name): kind for name, kind in kinds.items()}
    if rows is None:
        sizes = [columns.size(features.get(name)) for name in kinds]
        rows = max([*sizes, columns.size(target)], default=0)
    digests = RowDigests(rows)
    made = [
        _trained(name, kind, _padded(features.get(name), rows), digests)
        for name, kind in wanted.items()
    ]
    if target is not None:
        kind = "category" if label else "number"
        made.append(_trained(OUTPUT, kind, _padded(target, rows), None))
    ordered = not any(one.grouped for one in made)
    tally = _tally(rows, [one.counted for one in made], digests.sample(), deflate=True)
    bare = Profile(
        variables=tuple(one.variable for one in made),
        has_output=target is not None,
        tally=replace(
            tally,
            blocks=dispersion.sums([one.coded for one in made], [one.coarse for one in made]),
        ),
        ordered=ordered,
        stretches={
            size: pack(np.array([one.stretches[size] for one in made]))
            for size in (made[0].stretches if made and ordered else ())
        },
    )
    if target is None or not columns.size(answers):
        return bare
    return replace(bare, answered=_answered(Gauge(bare), answers))


class _Trained(NamedTuple):
    """A column of training, summarised: nothing that grows with its rows is kept."""

    variable: Variable
    counted: Counted
    coarse: Coarse
    coded: Codes
    stretches: dict[int, float]
    grouped: bool


def _trained(name: str, kind: str, column: Any, digests: RowDigests | None) -> _Trained:
    variable, read = _variable(name, kind, column, is_label=digests is None)
    if digests is not None:
        digests.add(read)
    part = _part(_Measure(variable), read, None, placed=None)
    coarse = _coarse(part.counted, variable)
    coded = coarse.of_cell[part.places]
    return _Trained(
        variable,
        part.counted,
        coarse,
        coded[: dispersion.LOOKED_AT].copy(),
        dispersion.stretches(coded, coarse),
        _grouped(read, variable),
    )


def _answered(gauge: Gauge, answers: Any) -> bytes:
    """Summarise what the model answered, as :class:`Profile` keeps it."""
    measure, training = gauge.measures[-1], gauge.training[-1]
    found = _part(measure, _read(measure.variable, answers), training).counted
    if measure.variable.by == "numbers":
        if not found.count or not math.isfinite(found.m2):
            return b""
        return pack(np.array([found.mean, found.m2 / max(found.count - 1, 1), found.count]))
    return pack(gauge.coarse[-1].counts(found.cells, found.missing, found.lost).astype(np.int64))


def _variable(
    name: str, kind: str, column: Any, *, is_label: bool
) -> tuple[Variable, Numbers | Names]:
    if kind in {"number", "integer", "datetime"}:
        found = columns.numbers(column)
        values = _finite(found.values).values
        whole = kind == "integer" or (len(values) > 0 and _throughout(_are_whole, values))
        clock = len(values) > 20 and values[0] < values[-1] and _throughout(_grow, values)
        clock = clock or (whole and _are_ids(values))
        variable = Variable(
            name=name, kind=kind, by="numbers", grid=grid(values, whole=whole), clock=bool(clock)
        )
        return variable, found
    named = columns.names(column, kind)
    counts = np.bincount(named.codes[named.codes >= 0], minlength=len(named.names))
    counted = dict(zip(named.names, counts.tolist(), strict=True))
    counted = {text: count for text, count in counted.items() if count}
    head = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:HEAD_LIMIT]
    # A value that occurs once among many is somebody's row, not a category.
    repeated = [(text, count) for text, count in head if count > 1]
    closed = len(counted) <= HEAD_LIMIT
    if not closed:
        head = repeated
    total = sum(counted.values())
    known = head if is_label else repeated
    if sum(count for _, count in known) < HEAD_SHARE_LEAST * total:
        long = columns.lengths(column)
        there = long.values[~np.isnan(long.values)]
        return (
            Variable(
                name=name,
                kind=kind,
                by="lengths",
                grid=grid(there, whole=True),
                distinct=len(counted),
            ),
            long,
        )
    variable = Variable(
        name=name,
        kind=kind,
        by="names",
        names=tuple(text for text, _ in head),
        closed=closed,
        distinct=len(counted),
    )
    return variable, named


def _throughout(test: Callable[[Floats], bool], values: Floats) -> bool:
    """Whether all values pass a test, of which the first ones mostly tell that they do not."""
    return test(values[:_FIRST]) and test(values)


def _are_whole(values: Floats) -> bool:
    return bool((values == np.floor(values)).all())


def _grow(values: Floats) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def _are_ids(values: Floats) -> bool:
    """Whether whole numbers count rows, in whatever order these stand: none occurs twice."""
    if len(values) < _IDS_ROWS:
        return False
    span = float(values.max() - values.min()) + 1
    return len(values) <= span <= _IDS_SPAN * len(values) and len(np.unique(values)) == len(values)


def _grouped(read: Numbers | Names, variable: Variable) -> bool:
    """Whether rows were sorted by a column of few values, so that their order tells no time."""
    if isinstance(read, Names):
        codes, distinct = (
            read.codes[read.codes >= 0],
            len(set(read.codes[read.codes >= 0].tolist())),
        )
    else:
        if variable.clock and variable.kind == "datetime":
            return False
        gaps = np.isnan(read.values)
        codes = read.values[~gaps] if gaps.any() else read.values
        distinct = len(np.unique(codes[:: max(1, len(codes) // 2000)]))
        if distinct > len(codes) / _RUNS_ROWS or distinct > 50:
            return False
        distinct = len(np.unique(codes))
    if distinct < 2 or len(codes) < _RUNS_ROWS * distinct:
        return False
    return int((codes[1:] != codes[:-1]).sum()) + 1 == distinct


def _padded(column: Any, rows: int) -> Any:
    size = columns.size(column)
    if size == rows:
        return column
    return [*(() if column is None else list(column)), *([None] * (rows - size))]


def narrowed(
    reference: Profile, *, hidden: frozenset[str] = frozenset(), limit: int | None = None
) -> Profile:
    """Return what is needed to count the values of some columns, and nothing else.

    These are the first ``limit`` columns that are not ``hidden``, and the output. How rows hang
    together cannot be told any more.
    """
    columns = len(reference.variables) - reference.has_output
    kept = [place for place in range(columns) if reference.variables[place].name not in hidden][
        :limit
    ]
    if reference.has_output:
        kept.append(columns)
    if len(kept) == len(reference.variables) and not reference.tally.blocks.blocks:
        return reference
    training = Gauge(reference).training
    bare = [dataclasses.replace(training[place], unseen={}) for place in kept]
    return Profile(
        variables=tuple(reference.variables[place] for place in kept),
        has_output=reference.has_output,
        tally=_tally(reference.rows, bare, RowSample(), deflate=True),
    )


def packed(reference: Profile, hidden: frozenset[str]) -> bytes:
    """Return a :func:`narrowed` profile to be sent along, of so many columns as there is room for.

    That are 200, as long as they take no more than 256 KiB.
    """
    limit = _PACKED_COLUMNS
    while True:
        found = dump(narrowed(reference, hidden=hidden, limit=limit))
        if len(found) <= _PACKED_BYTES or not limit:
            return found
        limit //= 2


# --- windows ------------------------------------------------------------------------------------


class _Measure:
    """A variable made ready for counting."""

    def __init__(self, variable: Variable) -> None:
        self.variable = variable
        self.ruler = Ruler(variable.grid) if variable.by != "names" else None
        self.known = {name: place for place, name in enumerate(variable.names)}
        self.cells = self.ruler.cells if self.ruler else len(variable.names) + 1


class _Part(NamedTuple):
    """A column counted, and the cell of its first rows; behind them are missing, and lost."""

    counted: Counted
    places: Codes


class Gauge:
    """A reference made ready for counting windows; it is kept while windows are counted.

    On a :func:`narrowed` reference, windows are counted without what tells how rows hang together.
    """

    def __init__(self, reference: Profile) -> None:
        self.reference = reference
        self.is_narrowed = not reference.tally.blocks.blocks
        self.measures = [_Measure(variable) for variable in reference.variables]
        self._starts = np.cumsum([0, *(measure.cells for measure in self.measures)])
        self.training = self.counted(reference.tally)
        self.coarse = [
            _coarse(one, variable)
            for one, variable in zip(self.training, reference.variables, strict=True)
        ]
        self.coarse_starts = np.cumsum([0, *(one.size for one in self.coarse)]).tolist()

    def counted(self, tally: Tally) -> list[Counted]:
        """Return a tally's counts, variable by variable.

        Raises
        ------
        ValueError
            When the tally was made on another reference.
        """
        cells = unpack(tally.cells)
        if len(cells) != self._starts[-1]:
            raise ValueError("a tally of other cells")
        sums = unpack(tally.sums).reshape(-1, 4).tolist()
        moments = unpack(tally.moments).reshape(-1, 4).tolist()
        found: list[Counted] = []
        for place, (start, stop) in enumerate(pairwise(self._starts.tolist())):
            _, missing, non_finite, odd = sums[place]
            low, high, mean, m2 = moments[place]
            here = cells[start:stop].astype(np.int64)
            unseen, beyond = tally.unseen.get(place, {}), tally.beyond.get(place, NO_LOGS)
            found.append(
                Counted(here, missing, non_finite, odd, low, high, mean, m2, unseen, beyond)
            )
        return found

    def count(
        self,
        rows: int,
        features: Mapping[str, Any],
        outputs: Any = None,
        *,
        out_of_bounds: int = 0,
    ) -> Tally:
        """Count a window, or a part of one.

        Parameters
        ----------
        rows
            How many there are.
        features
            Column name to its values, as :func:`reference_profile` takes them, in the order in
            which the calls came; a column that is not there is missing throughout.
        outputs
            The predicted labels or values; fewer than ``rows`` or none where there were no answers.
        out_of_bounds
            How many of them were not plausible.
        """
        counting = Counting(self, rows)
        for measure in self.measures[: len(self.measures) - self.reference.has_output]:
            counting.add(features.get(measure.variable.name))
        if self.reference.has_output:
            counting.add(outputs)
        return counting.tally(predictions=columns.size(outputs), out_of_bounds=out_of_bounds)

    def calls(
        self, records: Sequence[Mapping[str, Any]], predictions: Sequence[Prediction]
    ) -> Tally:
        """Count calls as they were logged: their records, and the answers that they got."""
        return self.count(
            len(records),
            {
                measure.variable.name: columns.of_records(records, measure.variable.name)
                for measure in self.measures
            },
            [prediction.outcome for prediction in predictions],
            out_of_bounds=sum(not prediction.within_bounds for prediction in predictions),
        )


class Counting:
    """A window, or a part of one, that is counted a column at a time.

    So of a table of many parts no more than one column of one part need be in memory at once.
    """

    def __init__(self, gauge: Gauge, rows: int) -> None:
        self._gauge = gauge
        self._rows = rows
        self._digests = RowDigests(rows)
        self._counted: list[Counted] = []
        self._coded: list[NDArray[np.int16]] = []

    def add(self, column: Any) -> None:
        """Count the values of the reference's next variable; ``None`` if there is no such column.

        The output is the last one, and may have fewer rows.
        """
        gauge, place = self._gauge, len(self._counted)
        is_output = gauge.reference.has_output and place == len(gauge.measures) - 1
        if column is None:
            column = [] if is_output else np.full(self._rows, math.nan)
        measure = gauge.measures[place]
        read = _read(measure.variable, column)
        part = _part(measure, read, gauge.training[place])
        self._counted.append(part.counted)
        if gauge.is_narrowed:
            return
        if not is_output:
            self._digests.add(read)
        self._coded.append(gauge.coarse[place].of_cell[part.places].astype(np.int16))

    def tally(self, *, predictions: int = 0, out_of_bounds: int = 0) -> Tally:
        """Return what was counted, once all variables are."""
        sample = RowSample() if self._gauge.is_narrowed else self._digests.sample()
        return replace(
            _tally(self._rows, self._counted, sample),
            blocks=dispersion.sums(self._coded, self._gauge.coarse),
            predictions=predictions,
            out_of_bounds=out_of_bounds,
        )


def _coarse(training: Counted, variable: Variable) -> Coarse:
    if variable.by != "names":
        return of_numbers(training.cells, training.missing, training.lost)
    return of_names(
        training.cells, training.missing, training.lost, variable.names, closed=variable.closed
    )


def merge(tallies: Sequence[Tally]) -> Tally:
    """Add up windows, or parts of one, that were counted on the same reference.

    The moments as in Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The
    American Statistician 37 (1983).

    Raises
    ------
    ValueError
        When there are none, or they are of different cells.
    """
    if not tallies:
        raise ValueError("no tallies to add up")
    if len(tallies) == 1:
        return tallies[0]
    first = unpack(tallies[0].cells)
    cells = np.zeros(len(first), dtype=np.int64)
    for tally in tallies:
        found = unpack(tally.cells)
        if len(found) != len(cells):
            raise ValueError("tallies of different cells cannot be added up")
        cells += found
    unseen: dict[int, Counter[str]] = {}
    for tally in tallies:
        for place, named in tally.unseen.items():
            unseen.setdefault(place, Counter()).update(named)
    beyond: dict[int, Logs] = {}
    for tally in tallies:
        for place, logs in tally.beyond.items():
            a = beyond.get(place, NO_LOGS)
            beyond[place] = Logs(a.rows + logs.rows, a.first + logs.first, a.second + logs.second)
    sums = np.stack([unpack(tally.sums).reshape(-1, 4).astype(np.int64) for tally in tallies])
    return Tally(
        rows=sum(tally.rows for tally in tallies),
        cells=pack(cells),
        sums=pack(sums.sum(axis=0)),
        moments=pack(_moments(tallies, sums[:, :, 0].astype(np.float64))),
        unseen={place: _most(named) for place, named in unseen.items()},
        beyond=beyond,
        blocks=dispersion.merge([tally.blocks for tally in tallies]),
        row_sample=copies.merge([tally.row_sample for tally in tallies]),
        predictions=sum(tally.predictions for tally in tallies),
        out_of_bounds=sum(tally.out_of_bounds for tally in tallies),
    )


def _moments(tallies: Sequence[Tally], n: Floats) -> Floats:
    moments = np.stack([unpack(tally.moments).reshape(-1, 4) for tally in tallies])
    low, high, mean, m2 = (moments[..., place] for place in range(4))
    n = np.where(np.isnan(mean), 0.0, n)
    total = n.sum(axis=0)
    some = n > 0
    with np.errstate(all="ignore"):
        middle = np.where(some, mean * (n / total), 0.0).sum(axis=0)
        apart = np.where(some, mean - middle, 0.0)
        squares = np.where(some, m2, 0.0).sum(axis=0) + (n * apart * apart).sum(axis=0)
        least = np.where(some, low, np.inf).min(axis=0)
        greatest = np.where(some, high, -np.inf).max(axis=0)
    joined = np.stack([least, greatest, middle, squares], axis=1)
    return np.where(total[:, None] > 0, joined, np.nan)


# --- one column ---------------------------------------------------------------------------------


def _read(variable: Variable, column: Any) -> Numbers | Names:
    if variable.by == "numbers":
        return columns.numbers(column)
    if variable.by == "lengths":
        return columns.lengths(column)
    return columns.names(column, variable.kind)


def _part(
    measure: _Measure,
    read: Numbers | Names,
    reference: Counted | None,
    placed: int | None = dispersion.LOOKED_AT,
) -> _Part:
    """Count a column, and say where the first rows are; all of them, if ``placed`` is ``None``."""
    if isinstance(read, Names):
        return _named(measure, read, placed)
    return _numeric(measure, read, reference, placed)


def _numeric(
    measure: _Measure, read: Numbers, reference: Counted | None, placed: int | None
) -> _Part:
    assert measure.ruler is not None  # noqa: S101 numbers have one
    values = read.values
    finite, low, high = _finite(values)
    missing = non_finite = odd = 0
    if len(finite) < len(values):
        odd = int(read.odd.sum()) if read.odd is not None else 0
        missing = int(np.isnan(values).sum()) - odd
        non_finite = len(values) - len(finite) - missing - odd
    mean, m2 = _mean_and_squares(finite, low, high, reference)
    if len(finite) == len(values):
        places = measure.ruler.places(values[:placed], low, high)
    else:
        places = _places(measure, read, placed)
    if len(places) == len(values):
        counts = np.bincount(places, minlength=measure.cells)[: measure.cells]
    else:
        counts = measure.ruler.count(finite, low, high)
    beyond = NO_LOGS
    if reference is not None and (counts[0] or counts[-1]):
        beyond = _logs(_outside(finite, low, high, reference))
    counted = Counted(counts, missing, non_finite, odd, low, high, mean, m2, {}, beyond)
    return _Part(counted, places)


class _Finite(NamedTuple):
    """Values that are finite, the least and the greatest of them, NaN if there are none."""

    values: Floats
    low: float
    high: float


def _finite(values: Floats) -> _Finite:
    """Return those of some values that are finite; these themselves, if all are."""
    if not len(values):
        return _Finite(values, math.nan, math.nan)
    low, high = float(values.min()), float(values.max())
    if -FINITE_LIMIT <= low <= high <= FINITE_LIMIT:  # which NaN is not
        return _Finite(values, low, high)
    with np.errstate(invalid="ignore"):
        return _finite(values[np.abs(values) <= FINITE_LIMIT])


def _outside(values: Floats, low: float, high: float, reference: Counted) -> Floats:
    """Return the values that lie outside of training's range; on a side with none, none is sought.

    ``low`` and ``high`` are the least and the greatest of the values.
    """
    below = values[values < reference.low] if low < reference.low else values[:0]
    above = values[values > reference.high] if high > reference.high else values[:0]
    return np.concatenate([below, above])


def _logs(values: Floats) -> Logs:
    """Add up logarithms, the outermost clipped to others, as a few absurd values tell no size."""
    logs = np.sort(np.log(np.abs(values[values != 0])))
    outer = int(LOGS_OUTER * len(logs))
    logs[:outer] = logs[outer : outer + 1]
    logs[len(logs) - outer :] = logs[len(logs) - outer - 1 : len(logs) - outer]
    return Logs(len(logs), float(logs.sum()), float(np.square(logs).sum()))


def _places(measure: _Measure, read: Numbers, placed: int | None) -> Codes:
    """Return the cell of each of the first rows."""
    assert measure.ruler is not None  # noqa: S101 numbers have one
    values, cells = read.values[:placed], measure.cells
    with np.errstate(invalid="ignore"):
        there = np.abs(values) <= FINITE_LIMIT
    places = np.where(np.isnan(values), cells, cells + 1)
    if read.odd is not None:
        places[read.odd[:placed]] = cells + 1
    places[there] = measure.ruler.places(values[there])
    return places


def _mean_and_squares(
    values: Floats, low: float, high: float, reference: Counted | None
) -> tuple[float, float]:
    """Return the moments of values clipped to about the reference's range.

    Clipping (winsorising, Tukey 1962) keeps one absurd value from inflating the variance so much
    that a shift of all the others is not significant any more.
    """
    if not len(values):
        return math.nan, math.nan
    if reference is not None and not math.isnan(reference.low):
        width = (reference.high - reference.low) or max(1.0, abs(reference.low))
        if low < reference.low - width or high > reference.high + width:
            values = np.clip(values, reference.low - width, reference.high + width)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
        squares = float(np.einsum("i,i", values, values))  # no threads, as `dot` has
        m2 = squares - len(values) * mean * mean
        if m2 * _CANCELLED > squares:
            return mean, m2
        apart = values - mean  # or hardly a figure of the difference would be right
        return mean, float(np.einsum("i,i", apart, apart))


def _named(measure: _Measure, read: Names, placed: int | None) -> _Part:
    other, cells = len(measure.known), measure.cells
    to_cell = np.array([*(measure.known.get(name, other) for name in read.names), cells])
    places = to_cell[read.codes]
    by_name = np.bincount(read.codes + 1, minlength=len(read.names) + 1)[1:]
    counts = np.bincount(places, minlength=cells + 1)
    unseen: dict[str, int] = {}
    if counts[other]:
        new = np.flatnonzero((to_cell[:-1] == other) & (by_name > 0))
        unseen = _most({read.names[place]: int(by_name[place]) for place in new.tolist()})
    counted = Counted(
        counts[:cells], int(counts[cells]), 0, 0, math.nan, math.nan, math.nan, math.nan, unseen
    )
    return _Part(counted, places[:placed])


def _most(named: Mapping[str, int]) -> dict[str, int]:
    """Return the most frequent names, ties in the order of the alphabet."""
    if len(named) <= NEW_LIMIT:
        return dict(named)
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0]))[:NEW_LIMIT])


def _tally(
    rows: int, counted: Sequence[Counted], row_sample: RowSample, *, deflate: bool = False
) -> Tally:
    no_cells = np.empty(0, dtype=np.int64)
    return Tally(
        rows=rows,
        cells=pack(np.concatenate([no_cells, *(one.cells for one in counted)]), deflate=deflate),
        sums=pack(
            np.array(
                [[one.count, one.missing, one.non_finite, one.odd] for one in counted],
                dtype=np.int64,
            )
        ),
        moments=pack(np.array([[one.low, one.high, one.mean, one.m2] for one in counted])),
        unseen={place: dict(one.unseen) for place, one in enumerate(counted) if one.unseen},
        beyond={place: one.beyond for place, one in enumerate(counted) if one.beyond.rows},
        row_sample=row_sample,
    )
