"""The words of nbmlops: every document that travels between its parts, and out of them.

Records are frozen and slotted, survive a JSON round trip, name their units, and hold aware
UTC times. Ids are lower-case and safe as DNS labels. Keys are only ever added, and an unknown
key of a newer version is ignored on reading, so old and new readers understand each other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: immutable, keyword-only."""


RecordT = TypeVar("RecordT", bound=msgspec.Struct)


def dump(record: Any) -> bytes:
    """Encode a record as one JSON document; non-finite numbers become ``null``."""
    return msgspec.json.encode(record)


def load(data: bytes | str, kind: type[RecordT]) -> RecordT:
    """Decode a JSON document into a record of ``kind``.

    Raises
    ------
    msgspec.ValidationError
        When a required key is missing or has the wrong type.
    """
    return msgspec.json.decode(data, type=kind)


def plain(record: Any) -> Any:
    """Return the record as dictionaries, lists, strings and numbers."""
    return msgspec.to_builtins(record)


def replace(record: RecordT, **changes: Any) -> RecordT:
    """Return a copy of the record with some fields changed."""
    return msgspec.structs.replace(record, **changes)


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


# --- jobs -------------------------------------------------------------------------------------


class Status(StrEnum):
    """Where a job, and with it a run or a deployment, stands; the same on every launcher."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (Status.PENDING, Status.RUNNING)


class Cause(Record, frozen=True, kw_only=True):
    """Why something ended as it did.

    ``cell`` is the position of the failing cell in its notebook, counted from 1 over all cells;
    ``cell_id`` is the id that the notebook format gives it.
    """

    code: str
    message: str
    cell: int | None = None
    cell_id: str | None = None
    notebook: str | None = None
    hint: str | None = None


class Resources(Record, frozen=True, kw_only=True):
    """What a job may use. ``timeout_s`` of ``None`` means no limit of time."""

    cpu_cores: float = 1.0
    memory_mib: int = 4096
    gpus: int = 0
    timeout_s: int | None = None


class Scale(Record, frozen=True, kw_only=True):
    """How many replicas a job with a port wants."""

    desired: int = 1


class JobSpec(Record, frozen=True, kw_only=True):
    """All that a launcher may know of a job: no notebooks, no models.

    ``inbox`` and ``outbox`` are URIs of folders. A job with a ``port`` stays up until it is
    cancelled; one without runs to its end. ``exposed`` says whether people reach the port (an
    endpoint's front) or other jobs alone (a worker); ``ready_path`` answers 200 when it serves.
    """

    name: str
    command: tuple[str, ...]
    inbox: str
    outbox: str
    image: str | None = None
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    resources: Resources = Resources()
    port: int | None = None
    exposed: bool = False
    ready_path: str | None = None
    replicas: Scale = Scale()
    parallel: int | None = None


class JobHandle(Record, frozen=True, kw_only=True):
    """Names a launched job; plain strings, so it survives the process that launched it."""

    launcher: str
    name: str


class Attempt(Record, frozen=True, kw_only=True):
    """One start of a job's program."""

    name: str
    started_at: datetime
    finished_at: datetime | None = None
    exit_code: int | None = None


class JobStatus(Record, frozen=True, kw_only=True):
    """What a launcher sees of a job now."""

    status: Status
    ready: int = 0
    desired: int = 1
    address: str | None = None
    attempts: tuple[Attempt, ...] = ()
    cause: Cause | None = None


# --- notebooks, snapshots, environments ---------------------------------------------------------


class Parameter(Record, frozen=True, kw_only=True):
    """A declared parameter of a notebook: ``type`` is spelled as in Python, ``default`` is JSON."""

    name: str
    type: str
    default: Any = None
    help: str | None = None


class Snapshot(Record, frozen=True, kw_only=True):
    """The commit that a run starts from, and what it was made of.

    ``base_commit`` is the user's HEAD, ``None`` on an unborn branch; ``dirty`` says whether the
    work tree differed from it.
    """

    id: str
    commit: str
    tree: str
    base_commit: str | None
    dirty: bool
    branch: str | None
    created_at: datetime


class Environment(Record, frozen=True, kw_only=True):
    """The project side of a job: the interpreter that the user's code runs in.

    ``source`` is the lock file it was made from, or ``None`` when the current interpreter serves;
    ``packages`` maps names to the exact versions that are installed.
    """

    environment_id: str
    python: str
    python_version: str
    platform: str
    source: str | None
    packages: dict[str, str]


# --- runs ---------------------------------------------------------------------------------------


class StepSpec(Record, frozen=True, kw_only=True):
    """One notebook of a run, as the runner is told it."""

    name: str
    notebook: str
    notebook_blob: str
    cells_total: int
    parameters: dict[str, Any]
    outputs: tuple[str, ...] = ()


class RunSpec(Record, frozen=True, kw_only=True):
    """What a runner finds in its inbox as ``spec.json``.

    ``project_dir`` is the folder of ``nbmlops.toml`` within the repository; ``python`` is the
    interpreter of the project's environment.
    """

    run_id: str
    pipeline: str
    project_dir: str
    commit: str
    steps: tuple[StepSpec, ...]
    python: str
    environment: Environment
    secrets: tuple[str, ...] = ()


class Event(Record, frozen=True, kw_only=True):
    """One thing that happened inside a job, told while it happens.

    ``kind`` is ``started``, ``step``, ``cell``, ``metric``, ``model``, ``artifact``, ``data``,
    ``heartbeat`` or ``finished``.
    """

    kind: str
    at: datetime
    step: str | None = None
    cell: int | None = None
    cell_id: str | None = None
    status: str | None = None
    values: dict[str, Any] = {}


class StepRecord(Record, frozen=True, kw_only=True):
    """How one notebook of a run fared."""

    name: str
    notebook: str
    status: Status = Status.PENDING
    cached: bool = False
    notebook_blob: str
    cells_done: int = 0
    cells_total: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    parameters: dict[str, Any] = {}


def planned(step: StepSpec) -> StepRecord:
    """Return the record of a step before it has begun."""
    return StepRecord(
        name=step.name,
        notebook=step.notebook,
        notebook_blob=step.notebook_blob,
        cells_total=step.cells_total,
        parameters=step.parameters,
    )


class ArtifactRecord(Record, frozen=True, kw_only=True):
    """Bytes that a run left behind, found by their SHA-256; ``name`` never becomes a path."""

    name: str
    digest: str
    bytes: int
    kind: str = "file"
    media_type: str | None = None


class DataRecord(Record, frozen=True, kw_only=True):
    """Data that a run read, by declared name and SHA-256."""

    name: str
    digest: str


class OutboxFile(Record, frozen=True, kw_only=True):
    """A file of an attempt's outbox: ``path`` is relative to it."""

    name: str
    path: str
    digest: str
    bytes: int
    kind: str = "file"
    media_type: str | None = None


class LoggedModel(Record, frozen=True, kw_only=True):
    """A model as ``log_model`` left it: what it is, which cell made it, which files hold it.

    ``files`` maps a role (``model``, ``schema``, ``profile``) to the name of an outbox file.
    """

    name: str
    format: str
    files: dict[str, str]
    metrics: dict[str, float | None]
    step: str
    notebook: str
    notebook_blob: str
    cell_id: str | None
    cell: int | None
    tagged: bool = False


class RunResult(Record, frozen=True, kw_only=True):
    """``result.json``, the last file that an attempt writes."""

    run_id: str
    attempt: str
    status: Status
    started_at: datetime
    finished_at: datetime
    steps: tuple[StepRecord, ...]
    metrics: dict[str, float | None] = {}
    files: tuple[OutboxFile, ...] = ()
    data: tuple[DataRecord, ...] = ()
    models: tuple[LoggedModel, ...] = ()
    packages: dict[str, str] = {}
    cause: Cause | None = None


class RunRecord(Record, frozen=True, kw_only=True):
    """A run, from submission to its end; the document of ``train`` and ``run``."""

    run_id: str
    pipeline: str
    status: Status
    commit: str
    base_commit: str | None
    dirty: bool
    parameters: dict[str, Any]
    metrics: dict[str, float | None] = {}
    environment_id: str
    launcher: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 1
    steps: tuple[StepRecord, ...] = ()
    artifacts: tuple[ArtifactRecord, ...] = ()
    data: tuple[DataRecord, ...] = ()
    model_versions: tuple[str, ...] = ()
    cause: Cause | None = None
    snapshot: str
    author: str
    project_dir: str = "."
    content_key: str = ""
    handle: JobHandle | None = None
    record_digest: str | None = None


# --- models -------------------------------------------------------------------------------------

ColumnKind = Literal["number", "integer", "boolean", "category", "text"]


class Column(Record, frozen=True, kw_only=True):
    """One input column: its kind, and what training saw of it.

    ``low`` and ``high`` are the least and the greatest training value of a numeric column,
    ``categories`` the values of a categorical one. ``nullable`` is whether training had gaps.
    ``dtype`` is the column's type in the training table (``float32``, ``category``, ...), which
    the worker makes again; ``None`` leaves it to the kind.
    """

    name: str
    kind: ColumnKind
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None
    dtype: str | None = None


class OutputSchema(Record, frozen=True, kw_only=True):
    """What a model answers: one of ``classes``, or a number that is plausible in ``low..high``.

    ``class_kind`` tells how the labels are spelled in JSON.
    """

    kind: Literal["label", "value"]
    classes: tuple[str, ...] | None = None
    class_kind: Literal["text", "integer", "boolean", "number"] = "text"
    probabilities: bool = False
    low: float | None = None
    high: float | None = None


class ModelSchema(Record, frozen=True, kw_only=True):
    """The contract of a model with its callers, inferred from the training data."""

    columns: tuple[Column, ...]
    output: OutputSchema
    example: dict[str, Any] = {}


class ModelVersion(Record, frozen=True, kw_only=True):
    """A registered model: its digest is its identity, its number was given by the ledger.

    ``files`` has the roles ``model``, ``schema``, ``profile`` and ``environment``.
    """

    model: str
    version: int
    digest: str
    run_id: str
    commit: str
    created_at: datetime
    stage: str | None = None
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float | None] = {}
    format: str
    files: dict[str, ArtifactRecord]
    environment_id: str
    notebook: str
    notebook_blob: str
    cell_id: str | None
    cell: int | None = None
    cell_is: Literal["tagged", "log_model"] = "log_model"
    snapshot: str
    run_digest: str
    data: tuple[DataRecord, ...] = ()
    author: str

    @property
    def name(self) -> str:
        """The version as people write it, ``model:number``."""
        return f"{self.model}:{self.version}"


