"""Attacks on a served model, against real processes. Which test holds which attack off:

===  =====================================================  =====================================
A1   odd names and ids over HTTP, on every route             test_odd_names_over_http_...
A1   odd ids of calls                                        test_an_odd_call_id_..., test_calllog
A2   pickles, types that nobody trusts, before the load      test_a_model_file_with_code_in_it_...
A3   a tampered model file, a tampered call log              test_tampered_..., test_worker
A6   every route x method: who may                           test_who_may_is_one_table_...
A6   DNS rebinding, other origins, CORS                      test_a_page_of_somebody_elses_...
A6   only loopback, and beyond it only with a token          test_beyond_loopback_...
A7   tokens found nowhere, hashed, private files             test_tokens_are_found_nowhere_...
A9   no fetching of what clients name                        test_nothing_that_a_client_names_...
===  =====================================================  =====================================

Attacks on runs, snapshots and the ledger are in ``test_attacks``.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import secrets
import socket
import threading
import zipfile
from pathlib import Path

import msgspec
import psutil
import pytest

from nbmlops import calllog, endpoints, traces
from nbmlops.errors import NbmlopsError
from nbmlops.front.app import ROUTES
from nbmlops.records import RouteTable, dump
from serving import (
    TOKEN,
    Process,
    ask,
    free_address,
    front_inbox,
    model,
    route,
    socket_path,
    status_of,
    worker_inbox,
)
from test_front import World, predict, raw_socket

pytestmark = pytest.mark.slow  # real processes and servers

GOOD = {"city": "Bern", "age": 41, "member": True}
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One mixed model behind one front, for tests that only call it."""
    made = World(tmp_path_factory.mktemp("attacked"))
    worker = made.worker("mixed")
    front = made.front([route("mixed", worker.address)])
    front.worker = worker
    yield front
    made.close()


def raw(address, text, timeout=10.0):
    """Send bytes as they are, and return all that comes back until the other end closes."""
    with raw_socket(address) as one:
        one.settimeout(timeout)
        one.sendall(text)
        parts = []
        while part := one.recv(65536):
            parts.append(part)
        return b"".join(parts)


def status_line(address, method, target, *headers):
    """Return the status of a request whose target is sent as it stands, and the whole answer."""
    host = address.removeprefix("tcp:")
    lines = [f"{method} ".encode() + target + b" HTTP/1.1", f"Host: {host}".encode()]
    lines += [header.encode() for header in headers]
    answer = raw(address, b"\r\n".join([*lines, b"Connection: close", b"", b""]))
    return (int(answer.split(b" ", 2)[1]) if answer else 0), answer


# --- A1: names and ids ----------------------------------------------------------------------------

ODD = [
    b"..", b"../../etc/passwd", b"%2e%2e", b"%252e%252e", b"%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    b"..%5c..%5cetc", b"%00", b"cancer%00", b"cancer%00.txt", b"cancer;x=1", b";", b"cancer;/infer",
    b"/etc/passwd", b"//etc/passwd", b"%2fetc%2fpasswd", b"cancer-evil", b"cancerx", b"cance",
    b"cancer%20", b"cancer.", b"CANCER", b"cancer%0d%0aX-Evil:%201", b"*", b"%", b"%zz", b"~root",
    b"\xff\xfe", b"c%C3%A4ncer", b"x" * 4000, b"$(id)", b"`id`", b"|cat", b"file:%2f%2f%2fetc",
    b"http:%2f%2fevil.example", b"{0.__class__}", b"' OR 1=1 --",
]  # fmt: skip
PLACES = [
    b"/%s", b"/v2/models/%s", b"/v2/models/%s/ready", b"/v2/models/%s/infer",
    b"/v2/models/cancer/versions/%s", b"/v2/models/cancer/versions/%s/ready",
    b"/v2/models/cancer/versions/%s/infer", b"/docs/%s", b"/control/%s", b"/health/%s",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.decode())
