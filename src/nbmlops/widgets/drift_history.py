"""The history of a monitoring report as geometry: an axis of time, a heat map, charts.

Browser, static SVG, matplotlib and the terminal draw from these same numbers. All parts share one
axis of time, on which each slice is as wide as the others.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from nbmlops.records import ColumnReport, Judgement, MonitorReport, Record, Slice
from nbmlops.widgets import wording
from nbmlops.widgets.drift_charts import Chart, finite, performance, traffic

BOUNDS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Where one level of the heat map ends and the next begins, in thresholds."""

LEVELS = ("under ½", "½ to 1", "1 to 1½", "1½ to 2", "2 to 3", "3 and more")
"""The levels in words; from the third on the difference is over its threshold."""

_TICKS = 8
_DAY_S = 86_400

Verdict = Literal["ok", "drift", "unknown"]


class TimeTick(Record, frozen=True, kw_only=True):
    """A mark on the axis of time, at the beginning of a slice; ``at`` runs from 0 to 1.

    ``day`` is told where it is another one than at the tick before; ``minor`` ticks have no room
    in a narrow picture, and where they are left out ``again`` needs its day.
    """

    at: float
    time: str
    day: str
    minor: bool
    again: bool


class Piece(Record, frozen=True, kw_only=True):
    """A slice of time: when it was, how many rows it had, and what was found."""

    since: datetime
    until: datetime
    label: str
    rows: int
    verdict: Literal["ok", "alert", "unknown"]


class HeatRow(Record, frozen=True, kw_only=True):
    """A feature over time; a slice that says nothing of it has ``None`` for a verdict."""

    name: str
    prediction: bool
    threshold: float | None
    verdicts: tuple[Verdict | None, ...]
    levels: tuple[int | None, ...]
    effects: tuple[float | None, ...]

    @property
    def told(self) -> str:
        """In how many of the slices the feature drifted."""
        drifted, slices = self.verdicts.count("drift"), len(self.verdicts)
        return f"drift in {drifted} of {slices} slices" if drifted else "no drift"


class Timeline(Record, frozen=True, kw_only=True):
    """All that a history shows, on one axis of time."""

    pieces: tuple[Piece, ...]
    ticks: tuple[TimeTick, ...]
    rows: tuple[HeatRow, ...]
    charts: tuple[Chart, ...]


def timeline(report: MonitorReport) -> Timeline | None:
    """Return the report's history as geometry; ``None`` where there is none."""
    if not report.history:
        return None
    history = report.history
    return Timeline(
        pieces=tuple(_piece(one) for one in history),
        ticks=_time_ticks([one.since for one in history]),
        rows=tuple(_heat(report)),
        charts=(*performance(report), *traffic(report)),
    )


def level(ratio: float) -> int:
    """Return the level of a difference that is so many times its threshold.

    >>> [level(ratio) for ratio in (0.2, 0.99, 1.0, 7.0)]
    [0, 1, 2, 5]
    """
    return bisect_right(BOUNDS, ratio)


def _piece(one: Slice) -> Piece:
    label = wording.span(one.since, one.until)
    return Piece(since=one.since, until=one.until, label=label, rows=one.rows, verdict=one.verdict)


def _time_ticks(begins: Sequence[datetime]) -> tuple[TimeTick, ...]:
    """Return about eight marks; slices of whole days have dates alone."""
    step = math.ceil(len(begins) / _TICKS)
    moments = [begins[index].astimezone(UTC) for index in range(0, len(begins), step)]
    whole = all(one.timestamp() % _DAY_S == 0 for one in begins)
    seconds = wording.is_short(begins[0], begins[-1]) if begins else False
    ticks: list[TimeTick] = []
    for index, at in enumerate(moments):
        before = moments[index - 1].date() if index else None
        major = moments[index - 2].date() if index > 1 else None
        minor = index % 2 == 1
        changed = at.date() != before
        again = not minor and at.date() != major
        ticks.append(
            TimeTick(
                at=round(index * step / len(begins), 4),
                time="" if whole else wording.clock(at, seconds=seconds),
                day=f"{at:%Y-%m-%d}" if changed or again else "",
                minor=minor,
                again=not changed,
            )
        )
    return tuple(ticks)


# --- the heat map -------------------------------------------------------------------------------


def _heat(report: MonitorReport) -> Iterable[HeatRow]:
    columns = wording.ordered(report)
    if report.prediction is not None:
        yield _heat_row(
            report.prediction, [one.prediction for one in report.history], prediction=True
        )
    for column in columns:
        yield _heat_row(column, [one.columns.get(column.name) for one in report.history])


def _heat_row(
    column: ColumnReport, found: Sequence[Judgement | None], *, prediction: bool = False
) -> HeatRow:
    threshold = column.effect.threshold if column.effect else None
    return HeatRow(
        name=column.name,
        prediction=prediction,
        threshold=threshold,
        verdicts=tuple(None if one is None else one.verdict for one in found),
        levels=tuple(None if one is None else _level_of(one, threshold) for one in found),
        effects=tuple(None if one is None else finite(one.effect) for one in found),
    )


def _level_of(one: Judgement, threshold: float | None) -> int | None:
    effect = finite(one.effect)
    if effect is None or not threshold:
        # What drifts without a size, such as a type that changed, is over any threshold.
        return {"drift": len(BOUNDS), "ok": 0, "unknown": None}[one.verdict]
    return level(effect / threshold)
