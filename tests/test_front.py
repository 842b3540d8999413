from __future__ import annotations

import gzip
import http.client
import json
import math
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbmlops import calllog
from nbmlops.front import openapi, protocol, routing, upstream
from nbmlops.front.app import ROUTES
from nbmlops.records import CallAnswer, RouteTable, dump, load
from serving import (
    COMMIT,
    SOURCE,
    TOKEN,
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

pytestmark = pytest.mark.slow  # real processes and servers

LIVE, READY = "/health/live", "/health/ready"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SLOW_WORKER = """
import sys, time
from nbmlops import predictors, worker
usual = predictors.Predictor.predict
def predict(self, inputs):
    time.sleep({seconds})
    return usual(self, inputs)
warm_up = predictors.Predictor.warm_up
def warm(self, sample):
    warm_up(self, sample)
    predictors.Predictor.predict = predict
predictors.Predictor.warm_up = warm
sys.exit(worker.main(__import__("os").environ))
"""


class World:
    """The processes of one test."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def worker(self, kind="logistic", slow=None, **changes):
        inbox = worker_inbox(self.folder / f"worker{len(self.running)}", kind, **changes)
        module = "nbmlops.worker"
        if slow is not None:
            (inbox / "slow.py").write_text(SLOW_WORKER.format(seconds=slow))
            one = Process("slow", inbox, f"unix:{socket_path()}", PYTHONPATH=f"{SOURCE}:{inbox}")
        else:
            one = Process(module, inbox, f"unix:{socket_path()}")
        self.running.append(one)
        return one.ready("/v2/health/ready")

    def front(self, routes, path=READY, **changes):
        inbox = front_inbox(self.folder / f"front{len(self.running)}", routes, **changes)
        one = Process("nbmlops.front", inbox, free_address())
        self.running.append(one)
        return one.ready(path)

    def close(self):
        for one in self.running:
            one.stop()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One mixed model behind one front, for tests that only call it."""
    made = World(tmp_path_factory.mktemp("served"))
    worker = made.worker("mixed")
    yield made.front([route("mixed", worker.address)], rows_limit=100, body_limit_bytes=100_000)
    made.close()


GOOD = {"city": "Bern", "age": 41, "member": True}


def predict(address, records, **headers):
    return ask(address, "POST", "/predict", json.dumps(records), headers)


def document(answer):
    return json.loads(answer[2])


# --- answering ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"records": [GOOD]}, GOOD, [GOOD]])
def test_records_come_wrapped_as_a_list_or_alone(served, body):
    status, headers, content = predict(served.address, body)
    assert status == 200
    answer = load(content, CallAnswer)
    assert (answer.model, answer.version, answer.commit) == ("cancer", 3, COMMIT)
    assert answer.predictions[0].label in {"yes", "no"}
    assert math.isclose(sum(answer.predictions[0].probabilities.values()), 1.0)
    assert headers["Nbmlops-Call-Id"] == answer.call_id
    assert headers["Nbmlops-Model"] == "cancer"
    assert headers["Nbmlops-Version"] == "3"
    assert headers["Nbmlops-Commit"] == COMMIT


@pytest.mark.parametrize("kind", ["forest", "regressor", "array"])
def test_every_kind_of_model_is_served(world, kind):
    _, contract, _, fitted = model(kind)
    front = world.front([route(kind, world.worker(kind).address)])
    (got,) = document(predict(front.address, [contract.example]))["predictions"]
    assert got["within_bounds"] is True
    if kind == "regressor":
        assert math.isfinite(got["value"])
        assert "label" not in got
    else:
        assert got["label"] in fitted.classes_.tolist()
        assert list(got["probabilities"]) == [str(one) for one in fitted.classes_]
    example = document(ask(front.address, "GET", "/openapi.json"))["paths"]["/predict"]["post"][
        "requestBody"
    ]["content"]["application/json"]["example"]
    assert predict(front.address, example)[0] == 200


def test_the_call_is_in_the_log_under_its_id(served):
    status, headers, _ = predict(served.address, [GOOD], **{"X-Request-Id": "order-17"})
    assert status == 200
    found = calllog.find(served.inbox / "calls", headers["Nbmlops-Call-Id"])
    assert found.records == (GOOD,)
    assert (found.endpoint, found.model, found.version, found.commit) == (
        "cancer",
        "cancer",
        3,
        COMMIT,
    )
    assert found.client_id == "order-17"
    assert found.latency_ms > 0


@pytest.mark.parametrize("given_id", ["a" * 129, "ä", "x\ty"])
def test_a_clients_id_that_is_long_or_odd_is_not_kept(given_id):
    assert protocol.client_id({"x-request-id": given_id}) is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("python-requests/2.32 (Linux)", "python-requests/2.32"),
        ("  curl/8.5.0", "curl/8.5.0"),
        ("Mozilla/5.0 (X11) AppleWebKit/537.36", "Mozilla/5.0"),
        ("loader", "loader"),
        ("a" * 100 + "/1", "a" * 60),
        ("(no product)", None),
        ("\x1b[2Jx", None),
        ("caf\xe9/1", "caf"),
        ("", None),
        (None, None),
    ],
)
def test_a_client_is_known_by_the_first_product_of_its_user_agent(given, kept):
    assert protocol.client({} if given is None else {"user-agent": given}) == kept


