"""How far runs and sweeps are, in words that every view of them shares."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from nbmlops.records import RunRecord, Status, SweepRecord
from nbmlops.widgets import wording

MARKS = {
    "pending": "○",
    "running": "●",
    "succeeded": "✓",
    "cached": "↺",
    "failed": "✕",
    "lost": "✕",
    "cancelled": "-",
}
"""A sign for each state, so that no state is told by its colour alone."""

PROMPT = "%mlops"
"""What a notebook's commands begin with."""


def seconds_between(begin: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds from one time to another, or ``None`` while one is not known."""
    if begin is None or end is None:
        return None
    return max(0.0, (end - begin).total_seconds())


def length(seconds: float | None) -> str:
    """Return a length of time to read.

    Examples
    --------
    >>> length(0.44), length(12.3), length(185), length(3720)
    ('0.4 s', '12 s', '3 min 05 s', '1 h 02 min')
    """
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: int) -> str:
    """Return a count of bytes to read.

    Examples
    --------
    >>> size(812), size(20_480), size(5_000_000)
    ('812 B', '20.5 kB', '5 MB')
    """
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} GB"


def number(value: float | None) -> str:
    """Return a metric's value in four digits."""
    return "?" if value is None else f"{value:.4g}"


def written(value: Any) -> str:
    """Return a parameter's value as ``-p name=value`` takes it.

    Examples
    --------
    >>> written(0.001), written("sqrt"), written(None), written([1, 2])
    ('0.001', 'sqrt', 'None', '[1,2]')
    """
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shown(value: Any, limit: int = 40) -> str:
    """Return a parameter's value to read: floats in four digits, long text clipped."""
    text = f"{value:.4g}" if isinstance(value, float) else written(value)
    return wording.clipped(text, limit)


def squeezed(name: str, limit: int) -> str:
    """Return a name shortened in the middle: parameters often differ at their ends alone.

    Examples
    --------
    >>> squeezed("regularisation_strength_7", 15)
    'regularis…gth_7'
    """
    name = wording.clean(name)
    if len(name) <= limit:
        return name
    tail = max(1, limit // 2 - 2)
    return f"{name[: max(1, limit - tail - 1)]}…{name[-tail:]}"


def commit(sha: str, *, dirty: bool) -> str:
    """Return a commit, and whether it was made from changes that nobody had committed."""
    return f"{sha[:8]}{' (from uncommitted changes)' if dirty else ''}"


def instant(at: datetime | None) -> str | None:
    """Return a time as a browser reads it."""
    return None if at is None else at.isoformat()


def run_changes(before: RunRecord | None, after: RunRecord) -> list[str]:
    """Return a line for each step whose state is another one, and one when the run has begun.

    This is progress where nothing can be rewritten, such as a log: no line for each cell.
    """
    lines: list[str] = []
    known = {step.name: step for step in before.steps} if before else {}
    if before is None or before.run_id != after.run_id:
        told = commit(after.commit, dirty=after.dirty)
        lines.append(f"{after.run_id}: pipeline {after.pipeline} at commit {told}")
        known = {}
    for step in after.steps:
        earlier = known.get(step.name)
        was = earlier.status if earlier else Status.PENDING
        if step.status is was or step.status is Status.PENDING:
            continue
        state = "cached" if step.cached else step.status.value
        cells = f", {step.cells_done} of {step.cells_total} cells" if not step.cached else ""
        took = length(seconds_between(step.started_at, step.finished_at))
        timed = f", {took}" if took and not step.cached else ""
        told = cells + timed if step.status.is_final else ""
        lines.append(f"{MARKS[state]} {step.name} {state}{told}")
    return [wording.clean(line) for line in lines]


def sweep_line(record: SweepRecord) -> str:
    """Return one line about how far a sweep is."""
    done = sum(trial.status.is_final for trial in record.trials)
    running = sum(trial.status is Status.RUNNING for trial in record.trials)
    total = max(record.trials_total, len(record.trials))
    told = f"{MARKS[record.status.value]} {record.status.value} {record.sweep_id}: "
    told += f"{done} of {total} trials done" + (f", {running} running" if running else "")
    best = next((trial for trial in record.trials if trial.number == record.best), None)
    if best is not None and best.value is not None:
        told += f", best {record.metric}={number(best.value)} (trial {best.number})"
    return wording.clean(told)


def sweep_changes(before: SweepRecord | None, after: SweepRecord) -> list[str]:
    """Return a line when trials have ended since, none while nothing has."""

    def ended(record: SweepRecord) -> int:
        return sum(trial.status.is_final for trial in record.trials)

    same = before is not None and before.sweep_id == after.sweep_id
    if same and before is not None and ended(before) == ended(after):
        return []
    return [sweep_line(after)]
