"""Our own OpenAPI against a real front and worker: schemathesis makes up what is sent.

``NBMLOPS_FUZZ_CASES`` is how many cases each operation gets (300 if it is not set; 10,000 before a
release), ``--seed`` the seed, which is printed. Beside the drawn cases there are those of the
boundaries of every schema, and the examples as they stand.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys

import pytest

from nbmlops import calllog
from serving import ask, route, status_of
from test_front import World

pytest.importorskip("schemathesis")

pytestmark = pytest.mark.slow  # real processes and servers

CASES = int(os.environ.get("NBMLOPS_FUZZ_CASES", "300"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
# A body of more records than are taken is refused as too large, of trickling bytes as too slow.
SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "413", "415", "422"]
"""
CALLS = ("/predict", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")


@pytest.mark.timeout(max(600, CASES))
@pytest.mark.parametrize("kind", ["array", "gaps"])
def test_no_request_that_can_be_made_from_the_description_gets_an_undescribed_answer(
    tmp_path, kind, request
):
    seed = request.config.getoption("--seed") or random.SystemRandom().getrandbits(31)
    print(f"--seed={seed}")
    world = World(tmp_path)
    try:
        front = world.front([route(kind, world.worker(kind).address)])
        before = counted(front)
        (tmp_path / "schemathesis.toml").write_text(SETTINGS)
        url = front.address.replace("tcp:", "http://")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(tmp_path / "schemathesis.toml")),
                *("run", f"{url}/openapi.json"),
                *("--max-examples", str(CASES), "--seed", str(seed)),
                *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)),
                *("--no-color", "--suppress-health-check", "all"),
            ],
            cwd=tmp_path,
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")},
            capture_output=True,
            text=True,
            check=False,
        )
        said = re.sub(r"(.{2000}).*", r"\1...", done.stdout + done.stderr)
        assert done.returncode == 0, said
        after = counted(front)
        # It was really called, each operation as often as was asked for, and some of it was good.
        answered = 0
        for path in CALLS:
            more = {s: n - before.get((path, s), 0) for (p, s), n in after.items() if p == path}
            assert sum(more.values()) >= CASES, (path, more)
            assert more.get("200", 0) > 0, (path, more)
            answered += more["200"]
        assert not [status for _, status in after if status[0] == "5"], after
        assert status_of(front.address, "/health/ready") == 200
        assert "Traceback" not in front.log.read_text()
        found = calllog.verify(front.inbox / "calls", "cancer-w1")
        assert (found.problems, found.records, found.drops) == ((), answered, 0)
    finally:
        world.close()


def counted(front):
    """Return the requests by path and status, as the front counts them."""
    text = ask(front.address, "GET", "/metrics")[2].decode()
    found = re.findall(r'nbmlops_requests_total\{path="([^"]+)",status="(\d+)"\} (\d+)', text)
    return {(path, status): int(count) for path, status, count in found}
