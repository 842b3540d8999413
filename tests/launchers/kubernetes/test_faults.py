"""A cluster that fails, a launcher that is killed, at any call: no run is lost or runs twice."""

import json
import os
import random
from collections import Counter
from unittest.mock import Mock

import contract
import pytest
import urllib3
from apiserver import ApiServer, Clock, Killed, answered

from nbmlops import parcels
from nbmlops.errors import LauncherUnavailable
from nbmlops.launchers.kubernetes import cluster, collecting, launcher
from nbmlops.launchers.kubernetes.cluster import ClusterRefused, Connection
from nbmlops.launchers.kubernetes.launcher import KubernetesLauncher
from nbmlops.project import ClusterSettings
from nbmlops.records import Status, replace

SEED = int(os.environ.get("NBMLOPS_TEST_SEED", "20260601"))
SCHEDULES = 1000
LOOKS = 200


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for module in (cluster, collecting, launcher):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return made


def started(server, tmp_path):
    """Return a launcher as a new process would have it."""
    made = KubernetesLauncher(ClusterSettings(), "owner", tmp_path / "kept", {})
    made.cluster._connection = Connection(server.configuration, server, "ns")
    return made


def patiently(server, tmp_path, act):
    """Do something with a launcher until it is done, with a new one after each death."""
    for _ in range(LOOKS):
        try:
            return act(started(server, tmp_path))
        except (Killed, LauncherUnavailable, ClusterRefused):
            server.clock.now += 1
    pytest.fail("it is never done")


def outbox_of(folder):
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text("{}")
    return parcels.pack(folder)


def schedule(seed, tmp_path, clock, **chances):
    """Run one job from its launch to its end; return its server, its end and what it left."""
    draw = random.Random(seed)
    server = ApiServer(draw, clock, outbox=outbox_of(tmp_path / "given"), **chances)
    place = contract.Place(tmp_path, image="image")
    job = place.job("run", "")
    handle = patiently(server, tmp_path, lambda made: made.launch(job))
    cancelled = draw.random() < 0.2
    if cancelled:
        patiently(server, tmp_path, lambda made: made.cancel(handle))
    for _ in range(LOOKS):
        seen = patiently(server, tmp_path, lambda made: made.poll([handle]))[handle]
        if seen.status.is_final:
            break
        if draw.random() < 0.1:
            assert patiently(server, tmp_path, lambda made: made.launch(job)) == handle
        clock.now += 2
    return server, seen, cancelled, handle, place.outbox("run")


@pytest.mark.slow
def test_a_thousand_schedules_lose_no_run_and_start_none_twice(tmp_path, clock):
    ends = Counter()
    for number in range(SCHEDULES):
        seed = SEED + number
        folder = tmp_path / str(number)
        folder.mkdir()
        chances = {"faults": 0.15, "kills": 0.05, "troubles": 0.02 if number % 3 == 0 else 0.0}
        server, seen, cancelled, handle, outbox = schedule(seed, folder, clock, **chances)
        told = f"seed {seed}: {seen}"
        assert seen.status.is_final, told
        assert server.pods_made <= 1, told
        if seen.status is Status.SUCCEEDED:
            assert (outbox / "result.json").read_text() == "{}", told
        if not server.disturbed and not cancelled:
            wanted = Status.FAILED if server.exit_code else Status.SUCCEEDED
            assert seen.status is wanted, told
            assert (outbox / "result.json").exists(), told
        if cancelled and not server.disturbed:
            assert seen.status is not Status.LOST, told
        ends[seen.status] += 1
        # What was told once is told for ever, whatever becomes of the cluster.
        server.objects.clear()
        assert started(server, folder).poll([handle])[handle] == seen, told
    assert min(ends[status] for status in Status if status.is_final) > SCHEDULES / 100, ends


