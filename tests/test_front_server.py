"""The front's HTTP server: what clients send, in whatever pieces, and what they get."""

import asyncio
import contextlib
import socket

import pytest
import uvloop

from nbmlops.front import server as servers
from nbmlops.front.server import Server

pytestmark = pytest.mark.slow  # clients that keep a server waiting

GET = b"GET /hello?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"


async def echo(scope, receive, send):
    """Answer with what was asked; ``/slow`` waits, ``/unread`` does not look at the body."""
    body = b""
    if scope["path"] != "/unread":
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    if scope["path"] == "/broken":
        raise ValueError("the application is broken")
    told = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode() + body
    headers = [(b"content-length", str(len(told)).encode())]
    if scope["path"] == "/last":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


class Client:
    """A raw connection that reads answers."""

    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    def send(self, data):
        self.writer.write(data)

    async def answer(self, method="GET"):
        """Return status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        return int(first.split()[1]), headers, await self.reader.readexactly(length)

    async def is_closed(self, within_s=5.0):
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), within_s) == b""
        return True

    def close(self):
        self.writer.close()


def run(scenario, application=echo, connections=100, take=lambda _: False):
    async def whole():
        server = Server(application, connections, take)
        await server.listen("127.0.0.1", 0, 100)
        port = server.sockets[0].getsockname()[1]
        clients = []

        async def client():
            clients.append(await Client().open(port))
            return clients[-1]

        try:
            await scenario(client, server)
        finally:
            for one in clients:
                one.close()
            server.stop()
            await server.wait_closed(1.0)

    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):  # uvloop is what serves
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(whole(), 30))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_requests_come_in_any_pieces_and_are_answered_on_one_connection(size):
    requests = (
        GET
        + b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        + b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        + b"POST /%C3%BC%20x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
        + b"GET http://h/absolute HTTP/1.1\r\nHost: h\r\n\r\n"
    )

    async def scenario(client, _):
        one = await client()
        for start in range(0, len(requests), size):
            one.send(requests[start : start + size])
            if size < 1000:
                await asyncio.sleep(0)
        bodies = [(await one.answer())[2].decode() for _ in range(5)]
        assert bodies == [
            "GET /hello x=1 ", "POST /a  hello", "POST /b  abc", "POST /ü x  ", "GET /absolute  ",
        ]  # fmt: skip

    run(scenario)


def test_pipelined_requests_are_answered_in_order_however_many_there_are():
    async def scenario(client, _):
        one = await client()
        slow = b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n"
        one.send(slow + b"".join(GET.replace(b"hello", b"%d" % n) for n in range(100)))
        assert (await one.answer())[2] == b"GET /slow  "
        for number in range(100):
            assert (await one.answer())[2] == b"GET /%d x=1 " % number

    run(scenario)


def test_a_head_is_answered_without_a_body_and_old_clients_are_kept_if_they_ask():
    async def scenario(client, _):
        one = await client()
        one.send(b"HEAD /hello HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
        assert (await one.answer("HEAD"))[1]["content-length"] == "13"
        assert (await one.answer())[2] == b"GET /hello x=1 "
        one.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await one.answer())[1]["connection"] == "keep-alive"
        one.send(b"GET /a HTTP/1.0\r\n\r\n")
        assert (await one.answer())[1]["connection"] == "close"
        assert await one.is_closed()

    run(scenario)


def test_a_connection_is_closed_after_an_answer_that_says_so():
    async def scenario(client, _):
        for request in (
            b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        ):
            one = await client()
            one.send(request + GET)
            assert (await one.answer())[1]["connection"] == "close"
            assert await one.is_closed()

    run(scenario)


def test_who_asks_whether_to_send_a_body_is_told_so():
    async def scenario(client, _):
        one = await client()
        head = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        one.send(head)
        assert (await one.answer())[0] == 100
        one.send(b"ab")
        assert (await one.answer())[2] == b"POST /a  ab"
        one.send(head.replace(b"/a", b"/unread"))
        status, headers, _ = await one.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await one.is_closed()

    run(scenario)


def test_a_body_that_nobody_wants_does_not_become_the_next_request():
    async def scenario(client, _):
        one = await client()
        inside = GET * 3000
        head = b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(inside)
        one.send(head + inside + GET)
        assert (await one.answer())[2] == b"POST /unread  "
        assert (await one.answer())[2] == b"GET /hello x=1 "
        one.send(GET)
        assert (await one.answer())[2] == b"GET /hello x=1 "

    run(scenario)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"not http at all\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * 100_000), 431),
        (b"GET / HTTP/1.1\r\n" + b"X: %s\r\n" % (b"y" * 1000) * 50 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(request_, status):
    async def scenario(client, _):
        one = await client()
        one.send(request_)
        assert (await one.answer())[0] == status
        one.send(GET)
        assert await one.is_closed()
        other = await client()
        other.send(GET)
        assert (await other.answer())[0] == 200

    run(scenario)


@pytest.mark.parametrize("size", [1, 1000])
def test_an_upgrade_is_not_taken_and_the_request_answered_with_its_body(size):
    offer = (
        b"Host: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    )
    requests = (
        b"GET /a HTTP/1.1\r\n" + offer + b"\r\n"
        b"POST /b HTTP/1.1\r\n" + offer + b"Content-Length: 5\r\n\r\nhello"
        b"POST /c HTTP/1.1\r\n" + offer + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    )  # fmt: skip

    async def scenario(client, _):
        one = await client()
        for start in range(0, len(requests), size):
            one.send(requests[start : start + size])
            await asyncio.sleep(0)
        bodies = [(await one.answer())[2] for _ in range(3)]
        assert bodies == [b"GET /a  ", b"POST /b  hello", b"POST /c  hi"]
        one.send(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await one.answer())[1]["connection"] == "close"
        assert await one.is_closed()

    run(scenario)


def test_a_trailer_is_no_header():
    async def headers(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        told = repr(sorted(name for name, _ in scope["headers"])).encode()
        about = [(b"content-length", b"%d" % len(told))]
        await send({"type": "http.response.start", "status": 200, "headers": about})
        await send({"type": "http.response.body", "body": told})

    async def scenario(client, _):
        one = await client()
        one.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
            b"Authorization: Bearer x\r\nHost: evil\r\n\r\n"
        )
        assert (await one.answer())[2] == b"[b'host', b'transfer-encoding']"

    run(scenario, headers)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://h/a/b", "/a/b"),
        (b"http://h", "/"),
        (b"/x://a/b", "/x://a/b"),
        (b"/a%2Fb", "/a%2Fb"),
        (b"/a%20b", "/a b"),
    ],
)
def test_a_path_is_what_it_looks_like(target, path):
    assert servers._path(target) == path


def test_waiting_has_its_limits(monkeypatch):
    monkeypatch.setattr(servers, "SWEEP_S", 0.05)
    monkeypatch.setattr(servers, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(servers, "KEEPALIVE_S", 0.6)
    monkeypatch.setattr(servers, "DISCARD_TIMEOUT_S", 0.3)

    async def scenario(client, _):
        silent, trickling, idle, unread = [await client() for _ in range(4)]
        trickling.send(b"GET / HT")
        idle.send(GET)
        unread.send(b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        assert (await idle.answer())[0] == (await unread.answer())[0] == 200
        assert await silent.is_closed(2.0)
        assert (await trickling.answer())[0] == 408
        assert await unread.is_closed(2.0)
        busy = await client()
        busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await busy.answer())[0] == 200
        assert await idle.is_closed(2.0)

    run(scenario)


def test_a_client_that_does_not_read_costs_nobody_else_anything(monkeypatch):
    monkeypatch.setattr(servers, "SWEEP_S", 0.05)
    monkeypatch.setattr(servers, "WRITE_TIMEOUT_S", 0.5)
    calls = 0

    async def large(_scope, receive, send):
        nonlocal calls
        calls += 1
        await receive()
        body = b"x" * 4_000_000
        headers = [(b"content-length", b"4000000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def scenario(client, _):
        nonlocal calls
        deaf = await client()
        deaf.reader._transport.pause_reading()
        deaf.send(GET * 100)
        await asyncio.sleep(0.3)
        assert calls < 10, "the next answer is not made while the last one is not taken"
        calls = 0
        other = await client()
        other.send(GET)
        assert len((await other.answer())[2]) == 4_000_000
        await asyncio.sleep(0.6)
        deaf.reader._transport.resume_reading()
        assert not await deaf.is_closed()  # what it had taken by then, and then the end

    run(scenario, large)


def test_beyond_the_limit_the_longest_idle_connection_makes_room():
    async def scenario(client, server):
        first, second, third = [await client() for _ in range(3)]
        for one in (first, second, third, first):  # now the second is idle for longest
            one.send(GET)
            await one.answer()
        fourth = await client()
        fourth.send(GET)
        assert (await fourth.answer())[0] == 200
        assert await second.is_closed()
        for one in (first, third, fourth):
            one.send(GET)
            assert (await one.answer())[0] == 200
        assert len(server._open) == 3

    run(scenario, connections=3)


def test_a_stop_answers_what_is_here_and_closes_the_rest():
    async def scenario(client, server):
        idle, busy = await client(), await client()
        idle.send(GET)
        await idle.answer()
        busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.sleep(0.05)
        server.stop()
        assert await idle.is_closed()
        assert (await busy.answer())[2] == b"GET /slow  "
        assert await busy.is_closed()
        with pytest.raises(OSError):
            await client()

    run(scenario)


def test_a_stop_answers_who_has_connected_and_was_not_accepted_yet():
    async def scenario(_, server):
        address = server.sockets[0].getsockname()
        waiting = [socket.create_connection(address) for _ in range(20)]
        for one in waiting[:-1]:
            one.sendall(GET)
        server.stop()  # in this very turn of the loop, so none of them has been accepted
        await asyncio.sleep(0.1)
        for one in waiting[:-1]:
            assert one.recv(1000).startswith(b"HTTP/1.1 200 OK")
        with pytest.raises(OSError):
            socket.create_connection(address)
        await asyncio.wait_for(server._empty.wait(), 3.0)  # the silent one is not waited for long
        for one in waiting:
            one.close()

    run(scenario)


def test_an_application_that_fails_or_a_client_that_leaves_ends_its_own_connection(capsys):
    async def scenario(client, _):
        one = await client()
        one.send(b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await one.is_closed()
        gone = await client()
        gone.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
        await asyncio.sleep(0.05)
        gone.close()
        other = await client()
        other.send(GET)
        assert (await other.answer())[0] == 200

    run(scenario)
    assert "the application is broken" in capsys.readouterr().err


def test_a_client_may_close_its_side_and_wait():
    async def scenario(client, _):
        one = await client()
        one.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
        one.writer.write_eof()
        assert (await one.answer())[2] == b"GET /slow  "
        assert (await one.answer())[2] == b"GET /hello x=1 "
        assert await one.is_closed()
        half = await client()
        half.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
        await asyncio.sleep(0.05)
        half.writer.write_eof()
        assert (await half.answer())[0] == 400
        assert await half.is_closed()

    run(scenario)


def test_a_client_that_leaves_while_it_is_refused_ends_its_connection_quietly(caplog):
    async def scenario(client, _):
        head = b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n"
        for request in (head + b"Expect: 100-continue\r\n\r\n", b"senseless\r\n\r\n"):
            one = await client()
            one.send(request)
            assert (await one.answer())[1]["connection"] == "close"
            one.writer.write_eof()
            assert await one.is_closed()

    run(scenario)
    assert caplog.records == [], "the event loop has nothing to complain of"


def test_a_small_body_that_comes_in_two_packets_is_taken_at_once_and_one_that_stays_away_is_not(
    monkeypatch,
):
    monkeypatch.setattr(servers, "SWEEP_S", 0.05)
    monkeypatch.setattr(servers, "BODY_MOMENT_S", 0.2)
    taken = []

    def take(exchange):
        if exchange.scope["path"] != "/take":
            return False
        taken.append(exchange.body())
        exchange.respond(200, b"content-length: 2\r\n", b"ok", closing=False)
        return True

    async def scenario(client, _):
        taken.clear()
        one = await client()
        head = b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
        for part in (head, b"hello", head[:20], head[20:] + b"he", b"llo"):
            one.send(part)
            await asyncio.sleep(0.02)
        assert [(await one.answer())[2] for _ in range(2)] == [b"ok"] * 2
        one.send((head + b"again") * 500)  # in one packet: no recursion, however many
        assert [(await one.answer())[2] for _ in range(500)] == [b"ok"] * 500
        assert taken == [b"hello"] * 2 + [b"again"] * 500
        one.send(head + b"he")
        await asyncio.sleep(0.5)
        one.send(b"llo")
        assert (await one.answer())[2] == b"POST /take  hello", "by the application"
        half = await client()
        half.send(head + b"he")
        await asyncio.sleep(0.05)
        half.writer.write_eof()
        assert (await half.answer())[0] == 400
        assert await half.is_closed()

    run(scenario, take=take)


def test_what_was_asked_before_something_senseless_is_answered_first():
    async def scenario(client, _):
        one = await client()
        one.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n" + GET + b"senseless\r\n\r\n")
        assert (await one.answer())[2] == b"GET /slow  "
        assert (await one.answer())[2] == b"GET /hello x=1 "
        assert await one.is_closed()

    run(scenario)
