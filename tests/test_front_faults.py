"""Faults of a served model, with real processes. Which test shows what is survived:

===  ====================================================  ======================================
F13  never ready, dead right after ready, one bit flipped  test_deployments_faults
F14  call log full, and full from the start                test_a_full_disk_under_the_call_log_...
F14  call log slow                                         test_a_disk_whose_fsync_hangs_...
F14  a disk that is frozen                                 test_a_frozen_disk_under_...
F14  killed                                                test_front.test_killing_the_front_...
F15  overload                                              test_beyond_the_queue_...
F15  slow-loris: 1,000 sockets that trickle                test_a_thousand_sockets_...
F15  10,000 idle connections                               test_ten_thousand_idle_...
F15  a cap on connections                                  test_a_cap_on_connections_...
F15  large bodies that go silent                           test_large_bodies_that_go_silent_...
F15  callers that leave                                    test_callers_that_leave_...
F15  a worker that is stopped                              test_a_stopped_worker_costs_...
F15  a predict that hangs                                  test_a_model_that_hangs_...
F15  SIGTERM under load                                    test_drains_under_load_...
F15  re-pointing under load, both ways                     test_re_pointing_to_and_fro_...
F16  malformed /predict                                    test_front.MALFORMED
F16  malformed V2, JSON and binary                         test_v2_bodies_that_lie_...
F16  100 MB, gzip bombs, deep nesting: memory              test_memory_is_bounded_...
===  ====================================================  ======================================

``NBMLOPS_TEST_DRAINS`` and ``NBMLOPS_TEST_REPOINTINGS`` are how often those two are done: a short
share if they are not set, 100 and 50 for the full number. The seed is printed (``--seed``).
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import psutil
import pytest

from nbmlops import calllog
from nbmlops.front import upstream
from serving import (
    SOURCE,
    Connection,
    Process,
    ask,
    free_address,
    front_inbox,
    model,
    route,
    socket_path,
    status_of,
    until,
    worker_inbox,
)
from test_front import (
    LIVE,
    READY,
    Callers,
    World,
    counts,
    document,
    predict,
    put,
    raw_socket,
    table_of,
)

pytestmark = pytest.mark.slow  # real processes and servers

GOOD = {"city": "Bern", "age": 41, "member": True}
INFER = "/v2/models/cancer/infer"
DRAINS = int(os.environ.get("NBMLOPS_TEST_DRAINS", "10"))
REPOINTINGS = int(os.environ.get("NBMLOPS_TEST_REPOINTINGS", "5"))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One mixed model behind one front, for tests that only call it."""
    made = World(tmp_path_factory.mktemp("faulty"))
    worker = made.worker("mixed")
    yield made.front([route("mixed", worker.address)])
    made.close()


@pytest.fixture
def seed(request):
    found = request.config.getoption("--seed")
    found = random.SystemRandom().getrandbits(31) if found is None else found
    print(f"--seed={found}")
    return found


def many_files(wanted):
    """Let this process have so many open files, or skip."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this machine allows {hard} open files, not {wanted}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def resident_mib(process):
    return psutil.Process(process.process.pid).memory_info().rss / 2**20


# --- F14: the call log ----------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_under_the_call_log_costs_records_and_no_prediction(world, tiny_disk):
    worker = world.worker("mixed")
    front = world.front([route("mixed", worker.address)], calls=str(tiny_disk / "calls"))
    calls = tiny_disk / "calls"
    filler = tiny_disk / "filler"
    assert [predict(front.address, GOOD)[0] for _ in range(20)] == [200] * 20
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    answers = [document(predict(front.address, [GOOD] * 20)) for _ in range(30)]
    assert [len(answer["predictions"]) for answer in answers] == [20] * 30
    drops = counts(front.address)['nbmlops_call_log_drops_total{deployment="cancer-w1"}']
    assert drops > 0
    until(lambda: "the call log cannot be written" in front.log.read_text())
    assert status_of(front.address, READY) == 200
    filler.unlink()
    made = document(predict(front.address, GOOD))["call_id"]
    assert calllog.find(calls, made).records == (GOOD,)
    front.signal(signal.SIGKILL)
    front.ended()
    found = calllog.verify(calls, "cancer-w1")
    assert found.problems == ()
    assert (found.answered, found.drops) == (51, drops), "the count survives the process"
    assert found.records + found.drops == 51
    assert len(list(calllog.window(calls, "cancer-w1", None, None))) == found.records


def test_a_call_log_that_cannot_be_begun_is_no_reason_not_to_serve(world, tiny_disk):
    with contextlib.suppress(OSError), (tiny_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    worker = world.worker("mixed")
    front = world.front([route("mixed", worker.address)], calls=str(tiny_disk / "calls"))
    assert [predict(front.address, GOOD)[0] for _ in range(5)] == [200] * 5
    assert counts(front.address)['nbmlops_call_log_drops_total{deployment="cancer-w1"}'] == 5
    (tiny_disk / "filler").unlink()
    assert predict(front.address, GOOD)[0] == 200
    found = calllog.verify(tiny_disk / "calls", "cancer-w1")
    assert (found.problems, found.answered, found.drops) == ((), 6, 5)


HANGING = """
import os, sys, time
usual = os.fsync
def fsync(descriptor):
    time.sleep(3)
    usual(descriptor)
