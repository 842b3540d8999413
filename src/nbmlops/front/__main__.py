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

from nbmlops import calllog, layout, records, tensors
from nbmlops.errors import NbmlopsError, WrongUse
from nbmlops.front.app import App, say
from nbmlops.front.server import Server
from nbmlops.records import FrontSpec, RouteTable
from nbmlops.tensors import Address

BACKLOG = 1024
CONNECTIONS = 12_288  # at once; beyond it the longest idle one is closed
GC_THRESHOLD = 20_000
# The thread of the call log works for moments only, and a call waits for it: the interpreter is
# handed over sooner than after the usual 5 ms.
SWITCH_INTERVAL_S = 0.0005
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
    """Refuse a port that somebody listens on, in words."""
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


async def serve(
    spec: FrontSpec, table: RouteTable, address: Address, token: str | None, connections: int
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight, and return."""
    app = App(spec, _hosts(address, spec.hosts), token)
    await app.start(table)
    # What stands now stands for ever; what calls make is freed without the cycle collector.
    gc.freeze()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_THRESHOLD)
    server = Server(app, connections, app.take)
    await server.listen(address.host, address.port, BACKLOG)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    say(f"{spec.endpoint} listens on {address.host}:{address.port}, revision {table.revision}")
    await stopping.wait()
    say("stopping")
    app.draining = True
    await asyncio.sleep(GRACE_S)
    server.stop()
    await app.finish()
    await server.wait_closed(within_s=5.0)
    await app.stop()


def _with_calls(spec: FrontSpec, inbox: Path, environ: Mapping[str, str]) -> FrontSpec:
    """Return the spec with the folder of the call log: the outbox, where it names none."""
    if spec.calls:
        return spec
    calls = Path(environ[layout.OUTBOX_VARIABLE])
    key = inbox / calllog.KEY_FILE
    if key.exists():
        layout.write_file(calls / calllog.KEY_FILE, key.read_bytes(), mode=0o600)
    return records.replace(spec, calls=str(calls), copied=True)


def main(environ: Mapping[str, str]) -> int:
    """Serve the endpoint of the inbox; return the exit code."""
    try:
        inbox = Path(environ["NBMLOPS_INBOX"])
        spec = records.load((inbox / "spec.json").read_bytes(), FrontSpec)
        spec = _with_calls(spec, inbox, environ)
        table = records.load((inbox / "routes.json").read_bytes(), RouteTable)
        address = tensors.parse_address(environ["NBMLOPS_LISTEN"])
        if address.path is not None or (
            address.host not in _LOOPBACK
            and not _is_digest(spec.access_digest)
            and not spec.published_on_loopback
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
