"""Alerts: what monitoring has found for long enough, and who was told."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from nbmlops.records.monitoring import Explanation, Question, Window
from nbmlops.records.record import Record


class Delivery(Record, frozen=True, kw_only=True):
    """How far one sink has been told of an alert.

    ``sink`` is ``log``, a webhook's host with the beginning of its URL's digest, or ``$NAME`` of
    the variable that holds the URL: no URL is kept. ``error`` is why the last attempt failed;
    ``next_at`` when there is another. One that was ``given_up`` is not tried again.
    """

    sink: str
    attempts: int = 0
    delivered_at: datetime | None = None
    next_at: datetime | None = None
    error: str | None = None
    given_up: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more is tried."""
        return self.delivered_at is not None or self.given_up


class AlertQuestion(Record, frozen=True, kw_only=True):
    """A question of monitoring, and what the window that led to an alert has answered."""

    question: Question
    answer: Literal["yes", "no", "unknown"]
    reason: str


class Alert(Record, frozen=True, kw_only=True):
    """Something that people are told of an endpoint's alert.

    ``event`` is that it was ``raised``; that it is of other questions than before (``changed``);
    that it still stands (``repeated``); or that it is over (``recovered``). All that is told of one
    alert has its ``alert_id``; ``event_id`` is the key by which a receiver knows what it was told
    already. ``questions`` are those that raised it, ``since`` is when the first of them began.
    """

    event_id: str
    alert_id: str
    event: Literal["raised", "changed", "repeated", "recovered"]
    at: datetime
    since: datetime | None
    raised_at: datetime
    endpoint: str
    model: str
    version: int | None
    commit: str | None
    verdict: Literal["ok", "alert", "unknown"]
    questions: tuple[AlertQuestion, ...]
    window: Window
    explanation: Explanation | None = None
    deliveries: tuple[Delivery, ...] = ()
    place: str | None = None

    @property
    def status(self) -> Literal["pending", "told", "failed"]:
        """Whether somebody has yet to be told of it, or was not."""
        if not all(delivery.is_over for delivery in self.deliveries):
            return "pending"
        return "failed" if any(delivery.given_up for delivery in self.deliveries) else "told"


class Streak(Record, frozen=True, kw_only=True):
    """In how many windows in a row a question's answer was no, or yes; whether it is alerting."""

    bad: int = 0
    good: int = 0
    alerting: bool = False
    since: datetime | None = None


class AlertState(Record, frozen=True, kw_only=True):
    """What is known of an endpoint's windows, and whether its alert stands.

    ``series`` and ``count`` make the ids of what is told. ``alert_id`` is that of the alert that
    stands. ``seen`` is the digest of the window that counted last; ``waiting`` is what has happened
    and has no record of its own yet.
    """

    endpoint: str
    series: str
    place: str | None = None
    count: int = 0
    model: str | None = None
    version: int | None = None
    streaks: dict[Question, Streak] = {}
    alert_id: str | None = None
    raised_at: datetime | None = None
    told_at: datetime | None = None
    seen: str = ""
    waiting: tuple[Alert, ...] = ()
