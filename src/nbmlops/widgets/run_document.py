"""The run card's document: all that its live, HTML and text forms show, worded once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nbmlops.records import Cause, RunRecord, StepRecord
from nbmlops.widgets import progress, wording

LOG_LINES = 20
_LINE_WIDTH = 400
_PARAMETERS = 12
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def run_document(
    run: RunRecord,
    log: Sequence[str] = (),
    *,
    now: datetime,
    detached: bool = False,
    prompt: str = progress.PROMPT,
) -> dict[str, Any]:
    """Return what the card of a run shows, as JSON: texts, shares and times.

    ``log`` are the last lines that the run wrote, ``now`` when this was seen. ``detached`` says
    that nobody watches any more while the run goes on.
    """
    final = run.status.is_final
    return {
        "run_id": run.run_id,
        "state": run.status.value,
        "mark": progress.MARKS[run.status.value],
        "now": progress.instant(now),
        "ticking": not final and not detached,
        "since": progress.instant(run.started_at or run.created_at),
        "took": progress.length(
            progress.seconds_between(run.started_at or run.created_at, run.finished_at or now)
        ),
        "facts": _facts(run),
        "steps": [_step(step, now) for step in run.steps],
        "metrics": [
            {"name": name, "value": progress.number(value)} for name, value in run.metrics.items()
        ],
        "note": _note(now) if detached and not final else None,
        "cause": cause_of(run.cause),
        "models": list(run.model_versions),
        "commands": _commands(run, prompt),
        "log": [_line(line) for line in log[-LOG_LINES:]],
        "artifacts": [
            {"name": item.name, "size": progress.size(item.bytes), "digest": item.digest[:12]}
            for item in run.artifacts
        ],
    }


def _facts(run: RunRecord) -> list[str]:
    told = [f"pipeline {run.pipeline}", f"commit {progress.commit(run.commit, dirty=run.dirty)}"]
    given = list(run.parameters.items())
    told += [f"{name}={progress.shown(value)}" for name, value in given[:_PARAMETERS]]
    if len(given) > _PARAMETERS:
        told.append(f"{len(given) - _PARAMETERS} more parameters")
    if run.attempts > 1:
        told.append(f"attempt {run.attempts}")
    return told


def _step(step: StepRecord, now: datetime) -> dict[str, Any]:
    state = "cached" if step.cached else step.status.value
    total = max(0, step.cells_total)
    done = total if step.cached else min(step.cells_done, total)
    if step.cached:
        told = f"from {step.cached_from}" if step.cached_from else "unchanged"
    elif state == "running":
        told = f"cell {min(done + 1, total)} of {total}"
    else:
        told = f"{done} of {total} cells"
    return {
        "name": step.name,
        "notebook": step.notebook,
        "state": state,
        "mark": progress.MARKS[state],
        "word": state,
        "told": told,
        "done": done,
        "total": total,
        "share": done / total if total else float(step.status.value == "succeeded"),
        "since": progress.instant(step.started_at) if state == "running" else None,
        "took": ""
        if step.cached
        else progress.length(
            progress.seconds_between(
                step.started_at, now if state == "running" else step.finished_at
            )
        ),
    }


def _note(now: datetime) -> str:
    return (
        f"You stopped watching; the run goes on. This is how it stood at"
        f" {now.astimezone():%H:%M:%S}."
    )


def cause_of(cause: Cause | None) -> dict[str, Any] | None:
    """Return why something ended as it did: code, message, notebook with cell, what helps."""
    if cause is None:
        return None
    place = cause.notebook or ""
    if cause.cell is not None:
        place = f"{place}, cell {cause.cell}" if place else f"cell {cause.cell}"
    return {
        "code": cause.code,
        "message": _ANSI.sub("", cause.message),
        "place": place,
        "hint": cause.hint,
    }


def _commands(run: RunRecord, prompt: str) -> list[dict[str, str]]:
    """Return what to type next, with what it is for."""
    if not run.status.is_final:
        return [
            {"what": "Follow it", "type": f"{prompt} logs {run.run_id} --follow"},
            {"what": "End it", "type": f"{prompt} cancel {run.run_id}"},
        ]
    if run.model_versions:
        return [
            {"what": "Serve it", "type": f"{prompt} deploy {name}"} for name in run.model_versions
        ]
    if run.cause is not None:
        return [{"what": "Its log", "type": f"{prompt} logs {run.run_id}"}]
    return []


def _line(line: str) -> str:
    return wording.clipped(_ANSI.sub("", line).replace("\t", "    "), _LINE_WIDTH)
