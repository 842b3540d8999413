"""A window judged as a whole, and by what came after a change in the midst of it.

Where calls change half way, the whole window is a mixture: its difference is diluted, and its rows
look as if they hung together. So each column is looked at for a change, and where there is one what
came after it is judged as well, by the same rules; the p-values are multiplied by the number of
parts, for the change may have been anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from nbmlops.monitoring import changes, drift, profile
from nbmlops.monitoring.drift import Judged
from nbmlops.monitoring.profile import Gauge, Tally
from nbmlops.records import Budget, ColumnReport, replace


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
    splits = _splits(gauge, parts, whole, hidden)
    later: dict[str, ColumnReport] = {}
    for split in sorted(set(splits.values())):
        after = profile.merge(parts[split:])
        judged = drift.judge(
            gauge, after, budget=budget, pictures=False, hidden=hidden, trials=len(parts)
        )
        for column in _all(judged):
            if column.verdict == "drift" and splits.get(column.name) == split:
                reason = f"in the last {after.rows:,} rows: {column.reason}"
                later[column.name] = replace(column, reason=reason)
    if not later:
        return whole
    return whole._replace(
        columns=tuple(_with(column, later) for column in whole.columns),
        prediction=whole.prediction and _with(whole.prediction, later),
        undecided=whole.undecided - set(later),
    )


def _splits(
    gauge: Gauge, parts: Sequence[Tally], whole: Judged, hidden: frozenset[str]
) -> dict[str, int]:
    """Return where the columns that do not drift as a whole changed, those that did."""
    if len(parts) < 2:
        return {}
    names = [column.name for column in _all(whole) if column.verdict != "drift"]
    course = changes.Course(gauge, parts)
    found = {name: course.change_point([name]) for name in names if name not in hidden}
    return {name: split for name, split in found.items() if split is not None}


def _all(judged: Judged) -> tuple[ColumnReport, ...]:
    return (*judged.columns, *((judged.prediction,) if judged.prediction else ()))


def _with(column: ColumnReport, later: dict[str, ColumnReport]) -> ColumnReport:
    """Return what was found of a column after its change; the picture is of the whole window."""
    found = later.get(column.name)
    return column if found is None else replace(found, distribution=column.distribution)
