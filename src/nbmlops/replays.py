"""Replays: logged calls run again, on their own version or another, answer held against answer.

Each call is sent as it was, alone and whole, to a worker of the version in that version's own
environment: the same commit and the same environment give the same answer.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nbmlops import calllog, calls, models, predictors, schema, stints
from nbmlops.asking import Asker, ModelFailed
from nbmlops.errors import InvalidRecords, WrongUse
from nbmlops.records import CallRecord, ModelVersion, Prediction, Replay
from nbmlops.workspace import Workspace

SHOWN = 1000


@dataclass(slots=True)
class _Tally:
    """What was seen so far."""

    rtol: float
    compared: int = 0
    equal: int = 0
    unknown: int = 0
    differing: int = 0
    different: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    changes: Counter[str] = field(default_factory=Counter[str])
    gaps: int = 0
    gap_sum: float = 0.0
    gap_max: float = 0.0
    was_ms: list[float] = field(default_factory=list[float])
    is_ms: list[float] = field(default_factory=list[float])
    reasons: Counter[str] = field(default_factory=Counter[str])


def replay(
    workspace: Workspace,
    reference: str,
    *,
    last: int = 100,
    against: str | None = None,
    rtol: float = predictors.RTOL,
) -> Replay:
    """Run a call again (``call/ID``), or the ``last`` calls of an endpoint or ``deployment/ID``.

    Green: all labels are equal, and all numbers within ``rtol``. Red: some are not. Unknown:
    nothing could be compared, or a version that draws by chance differs from itself.

    Raises
    ------
    UnknownCall, UnknownEndpoint, UnknownModel
        When there is none of that name.
    """
    if not 0.0 <= rtol < 1.0:
        raise WrongUse(f"{rtol!r} is no relative tolerance", "Write it as 1e-9: `--rtol 1e-9`.")
    chosen = _chosen(workspace, reference, last)
    target = models.find(workspace, against) if against else None
    names = calls.versions_of(workspace, {call.deployment_id for call in chosen})
    groups: dict[str, list[CallRecord]] = {}
    for call in chosen:
        name = target.name if target else calls.answered_by(call, names)
        groups.setdefault(name, []).append(call)
    tally = _Tally(rtol)
    chance = False
    for name, group in groups.items():
        version = target or models.find(workspace, name)
        differed = tally.differing
        _run_again(workspace, version, group, tally)
        own = all(calls.answered_by(call, names) == version.name for call in group)
        by_chance = own and not version.probe.deterministic
        chance = chance or (by_chance and tally.differing > differed)
    return _told(tally, chosen, tuple(groups), target, chance=chance)


def _chosen(workspace: Workspace, reference: str, last: int) -> list[CallRecord]:
    if reference.startswith("call/") or calllog.is_call_id(reference):
        return [calls.find(workspace, reference.removeprefix("call/"))]
    if last < 1:
        raise WrongUse(f"{last} calls are none", "Ask for some: `--last 100`.")
    return calls.newest(calls.window(workspace, reference), last)


def _run_again(
    workspace: Workspace, version: ModelVersion, group: Sequence[CallRecord], tally: _Tally
) -> None:
    sendable = [call for call in group if not call.redacted]
    for call in group:
        if call.redacted:
            tally.unknown += len(call.records)
            names = ", ".join(f"`{name}`" for name in call.redacted)
            tally.reasons[f"{names} is kept out of the log"] += len(call.records)
    if not sendable:
        return
    with stints.stint(workspace, version) as stint:
        calls_of = "1 call" if len(sendable) == 1 else f"{len(sendable):,} calls"
        workspace.say(f"running {calls_of} again on {version.name}")
        for call in sendable:
            _one(stint, call, tally)


def _one(stint: Asker, call: CallRecord, tally: _Tally) -> None:
    """Run one call again, and hold each of its answers against what it was."""
    began_s = time.perf_counter()
    try:
        found, refused = _asked(stint, list(call.records)), ""
    except (InvalidRecords, ModelFailed) as error:
        found, refused = None, error.message
    if found is not None:
        tally.is_ms.append(1000 * (time.perf_counter() - began_s))
        tally.was_ms.append(call.latency_ms)
    for row, was in enumerate(call.predictions):
        tally.compared += 1
        now = None if found is None else found[row]
        if now is not None:
            _measure(tally, was, now)
            if predictors.agree(was, now, tally.rtol):
                tally.equal += 1
                continue
        tally.differing += 1
        if len(tally.different) < SHOWN:
            told: dict[str, Any] = {
                "call_id": call.call_id,
                "row": row,
                "version": call.version,
                "was": _shown(was),
                "is": None if now is None else _shown(now),
            }
            tally.different.append(told if now is not None else {**told, "reason": refused})


def _asked(stint: Asker, rows: list[dict[str, Any]]) -> tuple[Prediction, ...]:
    return stint.predict(schema.check(stint.schema, rows))


def _shown(answer: Prediction) -> dict[str, Any]:
    return msgspec.to_builtins(answer)


def _measure(tally: _Tally, was: Prediction, now: Prediction) -> None:
    """Note how far two answers are apart."""
    if was.label != now.label:
        tally.changes[f"{_word(was)} -> {_word(now)}"] += 1
    pairs = [(was.value, now.value)]
    old, new = was.probabilities or {}, now.probabilities or {}
    pairs += [(share, new[name]) for name, share in old.items() if name in new]
    for one, other in pairs:
        if isinstance(one, float) and isinstance(other, float):
            gap = abs(one - other)
            tally.gaps += 1
            tally.gap_sum += gap
            tally.gap_max = max(tally.gap_max, gap)


def _word(answer: Prediction) -> str:
    found = answer.outcome
    return f"{found:.6g}" if isinstance(found, float) else str(found)


def _told(
    tally: _Tally,
    chosen: Sequence[CallRecord],
    versions: tuple[str, ...],
    target: ModelVersion | None,
    *,
    chance: bool,
) -> Replay:
    reason: str | None = "; ".join(tally.reasons) or None
    if tally.differing and chance:
        verdict, reason = "unknown", "the model draws by chance: it differs from itself"
    elif tally.differing:
        verdict = "red"
    elif tally.compared:
        verdict = "green"
    else:
        verdict, reason = "unknown", reason or "there are no calls in the log"
    return Replay(
        verdict=verdict,
        compared=tally.compared,
        equal=tally.equal,
        different=tuple(tally.different),
        rtol=tally.rtol,
        against=None if target is None else target.name,
        calls=len(chosen),
        unknown=tally.unknown,
        reason=reason,
        changes=dict(tally.changes.most_common()),
        difference_mean=tally.gap_sum / tally.gaps if tally.gaps else None,
        difference_max=tally.gap_max if tally.gaps else None,
        latency_was_ms=statistics.median(tally.was_ms) if tally.was_ms else None,
        latency_is_ms=statistics.median(tally.is_ms) if tally.is_ms else None,
        different_total=tally.differing,
        versions=versions,
    )
