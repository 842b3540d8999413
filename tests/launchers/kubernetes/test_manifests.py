"""Manifests: valid for old and new clusters, restricted, safely named, without secret values."""

import copy
import json
import random
import re
import string

import kubernetes_validate
import pytest

from nbmlops import images
from nbmlops.errors import WrongUse
from nbmlops.launchers.kubernetes import manifests, names, restricted
from nbmlops.launchers.kubernetes.restricted import PodRefused
from nbmlops.project import ClusterSettings
from nbmlops.records import JobSpec, Resources, Scale

# The oldest minor version whose API has all that is used, and the newest that is known.
VERSIONS = ("1.31", "1.37")
SEED = 20260601
CARRIER = "127.0.0.1:5000/churn@sha256:" + "1" * 64
PATCH = {
    "priorityClassName": "low",
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "containers": [{"name": "job", "env": [{"name": "TZ", "value": "UTC"}]}],
}
SERVED = {"port": 8080, "ready_path": "/v2/health/ready"}


def a_job(**changes):
    asked = {
        "name": "train-0v5m3k2q9xyz",
        "command": ("python", "-m", "nbmlops.runner"),
        "inbox": "file:///in",
        "outbox": "file:///out",
        "image": "127.0.0.1:5000/churn@sha256:" + "0" * 64,
        **changes,
    }
    return JobSpec(**asked)


def generated(count):
    """Yield jobs with settings, drawn from all that they may say."""
    draw = random.Random(SEED)
    text = string.printable + "äß漢$(HOME)"
    for number in range(count):
        port = draw.choice([None, None, 8080, 5000])
        name = "".join(draw.choices("abc019-", k=draw.randint(0, 60))).strip("-") or "x"
        carrier = draw.choice([None, CARRIER]) if port else None
        words = ("run", "".join(draw.choices(text, k=9)))
        job = a_job(
            name=f"j{name}",
            command=draw.choice([words, ()]) if carrier else words,
            carrier=carrier,
            environment={f"V{n}": "".join(draw.choices(text, k=9)) for n in range(number % 3)},
            secrets=tuple(f"KEY_{n}" for n in range(draw.randint(0, 2))),
            resources=Resources(
                cpu_cores=draw.choice([0.001, 0.1, 1, 2.5, 64]),
                memory_mib=draw.choice([1, 100, 1024, 1536, 2**20]),
                gpus=draw.choice([0, 0, 1, 8]),
                timeout_s=draw.choice([None, 1, 10**6]),
            ),
            port=port,
            exposed=draw.random() < 0.5,
            ready_path=draw.choice([None, "/v2/health/ready"]),
            replicas=Scale(desired=draw.randint(0, 3)),
            parallel=draw.choice([None, 1, 1000]) if port is None else None,
            apart=draw.random() < 0.5,
            labels={
                "run": "".join(draw.choices(text, k=draw.randint(0, 80))),
                "kubernetes.io/x": "y",
            },
        )
        yield (
            job,
            ClusterSettings(
                exchange=draw.choice(["secret", "pvc:claim", "s3://bucket/folder"]),
                exchange_secret=draw.choice([None, "keys"]),
                service_account=draw.choice([None, "builder"]),
                image_pull_secrets=draw.choice([(), ("pull",)]),
                ingress_host=draw.choice([None, "models.example.org", "*.example.org"]),
                ingress_class=draw.choice([None, "nginx"]),
                gpu_resource=draw.choice(["nvidia.com/gpu", "amd.com/gpu"]),
                node_selector=draw.choice([{}, {"disk": "ssd"}]),
                max_replicas=draw.choice([1, 5]),
                pod_patch=draw.choice([{}, PATCH]),
            ),
            draw.choice(["churn", "churn-eu", "Ada's project", "x" * 70]),
        )


def pod_of(documents):
    return documents[0]["spec"]["template"]["spec"]


