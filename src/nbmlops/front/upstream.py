"""The workers behind a front: calls over pooled connections, probes, and the present routes."""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import aiohttp
import msgspec

from nbmlops import schema, tensors
from nbmlops.errors import InvalidRecords, NbmlopsError
from nbmlops.front.protocol import (
    InvalidRoutes,
    ModelFailed,
    NoDeployment,
    Overloaded,
    StaleRoutes,
    WorkerUnreachable,
)
from nbmlops.records import Route, RouteTable
from nbmlops.tensors import HEADER_LENGTH, InvalidAddress, InvalidTensors, Response, Tensor

IN_FLIGHT_LIMIT = 128  # calls that wait for one worker; with more, waiting outlasts patience
BATCH_LIMIT_ROWS = 1024  # of calls that are answered together; one call may have more
SENDERS = 1  # requests that are on their way to a worker at once, where calls wait for each other
KEEPALIVE_S = 60.0
PROBE_TIMEOUT_S = 2.0
PROBE_INTERVAL_S = 1.0
PROBE_INTERVAL_DOWN_S = 0.1

_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")

# What a model raises about a value it is given, rather than about itself: it has answered its
# example before it got ready, so it works.
_ABOUT_THE_VALUES = {"ValueError", "OverflowError", "FloatingPointError"}


@dataclass(slots=True)
class _Waiting:
    """A call that waits to be sent with others."""

    columns: list[list[Any]]
    answer: asyncio.Future[dict[str, Tensor]]

    @property
    def rows(self) -> int:
        return len(self.columns[0])