@pytest.mark.parametrize("path", ["/predict", "/v2/models/cancer/infer"])
def test_the_program_that_called_is_in_the_log(served, path):
    body = json.dumps(GOOD)
    if path != "/predict":
        inputs = [("city", "BYTES", ["Bern"]), ("age", "INT64", [41]), ("member", "BOOL", [True])]
        names = ("name", "datatype", "data")
        parts = [dict(zip(names, one, strict=True)) | {"shape": [1]} for one in inputs]
        body = json.dumps({"inputs": parts})
    page = {"Origin": "http://" + served.address.removeprefix("tcp:")}  # goes the longer way
    for agent, more in (("loader/3 (x)", {}), ("other/1", page)):
        headers = {"User-Agent": agent, **more}
        status, answered, _ = ask(served.address, "POST", path, body, headers)
        assert status == 200
        found = calllog.find(served.inbox / "calls", answered["Nbmlops-Call-Id"])
        assert found.client == agent.split()[0]


def test_an_id_in_a_v2_body_is_echoed_and_kept_only_if_it_is_short(served):
    for sent, kept in (("mine", "mine"), ("x" * 1000, None), ("a\nb", None)):
        columns = [
            {"name": "city", "datatype": "BYTES", "shape": [1], "data": ["Bern"]},
            {"name": "age", "datatype": "INT64", "shape": [1], "data": [41]},
            {"name": "member", "datatype": "BOOL", "shape": [1], "data": [True]},
        ]
        body = json.dumps({"id": sent, "inputs": columns})
        status, headers, content = ask(served.address, "POST", "/v2/models/cancer/infer", body)
        assert (status, json.loads(content)["id"]) == (200, sent)
        call_id = headers["Nbmlops-Call-Id"]
        assert calllog.find(served.inbox / "calls", call_id).client_id == kept


def test_what_a_model_says_of_values_that_are_not_logged_is_not_in_its_log_either(world):
    worker = world.worker("mixed")
    secret = GOOD | {"city": "Ada-Lovelace-123"}
    open_front = world.front([route("mixed", worker.address)])
    assert predict(open_front.address, secret)[0] == 422
    assert worker.log.read_text().count("Ada-Lovelace-123") == 1
    front = world.front([route("mixed", worker.address, never=("city",))])
    status, _, content = predict(front.address, secret)
    assert (status, b"Ada-Lovelace-123" in content) == (422, True), "who asks is told"
    log = worker.log.read_text()
    assert log.count("Ada-Lovelace-123") == 1
    assert "ValueError, its message left out" in log


def test_the_prediction_does_not_depend_on_the_order_of_columns(served):
    first = document(predict(served.address, GOOD))["predictions"]
    second = document(predict(served.address, dict(reversed(GOOD.items()))))["predictions"]
    assert first == second


def test_the_content_type_does_not_matter(served):
    for given_type in ("application/x-www-form-urlencoded", "text/plain", "application/json"):
        assert predict(served.address, GOOD, **{"Content-Type": given_type})[0] == 200


# --- malformed bodies ---------------------------------------------------------------------------