os.fsync = fsync
from nbmlops.front.__main__ import main
sys.exit(main(os.environ))
"""


def test_a_disk_whose_fsync_hangs_is_no_predictions_affair(world):
    worker = world.worker("mixed")
    inbox = front_inbox(world.folder / "hanging", [route("mixed", worker.address)])
    (inbox / "hanging.py").write_text(HANGING)
    front = Process("hanging", inbox, free_address(), PYTHONPATH=f"{SOURCE}:{inbox}")
    world.running.append(front)
    front.ready(READY)
    connection = Connection(front.address)
    body = json.dumps(GOOD)
    took = []
    until_s = time.monotonic() + 4
    while time.monotonic() < until_s:  # longer than one fsync hangs
        began = time.monotonic()
        assert connection.ask("POST", "/predict", body)[0] == 200
        took.append(time.monotonic() - began)
    assert len(took) > 20
    assert max(took) < 2.5, "no call waited for the disk"
    front.signal(signal.SIGKILL)
    front.ended()
    found = calllog.verify(front.inbox / "calls", "cancer-w1")
    assert (found.problems, found.records, found.drops) == ((), len(took), 0)


@pytest.fixture
def frozen(tmp_path):
    """A file system of its own, and a function that freezes it, or lets it go on."""
    place, image = tmp_path / "freezing", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    for command in (
        ["mkfs.ext4", "-q", "-F", str(image)],
        ["mount", "-o", "loop", str(image), str(place)],
    ):
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")

    def freeze(how):
        subprocess.run(["fsfreeze", f"--{how}", str(place)], check=True)

    yield place, freeze
    subprocess.run(["fsfreeze", "--unfreeze", str(place)], capture_output=True, check=False)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_frozen_disk_under_the_call_log_is_no_predictions_affair(world, frozen):
    place, freeze = frozen
    calls = place / "calls"
    routes = [route("mixed", world.worker("mixed").address)]
    front = world.front(routes, calls=str(calls))
    connection = Connection(front.address)
    body = json.dumps(GOOD)

    def answered(seconds):
        took = []
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            began = time.monotonic()
            assert connection.ask("POST", "/predict", body)[0] == 200
            assert status_of(front.address, LIVE) == 200
            took.append(time.monotonic() - began)
        return took

    before = answered(0.5)
    freeze("freeze")
    try:
        while_frozen = answered(3.0)
        assert max(while_frozen) < 2.0, "one call finds out, and waits for its patience"
        assert len(while_frozen) > 50
        dropped = counts(front.address)['nbmlops_call_log_drops_total{deployment="cancer-w1"}']
        assert dropped == len(while_frozen)
    finally:
        freeze("unfreeze")
    name = 'nbmlops_call_log_drops_total{deployment="cancer-w1"}'
    until(lambda: counts(front.address)[name] < dropped)  # what hung was written after all
    after = answered(0.5)
    front.signal(signal.SIGTERM)
    assert front.ended() == 0
    found = calllog.verify(calls, "cancer-w1")
    assert found.problems == ()
    assert (found.records, found.drops) == (len(before) + len(while_frozen) + len(after), 0)


# --- F15: overload --------------------------------------------------------------------------------


def test_beyond_the_queue_calls_are_told_when_to_come_again_and_watching_goes_on(world):
    _, contract, *_ = model("logistic")
    worker = world.worker()
    front = world.front([route("logistic", worker.address)], deadline_s=20.0)
    worker.signal(signal.SIGSTOP)
    answers = []

    def call():
        answers.append(predict(front.address, contract.example))

    threads = [threading.Thread(target=call) for _ in range(upstream.IN_FLIGHT_LIMIT + 200)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) >= 200)
    for status, headers, content in answers:
        assert (status, json.loads(content)["error"]["code"]) == (429, "overloaded")
        assert re.fullmatch("[0-9]+", headers["Retry-After"])
    status, headers, content = ask(
        front.address, "POST", INFER, json.dumps({"inputs": v2_columns(contract)})
    )
    assert (status, json.loads(content)["code"]) == (429, "overloaded")
    assert "Retry-After" in headers
    for path in (LIVE, "/v2/health/live", "/openapi.json", "/docs", "/v2"):
        assert status_of(front.address, path) == 200, path
    found = counts(front.address)
    assert found["nbmlops_in_flight"] == upstream.IN_FLIGHT_LIMIT
    assert found['nbmlops_requests_total{path="/predict",status="429"}'] == 200
    worker.signal(signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert [one[0] for one in answers].count(200) == upstream.IN_FLIGHT_LIMIT
    assert calllog.verify(front.inbox / "calls", "cancer-w1").records == upstream.IN_FLIGHT_LIMIT


def v2_columns(contract):
    return [
        {"name": column.name, "datatype": "FP64", "shape": [1], "data": [0.5]}
        for column in contract.columns
    ]


def test_a_thousand_sockets_that_trickle_are_closed_and_others_served(served):
    many_files(4096)
    host = served.address.removeprefix("tcp:")
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\n".encode()
    starts = [
        head,  # headers that do not end
        b"P",  # a word that does not end
        head + b"Content-Length: 1000\r\n\r\n[",  # a body that does not end
        head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n",
    ]
    began = time.monotonic()
    trickling = {}
    for number in range(1000):
        one = raw_socket(served.address)
        one.sendall(starts[number % 4])
        one.setblocking(False)
        trickling[one.fileno()] = (one, (b"X-%d: y\r\n", b"O", b" ", b"1\r\n \r\n")[number % 4])
    asking = Connection(served.address)
    others = 0
    next_s = 0.0
    while trickling:
        assert time.monotonic() - began < 30, f"{len(trickling)} sockets are still open"
        assert asking.ask("POST", "/predict", json.dumps(GOOD))[0] == 200
        others += 1
        if time.monotonic() >= next_s:  # each of them keeps sending a little
            next_s = time.monotonic() + 0.5
            for one, more in trickling.values():
                with contextlib.suppress(OSError):
                    one.send(more % others if b"%" in more else more)
        ready, _, _ = select_many(trickling)
        for number in ready:
            one, _ = trickling[number]
            try:
                open_still = bool(one.recv(65536))
            except BlockingIOError:
                continue
            except OSError:
                open_still = False
            if not open_still:
                one.close()
                del trickling[number]
    took = time.monotonic() - began
    print(f"1,000 sockets were closed in {took:.1f} s; {others} other calls were answered")
    assert others > 20
    assert status_of(served.address, READY) == 200


def select_many(sockets):
    """Return the readable ones; ``select`` itself knows no numbers above 1023."""
    poller = select.poll()
    for number in sockets:
        poller.register(number, select.POLLIN | select.POLLHUP)
    return [number for number, _ in poller.poll(50)], [], []


def test_ten_thousand_idle_connections_keep_nobody_out(world):
    many_files(12_000)
    front = world.front([route("mixed", world.worker("mixed").address)])
    soft, _ = psutil.Process(front.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    if soft < 13_000:
        pytest.skip(f"the front may have {soft} open files only")
    before = resident_mib(front)
    idle = [raw_socket(front.address) for _ in range(10_000)]
    try:
        for _ in range(20):
            assert predict(front.address, GOOD)[0] == 200
        assert status_of(front.address, LIVE) == 200
        assert psutil.Process(front.process.pid).num_fds() > 9_000, "they are all held"
        assert resident_mib(front) - before < 150
    finally:
        for one in idle:
            one.close()
    until(lambda: psutil.Process(front.process.pid).num_fds() < 200)


def test_a_cap_on_connections_holds_and_idle_ones_make_room(tmp_path):
    """With few descriptors there are few connections, and none of them fails for want of one."""
    inbox = front_inbox(tmp_path / "front", [])
    program = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from nbmlops.front.__main__ import main\nsys.exit(main(os.environ))\n"
    )
    (inbox / "few.py").write_text(program)
    front = Process("few", inbox, free_address(), PYTHONPATH=f"{SOURCE}:{inbox}")
    idle = []
    try:
        front.ready(LIVE)
        idle = [raw_socket(front.address) for _ in range(200)]
        until(lambda: psutil.Process(front.process.pid).num_fds() > 120)
        assert psutil.Process(front.process.pid).num_fds() < 200
        # Whoever comes now waits until the idle ones are closed, and is then served.
        assert ask(front.address, "GET", LIVE, timeout=60)[0] == 200
        assert front.process.poll() is None
        assert "Too many open files" not in front.log.read_text()
    finally:
        for one in idle:
            one.close()
        front.stop()


def test_large_bodies_that_go_silent_keep_others_out_for_seconds_only(served):
    host = served.address.removeprefix("tcp:")
    size = 16 * 1024 * 1024
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
    silent = [raw_socket(served.address) for _ in range(4)]
    for one in silent:
        one.sendall(head.encode() + b" " * (size - 1))
    began = time.monotonic()
    until(lambda: predict(served.address, [GOOD] * 1000)[0] == 200, within_s=10.0)
    assert predict(served.address, GOOD)[0] == 200
    for one in silent:
        assert one.recv(100).startswith(b"HTTP/1.1 408 ")
        one.close()
    print(f"the silent ones were sent away within {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 12


STUCK_WORKER = """
import os, pathlib, sys, time
from nbmlops import predictors, turns, worker
turns.STUCK_S = {stuck_s}
usual = predictors.Predictor.predict
def predict(self, inputs):
    while (pathlib.Path(os.environ["NBMLOPS_INBOX"]) / "hangs").exists():
        time.sleep(0.05)
    return usual(self, inputs)