class Worker:
    """One worker: its pooled connections, how many calls wait for it, whether it is ready.

    Where the route says so, calls that come while the worker is busy are sent to it together as
    soon as it is free; nobody waits for company.
    """

    def __init__(self, route: Route, token: str | None, deadline_s: float = 30.0) -> None:
        self.route = route
        self._deadline_s = deadline_s
        self._queue: deque[_Waiting] = deque()
        self._sending = 0
        self._senders: set[asyncio.Task[None]] = set()
        self.ready = False
        self.in_flight = 0
        self._base = "http://worker"
        address = tensors.parse_address(route.address)
        connector: aiohttp.BaseConnector
        if address.path is not None:
            connector = aiohttp.UnixConnector(
                str(address.path), limit=IN_FLIGHT_LIMIT, keepalive_timeout=KEEPALIVE_S
            )
        else:
            host = f"[{address.host}]" if ":" in address.host else address.host
            self._base = f"http://{host}:{address.port}"
            connector = aiohttp.TCPConnector(limit=IN_FLIGHT_LIMIT, keepalive_timeout=KEEPALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=1024 * 1024,
        )
        self._infer = f"{self._base}/v2/models/{route.model}/versions/{route.version}/infer"
        self._leaving = False
        self._idle = asyncio.Event()
        self._seen = asyncio.Event()
        self._prober = asyncio.create_task(self._keep_probing())

    async def infer(self, columns: list[list[Any]]) -> dict[str, Tensor]:
        """Return the model's outputs by name, for the columns of a call that was checked.

        Raises
        ------
        Overloaded
            When too many calls wait already.
        InvalidRecords
            When the model refuses the values.
        WorkerUnreachable
            When the worker is not there, or not ready; no answer has been given.
        ModelFailed
            When the model fails for another reason.
        """
        if self.in_flight >= IN_FLIGHT_LIMIT:
            raise Overloaded(f"{self.in_flight} calls wait already", "Try again in a second.")
        self.in_flight += 1
        try:
            if not self.route.batches:
                return await self._ask(columns)
            if self._sending < SENDERS and not self._queue:
                return await self._first(columns)
            waiting = _Waiting(columns, asyncio.get_running_loop().create_future())
            self._queue.append(waiting)
            return await waiting.answer
        finally:
            self.in_flight -= 1
            if self._leaving and not self.in_flight:
                self._idle.set()

    async def _first(self, columns: list[list[Any]]) -> dict[str, Tensor]:
        """Send a call that finds the worker free; then those that have come meanwhile."""
        self._sending += 1
        try:
            return await self._ask(columns)
        finally:
            self._sending -= 1
            if self._queue:
                task = asyncio.create_task(self._send())
                self._senders.add(task)
                task.add_done_callback(self._senders.discard)

    async def _send(self) -> None:
        """Send what waits, in batches, until nothing does."""
        self._sending += 1
        try:
            while batch := self._next_batch():
                try:
                    async with asyncio.timeout(self._deadline_s):
                        await self._answer(batch)
                except Exception as error:
                    for waiting in batch:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
        finally:
            self._sending -= 1

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue[0].rows <= BATCH_LIMIT_ROWS):
            waiting = self._queue.popleft()
            if not waiting.answer.done():  # its caller may have gone
                batch.append(waiting)
                rows += waiting.rows
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        """Answer calls together; where that fails for a value's sake, each alone."""
        joined = [
            list(chain.from_iterable(parts))
            for parts in zip(*(waiting.columns for waiting in batch), strict=True)
        ]
        try:
            outputs = await self._ask(joined)
        except (InvalidRecords, ModelFailed) as error:
            if len(batch) == 1:
                raise
            del error
            for waiting in batch:
                try:
                    alone = await self._ask(waiting.columns)
                except NbmlopsError as error:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                else:
                    if not waiting.answer.done():
                        waiting.answer.set_result(alone)
            return
        at = 0
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_result(_part(outputs, at, waiting.rows))
            at += waiting.rows

    async def _ask(self, columns: list[list[Any]]) -> dict[str, Tensor]:
        """Send one request and return the outputs, of as many rows as it has."""
        inputs = schema.inputs(self.route.schema, columns, matrix=self.route.matrix)
        body, length = tensors.encode_request(inputs)
        try:
            status, header_length, content = await self._post(body, length)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            self.ready = False
            raise self._unreachable(type(error).__name__) from error
        except aiohttp.ClientError as error:
            raise ModelFailed(f"the worker does not speak HTTP: {error}"[:300]) from error
        if status != 200:
            raise self._refusal(status, content)
        outputs = self._outputs(header_length, content)
        rows = len(columns[0])
        if any(tensor.shape[0] != rows for tensor in outputs.values()):
            raise ModelFailed(
                f"the model answers {rows} rows with another number of them",
                f"See `nbmlops logs {self.route.deployment_id}`.",
            )
        return outputs

    async def _post(self, body: bytes, length: int) -> tuple[int, str | None, bytes]:
        headers = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        async with self._session.post(self._infer, data=body, headers=headers) as answer:
            return answer.status, answer.headers.get(HEADER_LENGTH), await answer.read()

    def _outputs(self, header_length: str | None, content: bytes) -> dict[str, Tensor]:
        try:
            length = None if header_length is None else int(header_length)
            found: Response = tensors.decode_response(content, length)
        except (InvalidTensors, ValueError) as error:
            raise ModelFailed(f"the worker's answer is not of the V2 protocol: {error}") from error
        return found.outputs

    def _refusal(self, status: int, content: bytes) -> Exception:
        try:
            document: Any = msgspec.json.decode(content)
            told, kind = str(document.get("error")), str(document.get("type"))
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
            told, kind = f"status {status}", ""
        if status == 503:
            self.ready = False
            return self._unreachable(told)
        if status == 500 and kind in _ABOUT_THE_VALUES:
            return InvalidRecords(
                f"the model refuses these records: {told}"[:500], "Compare them with /docs."
            )
        return ModelFailed(
            f"the model failed: {told}"[:500], f"See `nbmlops logs {self.route.deployment_id}`."
        )

    def _unreachable(self, why: str) -> WorkerUnreachable:
        return WorkerUnreachable(
            f"the worker of {self.route.deployment_id} does not answer ({why})"[:300],
            "Try again in a second, or deploy again: `nbmlops deploy`.",
        )

    async def _keep_probing(self) -> None:
        while True:
            self.ready = await self._probe()
            self._seen.set()
            await asyncio.sleep(PROBE_INTERVAL_S if self.ready else PROBE_INTERVAL_DOWN_S)

    async def _probe(self) -> bool:
        try:
            async with (
                asyncio.timeout(PROBE_TIMEOUT_S),
                self._session.get(f"{self._base}/v2/health/ready") as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def seen(self) -> None:
        """Wait until the worker has been probed once."""
        await self._seen.wait()

    async def close(self, patience_s: float = 0.0) -> None:
        """Wait for the calls in flight, then give up the connections."""
        self._prober.cancel()
        self._leaving = True
        if self.in_flight:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._idle.wait()
        await self._session.close()


def _part(outputs: dict[str, Tensor], start: int, rows: int) -> dict[str, Tensor]:
    """Return some rows of a batch's outputs."""
    found: dict[str, Tensor] = {}
    for name, tensor in outputs.items():
        width = len(tensor.values) // (tensor.shape[0] or 1)
        values = tensor.values[start * width : (start + rows) * width]
        found[name] = Tensor(name, tensor.datatype, (rows, *tensor.shape[1:]), values)
    return found


@dataclass(frozen=True, slots=True)
class Routes:
    """A route table and the workers that it leads to; swapped as one."""

    table: RouteTable
    workers: tuple[Worker, ...] = ()

    @property
    def champion(self) -> Worker | None:
        """The worker that the endpoint is known by: its schema, its readiness."""
        return next((one for one in self.workers if one.route.role == "champion"), None)

    def pick(self, chance: Callable[[], float] = random.random) -> Worker:
        """Return a worker by the routes' shares; ``chance`` is uniform in [0, 1).

        Raises
        ------
        NoDeployment
            When there is no route.
        """
        if not self.workers:
            raise NoDeployment(
                f"no deployment stands behind {self.table.endpoint}",
                f"Deploy one: `nbmlops deploy {self.table.endpoint}`.",
            )
        at = 100.0 * chance()
        *others, last = self.workers
        for worker in others:
            at -= worker.route.share
            if at < 0:
                return worker
        return last


def check_table(table: RouteTable, endpoint: str) -> None:
    """Refuse a route table that has no meaning.

    Raises
    ------
    InvalidRoutes
        When it is another endpoint's, or its routes do not add up.
    """
    if table.endpoint != endpoint:
        raise InvalidRoutes(f"these are the routes of {table.endpoint[:80]!r}, not of {endpoint}")
    seen: set[str] = set()
    for route in table.routes:
        _check_route(route)
        if route.deployment_id in seen:
            raise InvalidRoutes(f"{route.deployment_id} has two routes")
        seen.add(route.deployment_id)
    champions = sum(route.role == "champion" for route in table.routes)
    total = sum(route.share for route in table.routes)
    if table.routes and (champions != 1 or abs(total - 100.0) > 1e-6):
        raise InvalidRoutes(
            f"{champions} champions and {total:g} percent in all",
            "There is one champion, and all shares sum to 100.",
        )


def _check_route(route: Route) -> None:
    try:
        tensors.parse_address(route.address)
    except InvalidAddress as error:
        raise InvalidRoutes(error.message, error.hint) from error
    named = (
        (route.deployment_id, _DEPLOYMENT),
        (route.model, _MODEL),
        (route.commit, _COMMIT),
    )
    for text, allowed in named:
        if not allowed.fullmatch(text):
            raise InvalidRoutes(f"{text[:80]!r} is not a deployment, model or commit")
    if route.role == "shadow":
        raise InvalidRoutes("this version has no shadow routes", "Use champion and canary.")
    if not 0.0 <= route.share <= 100.0:
        raise InvalidRoutes(f"{route.share!r} is not a share in percent")


def check_newer(table: RouteTable, present: RouteTable) -> bool:
    """Return whether the table is newer; the present one again is fine and changes nothing.

    Raises
    ------
    StaleRoutes
        When it is older, or of the same revision and different.
    """
    if table.revision > present.revision:
        return True
    if table == present:
        return False
    raise StaleRoutes(
        f"revision {table.revision} is not above {present.revision}",
        "Read the present routes, and try again.",
        revision=present.revision,
    )