def raw(**changes):
    return json.dumps({"records": [GOOD | changes]}).encode()


MALFORMED = {
    "empty body": (b"", 400, "invalid-json", "empty"),
    "half a body": (b'{"records": [', 400, "invalid-json", ""),
    "no json": (b"age=41", 400, "invalid-json", ""),
    "not utf-8": (b'{"city": "\xff"}', 400, "invalid-json", ""),
    "lone surrogate": (raw(city="X").replace(b"X", rb"\ud800"), 400, "invalid-json", ""),
    "NaN": (raw(age="N").replace(b'"N"', b"NaN"), 400, "invalid-json", ""),
    "Infinity": (raw(age="N").replace(b'"N"', b"-Infinity"), 400, "invalid-json", ""),
    "1e400": (raw(age="N").replace(b'"N"', b"1e400"), 422, "invalid-records", "column `age`"),
    "huge integer": (raw(age=10**400), 422, "invalid-records", "column `age`"),
    "text for a number": (raw(age="1"), 422, "invalid-records", "column `age`"),
    "truth for a number": (raw(age=True), 422, "invalid-records", "column `age`"),
    "number for a truth": (raw(member=1), 422, "invalid-records", "column `member`"),
    "fraction": (raw(age=1.5), 422, "invalid-records", "column `age`"),
    "null": (raw(city=None), 422, "invalid-records", "column `city`"),
    "list for a text": (raw(city=["Bern"]), 422, "invalid-records", "column `city`"),
    "object for a text": (raw(city={"a": 1}), 422, "invalid-records", "column `city`"),
    "missing": (b'{"city": "Bern", "age": 4}', 422, "invalid-records", "`member` is missing"),
    "extra": (raw(agee=1), 422, "invalid-records", "column `agee`"),
    "unknown to the model": (raw(city="Atlantis"), 422, "invalid-records", "Atlantis"),
    "empty batch": (b'{"records": []}', 422, "invalid-records", "no records"),
    "empty list": (b"[]", 422, "invalid-records", "no records"),
    "records is no list": (b'{"records": 5}', 422, "invalid-records", ""),
    "records is an object": (b'{"records": {"a": 1}}', 422, "invalid-records", ""),
    "list of lists": (b"[[1, 2]]", 422, "invalid-records", ""),
    "scalar": (b"5", 422, "invalid-records", ""),
    "null body": (b"null", 422, "invalid-records", ""),
    "deep nesting": (b"[" * 40_000 + b"]" * 40_000, 400, "invalid-json", ""),
    "deep in a record": (
        b'[{"city":' + b"[" * 40_000 + b"]" * 40_000 + b"}]",
        400,
        "invalid-json",
        "",
    ),
    "too many records": (json.dumps([GOOD] * 101).encode(), 413, "too-many-records", "101"),
    "too large": (b" " * 100_001, 413, "body-too-large", "100000"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_refused_with_a_code_and_a_hint(served, name):
    body, wanted, code, word = MALFORMED[name]
    connection = Connection(served.address)
    status, headers, content = connection.ask("POST", "/predict", body)
    error = json.loads(content)["error"]
    assert (status, error["code"]) == (wanted, code), error
    assert word in error["message"]
    assert set(error) == {"code", "message", "hint", "context"}
    assert headers["Content-Type"] == "application/json"
    assert connection.ask("POST", "/predict", json.dumps(GOOD))[0] == 200


def test_a_compressed_body_is_not_opened(served):
    bomb = gzip.compress(b"0" * 10_000_000)
    status, _, content = ask(served.address, "POST", "/predict", bomb, {"Content-Encoding": "gzip"})
    assert (status, json.loads(content)["error"]["code"]) == (415, "encoding-refused")


def test_a_hundred_megabytes_are_refused_and_memory_stays_bounded(world):
    front = world.front([], path=LIVE)

    def resident_kib():
        status = Path(f"/proc/{front.process.pid}/status")
        if not status.exists():
            pytest.skip("memory is read from /proc")
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])

    before = resident_kib()
    status, _, content = ask(front.address, "POST", "/predict", b"[" + b"1," * 50_000_000)
    assert (status, json.loads(content)["error"]["code"]) == (413, "body-too-large")

    def chunks():
        for _ in range(1600):
            yield b"x" * 65536

    status, _, content = ask(front.address, "POST", "/predict", chunks())
    assert (status, json.loads(content)["error"]["code"]) == (413, "body-too-large")
    assert resident_kib() - before < 100 * 1024
    assert status_of(front.address, LIVE) == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORD = st.fixed_dictionaries(
    {
        "city": st.sampled_from(["Bern", "Rome", "Oslo"]) | JSON,
        "age": st.integers() | JSON,
        "member": st.booleans() | JSON,
    },
)
BODIES = (
    st.binary(max_size=300)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(RECORD | JSON, max_size=4).map(lambda rows: json.dumps({"records": rows}).encode())
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(BODIES)
def test_whatever_is_sent_no_answer_is_a_servers_error(served, body):
    status, headers, content = ask(served.address, "POST", "/predict", body)
    assert status in {200, 400, 413, 422}, content
    if status == 200:
        assert calllog.find(served.inbox / "calls", headers["Nbmlops-Call-Id"])


def test_numbers_that_the_model_cannot_take_are_the_callers_affair(world):
    _, contract, *_ = model("forest")
    front = world.front([route("forest", world.worker("forest").address)])
    huge = contract.example | {"mean radius": 1e300}  # beyond the 32 bits that a forest uses
    status, _, content = predict(front.address, huge)
    assert (status, json.loads(content)["error"]["code"]) == (422, "invalid-records")


# --- who may ask --------------------------------------------------------------------------------


def test_every_path_and_method_is_in_one_table(served):
    connection = Connection(served.address)
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"]
    odd = ["/v2/", "/v2/models", "/predict/", "/../etc/passwd", "/%2e%2e", "/control", "//"]
    for template in [*ROUTES, *odd]:
        path = template.format(model="cancer", version=3)
        for method in methods:
            status, headers, _ = connection.ask(method, path)
            known = ROUTES.get(template)
            asked = "GET" if method == "HEAD" else method
            if known is None:
                assert status == 404, (method, path)
            elif asked not in known:
                assert status == 405, (method, path)
                assert headers["Allow"] == ", ".join(sorted(known))
            else:
                assert status not in {404, 405, 500}, (method, path)
            assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "evil.localhost", ""])
