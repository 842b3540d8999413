"""The words and the order in which a monitoring report is told, whatever it is drawn with."""

from __future__ import annotations

import unicodedata
from collections import Counter
from datetime import UTC, datetime, timedelta

from nbmlops.records import (
    Answer,
    Coincidence,
    ColumnReport,
    Metric,
    MonitorReport,
    Record,
    Suspect,
    Traffic,
)

QUESTIONS = (
    ("features", "Do the inputs look like the training data?"),
    ("predictions", "Do the predictions look like the training labels?"),
    ("bounds", "Is each output within plausible bounds?"),
    ("performance", "Are the metrics those of the test set?"),
)
"""The four questions, by the name of their answer, in the order in which they are asked."""

VERDICT_MARKS = {"ok": "✓", "alert": "✕", "unknown": "?", "drift": "✕"}
ANSWER_MARKS = {"yes": "✓", "no": "✕", "unknown": "?"}

_SHORT = timedelta(minutes=10)
_RANKS = {"drift": 0, "ok": 1, "unknown": 2}


def clean(text: str) -> str:
    """Return text that is safe on a terminal, in XML and in a picture.

    Control, surrogate and direction-changing characters become the replacement character: names
    of columns and categories come from outside.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _UNSAFE else character
        for character in text
    )


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clipped(text: str, limit: int) -> str:
    """Return clean text of at most ``limit`` characters."""
    text = clean(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def answers(report: MonitorReport) -> list[tuple[str, str, Answer]]:
    """Return name, question and answer of the four questions."""
    return [(name, asked, getattr(report.questions, name)) for name, asked in QUESTIONS]


def ordered(report: MonitorReport) -> list[ColumnReport]:
    """Return the columns, drifted ones first, then by how far over its threshold each one is.

    Of those that do not differ now, the ones that did in most slices of the history come first.
    """
    past: Counter[str] = Counter(
        name
        for piece in report.history
        for name, found in piece.columns.items()
        if found.verdict == "drift"
    )

    def place(column: ColumnReport) -> tuple[int, int, float]:
        before = 0 if column.verdict == "drift" else past[column.name]
        return _RANKS[column.verdict], -before, -_size(column)

    return sorted(report.columns, key=place)


def _size(column: ColumnReport) -> float:
    if column.effect is None or column.effect.value is None:
        return -1.0
    threshold = column.effect.threshold
    return column.effect.value / threshold if threshold > 0 else column.effect.value


def title(report: MonitorReport) -> str:
    """Return which model is meant."""
    return clean(report.model if report.version is None else f"{report.model}:{report.version}")


def origin(report: MonitorReport) -> str:
    """Return the commit and the endpoint, as far as they are known."""
    parts: list[str] = []
    if report.commit:
        parts.append(f"commit {clean(report.commit)[:7]}")
    if report.endpoint:
        parts.append(f"endpoint {clean(report.endpoint)}")
    return ", ".join(parts)


def window(report: MonitorReport) -> str:
    """Return how many calls were looked at, and of when."""
    ends = (report.window.since, report.window.until)
    span = [moment(at, seconds=is_short(*ends)) for at in ends]
    rows = rows_of(report.window.rows)
    if span[0] and span[1]:
        return f"{rows}, {span[0]} to {span[1]}"
    if span[0]:
        return f"{rows} since {span[0]}"
    return f"{rows} until {span[1]}" if span[1] else rows


def reference(report: MonitorReport) -> str:
    """Return what the calls were held against."""
    return f"{rows_of(report.reference.rows)} of training data"


def rows_of(count: int) -> str:
    """Return a count of rows in words."""
    return "1 row" if count == 1 else f"{count:,} rows"


def is_short(since: datetime | None, until: datetime | None) -> bool:
    """Whether a stretch of time is so short that minutes do not tell its parts apart."""
    return since is not None and until is not None and until - since < _SHORT


def moment(at: datetime | None, *, seconds: bool = False) -> str:
    """Return a time in UTC to the minute, or to the second."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d} {clock(at, seconds=seconds)} UTC"


def clock(at: datetime, *, seconds: bool) -> str:
    """Return the time of the day in UTC."""
    return f"{at.astimezone(UTC):%H:%M:%S}" if seconds else f"{at.astimezone(UTC):%H:%M}"


