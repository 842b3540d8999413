"""The objects of a job in a cluster, as documents; pure, so that they can be shown and compared.

A run is a Job, a batch an indexed Job, a job with a port a Deployment with a Service, a
NetworkPolicy and a PodDisruptionBudget. Beside it stands one Secret with the job's inbox, marker
and secret values; :func:`manifests` names its keys, and only the launcher fills them in.
Quantities are written as the API server writes them, so that what stands equals what was sent.

A program whose image has no nbmlops in it runs as that image's own, and an init container of the
tool's image lays the inbox before it starts: what the exchange needs never meets the program.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import msgspec

from nbmlops import images, parcels
from nbmlops.errors import WrongUse
from nbmlops.launchers.kubernetes import names, restricted
from nbmlops.project import ClusterSettings
from nbmlops.records import JobSpec, Resources, replace

Document = dict[str, Any]

PORT = 8080
CONTAINER = "job"
CARRIER = "inbox"
MARKER_KEY = "marker"
ATTEMPT = "a1"
# A Job that nobody has looked at is kept for a week; one whose end is known is removed at once.
TTL_S = 7 * 24 * 3600
# The program in the pod keeps the time. This is for a pod that cannot: it covers pulling the image
# and shipping the outbox.
SLACK_S = 900
GRACE_S = 60
# Pods leave a node that is gone sooner than after the usual five minutes.
_NODE_GONE_S = 30
# Pods of a batch that stand at once; the others follow.
AT_ONCE = 100
_WORK = str(PurePosixPath(images.INBOX).parent)
_MOUNTED = "/exchange"
_CLAIM = f"{_WORK}/claim"
_DRAIN_S = 2.0
# No job can be called so.
COURIER = "nbmlops.courier"
_COURIER_TTL_S = 30
_COURIER_LIFE_S = 3600


def manifests(
    job: JobSpec, settings: ClusterSettings, owner: str, *, inbox_by_secret: bool = True
) -> tuple[Document, ...]:
    """Return the objects of a job, the one that owns the others first.

    ``inbox_by_secret`` is whether the inbox fits into a Secret, where it may come by a claim.

    Raises
    ------
    PodRefused
        When the patch of the settings asks for what a job may not have.
    WrongUse
        When the job has no image.
    """
    by_secret = _inbox_by_secret(settings, fits=inbox_by_secret)
    pod = _pod(job, settings, owner, by_secret=by_secret)
    restricted.check(pod)
    template = {"metadata": _metadata(job, owner, named=False), "spec": pod}
    secret = [_secret(job, owner)] if needs_secret(job, by_secret=by_secret) else []
    if job.port is None:
        return (_run(job, owner, template), *secret)
    return (
        _deployment(job, settings, owner, template),
        *secret,
        _service(job, owner),
        _network_policy(job, owner),
        _disruption_budget(job, owner),
        *([_autoscaler(job, settings, owner)] if scales(job, settings) else []),
        *([_ingress(job, settings, owner)] if job.exposed and settings.ingress_host else []),
    )


def _inbox_by_secret(settings: ClusterSettings, *, fits: bool) -> bool:
    return settings.url is None and (fits or settings.claim is None)


def needs_secret(job: JobSpec, *, by_secret: bool) -> bool:
    """Return whether a job has anything that belongs into a Secret."""
    return by_secret or bool(job.secrets)


def role(job: JobSpec) -> str:
    """Return what a job is: ``run``, ``front`` or ``worker``."""
    if job.port is None:
        return "run"
    return "front" if job.exposed else "worker"


def scales(job: JobSpec, settings: ClusterSettings) -> bool:
    """Return whether the cluster decides how many replicas there are; of a front there is one."""
    return settings.max_replicas > 1 and role(job) == "worker"


def secret_key(name: str) -> str:
    """Return the key of a secret variable in the job's Secret."""
    return f"env.{name}"