# --- serving ------------------------------------------------------------------------------------


class WorkerSpec(Record, frozen=True, kw_only=True):
    """What a worker finds in its inbox as ``spec.json``."""

    deployment_id: str
    model: str
    version: int
    format: str
    model_file: str
    model_digest: str
    schema: ModelSchema


class Route(Record, frozen=True, kw_only=True):
    """A way to one deployment: its ``share`` of the traffic in percent, its worker's address."""

    deployment_id: str
    role: Literal["champion", "canary", "shadow"]
    share: float
    address: str
    model: str
    version: int
    commit: str
    schema: ModelSchema


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


class Prediction(Record, frozen=True, kw_only=True):
    """One answer: a ``label`` with its probabilities, or a ``value``."""

    label: Any = msgspec.UNSET
    value: float | msgspec.UnsetType | None = msgspec.UNSET
    probabilities: dict[str, float | None] | None = None
    within_bounds: bool = True


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


# --- monitoring ---------------------------------------------------------------------------------


class Answer(Record, frozen=True, kw_only=True):
    """The answer to one of the four questions; ``yes`` means still as in training."""

    answer: Literal["yes", "no", "unknown"]
    reason: str
    evidence: dict[str, Any] = {}


class Questions(Record, frozen=True, kw_only=True):
    """The four questions of monitoring."""

    features: Answer
    predictions: Answer
    bounds: Answer
    performance: Answer


