"""Hold a window of calls against the training data, column by column.

A column drifts when two things hold. The difference *matters*: the Jensen-Shannon distance, which
does not grow with the number of rows, is over :data:`EFFECT_THRESHOLD`, the same for all data, with
its whole interval, and farther from training than any part of training of that size ever was. And
it is *no accident*: a two-sample test, which knows that the training data are a sample too, and
what rows that hang together are worth, is significant at the level that the budget of false alarms
states for all columns together.

A column is unchanged when the whole interval is below the threshold, and unknown in between. So few
rows and many never contradict each other. Below :data:`ROWS_DECISIVE` rows that would be unknown
throughout; there a column counts as unchanged as long as nothing speaks against it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from nbmlops.monitoring import copies, dispersion, statistics
from nbmlops.monitoring.arrays import unpack
from nbmlops.monitoring.coarse import LOST, MISSING, Coarse, expected_new
from nbmlops.monitoring.columns import Floats
from nbmlops.monitoring.distributions import distribution
from nbmlops.monitoring.profile import Counted, Gauge, Tally, Variable
from nbmlops.monitoring.statistics import CONFIDENCE
from nbmlops.records import (
    Budget,
    ColumnReport,
    Distribution,
    Effect,
    Record,
    replace,
)

ROWS_DECISIVE = 500
"""From so many rows on, a difference that matters is told from none."""

ROWS_NEEDED = 30
"""Rows that either side needs before anything is said about it."""

WORTH_LEAST = 5
"""What a window is worth at least, in independent rows, for a difference to be claimed."""

INDEPENDENT_ROWS_LEAST = 50
"""What a window of repeated rows counts for at the least."""

EFFECT_THRESHOLD = 0.1
"""The Jensen-Shannon distance from which a difference is large enough to tell: a shift by about
a quarter of a standard deviation, 12 points of share between two equal classes, or 2 % of values
that training never saw. Cohen ("Statistical Power Analysis", 1988) calls 0.2 standard deviations
a small effect."""

MEAN_THRESHOLD = 0.25
"""The same for the mean of predicted values, in standard deviations of the training values."""

BUDGET_SHARE = 0.25
"""How much of the budget of false alarms the tests may spend. The rest is kept for what they
assume and calls are not: independent of one another, window by window."""

LEANING = 0.8
"""From which part of the threshold on an undecided column keeps the whole question open."""

VANISHED_SHARE = 0.01
"""What share of training a category has at least whose absence is told."""

NEW_NAMED = 20
"""How many new categories a report names."""

NEW_NAME_LIMIT = 24
"""How much of a new category's name stands in a sentence, in characters."""

DEFAULT_BUDGET = Budget(false_alarms=1, windows=100)


_HIDDEN = "its values are kept out of the call log: [calls] of nbmlops.toml"


class Comparison(Record, frozen=True, kw_only=True):
    """What the tests say of one column, before columns are looked at together.

    ``p_value`` is the least over the parts of the comparison (values, missing ones, values
    outside of the training range, new categories), times their number (Bonferroni). ``unknown``
    is the reason why nothing can be said, unless the column drifts all the same; ``dependent`` why
    its rows are too few however many they are; ``decisive`` whether there are enough to tell a
    difference that matters from none; ``matters`` whether it is one, if it is no accident.
    """

    kind: str
    effect: Effect | None = None
    p_value: float | None = None
    unknown: str | None = None
    dependent: str | None = None
    decisive: bool = False
    matters: bool = False
    missing_share: float | None = None
    new_categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    distribution: Distribution | None = None


class Sizes(NamedTuple):
    """What the rows of training and of a window are worth: so many independent ones."""

    training: float
    window: float


def level(budget: Budget) -> float:
    """Return the chance of an alarm without a cause in one window that a test may take."""
    alarms = budget.false_alarms / budget.windows if budget.windows > 0 else 0.0
    return max(BUDGET_SHARE * alarms, 1e-12)


class Judged(NamedTuple):
    """What was found of each column and of the prediction.

    ``independent_rows`` is what the rows are worth, as far as their copies tell; ``undecided``
    names the features that look different and may be so by chance.
    """

    columns: tuple[ColumnReport, ...]
    prediction: ColumnReport | None
    independent_rows: int
    undecided: frozenset[str]


