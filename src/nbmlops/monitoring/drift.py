"""Hold a window of calls against the training data: the report that ``monitor`` answers with.

A column drifts when two things hold. The difference is *large*: the Jensen-Shannon distance,
which does not grow with the number of rows, is over :data:`EFFECT_THRESHOLD`, the same for all
data. And it is *no accident*: a two-sample test, which knows that the training data are a sample
too, is significant at the level that the budget of false alarms states for all columns together.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from nbmlops.monitoring import questions, statistics
from nbmlops.monitoring.distributions import distribution
from nbmlops.monitoring.profile import (
    CategoryCounts,
    ColumnProfile,
    NumberSummary,
    Profile,
    regrid,
)
from nbmlops.records import (
    Budget,
    Column,
    ColumnReport,
    Distribution,
    Effect,
    ModelSchema,
    MonitorReport,
    Record,
    Reference,
    Window,
)

ROWS_NEEDED = 30
"""Rows that either side needs before anything is said about it."""

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

HEAD_SHARE_LEAST = 0.5
"""Categories are compared by name where the named ones hold this share of the training rows."""

FREQUENT = 10
"""How often training must have had a category among too many to name for it to stand alone."""

NEW_NAMED = 20
"""How many new categories a report names."""

NEW_NAME_LIMIT = 24
"""How much of a new category's name stands in a sentence, in characters."""

DEFAULT_BUDGET = Budget(false_alarms=1, windows=100)


class Comparison(Record, frozen=True, kw_only=True):
    """What the tests say of one column, before columns are looked at together.

    ``p_value`` is the least over the parts of the comparison (values, missing ones, values
    outside of the training range, new categories), times their number (Bonferroni). ``unknown``
    is the reason why nothing can be said, unless the column drifts all the same.
    """

    kind: str
    effect: Effect | None = None
    p_value: float | None = None
    unknown: str | None = None
    missing_share: float | None = None
    new_categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    distribution: Distribution | None = None


def report(
    reference: Profile,
    window: Profile,
    schema: ModelSchema,
    *,
    model: str,
    version: int | None,
    commit: str | None,
    endpoint: str | None,
    reference_digest: str,
    since: datetime | None,
    until: datetime | None,
    created_at: datetime,
    budget: Budget = DEFAULT_BUDGET,
) -> MonitorReport:
    """Answer the four questions of monitoring for one window.

    ``window`` was made by :func:`~nbmlops.monitoring.profile.window_profile` on ``reference``.
    The p-values in the report are adjusted for all columns and the prediction together (Holm),
    so each compares as it stands with :data:`BUDGET_SHARE` of
    ``budget.false_alarms / budget.windows``.
    """
    share = statistics.independent_share(
        reference.row_sample.copies,
        window.row_sample.copies,
        window.rows,
        least=INDEPENDENT_ROWS_LEAST,
    )
    references = {column.name: column for column in reference.columns}
    windows = {column.name: column for column in window.columns}
    compared = {
        str(column.name): compare(
            references.get(column.name), windows.get(column.name), share, column=column
        )
        for column in schema.columns
    }
    answered = compare_output(reference.output, window.output, share)
    alarms = budget.false_alarms / budget.windows if budget.windows > 0 else 0.0
    level = BUDGET_SHARE * alarms
    names = list(compared)
    *columns, prediction = _judged(
        [*names, "prediction"], [*compared.values(), answered], level=level
    )
    independent = round(share * window.rows)
    asked = questions.answers(columns, prediction, window, independent, needed=ROWS_NEEDED)
    return MonitorReport(
        verdict=questions.verdict(asked),
        model=model,
        window=Window(since=since, until=until, rows=window.rows),
        reference=Reference(rows=reference.rows, digest=reference_digest),
        questions=asked,
        columns=tuple(columns),
        prediction=prediction,
        budget=budget,
        created_at=created_at,
        version=version,
        commit=commit,
        endpoint=endpoint,
    )


