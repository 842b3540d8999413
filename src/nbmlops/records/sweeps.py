"""Sweeps: many runs of one pipeline over a space of parameters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.jobs import Cause, JobHandle, Status
from nbmlops.records.record import Record
from nbmlops.records.runs import Environment, Snapshot


class Dimension(Record, frozen=True, kw_only=True):
    """The values that one parameter may take: ``choices``, or a range from ``low`` to ``high``.

    Both ends of a range belong to it; ``step`` is its grid, ``log`` draws by orders of magnitude.
    """

    name: str
    kind: Literal["choices", "integers", "numbers"]
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False


class Trial(Record, frozen=True, kw_only=True):
    """One run of a sweep; ``value`` is its metric. Trials count from 1."""

    number: int
    parameters: dict[str, Any]
    status: Status
    run_id: str | None = None
    value: float | None = None
    metrics: dict[str, float | None] = {}
    started_at: datetime | None = None
    finished_at: datetime | None = None


class SweepRecord(Record, frozen=True, kw_only=True):
    """A sweep, from submission to its end; the document of ``sweep``.

    ``best`` is the number of the trial with the best ``value``; ``model_versions`` are those that
    its models became when the sweep ended. All trials start from one
    ``snapshot``; ``fixed`` are parameters that all trials share. ``place`` is the id of the clone
    that started it.
    """

    sweep_id: str
    pipeline: str
    status: Status
    search: Literal["grid", "random", "bayes"]
    metric: str | None
    direction: Literal["maximize", "minimize"]
    space: tuple[Dimension, ...]
    fixed: dict[str, Any] = {}
    trials_total: int
    parallel: int
    seed: int
    trials: tuple[Trial, ...] = ()
    best: int | None = None
    model_versions: tuple[str, ...] = ()
    commit: str
    base_commit: str | None
    dirty: bool
    environment_id: str
    launcher: str
    created_at: datetime
    finished_at: datetime | None = None
    author: str
    cause: Cause | None = None
    force: bool = False
    snapshot: Snapshot
    environment: Environment
    handle: JobHandle | None = None
    place: str | None = None
