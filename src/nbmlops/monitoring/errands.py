"""What a job that answers the four questions finds in its inbox, and what it leaves."""

from __future__ import annotations

from typing import Any

import msgspec

from nbmlops.monitoring.answering import Inquiry
from nbmlops.monitoring.spans import Span
from nbmlops.records import CallRecord, Cause, MonitorReport, Record


class Errand(Record, frozen=True, kw_only=True):
    """What is asked, and what was counted of it before.

    ``spans`` are the calls that need no counting any more. Segments of the call log with the others
    lie beside; nothing is written any more to those that are ``sealed``. About the ``calls``
    something came true: ``truths`` are the call's id, the record's place in it, and the truth.
    """

    inquiry: Inquiry
    spans: tuple[Span, ...]
    sealed: tuple[str, ...]
    calls: tuple[CallRecord, ...]
    truths: tuple[tuple[str, int, Any], ...]


class Outcome(Record, frozen=True, kw_only=True):
    """What the job leaves: the report, or the ``cause`` why there is none.

    ``counted`` are the spans of the sealed segments in its inbox, of that ``format``, counted on
    ``reference``.
    """

    format: int = 0
    report: MonitorReport | None = None
    reference: str = ""
    counted: dict[str, tuple[Span, ...]] = msgspec.field(default_factory=dict)
    cause: Cause | None = None
