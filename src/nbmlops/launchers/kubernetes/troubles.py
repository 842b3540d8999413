"""What the objects of a job say about how it fares, and what to do about it; pure.

Pods, Jobs, Deployments and events are read as the API server gives them. A trouble that may pass
by itself, such as a pod that finds no node, is told while it stands, and is final for whoever waits
when it has stood too long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nbmlops import parcels
from nbmlops.launchers import places
from nbmlops.launchers.kubernetes.manifests import CONTAINER
from nbmlops.parcels import Outcome
from nbmlops.records import Cause, Status, replace

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a job does not go on; a ``lasting`` one does not pass by itself."""

    cause: Cause
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """How a pod's program ended, without what its log says."""

    status: Status
    exit_code: int | None
    started_at: datetime | None
    finished_at: datetime | None
    cause: Cause | None
    outcome: Outcome | None


_HINTS = {
    "image-pull": "See that the image was pushed and that nodes may pull it: `nbmlops build"
    " --push`, and image_pull_secrets of [kubernetes].",
    "unschedulable": "Ask for less in `resources` of the pipeline, or see which nodes are free:"
    " `kubectl get nodes`.",
    "quota": "Wait for other jobs to end, ask for less in `resources`, or for a larger quota.",
    "admission-refused": "See what the namespace asks of pods: `kubectl describe namespace`,"
    " limit ranges and webhooks.",
    "evicted": "Run it again; see whether its node is short of memory or disk.",
    "node-lost": "Run it again; see `kubectl get nodes`.",
    "cannot-start": "Build the image again: `nbmlops build --push`.",
    "pod-misconfigured": "See that the Secrets and claims that [kubernetes] names are there:"
    " `kubectl get secrets,pvc`.",
    "job-lost": "Run it again.",
    "inbox-missing": "See that the exchange of [kubernetes] is reachable from pods, and that"
    " exchange_secret opens it.",
    "outbox-too-large": "Name an object store or a claim in nbmlops.toml: [kubernetes] exchange ="
    ' "s3://..." or "pvc:NAME".',
    "outbox-lost": "See that the exchange of [kubernetes] is reachable from pods, and that"
    " exchange_secret opens it; then run it again.",
    "log-unreadable": "See whether the node is there: `kubectl get nodes`; then run it again.",
}

_WAITING = {
    "ErrImagePull": "image-pull",
    "ImagePullBackOff": "image-pull",
    "ErrImageNeverPull": "image-pull",
    "InvalidImageName": "image-pull",
    "ImageInspectError": "image-pull",
    "RegistryUnavailable": "image-pull",
    "SignatureValidationFailed": "image-pull",
    "CreateContainerError": "cannot-start",
    "RunContainerError": "cannot-start",
    "CreateContainerConfigError": "pod-misconfigured",
    "CreatePodSandboxError": "cannot-start",
}
_LASTING = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_START_REASONS = frozenset({"StartError", "ContainerCannotRun", "ContainerStatusUnknown"})


def cause(code: str, message: str) -> Cause:
    """Return a cause with the remedy of its code."""
    return Cause(code=code, message=message[:800], hint=_HINTS.get(code))


def of_pod(pod: Document) -> Trouble | None:
    """Return what keeps a pod from starting, or from staying up."""
    status = pod.get("status", {})
    scheduled = condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        said = scheduled.get("message") or scheduled.get("reason") or "no node takes it"
        code = "pod-misconfigured" if "persistentvolumeclaim" in said else "unschedulable"
        return Trouble(cause(code, f"no node of the cluster takes the job: {said}"))
    found = [trouble for one in (*_initial(pod), container(pod)) if (trouble := _of_container(one))]
    return found[0] if found else None


def _of_container(found: Document) -> Trouble | None:
    waiting = found.get("state", {}).get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in _WAITING:
        said = waiting.get("message") or reason
        code = _WAITING[reason]
        return Trouble(cause(code, f"{_TOLD[code]}: {said}"), lasting=reason in _LASTING)
    if reason == "CrashLoopBackOff":
        return Trouble(_crashed(found), lasting=True)
    return None


