"""What the objects of a job say: each fault has one code and one remedy."""

import pytest

from nbmlops import parcels
from nbmlops.launchers.kubernetes import names, standing, troubles
from nbmlops.launchers.kubernetes.keeping import Asked, Ending
from nbmlops.parcels import Outcome
from nbmlops.records import JobSpec, Status

NAME = "nbmlops-churn-r1"
RUN = JobSpec(name="r1", command=("x",), inbox="/in", outbox="/out", image="i")
SERVICE = JobSpec(name="r1", command=("x",), inbox="/in", outbox="/out", image="i", port=8080)
SAID = "2026-01-02T03:04:05Z"


def asked(spec=RUN):
    return Asked(spec=spec, number=1, marker="m", asked_s=0.0, launched=True)


def pod(*, state=None, last=None, before=(), restart="Never", leaving=False, **status):
    about = {"name": "p", "labels": {names.JOB: "r1"}, "creationTimestamp": SAID}
    if leaving:
        about["deletionTimestamp"] = SAID
    statuses = [{"name": "job", "state": state or {}, "lastState": last or {}}]
    return {
        "metadata": about,
        "spec": {"restartPolicy": restart, "nodeName": "n1"},
        "status": {
            "phase": "Pending",
            "conditions": [],
            "initContainerStatuses": list(before),
            "containerStatuses": statuses if state or last else [],
            **status,
        },
    }


def waiting(reason, message="said"):
    return {"waiting": {"reason": reason, "message": message}}


def carrier(*, state, last=None):
    """Return the status of what lays an inbox before a program that is not ours."""
    return {"name": "inbox", "state": state, "lastState": last or {}}


def terminated(code, reason="Error", message=None):
    said = {"message": message} if message else {}
    ended = {"exitCode": code, "reason": reason, "startedAt": SAID, "finishedAt": SAID, **said}
    return {"terminated": ended}


def condition(kind, status="True", **more):
    return {"type": kind, "status": status, **more}


def outcome(**said):
    return parcels.message(Outcome(**{"exit_code": 1, **said})).decode()


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (pod(state=waiting("ErrImagePull")), "image-pull"),
        (pod(state=waiting("ImagePullBackOff")), "image-pull"),
        (pod(state=waiting("InvalidImageName")), "image-pull"),
        (pod(state=waiting("CreateContainerConfigError")), "pod-misconfigured"),
        (pod(state=waiting("CreateContainerError")), "cannot-start"),
        (pod(state=waiting("RunContainerError")), "cannot-start"),
        (
            pod(conditions=[condition("PodScheduled", "False", message="0/3 nodes")]),
            "unschedulable",
        ),
        (
            pod(
                conditions=[
                    condition(
                        "PodScheduled", "False", message='persistentvolumeclaim "x" not found'
                    )
                ]
            ),
            "pod-misconfigured",
        ),
        (pod(state=waiting("CrashLoopBackOff"), last=terminated(3)), "job-failed"),
        (
            pod(state=waiting("CrashLoopBackOff"), last=terminated(137, "OOMKilled")),
            "out-of-memory",
        ),
        (
            pod(
                state=waiting("CrashLoopBackOff"),
                last=terminated(127, message=outcome(exit_code=127, reason="cannot-start")),
            ),
            "cannot-start",
        ),
        (
            pod(
                state=waiting("PodInitializing"),
                before=[carrier(state=waiting("ImagePullBackOff"))],
            ),
            "image-pull",
        ),
        (
            pod(
                state=waiting("PodInitializing"),
                before=[
                    carrier(
                        state=waiting("CrashLoopBackOff"),
                        last=terminated(1, message=outcome(reason="inbox-missing")),
                    )
                ],
            ),
            "inbox-missing",
        ),
        (
            pod(
                state=waiting("ImagePullBackOff"),
                before=[carrier(state=terminated(0, "Completed"))],
            ),
            "image-pull",
        ),
    ],
)
def test_what_keeps_a_pod_from_starting_has_one_code_and_a_remedy(seen, code):
    trouble = troubles.of_pod(seen)
    assert trouble.cause.code == code
    assert trouble.cause.hint


def test_a_pod_that_only_starts_has_no_trouble():
    assert troubles.of_pod(pod(state=waiting("ContainerCreating"))) is None
    assert troubles.of_pod(pod(conditions=[condition("PodScheduled")])) is None
    assert troubles.of_pod(pod()) is None
    laying = [carrier(state={"running": {"startedAt": SAID}})]
    assert troubles.of_pod(pod(state=waiting("PodInitializing"), before=laying)) is None