def merged(document: Any, patch: Any) -> Any:
    """Return a document with a patch laid over it.

    Tables merge. In lists of tables those with the same ``name`` merge and others are added. All
    else is replaced.

    >>> merged({"a": {"b": 1}, "c": [{"name": "x", "y": 1}]}, {"c": [{"name": "x", "z": 2}]})
    {'a': {'b': 1}, 'c': [{'name': 'x', 'y': 1, 'z': 2}]}
    """
    if isinstance(document, dict) and isinstance(patch, dict):
        kept = {key: merged(value, patch[key]) for key, value in document.items() if key in patch}
        return {**document, **patch, **kept}
    if _are_tables(document) and _are_tables(patch):
        by_name = {item["name"]: item for item in patch if "name" in item}
        known = {item.get("name") for item in document}
        same = [merged(item, by_name.get(item.get("name"), {})) for item in document]
        return [*same, *(item for item in patch if item.get("name") not in known - {None})]
    return patch


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _metadata(job: JobSpec, owner: str, *, named: bool = True) -> Document:
    more, annotations = names.own_labels(job.labels)
    made: Document = {"labels": {**more, **names.labels(owner, job.name, role(job))}}
    if named:
        made["name"] = names.object_name(owner, job.name)
    if annotations:
        made["annotations"] = annotations
    return made


def _secret(job: JobSpec, owner: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(job, owner),
        "type": "Opaque",
    }


def _run(job: JobSpec, owner: str, template: Document) -> Document:
    limit_s = job.resources.timeout_s
    several = job.parallel is not None
    spec: Document = {
        "backoffLimitPerIndex" if several else "backoffLimit": 0,
        # What a node has ended is not started again by the cluster: it is another attempt, and
        # whoever asked for the job counts those.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailIndex" if several else "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                }
            ]
        },
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": TTL_S,
        "template": template,
    }
    if job.parallel is not None:
        spec["completionMode"] = "Indexed"
        spec["completions"] = job.parallel
        spec["parallelism"] = min(job.parallel, job.at_once or AT_ONCE)
    if limit_s is not None:
        spec["activeDeadlineSeconds"] = limit_s + SLACK_S
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(job, owner),
        "spec": spec,
    }


def _deployment(
    job: JobSpec, settings: ClusterSettings, owner: str, template: Document
) -> Document:
    spec: Document = {
        "selector": {"matchLabels": _selected(job, owner)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "revisionHistoryLimit": 1,
        "template": template,
    }
    if not scales(job, settings):
        spec["replicas"] = job.replicas.desired
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(job, owner),
        "spec": spec,
    }


def _selected(job: JobSpec, owner: str) -> Document:
    return {names.OWNER: names.owner_label(owner), names.JOB: job.name}


def _service(job: JobSpec, owner: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, owner),
        "spec": {
            "type": "ClusterIP",
            "selector": _selected(job, owner),
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": PORT}],
        },
    }


def _network_policy(job: JobSpec, owner: str) -> Document:
    """Return who may call: anybody a front, which asks for a token; a worker its owner's fronts."""
    ingress: Document = {"ports": [{"port": PORT, "protocol": "TCP"}]}
    if role(job) == "worker":
        fronts = {names.OWNER: names.owner_label(owner), names.ROLE: "front"}
        ingress["from"] = [{"podSelector": {"matchLabels": fronts}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(job, owner),
        "spec": {
            "podSelector": {"matchLabels": _selected(job, owner)},
            "policyTypes": ["Ingress"],
            "ingress": [ingress],
        },
    }


def _disruption_budget(job: JobSpec, owner: str) -> Document:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(job, owner),
        "spec": {
            # With one replica a stricter budget would keep its node from ever being drained.
            "maxUnavailable": 1,
            "selector": {"matchLabels": _selected(job, owner)},
        },
    }


def _autoscaler(job: JobSpec, settings: ClusterSettings, owner: str) -> Document:
    fewest = max(1, job.replicas.desired)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(job, owner),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": names.object_name(owner, job.name),
            },
            "minReplicas": fewest,
            "maxReplicas": max(fewest, settings.max_replicas),
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 70},
                    },
                }
            ],
        },
    }


