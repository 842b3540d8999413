"""The worker: one model, loaded in the project's environment, behind the V2 protocol.

``python -m nbmlops.worker`` reads ``$NBMLOPS_INBOX/spec.json``, verifies the model's digest before
anything of it is looked at, and listens where ``$NBMLOPS_LISTEN`` says: ``unix:/path.sock``, or
``tcp:HOST:PORT`` with a bearer token, the inbox's ``token`` or ``$NBMLOPS_WORKER_TOKEN``, without
which it listens on no other machine's reach. It has one client, the front, which sends whole
batches; predictions are made one batch at a time.

It is ready once the schema's example has been answered. On SIGTERM it is no longer ready, answers
what it has and what is still on its way, and ends with 0.

The model gets what it was trained on: a DataFrame with the training's column names and dtypes, or
a matrix if it was trained on an array (or pandas is not there). A null is NaN, also in a column of
texts; in a column of truth values without a dtype of its own it is ``None``.
"""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import stat
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from nbmlops import archives, formats, layout, predictors, schema, shortcuts, tensors, turns
from nbmlops._version import __version__
from nbmlops.errors import (
    ArtifactCorrupt,
    ModelRefused,
    NbmlopsError,
    WrongUse,
)
from nbmlops.records import WorkerSpec, load
from nbmlops.tensors import HEADER_LENGTH, PRIVATE, Address, InvalidTensors
from nbmlops.turns import ClientGone, TooManyWaiting

if TYPE_CHECKING:
    from collections.abc import Generator

BODY_LIMIT_BYTES = 256 * 1024 * 1024
IDLE_TIMEOUT_S = 300.0  # longer than the front keeps a connection, which so is never cut by us
DRAIN_LIMIT_S = 30.0
HEADERS_LIMIT, HEADER_LIMIT_BYTES = 64, 8192
QUIET_S = 0.25  # nothing has come for so long: nothing is on its way any more

_INBOX, _LISTEN, _TOKEN = "NBMLOPS_INBOX", "NBMLOPS_LISTEN", "NBMLOPS_WORKER_TOKEN"
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


# --- the model ----------------------------------------------------------------------------------


def load_model(spec: WorkerSpec, inbox: Path) -> Any:
    """Return the model of a spec, whose file has the digest that the spec names.

    Raises
    ------
    ArtifactCorrupt
        When the file's SHA-256 is another; nothing of it has been loaded then.
    ModelRefused
        When the format is not skops, or a type in it is not trusted.
    """
    path = verified(spec, inbox)
    if spec.format == formats.SKOPS:
        return formats.load(path)
    if spec.format != formats.LOADER or spec.loader is None:
        raise ModelRefused(f"models in the format {spec.format!r} are not loaded", "Use skops.")
    folder, project = unpacked(spec, inbox, path)
    os.chdir(project)
    return formats.load_by(spec.loader, folder, project)


def verified(spec: WorkerSpec, inbox: Path) -> Path:
    """Return the model's file, which has the digest that the spec names.

    Raises
    ------
    ArtifactCorrupt
        When the file's SHA-256 is another.
    """
    return _verified(inbox, spec.model_file, spec.model_digest)


def _verified(inbox: Path, name: str, digest: str) -> Path:
    if Path(name).name != name:
        raise ModelRefused(f"{name[:120]!r} is not a file of the inbox")
    path = inbox / name
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ArtifactCorrupt(
            f"the model's file {name} has the digest {found[:12]}, not {digest[:12]}",
            "Deploy the version again: `nbmlops deploy`.",
        )
    return path


def predictor_of(spec: WorkerSpec, inbox: Path) -> predictors.Predictor:
    """Return the model in the form that serves; where that is arrays, nothing else is loaded.

    Raises
    ------
    ArtifactCorrupt, ModelRefused
        As :func:`load_model`; the model's file is verified in each case.
    """
    if spec.form != "numeric" or spec.numeric_file is None:
        return predictors.Predictor(load_model(spec, inbox), spec.schema, spec.form)
    verified(spec, inbox)
    content = _verified(inbox, spec.numeric_file, spec.numeric_digest).read_bytes()
    return predictors.Predictor(
        None,
        spec.schema,
        "numeric",
        quick=shortcuts.Numeric.from_bytes(content),
        load=lambda: load_model(spec, inbox),
    )


