"""Since when calls differ, which columns do, and what happened to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np

from nbmlops.monitoring.columns import Floats
from nbmlops.monitoring.profile import Counted, Gauge, Tally, merge
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
_TINY = 1e-12
_QUANTILES = np.linspace(0.1, 0.9, 9)


class Course:
    """Consecutive windows, made ready to be looked at for changes."""

    def __init__(self, gauge: Gauge, parts: Sequence[Tally]) -> None:
        self._gauge = gauge
        self._counted = [gauge.counted(part) for part in parts]

    def change_point(self, names: Sequence[str]) -> int | None:
        """Return before which window the named columns changed, ``None`` if they did not."""
        counts = [self._stacked(place) for place in _places(self._gauge, names)]
        return _change_point(counts) if counts else None

    def stretches(self, name: str) -> list[tuple[int, int]]:
        """Return the stretches between a column's changes, each from one window up to another.

        Binary segmentation (Scott & Knott, Biometrics 30, 1974). A window in the midst of which the
        change lies belongs to neither side, so stretches of three windows or more are also given
        without the ones at their ends. None where there was no change.
        """
        places = _places(self._gauge, [name])
        if not places:
            return []
        counts = self._stacked(places[0])
        found: list[tuple[int, int]] = []
        open_ones = [(0, len(counts))]
        while open_ones and len(found) < _STRETCHES:
            begins, ends = open_ones.pop()
            split = _change_point([counts[begins:ends]])
            if split is not None:
                open_ones += [(begins, begins + split), (begins + split, ends)]
            elif (begins, ends) != (0, len(counts)):
                inner = (begins + (begins > 0), ends - (ends < len(counts)))
                found += [(begins, ends), *([inner] if inner[1] > inner[0] else [])]
        return sorted(set(found))

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


def _places(gauge: Gauge, names: Sequence[str]) -> list[int]:
    known = {variable.name: place for place, variable in enumerate(gauge.reference.variables)}
    return [known[name] for name in names if name in known]


def _log_likelihood(counts: Floats) -> Floats:
    totals = counts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * np.log(counts / totals), 0.0)
    return terms.sum(axis=-1)


class Changed(NamedTuple):
    """Before which of some windows calls changed, if they did in their midst, and what did.

    ``begins`` is the first window that holds nothing from before.
    """

    split: int | None
    begins: int
    suspects: tuple[Suspect, ...]


def changed(
    gauge: Gauge,
    parts: Sequence[Tally],
    columns: Sequence[ColumnReport],
    output: ColumnReport | None,
) -> Changed | None:
    """Return what happened to the columns that drifted, ``None`` where none did.

    Where features differ, the ``output`` follows from them, and is no suspect.
    """
    drifted = [column for column in columns if column.verdict == "drift"]
    if not drifted and output is not None and output.verdict == "drift":
        drifted = [output]
    if not drifted or not parts:
        return None
    split = Course(gauge, parts).change_point([column.name for column in drifted])
    # The window in the midst of which the change lies holds both.
    begins = 0 if split is None else min(split + 1, len(parts) - 1)
    return Changed(split, begins, suspects(gauge, merge(parts[begins:]), drifted))


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


def suspects(gauge: Gauge, window: Tally, columns: Sequence[ColumnReport]) -> tuple[Suspect, ...]:
    """Return the columns that drifted, those with the greatest share of all change first.

    A column's share is that of its squared distance, which is the divergence in bits: columns that
    change together each count. ``window`` should hold what came after the change alone.
    """
    drifted = [column for column in columns if column.verdict == "drift" and column.effect]
    sizes = {one.name: (one.effect.value or 0.0) ** 2 for one in drifted if one.effect}
    total = sum(sizes.values()) or 1.0
    counted = gauge.counted(window)
    found: list[Suspect] = []
    for place in _places(gauge, list(sizes)):
        name = gauge.reference.variables[place].name
        change, factor = _change(gauge, place, counted[place])
        found.append(Suspect(column=name, share=sizes[name] / total, change=change, factor=factor))
    return tuple(sorted(found, key=lambda one: (-one.share, one.column)))


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
    least = max(now.count, 1)
    most_then, most = (int(one.cells.max()) / max(one.count, 1) for one in (then, now))
    if most >= _CONSTANT > most_then and (ruler is None or now.high == now.low):
        return "constant", None
    if ruler is None:
        new = now.cells[-1] / least - then.cells[-1] / max(then.count, 1)
        gone = 0.5 * np.abs(_shares(now) - _shares(then)).sum()
        return ("new-categories", None) if new > _MOST * gone else ("shift", None)
    if variable.by == "numbers":
        factor = _factor(ruler.borders, then, now)
        if factor is not None:
            return "unit", factor
    outside = (now.cells[0] + now.cells[-1]) / least
    shares = [_coarse_shares(coarse.counts(one.cells, 0, 0)) for one in (then, now)]
    moved = 0.5 * np.abs(shares[1] - shares[0]).sum()
    return ("range", None) if outside > _MOST * moved else ("shift", None)


def _shares(counted: Counted) -> Floats:
    return counted.cells / max(counted.count, 1)


def _coarse_shares(counts: Floats) -> Floats:
    return counts / max(float(counts.sum()), 1.0)


def _factor(borders: Floats, then: Counted, now: Counted) -> float | None:
    """Return by what values were multiplied, if that is what happened.

    Where they were, the quantiles of now are those of then, times one factor. Outside of the cells
    of training quantiles are not known, and the least and the greatest value tell the factor.
    """
    if not then.count or not now.count or then.mean == 0 or not math.isfinite(now.mean):
        return None
    was, became = (_quantiles(borders, counted) for counted in (then, now))
    known = np.isfinite(was) & np.isfinite(became) & (np.minimum(abs(was), abs(became)) > _TINY)
    if known.sum() >= 5:
        ratios = became[known] / was[known]
        if (ratios <= 0).any():
            return None
        logs = np.log(ratios)
        factor = float(np.exp(np.median(logs)))
        alike = float(logs.std()) <= _UNIT_SPREAD * max(1.0, abs(math.log(factor)))
    else:
        # Means are of values clipped near training's range; least and greatest are not.
        outside = int(now.cells[0] + now.cells[-1]) / now.count
        if then.low <= 0 or now.low <= 0 or outside < _MOST:
            return None
        factor = math.sqrt((now.low / then.low) * (now.high / then.high))
        wide, wide_now = math.log(then.high / then.low), math.log(now.high / now.low)
        alike = abs(wide_now - wide) <= max(math.log(2), 0.15 * wide)
    if not alike or max(factor, 1 / factor if factor else 0.0) < _UNIT_FACTOR:
        return None
    return _round_factor(factor)


def _round_factor(factor: float) -> float:
    """Return a round factor nearby, such as 1,000 or 0.45, for reading."""
    power = 10.0 ** round(math.log10(factor))
    return power if 0.9 < factor / power < 1.1 else float(f"{factor:.2g}")


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
