"""The HTTP/1.1 client with which a front asks its workers: kept connections, whole answers.

Requests are small and many, and what a general client does for each of them (cookies, redirects,
encodings, hooks) costs more than most models' predictions. Parsing is httptools', which is that of
Node.js.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, cast

import httptools
import msgspec

from nbmlops.tensors import Address

KEEPALIVE_S = 60.0
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024


class Unreachable(OSError):
    """Nobody listens, or the connection was lost before an answer was whole."""


class NotHttp(Exception):
    """What came back is no HTTP answer, or is larger than any should be."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """A whole answer; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection; it carries one request at a time."""

    def __init__(self, pool: Client) -> None:
        self._pool = pool
        self._parser: Any = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[Response] | None = None
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self.transport: asyncio.Transport | None = None
        self.idle_since_s = 0.0

    # --- of asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # nothing was asked: whoever this is, it is not to be trusted
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(NotHttp(str(error) or "no HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._pool.forget(self)
        self._fail(Unreachable(str(exc) if exc else "the connection was closed"))

    # --- of httptools ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > ANSWER_LIMIT_BYTES:
            self._fail(NotHttp(f"the answer has more than {ANSWER_LIMIT_BYTES} bytes"))
            return
        self._parts.append(part)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # such as 100 Continue: the answer is still to come
            self._headers = {}
            return
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        response = Response(status, self._headers, b"".join(self._parts))
        self._headers, self._parts, self._size = {}, [], 0
        if self._parser.should_keep_alive() and self.transport is not None:
            self._pool.give_back(self)
        else:
            self.close()
        if not waiting.done():
            waiting.set_result(response)

    # --- of the client ---

    def ask(self, request: bytes) -> asyncio.Future[Response]:
        """Send a request and return what will be its answer."""
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        if self.transport is None:
            self._fail(Unreachable("the connection was closed"))
        else:
            self.transport.write(request)
        return waiting

    def close(self) -> None:
        """Give the connection up at once."""
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        self.close()


class Client:
    """Connections to one address, kept for the next request."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self._address = address
        host = "worker"
        if address.path is None:
            name = f"[{address.host}]" if ":" in address.host else address.host
            host = f"{name}:{address.port}"
        allowed = f"Authorization: Bearer {token}\r\n" if token else ""
        self._always = f"Host: {host}\r\n{allowed}"
        self._idle: list[_Connection] = []
        self._closed = False

    async def get(self, path: str) -> Response:
        """Ask for a path; see :meth:`send`."""
        return await self.send(f"GET {path} HTTP/1.1\r\n{self._always}\r\n".encode("latin-1"))

    async def post(self, path: str, headers: str, body: bytes) -> Response:
        """Post a body; ``headers`` are lines that end in CRLF. See :meth:`send`."""
        head = f"POST {path} HTTP/1.1\r\n{self._always}{headers}Content-Length: {len(body)}\r\n\r\n"
        return await self.send(head.encode("latin-1") + body)

    async def send(self, request: bytes) -> Response:
        """Return the answer to a request.

        Raises
        ------
        Unreachable
            When there is no connection to be had, or it is lost before the answer is whole.
        NotHttp
            When the answer is none.
        """
        connection = self._kept() or await self._connected()
        try:
            return await connection.ask(request)
        except asyncio.CancelledError:
            connection.close()  # its answer may still come, and would be taken for the next one's
            raise

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            transport = connection.transport
            if transport is None or transport.is_closing():
                continue
            if time.monotonic() - connection.idle_since_s < KEEPALIVE_S:
                return connection
            connection.close()
        return None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        address = self._address
        try:
            if address.path is not None:
                _, made = await loop.create_unix_connection(
                    lambda: _Connection(self), str(address.path)
                )
            else:
                _, made = await loop.create_connection(
                    lambda: _Connection(self), address.host, address.port
                )
        except OSError as error:
            raise Unreachable(str(error)) from error
        return made

    def give_back(self, connection: _Connection) -> None:
        """Keep a connection whose answer is whole."""
        if self._closed:
            connection.close()
            return
        connection.idle_since_s = time.monotonic()
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Take note that a connection was lost."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what is kept; requests on their way still get their answers."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
