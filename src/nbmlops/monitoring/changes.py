"""Since when calls differ, which columns do, and what happened to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np

from nbmlops.monitoring import statistics
from nbmlops.monitoring.coarse import LOST, Coarse
from nbmlops.monitoring.columns import Floats
from nbmlops.monitoring.drift import EFFECT_THRESHOLD
from nbmlops.monitoring.profile import LOGS_OUTER, Counted, Gauge, Tally, Variable, merge
from nbmlops.records import Coincidence, ColumnReport, Suspect

Change = Literal["missing", "constant", "unit", "new-categories", "range", "type", "shift"]

ROWS_A_PART = 20
"""Rows that stand on either side of a change, at least."""

_SURE = 6.0  # standard deviations of a chi-square
_STRETCHES = 16
_MISSING_MORE = 0.05
_CONSTANT = 0.99
_MOST = 0.5
_UNIT_FACTOR = 1.5
_UNIT_SPREAD = 0.12
_SAME_SHARE = 0.03
_FEW = 3
_TINY = 1e-12
_QUANTILES = np.linspace(0.1, 0.9, 9)


class Course:
    """Consecutive windows, made ready to be looked at for changes."""

    def __init__(self, gauge: Gauge, parts: Sequence[Tally]) -> None:
        self._gauge = gauge
        self._counted = [gauge.counted(part) for part in parts]

    def stretches(self, place: int) -> list[tuple[int, int]]:
        """Return the stretches between a variable's changes, each from one window up to another.

        A window in the midst of which the change lies belongs to neither side, so stretches are
        also given without the ones at their ends. None where there was no change.
        """
        found = self._between_changes([place])
        return sorted({*found, *map(self._inner, found)}) if len(found) > 1 else []

    def departure(self, places: Sequence[int]) -> Departure:
        """Return when some variables differed from training.

        It is the stretch in which they lie farthest from it, with those next to it that lie beyond
        the threshold for sure.
        """
        stretches = self._between_changes(places)
        apart = [self._apart(places, *self._inner(one)) for one in stretches]
        first = last = int(np.argmax([value for value, _ in apart]))
        while first > 0 and apart[first - 1][1] > EFFECT_THRESHOLD:
            first -= 1
        while last + 1 < len(apart) and apart[last + 1][1] > EFFECT_THRESHOLD:
            last += 1
        begins, ends = stretches[first][0], stretches[last][1]
        return Departure(begins, *self._inner((begins, ends)))

    def _between_changes(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """Return the stretches between the changes of some columns together, all of them in order.

        Binary segmentation (Scott & Knott, Biometrics 30, 1974).
        """
        counts = [self._stacked(place) for place in places]
        found: list[tuple[int, int]] = []
        open_ones = [(0, len(self._counted))]
        while open_ones:
            begins, ends = open_ones.pop()
            split = None
            if len(found) + len(open_ones) < _STRETCHES:
                split = _change_point([of_column[begins:ends] for of_column in counts])
            if split is None:
                found.append((begins, ends))
            else:
                open_ones += [(begins, begins + split), (begins + split, ends)]
        return sorted(found)

    def _inner(self, stretch: tuple[int, int]) -> tuple[int, int]:
        """Return a stretch without the windows in whose midst a change may lie, if any is left."""
        begins, ends = stretch
        inner = (begins + (begins > 0), ends - (ends < len(self._counted)))
        return inner if inner[1] > inner[0] else stretch

    def _apart(self, places: Sequence[int], begins: int, ends: int) -> tuple[float, float]:
        """Return how far a stretch lies from training: the greatest of the columns, and surely."""
        value = low = 0.0
        for place in places:
            then = self._gauge.coarse[place].training
            now = self._stacked(place)[begins:ends].sum(axis=0)
            distance = statistics.jensen_shannon_distance(then, now) or 0.0
            error = statistics.distance_error_at(then, now, distance) if distance else 0.0
            value, low = max(value, distance), max(low, distance - statistics.CONFIDENCE * error)
        return value, low

    def _stacked(self, place: int) -> Floats:
        coarse = self._gauge.coarse[place]
        found = (counted[place] for counted in self._counted)
        return np.stack([coarse.counts(one.cells, one.missing, one.lost) for one in found])


def _change_point(counts: Sequence[Floats]) -> int | None:
    """Return before which of some windows columns changed; each column's are (windows, cells).

    The split that makes both sides, each with shares of its own, likeliest: twice the gain in log
    likelihood, added up over the columns, as in Hinkley & Hinkley, "Inference about the
    change-point in a sequence of binomial variables", Biometrika 57 (1970). ``None`` where no split
    is better than none by more than chance: then all of them are alike.
    """
    if len(counts[0]) < 2:
        return None
    gains = np.zeros(len(counts[0]) - 1)
    freedom = 0
    for of_column in counts:
        before = np.cumsum(of_column, axis=0)
        whole = before[-1]
        freedom += max(1, int((whole > 0).sum()) - 1)
        both = _log_likelihood(before[:-1]) + _log_likelihood(whole - before[:-1])
        gains += 2 * (both - _log_likelihood(whole[None, :]))
    rows = np.cumsum(counts[0].sum(axis=1))
    allowed = (rows[:-1] >= ROWS_A_PART) & (rows[-1] - rows[:-1] >= ROWS_A_PART)
    best = int(np.where(allowed, gains, -math.inf).argmax())
    # The greatest of many correlated chi-squares.
    sure = allowed[best] and gains[best] > freedom + _SURE * math.sqrt(2 * freedom)
    return best + 1 if sure else None


def _log_likelihood(counts: Floats) -> Floats:
    totals = counts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * np.log(counts / totals), 0.0)
    return terms.sum(axis=-1)


class Departure(NamedTuple):
    """From which window on columns differed; all rows from ``begins`` up to ``ends`` do."""

    split: int
    begins: int
    ends: int


class Changed(NamedTuple):
    """When calls differed from training, and which columns did, each with its own time."""

    when: Departure
    suspects: tuple[Suspect, ...]
    times: tuple[Departure, ...]


def changed(
    gauge: Gauge,
    parts: Sequence[Tally],
    columns: Sequence[ColumnReport],
    output: ColumnReport | None,
) -> Changed | None:
    """Return what happened to the columns that drifted, ``None`` where none did.

    Where features differ, the ``output`` follows from them, and is no suspect.
    """
    drifted = {place: one for place, one in enumerate(columns) if one.verdict == "drift"}
    if not drifted and output is not None and output.verdict == "drift":
        drifted = {len(columns): output}
    if not drifted or not parts:
        return None
    course = Course(gauge, parts)
    found: list[tuple[Suspect, Departure]] = []
    for place, share in _shares_of(drifted).items():
        when = course.departure([place])
        # What came after the change alone.
        now = gauge.counted(merge(parts[when.begins : when.ends]))[place]
        change, factor = _change(gauge, place, now)
        name = drifted[place].name
        found.append((Suspect(column=name, share=share, change=change, factor=factor), when))
    found.sort(key=lambda one: (-one[0].share, one[0].column))
    return Changed(
        course.departure(list(drifted)),
        tuple(suspect for suspect, _ in found),
        tuple(when for _, when in found),
    )


_TOLD: dict[str, tuple[Literal["pipeline", "data-definition"], str]] = {
    "missing": ("pipeline", "{0} is missing where training had it"),
    "constant": ("pipeline", "{0} has one value throughout"),
    "unit": ("pipeline", "{0} is about {1:g} times what training had: its unit may have changed"),
    "type": ("pipeline", "{0} has infinite values, or values of another type"),
    "new-categories": ("data-definition", "{0} has categories that training did not have"),
}


def coincidences(found: Changed, at: datetime | None) -> tuple[Coincidence, ...]:
    """Return what the changes of columns look like from outside: a pipeline, a definition."""
    told = [(one, *_TOLD[one.change]) for one in found.suspects if one.change in _TOLD]
    return tuple(
        Coincidence(kind=kind, at=at, message=words.format(one.column, one.factor or 1.0))
        for one, kind, words in told
    )


def _shares_of(drifted: Mapping[int, ColumnReport]) -> dict[int, float]:
    """Return each column's share of all change.

    That of its squared distance, which is the divergence in bits: columns that change together each
    count.
    """
    sizes = {place: (one.effect.value or 0.0) ** 2 for place, one in drifted.items() if one.effect}
    total = sum(sizes.values()) or 1.0
    return {place: size / total for place, size in sizes.items()}


def _change(gauge: Gauge, place: int, now: Counted) -> tuple[Change, float | None]:
    """Return what happened to a column, the plainest explanation first."""
    then, coarse = gauge.training[place], gauge.coarse[place]
    variable, ruler = gauge.reference.variables[place], gauge.measures[place].ruler
    rows_then, rows = max(then.rows, 1), max(now.rows, 1)
    more_missing = now.missing / rows - then.missing / rows_then
    more_lost = now.lost / rows - then.lost / rows_then
    if more_lost > _MISSING_MORE and more_lost >= more_missing:
        return "type", None
    if more_missing > _MISSING_MORE:
        return "missing", None
    if _is_constant(variable, then, now):
        return "constant", None
    if ruler is None:
        return _change_of_names(coarse, then, now), None
    if variable.by == "numbers":
        factor = _factor(ruler.borders, then, now)
        if factor is not None:
            return "unit", factor
    outside = now.cells[0] + now.cells[-1] + coarse.counts(now.cells, 0, 0)[LOST]
    outside, moved = outside / max(now.count, 1), _moved(coarse, then, now)
    return ("range" if then.count and outside > _MOST * moved else "shift"), None


def _change_of_names(coarse: Coarse, then: Counted, now: Counted) -> Change:
    new = now.cells[-1] / max(now.count, 1) - then.cells[-1] / max(then.count, 1)
    return "new-categories" if then.count and new > _MOST * _moved(coarse, then, now) else "shift"


def _moved(coarse: Coarse, then: Counted, now: Counted) -> float:
    """Return which share of the values that are there moved from one coarse cell to another."""
    was, became = (coarse.counts(one.cells, 0, 0) for one in (then, now))
    apart = became / max(became.sum(), 1.0) - was / max(was.sum(), 1.0)
    return 0.5 * float(np.abs(apart).sum())


def _is_constant(variable: Variable, then: Counted, now: Counted) -> bool:
    """Whether a column that had several values has one throughout."""
    if variable.by == "names":  # whose last cell holds many
        most = max([*now.cells[:-1].tolist(), *now.unseen.values()], default=0)
    else:  # texts of one length are one value where there is nothing in them
        is_one = now.high == now.low and (variable.by == "numbers" or now.high == 0)
        most = now.count if is_one else 0
    return most >= _CONSTANT * now.count and int(then.cells.max()) < _CONSTANT * then.count


class _Sizes(NamedTuple):
    """How large numbers are: mean and deviation of the logarithms of the ``rows`` that are not 0.

    ``zeros`` is the share of zeros, ``positive`` that of the others which are greater.
    """

    mean: float
    deviation: float
    rows: int
    zeros: float
    positive: float


def _factor(borders: Floats, then: Counted, now: Counted) -> float | None:
    """Return by what values were multiplied, if that is what happened."""
    if len(borders) < 2:
        return None
    held, known = now.cells[1:-1], then.cells[1:-1] > 0
    wide = np.diff(borders) > np.maximum(abs(borders[1:]), abs(borders[:-1])) / 2
    between = int(held[~known & wide].sum())
    if between > _MISSING_MORE * (now.count - int(now.cells.max())):  # their sizes are not known
        return _factor_of_moments(then, now)
    within = int(held[known].sum())
    found = None
    if within and int((held > 0).sum()) <= max(_FEW, int(known.sum()) // 8) < int(known.sum()):
        found = _factor_of_moments(then, now)
    return found or _factor_of_logs(borders, then, now)


def _factor_of_logs(borders: Floats, then: Counted, now: Counted) -> float | None:
    """Return the factor of values whose logarithms are those of then and a constant.

    They vary as much, as many values are 0, and as many negative. Where quantiles lie within
    training, each is that of then times the factor.
    """
    was, became = (_sizes_of(borders, then, counted) for counted in (then, now))
    if was is None or became is None:
        return None
    error = math.sqrt(1 / was.rows + 1 / became.rows)
    same = _SAME_SHARE + error
    if abs(was.zeros - became.zeros) > same or abs(was.positive - became.positive) > same:
        return None
    spread = max(was.deviation, became.deviation)
    if min(was.deviation, became.deviation) < spread * math.exp(-_UNIT_SPREAD - 3 * error):
        return None
    factor = math.exp(became.mean - was.mean)
    if max(factor, 1 / factor) < _UNIT_FACTOR or not _is_each(factor, borders, then, now):
        return None
    return _round_factor(factor, spread * error)


def _factor_of_moments(then: Counted, now: Counted) -> float | None:
    """Return the factor of mean and deviation, where these are of all values, and sure."""
    width = then.high - then.low
    clipped = now.low < then.low - width or now.high > then.high + width
    if clipped or min(then.m2, now.m2) <= 0 or not math.isfinite(then.m2 + now.m2):
        return None
    was, became = (math.sqrt(one.m2 / one.count) for one in (then, now))
    error = math.sqrt(1 / then.count + 1 / now.count)
    factor = became / was
    if abs(now.mean / factor - then.mean) > 3 * error * (was + abs(then.mean)):
        return None
    if abs(then.mean) > was:  # which then is the surer one
        factor, error = now.mean / then.mean, error * was / abs(then.mean)
    elif max(then.high - then.mean, then.mean - then.low) > 5 * was:  # a few have the say
        return None
    return _round_factor(factor, error) if max(factor, 1 / factor) >= _UNIT_FACTOR else None


def _sizes_of(borders: Floats, then: Counted, counted: Counted) -> _Sizes | None:
    """Return how large values are; those within training's range as the middles of their cells."""
    begins, ends = borders[:-1], borders[1:]
    middles = np.where(np.nextafter(begins, np.inf) >= ends, ends, (begins + ends) / 2)
    around = (begins < 0) & (ends > 0) & (middles != ends)
    middles = np.where(around, np.maximum(abs(begins), abs(ends)) / 2, middles)
    held = counted.cells[1:-1].astype(np.float64)
    some = (held > 0) & (middles != 0)
    weights = held[some]
    logs = _clipped(np.log(np.abs(middles[some])), weights)
    count = int(weights.sum()) + counted.beyond.rows
    if not count:
        return None
    mean = (float((weights * logs).sum()) + counted.beyond.first) / count
    square = (float((weights * logs * logs).sum()) + counted.beyond.second) / count
    below, above = int(counted.cells[0]), int(counted.cells[-1])
    positive = float(held[middles > 0].sum())
    positive += below * (counted.low > 0) + above * (then.high >= 0)
    return _Sizes(
        mean=mean,
        deviation=math.sqrt(max(0.0, square - mean * mean - _TINY)),
        rows=count,
        zeros=1 - count / max(counted.count, 1),
        positive=min(1.0, positive / count),
    )