def test_each_fault_alone_is_survived_at_each_call(tmp_path, clock):
    """Without chance: the n-th call fails before or after it is done, or its process is killed."""
    for number in range(12):
        for kind in ("before", "after", "kill", "kill after"):
            folder = tmp_path / f"{number}-{kind}"
            folder.mkdir()
            server = Nth(number, kind, clock, outbox_of(folder / "given"))
            place = contract.Place(folder, image="image")
            job = place.job("run", "")
            handle = patiently(server, folder, lambda made, job=job: made.launch(job))
            for _ in range(LOOKS):
                seen = patiently(server, folder, lambda made, h=handle: made.poll([h]))[handle]
                if seen.status.is_final:
                    break
                clock.now += 2
            assert seen.status is Status.SUCCEEDED, (number, kind, seen)
            assert server.pods_made == 1
            assert (place.outbox("run") / "result.json").exists()


class Nth(ApiServer):
    """Fails at one call only."""

    def __init__(self, number, kind, clock, outbox):
        super().__init__(random.Random(number), clock, outbox=outbox)
        self.exit_code = 0
        self.left, self.kind = number, kind

    def request(self, method, url, **more):
        self.left -= 1
        self.faults, self.kills = 0.0, 0.0
        if self.left != -1:
            return super().request(method, url, **more)
        if self.kind == "before":
            return self._failed()
        if self.kind == "kill":
            raise Killed
        answer = super().request(method, url, **more)
        if self.kind == "kill after":
            raise Killed
        if method == "GET":
            return answer
        raise urllib3.exceptions.ReadTimeoutError(None, url, "timed out after it was done")


def test_two_hundred_unfinished_runs_are_looked_at_by_one_listing(tmp_path, clock):
    server = ApiServer(random.Random(1), clock)
    server.go_on = lambda: None
    made = started(server, tmp_path)
    place = contract.Place(tmp_path, image="image")
    handles = [made.launch(place.job(f"run-{number}", "")) for number in range(200)]
    assert made.cluster.calls == 400
    for (kind, name), item in list(server.objects.items()):
        if kind == "Job":
            server._job_goes_on(name, item)
            pod = server.objects["Pod", f"{name}-x"]
            pod["status"] = {"phase": "Running"}
            server._state(pod, {"running": {"startedAt": "2026-01-02T03:04:05Z"}})
    seen = made.poll(handles)
    assert {status.status for status in seen.values()} == {Status.RUNNING}
    assert made.cluster.calls == 401


def test_a_batch_of_a_thousand_is_submitted_and_seen_by_five_calls(tmp_path, clock):
    server = ApiServer(random.Random(1), clock)
    server.go_on = lambda: None
    made = started(server, tmp_path)
    whole = made.launch(contract.Place(tmp_path, image="image").job("all", "", parallel=1000))
    parts = [replace(whole, index=index) for index in range(1000)]
    seen = made.poll([whole, *parts])
    assert {status.status for status in seen.values()} == {Status.PENDING}
    assert made.cluster.calls <= 5


def test_a_cluster_that_stays_away_is_told_soon_with_the_remedy(tmp_path, clock):
    server = ApiServer(random.Random(1), clock)
    refused = urllib3.exceptions.NewConnectionError(None, "refused")
    server.request = Mock(side_effect=refused)
    begun = clock.now
    with pytest.raises(LauncherUnavailable) as caught:
        started(server, tmp_path).check()
    assert caught.value.hint
    assert clock.now - begun < 10


def test_waiting_grows_and_keeps_to_its_deadline(tmp_path, clock):
    server = ApiServer(random.Random(1), clock)
    server.request = lambda *_, **__: answered(503, {"message": "later"})
    made = started(server, tmp_path)
    begun = clock.now
    with pytest.raises(ClusterRefused, match="later"):
        made.cluster.listed("Pod")
    assert 5 < clock.now - begun <= cluster.DEADLINE_S + 1
    assert made.cluster.calls < 30


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (403, 'jobs.batch is forbidden: User "x" cannot list resource', "launcher-unavailable"),
        (401, "Unauthorized", "launcher-unavailable"),
        (403, 'jobs "x" is forbidden: exceeded quota: q', "cluster-refused"),
        (422, "Job is invalid: spec.x", "cluster-refused"),
    ],
)
def test_what_the_api_server_answers_is_one_error_with_a_remedy(status, message, code):
    error = cluster.refusal(status, json.dumps({"message": message}).encode(), "a/jobs")
    assert error.code == code
    assert error.hint
