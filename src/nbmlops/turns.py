"""Who may predict now: one call at a time, the others wait, bounded and as long as they are wanted.

A model is not asked by two threads at once. What hangs in it hangs for ever, so that those who wait
behind it must not pile up, and whoever has gone meanwhile is not predicted for.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ClassVar

from nbmlops.errors import NbmlopsError

WAITING_LIMIT = 160  # more than a front has calls on their way
STUCK_S = 30.0  # by then nobody waits for the answer


class TooManyWaiting(NbmlopsError):
    """More calls wait for the model than ever should."""

    code: ClassVar[str] = "too-many-waiting"


class ClientGone(Exception):
    """Whoever asked does not wait any more."""


class Turns:
    """The turns of one model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._model = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0
        self._since_s: float | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether the present call has been with the model for longer than anybody waits."""
        since_s = self._since_s
        return since_s is not None and self._clock() - since_s > STUCK_S

    @contextmanager
    def taken(self, client: socket.socket) -> Generator[None]:
        """Wait for the model, and have it for oneself.

        Raises
        ------
        TooManyWaiting
            When too many wait already.
        ClientGone
            When the client has closed its connection meanwhile.
        """
        with self._counting:
            if self._waiting >= WAITING_LIMIT:
                raise TooManyWaiting(
                    f"{self._waiting} calls wait for the model", "Try again in a second."
                )
            self._waiting += 1
        try:
            self._model.acquire()
        finally:
            with self._counting:
                self._waiting -= 1
        try:
            if has_gone(client):
                raise ClientGone
            self._since_s = self._clock()
            yield
        finally:
            self._since_s = None
            self._model.release()


def has_gone(client: socket.socket) -> bool:
    """Whether the other side has closed a connection on which it waits for an answer."""
    # Asked first whether there is anything: a socket with a timeout would wait for it.
    waiting = select.poll()
    waiting.register(client, select.POLLIN)
    try:
        return bool(waiting.poll(0)) and client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