def _ingress(job: JobSpec, settings: ClusterSettings, owner: str) -> Document:
    host = str(settings.ingress_host)
    if host.startswith("*."):
        host = f"{job.name}{host[1:]}"
    backend = {"name": names.object_name(owner, job.name), "port": {"number": PORT}}
    spec: Document = {
        "rules": [
            {
                "host": host,
                "http": {
                    "paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": backend}}]
                },
            }
        ]
    }
    if settings.ingress_class:
        spec["ingressClassName"] = settings.ingress_class
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _metadata(job, owner),
        "spec": spec,
    }


def _pod(job: JobSpec, settings: ClusterSettings, owner: str, *, by_secret: bool) -> Document:
    pod: Document = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The first process of a namespace ignores a signal that it does not expect yet: a pod that
        # is told to end while it starts would go on until it is killed.
        "shareProcessNamespace": True,
        "restartPolicy": "Never" if job.port is None else "Always",
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": images.USER,
            "runAsGroup": images.USER,
            "fsGroup": images.USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{taint}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": _NODE_GONE_S,
            }
            for taint in ("not-ready", "unreachable")
        ],
        "containers": [_container(job, settings, owner, by_secret=by_secret)],
        "volumes": _volumes(job, settings, owner, by_secret=by_secret),
    }
    if job.carrier:
        pod["initContainers"] = [_carrier(job, settings, owner, by_secret=by_secret)]
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.node_selector:
        pod["nodeSelector"] = dict(settings.node_selector)
    return merged(pod, settings.pod_patch)


def courier(settings: ClusterSettings, owner: str, image: str, number: str) -> Document:
    """Return the Job that hands out what lies on the owner's folder of the claim.

    Raises
    ------
    PodRefused
        When the patch of the settings asks for what a pod may not have.
    """
    made = {"labels": names.labels(owner, COURIER, "courier")}
    asked = JobSpec(
        name=COURIER,
        command=(),
        inbox="",
        outbox="",
        image=image,
        resources=Resources(cpu_cores=0.25, memory_mib=128),
    )
    pod = _pod(asked, settings, owner, by_secret=False)
    for container in pod["containers"]:
        if container["name"] == CONTAINER:
            container.update(_courier_container(owner))
            container.pop("env", None)
    restricted.check(pod)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": names.object_name(owner, f"{COURIER}.{number}"), **made},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": _COURIER_LIFE_S,
            "ttlSecondsAfterFinished": _COURIER_TTL_S,
            "template": {"metadata": made, "spec": pod},
        },
    }


def _courier_container(owner: str) -> Document:
    run = [images.TOOL_PYTHON, "-I"]
    # It answers on its loopback alone, where no probe of the node reaches it.
    look = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 2)"
    return {
        "command": [*run, "-m", "nbmlops.exchange", "courier", _CLAIM, str(PORT)],
        "volumeMounts": [
            {"name": "claim", "mountPath": _CLAIM, "subPath": names.owner_label(owner)}
        ],
        "readinessProbe": {
            "exec": {"command": [*run, "-c", look]},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
        },
    }


def _container(job: JobSpec, settings: ClusterSettings, owner: str, *, by_secret: bool) -> Document:
    if not job.image:
        raise WrongUse(
            f"the job {job.name} has no image, and a cluster runs nothing else",
            "Build one: `nbmlops build --push`.",
        )
    container: Document = {
        "name": CONTAINER,
        "image": job.image,
        "resources": _resources(job, settings),
        "securityContext": _nothing_allowed(),
        **(
            _alone(job, owner)
            if job.carrier
            else {
                "command": _exchanging("--", *job.command),
                "env": _environment(job, settings, owner, by_secret=by_secret),
                "volumeMounts": _mounts(job, settings, owner, by_secret=by_secret),
                **_credentials(settings),
            }
        ),
    }
    if job.port is not None:
        container["ports"] = [{"containerPort": PORT, "protocol": "TCP"}]
        container["readinessProbe"] = _probe(job)
    return container