_TOLD = {
    "image-pull": "the image cannot be pulled",
    "cannot-start": "the job's container cannot be started",
    "pod-misconfigured": "the job's pod names what is not there",
}


def _crashed(found: Document) -> Cause:
    last = found.get("lastState", {}).get("terminated", {})
    told = _ended(last, None)
    if told.cause is not None:
        return told.cause
    return Cause(
        code="job-failed",
        message="the job's program ends again and again, with exit code 0",
        hint="See what it wrote: `nbmlops logs`.",
    )


def of_events(events: Iterable[Document], kind: str, name: str) -> Trouble | None:
    """Return why a Job gets no pods, by the newest event about it."""
    about = [
        event
        for event in events
        if event.get("involvedObject", {}).get("kind") == kind
        and event.get("involvedObject", {}).get("name") == name
        and event.get("reason") == "FailedCreate"
    ]
    if not about:
        return None
    newest = max(about, key=lambda event: str(event.get("lastTimestamp") or event["metadata"]))
    return refused(str(newest.get("message", "")))


def of_deployment(deployment: Document) -> Trouble | None:
    """Return why a Deployment gets no pods."""
    failure = condition(deployment.get("status", {}), "ReplicaFailure")
    if failure.get("status") == "True":
        return refused(str(failure.get("message", "")))
    return None


def refused(said: str) -> Trouble:
    """Return the trouble of a pod that the API server did not take."""
    if "exceeded quota" in said:
        return Trouble(cause("quota", f"the namespace's quota is used up: {said}"))
    return Trouble(cause("admission-refused", f"the cluster does not take the job's pod: {said}"))


def of_job(job: Document) -> tuple[Status, Cause] | None:
    """Return how a Job ended that has left no pod, or ``None`` while it goes on."""
    status = job.get("status", {})
    for kind in ("Failed", "FailureTarget"):
        found = condition(status, kind)
        if found.get("status") != "True":
            continue
        reason, said = found.get("reason", ""), found.get("message", "")
        if reason == "DeadlineExceeded":
            return Status.FAILED, places.CAUSES["time-limit"]
        if reason == "PodFailurePolicy":
            return Status.LOST, cause("evicted", f"the cluster took the job's pod away: {said}")
        return Status.LOST, cause("job-lost", f"the job's pod is gone: {said or reason}")
    if condition(status, "Complete").get("status") == "True":
        return Status.LOST, cause(
            "job-lost", "the job's pod has ended and is gone, and with it what it left"
        )
    return None


def has_ended(pod: Document) -> bool:
    """Return whether nothing of a pod runs any more, or will."""
    phase = pod.get("status", {}).get("phase")
    one_start = pod.get("spec", {}).get("restartPolicy") == "Never"
    terminated = "terminated" in container(pod).get("state", {})
    return phase in ("Succeeded", "Failed") or (one_start and terminated) or node_gone(pod)


def node_gone(pod: Document) -> bool:
    """Return whether a pod's node does not answer, so that the pod is as good as gone."""
    status = pod.get("status", {})
    target = condition(status, "DisruptionTarget")
    by_taint = target.get("status") == "True" and target.get("reason") == "DeletionByTaintManager"
    return by_taint or status.get("reason") == "NodeLost"


def end_of(pod: Document, *, cancelled: bool) -> End:
    """Return how a pod ended.

    ``cancelled`` is whether it was asked to.
    """
    terminated = container(pod).get("state", {}).get("terminated")
    end = _ended(terminated or {}, parcels.outcome_of((terminated or {}).get("message")))
    if cancelled:
        return _as(end, Status.CANCELLED, places.CAUSES["cancelled"])
    taken = _taken_away(pod)
    stopped = end.outcome is None or end.outcome.reason == "cancelled"
    if taken is not None and stopped:
        return _as(end, Status.LOST, taken)
    killed = end.cause is not None and end.cause.code == "job-killed"
    if killed and stopped and pod["metadata"].get("deletionTimestamp"):
        said = "somebody has deleted the job's pod, or its Job"
        return _as(end, Status.LOST, cause("job-lost", said))
    if terminated is None and (before := _failed_before(pod)) is not None:
        end = _ended(before, None)  # whose exit code and log are not the job's
        return End(end.status, None, end.started_at, end.finished_at, end.cause, end.outcome)
    if terminated is None:
        said = pod.get("status", {}).get("message") or "its pod ended without a word"
        return _as(end, Status.LOST, cause("job-lost", f"the job is gone: {said}"))
    return end


