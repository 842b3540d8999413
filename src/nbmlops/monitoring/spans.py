"""A deployment's calls as spans: so many hours, or parts of them, each counted once.

Spans add up: a month is the sum of its hours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
import numpy as np

from nbmlops.monitoring import performance, profile
from nbmlops.monitoring.arrays import pack, unpack
from nbmlops.monitoring.performance import PerformanceWindow
from nbmlops.monitoring.profile import Gauge, Tally
from nbmlops.monitoring.shown import Shown
from nbmlops.records import CallRecord, Record, Traffic

FORMAT = 2
"""Of spans that are kept."""

CLIENTS = 20
"""How many clients a span names; who makes 5 % of its calls is always among them."""

SPANS_AN_HOUR = 16
_ROWS = 100
_HOUR = timedelta(hours=1)
_BOUNDS_MS: Final = np.geomspace(0.01, 100_000, 161)  # 10.6 % apart


@dataclass(frozen=True, slots=True)
class Against:
    """What calls are held against; the ``name`` is another for another profile or test set."""

    gauge: Gauge
    shown: Shown
    name: str


class Span(Record, frozen=True, kw_only=True):
    """Consecutive calls of one hour: the first came at ``since``, the last at ``until``.

    ``clients`` counts the calls of the most frequent programs; those of all others, and of whoever
    does not say what he is, are the rest of ``calls``. ``latencies`` counts them on 162 cells, 160
    of them evenly spaced in the logarithm from 0.01 ms to 100 s. ``expected`` is what the test set
    lets expect of the answers, whatever came true.
    """

    since: datetime
    until: datetime
    calls: int
    tally: Tally
    expected: PerformanceWindow
    latencies: bytes
    redacted: tuple[str, ...] = ()
    clients: dict[str, int] = msgspec.field(default_factory=dict)


Reading = Callable[[datetime | None, datetime | None], Iterable[CallRecord]]
"""What yields consecutive calls from a time up to and without another."""


def between(
    whole: Sequence[Span],
    read: Reading,
    against: Against,
    since: datetime | None,
    until: datetime | None,
) -> list[Span]:
    """Return the spans of the calls from ``since`` up to and without ``until``.

    ``whole`` are the spans of all that ``read`` yields. Those that lie within are taken as they
    are; the calls of those that are cut are read again.
    """
    inside = within(whole, since, until)
    if len(inside) == len(whole):
        return inside
    kept = {id(one) for one in inside}
    cut = [one for one in whole if id(one) not in kept]
    begins, ends = min(one.since for one in cut), max(one.until for one in cut)
    left = (
        call
        for call in read(since, until)
        if begins <= call.at <= ends
        and not any(one.since <= call.at <= one.until for one in inside)
    )
    return [*inside, *counted(left, against)]


def within(whole: Sequence[Span], since: datetime | None, until: datetime | None) -> list[Span]:
    """Return the spans that lie wholly between two times."""
    return [
        span
        for span in whole
        if (since is None or span.since >= since) and (until is None or span.until < until)
    ]


def counted(found: Iterable[CallRecord], against: Against) -> Iterator[Span]:
    """Yield the spans of calls that come in order: at most sixteen for an hour."""
    spans: list[Span] = []
    batch: list[CallRecord] = []
    rows, held = _ROWS, 0
    for call in found:
        next_hour = bool(batch) and _hour(call.at) != _hour(batch[-1].at)
        if held >= rows or next_hour:
            spans.append(_span(batch, against))
            batch, held = [], 0
        if next_hour:
            yield from spans
            spans, rows = [], _ROWS
        elif len(spans) == SPANS_AN_HOUR:
            spans = [merged([a, b]) for a, b in zip(spans[::2], spans[1::2], strict=True)]
            rows *= 2
        batch.append(call)
        held += len(call.records)
    if batch:
        spans.append(_span(batch, against))
    yield from spans


def _hour(at: datetime) -> int:
    return int(at.timestamp() // _HOUR.total_seconds())


def _span(batch: list[CallRecord], against: Against) -> Span:
    times = [call.at for call in batch]
    latencies = np.searchsorted(_BOUNDS_MS, [call.latency_ms for call in batch])
    return Span(
        since=min(times),
        until=max(times),
        calls=len(batch),
        tally=against.gauge.calls(
            [record for call in batch for record in call.records],
            [prediction for call in batch for prediction in call.predictions],
        ),
        expected=against.shown.counted(batch, {}),
        latencies=pack(np.bincount(latencies, minlength=len(_BOUNDS_MS) + 1)),
        redacted=tuple(sorted({name for call in batch for name in call.redacted or ()})),
        clients=_most(Counter(call.client for call in batch if call.client is not None)),
    )


def _most(clients: Counter[str]) -> dict[str, int]:
    ordered = sorted(clients.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:CLIENTS])


def merged(spans: list[Span]) -> Span:
    """Return some spans as one."""
    if len(spans) == 1:
        return spans[0]
    return Span(
        since=min(one.since for one in spans),
        until=max(one.until for one in spans),
        calls=sum(one.calls for one in spans),
        tally=profile.merge([one.tally for one in spans]),
        expected=performance.merge([one.expected for one in spans]),
        latencies=pack(np.sum([unpack(one.latencies).astype(np.int64) for one in spans], axis=0)),
        redacted=tuple(sorted({name for one in spans for name in one.redacted})),
        clients=_most(sum((Counter(one.clients) for one in spans), Counter[str]())),
    )


def traffic(span: Span) -> Traffic:
    """Return the volume and the latencies of a span's calls; latencies within 6 %."""
    counts = np.cumsum(unpack(span.latencies).astype(np.int64))
    low, high = _BOUNDS_MS[[0]], _BOUNDS_MS[[-1]]
    middles = np.sqrt(np.concatenate([low, _BOUNDS_MS]) * np.concatenate([_BOUNDS_MS, high]))

    def quantile(share: float) -> float | None:
        if not span.calls:
            return None
        return float(middles[int(np.searchsorted(counts, share * counts[-1]))])

    return Traffic(
        calls=span.calls,
        rows=span.tally.rows,
        latency_p50_ms=quantile(0.5),
        latency_p99_ms=quantile(0.99),
    )
