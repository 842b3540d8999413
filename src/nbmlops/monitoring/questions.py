"""The four questions of monitoring, each answered with a sentence and its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nbmlops.monitoring.profile import Tally
from nbmlops.records import Answer, ColumnReport, Questions

NOT_ASKED = "not-asked"
"""What the reason of a question that was not asked starts with."""

_NAMED = 5


ALL = frozenset({"features", "predictions", "bounds", "performance"})
"""The four questions."""

NO_ACTUALS = Answer(
    answer="unknown",
    reason="no-actuals: the true outcomes of these calls are not known, so metrics cannot be"
    " computed.",
    evidence={"actuals": 0},
)


def answers(
    columns: Sequence[ColumnReport],
    prediction: ColumnReport | None,
    window: Tally,
    independent_rows: int,
    *,
    undecided: frozenset[str] = frozenset(),
    needed: int,
    performance: Answer | None = None,
    asked: frozenset[str] = ALL,
) -> Questions:
    """Answer all four; ``independent_rows`` is what the window's rows are worth.

    ``undecided`` columns look different and may be so by chance. What is not ``asked`` is unknown,
    and does not count.
    """
    found = {
        "features": features(
            columns, window.rows, independent_rows, undecided=undecided, needed=needed
        ),
        "predictions": predictions(prediction, window.predictions, needed=needed),
        "bounds": bounds(window),
        "performance": performance or NO_ACTUALS,
    }
    return Questions(**{name: found[name] if name in asked else _not_asked(name) for name in found})


def _not_asked(name: str) -> Answer:
    told = {
        "features": "the features",
        "predictions": "the column of the predictions",
        "bounds": "the bounds of the predictions",
        "performance": "the columns of the target and the predictions",
    }
    return Answer(answer="unknown", reason=f"{NOT_ASKED}: nothing names {told[name]}.")


def features(
    columns: Sequence[ColumnReport],
    rows: int,
    independent_rows: int,
    *,
    undecided: frozenset[str] = frozenset(),
    needed: int,
) -> Answer:
    """Answer whether the input features still look like the training data."""
    ordered = sorted(columns, key=lambda column: -(_effect(column) or 0.0))
    drifted = [column.name for column in ordered if column.verdict == "drift"]
    unknown = [column.name for column in columns if column.verdict == "unknown"]
    evidence = {
        "drifted": drifted,
        "unknown": unknown,
        "undecided": sorted(name for name in unknown if name in undecided),
        "columns": len(columns),
        "rows": rows,
        "independent_rows": independent_rows,
        "rows_needed": needed,
    }
    if drifted:
        verb = "differs" if len(drifted) == 1 else "differ"
        reason = (
            f"{len(drifted)} of {_count(len(columns), 'feature')} {verb} from the training data: "
            f"{_listed(drifted)}."
        )
        if independent_rows < rows / 2:
            reason += f" The {rows:,} rows repeat few, and count as {independent_rows:,}."
        return Answer(answer="no", reason=reason, evidence=evidence)
    if len(unknown) == len(columns):
        return Answer(
            answer="unknown", reason=_why_unknown(columns, rows, needed), evidence=evidence
        )
    open_still = [name for name in unknown if name in undecided]
    if open_still:
        reason = (
            f"{_listed(open_still)} may differ from the training data, and {rows:,} rows cannot"
            " tell whether by chance."
        )
        return Answer(answer="unknown", reason=reason, evidence=evidence)
    judged = len(columns) - len(unknown)
    reason = f"{_all(judged, 'feature')} like the training data"
    if unknown:
        reason += f"; {_listed(unknown)} cannot be judged"
    return Answer(answer="yes", reason=f"{reason}.", evidence=evidence)


def predictions(prediction: ColumnReport | None, rows: int, *, needed: int) -> Answer:
    """Answer whether the predictions still look like the training labels."""
    if prediction is None:
        reason = "The training data have no labels to hold predictions against."
        return Answer(answer="unknown", reason=reason, evidence={"rows": rows})
    evidence = {
        "effect": _effect(prediction),
        "p_value": prediction.p_value,
        "new_categories": list(prediction.new_categories),
        "rows": rows,
        "rows_needed": needed,
    }
    if prediction.verdict == "drift":
        reason = f"The predictions differ from the training labels: {prediction.reason}."
        return Answer(answer="no", reason=reason, evidence=evidence)
    if prediction.verdict == "unknown":
        reason = _too_few(rows, needed) or f"Not to be judged: {prediction.reason}."
        return Answer(answer="unknown", reason=reason, evidence=evidence)
    reason = "The predictions look like the training labels."
    return Answer(answer="yes", reason=reason, evidence=evidence)


def bounds(window: Tally) -> Answer:
    """Answer whether each output is within plausible bounds."""
    total, outside = window.predictions, window.out_of_bounds
    evidence = {
        "out_of_bounds": outside,
        "predictions": total,
        "share": outside / total if total else None,
    }
    if not total:
        return Answer(answer="unknown", reason="No prediction in the window.", evidence=evidence)
    if outside:
        verb = "is" if outside == 1 else "are"
        reason = (
            f"{outside} of {_count(total, 'prediction')} ({outside / total:.1%}) {verb} out of "
            "bounds."
        )
        return Answer(answer="no", reason=reason, evidence=evidence)
    reason = f"{_all(total, 'prediction', 'is', 'are')} within bounds."
    return Answer(answer="yes", reason=reason, evidence=evidence)


def verdict(asked: Questions) -> Literal["ok", "alert", "unknown"]:
    """Return ``alert`` if any answer is no, ``unknown`` if nothing asked could be answered."""
    everything = (asked.features, asked.predictions, asked.bounds, asked.performance)
    counted = [item for item in everything if not item.reason.startswith(NOT_ASKED)]
    if any(item.answer == "no" for item in counted):
        return "alert"
    if all(item.answer == "unknown" for item in counted):
        return "unknown"
    return "ok"


def _why_unknown(columns: Sequence[ColumnReport], rows: int, needed: int) -> str:
    if not columns:
        return "The model has no input columns."
    few = _too_few(rows, needed)
    if few:
        return few
    reasons = sorted({column.reason for column in columns})
    return f"No feature can be judged: {'; '.join(reasons[:2])}."


def _too_few(rows: int, needed: int) -> str | None:
    if not rows:
        return f"No calls in the window; {needed} rows are needed."
    if rows < needed:
        return f"{_count(rows, 'row')} in the window; {needed} are needed."
    return None


def _effect(column: ColumnReport) -> float | None:
    return column.effect.value if column.effect is not None else None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _all(number: int, noun: str, one: str = "looks", many: str = "look") -> str:
    if number == 1:
        return f"The one {noun} {one}"
    return f"All {number:,} {noun}s {many}"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    left = len(names) - len(shown)
    if left:
        return f"{', '.join(shown)} and {left} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
