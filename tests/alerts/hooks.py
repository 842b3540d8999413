"""A server that webhooks are sent to, which answers as it is told."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import threading
import time


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        hook = self.server.hook
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hook.asked.append((self.path, dict(self.headers), body))
        how = hook.answers.pop(0) if hook.answers else 204
        if callable(how):
            how(self)
            return
        self.send_response(how)
        if 300 <= how < 400:
            self.send_header("Location", f"http://127.0.0.1:{hook.port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False


class _Server6(_Server):
    address_family = socket.AF_INET6


class Hook:
    """What was asked, and what is to be answered next: a status, or a function of the handler."""

    def __init__(self, server):
        self.port = server.server_address[1]
        self.asked = []
        self.answers = []

    @property
    def bodies(self):
        return [json.loads(body) for _, _, body in self.asked]

    @property
    def keys(self):
        return [headers["Idempotency-Key"] for _, headers, _ in self.asked]


@contextlib.contextmanager
def listening(host="127.0.0.1", context=None):
    server = (_Server6 if ":" in host else _Server)((host, 0), _Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.hook = Hook(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def trickle(handler):
    """Answer a byte now and then, for ever: no socket's timeout ever passes."""
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 10_000:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)


def silent(handler):
    with contextlib.suppress(OSError):
        handler.connection.recv(1)  # until the other side has gone


def huge(handler):
    """Answer well, and then for ever."""
    handler.send_response(200)
    handler.end_headers()
    handler.server.hook.sent = 0
    with contextlib.suppress(OSError):
        while handler.server.hook.sent < 1 << 30:
            handler.server.hook.sent += handler.wfile.write(b"x" * 65536)


def endless_head(handler):
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 200_000 + b"\r\n\r\n")


def nonsense(handler):
    with contextlib.suppress(OSError):
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        handler.close_connection = True
