"""Runs: notebooks, snapshots, environments, and what becomes of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from nbmlops.records.jobs import Cause, JobHandle, Status
from nbmlops.records.record import Record


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
    ``packages`` maps names to the exact versions that are installed. Where it is in a container
    image, ``image`` is that image's reference, and ``image_digest`` what it is verified by: of the
    registry's manifest where it was pushed, else of the engine's image.
    """

    environment_id: str
    python: str
    python_version: str
    platform: str
    source: str | None
    packages: dict[str, str]
    image: str | None = None
    image_digest: str | None = None


class InboxFile(Record, frozen=True, kw_only=True):
    """Bytes in the inbox, under their digest, and the path in the project that they belong at.

    ``step`` is the step whose output they are, ``None`` for data.
    """

    path: str
    digest: str
    step: str | None = None


class StepSpec(Record, frozen=True, kw_only=True):
    """One notebook of a run, as the runner is told it.

    ``after`` names the steps that must have succeeded before. ``key`` covers everything that the
    step's result follows from. A step with ``cached_from``, the run that it is taken over from, is
    not run: its outputs come with the inbox.
    """

    name: str
    notebook: str
    notebook_blob: str
    cells_total: int
    parameters: dict[str, Any]
    outputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    key: str = ""
    cached_from: str | None = None


class RunSpec(Record, frozen=True, kw_only=True):
    """What a runner finds in its inbox as ``spec.json``.

    ``project_dir`` is the folder of ``nbmlops.toml`` within the repository; ``python`` is the
    interpreter of the project's environment. ``files`` are laid over the snapshot: data that git
    does not hold, outputs of cached steps. ``data`` maps the names of ``[data]`` to their paths.
    """

    run_id: str
    pipeline: str
    project_dir: str
    commit: str
    steps: tuple[StepSpec, ...]
    python: str
    environment: Environment
    secrets: tuple[str, ...] = ()
    files: tuple[InboxFile, ...] = ()
    data: dict[str, str] = {}


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
    after: tuple[str, ...] = ()
    cached_from: str | None = None


def planned(step: StepSpec) -> StepRecord:
    """Return the record of a step before it has begun."""
    return StepRecord(
        name=step.name,
        notebook=step.notebook,
        notebook_blob=step.notebook_blob,
        cells_total=step.cells_total,
        parameters=step.parameters,
        after=step.after,
        cached=step.cached_from is not None,
        cached_from=step.cached_from,
        status=Status.PENDING if step.cached_from is None else Status.SUCCEEDED,
        cells_done=0 if step.cached_from is None else step.cells_total,
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


class StepOutcome(Record, frozen=True, kw_only=True):
    """What one step left: the metrics that it logged, the names of its files, the data it read."""

    step: str
    metrics: dict[str, float | None] = {}
    files: tuple[str, ...] = ()
    data: tuple[DataRecord, ...] = ()


class Probe(Record, frozen=True, kw_only=True):
    """What was seen of a model when it was logged, over rows of its training data.

    ``form`` is the quickest that agreed with the model as given; ``independent`` is whether a row's
    answer does not depend on the rows beside it, so that calls may be answered together.
    """

    form: Literal["given", "direct", "numeric"] = "given"
    independent: bool = False
    deterministic: bool = True


class LoggedModel(Record, frozen=True, kw_only=True):
    """A model as ``log_model`` left it: what it is, which cell made it, which files hold it.

    ``files`` maps a role (``model``, ``schema``, ``profile``, ``sample``) to the name of an outbox
    file.
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
    probe: Probe = Probe()
    loader: str | None = None
    command: tuple[str, ...] = ()
    image: str | None = None


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
    outcomes: tuple[StepOutcome, ...] = ()


class CachedStep(Record, frozen=True, kw_only=True):
    """A step that succeeded once: everything a later run takes over instead of running it."""

    key: str
    run_id: str
    record: StepRecord
    metrics: dict[str, float | None] = {}
    artifacts: tuple[ArtifactRecord, ...] = ()
    data: tuple[DataRecord, ...] = ()
    models: tuple[LoggedModel, ...] = ()


class EarlierAttempt(Record, frozen=True, kw_only=True):
    """An attempt of a run that did not succeed, and what it left."""

    attempt: int
    status: Status
    cause: Cause | None
    started_at: datetime | None
    finished_at: datetime | None
    artifacts: tuple[ArtifactRecord, ...] = ()


class RunRecord(Record, frozen=True, kw_only=True):
    """A run, from submission to its end; the document of ``train`` and ``run``.

    ``freed_at`` is when ``gc`` has freed what it left; ``artifacts`` still tells what that was.
    ``place`` is the id of the clone that started it; one that another clone started is shown as
    that clone has written it last, and as ``elsewhere``.
    """

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
    earlier: tuple[EarlierAttempt, ...] = ()
    sweep: str | None = None
    trial: int | None = None
    freed_at: datetime | None = None
    place: str | None = None
    elsewhere: bool = False


# --- comparing ----------------------------------------------------------------------------------


class Difference(Record, frozen=True, kw_only=True):
    """One name with its value in each run, in the order of the runs; ``None`` where it has none."""

    name: str
    values: tuple[Any, ...]
    differs: bool


class CellChange(Record, frozen=True, kw_only=True):
    """A cell that is not the same in two notebooks; ``diff`` is a unified diff of its source.

    ``cell`` is its position in the second notebook, in the first one where it was removed.
    """

    kind: Literal["added", "removed", "changed"]
    cell: int
    cell_id: str | None
    diff: str


class NotebookDifference(Record, frozen=True, kw_only=True):
    """What became of a notebook from the first run to another one, or to ``now``."""

    step: str
    notebook: str
    run_id: str
    changes: tuple[CellChange, ...]


class Comparison(Record, frozen=True, kw_only=True):
    """Runs side by side; the document of ``compare``. ``runs`` have no steps and artifacts."""

    runs: tuple[RunRecord, ...]
    parameters: tuple[Difference, ...]
    metrics: tuple[Difference, ...]
    data: tuple[Difference, ...]
    packages: tuple[Difference, ...]
    notebooks: tuple[NotebookDifference, ...]