def judge(
    gauge: Gauge,
    window: Tally,
    *,
    budget: Budget = DEFAULT_BUDGET,
    pictures: bool = True,
    hidden: frozenset[str] = frozenset(),
    trials: int = 1,
) -> Judged:
    """Hold each column of a window, and its predictions, against training.

    The p-values are adjusted for all of them together (Holm), and for so many ``trials``, so each
    compares as it stands with :data:`BUDGET_SHARE` of ``budget.false_alarms / budget.windows``.
    ``hidden`` columns are those whose values are kept out of the log.

    Without ``pictures`` there are no distributions, for whoever looks at many windows.
    """
    reference = gauge.reference
    share = copies.independent_share(
        reference.tally.row_sample,
        window.row_sample,
        window.rows,
        least=INDEPENDENT_ROWS_LEAST,
    )
    counted = gauge.counted(window)
    memory = _memory(gauge, window, counted)
    features = len(reference.variables) - reference.has_output
    compared = [
        Comparison(kind=variable.kind, unknown=_HIDDEN)
        if place < features and variable.name in hidden
        else compare(gauge, window, counted, place, share, memory, pictures=pictures)
        for place, variable in enumerate(reference.variables)
    ]
    names = [variable.name for variable in reference.variables]
    judged = _judged(names, compared, level=level(budget), trials=trials)
    prediction = judged.pop() if reference.has_output else None
    undecided = frozenset(
        report.name
        for report, item in zip(judged, compared, strict=False)
        if report.verdict == "unknown" and _leans(item)
    )
    return Judged(tuple(judged), prediction, round(share * window.rows), undecided)


def _is_undecided(item: Comparison) -> bool:
    """Whether a difference that matters can neither be claimed nor excluded."""
    effect = item.effect
    return item.decisive and effect is not None and (effect.high or 0.0) > effect.threshold


def _leans(item: Comparison) -> bool:
    effect = item.effect
    if not _is_undecided(item) or effect is None or effect.value is None:
        return False
    return effect.value > LEANING * effect.threshold


def compare(
    gauge: Gauge,
    window: Tally,
    counts: list[Counted],
    place: int,
    share: float,
    memory: float = 1.0,
    *,
    pictures: bool = True,
) -> Comparison:
    """Compare one variable's window with its training data.

    ``share`` is which part of the window's rows counts as independent observations, as far as
    copies of rows tell; ``memory`` how many rows count as one for half of the columns.
    """
    reference = gauge.reference
    variable, coarse = reference.variables[place], gauge.coarse[place]
    then, now = gauge.training[place], counts[place]
    is_output = reference.has_output and place == len(counts) - 1
    kind = variable.kind
    if is_output:
        kind = "label" if variable.by != "numbers" else "value"
    base = Comparison(
        kind=kind,
        missing_share=now.missing / now.rows if now.rows else None,
        distribution=distribution(gauge, place, now) if pictures else None,
    )
    unknown = _too_few(then, now)
    # Of a column that had no value in training, values are a difference; their absence is none.
    nothing = not then.count and not (now.count and then.missing)
    if unknown is not None and (nothing or min(then.rows, now.rows) < ROWS_NEEDED):
        return replace(base, unknown=unknown)
    if not is_output and only_grows(variable, now):
        return replace(base, unknown="it only grows, as clocks do: later values are new by nature")
    counted = coarse.counts(now.cells, now.missing, now.lost)
    sizes = _worth(gauge, window, place, counted, share, memory)
    if kind == "value":
        return _compared_means(base, gauge, then, now, sizes, unknown)
    known = _new_categories(variable, now)
    base = replace(base, unknown=unknown, new_categories=known[:NEW_NAMED])
    training, tested, limit, noted = coarse.training, coarse.training, EFFECT_THRESHOLD, []
    if is_output and reference.answered:
        # Distances are a metric: farther from the labels than the model's own answers are, by the
        # threshold, is at least so far from those answers.
        tested = unpack(reference.answered).astype(np.float64)
        gap = statistics.jensen_shannon_distance(training, tested) or 0.0
        if gap > 0.02:
            noted.append(f"on the test set its answers were {gap:.2f} from the labels")
        limit += gap
    farthest = 0.0
    if reference.ordered:
        farthest = dispersion.farthest(reference.stretches, place, now.rows, then.rows)
    scales = Sizes(sizes.training / max(then.rows, 1), sizes.window / max(now.rows, 1))
    differs = counted
    if variable.by == "names" and variable.closed:
        expected = expected_new(then.cells) * now.rows / max(then.rows, 1)
        differs = _with_new_among_rare(coarse, counted, then, now, expected)
        counted = _with_new_among_rare(coarse, counted, then, now, math.inf)
    effect, low = _distance(
        training * scales.training, differs * scales.window, max(limit, farthest)
    )
    fewer = min(1.0, sizes.training / max(tested.sum(), 1.0))
    return replace(
        base,
        effect=effect,
        p_value=_p_value(
            variable, coarse, tested * fewer, counted * scales.window, then, now, scales
        ),
        dependent=_dependent(sizes, now.rows),
        decisive=share * now.rows >= ROWS_DECISIVE,
        matters=effect is not None
        and sizes.window >= WORTH_LEAST
        and low > limit
        and (low + (effect.value or 0.0)) / 2 > farthest,
        notes=(*noted, *_notes(variable, coarse, then, now, known)),
    )


