"""Deadlines of requests, kept by one sweep for all instead of a timer for each.

A timer that is set and taken back for each request, twice, costs more than the request's own
parsing; that a deadline comes up to ``SWEEP_S`` late costs nobody anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

from nbmlops.errors import NbmlopsError

SWEEP_S = 0.1


def _too_late() -> NbmlopsError:
    return NbmlopsError("it took too long", "Try again.")


class Deadline:
    """How long what a task does now may take, and what is said when it took longer."""

    __slots__ = ("_at_s", "_error", "_task", "passed")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._at_s = float("inf")
        self._error: Callable[[], NbmlopsError] = _too_late
        self.passed = False

    def within(self, seconds: float, error: Callable[[], NbmlopsError]) -> None:
        """Allow so many seconds from now on."""
        self._at_s = time.monotonic() + seconds
        self._error = error

    def lift(self) -> None:
        """Allow any time, from now on."""
        self._at_s = float("inf")

    def check(self, now_s: float) -> None:
        """Cancel the task when its time is over."""
        if now_s >= self._at_s and not self.passed:
            self.passed = True
            self._task.cancel()

    def error(self) -> NbmlopsError:
        """Return what to say, once :attr:`passed`; the task goes on, to say it."""
        self._task.uncancel()
        return self._error()


class Deadlines:
    """All deadlines of a process."""

    def __init__(self) -> None:
        self._open: set[Deadline] = set()

    def begin(self) -> Deadline:
        """Return a deadline for the present task; the caller ends it."""
        made = Deadline(cast("asyncio.Task[Any]", asyncio.current_task()))
        self._open.add(made)
        return made

    def end(self, deadline: Deadline) -> None:
        """Forget a deadline."""
        self._open.discard(deadline)

    @contextmanager
    def within(self, seconds: float, error: Callable[[], NbmlopsError]) -> Generator[None]:
        """Give what the present task does in here so many seconds, then raise the error."""
        deadline = self.begin()
        deadline.within(seconds, error)
        try:
            yield
        except asyncio.CancelledError:
            if not deadline.passed:
                raise
            raise deadline.error() from None
        finally:
            self.end(deadline)

    async def keep(self, more: Callable[[float], None]) -> None:
        """Look at all deadlines, for ever; ``more`` is told the time, to look at others."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = time.monotonic()
            for deadline in tuple(self._open):
                deadline.check(now_s)
            more(now_s)
