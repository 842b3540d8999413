"""``python -m nbmlops.front``: serve an endpoint until SIGTERM.

``$NBMLOPS_INBOX`` holds ``spec.json`` (a FrontSpec) and ``routes.json`` (a RouteTable), and
``$NBMLOPS_LISTEN`` says where to listen, as ``tcp:127.0.0.1:PORT``; beyond loopback only where the
spec asks for an access token. ``$NBMLOPS_WORKER_TOKEN`` is shown to workers on TCP.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from nbmlops import records, tensors
from nbmlops.errors import NbmlopsError, WrongUse
from nbmlops.front.app import App, say
from nbmlops.records import FrontSpec, RouteTable
from nbmlops.tensors import Address

HEADER_TIMEOUT_MS = 8_000
BACKLOG = 1024
CONNECTIONS = 12_288  # at once; with as many idle ones, others wait until those are closed
GC_THRESHOLD = 20_000
_OTHER_FILES = 1024  # descriptors for workers, the call log and all else
# After SIGTERM clients are told for so long to go elsewhere with their next call.
GRACE_S = 0.5

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def _hosts(address: Address, more: tuple[str, ...] = ()) -> frozenset[str]:
    """Return what the Host header may say: this machine's own names, and those that were given."""
    names = ("127.0.0.1", "localhost", "[::1]")
    with_port = {f"{name}:{address.port}" for name in names}
    given = {name.lower() for name in more}
    return frozenset(with_port | given | (set(names) if address.port == 80 else set()))


def _is_digest(text: str | None) -> bool:
    return text is not None and re.fullmatch("[0-9a-f]{64}", text) is not None


def _check_free(address: Address) -> None:
    """Refuse a port that somebody listens on, which SO_REUSEPORT would let us share."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise WrongUse(
                f"port {address.port} of {address.host} cannot be had: {error.strerror}",
                "Stop the program that has it.",
            ) from error


def _raise_file_limit() -> int:
    """Take as many descriptors as the system gives; return how many connections they are for."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    # With fewer descriptors fewer connections, so that accepting one never fails for want of one.
    return max(16, min(CONNECTIONS, soft - min(_OTHER_FILES, soft // 2)))


def _server(app: App, address: Address, connections: int) -> Server:
    return Server(
        app,
        address=address.host,
        port=address.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        websockets=False,
        backlog=BACKLOG,
        backpressure=connections,
        log_enabled=False,
    )


async def serve(
    spec: FrontSpec, table: RouteTable, address: Address, token: str | None, connections: int
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight, and return."""
    app = App(spec, _hosts(address, spec.hosts), token)
    await app.start(table)
    # What stands now stands for ever; what calls make is freed without the cycle collector.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    server = _server(app, address, connections)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    say(f"{spec.endpoint} listens on {address.host}:{address.port}, revision {table.revision}")
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        say("stopping")
        app.draining = True
        await asyncio.sleep(GRACE_S)
        server.stop()
        await app.finish()
        await asyncio.wait({serving}, timeout=5.0)
    waiting.cancel()
    await app.stop()
    if serving.done():
        serving.result()


def main(environ: Mapping[str, str]) -> int:
    """Serve the endpoint of the inbox; return the exit code."""
    try:
        inbox = Path(environ["NBMLOPS_INBOX"])
        spec = records.load((inbox / "spec.json").read_bytes(), FrontSpec)
        table = records.load((inbox / "routes.json").read_bytes(), RouteTable)
        address = tensors.parse_address(environ["NBMLOPS_LISTEN"])
        if address.path is not None or (
            address.host not in _LOOPBACK and not _is_digest(spec.access_digest)
        ):
            raise WrongUse(
                f"{environ['NBMLOPS_LISTEN']} is not on this machine's loopback",
                "Listen on tcp:127.0.0.1:PORT: beyond it, endpoints need a token first.",
            )
        _check_free(address)
        token = environ.get("NBMLOPS_WORKER_TOKEN") or None
        uvloop.run(serve(spec, table, address, token, _raise_file_limit()))
    except NbmlopsError as error:
        say(f"{error.code}: {error.message} {error.hint}".strip())
        return 1
    except (OSError, KeyError, msgspec.MsgspecError, RuntimeError) as error:
        traceback.print_exception(error)
        say(f"failed: {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