def _distance(training: Floats, window: Floats, limit: float) -> tuple[Effect | None, float]:
    """Return the distance with its interval, and where that begins."""
    distance = statistics.jensen_shannon_distance(training, window)
    if distance is None:
        return None, 0.0
    low = distance - CONFIDENCE * statistics.distance_error_at(training, window, distance)
    high = distance + CONFIDENCE * statistics.distance_error(
        float(training.sum()), float(window.sum())
    )
    effect = Effect(
        name="jensen-shannon-distance",
        value=distance,
        threshold=limit,
        low=max(0.0, low),
        high=min(1.0, high),
    )
    return effect, low


def _with_new_among_rare(
    coarse: Coarse, counted: Floats, then: Counted, now: Counted, expected: float
) -> Floats:
    """Count as many new names as are to be expected where rare ones are that training had.

    A test on the cell of new names, which was chosen for being empty in training, would find too
    much in it. New names that a tally has no room for lie where those of training did that occurred
    once, as many as :func:`~nbmlops.monitoring.coarse.expected_new` says: the named ones are no
    sample of them.
    """
    unseen = float(now.cells[-1])
    if not coarse.tails or not unseen:
        return counted
    found = counted.copy()
    moved = min(unseen, expected)
    found[MISSING - 1] -= moved
    named = sum(now.unseen.values())
    if named < unseen:
        rare = slice(coarse.first_tail, coarse.first_tail + len(coarse.tails))
        once = coarse.counts((then.cells == 1).astype(np.int64), 0, 0)[rare]
        lie = once if once.any() else coarse.training[rare]
        found[rare] += moved * lie / lie.sum()
        return found
    for name, count in now.unseen.items():
        found[coarse.tail_of(name)] += moved * count / named
    return found


def _compared_means(
    base: Comparison, gauge: Gauge, then: Counted, now: Counted, sizes: Sizes, unknown: str | None
) -> Comparison:
    """Compare predicted values with the training values, by their means alone.

    Predictions of a sound regression vary less than the values that it was trained on (they keep
    the explained part of the variance), so a comparison of whole distributions would always find
    them different.
    """
    expected, observed = _moments(then, sizes.training), _moments(now, sizes.window)
    if unknown is not None or expected is None or observed is None:
        too_large = "the values are too large for their spread to be computed"
        return replace(base, unknown=unknown or too_large)
    spread = expected.variance**0.5
    tested, limit, noted = expected, MEAN_THRESHOLD, []
    if gauge.reference.answered and spread > 0:
        mean, variance, rows = unpack(gauge.reference.answered).tolist()
        gap = abs(mean - expected.mean) / spread
        limit += min(gap, 1e6)
        tested = statistics.Moments(mean=mean, variance=variance, rows=min(rows, sizes.training))
        if gap > 0.02:
            noted.append(f"on the test set its mean was {gap:.2f} deviations from training")
    apart = abs(observed.mean - expected.mean)
    # A constant in training: any other mean is a full difference.
    size = min(apart / spread if spread > 0 else float(apart > 0), 1e6)
    error = CONFIDENCE * (1 / sizes.training + 1 / sizes.window) ** 0.5
    return replace(
        base,
        effect=Effect(
            name="standardized-mean-difference",
            value=size,
            threshold=limit,
            low=max(0.0, size - error),
            high=size + error,
        ),
        p_value=statistics.mean_difference_p_value(tested, observed),
        dependent=_dependent(sizes, now.rows),
        decisive=now.rows >= ROWS_DECISIVE,
        matters=sizes.window >= WORTH_LEAST and size - error > limit,
        notes=(*noted, *_notes(gauge.reference.variables[-1], gauge.coarse[-1], then, now, ())),
    )


# --- what rows are worth ------------------------------------------------------------------------


def _memory(gauge: Gauge, window: Tally, counts: list[Counted]) -> float:
    """Return the median variance inflation of a window's columns.

    Rows have one order for all columns. A column that went where all its values share a cell shows
    no memory of its own.
    """
    found = [_inflation(gauge, window, place, float(now.rows)) for place, now in enumerate(counts)]
    return float(np.median(found)) if found else 1.0