def compare(
    reference: ColumnProfile | None,
    window: ColumnProfile | None,
    share: float,
    *,
    column: Column | None = None,
) -> Comparison:
    """Compare one column's window with its training data.

    ``share`` is which part of the window's rows counts as independent observations.
    """
    kind = column.kind if column is not None else reference.kind if reference else "category"
    if reference is None or window is None:
        return Comparison(kind=kind, unknown="the profile of the training data has no such column")
    missing_share = window.missing / window.rows if window.rows else None
    drawn = distribution(reference, window)
    unknown = _too_few(reference, window)
    if unknown is not None and (not reference.count or _short(reference, window)):
        return Comparison(
            kind=kind, unknown=unknown, missing_share=missing_share, distribution=drawn
        )
    parts, known, note = _parts(reference, window, column)
    effect, p_value = _tested(reference, window, parts, share)
    return Comparison(
        kind=kind,
        effect=Effect(name="jensen-shannon-distance", value=effect, threshold=EFFECT_THRESHOLD),
        p_value=p_value,
        unknown=unknown,
        missing_share=missing_share,
        new_categories=known[:NEW_NAMED],
        notes=_notes(reference, window, known, note),
        distribution=drawn,
    )


def compare_output(
    reference: ColumnProfile | None, window: ColumnProfile | None, share: float
) -> Comparison:
    """Compare predictions with the training labels or values.

    Labels are compared like any category. Of values only the mean is: predictions of a sound
    regression vary less than the values that it was trained on (they keep the explained part of
    the variance), so a comparison of whole distributions would always find them different.
    """
    if reference is None or window is None or reference.numbers is None:
        compared = compare(reference, window, share)
        return Comparison(
            kind="label",
            effect=compared.effect,
            p_value=compared.p_value,
            unknown=compared.unknown,
            missing_share=compared.missing_share,
            new_categories=compared.new_categories,
            notes=compared.notes,
            distribution=compared.distribution,
        )
    missing_share = window.missing / window.rows if window.rows else None
    drawn = distribution(reference, window)
    unknown = _too_few(reference, window)
    then, now = _moments(reference.numbers, 1.0), _moments(window.numbers, share)
    if unknown is not None or then is None or now is None:
        return Comparison(
            kind="value",
            unknown=unknown or "the values are too large for their spread to be computed",
            missing_share=missing_share,
            distribution=drawn,
        )
    p_value = statistics.mean_difference_p_value(then, now)
    apart = abs(now.mean - then.mean)
    # A constant in training: any other mean is a full difference.
    size = apart / then.variance**0.5 if then.variance > 0 else float(apart > 0)
    return Comparison(
        kind="value",
        effect=Effect(
            name="standardized-mean-difference", value=min(size, 1e6), threshold=MEAN_THRESHOLD
        ),
        p_value=p_value,
        missing_share=missing_share,
        notes=_notes(reference, window, (), None),
        distribution=drawn,
    )


# --- parts of a comparison ----------------------------------------------------------------------


class Part(Record, frozen=True, kw_only=True):
    """Rows that training had none of, or hardly any: more of them in the window is a finding."""

    reference: float
    window: float


class Parts(Record, frozen=True, kw_only=True):
    """A column's values that are there, counted on common cells.

    ``beside`` are rows that are part of ``values`` too and are tested on their own as well;
    ``cells`` are those of the effect.
    """

    values: tuple[tuple[float, ...], tuple[float, ...]]
    cells: tuple[tuple[float, ...], tuple[float, ...]]
    beside: tuple[Part, ...] = ()


def _parts(
    reference: ColumnProfile, window: ColumnProfile, column: Column | None
) -> tuple[Parts, tuple[str, ...], str | None]:
    """Return the cells to compare, the new categories, and a note on what was compared."""
    if reference.numbers is not None and window.numbers is not None:
        return _number_parts(reference.numbers, window.numbers), (), None
    if reference.categories is None or window.categories is None:
        return Parts(values=((), ()), cells=((), ())), (), None
    new = _new_categories(reference.categories, window.categories, column)
    named = sum(reference.categories.counts)
    if named >= HEAD_SHARE_LEAST * reference.count:
        return _category_parts(reference.categories, window.categories), new, None
    if reference.lengths is None or window.lengths is None:
        return Parts(values=((), ()), cells=((), ())), (), None
    note = f"compared by length of text, for there are {reference.categories.distinct} values"
    return _number_parts(reference.lengths, window.lengths), new, note


