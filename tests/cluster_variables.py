"""What `make test-cluster` is told of a cluster."""

import os

import pytest

VARIABLES = (
    "KUBECONFIG",
    "NBMLOPS_TEST_NAMESPACE",
    "NBMLOPS_TEST_IMAGE",
    "NBMLOPS_TEST_EXCHANGE",
    "NBMLOPS_TEST_SECRET",
)
MISSING = [name for name in VARIABLES if not os.environ.get(name)]
MARKS = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("NBMLOPS_TEST_CLUSTER"),
        reason="no cluster: see make test-cluster",
    ),
]


def require():
    """Fail, and never skip, where `make test-cluster` was not told everything."""
    assert not MISSING, f"make test-cluster needs {', '.join(MISSING)}"
