"""A window judged as a whole, and stretch by stretch where it changed in its midst.

Where calls change half way, the whole window is a mixture: its difference is diluted, and its rows
look as if they hung together. So each column is divided where it changed, and each of its stretches
is judged as well, by the same rules; the p-values are multiplied by the number of parts and of
stretches, for the change may have been anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import itemgetter

from nbmlops.monitoring import changes, dispersion, drift, profile
from nbmlops.monitoring.drift import Judged
from nbmlops.monitoring.profile import Gauge, Tally
from nbmlops.records import Budget, ColumnReport, replace

STRETCHES_JUDGED = 24
"""How many stretches are judged, at most."""


def judge(
    gauge: Gauge,
    parts: Sequence[Tally],
    window: Tally,
    *,
    budget: Budget = drift.DEFAULT_BUDGET,
    hidden: frozenset[str] = frozenset(),
) -> Judged:
    """Hold each column of a window against training; ``window`` is the sum of its ``parts``."""
    whole = drift.judge(gauge, window, budget=budget, hidden=hidden)
    if len(parts) < 2:
        return whole
    course = changes.Course(gauge, parts)
    features = len(whole.columns)
    found = {
        place: course.stretches(place)
        for place, column in enumerate(_all(whole))
        if place == features or column.name not in hidden
    }
    changed = {place for place, several in found.items() if several}
    changed -= _alike(gauge, parts, changed)
    drifted = {place for place in changed if _all(whole)[place].verdict == "drift"}
    whole = _dated(whole, parts, {place: course.departure([place]) for place in drifted})
    stretches = {place: found[place] for place in changed - drifted}
    distinct = sorted({one for several in stretches.values() for one in several})
    rows = _rows_before(parts)
    later: dict[int, tuple[tuple[int, float], ColumnReport]] = {}
    for begins, ends in distinct[:STRETCHES_JUDGED]:
        part = profile.merge(parts[begins:ends])
        trials = len(parts) * len(distinct)
        judged = drift.judge(
            gauge, part, budget=budget, pictures=False, hidden=hidden, trials=trials
        )
        when = f"in rows {rows[begins] + 1:,} to {rows[ends]:,}"
        if ends == len(parts):
            when = f"in the last {part.rows:,} rows"
        for place, column in enumerate(_all(judged)):
            if column.verdict == "drift" and (begins, ends) in stretches.get(place, ()):
                # The longest stretch, and of those the one that is farthest from training.
                rank = (ends - begins, (column.effect and column.effect.value) or 0.0)
                told = replace(column, reason=f"{when}: {column.reason}")
                later[place] = max((rank, told), later.get(place, (rank, told)), key=itemgetter(0))
    if not later:
        return whole
    told = {place: one for place, (_, one) in later.items()}
    names = {column.name for place, column in told.items() if place != features}
    return _replaced(whole, told)._replace(undecided=whole.undecided - names)


def _dated(
    whole: Judged, parts: Sequence[Tally], departures: Mapping[int, changes.Departure]
) -> Judged:
    """Say of columns that differ in the whole window from which row on they do."""
    rows = _rows_before(parts)
    told: dict[int, ColumnReport] = {}
    for place, when in departures.items():
        after, ended = when.split > 0, when.ends < len(parts)
        if after or ended:
            until = f" to {rows[when.ends]:,}" if ended else " on"
            column = _all(whole)[place]
            reason = f"{column.reason}; from about row {rows[when.split] + 1:,}{until}"
            told[place] = replace(column, reason=reason)
    return _replaced(whole, told)


def _rows_before(parts: Sequence[Tally]) -> list[int]:
    return [0, *accumulate(part.rows for part in parts)]


def _replaced(judged: Judged, told: Mapping[int, ColumnReport]) -> Judged:
    """Return what was judged with other columns in some places; pictures are of the whole."""
    columns = [
        replace(told[place], distribution=column.distribution) if place in told else column
        for place, column in enumerate(_all(judged))
    ]
    prediction = columns.pop() if judged.prediction else None
    return judged._replace(columns=tuple(columns), prediction=prediction)


def _alike(gauge: Gauge, parts: Sequence[Tally], places: set[int]) -> set[int]:
    """Return those of some columns whose rows hang together within the parts.

    They wander, so there is always a place where they seem to have changed.
    """
    blocks = [part.blocks for part in parts]
    return {
        place
        for place in places
        if dispersion.hang_together(gauge.coarse[place], blocks, place, gauge.coarse_starts[place])
    }


def _all(judged: Judged) -> tuple[ColumnReport, ...]:
    return (*judged.columns, *((judged.prediction,) if judged.prediction else ()))