def test_a_thousand_manifests_are_restricted_and_named_safely():
    for job, settings, owner in generated(1000):
        for fits in (True, False):
            made = manifests.manifests(job, settings, owner, inbox_by_secret=fits)
            assert list(restricted.broken(pod_of(made))) == []
            for document in made:
                about = document["metadata"]
                assert re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", about["name"])
                for value in about["labels"].values():
                    assert re.fullmatch("([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value)
        assert made == manifests.manifests(job, settings, owner, inbox_by_secret=False)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_courier_is_valid_and_restricted(version):
    settings = ClusterSettings(exchange="pvc:claim", pod_patch=PATCH)
    made = manifests.courier(settings, "churn", "image", "c1")
    kubernetes_validate.validate(made, version, strict=True)
    assert list(restricted.broken(pod_of([made]))) == []
    assert pod_of([made])["containers"][0]["volumeMounts"][0]["subPath"] == "churn"


@pytest.mark.parametrize("version", VERSIONS)
def test_each_object_is_valid_for_old_and_new_clusters(version):
    kinds = set()
    for job, settings, owner in generated(25):
        for document in manifests.manifests(job, settings, owner):
            kubernetes_validate.validate(document, version, strict=True)
            kinds.add(document["kind"])
    assert kinds == {
        "Deployment", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy",
        "PodDisruptionBudget", "Secret", "Service",
    }  # fmt: skip


def test_a_run_starts_once_and_ends_by_itself():
    job, secret = manifests.manifests(
        a_job(resources=Resources(timeout_s=60)), ClusterSettings(), "churn"
    )
    assert (job["kind"], secret["kind"]) == ("Job", "Secret")
    assert job["metadata"]["name"] == "nbmlops-churn-train-0v5m3k2q9xyz"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["activeDeadlineSeconds"] == 60 + manifests.SLACK_S
    assert "data" not in secret
    assert "stringData" not in secret


def test_a_batch_of_a_thousand_is_one_object():
    made = manifests.manifests(a_job(parallel=1000), ClusterSettings(), "churn")
    assert len(made) == 2
    assert made[0]["spec"]["completions"] == 1000
    assert made[0]["spec"]["completionMode"] == "Indexed"


def test_a_worker_is_called_by_fronts_of_its_owner_alone_and_a_front_by_anybody():
    def policy(**changes):
        made = manifests.manifests(a_job(port=8080, **changes), ClusterSettings(), "churn")
        return next(item for item in made if item["kind"] == "NetworkPolicy")["spec"]["ingress"]

    assert policy() == [
        {
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "from": [{"podSelector": {"matchLabels": {names.OWNER: "churn", names.ROLE: "front"}}}],
        }
    ]
    assert "from" not in policy(exposed=True)[0]


def test_replicas_are_left_to_an_autoscaler_where_there_is_one():
    worker = a_job(port=8080)
    alone = manifests.manifests(worker, ClusterSettings(), "churn")
    assert alone[0]["spec"]["replicas"] == 1
    scaled = manifests.manifests(worker, ClusterSettings(max_replicas=4), "churn")
    assert "replicas" not in scaled[0]["spec"]
    assert scaled[-1]["spec"]["maxReplicas"] == 4
    front = manifests.manifests(
        a_job(port=8080, exposed=True), ClusterSettings(max_replicas=4), "churn"
    )
    assert front[0]["spec"]["replicas"] == 1


@pytest.mark.parametrize("exchange", ["secret", "pvc:claim", "s3://bucket/folder"])
def test_a_program_in_an_image_of_its_own_gets_its_inbox_and_nothing_else(exchange):
    settings = ClusterSettings(exchange=exchange, exchange_secret="keys")
    job = a_job(**SERVED, carrier=CARRIER, environment={"A": "$(B)"}, resources=Resources(gpus=1))
    pod = pod_of(manifests.manifests(job, settings, "churn"))
    (carrier,), (container,) = pod["initContainers"], pod["containers"]
    assert (carrier["name"], carrier["image"]) == ("inbox", CARRIER)
    assert carrier["command"][:2] == [images.TOOL_PYTHON, "-I"]
    assert carrier["command"][2:] == ["-m", "nbmlops.exchange", "lay"]
    assert "nvidia.com/gpu" not in carrier["resources"]["limits"]
    assert ("envFrom" in carrier) == ("://" in exchange)
    mounted = {mount["mountPath"] for mount in carrier["volumeMounts"]}
    ways = {"secret": {"/exchange"}, "pvc:claim": {"/exchange", "/nbmlops/claim"}}
    assert mounted == {"/nbmlops", *ways.get(exchange, ())}
    assert container["command"] == list(job.command)
    assert container["env"] == [{"name": "HOME", "value": "/tmp"}, {"name": "A", "value": "$$(B)"}]
    assert container["volumeMounts"] == [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "work", "mountPath": images.INBOX, "subPath": "inbox", "readOnly": True},
    ]
    assert "envFrom" not in container
    assert container["readinessProbe"]["httpGet"]["path"] == SERVED["ready_path"]