def _as(end: End, status: Status, why: Cause) -> End:
    return End(status, end.exit_code, end.started_at, end.finished_at, why, end.outcome)


def _taken_away(pod: Document) -> Cause | None:
    status = pod.get("status", {})
    if node_gone(pod):
        node = pod.get("spec", {}).get("nodeName", "?")
        return cause("node-lost", f"the node {node}, on which the job ran, does not answer")
    target = condition(status, "DisruptionTarget")
    if status.get("reason") == "Evicted" or target.get("status") == "True":
        said = status.get("message") or target.get("message") or target.get("reason") or ""
        return cause("evicted", f"the cluster took the job's pod away: {said}")
    return None


def _ended(terminated: Document, told: Outcome | None) -> End:
    """Return how a container ended, from what the cluster and its program say."""
    outcome = told or parcels.outcome_of(terminated.get("message"))
    started, finished = _time(terminated.get("startedAt")), _time(terminated.get("finishedAt"))
    code = terminated.get("exitCode") if outcome is None else outcome.exit_code
    if outcome is None and code is not None and code > 128:
        code = 128 - code
    reason = terminated.get("reason", "")
    why: Cause | None = None
    status = Status.FAILED
    if reason == "OOMKilled" or (outcome is not None and outcome.reason == "out-of-memory"):
        why = places.CAUSES["out-of-memory"]
    elif outcome is not None and outcome.reason is not None:
        status, why = _told(outcome)
    elif reason in _START_REASONS:
        said = terminated.get("message") or reason
        why = cause("cannot-start", f"the job's program cannot be started: {said}")
    elif code == 0:
        status = Status.SUCCEEDED
    elif code is not None:
        why = places.failed(code, "none")
    return End(status, code, started, finished, why, outcome)


def _told(outcome: Outcome) -> tuple[Status, Cause]:
    """Return what the program in the pod says of an end that was not the job's own."""
    reason = str(outcome.reason)
    if reason == "cancelled":
        said = "the job's pod was stopped from outside"
        return Status.LOST, cause("job-lost", said)
    if reason in places.CAUSES:
        known = places.CAUSES[reason]
        return Status.FAILED, replace(known, message=outcome.message or known.message)
    status = Status.LOST if reason == "outbox-lost" else Status.FAILED
    return status, cause(reason, outcome.message or reason)


def condition(status: Document, kind: str) -> Document:
    """Return a condition of a status; one that is not there is empty."""
    for found in status.get("conditions") or ():
        if found.get("type") == kind:
            return found
    return {}


def container(pod: Document) -> Document:
    """Return the status of a pod's job; empty before there is one."""
    for found in pod.get("status", {}).get("containerStatuses") or ():
        if found.get("name") == CONTAINER:
            return found
    return {}


def _initial(pod: Document) -> list[Document]:
    """Return the statuses of the containers that run before a pod's job."""
    return list(pod.get("status", {}).get("initContainerStatuses") or ())


def _failed_before(pod: Document) -> Document | None:
    """Return the end of what was to run before a pod's job and failed."""
    ends = [found.get("state", {}).get("terminated") or {} for found in _initial(pod)]
    return next((end for end in ends if end.get("exitCode")), None)


def is_running(pod: Document) -> bool:
    """Return whether a pod's program runs."""
    return "running" in container(pod).get("state", {})


def is_ready(pod: Document) -> bool:
    """Return whether a pod answers, and is not on its way out."""
    leaving = pod["metadata"].get("deletionTimestamp")
    return not leaving and condition(pod.get("status", {}), "Ready").get("status") == "True"


def started_at(pod: Document) -> datetime | None:
    """Return when a pod's program started."""
    return _time(container(pod).get("state", {}).get("running", {}).get("startedAt"))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