def unpacked(spec: WorkerSpec, inbox: Path, model: Path) -> tuple[Path, Path]:
    """Lay out the model's files and the commit's; return the folders of the model and project."""
    # In a container the inbox is read-only.
    place = Path(os.environ.get(layout.OUTBOX_VARIABLE) or inbox) / "unpacked"
    shutil.rmtree(place, ignore_errors=True)  # of a start before
    archives.unpack(model, place / "model")
    archives.unpack(inbox / layout.SOURCE_FILE, place / "source")
    return place / "model", place / "source" / spec.project_dir


def become(spec: WorkerSpec, inbox: Path, address: Address, environ: Mapping[str, str]) -> NoReturn:
    """Turn this process into the program that serves the model by the V2 protocol.

    It finds the model's files at ``$NBMLOPS_FILES``, its own name and version in
    ``$NBMLOPS_MODEL`` and ``$NBMLOPS_VERSION``, and listens where ``$NBMLOPS_HOST`` and
    ``$NBMLOPS_PORT`` say; ``{files}``, ``{model}``, ``{host}``, ``{port}`` in the command are
    these. It stands in the project's folder, as it was in the commit.
    """
    folder, project = unpacked(spec, inbox, verified(spec, inbox))
    told = {
        "files": str(folder),
        "model": spec.model,
        "version": str(spec.version),
        "host": address.host,
        "port": str(address.port),
    }
    words = formats.filled(spec.command, told)
    os.chdir(project)
    variables = formats.variables(told)
    _say(f"{spec.model}:{spec.version} is served by {words[0]}")
    try:
        os.execvpe(words[0], words, {**environ, **variables})  # noqa: S606 the commit's own program
    except OSError as error:
        raise WrongUse(
            f"the program {words[0]} of [models.{spec.model}] cannot be run: {error.strerror}",
            "Commit it, or name one that is on the PATH of those who deploy.",
        ) from error


# --- the server ---------------------------------------------------------------------------------


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """An HTTP/1.1 server on a Unix socket or TCP, with a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, address: Address, spec: WorkerSpec, token: str | None) -> None:
        self.spec = spec
        self.token = token
        self.predictor: predictors.Predictor | None = None
        self.turns = turns.Turns()
        self.draining = threading.Event()
        self._changed = threading.Condition()
        self._busy = 0
        self._last_s = time.monotonic()
        self._inode: int | None = None
        if address.path is not None:
            self.address_family = socket.AF_UNIX
            _remove_stale(address.path)
        elif ":" in address.host:
            self.address_family = socket.AF_INET6
        where: Any = str(address.path) if address.path else (address.host, address.port)
        super().__init__(where, Handler)

    def server_bind(self) -> None:
        """Bind, on a Unix socket so that only this user can connect."""
        if self.address_family != socket.AF_UNIX:
            socketserver.TCPServer.server_bind(self)
        else:
            before = os.umask(0o177)
            try:
                self.socket.bind(self.server_address)
            finally:
                os.umask(before)
            self._inode = Path(str(self.server_address)).stat().st_ino
        self.server_name, self.server_port = "worker", 0  # no look-up of names

    def server_close(self) -> None:
        """Stop listening and remove our own socket file."""
        super().server_close()
        if self._inode is not None:
            path = Path(str(self.server_address))
            with suppress(FileNotFoundError):
                if path.stat().st_ino == self._inode:
                    path.unlink()

    @property
    def is_ready(self) -> bool:
        """Whether predictions are answered."""
        waits = self.draining.is_set() or self.turns.is_stuck
        return self.predictor is not None and not waits

    @contextmanager
    def working(self) -> Generator[None]:
        """Count a request as being answered."""
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._last_s = time.monotonic()
                self._changed.notify_all()

    def drain(self) -> None:
        """Answer what has come and what is on its way, then stop; at most DRAIN_LIMIT_S."""
        self.draining.set()
        began_s = self._last_s = time.monotonic()
        with self._changed:
            while (now_s := time.monotonic()) < began_s + DRAIN_LIMIT_S:
                if not self._busy and now_s >= self._last_s + QUIET_S:
                    break
                self._changed.wait(QUIET_S)
        self.shutdown()


def _remove_stale(path: Path) -> None:
    """Remove the socket of a worker that was killed; one that answers is not ours to remove."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise WrongUse(f"{path} is there and is no socket", "Listen somewhere else.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise WrongUse(f"{path} cannot be listened on: {error}") from error
    raise WrongUse(f"another worker listens on {path}", "Listen somewhere else.")