def _worth(
    gauge: Gauge, window: Tally, place: int, counted: Floats, share: float, memory: float
) -> Sizes:
    """Return how many independent rows training and the window are worth for one variable."""
    reference = gauge.reference
    training = float(gauge.coarse[place].training.sum())
    if reference.ordered:
        training /= _inflation(gauge, reference.tally, place, training)
    rows = float(counted.sum())
    held = rows / max(memory, _inflation(gauge, window, place, rows))
    return Sizes(max(training, 1.0), max(min(held, share * rows), 1.0))


def _inflation(gauge: Gauge, tally: Tally, place: int, rows: float) -> float:
    coarse = gauge.coarse[place]
    levels = dispersion.inflations(coarse, tally.blocks, place, gauge.coarse_starts[place])
    return dispersion.inflation(levels, rows)


def _dependent(sizes: Sizes, rows: int) -> str | None:
    """Return why rows cannot exclude a difference that matters, whatever they show."""
    if sizes.window >= ROWS_NEEDED or rows < ROWS_NEEDED:
        return None
    return f"its {rows:,} rows hang together so much that they count as {sizes.window:.0f}"


def only_grows(variable: Variable, now: Counted) -> bool:
    """Whether values go on as a clock does, so that later ones are new by nature."""
    if variable.by != "numbers" or not now.count:
        return False
    beyond = int(now.cells[-1]) / now.count
    return (variable.clock or variable.kind == "datetime") and beyond > 0.9


# --- tests --------------------------------------------------------------------------------------


def _p_value(
    variable: Variable,
    coarse: Coarse,
    training: Floats,
    window: Floats,
    then: Counted,
    now: Counted,
    scales: Sizes,
) -> float:
    """Return the least p-value of a variable's parts, times their number.

    ``training`` and ``window`` are coarse counts of independent rows, and ``scales`` what a row of
    each is worth.
    """
    n, m = float(training.sum()), float(window.sum())
    p_values = [
        statistics.difference_p_value(float(training[cell]), n, float(window[cell]), m, new=new)
        for cell, new in ((MISSING, 0.0), (LOST, coarse.new * scales.training))
        if training[cell] or window[cell]
    ]
    values_r, values_w = training[:MISSING], window[:MISSING]
    if variable.by == "names":
        if variable.closed and len(values_r) > 1:
            expected = min(expected_new(then.cells) * scales.training, n)
            unseen = float(now.cells[-1]) * scales.window
            p_values.append(statistics.excess_p_value(expected, n, unseen, m))
            values_r, values_w = values_r[:-1], values_w[:-1]
    elif len(values_r) > 2:
        p_values += [
            statistics.excess_p_value(0.0, n, float(values_w[cell]), m) for cell in (0, -1)
        ]
        # Values outside of the training range also belong to the outermost cells: a test on cells
        # that were chosen for being empty in training would find them too often.
        values_r, values_w = _folded(values_r), _folded(values_w)
        distance = statistics.kolmogorov_smirnov(
            then.cells.astype(np.float64), now.cells.astype(np.float64)
        )
        if distance is not None:
            p_values.append(
                statistics.kolmogorov_p_value(
                    distance, then.count * scales.training, now.count * scales.window
                )
            )
    by_values = statistics.homogeneity_p_value(values_r, values_w)
    if by_values is not None:
        p_values.append(by_values)
    return min(1.0, min(p_values, default=1.0) * len(p_values))


def _folded(counts: Floats) -> Floats:
    """Add the outermost cells to their neighbours."""
    folded = counts[1:-1].copy()
    folded[0] += counts[0]
    folded[-1] += counts[-1]
    return folded


def _new_categories(variable: Variable, now: Counted) -> tuple[str, ...]:
    """Return the window's categories that training did not have, if that can be told."""
    if variable.by != "names" or not variable.closed:
        return ()
    return tuple(sorted(now.unseen, key=lambda name: (-now.unseen[name], name)))


def _moments(counted: Counted, rows: float) -> statistics.Moments | None:
    if not (math.isfinite(counted.mean) and math.isfinite(counted.m2)):
        return None
    variance = counted.m2 / max(counted.count - 1, 1)
    return statistics.Moments(mean=counted.mean, variance=variance, rows=rows)


# --- words ------------------------------------------------------------------------------------


