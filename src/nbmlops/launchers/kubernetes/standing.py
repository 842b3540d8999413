"""How jobs stand, from what was listed of them; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nbmlops.launchers import places
from nbmlops.launchers.kubernetes import names, troubles
from nbmlops.launchers.kubernetes.keeping import Asked, Ending
from nbmlops.launchers.kubernetes.troubles import Trouble
from nbmlops.records import Attempt, Cause, JobStatus, Status

Document = dict[str, Any]

# A trouble that has stood for so long does not pass: with the look before and the one after it,
# that is within a minute.
PATIENCE_S = 45.0
_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True)
class Scene:
    """What was listed: pods of all jobs; Jobs, Deployments and events where there were none.

    ``complete`` are the jobs for which all was listed.
    """

    pods: Mapping[str, Sequence[Document]] = field(default_factory=dict[str, list[Document]])
    complete: frozenset[str] = frozenset()
    jobs: Mapping[str, Document] = field(default_factory=dict[str, Document])
    deployments: Mapping[str, Document] = field(default_factory=dict[str, Document])
    events: Sequence[Document] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """How a job stands: ``over``, or with an ``ended_pod`` that is to be collected, or going on.

    ``again`` is whether something that is to end has not been told yet.
    """

    status: JobStatus
    over: bool = False
    ended_pod: Document | None = None
    trouble: Trouble | None = None
    again: bool = False


def by_job(pods: Sequence[Document]) -> dict[str, list[Document]]:
    """Return pods by the job that they belong to, the oldest first."""
    found: dict[str, list[Document]] = {}
    for pod in sorted(pods, key=age):
        found.setdefault(pod["metadata"].get("labels", {}).get(names.JOB, ""), []).append(pod)
    return found


def age(pod: Document) -> str:
    """Return what sorts pods from the oldest to the newest."""
    return str(pod["metadata"].get("creationTimestamp", ""))


def of(asked: Asked, ending: Ending | None, scene: Scene, name: str) -> Seen:
    """Return how one job stands; ``name`` is that of its objects."""
    pods = scene.pods.get(asked.spec.name, ())
    if asked.spec.port is not None:
        return _of_service(asked, ending, scene, pods)
    if pods:
        return _of_pod(asked, ending, pods[-1])
    return _without_pod(asked, ending, scene, name)


def _of_pod(asked: Asked, ending: Ending | None, pod: Document) -> Seen:
    running = JobStatus(status=Status.RUNNING, ready=1, attempts=_attempt(asked.attempt, pod))
    if troubles.has_ended(pod):
        return Seen(running, ended_pod=pod)
    again = ending is not None and not pod["metadata"].get("deletionTimestamp")
    if troubles.is_running(pod):
        return Seen(running, again=again)
    trouble = troubles.of_pod(pod) if ending is None else None
    return Seen(_pending(trouble), trouble=trouble, again=again)


def _without_pod(asked: Asked, ending: Ending | None, scene: Scene, name: str) -> Seen:
    job = scene.jobs.get(asked.spec.name)
    if asked.spec.name not in scene.complete:
        return Seen(_pending(None))
    if job is None:
        return _gone(asked, ending)
    if ending is not None:
        return Seen(_pending(None), again=not job["metadata"].get("deletionTimestamp"))
    ended = troubles.of_job(job)
    if ended is not None:
        status, why = ended
        return Seen(JobStatus(status=status, desired=0, cause=why), over=True)
    trouble = troubles.of_events(scene.events, "Job", name)
    return Seen(_pending(trouble), trouble=trouble)


def _of_service(
    asked: Asked, ending: Ending | None, scene: Scene, pods: Sequence[Document]
) -> Seen:
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if ending is not None and pods:
        return Seen(JobStatus(status=Status.RUNNING, desired=0), again=bool(staying))
    if not staying:
        return _service_without_pod(asked, ending, scene, leaving=bool(pods))
    ready = sum(troubles.is_ready(pod) for pod in staying)
    newest = next((pod for pod in reversed(staying) if troubles.is_running(pod)), None)
    found = [trouble for pod in staying if (trouble := troubles.of_pod(pod)) is not None]
    trouble = found[0] if found and not ready else None
    running = ready or newest is not None
    status = JobStatus(
        status=Status.RUNNING if running else Status.PENDING,
        ready=ready,
        desired=asked.spec.replicas.desired,
        attempts=_attempt(asked.attempt, newest) if newest else (),
        cause=found[0].cause if found else None,
    )
    return Seen(status, trouble=trouble)


def _service_without_pod(
    asked: Asked, ending: Ending | None, scene: Scene, *, leaving: bool
) -> Seen:
    if asked.spec.name not in scene.complete and not (leaving or ending):
        return Seen(_pending(None))
    deployment = scene.deployments.get(asked.spec.name)
    if ending is not None:
        return _gone(asked, ending)
    if deployment is None:
        return Seen(_pending(None)) if leaving else _gone(asked, ending)
    if deployment.get("spec", {}).get("replicas") == 0:
        stopped = JobStatus(status=Status.CANCELLED, desired=0, cause=places.CAUSES["cancelled"])
        return Seen(stopped)
    trouble = troubles.of_deployment(deployment)
    return Seen(_pending(trouble), trouble=trouble)


def _gone(asked: Asked, ending: Ending | None) -> Seen:
    if ending is not None:
        status, why = stopped(ending)
    else:
        said = f"somebody has deleted the job {asked.spec.name} in the cluster"
        status, why = Status.LOST, troubles.cause("job-lost", said)
    return Seen(JobStatus(status=status, desired=0, cause=why), over=True)


def stopped(ending: Ending) -> tuple[Status, Cause]:
    """Return how a job ended that was told to."""
    if ending.cause is not None:
        return Status.FAILED, ending.cause
    return Status.CANCELLED, places.CAUSES["cancelled"]


def _pending(trouble: Trouble | None) -> JobStatus:
    return JobStatus(status=Status.PENDING, cause=trouble.cause if trouble else None)


def _attempt(name: str, pod: Document) -> tuple[Attempt, ...]:
    started = troubles.started_at(pod)
    return () if started is None else (Attempt(name=name, started_at=started),)


# --- batches --------------------------------------------------------------------------------------


def part_of(pod: Document) -> int | None:
    """Return which part of a batch a pod is."""
    about = pod["metadata"]
    for said in (about.get("labels", {}), about.get("annotations", {})):
        if str(said.get(_INDEX, "")).isdigit():
            return int(said[_INDEX])
    return None


def part_name(pod: Document) -> str:
    """Return how a part of a batch is called: ``i7``."""
    return f"i{part_of(pod)}"


def parts_of(scene: Scene, job: str) -> dict[int, Document]:
    """Return the newest pod of each part of a batch."""
    found = ((part_of(pod), pod) for pod in scene.pods.get(job, ()))
    return {index: pod for index, pod in found if index is not None}


def of_batch(
    asked: Asked, ending: Ending | None, scene: Scene, ended: Mapping[int, JobStatus]
) -> Seen:
    """Return how a batch stands, whose ``ended`` parts are kept."""
    count = asked.spec.parallel or 0
    pods = [pod for index, pod in parts_of(scene, asked.spec.name).items() if index not in ended]
    running = [pod for pod in pods if troubles.is_running(pod)]
    ended = dict(sorted(ended.items()))
    attempts = tuple(attempt for part in ended.values() for attempt in part.attempts[-1:])
    job = scene.jobs.get(asked.spec.name)
    going = [pod for pod in pods if not troubles.has_ended(pod)]
    over = len(ended) >= count or (job is None and not pods)
    why = troubles.of_job(job) if job is not None and not going else None
    if over or why is not None:
        return Seen(_batch_end(ending, ended, count, attempts, why), over=True)
    begun = bool(running or ended)
    found = [trouble for pod in pods if (trouble := troubles.of_pod(pod)) is not None]
    trouble = found[0] if found and not begun and ending is None else None
    status = JobStatus(
        status=Status.RUNNING if begun else Status.PENDING,
        ready=len(running),
        desired=count,
        attempts=attempts,
        cause=found[0].cause if found else None,
    )
    again = ending is not None and job is not None
    return Seen(status, trouble=trouble, again=again)


def _batch_end(
    ending: Ending | None,
    ended: Mapping[int, JobStatus],
    count: int,
    attempts: tuple[Attempt, ...],
    why: tuple[Status, Cause] | None,
) -> JobStatus:
    bad = {index: part for index, part in ended.items() if part.status is not Status.SUCCEEDED}
    if ending is not None:
        status, cause = stopped(ending)
    elif not bad and len(ended) >= count:
        status, cause = Status.SUCCEEDED, None
    elif bad:
        index, part = next(iter(bad.items()))
        said = part.cause.message if part.cause else part.status.value
        told = f"{len(bad)} of {count} parts did not succeed; part {index}: {said}"
        hint = f"See what it wrote: attempt i{index} of the log."
        code = part.cause.code if part.cause else "job-failed"
        status, cause = Status.FAILED, Cause(code=code, message=told[:800], hint=hint)
    else:
        told = f"{count - len(ended)} of {count} parts are gone"
        lost = (Status.LOST, troubles.cause("job-lost", told))
        status, cause = why or lost
    return JobStatus(status=status, desired=0, attempts=attempts, cause=cause)


# --- what stands ----------------------------------------------------------------------------------


def has_begun(pod: Document) -> bool:
    """Return whether a pod has a log."""
    return bool({"running", "terminated"} & {*troubles.container(pod).get("state", {})}) or bool(
        troubles.container(pod).get("lastState")
    )


def is_up(item: Document) -> bool:
    """Return whether a Job or a Deployment has not ended and is not about to."""
    if item["metadata"].get("deletionTimestamp"):
        return False
    status = item.get("status", {})
    if item.get("spec", {}).get("replicas") == 0:
        return False
    ended = ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")
    return not any(troubles.condition(status, kind).get("status") == "True" for kind in ended)


def owned(item: Document, kind: str) -> Document:
    """Return of an object what we have asked for, by what the server says who owns each field."""
    ours: Document = {}
    for entry in item["metadata"].get("managedFields") or ():
        if entry.get("manager") == names.MANAGER and not entry.get("subresource"):
            ours = _union(ours, entry.get("fieldsV1") or {})
    kept = _kept(item, ours)
    about = {**kept.get("metadata", {}), "name": item["metadata"]["name"]}
    about.pop("ownerReferences", None)
    return {**kept, "apiVersion": _VERSIONS[kind], "kind": kind, "metadata": about}


_VERSIONS = {
    "Deployment": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "Ingress": "networking.k8s.io/v1",
    "Job": "batch/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "Service": "v1",
}


def _union(one: Document, other: Document) -> Document:
    joined = dict(one)
    for key, value in other.items():
        joined[key] = _union(joined.get(key, {}), value)
    return joined


def _kept(value: Any, fields: Document) -> Any:
    """Return the part of a value that the fields name: ``f:name``, ``k:{...}`` or ``v:...``."""
    inner = {key: below for key, below in fields.items() if key != "."}
    if not inner:
        return value
    if isinstance(value, dict):
        named = {key[2:]: below for key, below in inner.items() if key.startswith("f:")}
        return {key: _kept(item, named[key]) for key, item in value.items() if key in named}
    if isinstance(value, list):
        return [
            _kept(item, below) for item in value for key, below in inner.items() if _is(item, key)
        ]
    return value


def _is(item: Any, key: str) -> bool:
    told = msgspec.json.decode(key[2:])
    if key.startswith("k:") and isinstance(item, dict):
        return all(item.get(name) == value for name, value in told.items())
    return key.startswith("v:") and item == told
