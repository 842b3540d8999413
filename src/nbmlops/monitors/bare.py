"""Rows without a model: what is held against what, and which questions that answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from nbmlops import records
from nbmlops.monitoring import (
    changes,
    columns,
    copies,
    drift,
    performance,
    profile,
    reporting,
)
from nbmlops.monitoring.profile import Counting, Gauge, Tally
from nbmlops.monitors.outputs import Outputs, outputs_of
from nbmlops.records import (
    Answer,
    Budget,
    Explanation,
    Metric,
    ModelSchema,
    MonitorReport,
    OutputSchema,
)
from nbmlops.schema import widened

PARTS = 16
LEAST_ROWS = 100
MOST_ROWS = 1 << 17


def part_rows(rows: int) -> int:
    """Return how many rows of a table are looked at at once: sixteen parts, none too small."""
    return min(MOST_ROWS, max(LEAST_ROWS, -(-rows // PARTS)))


class Rows:
    """Columns of rows, by name, with the kind of each."""

    def __init__(self, held: Mapping[str, Any], known: Mapping[str, str]) -> None:
        self._held = held
        self.names = list(held)
        self.kinds = dict(known)
        self.rows = max((columns.size(column) for column in held.values()), default=0)

    def get(self, name: str) -> Any:
        """Return a column, ``None`` if there is none of that name."""
        return self._held.get(name)

    def sizes(self) -> list[int]:
        """Return how many rows each part has in which the rows are looked at."""
        size = part_rows(self.rows)
        return [min(size, self.rows - start) for start in range(0, self.rows, size)]

    def parts(self, name: str) -> Iterator[Any]:
        """Yield a column part by part, ``None`` each time if there is none of that name."""
        start, column = 0, self.get(name)
        for rows in self.sizes():
            yield None if column is None else column[start : start + rows]
            start += rows


def answered(
    window: Rows,
    reference: Rows,
    *,
    target: str | None,
    prediction: str | None,
    model: str,
    digest: str | None,
    budget: Budget,
    created_at: datetime,
) -> MonitorReport:
    """Answer about ``window`` what can be answered of it, and no more."""
    known = {name: reference.kinds[name] for name in reference.names}
    output = next((name for name in (target, prediction) if name in known), None)
    features = {name: kind for name, kind in known.items() if name not in {target, prediction}}
    truths = reference.get(output) if output and prediction else None
    answers = reference.get(prediction) if prediction and output == target else None
    told = Outputs(label=False)
    if output and prediction and truths is not None:
        shown = answers if answers is not None else window.get(prediction)
        told = outputs_of(truths, known[output], shown)
    made = profile.reference_profile(
        _Lazy(reference),
        features,
        truths,
        label=told.label,
        answers=told.answers(answers),
        rows=reference.rows,
    )
    gauge = Gauge(made)
    predicted = prediction if truths is not None else None
    parts = _parts(gauge, window, list(features), predicted, told)
    asked = {"features"}
    if truths is not None:
        asked |= {"predictions", "bounds"}
    found = None
    if target and prediction:
        asked.add("performance")
        found = _performance(
            window,
            reference,
            target,
            prediction,
            told,
            budget=budget,
            independent_share=_independent_share(gauge, parts),
        )
    report = reporting.report(
        gauge,
        parts,
        model=model,
        version=None,
        commit=None,
        endpoint=None,
        reference_digest=digest or _digest(made),
        since=None,
        until=None,
        created_at=created_at,
        budget=budget,
        asked=frozenset(asked),
        performance=found,
    )
    changed = changes.changed(gauge, parts, report.columns, report.prediction)
    if changed is None:
        return report
    explained = Explanation(
        since=None, suspects=changed.suspects, coincidences=changes.coincidences(changed, None)
    )
    return records.replace(report, explanation=explained)


def _performance(
    window: Rows,
    reference: Rows,
    target: str,
    prediction: str,
    told: Outputs,
    *,
    budget: Budget,
    independent_share: float,
) -> tuple[tuple[Metric, ...], Answer]:
    """Hold the metrics of a table with truths and predictions against those of the reference."""
    kind = "label" if told.label else "value"
    schema = ModelSchema(columns=(), output=OutputSchema(kind=kind, classes=told.classes))

    def read(truths: Any, answers: Any) -> tuple[Any, Any, Any]:
        if truths is None:  # they have not come yet
            truths = [None] * columns.size(answers)
        return told.told(truths), told.told(told.answers(answers)), told.probabilities(answers)

    shown = None
    if {target, prediction} <= set(reference.names):
        both = read(reference.get(target), reference.get(prediction))
        shown = performance.performance_reference(schema, *both)
    counts = performance.merge(
        performance.window_of_arrays(shown, schema, *read(truths, answers))
        for truths, answers in zip(window.parts(target), window.parts(prediction), strict=True)
    )
    if shown is None:
        reason = f"The reference has no `{prediction}` beside `{target}` to compute metrics from."
        return (), Answer(answer="unknown", reason=reason, evidence={"actuals": counts.actuals})
    return performance.compare(
        shown, counts, level=drift.level(budget), independent_share=independent_share
    )


def _independent_share(gauge: Gauge, parts: list[Tally]) -> float:
    """Return which share of a window's rows is no repetition of others."""
    sample = copies.merge([part.row_sample for part in parts])
    return copies.independent_share(
        gauge.reference.tally.row_sample,
        sample,
        sum(part.rows for part in parts),
        least=drift.INDEPENDENT_ROWS_LEAST,
    )


class _Lazy(dict[str, Any]):
    """Columns that are read when they are asked for, and not kept."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows

    def get(self, name: str, default: Any = None) -> Any:
        found = self._rows.get(name)
        return default if found is None else found


def _digest(made: profile.Profile) -> str:
    return hashlib.sha256(records.dump(made)).hexdigest()


def _parts(
    gauge: Gauge, window: Rows, features: list[str], prediction: str | None, told: Outputs
) -> list[Tally]:
    """Count the parts of a window, a column at a time: a file is read so with the least memory."""
    parts = [Counting(gauge, rows) for rows in window.sizes()]
    for name in features:
        for part, column in zip(parts, window.parts(name), strict=True):
            part.add(column)
    if prediction is None:
        return [part.tally() for part in parts]
    bounds = None if told.label else _bounds(gauge)
    tallies: list[Tally] = []
    for part, outputs in zip(parts, window.parts(prediction), strict=True):
        answers = told.answers(outputs)
        part.add(answers)
        outside = _new_labels(gauge, answers) if told.label else _beyond(answers, bounds)
        tallies.append(part.tally(predictions=columns.size(outputs), out_of_bounds=outside))
    return tallies


def _bounds(gauge: Gauge) -> tuple[float, float] | None:
    training = gauge.training[-1]
    return widened(training.low, training.high) if training.count else None


def _beyond(outputs: Any, bounds: tuple[float, float] | None) -> int:
    values = columns.numbers(outputs).values
    if bounds is None:
        return 0
    with np.errstate(invalid="ignore"):
        return int((~((values >= bounds[0]) & (values <= bounds[1]))).sum())


def _new_labels(gauge: Gauge, outputs: Any) -> int:
    known = set(gauge.reference.variables[-1].names)
    named = columns.names(outputs, "category")
    odd = np.array([*(name not in known for name in named.names), True])
    return int(odd[named.codes].sum())
