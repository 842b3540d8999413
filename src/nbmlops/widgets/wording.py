"""The words and the order in which a monitoring report is told, whatever it is drawn with."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from nbmlops.records import Answer, ColumnReport, MonitorReport

QUESTIONS = (
    ("features", "Do the inputs look like the training data?"),
    ("predictions", "Do the predictions look like the training labels?"),
    ("bounds", "Is each output within plausible bounds?"),
    ("performance", "Are the metrics those of the test set?"),
)
"""The four questions, by the name of their answer, in the order in which they are asked."""

VERDICT_MARKS = {"ok": "✓", "alert": "✕", "unknown": "?", "drift": "✕"}
ANSWER_MARKS = {"yes": "✓", "no": "✕", "unknown": "?"}

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
    """Return the columns, drifted ones first, then by the size of the difference."""
    return sorted(report.columns, key=lambda column: (_RANKS[column.verdict], -_size(column)))


def _size(column: ColumnReport) -> float:
    if column.effect is None or column.effect.value is None:
        return -1.0
    return column.effect.value


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
    span = [moment(at) for at in (report.window.since, report.window.until)]
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


def moment(at: datetime | None) -> str:
    """Return a time in UTC to the minute."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


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