@pytest.mark.parametrize(
    ("seen", "status", "code"),
    [
        (pod(state=terminated(0, "Completed")), Status.SUCCEEDED, None),
        (pod(state=terminated(3)), Status.FAILED, "job-failed"),
        (pod(state=terminated(137)), Status.FAILED, "job-killed"),
        (pod(state=terminated(137, "OOMKilled")), Status.FAILED, "out-of-memory"),
        (
            pod(state=terminated(137, message=outcome(exit_code=-9, reason="out-of-memory"))),
            Status.FAILED,
            "out-of-memory",
        ),
        (pod(state=terminated(128, "StartError", "exec: no")), Status.FAILED, "cannot-start"),
        (
            pod(state=terminated(143, message=outcome(exit_code=-15, reason="time-limit"))),
            Status.FAILED,
            "time-limit",
        ),
        (
            pod(state=terminated(1, message=outcome(reason="outbox-too-large"))),
            Status.FAILED,
            "outbox-too-large",
        ),
        (
            pod(state=terminated(1, message=outcome(reason="outbox-lost"))),
            Status.LOST,
            "outbox-lost",
        ),
        (
            pod(state=terminated(1, message=outcome(reason="inbox-missing"))),
            Status.FAILED,
            "inbox-missing",
        ),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), Status.LOST, "evicted"),
        (
            pod(
                state=terminated(143, message=outcome(exit_code=-15, reason="cancelled")),
                conditions=[condition("DisruptionTarget", reason="PreemptionByScheduler")],
            ),
            Status.LOST,
            "evicted",
        ),
        (
            pod(
                state={"running": {}},
                conditions=[condition("DisruptionTarget", reason="DeletionByTaintManager")],
            ),
            Status.LOST,
            "node-lost",
        ),
        (pod(state={"running": {}}, reason="NodeLost"), Status.LOST, "node-lost"),
        (
            pod(state=terminated(143, message=outcome(exit_code=-15, reason="cancelled"))),
            Status.LOST,
            "job-lost",
        ),
        (pod(phase="Failed"), Status.LOST, "job-lost"),
        (
            pod(phase="Failed", before=[carrier(state=terminated(137, "OOMKilled"))]),
            Status.FAILED,
            "out-of-memory",
        ),
        (pod(state=terminated(143), leaving=True), Status.LOST, "job-lost"),
        (pod(state=terminated(137, "OOMKilled"), leaving=True), Status.FAILED, "out-of-memory"),
    ],
)
def test_how_a_pod_ended_has_one_status_and_code(seen, status, code):
    assert troubles.has_ended(seen)
    end = troubles.end_of(seen, cancelled=False)
    assert end.status is status
    assert (end.cause.code if end.cause else None) == code
    assert troubles.end_of(seen, cancelled=True).status is Status.CANCELLED


def test_a_job_that_never_began_has_no_exit_code_and_no_log_to_wait_for():
    before = [carrier(state=terminated(1, message=outcome(reason="inbox-missing")))]
    seen = pod(phase="Failed", state=waiting("PodInitializing"), before=before)
    end = troubles.end_of(seen, cancelled=False)
    assert (end.status, end.exit_code, end.cause.code) == (Status.FAILED, None, "inbox-missing")


def test_a_program_that_ended_well_while_its_node_was_drained_has_succeeded():
    seen = pod(
        state=terminated(0, "Completed", outcome(exit_code=0)),
        conditions=[condition("DisruptionTarget", reason="EvictionByEvictionAPI")],
    )
    assert troubles.end_of(seen, cancelled=False).status is Status.SUCCEEDED


def event(message, name=NAME):
    return {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Job", "name": name},
        "reason": "FailedCreate",
        "message": message,
        "lastTimestamp": SAID,
    }


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('pods "x" is forbidden: exceeded quota: q, requested: pods=1', "quota"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "admission-refused"),
        ('admission webhook "w" denied the request: no', "admission-refused"),
    ],
)
def test_a_job_that_gets_no_pod_says_why(message, code):
    job = {"metadata": {"name": NAME}, "status": {}}
    scene = standing.Scene(
        pods={}, complete=frozenset({"r1"}), jobs={"r1": job}, events=(event(message),)
    )
    seen = standing.of(asked(), None, scene, NAME)
    assert (seen.status.status, seen.trouble.cause.code) == (Status.PENDING, code)
    other = standing.Scene(
        pods={}, complete=frozenset({"r1"}), jobs={"r1": job}, events=(event(message, "other"),)
    )
    assert standing.of(asked(), None, other, NAME).trouble is None
    failure = condition("ReplicaFailure", reason="FailedCreate", message=message)
    deployment = {"metadata": {}, "spec": {"replicas": 1}, "status": {"conditions": [failure]}}
    scene = standing.Scene(pods={}, complete=frozenset({"r1"}), deployments={"r1": deployment})
    assert standing.of(asked(SERVICE), None, scene, NAME).trouble.cause.code == code