predictors.Predictor.predict = predict
sys.exit(worker.main(os.environ))
"""


def hanging_worker(world, stuck_s):
    """Return a worker whose model hangs while a file is there, and that file."""
    inbox = worker_inbox(world.folder / "stuck", "mixed")
    (inbox / "stuck.py").write_text(STUCK_WORKER.format(stuck_s=stuck_s))
    worker = Process("stuck", inbox, f"unix:{socket_path()}", PYTHONPATH=f"{SOURCE}:{inbox}")
    world.running.append(worker)
    return worker.ready("/v2/health/ready"), inbox / "hangs"


def test_callers_that_leave_before_their_turn_keep_no_place(world):
    worker, hangs = hanging_worker(world, stuck_s=120.0)
    front = world.front([route("mixed", worker.address)], deadline_s=120.0)
    host = front.address.removeprefix("tcp:")
    body = json.dumps(GOOD).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    hangs.touch()
    leaving = [raw_socket(front.address) for _ in range(upstream.IN_FLIGHT_LIMIT)]
    for one in leaving:
        one.sendall(head.encode() + body)
        if one is leaving[0]:  # it is on its way alone; all others wait for their turn
            until(lambda: counts(front.address)["nbmlops_in_flight"] == 1)
    until(lambda: counts(front.address)["nbmlops_in_flight"] == len(leaving))
    assert predict(front.address, GOOD)[0] == 429
    for one in leaving[:64]:
        one.close()  # which looks like the end of what they send
    for one in leaving[64:]:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()  # which looks like what it is
    until(lambda: counts(front.address)["nbmlops_in_flight"] == 64)
    callers = Callers(front.address, GOOD, count=100)
    until(lambda: counts(front.address)["nbmlops_in_flight"] == upstream.IN_FLIGHT_LIMIT)
    hangs.unlink()
    until(lambda: len(callers.answers) >= 100)
    callers.stop()
    assert callers.failures == []


@pytest.mark.parametrize("batches", [True, False])
def test_a_model_that_hangs_is_not_ready_and_costs_its_callers_a_deadline(world, batches):
    worker, hangs = hanging_worker(world, stuck_s=0.5)
    front = world.front([route("mixed", worker.address, batches=batches)], deadline_s=1.0)
    assert predict(front.address, GOOD)[0] == 200
    hangs.touch()
    answers = []
    threads = []
    for _ in range(60):  # one after the other, so that some wait behind a batch that hangs
        calling = threading.Thread(target=lambda: answers.append(predict(front.address, GOOD)))
        calling.start()
        threads.append(calling)
        time.sleep(0.03)
    until(lambda: status_of(front.address, READY) == 503)
    assert status_of(front.address, LIVE) == 200
    for one in threads:
        one.join()
    codes = {json.loads(content)["error"]["code"] for _, _, content in answers}
    assert codes <= {"deadline-exceeded", "worker-unreachable"}, codes
    assert psutil.Process(worker.process.pid).num_threads() < 80
    hangs.unlink()
    until(lambda: status_of(front.address, READY) == 200)
    assert predict(front.address, GOOD)[0] == 200
    assert counts(front.address)["nbmlops_in_flight"] == 0
    until(lambda: psutil.Process(worker.process.pid).num_threads() < 15)
    assert "Traceback" not in front.log.read_text()


def test_a_stopped_worker_costs_its_own_calls_a_deadline_and_nobody_else(world):
    _, contract, *_ = model("logistic")
    hanging, sound = world.worker(), world.worker(deployment="cancer-w2")
    front = world.front([route("logistic", hanging.address)], deadline_s=1.0)
    other = world.front([route("logistic", sound.address, "cancer-w2")])
    hanging.signal(signal.SIGSTOP)
    answers = []

    def call(path, body):
        answers.append(ask(front.address, "POST", path, json.dumps(body)))

    bodies = [("/predict", contract.example), (INFER, {"inputs": v2_columns(contract)})] * 20
    threads = [threading.Thread(target=call, args=one) for one in bodies]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert status_of(front.address, LIVE) == 200
        assert ask(front.address, "GET", "/metrics")[0] == 200
        assert predict(other.address, contract.example)[0] == 200
    assert {answer[0] for answer in answers} == {504}
    codes = {str(json.loads(answer[2])).count("deadline-exceeded") for answer in answers}
    assert codes == {1}
    until(lambda: status_of(front.address, READY) == 503)
    hanging.signal(signal.SIGCONT)
    until(lambda: status_of(front.address, READY) == 200)
    until(lambda: predict(front.address, contract.example)[0] == 200)
    assert counts(front.address)["nbmlops_in_flight"] == 0


# --- F15: SIGTERM under load ----------------------------------------------------------------------


class Draining(Callers):
    """Callers that go elsewhere, as they are told to, when an answer says so."""

    def call(self):
        connection = Connection(self.address)
        while not self.over.is_set():
            sent = False
            try:
                connection.request("POST", "/predict", self.body)
                sent = True
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((sent, error))
                return
            if answer.status == 200:
                self.answers.append(json.loads(content)["call_id"])
            else:
                self.failures.append((answer.status, content))
            if answer.headers.get("Connection") == "close":
                self.told += 1
                return

    told = 0


@pytest.mark.timeout(60 + 15 * DRAINS)
def test_drains_under_load_lose_no_call(world, seed):
    chance = random.Random(seed)
    _, contract, *_ = model("logistic")
    worker = world.worker(slow=0.01)
    total = 0  # the fronts follow one another in one folder
    for number in range(DRAINS):
        front = world.front([route("logistic", worker.address)])
        callers = Draining(front.address, contract.example, count=chance.randint(2, 12))
        answered = chance.randint(5, 150)
        until(lambda callers=callers, answered=answered: len(callers.answers) > answered)
        time.sleep(chance.random() * 0.05)
        watching = Connection(front.address)
        assert watching.ask("GET", READY)[0] == 200
        front.signal(signal.SIGTERM)
        # It is no longer ready while it still answers, so that traffic goes elsewhere first.
        seen = until(lambda watching=watching: _seen(watching))
        assert (seen[0], seen[1].get("Connection")) == (503, "close")
        assert front.ended() == 0
        callers.stop()
        assert callers.failures == [], number
        assert callers.told == len(callers.threads), "each was asked to go elsewhere"
        calls = front.inbox / "calls"
        found = calllog.verify(calls, "cancer-w1")
        assert (found.problems, found.drops) == ((), 0)
        total += len(callers.answers)
        assert found.records == total
        world.running.remove(front)


def _seen(watching):
    """Return an answer once it says not ready; the connection is used until it is closed."""
    status, headers, _ = watching.ask("GET", READY)
    return (status, headers) if status == 503 else None


# --- re-pointing under load -----------------------------------------------------------------------


@pytest.mark.timeout(60 + 15 * REPOINTINGS)
def test_re_pointing_to_and_fro_under_fifty_kept_connections_loses_no_call(world, seed):
    chance = random.Random(seed)
    _, contract, *_ = model("logistic")
    workers = {
        version: world.worker(deployment=f"cancer-w{version}", version=version)
        for version in (1, 2)
    }

    def to(version):
        return route("logistic", workers[version].address, f"cancer-w{version}", version)

    front = world.front([to(1)])
    callers = Callers(front.address, contract.example, count=50)
    until(lambda: len(callers.answers) > 100)
    pointed = []
    for number in range(REPOINTINGS):
        version = 2 - number % 2
        assert document(put(front.address, table_of(number + 2, to(version)))) == {
            "revision": number + 2
        }
        pointed.append(version)
        before = len(callers.answers)
        more = chance.randint(50, 200)
        until(lambda before=before, more=more: len(callers.answers) > before + more)
        # From some answer on all are the new version's: nothing goes to the one before.
        until(
            lambda version=version: {one["version"] for one in callers.answers[-50:]} == {version}
        )
    callers.stop()
    assert callers.failures == []
    assert {answer["version"] for answer in callers.answers} == {1, *pointed}
    calls = front.inbox / "calls"
    logged = sum(calllog.verify(calls, f"cancer-w{version}").records for version in workers)
    assert logged == len(callers.answers)


def test_a_table_that_is_refused_under_load_costs_no_call(world):
    _, contract, *_ = model("logistic")
    worker = world.worker()
    good = route("logistic", worker.address)
    front = world.front([good])
    callers = Callers(front.address, contract.example, count=20)
    until(lambda: len(callers.answers) > 50)
    for _ in range(20):
        assert put(front.address, table_of(9, route("logistic", "http://nowhere")))[0] == 422
        assert put(front.address, table_of(0, good))[0] == 409
    callers.stop()
    assert callers.failures == []


# --- F16: malformed predictions -------------------------------------------------------------------


def binary(inputs, blobs, **more):
    """Return the body and headers of a V2 call in the binary form, as it is said, true or not."""
    header = json.dumps({"inputs": inputs, **more}).encode()
    return header + b"".join(blobs), {"Inference-Header-Content-Length": str(len(header))}


def tensor(name, datatype, shape, size=None, **more):
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "datatype": datatype, "shape": shape, **parameters, **more}


CITY = struct.pack("<I", 4) + b"Bern"
NAN, INFINITY = struct.pack("<d", float("nan")), struct.pack("<f", float("inf"))
AGE, MEMBER = struct.pack("<q", 41), b"\1"


def mixed(city=("BYTES", [1], 8), age=("INT64", [1], 8), member=("BOOL", [1], 1)):
    return [tensor("city", *city), tensor("age", *age), tensor("member", *member)]


BLOBS = [CITY, AGE, MEMBER]
LIES = {
    "a size that is negative": binary(mixed(age=("INT64", [1], -8)), BLOBS),
    "a size that is huge": binary(mixed(age=("INT64", [1], 2**62)), BLOBS),
    "a size that is no number": binary(mixed(age=("INT64", [1], "8")), BLOBS),
    "a size that is true": binary(mixed(member=("BOOL", [1], True)), BLOBS),
    "a size that is a fraction": binary(mixed(age=("INT64", [1], 8.0)), BLOBS),
    "a size that is no multiple": binary(mixed(age=("INT64", [1], 7)), BLOBS),
    "a size that takes the next tensor's": binary(mixed(age=("INT64", [1], 9)), BLOBS),
    "bytes of no tensor": binary(mixed(), [*BLOBS, b"more"]),
    "bytes that are missing": binary(mixed(), BLOBS[:2]),
    "a shape that overflows": binary(mixed(age=("INT64", [2**62, 2**62], 8)), BLOBS),
    "a shape that wraps to zero": binary(mixed(age=("INT64", [2**32, 2**32], 0)), [CITY, MEMBER]),
    "a shape of thousands of digits": binary(mixed(age=("INT64", [1, 10**4000], 8)), BLOBS),
    "a shape beyond 64 bits": binary(mixed(age=("INT64", [10**30], 8)), BLOBS),
    "a negative shape": binary(mixed(age=("INT64", [-1], 8)), BLOBS),
    "two negative shapes": binary(mixed(age=("INT64", [-1, -1], 8)), BLOBS),
    "a shape of nothing": binary(mixed(age=("INT64", [], 8)), BLOBS),
    "a shape of texts": binary(mixed(age=("INT64", ["1"], 8)), BLOBS),
    "a shape of many": binary(mixed(age=("INT64", [1] * 1000, 8)), BLOBS),
    "no rows": binary(
        mixed(("BYTES", [0], 0), ("INT64", [0], 0), ("BOOL", [0], 0)), [b""]
    ),
    "a datatype of another width": binary(mixed(age=("INT16", [1], 8)), BLOBS),
    "a datatype that is none": binary(mixed(age=("OBJECT", [1], 8)), BLOBS),
    "a truth value of two": binary(mixed(), [CITY, AGE, b"\2"]),
    "a text that lies of its length": binary(mixed(), [b"\xff\xff\xff\xff" + b"Bern", AGE, MEMBER]),
    "a text with half a length": binary(
        mixed(city=("BYTES", [1], 2)), [b"\1\0", AGE, MEMBER]
    ),
    "a text that is no UTF-8": binary(
        mixed(city=("BYTES", [1], 6)), [struct.pack("<I", 2) + b"\xff\xfe", AGE, MEMBER]
    ),
    "two texts for one": binary(mixed(city=("BYTES", [1], 16)), [CITY * 2, AGE, MEMBER]),
    "one name twice": binary([*mixed(), tensor("age", "INT64", [1], 8)], [*BLOBS, AGE]),
    "data and a size": binary([*mixed()[:2], tensor("member", "BOOL", [1], 1, data=[True])], BLOBS),
    "neither data nor a size": binary([*mixed()[:2], tensor("member", "BOOL", [1])], BLOBS),
    "another column": binary([*mixed(), tensor("agee", "INT64", [1], 8)], [*BLOBS, AGE]),
    "a column too few": binary(mixed()[:2], BLOBS[:2]),
    "no column": binary([], []),
    "an output that is none": binary(mixed(), BLOBS, outputs=[{"name": "mood"}]),
    "outputs of an odd kind": binary(mixed(), BLOBS, outputs={"name": "prediction"}),
    "a NaN": binary(mixed(age=("FP64", [1], 8)), [CITY, NAN, MEMBER]),
    "an infinity": binary(mixed(age=("FP32", [1], 4)), [CITY, INFINITY, MEMBER]),
    "a header longer than the body": (b"{}", {"Inference-Header-Content-Length": "3"}),
    "a header of no length": (b"{}", {"Inference-Header-Content-Length": "0"}),
    "a negative header": (b"{}", {"Inference-Header-Content-Length": "-2"}),
    "a header length that is huge": (b"{}", {"Inference-Header-Content-Length": "9" * 40}),
    "a header length twice": (b"{}", {"Inference-Header-Content-Length": "2, 2"}),
    "a header length that is a text": (b"{}", {"Inference-Header-Content-Length": "0x2"}),
    "a header that is deep": (
        b'{"inputs":' + b"[" * 200_000,
        {"Inference-Header-Content-Length": "200010"},
    ),
    "parameters that are deep": (
        b'{"inputs":[],"parameters":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        {},
    ),
    "JSON with a NaN": (
        b'{"inputs":[{"name":"age","datatype":"FP64","shape":[1],"data":[NaN]}]}',
        {},
    ),
    "JSON with 1e400": (
        json.dumps({"inputs": [tensor("age", "FP64", [1], data=["?"])]})
        .replace('"?"', "1e400")
        .encode(),
        {},
    ),
    "JSON that is nested as it should not be": (
        json.dumps({"inputs": [tensor("age", "INT64", [2, 2], data=[[1, 2], [3]])]}).encode(),
        {},
    ),
    "compressed": (gzip.compress(b"0" * 10_000_000), {"Content-Encoding": "gzip"}),
    "compressed twice": (
        gzip.compress(gzip.compress(b"0" * 10_000_000)),
        {"Content-Encoding": "gzip, gzip"},
    ),
}  # fmt: skip
NAMED = {
    "a size that is no multiple": "age",
    "a truth value of two": "member",
    "a text that is no UTF-8": "city",
    "one name twice": "age",
    "another column": "agee",
    "a column too few": "member",
    "a NaN": "age",
    "an infinity": "age",
    "a shape of many": "age",
}


@pytest.mark.parametrize("lie", LIES)
def test_v2_bodies_that_lie_are_refused_and_the_column_named(served, lie):
    body, headers = LIES[lie]
    connection = Connection(served.address)
    for path in (INFER, "/v2/models/cancer/versions/3/infer"):
        status, _, content = connection.ask("POST", path, body, headers)
        assert status == (415 if lie.startswith("compressed") else status)
        assert status in {400, 413, 415, 422}, content
        told = json.loads(content)
        assert set(told) == {"error", "code"}
        assert NAMED.get(lie, "") in told["error"]
        assert len(told["error"]) < 1000
    sound, headers = binary(mixed(), BLOBS)
    assert connection.ask("POST", INFER, sound, headers)[0] == 200
    assert "Traceback" not in served.log.read_text()


def test_bytes_that_were_changed_at_random_never_make_an_error_of_the_servers(served, seed):
    chance = random.Random(seed)
    sound, headers = binary(mixed(), BLOBS)
    connection = Connection(served.address)
    statuses = set()
    for _ in range(500):
        body = bytearray(sound)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(body))
            kind = chance.randrange(3)
            if kind == 0:
                body[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                del body[at : at + chance.randint(1, 20)]
            else:
                body[at:at] = chance.randbytes(chance.randint(1, 20))
            body = body or bytearray(b"x")
        length = chance.choice([headers["Inference-Header-Content-Length"], str(len(body)), "12"])
        status, _, content = connection.ask(
            "POST", INFER, bytes(body), {"Inference-Header-Content-Length": length}
        )
        statuses.add(status)
        assert status in {200, 400, 422}, content
    assert 400 in statuses


def test_memory_is_bounded_whatever_is_sent(world):
    front = world.front([route("array", world.worker("array").address)])
    before = resident_mib(front)
    peak = [before]
    over = threading.Event()

    def watch():
        while not over.wait(0.02):
            peak.append(resident_mib(front))

    watching = threading.Thread(target=watch)
    watching.start()
    limit = 16 * 1024 * 1024
    row = {f"x{number}": 0.5 for number in range(4)}
    numbers = [tensor("m", "FP64", [500_000, 4], data=[0.5] * 2_000_000)]
    doubles = binary([tensor("m", "FP64", [500_000, 4], 16_000_000)], [bytes(16_000_000)])
    bytes_of_one = binary([tensor("m", "INT8", [4_000_000, 4], 16_000_000)], [bytes(16_000_000)])
    texts = binary([tensor("m", "BYTES", [3_000_000], 12_000_000)], [bytes(12_000_000)])
    truths = binary([tensor("m", "BOOL", [16_000_000], 16_000_000)], [bytes(16_000_000)])
    halves = binary([tensor("m", "FP16", [1, 8_000_000], 16_000_000)], [bytes(16_000_000)])
    wide = binary([tensor("m", "BYTES", [1, 4_000_000], 16_000_000)], [bytes(16_000_000)])
    inputs = b'{"inputs":[{"name":"m","datatype":"FP64","shape":[1,4],'
    many = [tensor(str(number), "FP64", [1], data=[0.5]) for number in range(200_000)]
    bomb = gzip.compress(b"[" * 50_000_000)
    try:
        for path, body, more in (
            ("/predict", b"x" * (100 * 1024 * 1024), {}),
            (INFER, b"x" * (100 * 1024 * 1024), {}),
            ("/predict", b'{"records": [' + b"[" * (limit - 100), {}),
            (INFER, b'{"inputs":' + b"[" * (limit - 100), {}),
            ("/predict", json.dumps({"records": [row] * 100_000}).encode(), {}),
            ("/predict", b"[" + b"{}," * 5_000_000 + b"{}]", {}),
            ("/predict", b'{"records":[' + b'{"}":"{"},' * 1_000_000 + b"{}]}", {}),
            (INFER, json.dumps({"inputs": numbers}).encode(), {}),
            (INFER, *doubles),
            (INFER, *bytes_of_one),
            (INFER, *texts),
            (INFER, *truths),
            (INFER, *halves),
            (INFER, *wide),
            (INFER, inputs + b'"data":[' + b"[]," * 5_000_000 + b"[]]}]}", {}),
            (INFER, inputs + b'"data":[' + b"{}," * 5_000_000 + b"{}]}]}", {}),
            (INFER, inputs + b'"data":[' + b"1," * 8_000_000 + b"1]}]}", {}),
            (INFER, inputs + b'"parameters":{"a":[' + b'{"":0},' * 2_000_000 + b"0]}}]}", {}),
            (INFER, json.dumps({"inputs": many}).encode()[:limit], {}),
            ("/predict", bomb, {"Content-Encoding": "gzip"}),
            (INFER, bomb, {"Content-Encoding": "deflate"}),
            ("/predict", b'{"x0":' + b"9" * 10_000_000 + b"}", {}),
            ("/predict", b'{"' + b"k" * 10_000_000 + b'": 1}', {}),
        ):
            began = time.monotonic()
            status, _, content = ask(front.address, "POST", path, body, more)
            assert status in {400, 413, 415, 422}, (path, body[:40], content[:200])
            assert len(content) < 2000
            print(f"{path} {bytes(body[:30])!r}: {status}, {time.monotonic() - began:.2f} s")
    finally:
        over.set()
        watching.join()
    print(f"{before:.0f} MiB before, {max(peak):.0f} MiB at most")
    # Requests of up to 16 MiB, one after the other.
    assert max(peak) - before < 150
    assert status_of(front.address, READY) == 200
