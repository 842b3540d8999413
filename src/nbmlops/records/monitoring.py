"""Monitoring: four questions, their answers and the evidence."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.jobs import Cause
from nbmlops.records.record import Record

Question = Literal["features", "predictions", "bounds", "performance"]


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
    """A size of difference that does not grow with the number of rows, and its threshold.

    ``low`` and ``high`` are its 98 % confidence interval, as far as the rows are independent.
    """

    name: str
    value: float | None
    threshold: float
    low: float | None = None
    high: float | None = None


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


class Metric(Record, frozen=True, kw_only=True):
    """A metric of a window beside the test set's; every interval is of 95 %.

    ``estimated`` says that it follows from the model's own probabilities, or from a loss that was
    learned on the test set, and from no actuals. ``rows`` is how many rows it is computed from.
    ``difference`` is the window's minus the test set's; ``worse`` is whether its whole interval is
    on the bad side of no change, ``greater_is_better`` says which side that is.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    reference: float | None
    reference_low: float | None
    reference_high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    rows: int
    estimated: bool
    worse: bool
    greater_is_better: bool


class Traffic(Record, frozen=True, kw_only=True):
    """Volume, errors and latency of some calls; latencies in milliseconds.

    ``failed`` counts the calls that were answered with an error, where that is known.
    """

    calls: int
    rows: int
    failed: int | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None


class Judgement(Record, frozen=True, kw_only=True):
    """What was found about one column of a slice: the verdict and the size of the difference."""

    verdict: Literal["ok", "drift", "unknown"]
    effect: float | None = None


class Slice(Record, frozen=True, kw_only=True):
    """A part of the history: the calls from ``since`` up to and without ``until``.

    ``columns`` has the columns by name; ``prediction`` is the same of the predictions.
    """

    since: datetime
    until: datetime
    rows: int
    verdict: Literal["ok", "alert", "unknown"]
    columns: dict[str, Judgement] = {}
    prediction: Judgement | None = None
    out_of_bounds: int = 0
    metrics: tuple[Metric, ...] = ()
    traffic: Traffic | None = None


class Suspect(Record, frozen=True, kw_only=True):
    """A feature that changed, and its ``share`` of all change, from 0 to 1.

    ``change`` is what happened to it: ``missing``, ``constant``, ``unit`` (multiplied by
    ``factor``), ``new-categories``, ``range``, ``type`` or ``shift``.
    """

    column: str
    share: float
    change: Literal["missing", "constant", "unit", "new-categories", "range", "type", "shift"]
    factor: float | None = None
    since: datetime | None = None


class Coincidence(Record, frozen=True, kw_only=True):
    """What else happened when the calls changed."""

    kind: Literal["release", "client", "data-definition", "pipeline"]
    at: datetime | None
    message: str


class Explanation(Record, frozen=True, kw_only=True):
    """Since when calls differ, which features do, what happened then, and who served them."""

    since: datetime | None
    suspects: tuple[Suspect, ...] = ()
    coincidences: tuple[Coincidence, ...] = ()
    commit: str | None = None
    version: str | None = None


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
    metrics: tuple[Metric, ...] = ()
    history: tuple[Slice, ...] = ()
    explanation: Explanation | None = None
    traffic: Traffic | None = None


class LookJob(Record, frozen=True, kw_only=True):
    """A job that looks at a deployment's calls; ``ended`` once its report was taken in.

    ``key`` is the same for the same look: at the calls of the last ``window`` before ``asked_at``.
    """

    key: str
    job: str
    launcher: str
    deployment_id: str
    window: str | None
    asked_at: datetime
    place: str
    ended: bool = False
    cause: Cause | None = None


class Ticked(Record, frozen=True, kw_only=True):
    """The document of ``scheduler``: what one tick has done.

    ``ours`` is false where another process was at it; that one does the same. ``looked`` are the
    reports of the endpoints whose time had come.
    """

    at: datetime
    ours: bool
    looked: tuple[MonitorReport, ...] = ()
