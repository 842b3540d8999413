"""The sweep widget's document: all that its live, HTML, text and PNG forms show, worded once."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from nbmlops import records
from nbmlops.records import SweepRecord, Trial
from nbmlops.widgets import progress, sweep_axes, wording
from nbmlops.widgets.run_document import cause_of
from nbmlops.widgets.sweep_axes import Axis

_LIMIT = 500
TONES = 6
"""Into how many shades the metric is divided, from the worst (0) to the best."""


def sweep_document(
    record: SweepRecord,
    *,
    now: datetime,
    detached: bool = False,
    prompt: str = progress.PROMPT,
) -> dict[str, Any]:
    """Return what is shown of a sweep, as JSON: texts, numbers to sort by, places from 0 to 1.

    Trials are ordered best first, those without a value last. Each has a text for each column,
    a place on each axis, and a tone by the rank of its value.
    """
    final = record.status.is_final
    axes = (*sweep_axes.parameter_axes(record), sweep_axes.metric_axis(record))
    trials = ranked(record)
    left = max(0, len(trials) - _LIMIT)
    tones = _tones(trials)
    others = tuple(
        dict.fromkeys(name for t in record.trials for name in t.metrics if name != record.metric)
    )
    best = next((trial for trial in record.trials if trial.number == record.best), None)
    note = (
        "You stopped watching; the sweep goes on. This is how it stood at"
        f" {now.astimezone():%H:%M:%S}."
    )
    return {
        "sweep_id": record.sweep_id,
        "state": record.status.value,
        "mark": progress.MARKS[record.status.value],
        "now": progress.instant(now),
        "ticking": not final and not detached,
        "since": progress.instant(record.created_at),
        "took": progress.length(
            progress.seconds_between(record.created_at, record.finished_at or now)
        ),
        "facts": _facts(record),
        "counts": _counts(record),
        "metric": record.metric,
        "maximize": record.direction == "maximize",
        "columns": [*(axis.name for axis in axes if not axis.metric), *others],
        "axes": _json(axes),
        "trials": [_trial(t, axes, others, tones, record.best, now) for t in trials[:_LIMIT]],
        "left": f"… and {left:,} more trials" if left else None,
        "history": _history(record),
        "best": _best(best, prompt),
        "note": note if detached and not final else None,
        "cause": cause_of(record.cause),
        "commands": [
            {"what": "Serve it", "type": f"{prompt} deploy {version}"}
            for version in record.model_versions
        ]
        if final
        else [
            {"what": "See it", "type": f"{prompt} run {record.sweep_id}"},
            {"what": "End it", "type": f"{prompt} cancel {record.sweep_id}"},
        ],
    }


def ranked(record: SweepRecord) -> list[Trial]:
    """Return the trials best first, then those without a value by number."""
    sign = -1.0 if record.direction == "maximize" else 1.0

    def order(trial: Trial) -> tuple[bool, float, int]:
        value = trial.value if sweep_axes.is_number(trial.value) else None
        return (value is None, sign * (value or 0.0), trial.number)

    return sorted(record.trials, key=order)


def _facts(record: SweepRecord) -> list[str]:
    direction = "highest" if record.direction == "maximize" else "lowest"
    told = [f"pipeline {record.pipeline}"]
    if record.metric:
        told.append(f"{record.search} search for the {direction} {record.metric}")
    else:
        told.append(f"{record.search} search")
    told.append(f"commit {progress.commit(record.commit, dirty=record.dirty)}")
    told += [f"{name}={progress.shown(value)}" for name, value in record.fixed.items()]
    return told


def _counts(record: SweepRecord) -> dict[str, Any]:
    states = [trial.status for trial in record.trials]
    done = sum(state.is_final for state in states)
    running = sum(state.value == "running" for state in states)
    bad = sum(state.is_final and state.value != "succeeded" for state in states)
    total = max(record.trials_total, len(states))
    told = f"{done} of {total} trials done"
    told += f", {running} running" if running else ""
    told += f", {bad} without success" if bad else ""
    return {"done": done, "running": running, "total": total, "bad": bad, "told": told}


def _tones(trials: list[Trial]) -> dict[int, int]:
    """Return a shade for each trial with a value, by rank: equal steps whatever the spread."""
    valued = [trial for trial in trials if sweep_axes.is_number(trial.value)]
    last = max(1, len(valued) - 1)
    tones: dict[int, int] = {}
    rank, before = 0, None
    for index, trial in enumerate(valued):
        rank = rank if trial.value == before else index  # equal values have one shade
        before = trial.value
        tones[trial.number] = round((TONES - 1) * (1 - rank / last))
    return tones


def _trial(
    trial: Trial,
    axes: tuple[Axis, ...],
    others: tuple[str, ...],
    tones: dict[int, int],
    best: int | None,
    now: datetime,
) -> dict[str, Any]:
    running = trial.status.value == "running"
    seconds = progress.seconds_between(trial.started_at, now if running else trial.finished_at)
    points = [
        sweep_axes.place(axis, trial.value if axis.metric else trial.parameters.get(axis.name))
        for axis in axes
    ]
    cells = [
        {
            "text": progress.shown(trial.parameters[axis.name])
            if axis.name in trial.parameters
            else "",
            "sort": points[index],
        }
        for index, axis in enumerate(axes)
        if not axis.metric
    ]
    for name in others:
        value = trial.metrics.get(name)
        cells.append(
            {
                "text": progress.number(value) if name in trial.metrics else "",
                "sort": value if sweep_axes.is_number(value) else None,
            }
        )
    return {
        "number": trial.number,
        "run_id": trial.run_id,
        "state": trial.status.value,
        "mark": progress.MARKS[trial.status.value],
        "value": trial.value if sweep_axes.is_number(trial.value) else None,
        "told": progress.number(trial.value) if trial.value is not None else "",
        "cells": cells,
        "points": points,
        "tone": tones.get(trial.number),
        "best": trial.number == best,
        "seconds": seconds,
        "took": progress.length(seconds),
        "since": progress.instant(trial.started_at) if running else None,
        "label": _label(trial, [axis.name for axis in axes if not axis.metric]),
    }


def _json(value: Any) -> Any:
    return json.loads(json.dumps(records.plain(value)))


def _label(trial: Trial, names: list[str]) -> str:
    value = f" {progress.number(trial.value)}," if trial.value is not None else ""
    given = ", ".join(
        f"{name}={progress.shown(trial.parameters[name])}"
        for name in names
        if name in trial.parameters
    )
    return wording.clean(f"trial {trial.number}:{value} {given}")


def _history(record: SweepRecord) -> dict[str, Any]:
    """Return the value of each trial and the best so far, in the order of the trials."""
    axis = sweep_axes.metric_axis(record)
    better = max if record.direction == "maximize" else min
    valued = sorted(
        (t for t in record.trials if sweep_axes.is_number(t.value)), key=lambda t: t.number
    )
    width = max(1, max(record.trials_total, *(t.number for t in record.trials), 0) - 1)
    points: list[dict[str, Any]] = []
    best: float | None = None
    every = max(1, len(valued) // _LIMIT)
    for index, trial in enumerate(valued):
        value = trial.value or 0.0
        before, best = best, value if best is None else better(best, value)
        if index % every and best == before:
            continue
        points.append(
            {
                "number": trial.number,
                "x": round((trial.number - 1) / width, 4),
                "y": sweep_axes.place(axis, value),
                "best": sweep_axes.place(axis, best),
                "label": f"trial {trial.number}: {progress.number(value)},"
                f" best so far {progress.number(best)}",
            }
        )
    return {"points": points, "ticks": _json(axis.ticks), "last": width + 1}


def _best(best: Trial | None, prompt: str) -> dict[str, Any] | None:
    """Return the best trial so far, and the command that runs it again from its own snapshot."""
    if best is None or best.value is None:
        return None
    given = ", ".join(f"{name}={progress.shown(value)}" for name, value in best.parameters.items())
    return {
        "number": best.number,
        "value": progress.number(best.value),
        "given": given,
        "run_id": best.run_id,
        "command": f"{prompt} rerun {best.run_id}",
    }
