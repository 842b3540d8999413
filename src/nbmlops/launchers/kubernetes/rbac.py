"""The least role that a person needs for what the launcher calls, and nothing else; pure."""

from __future__ import annotations

from typing import Any

from nbmlops.launchers.kubernetes import names

Document = dict[str, Any]
NAME = "nbmlops"


def role(namespace: str) -> Document:
    """Return the Role, to be applied by who administers the namespace.

    Secrets are written and never read: what a Secret holds is nobody's to see here.
    """
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {names.MANAGED_BY: names.MANAGER},
        },
        "rules": [
            _rule("batch", ["jobs"], "list", "create", "patch", "delete"),
            _rule("apps", ["deployments"], "list", "create", "patch", "delete"),
            _rule("", ["services"], "list", "create", "patch"),
            _rule("", ["secrets"], "create", "patch"),
            _rule("", ["pods", "events"], "list"),
            _rule("", ["pods/log"], "get"),
            # Reading is what older clusters ask for to forward a port, creating what newer do.
            _rule("", ["pods/portforward"], "get", "create"),
            _rule("networking.k8s.io", ["networkpolicies", "ingresses"], "list", "create", "patch"),
            _rule("policy", ["poddisruptionbudgets"], "list", "create", "patch"),
            _rule("autoscaling", ["horizontalpodautoscalers"], "list", "create", "patch"),
        ],
    }


def binding(namespace: str, subject: Document) -> Document:
    """Return what gives the role to a user, a group or a service account."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {names.MANAGED_BY: names.MANAGER},
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [subject],
    }


def _rule(group: str, resources: list[str], *verbs: str) -> Document:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