def _alone(job: JobSpec, owner: str) -> Document:
    """Return what of a container is its own where nothing of ours stands before its program."""
    made: Document = {
        "env": [*_told({"HOME": "/tmp", **job.environment}), *_hidden(job, owner)],  # noqa: S108
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # a mount
            {
                "name": "work",
                "mountPath": images.INBOX,
                "subPath": PurePosixPath(images.INBOX).name,
                "readOnly": True,
            },
        ],
        # Others learn meanwhile to call elsewhere; no program of ours is there to wait.
        "lifecycle": {"preStop": {"sleep": {"seconds": int(_DRAIN_S)}}},
    }
    if job.command:
        made["command"] = [_literal(word) for word in job.command]
    return made


def _carrier(job: JobSpec, settings: ClusterSettings, owner: str, *, by_secret: bool) -> Document:
    """Return the init container that lays the inbox of a program that is not ours."""
    plan = msgspec.json.encode(_plan(job, settings, owner, by_secret=by_secret)).decode()
    mounts = _mounts(job, settings, owner, by_secret=by_secret)
    asked = replace(job, resources=replace(job.resources, gpus=0))
    return {
        "name": CARRIER,
        "image": job.carrier,
        "command": _exchanging("lay"),
        # What a library leaves lying is not in the program's way.
        "env": _told({"HOME": _WORK, "TMPDIR": _WORK, parcels.PLAN_VARIABLE: plan}),
        "resources": _resources(asked, settings),
        "securityContext": _nothing_allowed(),
        "volumeMounts": [
            mount
            for mount in mounts
            if mount["mountPath"] not in ("/tmp", images.OUTBOX)  # noqa: S108
        ],
        **_credentials(settings),
    }


def _exchanging(*words: str) -> list[str]:
    command = (images.TOOL_PYTHON, "-I", "-m", "nbmlops.exchange", *words)
    return [_literal(word) for word in command]


def _nothing_allowed() -> Document:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _credentials(settings: ClusterSettings) -> Document:
    """Return what gives a container the keys of the object store, where there is one."""
    if not (settings.url and settings.exchange_secret):
        return {}
    reference = {"name": settings.exchange_secret}
    return {"envFrom": [{"prefix": parcels.CREDENTIALS_PREFIX, "secretRef": reference}]}


def _probe(job: JobSpec) -> Document:
    how: Document = (
        {
            "httpGet": {
                "path": job.ready_path,
                "port": PORT,
                "scheme": "HTTP",
                # A front answers to names that it knows only.
                "httpHeaders": [{"name": "Host", "value": f"localhost:{PORT}"}],
            }
        }
        if job.ready_path
        else {"tcpSocket": {"port": PORT}}
    )
    return {**how, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2}


def _environment(
    job: JobSpec, settings: ClusterSettings, owner: str, *, by_secret: bool
) -> list[Document]:
    name = names.object_name(owner, job.name)
    plan = msgspec.json.encode(_plan(job, settings, owner, by_secret=by_secret)).decode()
    plain = {"HOME": "/tmp", **job.environment, parcels.PLAN_VARIABLE: plan}  # noqa: S108  # a mount
    told = _told(plain)
    if needs_secret(job, by_secret=by_secret) and settings.url is None and settings.claim is None:
        told.append(_by_secret(parcels.MARKER_VARIABLE, name, MARKER_KEY))
    return [*told, *_hidden(job, owner)]


def _told(plain: dict[str, str]) -> list[Document]:
    return [{"name": key, "value": _literal(value)} for key, value in plain.items()]


def _hidden(job: JobSpec, owner: str) -> list[Document]:
    name = names.object_name(owner, job.name)
    return [
        _by_secret(variable, name, secret_key(variable), optional=True)
        for variable in job.secrets
        if variable not in {"HOME", parcels.PLAN_VARIABLE, *job.environment}
    ]