def test_another_host_is_refused(served, host):
    for method, path in (("GET", LIVE), ("POST", "/predict"), ("GET", "/docs")):
        status, _, content = ask(served.address, method, path, headers={"Host": host})
        assert (status, json.loads(content)["error"]["code"]) == (421, "host-refused")


def test_localhost_by_all_its_names_is_served(served):
    port = served.address.rsplit(":", 1)[1]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        assert ask(served.address, "GET", LIVE, headers={"Host": host})[0] == 200


def test_pages_of_other_origins_may_not_call(served):
    port = served.address.rsplit(":", 1)[1]
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        f"https://localhost:{port}",
    ):
        assert predict(served.address, GOOD, Origin=origin)[0] == 403
    assert predict(served.address, GOOD, Origin=f"http://localhost:{port}")[0] == 200


def test_control_needs_its_token(served):
    for headers in (
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": TOKEN},
        {"Authorization": ""},
    ):
        for method in ("GET", "PUT"):
            status, answered, _ = ask(served.address, method, "/control/routes", b"{}", headers)
            assert status == 401
            assert answered["WWW-Authenticate"] == "Bearer"
    status, _, content = ask(served.address, "GET", "/control/routes", headers=BEARER)
    assert status == 200
    assert load(content, RouteTable).revision == 1
    assert TOKEN not in served.log.read_text()


# --- describing ---------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(served):
    status, headers, content = ask(served.address, "GET", "/docs")
    assert status == 200
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    texts = [content]
    for found in re.findall(rb'(?:src|href)="([^"]+)"', content):
        if not found.startswith(b"data:"):
            status, _, text = ask(served.address, "GET", f"/{found.decode()}")
            assert status == 200, found
            texts.append(text)
    page = b"".join(texts[:3])
    assert b"http://" not in page
    assert b"https://" not in page
    assert b"innerHTML" not in page
    assert b"style=" not in content
    assert not re.search(rb"<script(?![^>]*src=)", content)


