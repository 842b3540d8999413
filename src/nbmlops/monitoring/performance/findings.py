"""What a window's metrics say of the question, and the sentence that answers it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from nbmlops.monitoring.performance.metrics import CLASS_ROWS_NEEDED
from nbmlops.monitoring.performance.outcomes import PerformanceWindow
from nbmlops.monitoring.performance.testsets import PerformanceReference
from nbmlops.records import Answer, Metric

MATTERS = {"accuracy": 0.02, "roc_auc": 0.02, "mean_absolute_error": 0.1}
"""From which difference on it matters, and which metrics decide.

Of shares, two points: where nine of ten answers are right, a fifth more mistakes. Errors have
units, so theirs is a part of the test set's: a tenth more, which takes two points from an R squared
of 0.9.

Four windows of five show, at the level that is usual and with a test set of 20,000 rows where four
of five labels are right, a fall of the area by 0.066 with 500 actuals, 0.040 with 5,000 and 0.029
with 50,000 (or of the accuracy, by 0.052, 0.031 and 0.024); and a rise of the error by 27 %, 15 %
and 12 %.

``log_loss`` and ``root_mean_squared_error`` are told and decide nothing: one row of which the model
was wrongly sure, or one great error, can outweigh all others, and a small test set has none of
them, so intervals of such sums keep no level (a forest's logarithmic loss, with 100 rows of a test
set, would have raised an alarm in half of all windows). ``r2`` decides nothing since it falls where
the truths vary less, with the same errors.
"""

RELATIVE = frozenset({"mean_absolute_error"})

NO_ACTUALS = "no-actuals"
"""What the reason starts with where there are neither actuals nor anything to estimate from."""

KEEP_HINT = "log_model(..., test=(X, y))"

_WORDS = {
    "accuracy": "accuracy",
    "roc_auc": "area under the ROC curve",
    "mean_absolute_error": "mean absolute error",
}


class Found(NamedTuple):
    """A metric, and what it says of the question."""

    metric: Metric
    is_worse: bool = False
    is_kept: bool = False
    needed: float | None = None  # actuals in all, infinite where no number of them is enough


def evidence(counts: PerformanceWindow, needed: int, **more: Any) -> dict[str, Any]:
    """Return how many actuals have come, of how many rows, and how many have to."""
    return {
        "actuals": counts.actuals,
        "rows": counts.rows,
        "share": counts.actuals / counts.rows if counts.rows else None,
        "rows_needed": needed,
        **more,
    }


def answer(
    reference: PerformanceReference,
    counts: PerformanceWindow,
    found: Sequence[Found],
    *,
    level: float,
    needed: int,
) -> Answer:
    """Answer from the metrics that decide: those of the actuals, as soon as there are any."""
    deciding = [one for one in found if one.metric.name in MATTERS]
    realised = [one for one in deciding if not one.metric.estimated]
    judged = realised or deciding
    worse = [one for one in judged if one.is_worse]
    undecided = [one for one in realised if not one.is_kept]
    wanted = [score.name for score in reference.metrics if score.name in MATTERS]
    untold = [name for name in wanted if name not in {one.metric.name for one in realised}]
    told = "; ".join(_beside(one.metric) for one in undecided or judged)
    verdict: Literal["yes", "no", "unknown"] = "unknown"
    if worse:
        verdict, reason = "no", "; ".join(_moved(one.metric) for one in worse)
    elif undecided:
        reason = f"{told}; {_wanting(undecided)}"
    elif realised and untold:
        words = " and ".join(f"the {_WORDS[name]}" for name in untold)
        reason = f"{told}; {words} needs {CLASS_ROWS_NEEDED} actuals of either class"
    elif realised:
        verdict, reason = "yes", f"{told}; {_limit(realised[0].metric.name)} is excluded"
    elif deciding:
        reason = f"{told}; {_awaited(counts, needed)}"
    else:
        reason = _nothing(reference, counts, needed)
    more = max((one.needed or 0.0 for one in undecided), default=math.inf)
    proof = evidence(
        counts,
        needed,
        test_rows=reference.rows,
        actuals_needed=math.ceil(more) if more < math.inf else None,
        estimated=bool(deciding) and not realised,
        worse=[one.metric.name for one in worse],
        level=level,
    )
    if not reason.startswith(NO_ACTUALS):
        reason = f"{reason[0].upper()}{reason[1:]}"
    return Answer(answer=verdict, reason=f"{reason}.", evidence=proof)


def _moved(metric: Metric) -> str:
    verb = ("fallen", "fell") if metric.greater_is_better else ("risen", "rose")
    said = f"is estimated to have {verb[0]}" if metric.estimated else verb[1]
    return (
        f"{_WORDS[metric.name]} {said} from {_number(metric.reference)} on the test set to"
        f" {_number(metric.value)} on {_basis(metric)} {_difference(metric)}"
    )


def _beside(metric: Metric) -> str:
    said = "is estimated at" if metric.estimated else "is"
    return (
        f"{_WORDS[metric.name]} {said} {_number(metric.value)} on {_basis(metric)} and"
        f" {_number(metric.reference)} on the test set {_difference(metric)}"
    )


def _basis(metric: Metric) -> str:
    return _count(metric.rows, "row" if metric.estimated else "actual")


def _difference(metric: Metric) -> str:
    ends = f"{_number(metric.difference_low)} to {_number(metric.difference_high)}"
    return f"(difference {_number(metric.difference)}, 95 % interval {ends})"


def _limit(name: str) -> str:
    return f"a rise by {MATTERS[name]:.0%}" if name in RELATIVE else f"a fall by {MATTERS[name]}"


def _wanting(undecided: Sequence[Found]) -> str:
    """Say what is missing to exclude a change that matters."""
    most = max(undecided, key=lambda one: one.needed or 0.0)
    limit, needed, rows = _limit(most.metric.name), most.needed or 0.0, most.metric.rows
    if needed == math.inf:
        return f"the test set is too small to exclude {limit}"
    if needed <= rows:
        return f"that is too near to {limit} to tell"
    step = 10 ** max(math.floor(math.log10(needed - rows)) - 1, 0)
    wanted = _count(math.ceil((needed - rows) / step) * step, "more actual")
    return f"to exclude {limit}, about {wanted} are needed"


def _awaited(counts: PerformanceWindow, needed: int) -> str:
    come = _count(counts.judged, "actual")
    verb = "has" if counts.judged == 1 else "have"
    return f"{come} of {_count(counts.rows, 'row')} {verb} come, {needed} are needed"


def _nothing(reference: PerformanceReference, counts: PerformanceWindow, needed: int) -> str:
    if not counts.rows:
        reason = "no calls in the window"
    elif not reference.metrics or reference.rows < needed:
        reason = f"the test set had {_count(reference.rows, 'row')} with an answer, {needed} needed"
    else:
        reason = _awaited(counts, needed)
    return reason if counts.actuals else f"{NO_ACTUALS}: {reason}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.3f}" if 0.0995 <= abs(value) < 1e6 else f"{value:.2g}"
