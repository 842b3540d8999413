"""The launcher on a real cluster: its contract, what goes wrong there, and the least role.

``make test-cluster`` runs these, and fails when one of its variables is missing; elsewhere they are
skipped. Nothing is made outside the namespace, and nothing is left in it.
"""

import contextlib
import os
import secrets
import sys
import time
import urllib.request
from pathlib import Path

import contract
import pytest

from nbmlops.launchers.kubernetes import manifests, names, rbac
from nbmlops.launchers.kubernetes.cluster import Cluster
from nbmlops.launchers.kubernetes.launcher import KubernetesLauncher
from nbmlops.project import ClusterSettings
from nbmlops.records import Resources, Status

VARIABLES = (
    "KUBECONFIG",
    "NBMLOPS_TEST_NAMESPACE",
    "NBMLOPS_TEST_IMAGE",
    "NBMLOPS_TEST_EXCHANGE",
    "NBMLOPS_TEST_SECRET",
)
MISSING = [name for name in VARIABLES if not os.environ.get(name)]
# The interpreter of the project side, in every image.
PYTHON = "/opt/nbmlops/project/bin/python"
SMALL = Resources(cpu_cores=0.2, memory_mib=128)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("NBMLOPS_TEST_CLUSTER"),
        reason="no cluster: see make test-cluster",
    ),
]


@pytest.fixture(autouse=True)
def _asked_for():
    assert not MISSING, f"make test-cluster needs {', '.join(MISSING)}"


@pytest.fixture
def settings():
    exchange = os.environ["NBMLOPS_TEST_EXCHANGE"]
    return ClusterSettings(
        namespace=os.environ["NBMLOPS_TEST_NAMESPACE"],
        exchange=exchange,
        exchange_secret=os.environ["NBMLOPS_TEST_SECRET"] if "://" in exchange else None,
    )


@pytest.fixture
def place(tmp_path):
    return SmallPlace(tmp_path, python=PYTHON, image=os.environ["NBMLOPS_TEST_IMAGE"])


class SmallPlace(contract.Place):
    """Jobs that find a place on a small node."""

    def job(self, name, program, **changes):
        asked = changes.pop("resources", Resources())
        cores = min(asked.cpu_cores, 0.25)
        memory = min(asked.memory_mib, 256)
        small = Resources(cpu_cores=cores, memory_mib=memory, timeout_s=asked.timeout_s)
        return super().job(name, program, resources=small, **changes)


@contextlib.contextmanager
def cleaned(launcher):
    """Leave nothing of a launcher in the namespace."""
    try:
        yield launcher
    finally:
        admin = Cluster(launcher._settings, os.environ)
        for kind in ("Job", "Deployment"):
            for item in admin.listed(kind, names.selector(launcher._owner)):
                admin.delete(kind, item["metadata"]["name"])
        deadline = time.monotonic() + 60
        kinds = ("Pod", "Secret", "Service", "NetworkPolicy", "PodDisruptionBudget")
        while left := [
            (kind, item["metadata"]["name"])
            for kind in kinds
            for item in admin.listed(kind, names.selector(launcher._owner))
        ]:
            assert time.monotonic() < deadline, left
            time.sleep(0.3)


@pytest.fixture
def launcher(settings, tmp_path):
    made = KubernetesLauncher(settings, f"t{secrets.token_hex(4)}", tmp_path / "kept")
    with cleaned(made):
        yield made


@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda promise: promise.__name__)
def test_a_launcher_keeps_its_contract(launcher, place, promise):
    promise(launcher, place)


def test_secrets_reach_the_job_and_no_file(launcher, place, monkeypatch):
    contract.secrets_reach_the_job_and_no_file(launcher, place, monkeypatch)
