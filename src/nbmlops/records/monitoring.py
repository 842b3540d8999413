"""Monitoring: four questions, their answers and the evidence."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.record import Record


class Answer(Record, frozen=True, kw_only=True):
    """The answer to one of the four questions; ``yes`` means still as in training."""

    answer: Literal["yes", "no", "unknown"]
    reason: str
    evidence: dict[str, Any] = {}


class Questions(Record, frozen=True, kw_only=True):
    """The four questions of monitoring."""

    features: Answer
    predictions: Answer
    bounds: Answer
    performance: Answer


class Effect(Record, frozen=True, kw_only=True):
    """A size of difference that does not grow with the number of rows, and its threshold."""

    name: str
    value: float | None
    threshold: float


class Distribution(Record, frozen=True, kw_only=True):
    """Two distributions over the same bins, for a picture.

    ``edges`` holds the ``len(reference) + 1`` edges of a numeric column, ``labels`` the bins'
    names otherwise; ``reference`` and ``window`` are shares that each sum to one.
    """

    edges: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None
    reference: tuple[float, ...] = ()
    window: tuple[float, ...] = ()


class ColumnReport(Record, frozen=True, kw_only=True):
    """What monitoring found about one column."""

    name: str
    kind: str
    verdict: Literal["ok", "drift", "unknown"]
    reason: str
    effect: Effect | None = None
    p_value: float | None = None
    missing_share: float | None = None
    new_categories: tuple[str, ...] = ()
    distribution: Distribution | None = None


class Window(Record, frozen=True, kw_only=True):
    """The calls that were looked at."""

    since: datetime | None
    until: datetime | None
    rows: int


class Reference(Record, frozen=True, kw_only=True):
    """The training data that the calls were held against."""

    rows: int
    digest: str


class Budget(Record, frozen=True, kw_only=True):
    """At most ``false_alarms`` alarms without a cause in ``windows`` windows."""

    false_alarms: int
    windows: int


class MonitorReport(Record, frozen=True, kw_only=True):
    """The document of ``monitor``."""

    verdict: Literal["ok", "alert", "unknown"]
    model: str
    window: Window
    reference: Reference
    questions: Questions
    columns: tuple[ColumnReport, ...]
    prediction: ColumnReport | None = None
    changed_since: datetime | None = None
    budget: Budget
    created_at: datetime
    version: int | None = None
    commit: str | None = None
    endpoint: str | None = None
