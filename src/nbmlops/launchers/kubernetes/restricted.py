"""The rules of Pod Security *restricted*, and ours beyond them, on the specification of a pod.

They follow https://kubernetes.io/docs/concepts/security/pod-security-standards/. A patch in
``nbmlops.toml`` may add to a pod; what the standard forbids is refused here, before anything is
sent, with the field that is at fault. Beyond the standard: no token of the cluster in a pod, a
root file system that cannot be written, and limits on what each container may use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbmlops.errors import NbmlopsError

Document = dict[str, Any]

VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_SELINUX_TYPES = frozenset(
    {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)
_PROFILES = ("RuntimeDefault", "Localhost")
_LISTS = ("containers", "initContainers", "ephemeralContainers")


class PodRefused(NbmlopsError):
    """The specification of a pod asks for what a job may not have."""

    code = "pod-refused"


def check(pod: Document) -> None:
    """Refuse the specification of a pod that breaks a rule.

    Raises
    ------
    PodRefused
        With the field, for the first rule that is broken.
    """
    for field, why in broken(pod):
        raise PodRefused(
            f"a pod with `{field}` {why}",
            "Take it out of [kubernetes] pod_patch in nbmlops.toml.",
            field=field,
        )


def broken(pod: Document) -> Iterator[tuple[str, str]]:
    """Yield each field that breaks a rule, and why."""
    try:
        yield from _of_pod(pod)
        for name in _LISTS:
            for container in _tables(pod, name):
                where = f"{name}[{container.get('name', '?')}]"
                yield from _of_container(container, where, _table(pod, "securityContext"))
    except (TypeError, AttributeError, ValueError):
        yield "pod_patch", "has a value where a table or a list belongs"


def _of_pod(pod: Document) -> Iterator[tuple[str, str]]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field, "shares its node's own"
    if pod.get("hostUsers"):
        yield "hostUsers", "has its node's users"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken", "gets a token of the cluster"
    for volume in _tables(pod, "volumes"):
        yield from _of_volume(volume)
    context = _table(pod, "securityContext")
    for sysctl in _tables(context, "sysctls"):
        if sysctl.get("name") not in _SYSCTLS:
            yield f"securityContext.sysctls[{sysctl.get('name')}]", "changes its node"
    yield from _of_context(context, "securityContext")


def _of_volume(volume: Document) -> Iterator[tuple[str, str]]:
    where = f"volumes[{volume.get('name', '?')}]"
    for kind in volume:
        if kind != "name" and kind not in VOLUMES:
            yield f"{where}.{kind}", "reaches what is not a job's"
    for source in _tables(_table(volume, "projected"), "sources"):
        if "serviceAccountToken" in source or "podCertificate" in source:
            yield f"{where}.projected.sources", "gets a token of the cluster"


def _of_context(context: Document, where: str) -> Iterator[tuple[str, str]]:
    """Rules on what pods and containers both say."""
    if context.get("runAsUser") == 0:
        yield f"{where}.runAsUser", "runs as root"
    if context.get("runAsNonRoot") is False:
        yield f"{where}.runAsNonRoot", "may run as root"
    if _table(context, "windowsOptions").get("hostProcess"):
        yield f"{where}.windowsOptions.hostProcess", "runs on the node itself"
    selinux = _table(context, "seLinuxOptions")
    if (selinux.get("type") or "") not in _SELINUX_TYPES:
        yield f"{where}.seLinuxOptions.type", "leaves its confinement"
    for field in ("user", "role"):
        if selinux.get(field):
            yield f"{where}.seLinuxOptions.{field}", "leaves its confinement"
    for profile in ("seccompProfile", "appArmorProfile"):
        kind = _table(context, profile).get("type")
        if kind is not None and kind not in _PROFILES:
            yield f"{where}.{profile}.type", "leaves its confinement"


def _of_container(container: Document, where: str, of_pod: Document) -> Iterator[tuple[str, str]]:
    context = _table(container, "securityContext")
    own = f"{where}.securityContext"
    yield from _of_context(context, own)
    if context.get("privileged"):
        yield f"{own}.privileged", "may do all that its node may"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{own}.allowPrivilegeEscalation", "may gain rights"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{own}.readOnlyRootFilesystem", "can change its own programs"
    if (context.get("procMount") or "Default") != "Default":
        yield f"{own}.procMount", "sees what its node hides"
    if not (context.get("runAsNonRoot") or of_pod.get("runAsNonRoot")):
        yield f"{own}.runAsNonRoot", "may run as root"
    if not (context.get("seccompProfile") or of_pod.get("seccompProfile")):
        yield f"{own}.seccompProfile", "may make any call of the system"
    yield from _of_capabilities(_table(context, "capabilities"), own)
    yield from _of_network(container, where)
    limits = _table(_table(container, "resources"), "limits")
    if not {"cpu", "memory"} <= {*limits}:
        yield f"{where}.resources.limits", "has no limits of cpu and memory"


def _of_capabilities(capabilities: Document, where: str) -> Iterator[tuple[str, str]]:
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{where}.capabilities.drop", "keeps capabilities"
    for added in capabilities.get("add") or ():
        if added != "NET_BIND_SERVICE":
            yield f"{where}.capabilities.add", f"gets the capability {added}"


def _of_network(container: Document, where: str) -> Iterator[tuple[str, str]]:
    for port in _tables(container, "ports"):
        if port.get("hostPort"):
            yield f"{where}.ports.hostPort", "takes a port of its node"
    hooks = _table(container, "lifecycle")
    handlers = [
        *((field, _table(container, field)) for field in _PROBES),
        *((f"lifecycle.{field}", _table(hooks, field)) for field in ("postStart", "preStop")),
    ]
    for field, handler in handlers:
        for kind in ("httpGet", "tcpSocket"):
            if _table(handler, kind).get("host"):
                yield f"{where}.{field}.{kind}.host", "lets its node call other hosts"


_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def _table(of: Document, key: str) -> Document:
    found = of.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise TypeError(key)
    return found


def _tables(of: Document, key: str) -> list[Document]:
    found = of.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise TypeError(key)
    return found