@pytest.mark.parametrize(
    ("conditions", "status", "code"),
    [
        ([condition("Failed", reason="DeadlineExceeded")], Status.FAILED, "time-limit"),
        ([condition("Failed", reason="PodFailurePolicy")], Status.LOST, "evicted"),
        ([condition("Failed", reason="BackoffLimitExceeded")], Status.LOST, "job-lost"),
        ([condition("Complete")], Status.LOST, "job-lost"),
    ],
)
def test_a_job_that_has_ended_without_a_pod_says_how(conditions, status, code):
    job = {"metadata": {"name": NAME}, "status": {"conditions": conditions}}
    scene = standing.Scene(pods={}, complete=frozenset({"r1"}), jobs={"r1": job})
    seen = standing.of(asked(), None, scene, NAME)
    assert seen.over
    assert (seen.status.status, seen.status.cause.code) == (status, code)


def test_a_job_that_is_gone_is_lost_or_was_cancelled():
    scene = standing.Scene(pods={}, complete=frozenset({"r1"}))
    lost = standing.of(asked(), None, scene, NAME)
    assert (lost.over, lost.status.cause.code) == (True, "job-lost")
    ending = Ending(kind="cancel", asked_s=0.0)
    assert standing.of(asked(), ending, scene, NAME).status.status is Status.CANCELLED
    young = standing.Scene(pods={})
    assert standing.of(asked(), None, young, NAME).status.status is Status.PENDING


def test_a_job_that_is_to_end_runs_until_its_pod_is_gone():
    ending = Ending(kind="cancel", asked_s=0.0)
    leaving = pod(state={"running": {"startedAt": SAID}}, leaving=True)
    seen = standing.of(asked(), ending, standing.Scene(pods={"r1": [leaving]}), NAME)
    assert (seen.status.status, seen.over, seen.again) == (Status.RUNNING, False, False)
    untold = pod(state={"running": {"startedAt": SAID}})
    seen = standing.of(asked(), ending, standing.Scene(pods={"r1": [untold]}), NAME)
    assert seen.again


def test_a_service_is_ready_when_a_pod_is_and_one_in_trouble_beside_it_is_told():
    good = pod(state={"running": {"startedAt": SAID}}, conditions=[condition("Ready")])
    bad = pod(state=waiting("ImagePullBackOff"))
    seen = standing.of(asked(SERVICE), None, standing.Scene(pods={"r1": [good, bad]}), NAME)
    assert (seen.status.status, seen.status.ready, seen.trouble) == (Status.RUNNING, 1, None)
    assert seen.status.cause.code == "image-pull"
    seen = standing.of(asked(SERVICE), None, standing.Scene(pods={"r1": [bad]}), NAME)
    assert (seen.status.status, seen.trouble.cause.code) == (Status.PENDING, "image-pull")


def test_a_service_that_was_scaled_to_nothing_is_stopped():
    deployment = {"metadata": {}, "spec": {"replicas": 0}, "status": {}}
    scene = standing.Scene(pods={}, complete=frozenset({"r1"}), deployments={"r1": deployment})
    assert standing.of(asked(SERVICE), None, scene, NAME).status.status is Status.CANCELLED


def test_of_what_stands_only_what_we_asked_for_is_told():
    item = {
        "metadata": {
            "name": "x",
            "uid": "u",
            "labels": {"ours": "1", "theirs": "2"},
            "managedFields": [
                {
                    "manager": "nbmlops",
                    "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:ours": {}}},
                        "f:spec": {
                            "f:ports": {'k:{"port":8080}': {".": {}, "f:port": {}}},
                            "f:words": {'v:"a"': {}},
                        },
                    },
                },
                {"manager": "kubectl", "fieldsV1": {"f:spec": {"f:type": {}}}},
            ],
        },
        "spec": {
            "type": "LoadBalancer",
            "ports": [{"port": 8080, "nodePort": 3}, {"port": 1}],
            "words": ["a", "b"],
        },
        "status": {"x": 1},
    }
    assert standing.owned(item, "Service") == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x", "labels": {"ours": "1"}},
        "spec": {"ports": [{"port": 8080}], "words": ["a"]},
    }