def _clipped(logs: Floats, weights: Floats) -> Floats:
    """Clip logarithms as those of values beyond training's range were."""
    if not len(logs):
        return logs
    order = np.argsort(logs)
    below = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(below, [LOGS_OUTER, 1 - LOGS_OUTER]).clip(0, len(logs) - 1)
    return np.clip(logs, *logs[order][places])


def _is_each(factor: float, borders: Floats, then: Counted, now: Counted) -> bool:
    """Whether the deciles that are known, of which there may be none, are those of then."""
    was, became = (_quantiles(borders, counted) for counted in (then, now))
    known = np.isfinite(was) & np.isfinite(became) & (np.minimum(abs(was), abs(became)) > _TINY)
    if known.sum() < 5:
        return True
    ratios = became[known] / was[known]
    if (ratios <= 0).any():
        return False
    return float(np.log(ratios).std()) <= _UNIT_SPREAD * max(1.0, abs(math.log(factor)))


def _round_factor(factor: float, error: float) -> float:
    """Return a factor with the digits that its relative error lets stand, such as 1,000 or 0.45."""
    power = 10.0 ** round(math.log10(factor))
    if abs(math.log(factor / power)) < min(0.1, max(0.02, 3 * error)):
        return power
    return float(f"{factor:.3g}" if error < 0.01 else f"{factor:.2g}")


def _quantiles(borders: Floats, counted: Counted) -> Floats:
    """Return deciles by the cells' borders, NaN where they lie outside of training."""
    if not len(borders) or not counted.count:
        return np.full(len(_QUANTILES), np.nan)
    shares = np.cumsum(counted.cells) / counted.count
    cells = np.searchsorted(shares, _QUANTILES)
    inside = (cells > 0) & (cells < len(borders))
    ends = borders[np.clip(cells, 0, len(borders) - 1)]
    starts = borders[np.clip(cells - 1, 0, len(borders) - 1)]
    return np.where(inside, (starts + ends) / 2, np.nan)
