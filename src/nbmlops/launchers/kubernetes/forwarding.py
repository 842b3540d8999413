"""A port of this machine that leads to one of a pod, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Generator
from typing import Any

from nbmlops.launchers.kubernetes.cluster import Connection

_COPY_BYTES = 2**16
_ACCEPT_S = 0.2


@contextlib.contextmanager
def forwarded(open_socket: Callable[[], Any]) -> Generator[str, None, None]:
    """Yield ``tcp:127.0.0.1:PORT``; each connection to it is a call of ``open_socket``."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_ACCEPT_S)
        thread = threading.Thread(target=_accept, args=(listener, open_socket, over), daemon=True)
        thread.start()
        try:
            yield f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def opened(connection: Connection, pod: str, port: int) -> Any:
    """Return a socket that leads to a port of a pod.

    Raises
    ------
    kubernetes.client.ApiException
        When the cluster does not forward it.
    """
    from kubernetes.stream import ws_client

    path = f"api/v1/namespaces/{connection.namespace}/pods/{pod}/portforward"
    forward = ws_client.portforward_call(
        connection.configuration,
        "GET",
        connection.url(path, {"ports": port}),
        headers=connection.headers(),
        query_params=[("ports", str(port))],
    )
    return forward.socket(port)


def _accept(listener: socket.socket, open_socket: Callable[[], Any], over: threading.Event) -> None:
    while not over.is_set():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        except OSError:
            return
        client.settimeout(None)
        threading.Thread(target=_serve, args=(client, open_socket, over), daemon=True).start()


def _serve(client: socket.socket, open_socket: Callable[[], Any], over: threading.Event) -> None:
    with client:
        try:
            remote = open_socket()
        except Exception:  # whoever called finds the connection closed, as by a server that is gone
            return
        with contextlib.closing(remote):
            back = threading.Thread(target=_copy, args=(remote, client, over), daemon=True)
            back.start()
            _copy(client, remote, over)
            back.join(5)


def _copy(source: Any, target: Any, over: threading.Event) -> None:
    try:
        while not over.is_set() and (data := source.recv(_COPY_BYTES)):
            target.sendall(data)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
