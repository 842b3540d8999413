"""The API server: a few calls on documents, each of which may be made twice.

The official client reads the kubeconfig, signs in and keeps the connections; what travels is plain
JSON, so that a listing of a thousand pods is decoded at once. Every call is idempotent (apply,
merge, delete, list), so that one whose answer was lost is made again, with longer and longer
pauses, until a deadline.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import msgspec

from nbmlops.errors import LauncherUnavailable, MissingExtra, NbmlopsError
from nbmlops.launchers.kubernetes import names
from nbmlops.project import ClusterSettings

Document = dict[str, Any]

PATHS = {
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Event": "api/v1/namespaces/{}/events",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "Ingress": "apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "Job": "apis/batch/v1/namespaces/{}/jobs",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Pod": "api/v1/namespaces/{}/pods",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Secret": "api/v1/namespaces/{}/secrets",
    "Service": "api/v1/namespaces/{}/services",
}
DEADLINE_S = 30.0
# A log that cannot be read now is asked for by the next look.
_LOG_DEADLINE_S = 5.0
_CONNECT_S = 5.0
_READ_S = 15.0
# A log that is silent for so long is asked for again: its connection may have died without a word.
_SILENCE_S = 60.0
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_CHUNK_BYTES = 2**16
_OWN_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class ClusterRefused(NbmlopsError):
    """The API server understood, and refused."""

    code = "cluster-refused"
    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, status: int = 0, **context: Any) -> None:
        super().__init__(message, hint, status=status, **context)
        self.status = status


@dataclass(frozen=True, slots=True)
class Connection:
    """What the official client has made of the kubeconfig."""

    configuration: Any
    pool: Any
    namespace: str

    def headers(self) -> dict[str, str]:
        """Return what signs in; a token that expires is renewed."""
        found = self.configuration.auth_settings().get("BearerToken")
        token = found.get("value") if found else None
        return {"authorization": token} if token else {}

    def url(self, path: str, query: Mapping[str, Any]) -> str:
        """Return the address of a path."""
        asked = f"?{urlencode(query)}" if query else ""
        return f"{self.configuration.host.rstrip('/')}/{path}{asked}"


class Cluster:
    """A namespace of a cluster, connected when it is first asked."""

    def __init__(self, settings: ClusterSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._connection: Connection | None = None
        self.calls = 0

    @property
    def connection(self) -> Connection:
        """The connection, made now if it was not.

        Raises
        ------
        MissingExtra
            Without the official client.
        LauncherUnavailable
            Without a kubeconfig that names a cluster.
        """
        if self._connection is None:
            self._connection = _connected(self._settings, self._environ)
        return self._connection

    @property
    def namespace(self) -> str:
        """Where everything is made."""
        return self.connection.namespace

    def apply(self, document: Document) -> Document:
        """Make an object what the document says, and return it as it stands.

        Raises
        ------
        ClusterRefused
            When it may not be so.
        """
        path = f"{self._path(document['kind'])}/{document['metadata']['name']}"
        query = {"fieldManager": names.MANAGER, "force": "true"}
        return self._ask("PATCH", path, query, document, "application/apply-patch+yaml")

    def merge(self, kind: str, name: str, patch: Document) -> Document:
        """Change fields of an object, and return it as it stands."""
        path = f"{self._path(kind)}/{name}"
        query = {"fieldManager": names.MANAGER}
        return self._ask("PATCH", path, query, patch, "application/merge-patch+json")

    def listed(self, kind: str, selector: str = "", fields: str = "") -> list[Document]:
        """Return all objects of a kind that the selectors name, in one call."""
        query = {"labelSelector": selector, "fieldSelector": fields}
        asked = {name: value for name, value in query.items() if value}
        return self._ask("GET", self._path(kind), asked)["items"]

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and what it owns; one that is not there is no error."""
        query = {"propagationPolicy": "Background"}
        try:
            self._ask("DELETE", f"{self._path(kind)}/{name}", query)
        except ClusterRefused as error:
            if error.status != 404:
                raise

    def log(self, pod: str, container: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of a pod's log as they come.

        Raises
        ------
        ClusterRefused
            When there is none, or no more.
        """
        query = {"container": container, **({"follow": "true"} if follow else {})}
        path = f"{self._path('Pod')}/{pod}/log"
        response = self._send(
            "GET", path, query, None, "", stream=True, silence=follow, deadline_s=_LOG_DEADLINE_S
        )
        rest = b""
        try:
            for chunk in _chunks(response):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
        finally:
            response.release_conn()
            response.close()
        if rest:
            yield rest.decode(errors="replace")

    def reachable(self, patience_s: float = _CONNECT_S) -> None:
        """Raise when the namespace cannot be read.

        Raises
        ------
        LauncherUnavailable
            With the remedy.
        """
        self._ask("GET", self._path("Job"), {"limit": 1}, deadline_s=patience_s)

    def _path(self, kind: str) -> str:
        return PATHS[kind].format(self.namespace)

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Document | None = None,
        kind: str = "",
        deadline_s: float = DEADLINE_S,
    ) -> Document:
        response = self._send(method, path, query, body, kind, deadline_s=deadline_s)
        return cast("Document", msgspec.json.decode(response.data))

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Document | None,
        kind: str,
        *,
        stream: bool = False,
        silence: bool = False,
        deadline_s: float = DEADLINE_S,
    ) -> Any:
        import urllib3

        connection = self.connection
        deadline = time.monotonic() + deadline_s
        read_s = _SILENCE_S if silence else min(_READ_S, max(1.0, deadline_s))
        headers = {"accept": "application/json", **connection.headers()}
        pause_s = 0.1
        while True:
            self.calls += 1
            waited_s = 0.0
            try:
                response = connection.pool.request(
                    method,
                    connection.url(path, query),
                    body=None if body is None else msgspec.json.encode(body),
                    headers={**headers, **({"content-type": kind} if kind else {})},
                    timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                    retries=False,
                    preload_content=not stream,
                )
            except urllib3.exceptions.HTTPError as error:
                why: NbmlopsError = unreachable(connection, str(error))
            else:
                if response.status < 400:
                    return response
                why = refusal(response.status, response.data, path)
                if response.status not in _AGAIN or _is_final(why):
                    raise why
                waited_s = _number(response.headers.get("retry-after"))
            pause = max(pause_s * random.uniform(0.5, 1.0), min(waited_s, 10.0))  # noqa: S311
            if time.monotonic() + pause > deadline:
                raise why
            time.sleep(pause)
            pause_s = min(5.0, 2 * pause_s)


def _chunks(response: Any) -> Iterator[bytes]:
    import urllib3

    try:
        yield from response.stream(_CHUNK_BYTES, decode_content=True)
    except urllib3.exceptions.HTTPError:
        return  # cut off; whoever follows looks whether there is more


def _number(text: str | None) -> float:
    return float(text) if text and text.isdecimal() else 0.0


def _is_final(why: NbmlopsError) -> bool:
    # An object that is quite another one is a conflict for ever.
    return why.context.get("reason") == "AlreadyExists"


def refusal(status: int, body: bytes, path: str) -> NbmlopsError:
    """Return the error for what the API server answered."""
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        told = {}
    said = str(told.get("message") or body[:300].decode(errors="replace"))
    reason = str(told.get("reason") or "")
    if status == 401 or (status == 403 and " cannot " in said):
        return LauncherUnavailable(
            f"the cluster does not let you: {said[:500]}",
            "Ask for the rights that `nbmlops plan --rbac` prints, or sign in again.",
            status=status,
        )
    hint = "See that the cluster's rules allow it."
    if "exceeded quota" in said:
        hint = "Wait for other jobs to end, or ask for a larger quota."
    return ClusterRefused(
        f"the cluster refused {path.rpartition('/')[2]}: {said[:800]}",
        hint,
        status=status,
        reason=reason,
    )


def unreachable(connection: Connection, why: str) -> LauncherUnavailable:
    """Return the error for a cluster that does not answer."""
    return LauncherUnavailable(
        f"the cluster at {connection.configuration.host} does not answer: {why[:300]}",
        "See that it is up and that the context is the right one: `kubectl get nodes`.",
    )


def _connected(settings: ClusterSettings, environ: Mapping[str, str]) -> Connection:
    try:
        from kubernetes import client, config
    except ImportError:
        raise MissingExtra(
            "jobs in a cluster need the Kubernetes client",
            "Install it: `pip install 'nbmlops[kubernetes]'`.",
        ) from None
    file = environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        if "KUBERNETES_SERVICE_HOST" in environ and not environ.get("KUBECONFIG"):
            configuration = client.Configuration()
            config.load_incluster_config(configuration)
            return _pooled(configuration, settings.namespace or _own_namespace())
        configuration = client.Configuration()
        config.load_kube_config(
            config_file=file, context=settings.context, client_configuration=configuration
        )
        _, active = config.list_kube_config_contexts(config_file=file)
    except (config.ConfigException, OSError) as error:
        raise LauncherUnavailable(
            f"there is no cluster to be reached: {error}",
            "Name one in a kubeconfig (`kubectl config get-contexts`) and in nbmlops.toml:"
            " [kubernetes] context.",
        ) from error
    own = _context_namespace(config, file, settings.context, active)
    return _pooled(configuration, settings.namespace or own or "default")


def _context_namespace(config: Any, file: str, name: str | None, active: Any) -> str | None:
    contexts, _ = config.list_kube_config_contexts(config_file=file)
    chosen = next((item for item in contexts if item["name"] == name), None) if name else active
    return chosen["context"].get("namespace") if chosen else None


def _pooled(configuration: Any, namespace: str) -> Connection:
    from kubernetes.client.rest import RESTClientObject

    configuration.retries = False
    return Connection(configuration, RESTClientObject(configuration).pool_manager, namespace)


def _own_namespace() -> str:
    if not os.path.exists(_OWN_NAMESPACE):  # noqa: PTH110  # a mount of the cluster
        return "default"
    with open(_OWN_NAMESPACE, encoding="utf-8") as file:  # noqa: PTH123
        return file.read().strip()