def _too_few(then: Counted, now: Counted) -> str | None:
    """Return why a column cannot be called unchanged, or ``None`` when it can."""
    if not then.count:
        return "the training data have no value in this column"
    if then.rows < ROWS_NEEDED:
        return f"{_rows(then.rows)} of training data, {ROWS_NEEDED} are needed"
    if now.rows < ROWS_NEEDED:
        return f"{_rows(now.rows)} in the window, {ROWS_NEEDED} are needed"
    if then.count < ROWS_NEEDED:
        return f"{_values(then.count)} in the training data, {ROWS_NEEDED} are needed"
    if now.count < ROWS_NEEDED:
        return f"{_values(now.count)} in the window, {ROWS_NEEDED} are needed"
    return None


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _values(count: int) -> str:
    return f"{count} value" if count == 1 else f"{count} values"


def _notes(
    variable: Variable, coarse: Coarse, then: Counted, now: Counted, new: tuple[str, ...]
) -> tuple[str, ...]:
    """Say in words what is missing, outside of the training range, new, or gone."""
    notes: list[str] = []
    rows = max(now.rows, 1)
    share, before = now.missing / rows, then.missing / max(then.rows, 1)
    if abs(share - before) >= 0.005:
        notes.append(f"{share:.1%} missing, {before:.1%} in training")
    if now.lost:
        notes.append(f"{now.lost / rows:.1%} infinite or of another type")
    if variable.by == "lengths":
        notes.append(f"compared by length of text, for there are {variable.distinct} values")
    elif variable.by == "numbers" and then.count:
        beyond = {
            "below the least": now.cells[0],
            "above the greatest": now.cells[-1],
            "between the values": coarse.counts(now.cells, 0, 0)[LOST],
        }
        notes += [
            f"{held / rows:.1%} {where} of training" for where, held in beyond.items() if held
        ]
    elif variable.by == "names":
        if new:
            notes.append(f"{now.cells[-1] / rows:.1%} in new categories ({_few(new)})")
        gone = _vanished(variable, then, now)
        if gone:
            notes.append(f"none of {_few(gone)} any more")
    return tuple(notes)


def _vanished(variable: Variable, then: Counted, now: Counted) -> tuple[str, ...]:
    """Return categories that training had, and the window would have if nothing had changed."""
    shares = then.cells[: len(variable.names)] / max(then.rows, 1)
    there = (shares >= VANISHED_SHARE) & (shares * now.rows >= 10) & (now.cells[:-1] == 0)
    return tuple(variable.names[place] for place in np.flatnonzero(there).tolist())


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(name[:NEW_NAME_LIMIT] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _judged(
    names: list[str], compared: list[Comparison], *, level: float, trials: int
) -> list[ColumnReport]:
    """Give each comparison its verdict, all of them looked at together."""
    tested = [index for index, item in enumerate(compared) if item.p_value is not None]
    adjusted = statistics.holm([compared[index].p_value or 0.0 for index in tested])
    p_values = {
        index: min(1.0, trials * value) for index, value in zip(tested, adjusted, strict=True)
    }
    return [
        _column_report(name, item, p_values.get(index), level=level)
        for index, (name, item) in enumerate(zip(names, compared, strict=True))
    ]


def _column_report(
    name: str, item: Comparison, p_value: float | None, *, level: float
) -> ColumnReport:
    """Return the verdict: see this module's first lines."""
    effect = item.effect
    value = effect.value if effect is not None else None
    low, high = (effect.low or 0.0, effect.high) if effect is not None else (0.0, None)
    limit = effect.threshold if effect is not None else math.inf
    significant = p_value is not None and p_value <= level
    if significant and item.matters:
        verdict, reason = "drift", _difference(item)
    elif item.unknown is not None:
        verdict, reason = "unknown", item.unknown
    elif item.dependent is not None:
        verdict, reason = "unknown", item.dependent
    elif _is_undecided(item):
        verdict = "unknown"
        reason = f"the distance is {low:.2f} to {high:.2f}, and from {limit:.2g} on it matters"
    elif value is not None and value > limit:
        verdict, reason = "ok", "the difference may be chance in so few rows"
    else:
        verdict, reason = "ok", "like the training data"
    if verdict != "unknown":
        reason = "; ".join((*item.notes, reason) if verdict == "drift" else (reason, *item.notes))
    return ColumnReport(
        name=name,
        kind=item.kind,
        verdict=verdict,
        reason=reason,
        effect=item.effect,
        p_value=p_value,
        missing_share=item.missing_share,
        new_categories=item.new_categories,
        distribution=item.distribution,
    )


def _difference(item: Comparison) -> str:
    value = item.effect.value if item.effect is not None else None
    if item.effect is None or value is None:
        return "differs from training"
    if item.effect.name == "standardized-mean-difference":
        return f"the mean is {value:.2f} standard deviations from training"
    return f"distance {value:.2f} from training, over {item.effect.threshold:.2g}"