def _number_parts(reference: NumberSummary, window: NumberSummary) -> Parts:
    r, w = (regrid(summary, reference.cuts) for summary in (reference, window))
    inner_r, inner_w = list(r[1:-1]), list(w[1:-1])
    # Values outside of the training range also belong to the outermost cells: a test on cells
    # that were chosen for being empty in training would find them too often.
    inner_w[0] += w[0]
    inner_w[-1] += w[-1]
    return Parts(
        values=(tuple(inner_r), tuple(inner_w)),
        cells=(r, w),
        beside=tuple(Part(reference=0, window=outside) for outside in (w[0], w[-1])),
    )


def _category_parts(reference: CategoryCounts, window: CategoryCounts) -> Parts:
    unseen = sum(window.unseen.values()) + window.other
    named = list(zip(reference.names, reference.counts, window.counts, strict=True))
    beside: tuple[Part, ...] = ()
    if reference.closed:
        named += [(name, 0, count) for name, count in window.unseen.items()]
        rest = (0, window.other)
        beside = (Part(reference=_expected_new(reference), window=unseen),)
    else:
        # Names were kept for being frequent in training; of the rare ones by luck.
        rare = [item for item in named if item[1] < FREQUENT]
        named = [item for item in named if item[1] >= FREQUENT]
        rest = (
            reference.other + sum(count for _, count, _ in rare),
            unseen + sum(count for _, _, count in rare),
        )
    # Cells are merged with their neighbours where they are small: rare ones with rare ones, by
    # both sides together and ties by name, which favours neither side.
    named.sort(key=lambda item: (-item[1] - item[2], item[0]))
    values = (
        (*(count for _, count, _ in named), rest[0]),
        (*(count for _, _, count in named), rest[1]),
    )
    if not reference.closed:
        return Parts(values=values, cells=values)
    cells = ((*reference.counts, 0), (*window.counts, unseen))
    return Parts(values=values, cells=cells, beside=beside)


def _expected_new(reference: CategoryCounts) -> float:
    """Return how many rows in new categories as many rows as training's would have, at most.

    A value that occurred once in training would have been new without that row: so much is to be
    expected, with a variance that adds the values that occurred twice. Four deviations are
    granted. Source: Good, "The population frequencies of species and the estimation of
    population parameters", Biometrika 40 (1953).
    """
    once, twice = (sum(count == times for count in reference.counts) for times in (1, 2))
    return once + 4 * (once + 2 * twice) ** 0.5


def _new_categories(
    reference: CategoryCounts, window: CategoryCounts, column: Column | None
) -> tuple[str, ...]:
    """Return the window's categories that training did not have, if that can be told."""
    names = sorted(window.unseen, key=lambda name: (-window.unseen[name], name))
    if reference.closed:
        return tuple(names)
    if column is not None and column.categories is not None:
        known = set(column.categories)
        return tuple(name for name in names if name not in known)
    return ()


def _tested(
    reference: ColumnProfile, window: ColumnProfile, parts: Parts, share: float
) -> tuple[float | None, float]:
    """Return the size of the difference and its p-value."""
    n, m = float(reference.rows), window.rows * share
    lost_r = (reference.missing, reference.odd + reference.non_finite)
    lost_w = (window.missing, window.odd + window.non_finite)
    effect = statistics.jensen_shannon_distance(
        np.array([*parts.cells[0], *lost_r], dtype=np.float64),
        np.array([*parts.cells[1], *lost_w], dtype=np.float64) * share,
    )
    p_values = [
        statistics.difference_p_value(r, n, w * share, m)
        for r, w in zip(lost_r, lost_w, strict=True)
        if r or w
    ]
    p_values += [
        statistics.excess_p_value(part.reference, n, part.window * share, m)
        for part in parts.beside
    ]
    by_values = statistics.homogeneity_p_value(
        np.array(parts.values[0], dtype=np.float64),
        np.array(parts.values[1], dtype=np.float64) * share,
    )
    if by_values is not None:
        p_values.append(by_values)
    return effect, min(1.0, min(p_values, default=1.0) * len(p_values))


