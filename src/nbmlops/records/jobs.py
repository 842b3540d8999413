"""Jobs: what a launcher is given and what it sees."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from nbmlops.records.record import Record


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
    ``tcp`` is for programs that cannot listen on a Unix socket. ``image`` names a container image,
    where the launcher runs containers; ``labels`` say what the job is for. ``parallel`` makes a
    batch of so many parts, each with a folder of its own in the outbox, ``at_once`` at a time. With
    ``apart`` a part gets of the inbox's folder ``each`` the folder of its own number alone.
    A job with a ``carrier`` is a service whose ``image`` has no nbmlops in it: the carrier is the
    image of the tool's side that brings the inbox there, ``command`` is run as it is, and an empty
    one leaves the image its own; it has no outbox.
    """

    name: str
    command: tuple[str, ...]
    inbox: str
    outbox: str
    image: str | None = None
    carrier: str | None = None
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    resources: Resources = Resources()
    port: int | None = None
    exposed: bool = False
    tcp: bool = False
    ready_path: str | None = None
    replicas: Scale = Scale()
    parallel: int | None = None
    at_once: int | None = None
    apart: bool = False
    labels: dict[str, str] = {}

    @property
    def tool_image(self) -> str | None:
        """The image that has the tool's side of the job in it."""
        return self.carrier or self.image


class JobHandle(Record, frozen=True, kw_only=True):
    """Names a launched job; plain strings, so it survives the process that launched it.

    With an ``index``, from 0, it names that part of an indexed batch.
    """

    launcher: str
    name: str
    index: int | None = None

    @property
    def part(self) -> str | None:
        """The name of the attempt that carries this part of a batch."""
        return None if self.index is None else f"i{self.index}"


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
