"""The front's HTTP/1.1 server: httptools' parser, asyncio's transports, limits of our own.

It calls one application as ASGI does, in the thread of the event loop. That spares the hand-over
between a server's threads and Python's, which costs more than a small prediction; and every limit
on what strangers may do stands here: the size of a head, the time for it, the number of
connections, pipelining, a client that does not read. Bodies are the application's affair: it is
given each part as it comes, and no more is read from the socket before it asks.

A small request comes whole in one packet, and most are predictions. Such an exchange is offered to
``take`` first, which is a plain function: it may answer later, by :meth:`Exchange.respond`, and so
spares the task, the futures and the messages that a request to the application costs.

An answer has one body, whose length is told; there is no streaming, no upgrade, no compression.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools

HEAD_LIMIT_BYTES = 32 * 1024
HEAD_TIMEOUT_S = 8.0  # for a request's head, and for a new connection's first one
KEEPALIVE_S = 75.0
LAST_CALL_S = 0.5  # for a connection that was accepted last, when no further one will be
DISCARD_TIMEOUT_S = 5.0  # for the rest of a body that nobody wants any more
BODY_MOMENT_S = 1.0  # for a small body to come whole, before the application waits for it
LINGER_S = 2.0  # for a client to see its refusal, while it still sends
WRITE_TIMEOUT_S = 30.0  # for a client to take its answer
SWEEP_S = 0.5
_BUFFER_BYTES = 256 * 1024  # of a body, before the socket is left alone
_SMALL_BODY_BYTES = 16 * 1024
_PIPELINED = 8

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
Take = Callable[["Exchange"], bool]

_STATUS = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _TooLarge(Exception):
    """A head has more bytes than any should have."""


def _path(given: bytes) -> str:
    """Return the path of a request target; one that was escaped to look like another stays so."""
    if given[:1] != b"/" and given[:8].lower().startswith((b"http://", b"https://")):
        given = b"/" + b"".join(given.split(b"/", 3)[3:])  # the absolute form, which proxies send
    if b"%" in given and b"%2f" not in given.lower():
        given = unquote_to_bytes(given)
    return given.decode("utf-8", "replace")


class Exchange:
    """One request and its answer: what the application calls ``receive`` and ``send``."""

    __slots__ = (
        "begun",
        "broken",
        "comes_soon",
        "complete",
        "connection",
        "continues",
        "discards",
        "head",
        "keeps",
        "left",
        "parts",
        "scope",
        "size",
        "waiting",
    )

    def __init__(self, connection: _Connection, scope: dict[str, Any], *, keeps: bool) -> None:
        self.connection = connection
        self.scope = scope
        self.keeps = keeps
        self.parts: list[bytes] = []
        self.size = 0
        self.begun = False  # somebody works on the answer
        self.comes_soon = False  # its body is small, and the client does not wait to be asked
        self.complete = False
        self.broken = 0  # with which status the rest of the body is refused
        self.continues = False
        self.discards = False
        # Is told when the client closes its side, and (``True``) when the connection is gone.
        self.left: Callable[[bool], None] | None = None
        self.head: dict[str, Any] = {}
        self.waiting: asyncio.Future[None] | None = None

    def feed(self, part: bytes) -> None:
        """Take a part of the body."""
        if not self.discards:
            self.parts.append(part)
            self.size += len(part)

    def wake(self) -> None:
        """Tell the application that there is something new."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """Return the next part of the body."""
        connection = self.connection
        if self.continues and not self.complete:
            self.continues = False
            connection.write(_CONTINUE)
        while not self.parts and not self.complete:
            if connection.transport is None or self.broken:
                return {"type": "http.disconnect"}
            connection.read_on()
            self.waiting = asyncio.get_running_loop().create_future()
            await self.waiting
        return {"type": "http.request", "body": self.body(), "more_body": not self.complete}

    def body(self) -> bytes:
        """Return what has come of the body, once."""
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts, self.size = [], 0
        return body

    async def send(self, message: dict[str, Any]) -> None:
        """Take the head of the answer, then write it with its body."""
        if message["type"] == "http.response.start":
            self.head = message
            return
        lines: list[bytes] = []
        closing = False
        for name, value in self.head["headers"]:
            if name == b"connection":
                closing = True
            else:
                lines += (name, b": ", value, b"\r\n")
        self.respond(self.head["status"], b"".join(lines), message["body"], closing=closing)

    def respond(self, status: int, lines: bytes, body: bytes, *, closing: bool) -> None:
        """Write the answer; ``lines`` are its headers, each with its end of line."""
        self.left = None
        scope = self.scope
        if closing or not self.keeps or (self.continues and not self.complete):
            self.keeps = False
            end = b"connection: close\r\n\r\n"
        elif scope["http_version"] == "1.0":
            end = b"connection: keep-alive\r\n\r\n"
        else:
            end = b"\r\n"
        if scope["method"] == "HEAD":
            body = b""
        date = self.connection.server.date
        self.connection.answered(self, b"".join((_STATUS[status], date, lines, end, body)))


class _Connection(asyncio.Protocol):
    """A client's connection; its requests are answered one after the other."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.since_s = time.monotonic()  # in the state that it is in
        self.unread_s: float | None = None  # since when the client does not read
        self._waiting: deque[Exchange] = deque()
        self._reading: Exchange | None = None  # whose body comes in
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = False
        self._expects = False  # the client waits to be told to send the body
        self._small = False  # the body that is told of
        self._fresh = True
        self._paused = False
        self._last = False  # no further request is taken
        self._plain_head = b""  # of a request that offers another protocol, without the offer
        self._lingers = False
        self._ended = False  # the client has closed its side
        self._stepping = False  # from one waiting request to the next

    # --- of asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None
        self.server.closed(self)
        for exchange in (self.exchange, self._reading):
            if exchange is not None:
                exchange.wake()
        if self.exchange is not None and self.exchange.left is not None:
            self.exchange.left(True)

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            large = isinstance(error.__context__, _TooLarge)
            self._refuse(431 if large else 500)
        except httptools.HttpParserError:
            self._refuse(400)
        exchange = self.exchange
        if exchange is not None and not exchange.begun and not exchange.comes_soon:
            self._begin(exchange)  # the rest of its body is still to come
        reading = self._reading
        if reading is not None and reading.parts:
            reading.wake()
            if reading.size > _BUFFER_BYTES:
                self._pause()

    def _parse(self, data: bytes) -> None:
        """Feed the parser; an upgrade to another protocol is an offer, which is not taken.

        The parser stops at such a head, so the request is given to another one without the offer.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                head, self._plain_head = self._plain_head, b""
                if not head:  # CONNECT: what follows is not HTTP
                    self._last = True
                    return
                self._parser = httptools.HttpRequestParser(self)
                data = head + data[stop.args[0] :]
            else:
                return

    def eof_received(self) -> bool:
        self._ended = True
        if self._lingers:  # this is what we waited for
            return False
        if self._reading is not None:  # the rest of its body will not come
            self._refuse(400)
        self._last = True
        if self.exchange is not None and self.exchange.left is not None:
            self.exchange.left(False)
        return self.exchange is not None  # a client may close its side and wait for its answers

    def pause_writing(self) -> None:
        self.unread_s = time.monotonic()

    def resume_writing(self) -> None:
        self.unread_s = None
        if self.exchange is None:
            self._next()

    # --- of httptools ---

    def on_message_begin(self) -> None:
        self._url, self._headers, self._head_bytes = b"", [], 0
        self._in_head, self._fresh, self._expects, self._small = True, False, False, False
        if self.exchange is None:
            self.since_s = time.monotonic()
            self.server.busy(self)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if not self._in_head:  # a trailer: whoever checked the head has not seen it
            return
        name = name.lower()
        self._headers.append((name, value))
        if name == b"expect":
            self._expects = value.lower() == b"100-continue"
        elif name == b"content-length":
            self._small = value.isdigit() and len(value) < 9 and int(value) <= _SMALL_BODY_BYTES

    def _count(self, size: int) -> None:
        self._head_bytes += size + 4
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise _TooLarge

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._last:  # closed by the answer before
            return
        method = self._parser.get_method()
        upgrade = self._parser.should_upgrade()
        if upgrade and method != b"CONNECT":
            self._plain_head = self._without_upgrade(method)
            return
        path, _, query = self._url.partition(b"?")
        scope = {
            "type": "http",
            "http_version": self._parser.get_http_version(),
            "method": method.decode("latin-1"),
            "path": _path(path),
            "query_string": query,
            "headers": self._headers,
        }
        keeps = self._parser.should_keep_alive() and not upgrade
        exchange = self._reading = Exchange(self, scope, keeps=keeps)
        exchange.continues = self._expects
        exchange.comes_soon = self._small and not self._expects
        if self.exchange is None and self.unread_s is None:
            self.exchange = exchange  # and begun when its body is here, or has not come
            self.since_s = time.monotonic()
        else:
            self._waiting.append(exchange)
            if len(self._waiting) >= _PIPELINED:
                self._pause()

    def _without_upgrade(self, method: bytes) -> bytes:
        """Return the head that was read, without its offer of another protocol."""
        version = self._parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self._url, version)]
        for name, value in self._headers:
            if name == b"connection":
                words = [word.strip() for word in value.split(b",")]
                kept = [word for word in words if word.lower() != b"upgrade"]
                lines += [b"connection: " + b", ".join(kept)] if kept else []
            elif name != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join((*lines, b"", b""))

    def on_body(self, part: bytes) -> None:
        if self._reading is not None:
            self._reading.feed(part)

    def on_message_complete(self) -> None:
        reading = self._reading
        if reading is None:
            return
        self._reading = None
        reading.complete = True
        if reading is self.exchange and not reading.begun:
            self._begin(reading)
            return
        reading.wake()
        if reading.discards and self.exchange is None:
            self._next()

    # --- of the exchanges ---

    def write(self, data: bytes) -> None:
        """Send bytes, unless the client has gone."""
        if self.transport is not None:
            self.transport.write(data)

    def read_on(self) -> None:
        """Read from the socket again."""
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    def _pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def _begin(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.begun = True
        self.since_s = time.monotonic()
        self.server.run(exchange)

    def answered(self, exchange: Exchange, data: bytes) -> None:
        """Send an answer, and go on to the next request."""
        self.write(data)
        self.exchange = None
        self.since_s = time.monotonic()
        if not exchange.keeps or (self._last and not self._waiting):
            self.close(linger=not exchange.complete)
        elif not exchange.complete:
            exchange.discards = True  # what is left of the body is read and forgotten
            exchange.parts = []
            self.read_on()
        else:
            self._next()

    def _next(self) -> None:
        if self.unread_s is not None or self.transport is None or self._stepping:
            return
        self._stepping = True  # what is answered at once comes back here: a loop, no recursion
        while self._waiting and self.exchange is None and self.unread_s is None:
            self._begin(self._waiting.popleft())
        self._stepping = False
        if self.exchange is None and not self._waiting and not self._in_head:
            self.server.idle(self)
        if self._reading is None or self._reading is self.exchange:
            self.read_on()

    def ended(self, exchange: Exchange) -> None:
        """Take note that the application is done, which should have answered."""
        if self.exchange is exchange:
            self.exchange = None
            if exchange.broken:
                self._refuse(exchange.broken)
            else:
                self.close()

    def _refuse(self, status: int) -> None:
        """Answer what is no request, and hear no more of this client."""
        self._last = True
        reading, self._reading = self._reading, None
        if self.exchange is not None and not self.exchange.begun:
            self.exchange = None
        if reading is not None and reading is self.exchange:
            reading.broken = status
            reading.wake()
        elif self.exchange is None:
            self.write(
                _STATUS[status] + b"content-type: application/json\r\nconnection: close\r\n"
                b"content-length: 31\r\n\r\n" + b'{"error":"not a valid request"}'
            )
            self.close(linger=True)

    def close(self, *, linger: bool = False) -> None:
        """Close once what was written has been sent.

        Whoever still sends would lose the answer to a reset: with ``linger`` the socket is read on,
        until the client closes or the next sweep but a few.
        """
        self._last = True
        self._waiting.clear()
        if self.transport is None:
            return
        if linger and not self._ended and not self.transport.is_closing():
            self.since_s = time.monotonic()
            self._lingers = True
            self.transport.write_eof()
            self.read_on()
        else:
            self.transport.close()

    def check(self, now_s: float) -> None:
        """Close a connection that keeps us waiting."""
        if self.transport is None:
            return
        in_state_s = now_s - self.since_s
        if self._lingers:
            if in_state_s > LINGER_S:
                self.transport.abort()
        elif self.unread_s is not None and now_s - self.unread_s > WRITE_TIMEOUT_S:
            self.transport.abort()
        elif self.exchange is not None:
            if not self.exchange.begun and in_state_s > BODY_MOMENT_S:
                self._begin(self.exchange)
        elif self._reading is not None and self._reading.discards:
            if in_state_s > DISCARD_TIMEOUT_S:
                self.transport.abort()
        elif in_state_s > self.server.patience_s(is_fresh=self._in_head or self._fresh):
            self._refuse(408) if self._in_head else self.close()


def _date() -> bytes:
    return b"date: %b\r\n" % formatdate(usegmt=True).encode()


class Server:
    """Listens, and runs the application for each request."""

    def __init__(
        self, application: Application, connections: int, take: Take = lambda _: False
    ) -> None:
        self.date = _date()
        self._application = application
        self._take = take
        self._limit = connections
        self._open: set[_Connection] = set()
        self._idle: dict[_Connection, None] = {}  # the longest idle first
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._sockets: list[socket.socket] = []
        self._sweeping: asyncio.Task[None] | None = None
        self._stopping = False
        self._empty = asyncio.Event()

    async def listen(self, host: str, port: int, backlog: int) -> None:
        """Begin to serve.

        Raises
        ------
        OSError
            When the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: _Connection(self), host, port, backlog=backlog, reuse_address=True
        )
        # The kernel's queue of connections lives as long as one descriptor of the socket does.
        self._sockets = [socket.socket(fileno=os.dup(one.fileno())) for one in self.sockets]
        self._sweeping = asyncio.create_task(self._sweep())

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What it listens on."""
        return () if self._listening is None else tuple(self._listening.sockets)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.date = _date()
            now_s = time.monotonic()
            for connection in tuple(self._open):
                connection.check(now_s)

    # --- of the connections ---

    def opened(self, connection: _Connection) -> None:
        """Take a connection; beyond the limit the longest idle one makes room."""
        self._open.add(connection)
        self._idle[connection] = None
        if len(self._open) > self._limit:
            next(iter(self._idle)).close()

    def closed(self, connection: _Connection) -> None:
        """Take note that a connection is gone."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        if not self._open:
            self._empty.set()

    def busy(self, connection: _Connection) -> None:
        """Take note that a request is coming in."""
        self._idle.pop(connection, None)

    def idle(self, connection: _Connection) -> None:
        """Take note that a connection waits for its client."""
        if self._stopping:
            connection.close()
        else:
            self._idle[connection] = None

    def run(self, exchange: Exchange) -> None:
        """Have a request answered: at once where it is whole, else by the application."""
        if exchange.complete and self._take(exchange):
            return
        self._spawn(self._run(exchange))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._application(exchange.scope, exchange.receive, exchange.send)
        except Exception:  # the door: the application has failed to tell its own failure
            traceback.print_exc(file=sys.stderr)
        finally:
            exchange.connection.ended(exchange)

    # --- the end ---

    def stop(self) -> None:
        """Listen no more and close what is idle; requests that are here are answered."""
        self._stopping = True
        if self._listening is not None:
            self._listening.close()
        for connection in tuple(self._idle):
            connection.close()
        # Whoever has connected and was not accepted yet has sent a request all the same.
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            listening.setblocking(False)
            with suppress(OSError):
                while True:
                    self._spawn(self._accepted(listening.accept()[0]))
            listening.close()
        if not self._open and not self._tasks:
            self._empty.set()

    async def _accepted(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: _Connection(self), client)

    def patience_s(self, *, is_fresh: bool) -> float:
        """Return for how long a connection may wait for its next request, or for its first."""
        if self._stopping:
            return LAST_CALL_S
        return HEAD_TIMEOUT_S if is_fresh else KEEPALIVE_S

    async def wait_closed(self, within_s: float) -> None:
        """Wait until all connections are closed, then cut off those that are left."""
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._open):
                if connection.transport is not None:
                    connection.transport.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
