"""The HTTP door: the table of commands as routes of the Jupyter server, for the side panel.

A command that reads is GET with query arguments, one that changes is POST with a JSON body;
``path`` names where the person stands, as the contents API does. Beside them there is one route for
the bytes that runs left, which the contents API does not serve. Authentication, authorisation, the
checks of Host, Origin and cross-site requests are the Jupyter server's own.
"""

from __future__ import annotations

import asyncio
import inspect
import mimetypes
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, get_origin
from urllib.parse import quote

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.ioloop import PeriodicCallback

from nbmlops import records
from nbmlops.commands import TABLE, Command, Context, ProjectAnswer, find
from nbmlops.errors import InternalError, NbmlopsError, WrongUse, storage_failed
from nbmlops.records import ArtifactRecord
from nbmlops.ticker import EVERY_S, Ticker

ROUTE = r"nbmlops/api/([a-z]{1,32})"
ARTIFACT_ROUTE = r"nbmlops/artifact"
_LIST_LIMIT = 20_000
# A file is held in memory while it is checked and sent.
_ARTIFACT_LIMIT = 64 * 2**20

# What a browser may show where a link leads; anything else is for saving. A job chose the bytes and
# the type: they get an origin of their own, no script, no form, and nothing from elsewhere.
_SHOWN_TYPES = {
    "text/html": "text/html; charset=utf-8",
    "text/plain": "text/plain; charset=utf-8",
    "text/csv": "text/plain; charset=utf-8",
    "text/markdown": "text/plain; charset=utf-8",
    "application/json": "application/json",
    "image/png": "image/png",
    "image/jpeg": "image/jpeg",
}
_ARTIFACT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:;"
    " frame-ancestors 'self'"
)

_STATUS_OF_CODE = {
    "no-project": 404,
    "project-exists": 409,
    "conflict": 409,
    "internal-error": 500,
}
_STATUS_OF_EXIT = {1: 422, 2: 400, 5: 503, 130: 409}


def load(server_app: Any) -> None:
    """Add the routes to a running Jupyter server, and do what is due in its projects meanwhile."""
    web_app = server_app.web_app
    root = Path(str(server_app.root_dir)).resolve()
    base = web_app.settings["base_url"]
    ticker = Ticker(server_app.log.warning)
    given = {"root": root, "ticker": ticker}
    handlers = [
        (url_path_join(base, ROUTE), CommandHandler, given),
        (url_path_join(base, ARTIFACT_ROUTE), ArtifactHandler, given),
    ]
    web_app.add_handlers(".*$", handlers)
    ticker.attend(root)
    # One tick after the other, however long one takes; with the server's loop they end.
    ticking = PeriodicCallback(lambda: asyncio.to_thread(ticker.tick), 1000 * EVERY_S)
    server_app.io_loop.add_callback(ticking.start)
    server_app.log.info("nbmlops: the panel's routes are below %s", url_path_join(base, "nbmlops"))


class Door(APIHandler):
    """What our handlers share: the folder that is served, and errors as documents."""

    auth_resource = "nbmlops"

    def initialize(self, root: Path, ticker: Ticker) -> None:
        """Take the folder that the server serves, and who ticks the projects in it."""
        self._root = root
        self._ticker = ticker

    async def _told(self, work: Awaitable[Any]) -> None:
        """Answer with the document that ``work`` comes to, or with that of its error."""
        try:
            result = await work
        except web.HTTPError:
            raise
        except NbmlopsError as error:
            if self.get_status() == 200:
                self.set_status(http_status(error))
            result = error.document()
        except OSError as error:
            self.set_status(503)
            result = storage_failed(error).document()
        except Exception as error:
            self.log.exception("nbmlops: %s failed", self.request.path)
            self.set_status(500)
            result = InternalError(f"{type(error).__name__}: {error}", "See the log.").document()
        if result is not None:
            self.set_header("Content-Type", "application/json")
            await self.finish(records.dump(result))

    def _context(self, path: str) -> Context:
        place = (self._root / path.lstrip("/")).resolve()
        if not place.is_relative_to(self._root):
            raise WrongUse(f"{path!r} leads out of the server's folder", "Send a contents path.")
        start = place if place.is_dir() else place.parent
        self._ticker.attend(start)
        notebook = place if place.suffix == ".ipynb" and start != place else None
        return Context(start=start, notebook=notebook, bounds=self._root)


