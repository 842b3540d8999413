"""Serving: workers, routes, endpoints, deployments, calls."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from nbmlops.records.jobs import Cause, JobHandle
from nbmlops.records.models import ModelSchema
from nbmlops.records.record import Record


class Prediction(Record, frozen=True, kw_only=True):
    """One answer: a ``label`` with its probabilities, or a ``value``."""

    label: Any = msgspec.UNSET
    value: float | msgspec.UnsetType | None = msgspec.UNSET
    probabilities: dict[str, float | None] | None = None
    within_bounds: bool = True


class Sample(Record, frozen=True, kw_only=True):
    """Rows of the training data, and what the model predicted for them when it was logged."""

    records: tuple[dict[str, Any], ...]
    predictions: tuple[Prediction, ...]


class WorkerSpec(Record, frozen=True, kw_only=True):
    """What a worker finds in its inbox as ``spec.json``."""

    deployment_id: str
    model: str
    version: int
    format: str
    model_file: str
    model_digest: str
    schema: ModelSchema
    form: Literal["given", "direct"] = "given"
    sample: Sample | None = None


class Route(Record, frozen=True, kw_only=True):
    """A way to one deployment: its ``share`` of the traffic in percent, its worker's address.

    ``batches`` is whether calls that wait may be answered together, ``matrix`` whether the worker
    takes columns of doubles as one tensor.
    """

    deployment_id: str
    role: Literal["champion", "canary", "shadow"]
    share: float
    address: str
    model: str
    version: int
    commit: str
    schema: ModelSchema
    batches: bool = False
    matrix: bool = False


class RouteTable(Record, frozen=True, kw_only=True):
    """The versioned list of an endpoint's routes; a front takes only a higher ``revision``."""

    endpoint: str
    revision: int
    routes: tuple[Route, ...]


class FrontSpec(Record, frozen=True, kw_only=True):
    """What a front finds in its inbox as ``spec.json``; ``calls`` is the folder of the call log."""

    endpoint: str
    calls: str
    control_digest: str
    deadline_s: float = 30.0
    body_limit_bytes: int = 16 * 1024 * 1024
    rows_limit: int = 10_000


class DeploymentStatus(StrEnum):
    """Where a deployment stands."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"


class DeploymentRecord(Record, frozen=True, kw_only=True):
    """A worker of one model version behind an endpoint; the document of ``deploy``."""

    endpoint: str
    url: str
    deployment_id: str
    model: str
    version: int
    commit: str
    launcher: str
    status: DeploymentStatus
    ready: int = 0
    desired: int = 1
    token_file: str | None = None
    created_at: datetime
    stopped_at: datetime | None = None
    author: str
    handle: JobHandle | None = None
    cause: Cause | None = None
    monitor: str | None = None


class EndpointRecord(Record, frozen=True, kw_only=True):
    """A stable URL and where its traffic goes; ``revision`` counts its route tables."""

    endpoint: str
    launcher: str
    port: int
    url: str
    revision: int
    deployment_id: str | None
    running: bool
    created_at: datetime
    handle: JobHandle | None = None


class CallAnswer(Record, frozen=True, kw_only=True):
    """The body of ``POST /predict`` and the document of ``call``."""

    call_id: str
    model: str
    version: int
    commit: str
    predictions: tuple[Prediction, ...]


class CallRecord(Record, frozen=True, kw_only=True):
    """One answered call, as the call log keeps it. ``sequence`` counts from 1 in each writer."""

    call_id: str
    sequence: int
    at: datetime
    endpoint: str
    deployment_id: str
    model: str
    version: int
    commit: str
    records: tuple[dict[str, Any], ...]
    predictions: tuple[Prediction, ...]
    latency_ms: float
    client_id: str | None = None
