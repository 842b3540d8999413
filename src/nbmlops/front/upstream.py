"""Workers as a front sees them: calls go there together, answers come back one by one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec

from nbmlops import schema, tensors
from nbmlops.errors import InvalidRecords, NbmlopsError
from nbmlops.front.client import Client, NotHttp, Response, Unreachable
from nbmlops.front.protocol import ModelFailed, Overloaded, WorkerUnreachable
from nbmlops.records import Prediction, Route
from nbmlops.tensors import HEADER_LENGTH, InvalidTensors, Tensor

IN_FLIGHT_LIMIT = 128  # calls that wait for one worker; with more, waiting outlasts patience
BATCH_LIMIT_ROWS = 1024  # of calls that are answered together; one call may have more
SENDERS = 1  # requests that are on their way to a worker at once, where calls wait for each other
PROBE_TIMEOUT_S = 2.0
PROBE_INTERVAL_S = 1.0
PROBE_INTERVAL_DOWN_S = 0.1

# What a model raises about a value it is given, rather than about itself: it has answered its
# example before it got ready, so it works.
_ABOUT_THE_VALUES = {"ValueError", "OverflowError", "FloatingPointError"}


@dataclass(slots=True, eq=False)
class Call:
    """A call of some rows: what was asked and, once a worker has answered, what it said.

    ``columns`` are checked and in schema order. The answer is in ``outputs`` from the row ``at``
    on: several calls share what was answered together.
    """

    columns: list[list[Any]]
    records: Sequence[dict[str, Any]] | None = None
    client_id: str | None = None
    began_s: float = field(default_factory=time.perf_counter)
    waiting: asyncio.Future[None] | None = None
    at: int = 0
    outputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    predictions: tuple[Prediction, ...] = ()
    call_id: str = ""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.columns[0])

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.waiting is not None and self.waiting.done()

    def own_outputs(self) -> list[Tensor]:
        """Return the outputs of its own rows."""
        return [_part(tensor, self.at, self.rows) for tensor in self.outputs.values()]


# Takes what a worker has answered: the calls still waited for, with ``at`` and ``outputs`` set,
# and the number of rows of all. What it raises, each call is told.
Answered = Callable[[Route, Sequence[Call], dict[str, Tensor], int], None]


class Worker:
    """One worker: its kept connections, how many calls wait for it, whether it is ready.

    Where the route says so, calls that come while the worker is busy are sent to it together as
    soon as it is free; nobody waits for company.
    """

    def __init__(
        self, route: Route, token: str | None, deadline_s: float, answered: Answered
    ) -> None:
        self.route = route
        self.ready = False
        self.in_flight = 0
        self._deadline_s = deadline_s
        self._answered = answered
        self._queue: deque[Call] = deque()
        self._sending = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._client = Client(tensors.parse_address(route.address), token)
        self._infer = f"/v2/models/{route.model}/infer"
        self._leaving = False
        self._idle = asyncio.Event()
        self._seen = asyncio.Event()
        self._prober = asyncio.create_task(self._keep_probing())

    async def infer(self, call: Call) -> None:
        """Return when the call is answered.

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
                await self._answer([call])
            elif self._sending < SENDERS and not self._queue:
                await self._first(call)
            else:
                call.waiting = asyncio.get_running_loop().create_future()
                self._queue.append(call)
                await call.waiting
        finally:
            self.in_flight -= 1
            if self._leaving and not self.in_flight:
                self._idle.set()

    async def _first(self, call: Call) -> None:
        """Send a call that finds the worker free; then those that have come meanwhile."""
        self._sending += 1
        try:
            await self._answer([call])
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
                        await self._answer_all(batch)
                except Exception as error:
                    for call in batch:
                        _tell(call, error)
        finally:
            self._sending -= 1

    def _next_batch(self) -> list[Call]:
        batch: list[Call] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue[0].rows <= BATCH_LIMIT_ROWS):
            call = self._queue.popleft()
            if not call.is_gone:
                batch.append(call)
                rows += call.rows
        return batch

    async def _answer_all(self, batch: list[Call]) -> None:
        """Answer calls together; where that fails for a value's sake, each alone."""
        try:
            await self._answer(batch)
        except (InvalidRecords, ModelFailed) as error:
            if len(batch) == 1:
                raise
            del error
            for call in batch:
                try:
                    if not call.is_gone:
                        await self._answer([call])
                except NbmlopsError as error:
                    _tell(call, error)
                else:
                    _tell(call, None)
            return
        for call in batch:
            _tell(call, None)

    async def _answer(self, batch: list[Call]) -> None:
        """Send calls as one request, and hand on what is answered."""
        columns = batch[0].columns
        if len(batch) > 1:
            columns = [
                list(chain.from_iterable(parts))
                for parts in zip(*(call.columns for call in batch), strict=True)
            ]
        rows = len(columns[0])
        answered = await self._ask(columns)
        try:
            outputs = schema.outputs(self.route.schema, answered, rows)
            at = 0
            for call in batch:
                call.at, call.outputs = at, outputs
                at += call.rows
            live = [call for call in batch if not call.is_gone]
            self._answered(self.route, live, outputs, rows)
        except InvalidTensors as error:
            raise ModelFailed(
                f"the model does not answer as its schema says: {error.message}",
                f"See `nbmlops logs {self.route.deployment_id}`.",
            ) from error

    async def _ask(self, columns: list[list[Any]]) -> dict[str, Tensor]:
        """Send one request and return the outputs."""
        inputs = schema.inputs(self.route.schema, columns, matrix=self.route.matrix)
        body, length = tensors.encode_request(inputs, binary=self.route.binary)
        headers = "Content-Type: application/json\r\n"
        if length is not None:
            headers = f"{HEADER_LENGTH}: {length}\r\nContent-Type: application/octet-stream\r\n"
        try:
            response = await self._client.post(self._infer, headers, body)
        except Unreachable as error:
            self.ready = False
            raise self._unreachable(str(error)) from error
        except NotHttp as error:
            raise ModelFailed(f"the worker does not speak HTTP: {error}"[:300]) from error
        if response.status != 200:
            raise self._refusal(response)
        try:
            given = response.headers.get(HEADER_LENGTH.lower())
            length = None if given is None else int(given)
            return tensors.decode_response(response.body, length).outputs
        except (InvalidTensors, ValueError) as error:
            raise ModelFailed(f"the worker's answer is not of the V2 protocol: {error}") from error

    def _refusal(self, response: Response) -> Exception:
        status = response.status
        try:
            document: Any = msgspec.json.decode(response.body)
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
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return (await self._client.get("/v2/health/ready")).status == 200
        except (Unreachable, NotHttp, TimeoutError):
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
        self._client.close()


def _tell(call: Call, error: Exception | None) -> None:
    """Wake up who waits for a call."""
    waiting = call.waiting
    if waiting is None or waiting.done():
        return
    if error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(error)


def _part(tensor: Tensor, start: int, rows: int) -> Tensor:
    """Return some rows of a tensor."""
    if rows == tensor.shape[0]:
        return tensor
    width = len(tensor.values) // (tensor.shape[0] or 1)
    values = tensor.values[start * width : (start + rows) * width]
    return Tensor(tensor.name, tensor.datatype, (rows, *tensor.shape[1:]), values)
