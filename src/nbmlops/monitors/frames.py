"""The four questions about DataFrames, for whoever has them in a notebook."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nbmlops.errors import WrongUse, nearest
from nbmlops.monitoring import kinds
from nbmlops.monitors.bare import Rows, answered
from nbmlops.records import Budget, MonitorReport, utc_now


def compare_frames(
    window: Any,
    reference: Any,
    *,
    target: str | None = None,
    prediction: str | None = None,
    false_alarms: int = 1,
    windows: int = 100,
    created_at: datetime | None = None,
) -> MonitorReport:
    """Hold the rows of a DataFrame, or of a mapping of columns, against those of another.

    Only the features are asked about, unless ``prediction`` names the column of the predictions
    (labels, values, or the probability of the second of two classes), and ``target`` that of the
    truths, which the window may lack. ``false_alarms`` in so many ``windows`` are put up with.

    Raises
    ------
    WrongUse
        When a column is missing.

    Examples
    --------
    >>> import random
    >>> draw = random.Random(1)
    >>> train = {"age": [draw.gauss(40, 9) for _ in range(900)]}
    >>> today = {"age": [draw.gauss(55, 9) for _ in range(900)]}
    >>> report = compare_frames(today, train)
    >>> report.verdict, [column.name for column in report.columns if column.verdict == "drift"]
    ('alert', ['age'])
    """
    then, now = _rows(reference), _rows(window)
    for name in (target, prediction):
        known = {*now.names, *(then.names if name == target else ())}
        if name is not None and name not in known:
            raise WrongUse(f"the window has no column `{name}`", nearest(name, now.names))
    missing = [name for name in then.names if name not in {*now.names, target, prediction}]
    if missing:
        raise WrongUse(
            f"the window has no column `{missing[0]}`, which the reference has",
            nearest(missing[0], now.names),
        )
    return answered(
        now,
        then,
        target=target,
        prediction=prediction,
        model="DataFrame",
        digest=None,
        budget=Budget(false_alarms=false_alarms, windows=windows),
        created_at=created_at or utc_now(),
    )


def _rows(frame: Any) -> Rows:
    if hasattr(frame, "column_names") and hasattr(frame, "num_rows"):  # Arrow
        columns = {name: frame.column(name) for name in frame.column_names}
    elif hasattr(frame, "columns") and hasattr(frame, "iloc"):
        columns = {str(name): frame.iloc[:, place] for place, name in enumerate(frame.columns)}
    elif hasattr(frame, "items"):
        columns = {str(name): values for name, values in frame.items()}
    else:
        raise WrongUse(
            f"a {type(frame).__name__} has no columns with names",
            "Pass a DataFrame, an Arrow table, or a dict of columns.",
        )
    return Rows(columns, {name: kinds.kind_of(values) for name, values in columns.items()})
