"""``python -m nbmlops.exchange courier``: hands out, for a while, what jobs have left on a claim.

It listens on the pod's own loopback alone, which only a forwarded port reaches; who may forward
ports is what the cluster knows. Each name is a job's folder and a file in it; what a job may have
put in the way (links, odd names) leads nowhere. It ends by itself when nobody has asked for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from nbmlops import parcels

IDLE_S = 90.0
_COPY_BYTES = 2**20
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")


class Courier(ThreadingHTTPServer):
    """Serves one folder; remembers when it was last asked."""

    daemon_threads = True

    def __init__(self, root: Path, port: int, idle_s: float = IDLE_S) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root = root
        self.idle_s = idle_s
        self.asked_at = time.monotonic()

    def serve_for_a_while(self) -> None:
        """Serve until nobody has asked for long."""

        def watch() -> None:
            while time.monotonic() - self.asked_at < self.idle_s:
                time.sleep(min(1.0, self.idle_s / 10))
            self.shutdown()

        threading.Thread(target=watch, daemon=True).start()
        self.serve_forever()

    def place(self, path: str) -> Path | None:
        """Return the file or folder of a request; ``None`` for a name that leads elsewhere."""
        parts = [unquote(part) for part in urlsplit(path).path.split("/") if part]
        if not parts or not all(_SEGMENT.fullmatch(part) for part in parts):
            return None
        found = self.root
        for part in parts:
            found /= part
            if found.is_symlink():
                return None
        return found


class Handler(BaseHTTPRequestHandler):
    """GET a file, GET a folder's files as JSON, PUT a file, DELETE a folder."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send a file, or the names, sizes and states of the files below a folder."""
        path = self._asked()
        if path is None or not path.exists():
            self._answer(404)
        elif path.is_dir():
            self._answer(200, json.dumps(_files(path)).encode())
        else:
            self._send(path)

    def do_PUT(self) -> None:
        """Take a file, whole or not at all."""
        path = self._asked()
        left = int(self.headers.get("content-length") or 0)
        if path is None:
            self.close_connection = True
            self._answer(404)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        with beside.open("wb") as file:
            while left > 0 and (chunk := self.rfile.read(min(left, _COPY_BYTES))):
                file.write(chunk)
                left -= len(chunk)
                self._courier.asked_at = time.monotonic()
            file.flush()
            os.fsync(file.fileno())
        if left:
            beside.unlink()
            self.close_connection = True
            return
        beside.replace(path)
        self._answer(200)

    def do_DELETE(self) -> None:
        """Remove a folder."""
        path = self._asked()
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        self._answer(200)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's
        """Say nothing: the pod's log is nobody's to read."""

    @property
    def _courier(self) -> Courier:
        return cast("Courier", self.server)

    def _asked(self) -> Path | None:
        self._courier.asked_at = time.monotonic()
        return self._courier.place(self.path)

    def _send(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            self._answer(404)
            return
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                self._answer(404)
                return
            self.send_response(200)
            self.send_header("content-length", str(about.st_size))
            self.end_headers()
            left = about.st_size
            while left and (chunk := file.read(min(left, _COPY_BYTES))):
                self.wfile.write(chunk)
                left -= len(chunk)
                self._courier.asked_at = time.monotonic()
            self.close_connection = bool(left)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _files(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the files below a folder, each with its size and what tells whether it has changed."""
    found: dict[str, tuple[int, str]] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with contextlib.suppress(OSError):
                about = path.lstat()
                if stat.S_ISREG(about.st_mode):
                    state = f"{about.st_mtime_ns}.{about.st_ino}"
                    found[path.relative_to(folder).as_posix()] = about.st_size, state
            if len(found) > parcels.LAID_LIMIT_FILES:
                return found
    return found
