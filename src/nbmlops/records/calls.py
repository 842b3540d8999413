"""What is done with many calls: whole files, the same calls again, truths that come later."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.record import Record


class BatchRecord(Record, frozen=True, kw_only=True):
    """The document of ``predict``: a file's rows, answered by one version."""

    batch_id: str
    model: str
    version: int
    commit: str
    rows: int
    out_of_bounds: int
    source: str
    source_digest: str
    out: str
    out_digest: str
    seconds: float
    created_at: datetime
    author: str


class Replay(Record, frozen=True, kw_only=True):
    """The document of ``replay``; ``against`` is ``None`` where each call met its own version.

    ``compared``, ``equal`` and ``different_total`` count records. ``different`` lists the first
    thousand that differ, each with ``call_id``, ``row``, ``version``, ``was``, ``is`` and, where
    there is no answer to compare, ``reason``. ``unknown`` counts those that cannot be sent again,
    ``reason`` says why. ``changes`` are labels that changed, ``"from -> to"``, with how often;
    ``difference_mean`` and ``difference_max`` are of values and probabilities, over all that were
    compared. Latencies are medians of the calls.
    """

    verdict: Literal["green", "red", "unknown"]
    compared: int
    equal: int
    different: tuple[dict[str, Any], ...]
    rtol: float
    against: str | None
    calls: int = 0
    unknown: int = 0
    reason: str | None = None
    changes: dict[str, int] = {}
    difference_mean: float | None = None
    difference_max: float | None = None
    latency_was_ms: float | None = None
    latency_is_ms: float | None = None
    different_total: int = 0
    versions: tuple[str, ...] = ()


class Actuals(Record, frozen=True, kw_only=True):
    """The document of ``actuals``: ``rows`` = joined + duplicates + conflicting + unknown.

    ``conflicting`` had another truth before, and the new one counts. Of those that are not
    unknown, ``late`` came more than 30 days after their call, and ``ambiguous`` had a key that
    several calls share, of which the newest counts.
    """

    endpoint: str
    source: str
    source_digest: str
    label: str
    by: str
    rows: int
    joined: int
    duplicates: int
    conflicting: int
    unknown: int
    late: int
    ambiguous: int
    created_at: datetime