def test_an_image_s_own_entry_point_is_left_to_it():
    job = a_job(**SERVED, carrier=CARRIER, command=())
    (container,) = pod_of(manifests.manifests(job, ClusterSettings(), "churn"))["containers"]
    assert not {"command", "args"} & {*container}


def test_names_of_two_jobs_never_meet():
    met = {
        names.object_name(owner, job)
        for owner, job in [
            *[("a", "b-c"), ("a-b", "c"), ("A", "b-c"), ("a", "b.c"), ("a", "x" * 63)],
            *[("a", "x" * 62 + "y"), ("a_b", "c"), ("a b", "c"), ("", "a")],
        ]
    }
    assert len(met) == 9
    assert all(len(name) <= 52 for name in met)


def test_what_a_job_says_expands_nothing_in_the_cluster():
    job = a_job(command=("run", "$(HOME) $x"), environment={"A": "$(B)"})
    container = pod_of(manifests.manifests(job, ClusterSettings(), "churn"))["containers"][0]
    assert container["command"][-1] == "$$(HOME) $$x"
    assert {"name": "A", "value": "$$(B)"} in container["env"]


def test_no_value_of_a_secret_stands_in_a_manifest(monkeypatch):
    monkeypatch.setenv("API_KEY", "canary-5ecret-value")
    made = manifests.manifests(a_job(secrets=("API_KEY",)), ClusterSettings(), "churn")
    assert "canary" not in json.dumps(made)
    assert "env.API_KEY" in json.dumps(made)


def test_a_patch_merges_by_name_and_what_it_may_not_say_is_refused_by_field():
    made = pod_of(manifests.manifests(a_job(), ClusterSettings(pod_patch=PATCH), "churn"))
    assert {"name": "TZ", "value": "UTC"} in made["containers"][0]["env"]
    assert len(made["containers"][0]["env"]) > 1
    assert len(made["tolerations"]) == 3
    with pytest.raises(PodRefused) as caught:
        manifests.manifests(a_job(), ClusterSettings(pod_patch={"hostNetwork": True}), "churn")
    assert "hostNetwork" in caught.value.message


WHOLE = pod_of(manifests.manifests(a_job(port=8080, ready_path="/r"), ClusterSettings(), "churn"))
IN = "containers[job].securityContext"


def job_container(**changes):
    return {"containers": [{"name": "job", **changes}]}


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"automountServiceAccountToken": True}, "automountServiceAccountToken"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volumes[v].hostPath"),
        ({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}, "volumes[v].nfs"),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {}}]}}]},
            "volumes[v].projected.sources",
        ),
        ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
        ({"securityContext": {"runAsNonRoot": False}}, "securityContext.runAsNonRoot"),
        (
            {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
            "securityContext.seccompProfile.type",
        ),
        (
            {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
            "securityContext.appArmorProfile.type",
        ),
        (
            {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
            "securityContext.seLinuxOptions.type",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
            "securityContext.sysctls[kernel.msgmax]",
        ),
        (job_container(securityContext={"privileged": True}), f"{IN}.privileged"),
        (job_container(securityContext={"runAsUser": 0}), f"{IN}.runAsUser"),
        (job_container(securityContext={"procMount": "Unmasked"}), f"{IN}.procMount"),
        (
            job_container(securityContext={"allowPrivilegeEscalation": True}),
            f"{IN}.allowPrivilegeEscalation",
        ),
        (
            job_container(securityContext={"readOnlyRootFilesystem": False}),
            f"{IN}.readOnlyRootFilesystem",
        ),
        (
            job_container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
            f"{IN}.capabilities.add",
        ),
        (
            job_container(securityContext={"capabilities": {"drop": ["CHOWN"]}}),
            f"{IN}.capabilities.drop",
        ),
        (job_container(ports=[{"hostPort": 80}]), "containers[job].ports.hostPort"),
        (
            job_container(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 80}}),
            "containers[job].livenessProbe.httpGet.host",
        ),
        (
            {"initContainers": [{"name": "i", "image": "x"}]},
            "initContainers[i].securityContext.allowPrivilegeEscalation",
        ),
        ({"containers": "x"}, "pod_patch"),
        ({"securityContext": 3}, "pod_patch"),
    ],
)
def test_each_rule_is_held(patch, field):
    pod = manifests.merged(copy.deepcopy(WHOLE), patch)
    assert field in [name for name, _ in restricted.broken(pod)]


def test_a_job_without_an_image_is_refused_with_the_command_that_builds_one():
    with pytest.raises(WrongUse, match="image"):
        manifests.manifests(a_job(image=None), ClusterSettings(), "churn")