_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the V2 protocol; errors are ``{"error": ...}`` as the protocol has them."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    error_content_type = "application/json"
    error_message_format = '{"error":"%(code)d %(message)s"}'
    raw_requestline: bytes
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    _FREE: ClassVar[frozenset[str]] = frozenset({"/v2/health/live", "/v2/health/ready"})

    def setup(self) -> None:
        """Send small answers at once, where the socket has such an option."""
        super().setup()
        if self.server.address_family != socket.AF_UNIX:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def parse_request(self) -> bool:
        """Take a request's head apart, in a tenth of the time that a parser of e-mails takes.

        The one client is the front, which sends a few plain lines; whatever else comes is refused.
        """
        self.command, self.request_version, self.requestline = "", "HTTP/1.1", ""
        self.close_connection = True
        words = self.raw_requestline.decode("latin-1").rstrip("\r\n").split(" ")
        if len(words) != 3 or words[2] not in {"HTTP/1.1", "HTTP/1.0"}:
            self._fail(400, "the request is not HTTP/1.1")
            return False
        self.command, self.path, self.request_version = words
        self.given: dict[str, str] = {}
        for _ in range(HEADERS_LIMIT):
            line = self.rfile.readline(HEADER_LIMIT_BYTES + 1)
            if line in {b"\r\n", b"\n"}:
                break
            found = _HEADER.fullmatch(line.decode("latin-1").rstrip("\r\n"))
            if found is None or not line.endswith(b"\n"):
                self._fail(400, "a header is not HTTP/1.1")
                return False
            name = found[1].lower()
            if name in self.given:
                self._fail(400, f"the header {name[:40]} comes twice")
                return False
            self.given[name] = found[2]
        else:
            self._fail(431, "there are too many headers")
            return False
        kept = self.given.get("connection", "").lower()
        self.close_connection = kept == "close" or (
            self.request_version == "HTTP/1.0" and kept != "keep-alive"
        )
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 named by the base class
        """Keep no access log: the front has the call log."""

    def do_POST(self) -> None:
        """Answer ``infer``."""
        with self.server.working():
            body = self._body()
            if body is None:
                return
            if not self._allowed():
                self._fail(401, "a bearer token is needed")
                return
            found = _PATH.fullmatch(self.path)
            if found is None or found[3] != "/infer" or not self._is_served(found):
                self._fail(404, f"nothing is served at {self.path[:200]}")
                return
            self._infer(body)

    def do_GET(self) -> None:
        """Answer health and metadata; whoever watches does not keep a worker from stopping."""
        ready = self.server.is_ready
        if self.path == "/v2/health/live":
            self._answer(200, {"live": True})
        elif self.path == "/v2/health/ready":
            self._answer(200 if ready else 503, {"ready": ready})
        elif not self._allowed():
            self._fail(401, "a bearer token is needed")
        elif self.path == "/v2":
            extensions = ["binary_tensor_data"]
            self._answer(200, {"name": "nbmlops", "version": __version__, "extensions": extensions})
        else:
            found = _PATH.fullmatch(self.path)
            if found is None or found[3] == "/infer" or not self._is_served(found):
                self._fail(404, f"nothing is served at {self.path[:200]}")
            elif found[3] == "/ready":
                self._answer(200 if ready else 503, {"name": found[1], "ready": ready})
            else:
                spec = self.server.spec
                platform = f"nbmlops_{spec.format}"
                about = schema.metadata(spec.model, spec.version, platform, spec.schema)
                self._answer(200, about)

    def _is_served(self, found: re.Match[str]) -> bool:
        spec = self.server.spec
        return found[1] == spec.model and found[2] in {None, str(spec.version)}

    def _allowed(self) -> bool:
        token = self.server.token
        if token is None:
            return True
        given = self.given.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())

    def _body(self) -> bytes | None:
        """Return the request's body, or answer why it is not taken and return ``None``."""
        length = self.given.get("content-length", "")
        if not re.fullmatch(r"[0-9]{1,15}", length) or "transfer-encoding" in self.given:
            self.close_connection = True
            self._fail(411, "a Content-Length is needed")
            return None
        if int(length) > BODY_LIMIT_BYTES:
            self.close_connection = True
            self._fail(413, f"a body has at most {BODY_LIMIT_BYTES} bytes")
            return None
        body = self.rfile.read(int(length))
        if len(body) != int(length):  # the client has gone
            self.close_connection = True
            return None
        return body

    def _infer(self, body: bytes) -> None:
        spec, predictor = self.server.spec, self.server.predictor
        if predictor is None:
            self._fail(503, "the model is being loaded")
            return
        given = self.given.get(HEADER_LENGTH.lower())
        if given is not None and not re.fullmatch(r"[0-9]{1,15}", given):
            self._fail(400, f"{HEADER_LENGTH} is not a number")
            return
        try:
            request = tensors.decode_request(body, int(given) if given else None)
            with self.server.turns.taken(self.connection):
                outputs = predictor.predict(request.inputs)
            answer, length = tensors.encode_response(spec.model, spec.version, outputs, request)
        except InvalidTensors as error:
            self._fail(400, error.message)
        except TooManyWaiting as error:
            self._fail(503, error.message)
        except ClientGone:
            self.close_connection = True
        except Exception as error:  # the model's own; it must not take the worker along
            _tell(error, private=PRIVATE.lower() in self.given)
            self._answer(500, {"error": predictors.told(error), "type": type(error).__name__})
        else:
            if length is None:
                self._send(200, "application/json", answer)
            else:
                more = f"{HEADER_LENGTH}: {length}\r\n"
                self._send(200, "application/octet-stream", answer, more)

    def _fail(self, status: int, message: str) -> None:
        self._answer(status, {"error": message})

    def _answer(self, status: int, document: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _send(self, status: int, media_type: str, body: bytes, more: str = "") -> None:
        if self.server.draining.is_set():
            self.close_connection = True
        closing = "Connection: close\r\n" if self.close_connection else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {len(body)}\r\n{more}{closing}\r\n"
        )
        try:
            self.wfile.write(head.encode("latin-1") + body)  # one write, one packet
        except OSError:  # the client has gone
            self.close_connection = True