def _moments(summary: NumberSummary | None, share: float) -> statistics.Moments | None:
    if summary is None or summary.mean is None or summary.m2 is None:
        return None
    count = sum(summary.counts)
    variance = summary.m2 / max(count - 1, 1)
    return statistics.Moments(mean=summary.mean, variance=variance, rows=count * share)


# --- words ------------------------------------------------------------------------------------


def _short(reference: ColumnProfile, window: ColumnProfile) -> bool:
    return reference.rows < ROWS_NEEDED or window.rows < ROWS_NEEDED


def _too_few(reference: ColumnProfile, window: ColumnProfile) -> str | None:
    """Return why a column cannot be called unchanged, or ``None`` when it can."""
    if not reference.count:
        return "the training data have no value in this column"
    if reference.rows < ROWS_NEEDED:
        return f"{_rows(reference.rows)} of training data, {ROWS_NEEDED} are needed"
    if window.rows < ROWS_NEEDED:
        return f"{_rows(window.rows)} in the window, {ROWS_NEEDED} are needed"
    if reference.count < ROWS_NEEDED:
        return f"{_values(reference.count)} in the training data, {ROWS_NEEDED} are needed"
    if window.count < ROWS_NEEDED:
        return f"{_values(window.count)} in the window, {ROWS_NEEDED} are needed"
    return None


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _values(count: int) -> str:
    return f"{count} value" if count == 1 else f"{count} values"


def _notes(
    reference: ColumnProfile, window: ColumnProfile, new: tuple[str, ...], note: str | None
) -> tuple[str, ...]:
    """Say in words what is missing, outside of the training range, or new."""
    notes = [note] if note else []
    rows = max(window.rows, 1)
    now, then = window.missing / rows, reference.missing / max(reference.rows, 1)
    if abs(now - then) >= 0.005:
        notes.append(f"{now:.1%} missing, {then:.1%} in training")
    lost = window.non_finite + window.odd
    if lost:
        notes.append(f"{lost / rows:.1%} infinite or of another type")
    if reference.numbers is not None and window.numbers is not None and reference.numbers.cuts:
        counts = regrid(window.numbers, reference.numbers.cuts)
        if counts[0]:
            notes.append(f"{counts[0] / rows:.1%} below the least of training")
        if counts[-1]:
            notes.append(f"{counts[-1] / rows:.1%} above the greatest of training")
    if new and window.categories is not None:
        unseen = sum(window.categories.unseen.get(name, 0) for name in new)
        named = ", ".join(name[:NEW_NAME_LIMIT] for name in new[:3])
        more = f" and {len(new) - 3} more" if len(new) > 3 else ""
        notes.append(f"{unseen / rows:.1%} in new categories ({named}{more})")
    return tuple(notes)


def _judged(names: list[str], compared: list[Comparison], *, level: float) -> list[ColumnReport]:
    """Give each comparison its verdict, all of them looked at together."""
    tested = [index for index, item in enumerate(compared) if item.p_value is not None]
    adjusted = statistics.holm([compared[index].p_value or 0.0 for index in tested])
    p_values = dict(zip(tested, adjusted, strict=True))
    return [
        _column_report(name, item, p_values.get(index), level=level)
        for index, (name, item) in enumerate(zip(names, compared, strict=True))
    ]


def _column_report(
    name: str, item: Comparison, p_value: float | None, *, level: float
) -> ColumnReport:
    large = (
        item.effect is not None
        and item.effect.value is not None
        and item.effect.value > item.effect.threshold
    )
    if large and p_value is not None and p_value <= level:
        verdict, reason = "drift", _difference(item)
    elif item.unknown is not None:
        verdict, reason = "unknown", item.unknown
    elif large:
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
    return f"distance {value:.2f} from training, over {item.effect.threshold:g}"
