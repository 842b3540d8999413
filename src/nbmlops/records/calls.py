"""What is done with many calls: whole files, the same calls again, truths that come later."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.jobs import Cause
from nbmlops.records.models import ModelSchema, ModelVersion
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


class BatchFailure(Record, frozen=True, kw_only=True):
    """A file that was not answered, and why."""

    source: str
    code: str
    message: str
    hint: str | None = None


class BatchReport(Record, frozen=True, kw_only=True):
    """The document of ``predict`` for many files: which were answered, and which were not.

    ``already`` counts files whose answers, by this very version, were there before. ``job`` names
    the job of a cluster that answered them.
    """

    model: str
    version: int
    commit: str
    launcher: str
    job: str | None
    out: str
    files: tuple[BatchRecord, ...]
    failed: tuple[BatchFailure, ...]
    already: int
    rows: int
    out_of_bounds: int
    seconds: float


class ScoringFile(Record, frozen=True, kw_only=True):
    """A file to answer, its digest, and where its answers go."""

    source: str
    digest: str
    out: str


class ScoringJob(Record, frozen=True, kw_only=True):
    """A job that answers files, one by each part; ``ended`` once what it left was taken.

    ``key`` is the same for the same request. Which files they were is not kept beyond the end.
    """

    key: str
    job: str
    launcher: str
    version: str
    files: tuple[ScoringFile, ...]
    ended: bool = False


class ScoringSpec(Record, frozen=True, kw_only=True):
    """What the program that answers a file finds in its inbox, beside the spec of a worker.

    ``command`` starts the worker, on the project's side. Answers are held against ``contract``,
    where there is one, instead of the schema that the worker has.
    """

    version: ModelVersion
    command: tuple[str, ...]
    contract: ModelSchema | None = None


class ScoringResult(Record, frozen=True, kw_only=True):
    """What that program leaves: what is in ``out``, or the ``cause`` why there is none."""

    source_digest: str = ""
    out: str = ""
    out_digest: str = ""
    rows: int = 0
    out_of_bounds: int = 0
    seconds: float = 0.0
    cause: Cause | None = None


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