class CommandHandler(Door):
    """One handler for all commands; the table says what each takes."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Answer a command that reads."""
        await self._told(self._answer(name, "GET"))

    @web.authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Answer a command that changes."""
        await self._told(self._answer(name, "POST"))

    async def _answer(self, name: str, method: str) -> Any:
        command = self._allowed(name, method)
        arguments = self._arguments(method)
        path = str(arguments.pop("path", ""))
        return await asyncio.to_thread(self._run, command, path, arguments)

    def _allowed(self, name: str, method: str) -> Command:
        command = find(name)
        wanted = "GET" if command.reads else "POST"
        if method != wanted:
            self.set_header("Allow", wanted)
            self.set_status(405)
            raise WrongUse(f"{name} does not answer {method}", f"Use {wanted}.")
        return command

    def _arguments(self, method: str) -> dict[str, Any]:
        if method == "GET":
            # JupyterLab's own requests may carry a bare time, so that no cache answers them.
            names = [name for name in self.request.arguments if not name.isdigit()]
            # One that comes several times is a list; a list of one is made where one is wanted.
            given = {name: self.get_query_arguments(name) for name in names if name != "token"}
            return {name: all_ if len(all_) > 1 else all_[0] for name, all_ in given.items()}
        body: Any = self.get_json_body() or {}
        if not isinstance(body, dict):
            raise WrongUse("the body is no JSON object", "Send {option: value}.")
        return dict(body)

    def _run(self, command: Command, path: str, arguments: dict[str, Any]) -> Any:
        context = self._context(path)
        try:
            result = command.function(context, **converted(command, arguments))
            if command.streams:
                return {"items": list(result)[-_LIST_LIMIT:], "next": None}
            return self._as_contents(result)
        finally:
            context.close()

    def _as_contents(self, result: Any) -> Any:
        """Tell a project's folder as the contents API names it."""
        if isinstance(result, ProjectAnswer) and Path(result.path).is_relative_to(self._root):
            path = Path(result.path).relative_to(self._root).as_posix()
            return records.replace(result, path="" if path == "." else path)
        return result


class ArtifactHandler(Door):
    """The bytes of one artifact of a run, checked by their digest; named, never by a path."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with the file that a run, or an earlier attempt of it, left under a name."""
        await self._told(self._answer())

    async def _answer(self) -> None:
        run_id, name = self._asked("run_id"), self._asked("name")
        attempt = self._asked("attempt", "")
        if attempt and not (attempt.isascii() and attempt.isdecimal() and len(attempt) < 10):
            raise WrongUse(f"`{attempt[:40]}` is no attempt", "They are counted from 1.")
        path = self._asked("path", "")
        found, data = await asyncio.to_thread(
            self._read, path, run_id, name, int(attempt) if attempt else None
        )
        kind = found.media_type or mimetypes.guess_type(name)[0] or ""
        content = _SHOWN_TYPES.get(kind.split(";")[0].strip().lower())
        place = "inline" if content else "attachment"
        leaf = quote(name.rsplit("/", 1)[-1], safe="")
        self.set_header("Content-Disposition", f"{place}; filename*=UTF-8''{leaf}")
        self.set_header("Content-Security-Policy", _ARTIFACT_POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "private, no-cache")
        self.set_header("Etag", f'"{found.digest}"')
        await self.finish(data, set_content_type=content or "application/octet-stream")

    def _asked(self, name: str, otherwise: str | None = None) -> str:
        value = self.get_query_argument(name, otherwise)
        if value is None or len(value) > 1000:
            raise WrongUse(f"`{name}` is missing or too long", "Send `run_id` and `name`.")
        return value

    def _read(
        self, path: str, run_id: str, name: str, attempt: int | None
    ) -> tuple[ArtifactRecord, bytes]:
        from nbmlops import runs

        context = self._context(path)
        try:
            workspace = context.workspace()
            found = runs.artifact(workspace, run_id, name, attempt=attempt)
            if found.bytes > _ARTIFACT_LIMIT:
                raise WrongUse(
                    f"{name} has {found.bytes / 2**20:,.0f} MiB, too many for a browser",
                    f"Write it to a folder: `nbmlops run {run_id} --save FOLDER`.",
                )
            return found, workspace.artifacts.get(found.digest)
        finally:
            context.close()


def http_status(error: NbmlopsError) -> int:
    """Return the HTTP status of an error: the one place where they are mapped."""
    if error.code in _STATUS_OF_CODE:
        return _STATUS_OF_CODE[error.code]
    if error.code.startswith("unknown-") and error.code != "unknown-parameter":
        return 404
    return _STATUS_OF_EXIT[error.exit_code]


def converted(command: Command, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a request's arguments as the command's own types.

    Raises
    ------
    WrongUse
        When one is unknown, missing, or of another type.
    """
    fields: list[Any] = []
    for parameter in command.parameters:
        if parameter.name in command.here_only:
            continue
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, parameter.annotation))
        else:
            fields.append((parameter.name, parameter.annotation, parameter.default))
    form = msgspec.defstruct(
        command.name,
        fields,
        forbid_unknown_fields=True,
        kw_only=True,
        rename=lambda name: name.rstrip("_"),  # `from`, which Python calls `from_`
    )
    if any(parameter.name == "detach" for parameter in command.parameters):
        arguments = {**arguments, "detach": True}
    if command.reads:
        arguments = {**arguments, **_lists(command, arguments)}
    try:
        made = msgspec.convert(arguments, form, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(field[0] for field in fields)
        raise WrongUse(
            f"{command.name}: {error}", f"It takes: {names or 'nothing'}.", command=command.name
        ) from error
    return {field[0]: getattr(made, field[0]) for field in fields}


def _lists(command: Command, arguments: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the arguments of a query that are lists of one."""
    many = {p.name for p in command.parameters if get_origin(p.annotation) is tuple}
    return {
        name: [value]
        for name, value in arguments.items()
        if name in many and not isinstance(value, list)
    }


def routes() -> list[tuple[str, str]]:
    """Return every route with its method; a test holds the live server against it."""
    commands = [("GET" if row.reads else "POST", f"nbmlops/api/{row.name}") for row in TABLE]
    return [*commands, ("GET", ARTIFACT_ROUTE)]
