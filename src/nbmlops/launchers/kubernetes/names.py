"""How the objects of a job are called in a cluster, and what marks them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

MANAGER = "nbmlops"
MANAGED_BY = "app.kubernetes.io/managed-by"
OWNER = "org.nbmlops.owner"
JOB = "org.nbmlops.job"
ROLE = "org.nbmlops.role"

# A Job's pods are hosts, named by the Job, a hyphen, and an index or five characters.
_LIMIT = 52
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_PREFIX = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
_KEY = re.compile(rf"(?:{_PREFIX}/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?")
_RESERVED = frozenset({MANAGED_BY, OWNER, JOB, ROLE})


def object_name(owner: str, job: str) -> str:
    """Return the name of all objects of a job; two jobs never share one.

    >>> object_name("churn", "train-0v5m3k2q9xyz")
    'nbmlops-churn-train-0v5m3k2q9xyz'
    """
    told = re.sub(r"[^a-z0-9-]+", "-", f"nbmlops-{owner}-{job}".lower()).strip("-")
    digest = hashlib.sha256(f"{owner}\0{job}".encode()).hexdigest()[:10]
    # With a hyphen in the owner's name, the same text could be another owner's job.
    if told == f"nbmlops-{owner}-{job}" and "-" not in owner and len(told) <= _LIMIT:
        return told
    return f"{told[: _LIMIT - 11].rstrip('-')}-{digest}"


def owner_label(owner: str) -> str:
    """Return an owner as the value of a label."""
    if owner and _VALUE.fullmatch(owner):
        return owner
    digest = hashlib.sha256(owner.encode()).hexdigest()[:10]
    return f"{re.sub(r'[^A-Za-z0-9-]+', '-', owner)[:50].strip('-')}-{digest}".lstrip("-")


def labels(owner: str, job: str, role: str) -> dict[str, str]:
    """Return what marks all objects of a job."""
    return {MANAGED_BY: MANAGER, OWNER: owner_label(owner), JOB: job, ROLE: role}


def selector(owner: str, job: str | None = None) -> str:
    """Return the query for the objects of an owner, or of one job."""
    of_owner = f"{MANAGED_BY}={MANAGER},{OWNER}={owner_label(owner)}"
    return of_owner if job is None else f"{of_owner},{JOB}={job}"


def own_labels(given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a job says of itself as labels and, where it cannot be one, as annotations.

    >>> own_labels({"run": "r1", "why": "to see, whether"})
    ({'run': 'r1'}, {'why': 'to see, whether'})
    """
    said = {name: value for name, value in given.items() if _is_key(name)}
    fit = {
        name: value
        for name, value in said.items()
        if name not in _RESERVED and _VALUE.fullmatch(value)
    }
    rest = {name: value[:4096] for name, value in said.items() if name not in {*fit, *_RESERVED}}
    return fit, rest


def _is_key(name: str) -> bool:
    prefix, slash, _ = name.rpartition("/")
    own = not re.search(r"(^|\.)k(ubernetes|8s)\.io$", prefix)  # what the cluster keeps to itself
    return own and len(prefix) <= 253 and bool(_KEY.fullmatch(name)) and (not slash or bool(prefix))