class Effect(Record, frozen=True, kw_only=True):
    """A size of difference that does not grow with the number of rows, and its threshold."""

    name: str
    value: float | None
    threshold: float


class Distribution(Record, frozen=True, kw_only=True):
    """Two distributions over the same bins, for a picture.

    ``edges`` holds the ``len(reference) + 1`` edges of a numeric column, ``labels`` the bins'
    names otherwise; ``reference`` and ``window`` are shares that each sum to one.
    """

    edges: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None
    reference: tuple[float, ...] = ()
    window: tuple[float, ...] = ()


class ColumnReport(Record, frozen=True, kw_only=True):
    """What monitoring found about one column."""

    name: str
    kind: str
    verdict: Literal["ok", "drift", "unknown"]
    reason: str
    effect: Effect | None = None
    p_value: float | None = None
    missing_share: float | None = None
    new_categories: tuple[str, ...] = ()
    distribution: Distribution | None = None


class Window(Record, frozen=True, kw_only=True):
    """The calls that were looked at."""

    since: datetime | None
    until: datetime | None
    rows: int


class Reference(Record, frozen=True, kw_only=True):
    """The training data that the calls were held against."""

    rows: int
    digest: str


class Budget(Record, frozen=True, kw_only=True):
    """At most ``false_alarms`` alarms without a cause in ``windows`` windows."""

    false_alarms: int
    windows: int