def test_odd_names_over_http_find_nothing_on_any_route(served, place):
    for odd in ODD:
        for method in ("GET", "POST", "PUT"):
            status, answer = status_line(
                served.address, method, place.replace(b"%s", odd), "Content-Length: 0"
            )
            assert status in {400, 404, 405, 414, 431}, (method, odd, answer[:200])
            assert b"root:" not in answer
            assert b"\nX-Evil" not in answer.replace(b"\r", b""), odd
            assert b"Traceback" not in answer
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize(
    "odd",
    [
        "..", "../../etc/passwd", "%252e%252e", "a\0b", "a;b", "/etc/passwd", "x" * 5000, "-rf",
        "018bcfe5680070008000000000000000-../a", "018bcfe5680070008000000000000000-cancer;w1",
        "018bcfe5680070008000000000000000-%2e%2e", "018bcfe5680070008000000000000000-cancer-w1/x",
    ],
)  # fmt: skip
def test_an_odd_call_id_never_becomes_a_path(served, workspace, tmp_path, odd):
    before = sorted(path for path in tmp_path.rglob("*") if ".git" not in path.parts)
    for place in (served.inbox / "calls", tmp_path / "calls"):
        with pytest.raises(NbmlopsError) as caught:
            calllog.find(place, odd)
        assert caught.value.exit_code == 2
    with pytest.raises(NbmlopsError) as caught:
        traces.trace(workspace, f"call/{odd}")
    assert (caught.value.exit_code, bool(caught.value.hint)) == (2, True)
    for name in (odd, f"cancer/{odd}"):
        with pytest.raises(NbmlopsError):
            endpoints.find(workspace, name)
    after = sorted(path for path in tmp_path.rglob("*") if ".git" not in path.parts)
    assert after == before


# --- A2: code in models ---------------------------------------------------------------------------


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def skops_of(folder, module, name):
    """Return a skops file in which a type was exchanged for another."""
    content, *_ = model("mixed")
    path = folder / "changed.skops"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    document = json.loads(parts["schema.json"])
    document["__module__"], document["__class__"] = module, name
    parts["schema.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for entry, part in parts.items():
            archive.writestr(entry, part)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["pickle", "pickle-as-skops", "os.system", "builtins.eval"])
def test_a_model_file_with_code_in_it_ends_the_worker_before_it_is_loaded(tmp_path, kind):
    trace = tmp_path / "it-ran"
    if kind.startswith("pickle"):
        content = pickle.dumps(Payload(trace))
    else:
        content = skops_of(tmp_path, *kind.rsplit(".", 1))
    inbox = worker_inbox(
        tmp_path / "inbox",
        "mixed",
        format="pickle" if kind == "pickle" else "skops",
        model_digest=hashlib.sha256(content).hexdigest(),
    )
    (inbox / "model.skops").write_bytes(content)
    one = Process("nbmlops.worker", inbox, f"unix:{socket_path()}")
    assert one.ended() == 1
    last = one.log.read_text().splitlines()[-1]
    assert "model-refused" in last or "not a zip" in last.lower(), last
    assert not trace.exists()


# --- A3: tampering --------------------------------------------------------------------------------


def test_tampered_calls_are_found_and_never_handed_out(tmp_path):
    world = World(tmp_path)
    try:
        front = world.front([route("mixed", world.worker("mixed").address)])
        made = [json.loads(predict(front.address, GOOD)[2])["call_id"] for _ in range(5)]
        calls = front.inbox / "calls"
        assert calllog.verify(calls, "cancer-w1").problems == ()
        (segment,) = (calls / "cancer-w1").glob("*.jsonl")
        assert segment.stat().st_mode & 0o077 == 0
        content = segment.read_bytes()
        segment.write_bytes(content.replace(b'"age":41', b'"age":14', 1))
        assert calllog.verify(calls, "cancer-w1").problems
        with pytest.raises(NbmlopsError) as caught:
            calllog.find(calls, made[0])
        assert caught.value.code == "artifact-corrupt"
        assert calllog.find(calls, made[1]).records == (GOOD,)
        assert predict(front.address, GOOD)[0] == 200, "serving goes on"
    finally:
        world.close()


# --- A6: who may ----------------------------------------------------------------------------------