def test_people_are_led_to_the_page_and_programs_get_a_list(served):
    status, headers, _ = ask(served.address, "GET", "/", headers={"Accept": "text/html,*/*"})
    assert (status, headers["Location"]) == (307, "docs")
    assert document(ask(served.address, "GET", "/"))["version"] == 3


def test_the_description_says_what_the_model_takes(served):
    described = document(ask(served.address, "GET", "/openapi.json"))
    record = described["components"]["schemas"]["Record"]
    assert list(record["properties"]) == ["city", "age", "member"]
    assert record["properties"]["city"]["examples"] == ["Bern", "Oslo", "Rome"]
    assert record["required"] == ["city", "age", "member"]
    answers = described["paths"]["/predict"]["post"]["responses"]
    assert {int(status) for status in answers} - {200} <= set(protocol.STATUSES.values())


def test_the_description_of_an_endpoint_without_a_model_is_valid_too():
    found = openapi.openapi(RouteTable(endpoint="cancer", revision=1, routes=()), rows_limit=1)
    assert "/predict" not in found["paths"]


SAMPLE = re.compile(
    r'[a-z_]+(\{[a-z_]+="([^"\\\n]|\\.)*"(,[a-z_]+="([^"\\\n]|\\.)*")*\})? [0-9.e+-]+'
)


