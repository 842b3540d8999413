"""The front's HTTP client, against servers that do all that servers do."""

import asyncio

import pytest

from nbmlops.front.client import Client, NotHttp, Unreachable
from nbmlops.tensors import parse_address


class Server:
    """Answers each request of each connection with the next of some byte strings."""

    def __init__(self, *answers, close_after=None):
        self.answers = list(answers)
        self.close_after = close_after
        self.connections = 0
        self.requests = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.client = Client(parse_address(f"tcp:127.0.0.1:{port}"), "secret")
        return self

    async def __aexit__(self, *_):
        self.client.close()
        self.server.close()

    async def serve(self, reader, writer):
        self.connections += 1
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.requests.append(head + await reader.readexactly(length))
            answer = self.answers.pop(0)
            for part in answer if isinstance(answer, list) else [answer]:
                if part is None:
                    writer.close()
                    return
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()


def ok(body, *headers):
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_connection_is_kept_and_carries_one_request_at_a_time():
    async def scenario():
        async with Server(*[ok(str(number), "X-Kept: yes") for number in range(6)]) as server:
            for number in range(3):
                response = await server.client.post("/a", "X: 1\r\n", b"body")
                assert (response.status, response.body) == (200, str(number).encode())
                assert response.headers["x-kept"] == "yes"
            assert server.connections == 1
            assert b"Authorization: Bearer secret\r\n" in server.requests[0]
            assert server.requests[0].endswith(b"\r\nX: 1\r\nContent-Length: 4\r\n\r\nbody")
            found = await asyncio.gather(*(server.client.get("/b") for _ in range(3)))
            assert sorted(one.body for one in found) == [b"3", b"4", b"5"]
            assert server.connections == 3

    run(scenario)


def test_bodies_come_in_chunks_in_parts_and_after_a_continue():
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )

    async def scenario():
        whole = ok("hello")
        parts = [whole[:5], whole[5:20], whole[20:]]
        first = [b"HTTP/1.1 100 Continue\r\n\r\n", ok("later")]
        async with Server(chunked, parts, first, ok("last")) as server:
            bodies = [(await server.client.get("/")).body for _ in range(4)]
            assert bodies == [b"abcde", b"hello", b"later", b"last"]
            assert server.connections == 1

    run(scenario)


def test_a_connection_that_is_closed_is_not_used_again():
    async def scenario():
        async with Server(
            ok("1", "Connection: close"), ok("2"), [ok("3"), None], ok("4")
        ) as server:
            for number in range(1, 5):
                assert (await server.client.get("/")).body == str(number).encode()
                await asyncio.sleep(0.05)
            assert server.connections == 3

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", NotHttp),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", None], Unreachable),
        ([None], Unreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", NotHttp),
    ],
)
def test_what_is_no_whole_answer_is_told_and_the_next_request_has_a_new_connection(answer, error):
    async def scenario():
        async with Server(answer, ok("fine")) as server:
            with pytest.raises(error):
                await server.client.get("/")
            assert (await server.client.get("/")).body == b"fine"
            assert server.connections == 2

    run(scenario)


def test_a_request_that_is_given_up_does_not_leave_its_answer_to_the_next():
    async def scenario():
        async with Server([b"HTTP/1.1 200 OK\r\n", ok("late")[17:]], ok("mine")) as server:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.client.get("/slow"), 0.005)
            assert (await server.client.get("/")).body == b"mine"

    run(scenario)


def test_nobody_there_is_told():
    async def scenario():
        for address in ("unix:/nowhere/at/all.sock", "tcp:127.0.0.1:1"):
            with pytest.raises(Unreachable):
                await Client(parse_address(address)).get("/")

    run(scenario)


def test_an_answer_that_is_too_large_is_cut_off(monkeypatch):
    from nbmlops.front import client

    monkeypatch.setattr(client, "ANSWER_LIMIT_BYTES", 100)

    async def scenario():
        async with Server(ok("x" * 101), ok("x" * 100)) as server:
            with pytest.raises(NotHttp, match="more than 100"):
                await server.client.get("/")
            assert len((await server.client.get("/")).body) == 100

    run(scenario)
