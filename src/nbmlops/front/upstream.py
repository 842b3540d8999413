"""Workers as a front sees them: calls go there together, answers come back one by one."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec

from nbmlops import schema, tensors
from nbmlops.errors import InvalidRecords
from nbmlops.front.client import Client, NotHttp, Response, Unreachable
from nbmlops.front.deadlines import Deadlines
from nbmlops.front.protocol import (
    DeadlineExceeded,
    ModelFailed,
    Overloaded,
    WorkerUnreachable,
)
from nbmlops.records import Prediction, Route
from nbmlops.tensors import HEADER_LENGTH, PRIVATE, InvalidTensors, Tensor

IN_FLIGHT_LIMIT = 128  # calls that wait for one worker; with more, waiting outlasts patience
BATCH_LIMIT_ROWS = 1024  # of calls that are answered together; one call may have more
BATCH_LIMIT_BYTES = 8 * 1024 * 1024  # of their bodies, likewise
SENDERS = 1  # requests that are on their way to a worker at once, where calls wait for each other
_LATER = "Try again in a second."
PROBE_TIMEOUT_S = 2.0
PROBE_INTERVAL_S = 1.0
PROBE_INTERVAL_DOWN_S = 0.1

# What a model raises about a value it is given, rather than about itself: it has answered its
# example before it got ready, so it works.
_ABOUT_THE_VALUES = {"ValueError", "OverflowError", "FloatingPointError"}


@dataclass(slots=True, eq=False)
class Call:
    """A call of some rows: what was asked and, once a worker has answered, what it said.

    ``route`` is that of the worker which is asked.
    What was asked is checked: a ``block`` of doubles, row after row, where that is all it is, else
    ``columns`` in schema order. ``done`` is told once of the answer (``None``), or of why there is
    none. The answer is in ``outputs`` from the row ``at`` on: several calls share what was
    answered together.
    """

    route: Route
    rows: int
    done: Done
    block: array[float] | None = None
    columns: list[list[Any]] | None = None
    records: Sequence[dict[str, Any]] | None = None
    client_id: str | None = None
    client: str | None = None
    size: int = 0  # of its body
    expires_s: float = math.inf  # of the monotonic clock
    began_s: float = field(default_factory=time.perf_counter)
    task: asyncio.Task[None] | None = None
    is_sent: bool = False
    is_over: bool = False  # it was told
    at: int = 0
    outputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    predictions: tuple[Prediction, ...] = ()
    call_id: str = ""

    def own_outputs(self) -> list[Tensor]:
        """Return the outputs of its own rows."""
        return [_part(tensor, self.at, self.rows) for tensor in self.outputs.values()]

    def asked(self, facts: schema.Facts) -> Sequence[dict[str, Any]]:
        """Return what was asked as records."""
        if self.records is not None:
            return self.records
        if self.block is not None:
            return facts.rows(self.block)
        return [
            dict(zip(facts.names, row, strict=True))
            for row in zip(*self.listed(facts), strict=True)
        ]

    def listed(self, facts: schema.Facts) -> list[list[Any]]:
        """Return what was asked as one list of values for each column."""
        if self.columns is None:
            self.columns = facts.columns(self.block or array("d"))
        return self.columns


# Takes a call that is over.
Done = Callable[["Call", Exception | None], None]
# Takes what a worker has answered: the calls still waited for, with ``at`` and ``outputs`` set,
# and the number of rows of all. What it raises, each call is told.
Answered = Callable[[Route, Sequence[Call], dict[str, Tensor], int], Awaitable[None]]


class Worker:
    """One worker: its kept connections, how many calls wait for it, whether it is ready.

    Where the route says so, calls that come while the worker is busy are sent to it together as
    soon as it is free; nobody waits for company.
    """

    def __init__(
        self, route: Route, token: str | None, deadlines: Deadlines, deadline_s: float,
        answered: Answered,
    ) -> None:  # fmt: skip
        self.route = route
        self.ready = False
        self._deadlines = deadlines
        self._deadline_s = deadline_s
        self._answered = answered
        self._calls: set[Call] = set()
        self._yielding: dict[Call, None] = {}  # those that give way first, the oldest first
        self._queue: deque[Call] = deque()
        self._sending = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = Client(tensors.parse_address(route.address), route.token or token)
        self._infer = f"/v2/models/{route.model}/infer"
        self._leaving = False
        self._idle = asyncio.Event()
        self._seen = asyncio.Event()
        self._prober = asyncio.create_task(self._keep_probing())

    @property
    def in_flight(self) -> int:
        """How many calls are not over."""
        return len(self._calls)

    def submit(self, call: Call) -> None:
        """Take a call; it is told of its end, which may be one of these errors.

        InvalidRecords
            When the model refuses the values.
        WorkerUnreachable
            When the worker is not there, or not ready; no answer has been given.
        ModelFailed
            When the model fails for another reason.

        Raises
        ------
        Overloaded
            When too many calls wait already.
        """
        if len(self._calls) >= IN_FLIGHT_LIMIT:
            overloaded = Overloaded(f"{len(self._calls)} calls wait already", _LATER)
            if not self._yielding:
                raise overloaded
            self._tell(next(iter(self._yielding)), overloaded)
        self._calls.add(call)
        if not self.route.batches:
            call.is_sent = True
            call.task = self._later(self._send_all([call]))
        else:
            self._queue.append(call)
            if self._sending < SENDERS:
                self._sending += 1
                self._later(self._send())

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def expire(self, now_s: float) -> None:
        """Give up the calls whose time is over; what is asked for one alone is not waited for."""
        for call in [one for one in self._calls if now_s >= one.expires_s]:
            if call.task is not None:
                call.task.cancel()
            self._tell(call, self._unanswered())

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another call."""
        return len(self._calls) >= IN_FLIGHT_LIMIT and not self._yielding

    def let_yield(self, call: Call) -> None:
        """Have a call give way to others, while it is not on its way."""
        if not (call.is_over or call.is_sent):
            self._yielding[call] = None

    def abandon(self, call: Call) -> bool:
        """Forget a call that nobody waits for; return whether it was one that can be called back.

        What is on its way together with others cannot.
        """
        if call.is_over or (call.is_sent and call.task is None):
            return False
        if call.task is not None:
            call.task.cancel()
        self._end(call)
        return True

    def _end(self, call: Call) -> None:
        call.is_over = True
        self._calls.discard(call)
        self._yielding.pop(call, None)
        if self._leaving and not self._calls:
            self._idle.set()

    def _tell(self, call: Call, error: Exception | None) -> None:
        """Tell a call of its end, once."""
        if not call.is_over:
            self._end(call)
            call.done(call, error)

    async def _send(self) -> None:
        """Send what waits, in batches, until nothing does."""
        try:
            while batch := self._next_batch():
                await self._send_all(batch)
        finally:
            self._sending -= 1

    def _next_batch(self) -> list[Call]:
        batch: list[Call] = []
        rows = size = 0
        while self._queue:
            call = self._queue[0]
            rows += call.rows
            size += call.size
            if batch and (rows > BATCH_LIMIT_ROWS or size > BATCH_LIMIT_BYTES):
                break
            self._queue.popleft()
            if call.is_over:
                rows -= call.rows
                size -= call.size
            else:
                call.is_sent = True
                self._yielding.pop(call, None)
                batch.append(call)
        return batch

    async def _send_all(self, batch: list[Call]) -> None:
        """Answer calls together; where that fails for a value's sake, each alone."""
        try:
            await self._answer(batch)
        except (InvalidRecords, ModelFailed) as error:
            if len(batch) == 1:
                self._tell(batch[0], error)
                return
            for call in batch:
                if not call.is_over:
                    await self._send_all([call])
        except Exception as error:
            for call in batch:
                self._tell(call, error)
        else:
            for call in batch:
                self._tell(call, None)

    async def _answer(self, batch: list[Call]) -> None:
        """Send calls as one request, and hand on what is answered."""
        rows = sum(call.rows for call in batch)
        answered = await self._ask(self._inputs(batch))
        try:
            outputs = schema.outputs(self.route.schema, answered, rows)
            at = 0
            for call in batch:
                call.at, call.outputs = at, outputs
                at += call.rows
            live = [call for call in batch if not call.is_over]
            await self._answered(self.route, live, outputs, rows)
        except InvalidTensors as error:
            raise ModelFailed(
                f"the model does not answer as its schema says: {error.message}",
                f"See `nbmlops logs {self.route.deployment_id}`.",
            ) from error

    def _inputs(self, batch: list[Call]) -> list[Tensor]:
        contract = self.route.schema
        blocks = [call.block for call in batch if call.block is not None]
        if self.route.matrix and len(blocks) == len(batch):
            block = blocks[0]
            if len(blocks) > 1:
                block = array("d")
                for one in blocks:
                    block += one
            return [schema.block_input(contract, block)]
        facts = schema.facts(contract)
        columns = batch[0].listed(facts)
        if len(batch) > 1:
            columns = [
                list(chain.from_iterable(parts))
                for parts in zip(*(call.listed(facts) for call in batch), strict=True)
            ]
        return schema.inputs(contract, columns, matrix=self.route.matrix)

    async def _ask(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Send one request and return the outputs."""
        body, length = tensors.encode_request(inputs, binary=self.route.binary)
        headers = "Content-Type: application/json\r\n"
        if length is not None:
            headers = f"{HEADER_LENGTH}: {length}\r\nContent-Type: application/octet-stream\r\n"
        if self.route.never or self.route.hashed:
            headers += f"{PRIVATE}: yes\r\n"
        try:
            with self._deadlines.within(self._deadline_s, self._unanswered):
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

    def _unanswered(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"no answer within {self._deadline_s:g} s",
            "Send fewer records at once, or look at the worker: `nbmlops logs`.",
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
        if self._calls:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._idle.wait()
        self._client.close()


def _part(tensor: Tensor, start: int, rows: int) -> Tensor:
    """Return some rows of a tensor."""
    if rows == tensor.shape[0]:
        return tensor
    width = len(tensor.values) // (tensor.shape[0] or 1)
    values = tensor.values[start * width : (start + rows) * width]
    return Tensor(tensor.name, tensor.datatype, (rows, *tensor.shape[1:]), values)