# --- the program --------------------------------------------------------------------------------


def main(environ: Mapping[str, str]) -> int:
    """Serve the model of the inbox until SIGTERM; return the exit code."""
    began_s = time.monotonic()
    stopped = _stop_signals()
    try:
        inbox = Path(environ[_INBOX])
        spec = load((inbox / "spec.json").read_bytes(), WorkerSpec)
        address = tensors.parse_address(environ[_LISTEN])
        token = _token(inbox, environ)
        if address.path is None and token is None and address.host not in _LOOPBACK:
            raise WrongUse(f"listening on {address.host} needs {_TOKEN}", f"Set {_TOKEN}.")
        if spec.format == formats.COMMAND:
            become(spec, inbox, address, environ)
        server = Server(address, spec, token)
    except (NbmlopsError, OSError, KeyError, ValueError) as error:
        return _failed(error)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        predictor = predictor_of(spec, inbox)
        predictor.warm_up(spec.sample)
        server.predictor = predictor
        _say(f"{spec.model}:{spec.version} is ready after {time.monotonic() - began_s:.1f} s")
        os.read(stopped, 1)
        _say("stopping")
        server.drain()
    except Exception as error:  # loading runs much foreign code
        return _failed(error)
    finally:
        server.server_close()
    return 0


def _token(inbox: Path, environ: Mapping[str, str]) -> str | None:
    """Return the token that the front shows: of the inbox, else of the environment."""
    try:
        return (inbox / layout.TOKEN_FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return environ.get(_TOKEN) or None


def _stop_signals() -> int:
    """Return a pipe that can be read once SIGTERM or SIGINT has come, to whichever thread.

    An Event set in a handler could wait for itself.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reader


def _failed(error: BaseException) -> int:
    if isinstance(error, NbmlopsError):
        _say(f"{error.code}: {error.message} {error.hint}".strip())
    else:
        traceback.print_exception(error)
        _say(f"failed: {predictors.told(error)}")
    return 1


def _tell(error: Exception, *, private: bool) -> None:
    """Write what a model raised to the log; the values that it names are left out if private."""
    if private:
        frames = "".join(traceback.format_tb(error.__traceback__))
        _say(f"{type(error).__name__}, its message left out since columns are redacted\n{frames}")
    else:
        traceback.print_exception(error)


def _say(text: str) -> None:
    sys.stderr.write(f"worker: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(os.environ))
