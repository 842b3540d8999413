"""The front's application: an ASGI callable that checks, routes, calls, logs and answers."""

from __future__ import annotations

import asyncio
import functools
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import records, schema
from nbmlops._version import __version__
from nbmlops.calllog import SYNC_INTERVAL_S, CallLog, Entry
from nbmlops.errors import NbmlopsError
from nbmlops.front import metrics, openapi, protocol, routing, shedding
from nbmlops.front.deadlines import Deadline, Deadlines
from nbmlops.front.protocol import (
    Answer,
    Gone,
    InvalidRoutes,
    MethodRefused,
    NothingServed,
    Overloaded,
    Receive,
    Send,
    WorkerUnreachable,
)
from nbmlops.front.questions import Question, Records, Tensors, headers_read
from nbmlops.front.routing import Routes
from nbmlops.front.scribe import Scribe
from nbmlops.front.server import Exchange
from nbmlops.front.upstream import Call, Worker
from nbmlops.front.watch import Watch
from nbmlops.records import FrontSpec, Route, RouteTable
from nbmlops.tensors import Tensor

BODIES_LIMIT = 4  # bodies of the largest size that may be in memory at once
_CONTROL_LIMIT_BYTES = 4 * 1024 * 1024
_CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = Path(__file__).parent / "page"
# What an endpoint beyond loopback answers without its token; control has a token of its own.
_FREE = {
    "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics",
    "/control/routes",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, its body not yet read."""

    path: str
    headers: Mapping[str, str]
    receive: Receive
    deadline: Deadline
    model: str | None = None
    version: str | None = None


Handler = Callable[["App", Request], Awaitable[Answer]]


class App:
    """An endpoint: its routes, its call log, its counts."""

    def __init__(self, spec: FrontSpec, hosts: frozenset[str], token: str | None) -> None:
        self.spec = spec
        self.hosts = hosts
        self._hosts = {name.encode() for name in hosts}
        self.token = token
        self.draining = False
        self.metrics = metrics.Metrics()
        self.log = CallLog(Path(spec.calls), spec.endpoint, copied=spec.copied)
        self.routes = Routes(RouteTable(endpoint=spec.endpoint, revision=0, routes=()))
        self._described = b""
        self._width = 0  # columns of the widest model
        self._in_flight = 0
        self._buffered = 0
        self._quiet = asyncio.Event()
        self._deadlines = Deadlines()
        self._shedder = shedding.Shedder()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[Worker] = set()
        self._syncing: asyncio.Task[None] | None = None
        self._told = ""
        self._scribe: Scribe | None = None
        self._watch = Watch(say)

    # --- life ---

    async def start(self, table: RouteTable) -> None:
        """Take the first routes, and begin to make the call log durable."""
        self.swap(table)
        self._scribe = Scribe(self.log)
        self._syncing = asyncio.create_task(self._keep_syncing())
        self._later(self._deadlines.keep(self._expire))

    def swap(self, table: RouteTable) -> None:
        """Point to other workers, at once; calls in flight stay with theirs.

        Raises
        ------
        InvalidRoutes
            When the table has no meaning; nothing has changed then.
        """
        routing.check_table(table, self.spec.endpoint)
        described = openapi.encoded(
            table,
            rows_limit=self.spec.rows_limit,
            token=self.spec.access_digest is not None,
        )
        kept = {_identity(one.route): one for one in self.routes.workers}
        workers: list[Worker] = []
        for route in table.routes:
            worker = kept.pop(_identity(route), None)
            if worker is None:
                worker = Worker(
                    route, self.token, self._deadlines, self.spec.deadline_s, self._answered
                )
            worker.route = route
            workers.append(worker)
            self.log.prepare(route.deployment_id)
        self.routes, self._described = Routes(table, tuple(workers)), described
        self._width = max((len(route.schema.columns) for route in table.routes), default=0)
        self._watch.point(table.routes)
        for worker in kept.values():
            self._leaving.add(worker)
            self._later(self._leave(worker))

    async def _leave(self, worker: Worker) -> None:
        await worker.close(self.spec.deadline_s)
        self._leaving.discard(worker)

    def _expire(self, now_s: float) -> None:
        for worker in (*self.routes.workers, *self._leaving):
            worker.expire(now_s)
        if self._scribe is not None:
            self._scribe.check(now_s)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_syncing(self) -> None:
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            await asyncio.to_thread(self.log.sync)
            if self.log.last_error != self._told:
                self._told = self.log.last_error
                say(f"the call log cannot be written: {self._told}")

    async def finish(self) -> None:
        """Wait for the requests in flight, at most for their deadline."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.spec.deadline_s + 1.0):
                while self._in_flight:
                    self._quiet.clear()
                    await self._quiet.wait()

    async def stop(self) -> None:
        """Make the call log durable and give up all connections."""
        if self._syncing is not None:
            self._syncing.cancel()
            with suppress(asyncio.CancelledError):
                await self._syncing
        for worker in self.routes.workers:
            await worker.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._scribe is not None:
            await asyncio.to_thread(self._scribe.close)
        await asyncio.to_thread(self._watch.close)
        await asyncio.to_thread(self.log.close)

    @property
    def is_ready(self) -> bool:
        """Whether predictions are answered."""
        champion = self.routes.champion
        return champion is not None and champion.ready and not self.draining

    @property
    def _is_full(self) -> bool:
        """Whether no worker has room for another call."""
        for worker in self.routes.workers:
            if not worker.is_full:
                return False
        return bool(self.routes.workers)

    # --- one request ---

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        self._in_flight += 1
        deadline = self._deadlines.begin()
        try:
            if self._is_full and shedding.is_call(scope):
                status = await self._shedder.refuse(scope, send, closing=self.draining)
                self.metrics.request(_known(scope["path"])[0], status)
                return
            path, answer = await self._answer(scope, receive, deadline)
            if answer.status == 429:
                await self._shedder.pause()
            self.metrics.request(path, answer.status)
            await protocol.send_answer(send, answer, closing=self._is_last(answer))
        except Gone:
            return
        finally:
            self._deadlines.end(deadline)
            self.ended()

    async def _answer(
        self, scope: dict[str, Any], receive: Receive, deadline: Deadline
    ) -> tuple[str, Answer]:
        method, path = scope["method"], scope["path"]
        known, model, version = _known(path)
        try:
            headers = protocol.headers_of(scope)
            if self.spec.access_digest is None:  # no page of somebody else's has the token
                protocol.check_source(method, headers, self.hosts)
            if self.spec.access_digest is not None and known not in _FREE:
                protocol.check_token(headers, self.spec.access_digest, "access")
            handler = _handler(method, known, path)
            request = Request(known, headers, receive, deadline, model, version)
            return known, await handler(self, request)
        except Gone:
            raise
        except asyncio.CancelledError:
            if not deadline.passed:
                raise
            return known, self._refusal(deadline.error(), path)
        except Exception as error:  # the door
            return known, self._refusal(error, path)
        finally:
            deadline.lift()

    def _refusal(self, error: Exception, path: str) -> Answer:
        """Return an error as an answer; a mistake of ours is told to the log alone."""
        plain = path.startswith("/v2")
        if not isinstance(error, NbmlopsError):
            traceback.print_exception(error)
            error = NbmlopsError("the endpoint failed", "See `nbmlops logs`.")
            return protocol.error_answer(error, plain=plain)
        answer = protocol.error_answer(error, plain=plain)
        if answer.status == 500:
            traceback.print_exception(error)
        return answer

    async def _body(self, request: Request, limit: int) -> bytes:
        """Return the body; what all bodies together take is bounded."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._buffered + size > BODIES_LIMIT * self.spec.body_limit_bytes:
                raise Overloaded("too many large bodies at once", "Try again in a second.")
            taken += size
            self._buffered += size

        try:
            return await protocol.read_body(
                request.receive, request.headers, limit, take, request.deadline
            )
        finally:
            self._buffered -= taken

    # --- predictions ---

    async def predict(self, request: Request) -> Answer:
        """Answer ``POST /predict``; the record is in the log before the answer leaves."""
        return await self._predicted(request, "/predict")

    async def infer(self, request: Request) -> Answer:
        """Answer ``POST /v2/models/NAME/infer``."""
        self._check_model(request.model, request.version)
        return await self._predicted(request, request.path)

    async def _predicted(self, request: Request, path: str) -> Answer:
        body = await self._body(request, self.spec.body_limit_bytes)
        size = len(body)
        question = self._question(path, request.headers, body)
        del body
        request.deadline.lift()  # the call has its own
        self._buffered += size  # what was made of the body stays until it is answered
        try:
            return await self._asked(question, request.version)
        finally:
            self._buffered -= size

    async def _asked(self, question: Question, version: str | None) -> Answer:
        waiting: asyncio.Future[Call] = asyncio.get_running_loop().create_future()

        def end(call: Call | None, error: Exception | None) -> None:
            if waiting.done():
                return
            if call is None or error is not None:
                waiting.set_exception(error or AssertionError())
            else:
                waiting.set_result(call)

        _Asking(self, question, version, end).put()
        call = await waiting
        return question.answer(call)

    def take(self, exchange: Exchange) -> bool:
        """Answer a prediction whose request is whole, if there is nothing odd about it.

        This is :meth:`__call__` and :meth:`predict` or :meth:`infer` without a task of its own;
        what is refused for its head, or while there is no room, is left to those.
        """
        scope = exchange.scope
        path, model, version = _known(scope["path"])
        if scope["method"] != "POST" or path not in _PREDICTIONS:
            return False
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = dict(headers)
        if (
            len(given) != len(headers)
            or (self.spec.access_digest is None and given.get(b"host") not in self._hosts)
            or b"origin" in given
            or b"content-encoding" in given
            or exchange.size > self.spec.body_limit_bytes
            or self._is_full
        ):
            return False
        if self.spec.access_digest is not None and not protocol.bears(
            given.get(b"authorization", b"").decode("latin-1"), self.spec.access_digest
        ):
            return False
        self._in_flight += 1

        def end(call: Call | None, error: Exception | None) -> None:
            try:
                answer = None if call is None or error is not None else question.answer(call)
            except Exception as mistake:  # the door
                answer, error = None, mistake
            if answer is None:
                answer = self._refusal(error or AssertionError(), path)
            if answer.status == 429:
                self._later(self._respond_later(exchange, path, answer))
            else:
                self._respond(exchange, path, answer)

        try:
            if model is not None:
                self._check_model(model, version)
            question = self._question(path, headers_read(given), exchange.body())
            asking = _Asking(self, question, version, end)
            asking.put()
            exchange.left = asking.left
        except Exception as error:
            end(None, error)
        return True

    async def _respond_later(self, exchange: Exchange, path: str, answer: Answer) -> None:
        await self._shedder.pause()
        self._respond(exchange, path, answer)

    def _respond(self, exchange: Exchange, path: str, answer: Answer) -> None:
        self.metrics.request(path, answer.status)
        self.ended()
        lines = protocol.header_lines(answer)
        exchange.respond(answer.status, lines, answer.body, closing=self._is_last(answer))

    def ended(self) -> None:
        """Count a request as no longer in flight."""
        self._in_flight -= 1
        if not self._in_flight:
            self._quiet.set()

    def _is_last(self, answer: Answer) -> bool:
        """Whether nothing else is answered on the connection."""
        # A refused body may be half read: nothing else can come on that connection.
        return self.draining or answer.status in {408, 413}

    def _question(self, path: str, headers: Mapping[str, str], body: bytes) -> Question:
        if path == "/predict":
            return Records(body, headers, self.spec.rows_limit)
        return Tensors(body, headers, self.spec.rows_limit, self._width, self.spec.endpoint)

    def worker_for(self, version: str | None) -> Worker:
        """Return the worker of a version, or by the routes' shares."""
        return self.routes.pick() if version is None else self._of_version(version)

    async def _answered(
        self, route: Route, calls: Sequence[Call], outputs: dict[str, Tensor], rows: int
    ) -> None:
        """Judge what a worker has answered, and write it into the log, before anybody is told."""
        found = schema.predictions(route.schema, outputs, rows)
        now_s = time.perf_counter()
        facts = schema.facts(route.schema)
        entries: list[Entry] = []
        for call in calls:
            call.predictions = found[call.at : call.at + call.rows]
            took_s = now_s - call.began_s
            self.metrics.latency(took_s)
            asked = call.asked(facts)
            took_ms = round(took_s * 1000, 3)
            entries.append(Entry(asked, call.predictions, took_ms, call.client_id, call.client))
        batch = self.log.encode(route, entries)
        for call, record in zip(calls, batch.records, strict=True):
            call.call_id = record.call_id
        if self._scribe is not None:
            await self._scribe.keep(batch)
        for entry in entries:
            self._watch.take(route, entry.records, entry.predictions)
        counted = route.deployment_id, route.model, route.version
        self.metrics.rows[counted] += rows
        self.metrics.out_of_bounds[counted] += sum(not one.within_bounds for one in found)

    # --- the Open Inference Protocol V2 ---

    def _check_model(self, model: str | None, version: str | None) -> None:
        if model != self.spec.endpoint:
            raise NothingServed(
                f"no model {str(model)[:120]!r} is served here",
                f"The model is `{self.spec.endpoint}`.",
            )
        if version is not None:
            self._of_version(version)

    def _of_version(self, version: str) -> Worker:
        """Return the worker of a version, which a client may ask for by its number."""
        for worker in self.routes.workers:
            if version == str(worker.route.version):
                return worker
        present = ", ".join(str(one.route.version) for one in self.routes.workers) or "none"
        raise NothingServed(
            f"version {version[:40]!r} of {self.spec.endpoint} is not served",
            f"Now served: {present}.",
        )

    async def server(self, _: Request) -> Answer:
        """Answer ``GET /v2``."""
        extensions = ["binary_tensor_data"]
        about = {"name": "nbmlops", "version": __version__, "extensions": extensions}
        return protocol.json_answer(about)

    async def model(self, request: Request) -> Answer:
        """Answer ``GET /v2/models/NAME``."""
        self._check_model(request.model, request.version)
        worker = self.routes.champion
        if request.version is not None:
            worker = self._of_version(request.version)
        if worker is None:
            self.routes.pick()
            raise AssertionError
        about = schema.metadata(
            self.spec.endpoint, worker.route.version, "nbmlops", worker.route.schema
        )
        about["versions"] = [str(one.route.version) for one in self.routes.workers]
        return protocol.json_answer(about)

    async def model_ready(self, request: Request) -> Answer:
        """Answer ``GET /v2/models/NAME/ready``."""
        self._check_model(request.model, request.version)
        ready = self.is_ready
        if request.version is not None:
            ready = self._of_version(request.version).ready and not self.draining
        return protocol.json_answer(
            {"name": self.spec.endpoint, "ready": ready}, 200 if ready else 503
        )

    # --- everything else ---

    async def index(self, request: Request) -> Answer:
        """Answer ``GET /``: people go to the page, programs get a list."""
        if "text/html" in request.headers.get("accept", ""):
            return Answer(307, headers=((b"location", b"docs"),))
        champion = self.routes.champion
        return protocol.json_answer(
            {
                "endpoint": self.spec.endpoint,
                "model": champion.route.model if champion else None,
                "version": champion.route.version if champion else None,
                "commit": champion.route.commit if champion else None,
                "paths": sorted(path for path in ROUTES if not path.startswith("/control")),
            }
        )

    async def live(self, _: Request) -> Answer:
        """Answer ``GET /health/live``: this process serves, whatever the workers do."""
        return protocol.json_answer({"live": True})

    async def ready(self, _: Request) -> Answer:
        """Answer ``GET /health/ready`` from the last probe of the champion's worker."""
        ready = self.is_ready
        return protocol.json_answer({"ready": ready}, 200 if ready else 503)

    async def counts(self, _: Request) -> Answer:
        """Answer ``GET /metrics``."""
        text = metrics.text(
            self.metrics,
            self.routes.table,
            in_flight=sum(worker.in_flight for worker in self.routes.workers),
            ready=self.is_ready,
            drops=self.log.drops,
            sync_failures=self.log.sync_failures,
            seen=self._watch.seen,
            unwatched=self._watch.dropped,
        )
        return Answer(200, text, metrics.MEDIA_TYPE)

    async def described(self, _: Request) -> Answer:
        """Answer ``GET /openapi.json``."""
        return Answer(200, self._described)

    async def get_routes(self, request: Request) -> Answer:
        """Answer ``GET /control/routes``."""
        protocol.check_token(request.headers, self.spec.control_digest)
        return protocol.json_answer(self.routes.table)

    async def put_routes(self, request: Request) -> Answer:
        """Answer ``PUT /control/routes``: the newer table counts from the next call on."""
        protocol.check_token(request.headers, self.spec.control_digest)
        body = await self._body(request, _CONTROL_LIMIT_BYTES)
        try:
            table = records.load(body, RouteTable)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRoutes(f"this is no route table: {error}"[:300]) from error
        routing.check_table(table, self.spec.endpoint)
        if routing.check_newer(table, self.routes.table):
            self.swap(table)
            say(f"revision {table.revision}: {_shares(table)}")
        champion = self.routes.champion
        if champion is not None:
            await champion.seen()
        return protocol.json_answer({"revision": self.routes.table.revision})


class _Asking:
    """A question on its way: asked again, once, where a worker was being replaced."""

    __slots__ = ("_again", "_app", "_at", "_end", "_expires_s", "_question", "_version")

    def __init__(
        self,
        app: App,
        question: Question,
        version: str | None,
        end: Callable[[Call | None, Exception | None], None],
    ) -> None:
        self._app = app
        self._question = question
        self._version = version
        self._end = end
        self._again = False
        self._at: tuple[Worker, Call] | None = None
        self._expires_s = time.monotonic() + app.spec.deadline_s

    def put(self) -> None:
        """Hand the question to a worker; raises what :meth:`Worker.submit` does."""
        worker = self._app.worker_for(self._version)
        call = self._question.call(worker.route, self._done)
        call.expires_s = self._expires_s
        worker.submit(call)
        self._at = worker, call

    def left(self, gone: bool) -> None:
        """Take the question back if the client is gone; else it may still read, or have gone."""
        if self._at is None:
            return
        worker, call = self._at
        if not gone:
            worker.let_yield(call)
        elif worker.abandon(call):
            self._app.ended()

    def _done(self, call: Call, error: Exception | None) -> None:
        if isinstance(error, WorkerUnreachable) and not self._again:
            # It was being replaced, or closed a connection as we took it; a prediction changes
            # nothing, so it may be asked for again, of whoever is right now.
            self._again = True
            try:
                self.put()
            except NbmlopsError as further:
                self._end(None, further)
        else:
            self._at = None  # no circle is left, which only the collector would find
            self._end(call, error)


def _identity(route: Route) -> bytes:
    """Return what makes a route lead to the same worker: what is sent there, and how."""
    return records.dump(records.replace(route, role="champion", share=0.0, profile=None))


_PREDICTIONS = {
    "/predict",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
}
_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


@functools.lru_cache(256)
def _known(path: str) -> tuple[str, str | None, str | None]:
    """Return the path as ``ROUTES`` has it, or ``other``, and the model and version in it."""
    if path in ROUTES:
        return path, None, None
    found = _MODEL_PATH.fullmatch(path)
    if found is None:
        return "other", None, None
    version = "" if found[2] is None else "/versions/{version}"
    return f"/v2/models/{{model}}{version}{found[3] or ''}", found[1], found[2]


def _handler(method: str, known: str, path: str) -> Handler:
    methods = ROUTES.get(known)
    if methods is None:
        raise NothingServed(f"nothing is served at {path[:120]!r}", "See /docs.")
    handler = methods.get("GET" if method == "HEAD" else method)
    if handler is None:
        allow = ", ".join(sorted(methods))
        raise MethodRefused(
            f"{path[:120]} does not take {method[:20]}", f"Use {allow}.", allow=allow
        )
    return handler


def _shares(table: RouteTable) -> str:
    told = [f"{one.model}:{one.version} {one.role} {one.share:g} %" for one in table.routes]
    return ", ".join(told) or "no routes"


def _static(name: str, media_type: bytes) -> Handler:
    async def answer(_: App, __: Request) -> Answer:
        headers = (
            (b"content-security-policy", _CSP),
            (b"referrer-policy", b"no-referrer"),
        )
        return Answer(200, (_PAGE / name).read_bytes(), media_type, headers)

    return answer


# Every path and method that is served; nothing else is.
ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": App.index},
    "/predict": {"POST": App.predict},
    "/v2": {"GET": App.server},
    "/v2/health/live": {"GET": App.live},
    "/v2/health/ready": {"GET": App.ready},
    "/v2/models/{model}": {"GET": App.model},
    "/v2/models/{model}/ready": {"GET": App.model_ready},
    "/v2/models/{model}/infer": {"POST": App.infer},
    "/v2/models/{model}/versions/{version}": {"GET": App.model},
    "/v2/models/{model}/versions/{version}/ready": {"GET": App.model_ready},
    "/v2/models/{model}/versions/{version}/infer": {"POST": App.infer},
    "/health/live": {"GET": App.live},
    "/health/ready": {"GET": App.ready},
    "/metrics": {"GET": App.counts},
    "/openapi.json": {"GET": App.described},
    "/docs": {"GET": _static("docs.html", b"text/html; charset=utf-8")},
    "/docs/page.js": {"GET": _static("page.js", b"text/javascript; charset=utf-8")},
    "/docs/page.css": {"GET": _static("page.css", b"text/css; charset=utf-8")},
    "/control/routes": {"GET": App.get_routes, "PUT": App.put_routes},
}


def say(text: str) -> None:
    """Write a line to the job's log."""
    sys.stderr.write(f"front: {text}\n")
    sys.stderr.flush()