CALL, READ, OPEN, CONTROL = "call", "read", "open", "control"
# Everything that a front serves: who may do it. A new route stands here before it is served.
WHO_MAY = {
    ("/", "GET"): READ,
    ("/predict", "POST"): CALL,
    ("/v2", "GET"): READ,
    ("/v2/health/live", "GET"): OPEN,
    ("/v2/health/ready", "GET"): OPEN,
    ("/v2/models/{model}", "GET"): READ,
    ("/v2/models/{model}/ready", "GET"): READ,
    ("/v2/models/{model}/infer", "POST"): CALL,
    ("/v2/models/{model}/versions/{version}", "GET"): READ,
    ("/v2/models/{model}/versions/{version}/ready", "GET"): READ,
    ("/v2/models/{model}/versions/{version}/infer", "POST"): CALL,
    ("/health/live", "GET"): OPEN,
    ("/health/ready", "GET"): OPEN,
    ("/metrics", "GET"): OPEN,
    ("/openapi.json", "GET"): READ,
    ("/docs", "GET"): READ,
    ("/docs/page.js", "GET"): READ,
    ("/docs/page.css", "GET"): READ,
    ("/control/routes", "GET"): CONTROL,
    ("/control/routes", "PUT"): CONTROL,
}
ACCESS = secrets.token_urlsafe(32)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def own_address():
    """Return an address of this machine that is not loopback, with a free port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            host = probe.getsockname()[0]
        except OSError:
            host = "127.0.0.1"
    if host.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"tcp:{host}:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def reachable(tmp_path_factory):
    """A front that others can reach, which asks for a token."""
    made = World(tmp_path_factory.mktemp("reachable"))
    worker = made.worker("mixed")
    address = own_address()
    inbox = front_inbox(
        made.folder / "front",
        [route("mixed", worker.address)],
        access_digest=hashlib.sha256(ACCESS.encode()).hexdigest(),
        hosts=(address.removeprefix("tcp:"),),
    )
    front = Process("nbmlops.front", inbox, address)
    made.running.append(front)
    yield front.ready("/health/ready")
    made.close()


def test_who_may_is_one_table_and_the_live_routes_are_those_in_it(served):
    live = {(path, method) for path, methods in ROUTES.items() for method in methods}
    assert live == set(WHO_MAY)
    assert set(json.loads(ask(served.address, "GET", "/")[2])["paths"]) == {
        path for (path, _), who in WHO_MAY.items() if who != CONTROL
    }


@pytest.mark.parametrize("template", [*dict.fromkeys(path for path, _ in WHO_MAY), "/other"])
def test_beyond_loopback_each_route_and_method_is_for_whom_the_table_says(reachable, template):
    path = template.format(model="cancer", version=3)
    allowed = {method: who for (one, method), who in WHO_MAY.items() if one == template}
    for method in METHODS:
        who = allowed.get("GET" if method == "HEAD" else method)
        tokens = {"none": {}, "access": bearer(ACCESS), "control": bearer(TOKEN)}
        tokens |= {"wrong": bearer("x"), "basic": {"Authorization": f"Basic {ACCESS}"}}
        for name, headers in tokens.items():
            status, told, content = ask(reachable.address, method, path, headers=headers)
            let_in = {
                None: {"access"}, CALL: {"access"}, READ: {"access"},
                OPEN: set(tokens), CONTROL: {"control"},
            }[who]  # fmt: skip
            free = any(one == OPEN for one in allowed.values())
            controls = any(one == CONTROL for one in allowed.values())
            if who is None and (free or controls):
                assert status == 405, (method, path, name)  # the path is nobody's secret
            elif name not in let_in:
                assert status == 401, (method, path, name)
                assert told["WWW-Authenticate"] == "Bearer"
                assert ACCESS.encode() not in content
            else:
                wanted = {None: {404, 405}, CALL: {400}}.get(who, {200, 307, 422})
                assert status in wanted, (method, path, name, content)
    query = f"{path}?token={ACCESS}&access_token={ACCESS}"
    if READ in allowed.values():
        assert ask(reachable.address, "GET", query)[0] == 401, "no tokens in URLs"


def test_a_worker_serves_the_protocol_alone_and_on_tcp_only_to_whom_has_its_token(tmp_path):
    token = secrets.token_urlsafe(32)
    inbox = worker_inbox(tmp_path / "inbox", "mixed")
    one = Process("nbmlops.worker", inbox, free_address(), NBMLOPS_WORKER_TOKEN=token)
    open_paths = {"/v2/health/live", "/v2/health/ready"}
    may = {
        "/v2": "GET", "/v2/models/cancer": "GET", "/v2/models/cancer/ready": "GET",
        "/v2/models/cancer/infer": "POST", "/v2/models/cancer/versions/3": "GET",
        "/v2/models/cancer/versions/3/ready": "GET", "/v2/models/cancer/versions/3/infer": "POST",
        **dict.fromkeys(open_paths, "GET"),
    }  # fmt: skip
    try:
        one.ready("/v2/health/ready")
        for path in [*may, "/", "/control/routes", "/v2/models/other", "/../etc/passwd"]:
            for method in METHODS:
                if method == "CONNECT":
                    continue
                without = ask(one.address, method, path, b"")[0]
                within = ask(one.address, method, path, b"", bearer(token))[0]
                if method == may.get(path):
                    assert without == (200 if path in open_paths else 401), (method, path)
                    assert within in {200, 400}, (method, path)
                else:
                    assert without in {401, 404, 405, 501}, (method, path, without)
                    assert within in {404, 405, 501}, (method, path, within)
    finally:
        one.stop()


def test_a_page_of_somebody_elses_gets_nothing_from_any_route(served):
    host = served.address.removeprefix("tcp:")
    rebound = ["evil.example", "evil.example:80", f"127.0.0.1.evil.example:{host.split(':')[1]}"]
    for (template, method), who in WHO_MAY.items():
        path = template.format(model="cancer", version=3)
        headers = bearer(TOKEN) if who == CONTROL else {}
        for name in rebound:
            status, told, content = ask(
                served.address, method, path, headers={**headers, "Host": name}
            )
            assert (status, b"host-refused" in content) == (421, True), (method, path)
        for origin in ("http://evil.example", "null", "https://127.0.0.1", f"http://{host}.evil"):
            status, told, _ = ask(
                served.address, method, path, headers={**headers, "Origin": origin}
            )
            assert method == "GET" or status == 403, (method, path, origin)
            # A GET may be asked for by any page, but no page may read the answer.
            assert not [one for one in told if one.lower().startswith("access-control")]
        preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": method}
        status, told, _ = ask(served.address, "OPTIONS", path, headers=preflight)
        assert status in {403, 405}, path
        assert not [one for one in told if one.lower().startswith("access-control")]
    assert predict(served.address, GOOD, Origin=f"http://{host}")[0] == 200


def test_two_hosts_or_none_are_refused(served):
    host = served.address.removeprefix("tcp:")
    for lines in (
        [f"Host: {host}", "Host: evil.example"],
        ["Host: evil.example", f"Host: {host}"],
        [],
        [f"Host: {host}@evil.example"],
        [f"Host: {host}, {host}"],
    ):
        text = "\r\n".join(["GET /metrics HTTP/1.1", *lines, "Connection: close", "", ""])
        answer = raw(served.address, text.encode())
        assert not answer or answer.split()[1] in {b"400", b"421"}, (lines, answer[:100])
    text = f"GET http://{host}/metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert b"nbmlops_requests_total" not in raw(served.address, text.encode())


def test_beyond_loopback_nothing_listens_without_a_token(tmp_path):
    address = own_address()
    for changes in ({}, {"access_digest": ""}, {"access_digest": "secret"}):
        one = Process("nbmlops.front", front_inbox(tmp_path, [], **changes), address)
        assert one.ended() == 1
        assert "loopback" in one.log.read_text().splitlines()[-1]
        assert status_of(address, "/health/live") == 0
    worker = Process("nbmlops.worker", worker_inbox(tmp_path / "w"), address)
    assert worker.ended() == 1
    assert "needs NBMLOPS_WORKER_TOKEN" in worker.log.read_text()


def test_on_loopback_no_other_machine_reaches_the_front(served):
    port = int(served.address.rsplit(":", 1)[1])
    listening = [
        one.laddr.ip
        for one in psutil.Process(served.process.pid).net_connections("inet")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    ]
    assert set(listening) == {"127.0.0.1"}


def test_a_route_table_never_leads_where_a_client_says(served):
    table = RouteTable(
        endpoint="cancer", revision=99, routes=(route("mixed", "tcp:169.254.169.254:80"),)
    )
    for headers in ({}, bearer("x"), bearer(TOKEN + "x"), {"Authorization": TOKEN}):
        assert ask(served.address, "PUT", "/control/routes", dump(table), headers)[0] == 401
    assert predict(served.address, GOOD)[0] == 200


# --- A7: tokens -----------------------------------------------------------------------------------


def test_tokens_are_found_nowhere_but_where_they_belong(tmp_path):
    control, access, inner = (secrets.token_urlsafe(32) for _ in range(3))
    world = World(tmp_path)
    try:
        worker = Process(
            "nbmlops.worker",
            worker_inbox(tmp_path / "worker", "mixed"),
            free_address(),
            NBMLOPS_WORKER_TOKEN=inner,
        )
        world.running.append(worker)
        worker.ready("/v2/health/ready")
        digests = [hashlib.sha256(token.encode()).hexdigest() for token in (control, access)]
        inbox = front_inbox(
            tmp_path / "front",
            [route("mixed", worker.address)],
            control_digest=digests[0],
            access_digest=digests[1],
        )
        front = Process("nbmlops.front", inbox, free_address(), NBMLOPS_WORKER_TOKEN=inner)
        world.running.append(front)
        front.ready("/health/ready")
        said = []
        for path in ("/predict", "/v2", "/control/routes", "/nothing", "/openapi.json", "/metrics"):
            for method in ("GET", "POST", "PUT"):
                for token in (control, access, inner):
                    status, told, content = ask(
                        front.address,
                        method,
                        path,
                        json.dumps([GOOD, {"token": token}]) if path == "/v2" else b"{",
                        {**bearer(token), "Content-Encoding": "identity"},
                    )
                    said += [content, str(told).encode()]
                    assert status != 500
        status, _, content = ask(
            front.address, "POST", "/predict", json.dumps(GOOD), bearer(access)
        )
        assert status == 200, content
        # The worker falls away: its address and its token are not what a client is told.
        worker.stop()
        said.append(ask(front.address, "POST", "/predict", json.dumps(GOOD), bearer(access))[2])
        for one in (front.process.pid, worker.process.pid):
            if psutil.pid_exists(one) and psutil.Process(one).status() != psutil.STATUS_ZOMBIE:
                said.append(" ".join(psutil.Process(one).cmdline()).encode())
        front.process.terminate()
        assert front.ended() == 0
        for path in tmp_path.rglob("*"):
            if path.is_file():
                said.append(path.read_bytes())
        for token in (control, access, inner):
            assert not [text for text in said if token.encode() in text]
    finally:
        world.close()


def test_the_environment_of_a_front_holds_no_token_of_its_own(served):
    environ = Path(f"/proc/{served.process.pid}/environ")
    if not environ.exists():
        pytest.skip("the environment of a process is read from /proc")
    assert TOKEN.encode() not in environ.read_bytes()
    assert environ.stat().st_mode & 0o077 == 0


# --- A9: no fetching ------------------------------------------------------------------------------


@pytest.fixture
def listener():
    """A server that counts who asks it anything."""
    asked = []

    class Counting(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(500)

        do_POST = do_HEAD = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/latest/meta-data", asked
    server.shutdown()


def test_nothing_that_a_client_names_is_fetched_or_opened(served, listener, tmp_path):
    url, asked = listener
    secret = tmp_path / "secret.json"
    secret.write_text('{"city": "Bern", "age": 41, "member": true}')
    inputs = [
        {"name": "city", "datatype": "BYTES", "shape": [1], "data": ["Bern"]},
        {"name": "age", "datatype": "INT64", "shape": [1], "data": [41]},
        {"name": "member", "datatype": "BOOL", "shape": [1], "data": [True]},
    ]
    named = {"storage_uri": url, "callback": url, "webhook": url, "model_uri": f"file://{secret}"}
    memory = {"shared_memory_region": "/etc/passwd", "shared_memory_byte_size": 8}
    bodies = [
        {"inputs": inputs, "parameters": named, **named},
        {"inputs": [{**one, "parameters": named} for one in inputs]},
        {"inputs": inputs, "outputs": [{"name": "prediction", "parameters": {**memory, **named}}]},
        {"inputs": [{**inputs[0], "data": None, "parameters": memory}, *inputs[1:]]},
        {"inputs": [{**inputs[0], "parameters": {**memory, "binary_data_size": 8}}, *inputs[1:]]},
    ]
    headers = {"X-Forwarded-Host": url, "Referer": url, "Forwarded": f"host={url}", "Link": url}
    statuses = [
        ask(served.address, "POST", "/v2/models/cancer/infer", json.dumps(body), headers)[0]
        for body in bodies
    ]
    # Shared memory is not served, and is not taken for something else either.
    assert statuses[3:] == [400, 400]
    assert set(statuses) <= {200, 400, 422}
    for row in ({**GOOD, "city": url}, {**GOOD, "$ref": url}, {"records_uri": url}, url):
        assert predict(served.address, row, **headers)[0] == 422
    for path in (
        "/v2/repository/index", "/v2/repository/models/cancer/load", "/v2/logging",
        "/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/a/register",
        "/v2/cudasharedmemory/status", "/v2/trace/setting", "/v2/models/stats",
    ):  # fmt: skip
        for method in ("GET", "POST"):
            body = json.dumps({"uri": url, "key": "/etc/passwd", "parameters": named})
            assert ask(served.address, method, path, body, headers)[0] in {404, 405}, path
    assert asked == []
    assert msgspec.json.decode(secret.read_bytes())["age"] == 41
