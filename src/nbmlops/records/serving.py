"""Serving: workers, routes, endpoints, deployments, calls."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from nbmlops.records.jobs import Cause, JobHandle
from nbmlops.records.models import ModelSchema
from nbmlops.records.record import Record


class Prediction(Record, frozen=True, kw_only=True, gc=False):
    """One answer: a ``label`` with its probabilities, or a ``value``."""

    label: Any = msgspec.UNSET
    value: float | msgspec.UnsetType | None = msgspec.UNSET
    probabilities: dict[str, float | None] | None = None
    within_bounds: bool = True

    @property
    def outcome(self) -> Any:
        """The label or the value, ``None`` where there is none."""
        found = self.value if self.label is msgspec.UNSET else self.label
        return None if found is msgspec.UNSET else found


class Sample(Record, frozen=True, kw_only=True):
    """Rows of the training data, and what the model predicted for them when it was logged."""

    records: tuple[dict[str, Any], ...]
    predictions: tuple[Prediction, ...]


class WorkerSpec(Record, frozen=True, kw_only=True):
    """What a worker finds in its inbox as ``spec.json``.

    With a ``loader`` or a ``command``, ``model_file`` is an archive of the model's files, and the
    commit's files are in ``source.tar``. A program in an image of its own finds ``model_file`` as a
    folder of those files, and is given no sample.
    """

    deployment_id: str
    model: str
    version: int
    format: str
    model_file: str
    model_digest: str
    schema: ModelSchema
    form: Literal["given", "direct", "numeric"] = "given"
    numeric_file: str | None = None
    numeric_digest: str = ""
    sample: Sample | None = None
    loader: str | None = None
    command: tuple[str, ...] = ()
    project_dir: str = "."


class Route(Record, frozen=True, kw_only=True):
    """A way to one deployment: its ``share`` of the traffic in percent, its worker's address.

    ``batches`` is whether calls that wait may be answered together, ``matrix`` whether the worker
    takes columns of doubles as one tensor, ``binary`` whether it takes binary tensors. ``never``
    are columns that are not logged, ``hashed`` those that are logged as keyed hashes. ``token`` is
    shown to a worker on TCP. ``profile`` is what the front holds live calls against: the profile of
    the training data, narrowed to what may be seen of them.
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
    binary: bool = True
    token: str | None = None
    never: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    profile: bytes | None = None


class RouteTable(Record, frozen=True, kw_only=True):
    """The versioned list of an endpoint's routes; a front takes only a higher ``revision``."""

    endpoint: str
    revision: int
    routes: tuple[Route, ...]


class FrontSpec(Record, frozen=True, kw_only=True):
    """What a front finds in its inbox as ``spec.json``; ``calls`` is the folder of the call log.

    Tokens are here as their SHA-256. Beyond loopback there is an ``access_digest``, and ``hosts``
    are the names, with ports, that clients know the endpoint by. ``published_on_loopback`` says
    that what it listens on is reached from this machine's loopback alone, though it is none itself.
    ``copied`` says that the call log is read as copies that are made while it is written.
    """

    endpoint: str
    calls: str
    copied: bool = False
    control_digest: str
    access_digest: str | None = None
    hosts: tuple[str, ...] = ()
    published_on_loopback: bool = False
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
    """A worker of one model version behind an endpoint; the document of ``deploy``.

    ``rolled_back_from`` is the version that was left when this one was gone back to. ``place`` is
    the id of the clone that started it; one that another clone started is shown as that clone has
    written it last, and as ``elsewhere``. ``image`` is the digest of the image that it serves
    in; ``ephemeral_calls`` that its calls are lost with the pod that answers them. One that
    nobody called for long is asleep, without a worker, ``asleep_since`` then; a call wakes it.
    """

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
    rolled_back_from: int | None = None
    image: str | None = None
    ephemeral_calls: bool = False
    asleep_since: datetime | None = None
    place: str | None = None
    elsewhere: bool = False


class EndpointRecord(Record, frozen=True, kw_only=True):
    """A stable URL and where its traffic goes; ``revision`` counts its route tables.

    ``place`` is the id of the clone that has it.
    """

    endpoint: str
    launcher: str
    port: int
    url: str
    revision: int
    deployment_id: str | None
    running: bool
    created_at: datetime
    handle: JobHandle | None = None
    place: str | None = None


class CallAnswer(Record, frozen=True, kw_only=True, gc=False):
    """The body of ``POST /predict`` and the document of ``call``."""

    call_id: str
    model: str
    version: int
    commit: str
    predictions: tuple[Prediction, ...]


class CallRecord(Record, frozen=True, kw_only=True, gc=False):
    """One answered call, as the call log keeps it. ``sequence`` counts from 1 in each writer.

    ``client_id`` is what the client calls its call, ``client`` the program that it says it is.
    ``redacted`` names the columns whose values were kept out of the log, or are kept as hashes.
    """

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
    client: str | None = None
    redacted: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
