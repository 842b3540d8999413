"""A window judged as a whole, and stretch by stretch where it changed in its midst.

Where calls change half way, the whole window is a mixture: its difference is diluted, and its rows
look as if they hung together. So each column is divided where it changed, and each of its stretches
is judged as well, by the same rules; the p-values are multiplied by the number of parts and of
stretches, for the change may have been anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    names = [column.name for column in _all(whole) if column.verdict != "drift"]
    course = changes.Course(gauge, parts)
    found = {name: course.stretches(name) for name in names if name not in hidden}
    changed = {name for name, several in found.items() if several}
    stretches = {name: found[name] for name in changed - _alike(gauge, parts, changed)}
    distinct = sorted({one for several in stretches.values() for one in several})
    later: dict[str, ColumnReport] = {}
    for begins, ends in distinct[:STRETCHES_JUDGED]:
        part = profile.merge(parts[begins:ends])
        trials = len(parts) * len(distinct)
        judged = drift.judge(
            gauge, part, budget=budget, pictures=False, hidden=hidden, trials=trials
        )
        when = f"in the last {part.rows:,} rows" if ends == len(parts) else f"in {part.rows:,} rows"
        for column in _all(judged):
            if column.verdict == "drift" and (begins, ends) in stretches.get(column.name, ()):
                told = replace(column, reason=f"{when}: {column.reason}")
                later.setdefault(column.name, told)  # the longest stretch comes first
    if not later:
        return whole
    return whole._replace(
        columns=tuple(_with(column, later) for column in whole.columns),
        prediction=whole.prediction and _with(whole.prediction, later),
        undecided=whole.undecided - set(later),
    )


def _alike(gauge: Gauge, parts: Sequence[Tally], names: set[str]) -> set[str]:
    """Return those of some columns whose rows hang together within the parts.

    They wander, so there is always a place where they seem to have changed.
    """
    blocks = [part.blocks for part in parts]
    return {
        variable.name
        for place, variable in enumerate(gauge.reference.variables)
        if variable.name in names
        and dispersion.hang_together(gauge.coarse[place], blocks, place, gauge.coarse_starts[place])
    }


def _all(judged: Judged) -> tuple[ColumnReport, ...]:
    return (*judged.columns, *((judged.prediction,) if judged.prediction else ()))


def _with(column: ColumnReport, later: dict[str, ColumnReport]) -> ColumnReport:
    """Return what was found of a column after its change; the picture is of the whole window."""
    found = later.get(column.name)
    return column if found is None else replace(found, distribution=column.distribution)