def _by_secret(variable: str, name: str, key: str, *, optional: bool = False) -> Document:
    reference: Document = {"name": name, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _literal(text: str) -> str:
    """Return text in which the cluster expands nothing."""
    return text.replace("$", "$$")


def _plan(job: JobSpec, settings: ClusterSettings, owner: str, *, by_secret: bool) -> parcels.Plan:
    place = place_of(job.name, settings, owner)
    return parcels.Plan(
        way=parcels.ways_of(settings.exchange),
        work=_WORK,
        attempt=ATTEMPT,
        inbox=f"{_MOUNTED}/{parcels.INBOX_FILE}" if by_secret else None,
        place=_CLAIM if settings.claim else place,
        port=None if job.port is None else PORT,
        timeout_s=job.resources.timeout_s if job.port is None else None,
        drain_s=0.0 if job.port is None else _DRAIN_S,
        apart=job.apart and place is not None,
    )


def place_of(job: str, settings: ClusterSettings, owner: str) -> str | None:
    """Return where a job's parcels are: a URL, or a folder of the claim; else ``None``."""
    folder = f"{names.owner_label(owner)}/{job}"
    if settings.url:
        return f"{settings.url.rstrip('/')}/{folder}"
    return folder if settings.claim else None


def _volumes(
    job: JobSpec, settings: ClusterSettings, owner: str, *, by_secret: bool
) -> list[Document]:
    volumes: list[Document] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "work", "emptyDir": {}},
    ]
    if by_secret:
        secret = {
            "secretName": names.object_name(owner, job.name),
            "items": [{"key": parcels.INBOX_FILE, "path": parcels.INBOX_FILE}],
            "defaultMode": 0o444,
        }
        volumes.append({"name": "inbox", "secret": secret})
    if settings.claim:
        claim = {"claimName": settings.claim}
        volumes.append({"name": "claim", "persistentVolumeClaim": claim})
    return volumes


def _mounts(
    job: JobSpec, settings: ClusterSettings, owner: str, *, by_secret: bool
) -> list[Document]:
    mounts: list[Document] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # a mount
        {"name": "work", "mountPath": _WORK},
    ]
    if by_secret:
        mounts.append({"name": "inbox", "mountPath": _MOUNTED, "readOnly": True})
    if settings.claim:
        # A job sees its own folder of the claim, and no other's.
        folder = place_of(job.name, settings, owner)
        mounts.append({"name": "claim", "mountPath": _CLAIM, "subPath": folder})
        if job.port is not None:  # which writes there itself, so that nothing goes with its pod
            files = f"{folder}/{ATTEMPT}/files"
            mounts.append({"name": "claim", "mountPath": images.OUTBOX, "subPath": files})
    return mounts


def _resources(job: JobSpec, settings: ClusterSettings) -> Document:
    asked = job.resources
    limits = {"cpu": cpu(asked.cpu_cores), "memory": memory(asked.memory_mib)}
    if asked.gpus:
        limits[settings.gpu_resource] = str(asked.gpus)
    # Services wait most of the time: a node holds more of them than could compute at once.
    request = asked.cpu_cores if job.port is None else asked.cpu_cores / 4
    return {"requests": {**limits, "cpu": cpu(request)}, "limits": limits}


def cpu(cores: float) -> str:
    """Return a number of cores as the API server writes it.

    >>> cpu(0.25), cpu(2.0)
    ('250m', '2')
    """
    thousandths = max(1, round(cores * 1000))
    whole, rest = divmod(thousandths, 1000)
    return f"{thousandths}m" if rest else str(whole)


def memory(mib: int) -> str:
    """Return an amount of memory as the API server writes it.

    >>> memory(100), memory(4096), memory(1536)
    ('100Mi', '4Gi', '1536Mi')
    """
    amount, unit = max(1, mib), 0
    units = ("Mi", "Gi", "Ti", "Pi")
    while amount % 1024 == 0 and unit < len(units) - 1:
        amount, unit = amount // 1024, unit + 1
    return f"{amount}{units[unit]}"