def counts(address):
    _, headers, content = ask(address, "GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found, families = {}, {}
    for line in content.decode().splitlines():
        if line.startswith("#"):
            _, kind, name, told = line.split(" ", 3)
            families.setdefault(name, {})[kind] = told
            continue
        assert SAMPLE.fullmatch(line), line
        name, value = line.rsplit(" ", 1)
        assert name not in found
        found[name] = float(value)
    for name, family in families.items():
        assert set(family) == {"HELP", "TYPE"}
        assert (family["TYPE"] == "counter") == name.endswith("_total")
    return found


def test_what_happens_is_counted(served):
    before = counts(served.address)
    assert predict(served.address, [GOOD] * 7)[0] == 200
    assert predict(served.address, b"x".decode())[0] == 422
    assert ask(served.address, "GET", "/nothing")[0] == 404
    after = counts(served.address)

    def more(name):
        return after[name] - before.get(name, 0.0)

    assert more('nbmlops_requests_total{path="/predict",status="200"}') == 1
    assert more('nbmlops_requests_total{path="/predict",status="422"}') == 1
    assert more('nbmlops_requests_total{path="other",status="404"}') == 1
    assert more('nbmlops_rows_total{deployment="cancer-w1",model="cancer",version="3"}') == 7
    assert more("nbmlops_prediction_seconds_count") == 1
    assert more('nbmlops_prediction_seconds_bucket{le="+Inf"}') == 1
    buckets = [v for k, v in after.items() if k.startswith("nbmlops_prediction_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert after["nbmlops_ready"] == 1
    assert after['nbmlops_call_log_drops_total{deployment="cancer-w1"}'] == 0


# --- workers that fail --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_worker_costs_its_calls_and_not_the_endpoint(world):
    _, contract, *_ = model("logistic")
    worker = world.worker()
    front = world.front([route("logistic", worker.address)])
    assert predict(front.address, contract.example)[0] == 200
    worker.signal(signal.SIGKILL)
    worker.ended()
    status, headers, content = predict(front.address, contract.example)
    assert (status, json.loads(content)["error"]["code"]) == (503, "worker-unreachable")
    assert headers["Retry-After"] == "1"
    until(lambda: status_of(front.address, READY) == 503)
    assert status_of(front.address, LIVE) == 200
    assert counts(front.address)["nbmlops_ready"] == 0
    again = Process("nbmlops.worker", worker.inbox, worker.address)
    world.running.append(again)
    again.ready("/v2/health/ready")
    until(lambda: status_of(front.address, READY) == 200)
    assert predict(front.address, contract.example)[0] == 200


def test_a_stopped_worker_costs_its_calls_the_deadline(world):
    _, contract, *_ = model("logistic")
    worker = world.worker()
    front = world.front([route("logistic", worker.address)], deadline_s=0.5)
    worker.signal(signal.SIGSTOP)
    began = time.monotonic()
    status, _, content = predict(front.address, contract.example)
    assert (status, json.loads(content)["error"]["code"]) == (504, "deadline-exceeded")
    assert 0.4 < time.monotonic() - began < 10
    assert status_of(front.address, LIVE) == 200
    worker.signal(signal.SIGCONT)
    until(lambda: predict(front.address, contract.example)[0] == 200)


def test_more_calls_than_can_wait_are_told_to_come_again(world):
    _, contract, *_ = model("logistic")
    worker = world.worker()
    front = world.front([route("logistic", worker.address)], deadline_s=10.0)
    worker.signal(signal.SIGSTOP)
    statuses = []

    def call():
        statuses.append(predict(front.address, contract.example)[0])

    threads = [threading.Thread(target=call) for _ in range(upstream.IN_FLIGHT_LIMIT + 20)]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) >= 20)
    assert set(statuses) == {429}
    assert status_of(front.address, LIVE) == 200
    worker.signal(signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert statuses.count(200) == upstream.IN_FLIGHT_LIMIT


def test_without_a_route_the_endpoint_lives_and_says_so(world):
    front = world.front([], path=LIVE)
    status, headers, content = predict(front.address, GOOD)
    assert (status, json.loads(content)["error"]["code"]) == (503, "no-deployment")
    assert "Retry-After" in headers
    assert status_of(front.address, READY) == 503
    assert status_of(front.address, "/openapi.json") == 200


# --- routes -------------------------------------------------------------------------------------


def put(address, table):
    return ask(address, "PUT", "/control/routes", dump(table), BEARER)


def table_of(revision, *routes):
    return RouteTable(endpoint="cancer", revision=revision, routes=routes)


def test_only_a_newer_table_is_taken(served):
    present = load(ask(served.address, "GET", "/control/routes", headers=BEARER)[2], RouteTable)
    assert document(put(served.address, present)) == {"revision": 1}
    other = msgspec.structs.replace(present, routes=())
    for revision in (0, 1):
        status, _, content = put(served.address, msgspec.structs.replace(other, revision=revision))
        assert (status, json.loads(content)["error"]["code"]) == (409, "stale-routes")
    again = msgspec.structs.replace(present, revision=1)
    assert put(served.address, again)[0] == 200


def bad_tables():
    one = route("mixed", "unix:/a.sock")
    other = msgspec.structs.replace(one, deployment_id="cancer-w2")
    change = msgspec.structs.replace
    return {
        "another endpoint": change(table_of(9, one), endpoint="other"),
        "no champion": table_of(9, change(one, role="canary")),
        "two champions": table_of(9, change(one, share=50.0), change(other, share=50.0)),
        "too little": table_of(9, change(one, share=50.0)),
        "one twice": table_of(9, change(one, share=50.0), change(one, share=50.0, role="canary")),
        "negative": table_of(
            9, change(one, share=150.0), change(other, share=-50.0, role="canary")
        ),
        "a shadow": table_of(9, one, change(other, share=0.0, role="shadow")),
        "a web address": table_of(9, change(one, address="http://169.254.169.254/")),
        "a path as a name": table_of(9, change(one, deployment_id="../../etc")),
        "a header in a model": table_of(9, change(one, model="a\r\nX: y")),
        "a commit that is none": table_of(9, change(one, commit="main")),
    }


@pytest.mark.parametrize("name", bad_tables())
def test_a_table_without_meaning_changes_nothing(served, name):
    status, _, content = put(served.address, bad_tables()[name])
    assert (status, json.loads(content)["error"]["code"]) == (422, "invalid-routes")
    assert predict(served.address, GOOD)[0] == 200
    for body in (b"", b"{}", b"[" * 100_000):
        assert ask(served.address, "PUT", "/control/routes", body, BEARER)[0] == 422


class Callers:
    """Threads that call without a pause, each on a connection that it keeps."""

    def __init__(self, address, record, count=4, headers=None):
        self.body = json.dumps(record)
        self.headers = headers or {}
        self.address = address
        self.over = threading.Event()
        self.answers, self.failures = [], []
        self.threads = [threading.Thread(target=self.call) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def call(self):
        connection = Connection(self.address)
        while not self.over.is_set():
            sent = False
            try:
                connection.request("POST", "/predict", self.body, self.headers)
                sent = True
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((sent, repr(error)))
                connection.close()
                continue
            if answer.status == 200:
                self.answers.append(json.loads(content))
            else:
                self.failures.append((answer.status, content))

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
def test_re_pointing_loses_no_call_on_kept_connections(world):
    _, contract, *_ = model("logistic")
    workers = {1: world.worker(deployment="cancer-w1", version=1)}
    front = world.front([route("logistic", workers[1].address, "cancer-w1", 1)])
    callers = Callers(front.address, contract.example)
    for version in (2, 3, 4):
        name = f"cancer-w{version}"
        new = world.worker(deployment=name, version=version)
        table = table_of(version, route("logistic", new.address, name, version))
        assert document(put(front.address, table)) == {"revision": version}
        workers[version] = new
        old = workers[version - 1]
        old.signal(signal.SIGTERM)  # at once, as a deployment does
        before = len(callers.answers)
        until(lambda before=before: len(callers.answers) > before + 50)
        assert old.ended() == 0
    callers.stop()
    assert callers.failures == []
    assert {answer["version"] for answer in callers.answers} == {1, 2, 3, 4}
    logged = sum(
        calllog.verify(front.inbox / "calls", f"cancer-w{version}").records for version in workers
    )
    assert logged == len(callers.answers)


@pytest.mark.slow
def test_a_canary_takes_its_share(world):
    _, contract, *_ = model("logistic")
    first = world.worker(deployment="cancer-w1", version=1)
    second = world.worker(deployment="cancer-w2", version=2)
    routes = [
        route("logistic", first.address, "cancer-w1", 1, share=70.0),
        route("logistic", second.address, "cancer-w2", 2, share=30.0, role="canary"),
    ]
    front = world.front(routes)
    until(lambda: predict(front.address, contract.example)[0] == 200)
    connection = Connection(front.address)
    body = json.dumps(contract.example)
    versions = [
        json.loads(connection.ask("POST", "/predict", body)[2])["version"] for _ in range(300)
    ]
    assert 45 <= versions.count(2) <= 140


@given(
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=4), st.floats(0.0, 1.0, exclude_max=True)
)
def test_picking_follows_the_shares(shares, chance):
    total = sum(shares)
    if total == 0:
        return
    scaled = [100.0 * share / total for share in shares]

    class One:
        def __init__(self, share):
            self.route = route("mixed", "unix:/a", share=share)

    workers = tuple(One(share) for share in scaled)
    picked = routing.Routes(table_of(1), workers).pick(lambda: chance)
    at = workers.index(picked)
    assert sum(scaled[:at]) <= 100.0 * chance + 1e-9
    assert 100.0 * chance <= sum(scaled[: at + 1]) + 1e-9


def test_a_front_that_starts_again_takes_the_routes_of_its_inbox(world):
    _, contract, *_ = model("logistic")
    worker = world.worker()
    front = world.front([route("logistic", worker.address)], revision=7)
    front.signal(signal.SIGKILL)
    front.ended()
    again = Process("nbmlops.front", front.inbox, front.address)
    world.running.append(again)
    again.ready(READY)
    assert document(ask(again.address, "GET", "/control/routes", headers=BEARER))["revision"] == 7
    assert predict(again.address, contract.example)[0] == 200


# --- killing and stopping -----------------------------------------------------------------------


@pytest.mark.slow
def test_killing_the_front_loses_no_answered_call(world):
    _, contract, *_ = model("logistic")
    front = world.front([route("logistic", world.worker().address)])
    callers = Callers(front.address, contract.example)
    until(lambda: len(callers.answers) > 200)
    front.signal(signal.SIGKILL)
    callers.stop()
    calls = front.inbox / "calls"
    found = calllog.verify(calls, "cancer-w1")
    assert found.problems == ()
    assert len(callers.answers) <= found.records <= len(callers.answers) + 4
    for answer in random.sample(callers.answers, 50):
        logged = calllog.find(calls, answer["call_id"])
        assert logged.records == (contract.example,)
        assert list(msgspec.to_builtins(logged.predictions)) == answer["predictions"]


def test_on_sigterm_every_call_in_flight_is_answered_and_logged(world):
    _, contract, *_ = model("logistic")
    worker = world.worker(slow=0.02)
    front = world.front([route("logistic", worker.address)])
    callers = Callers(front.address, contract.example, count=8)
    until(lambda: len(callers.answers) > 50)
    front.signal(signal.SIGTERM)
    until(lambda: status_of(front.address, READY) in {503, 0})
    assert front.ended() == 0
    callers.stop()
    # Who connects after the end finds nobody; whoever had sent a call has got its answer.
    assert [
        one for one in callers.failures if one[0] is not False and "refused" not in one[1]
    ] == []
    found = calllog.verify(front.inbox / "calls", "cancer-w1")
    assert found.problems == ()
    assert found.records == len(callers.answers)
    assert found.drops == 0


@pytest.mark.slow
def test_a_slow_call_outlives_sigterm(world):
    _, contract, *_ = model("logistic")
    front = world.front([route("logistic", world.worker(slow=1.5).address)])
    got = []
    caller = threading.Thread(
        target=lambda: got.append(predict(front.address, contract.example)[0])
    )
    caller.start()
    until(lambda: counts(front.address)["nbmlops_in_flight"] == 1)
    front.signal(signal.SIGTERM)
    caller.join()
    assert got == [200]
    assert front.ended() == 0


def test_a_port_that_is_taken_ends_the_front_with_a_clear_word(served, tmp_path):
    second = Process("nbmlops.front", front_inbox(tmp_path / "second", []), served.address)
    assert second.ended() == 1
    assert "cannot be had" in second.log.read_text().splitlines()[-1]


def test_beyond_loopback_it_does_not_listen(tmp_path):
    for address in ("tcp:0.0.0.0:8080", "unix:/tmp/front.sock"):
        one = Process("nbmlops.front", front_inbox(tmp_path, []), address)
        assert one.ended() == 1
        assert "loopback" in one.log.read_text().splitlines()[-1]


def test_routes_that_have_no_meaning_end_the_start(tmp_path):
    inbox = front_inbox(tmp_path, [route("mixed", "unix:/a.sock", share=1.0)])
    one = Process("nbmlops.front", inbox, free_address())
    assert one.ended() == 1
    assert "invalid-routes" in one.log.read_text().splitlines()[-1]


# --- sockets ------------------------------------------------------------------------------------


def raw_socket(address):
    made = socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=30)
    made.settimeout(30)
    return made


@pytest.mark.slow
def test_headers_and_bodies_that_trickle_are_cut_off_and_others_served(served):
    host = served.address.removeprefix("tcp:")
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\n"
    in_headers = [raw_socket(served.address) for _ in range(100)]
    in_body = [raw_socket(served.address) for _ in range(100)]
    began = time.monotonic()
    for one in in_headers:
        one.sendall(head.encode())
    for one in in_body:
        one.sendall(f"{head}Content-Length: 1000\r\n\r\n[".encode())
    assert predict(served.address, GOOD)[0] == 200
    for one in in_body:
        assert b" 408 " in one.recv(4096)
    for one in [*in_body, *in_headers]:
        while one.recv(4096):
            pass
        one.close()
    assert time.monotonic() - began < 12
    assert predict(served.address, GOOD)[0] == 200


def test_idle_connections_do_not_keep_others_out(served):
    idle = [raw_socket(served.address) for _ in range(300)]
    assert predict(served.address, GOOD)[0] == 200
    for one in idle:
        one.close()


def test_a_client_that_leaves_in_the_middle_harms_nobody(served):
    host = served.address.removeprefix("tcp:")
    for _ in range(20):
        one = raw_socket(served.address)
        one.sendall(
            f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99\r\n\r\n[".encode()
        )
        one.close()
    assert predict(served.address, GOOD)[0] == 200
    until(lambda: counts(served.address)["nbmlops_in_flight"] == 0)
    assert "Traceback" not in served.log.read_text()


def test_the_front_loads_nothing_of_the_project_side():
    program = (
        "import sys, nbmlops.front.__main__\n"
        "heavy = {'numpy', 'pandas', 'sklearn', 'skops', 'scipy', 'sqlalchemy', 'papermill'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(SOURCE), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