def span(since: datetime, until: datetime) -> str:
    """Return a stretch of time in UTC; the date once where it begins and ends on one day."""
    first, last = since.astimezone(UTC), until.astimezone(UTC)
    seconds = is_short(first, last)
    if first.date() == last.date():
        return f"{moment(first, seconds=seconds)[:-4]} to {clock(last, seconds=seconds)} UTC"
    return f"{moment(first, seconds=seconds)[:-4]} to {moment(last, seconds=seconds)}"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval, or nothing where it is not known."""
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def milliseconds(value: float | None) -> str:
    """Return a latency."""
    return "-" if value is None else f"{value:.3g} ms"


def number(value: float | None) -> str:
    """Return a number in four digits."""
    return "-" if value is None else f"{value:.4g}"


def effect(value: float | None) -> str:
    """Return the size of a difference."""
    return "-" if value is None else f"{value:.2f}"


def p_value(value: float | None) -> str:
    """Return a p-value; far tails are not told apart."""
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.2g}"


def share(value: float | None) -> str:
    """Return a share in percent."""
    if value is None:
        return "-"
    if value == 0:
        return "0%"
    return "<0.1%" if value < 0.001 else f"{value:.1%}"


# --- since when, and why ------------------------------------------------------------------------

_CHANGES = {
    "missing": "values are missing",
    "constant": "always the same value",
    "new-categories": "new categories",
    "range": "values beyond those of training",
    "type": "values of another type",
    "shift": "shifted",
}
_SUSPECTS = 3
_EVENTS = 3


class Part(Record, frozen=True, kw_only=True):
    """A piece of a sentence; what it is about is ``strong``."""

    text: str
    strong: bool = False


def explanation(report: MonitorReport) -> tuple[Part, ...]:
    """Return one sentence for an alert: since when, which features, what else happened, the commit.

    Empty where nothing is known of it.
    """
    told = report.explanation
    since = (told.since if told else None) or report.changed_since
    if report.verdict != "alert" or (told is None and since is None):
        return ()
    short = is_short(report.window.since, report.window.until)
    parts = [Part(text=f"Since {moment(since, seconds=short)}", strong=True)] if since else []
    suspects = told.suspects if told else ()
    if suspects:
        parts += [*([Part(text=": ")] if since else []), *_suspects(suspects, since)]
    else:
        parts.append(Part(text=" calls differ" if since else "Calls differ"))
        parts.append(Part(text=" from the training data"))
    if told is None:
        return (*parts, Part(text="."))
    if told.coincidences:
        joined = ". At that time: " if since else "; "
        parts.append(Part(text=f"{joined}{_events(told.coincidences, since)}"))
    parts.append(Part(text="."))
    commit = f"commit {clean(told.commit)[:7]}" if told.commit else ""
    if told.version:
        parts.append(Part(text=f" Answered by {clean(told.version)}"))
        parts.append(Part(text=f" ({commit})." if commit else "."))
    elif commit:
        parts.append(Part(text=f" Answered by {commit}."))
    return tuple(parts)


def _events(coincidences: tuple[Coincidence, ...], since: datetime | None) -> str:
    told = [
        clipped(one.message, 160).rstrip(".")
        + (f" ({moment(one.at)})" if one.at and one.at != since else "")
        for one in coincidences[:_EVENTS]
    ]
    left = len(coincidences) - _EVENTS
    return "; ".join([*told, *([f"and {left} more"] if left > 0 else [])])


def _suspects(suspects: tuple[Suspect, ...], since: datetime | None) -> list[Part]:
    parts: list[Part] = []
    for index, one in enumerate(suspects[:_SUSPECTS]):
        if index:
            parts.append(Part(text=", "))
        parts.append(Part(text=clipped(one.column, 60), strong=True))
        accounts = " accounts for" if not index else " for"
        of_all = " of the change" if not index else ""
        later = f", since {moment(one.since)}" if one.since and one.since != since else ""
        what = f"{accounts} {one.share:.0%}{of_all} ({change(one)}{later})"
        parts.append(Part(text=what))
    left = suspects[_SUSPECTS:]
    if left:
        rest = sum(one.share for one in left)
        what = "another feature" if len(left) == 1 else f"{len(left)} more features"
        parts.append(Part(text=f", {what} for {rest:.0%}"))
    return parts


def change(suspect: Suspect) -> str:
    """Return what happened to a feature."""
    if suspect.change == "unit":
        return f"multiplied by {suspect.factor:,.4g}" if suspect.factor else "another unit"
    return _CHANGES[suspect.change]


# --- metrics and traffic ------------------------------------------------------------------------

METRIC_HEADS = (
    *("Metric", "From", "Window", "95 % interval", "Test set", "Difference", "95 % interval"),
    *("Rows", "Worse?"),
)


def metric_cells(metric: Metric) -> tuple[str, ...]:
    """Return a metric beside the test set's, a text for each of ``METRIC_HEADS``."""
    worse = "not shown"
    if metric.worse:
        worse = "✕ yes"
    elif metric.difference is None:
        worse = "? unknown"
    difference = "-" if metric.difference is None else f"{metric.difference:+.4g}"
    return (
        clipped(metric.name, 40),
        "estimate" if metric.estimated else "actuals",
        number(metric.value),
        interval(metric.low, metric.high) or "-",
        number(metric.reference),
        difference,
        interval(metric.difference_low, metric.difference_high) or "-",
        f"{metric.rows:,}",
        worse,
    )


def traffic(flow: Traffic) -> str:
    """Return volume, errors and latency in a line."""
    parts = ["1 call" if flow.calls == 1 else f"{flow.calls:,} calls", rows_of(flow.rows)]
    if flow.failed is not None:
        parts.append(f"{flow.failed:,} failed")
    for name, value in (("p50", flow.latency_p50_ms), ("p99", flow.latency_p99_ms)):
        if value is not None:
            parts.append(f"{name} {milliseconds(value)}")
    return ", ".join(parts)