class MonitorReport(Record, frozen=True, kw_only=True):
    """The document of ``monitor``."""

    verdict: Literal["ok", "alert", "unknown"]
    model: str
    window: Window
    reference: Reference
    questions: Questions
    columns: tuple[ColumnReport, ...]
    prediction: ColumnReport | None = None
    changed_since: datetime | None = None
    budget: Budget
    created_at: datetime
    version: int | None = None
    commit: str | None = None
    endpoint: str | None = None


# --- history, trace, health ---------------------------------------------------------------------


class LedgerEntry(Record, frozen=True, kw_only=True):
    """One decision, for ever: ``sequence`` orders, ``at`` only informs."""

    sequence: int
    kind: Literal["version", "deployed", "undeployed"]
    at: datetime
    author: str
    body: dict[str, Any]


class TracedSnapshot(Record, frozen=True, kw_only=True):
    """The code behind an answer: the commit, the notebook's blob, the training cell."""

    commit: str
    notebook: str | None
    notebook_blob: str | None
    cell_id: str | None
    source: str | None
    cell: int | None = None
    cell_is: Literal["tagged", "log_model"] | None = None
    dirty: bool | None = None
    base_commit: str | None = None


class TracedEnvironment(Record, frozen=True, kw_only=True):
    """The packages behind an answer."""

    id: str
    packages: dict[str, str]


class Trace(Record, frozen=True, kw_only=True):
    """The chain from a call to the cell that trained its model; the document of ``trace``.

    What lies above the point one starts from is ``None``; what should be there and is not, is
    named in ``missing``.
    """

    call: dict[str, Any] | None
    endpoint: dict[str, Any] | None
    deployment: dict[str, Any] | None
    model_version: dict[str, Any] | None
    run: dict[str, Any] | None
    snapshot: TracedSnapshot | None
    data: tuple[DataRecord, ...]
    environment: TracedEnvironment | None
    complete: bool
    missing: tuple[str, ...]


class Finding(Record, frozen=True, kw_only=True):
    """Something that ``doctor`` found, with what to do about it."""

    code: str
    message: str
    fix: str
    invariant: str | None = None


class Health(Record, frozen=True, kw_only=True):
    """The document of ``doctor``: each invariant is ``ok`` or ``broken``."""

    invariants: dict[str, str]
    findings: tuple[Finding, ...]


class Listing(Record, frozen=True, kw_only=True):
    """A page of a list; ``next`` is the cursor of the following page."""

    items: tuple[Any, ...]
    next: str | None = None
