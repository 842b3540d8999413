"""How metrics on the actuals compare with those on the test set.

What a test set has shown is kept beside the model as sums (:class:`PerformanceReference`); a window
of calls is counted in the same units (:func:`window`), a batch at a time, and held against it
(:func:`compare`). Only numpy is needed.

An alarm needs two things, as a column's does. The metric is *worse for sure*: the whole interval of
the difference, at the level that the budget of false alarms leaves, excludes no change; the test
set is a sample too, so its interval counts as well. And the difference *matters*: its 95 % interval
lies wholly beyond :data:`MATTERS`, the same for all data. The answer is yes where the 95 % interval
of each deciding metric lies wholly on this side of it. So for one and the same change a larger
window says the same as a smaller, or what that could not know; both are wrong where an interval is.

A level holds over test sets and windows: a test set that was lucky is so for all windows that are
held against it. In simulations it holds for labels, and for errors without heavy tails; for those
of a lognormal, or of Student's t with 3 degrees of freedom, from a few hundred rows of a test set
on (with 60 rows alarms are four times as many).

Truths that have come are not a random part of the calls: who is refused a loan never fails to pay
it back. Intervals know of chance alone, and say nothing about the rows whose truth never comes.
"""

from nbmlops.monitoring.performance.comparing import ACTUALS_NEEDED, LEVEL, compare
from nbmlops.monitoring.performance.outcomes import PerformanceWindow, merge
from nbmlops.monitoring.performance.testsets import (
    PerformanceReference,
    Score,
    performance_reference,
    window,
    window_of_arrays,
)

__all__ = [
    "ACTUALS_NEEDED",
    "LEVEL",
    "PerformanceReference",
    "PerformanceWindow",
    "Score",
    "compare",
    "merge",
    "performance_reference",
    "window",
    "window_of_arrays",
]
