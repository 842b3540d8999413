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


KINDS = ("array", "gaps")


class Run:
    """One run of schemathesis against a front of its own."""

    def __init__(self, folder, world, kind, seed):
        self.front = world.front([route(kind, world.worker(kind).address)])
        self.before = counted(self.front)
        self.said = folder / "said.txt"
        (folder / "schemathesis.toml").write_text(SETTINGS)
        url = self.front.address.replace("tcp:", "http://")
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "schemathesis.cli"),
                    *("--config-file", str(folder / "schemathesis.toml")),
                    *("run", f"{url}/openapi.json"),
                    *("--max-examples", str(CASES), "--seed", str(seed)),
                    *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)),
                    *("--no-color", "--suppress-health-check", "all"),
                ],
                cwd=folder,
                env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")},
                stdout=said,
                stderr=said,
            )


@pytest.fixture(scope="module")
def running(tmp_path_factory, request):
    """Start all runs side by side: making cases up takes longer than answering them."""
    seed = request.config.getoption("--seed") or random.SystemRandom().getrandbits(31)
    print(f"--seed={seed}")
    worlds, found = [], {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(f"fuzz-{kind}")
        worlds.append(World(folder))
        found[kind] = Run(folder, worlds[-1], kind, seed)
    yield found
    for run in found.values():
        if run.process.poll() is None:
            run.process.kill()
        run.process.wait()
    for world in worlds:
        world.close()


@pytest.mark.timeout(max(600, CASES))
@pytest.mark.parametrize("kind", KINDS)
def test_no_request_that_can_be_made_from_the_description_gets_an_undescribed_answer(running, kind):
    run = running[kind]
    code = run.process.wait()
    said = re.sub(r"(.{2000}).*", r"\1...", run.said.read_text())
    assert code == 0, said
    front = run.front
    after = counted(front)
    # It was really called, each operation as often as was asked for, and some of it was good.
    answered = 0
    for path in CALLS:
        more = {s: n - run.before.get((path, s), 0) for (p, s), n in after.items() if p == path}
        assert sum(more.values()) >= CASES, (path, more)
        assert more.get("200", 0) > 0, (path, more)
        answered += more["200"]
    assert not [status for _, status in after if status[0] == "5"], after
    assert status_of(front.address, "/health/ready") == 200
    assert "Traceback" not in front.log.read_text()
    found = calllog.verify(front.inbox / "calls", "cancer-w1")
    assert (found.problems, found.records, found.drops) == ((), answered, 0)


def counted(front):
    """Return the requests by path and status, as the front counts them."""
    text = ask(front.address, "GET", "/metrics")[2].decode()
    found = re.findall(r'nbmlops_requests_total\{path="([^"]+)",status="(\d+)"\} (\d+)', text)
    return {(path, status): int(count) for path, status, count in found}
