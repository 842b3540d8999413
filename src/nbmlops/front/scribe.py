"""The thread that writes the call log, so that a disk that hangs holds up no answer.

A call is answered when its record is written, or when the writing has taken too long: then it
counts as dropped until it is written after all. While a write hangs nothing further waits for the
disk: records are kept in memory for later, up to a limit, and beyond it dropped and counted.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import deque
from queue import SimpleQueue

from nbmlops.calllog import Batch, CallLog

PATIENCE_S = 0.5
BEHIND_LIMIT_BYTES = 64 * 1024 * 1024  # of records whose calls were answered
_CLOSE_S = 5.0


class Scribe:
    """Writes what a call log has encoded, in the order in which it comes."""

    def __init__(self, log: CallLog) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Batch, asyncio.Future[None] | None] | None] = SimpleQueue()
        self._pending: deque[tuple[float, Batch, asyncio.Future[None]]] = deque()
        self._late = 0  # batches that are still not written, though nobody waits for them
        self._behind = 0  # their bytes
        # A daemon: a process whose disk hangs must be able to end.
        self._thread = threading.Thread(target=self._write, name="call log", daemon=True)
        self._thread.start()

    async def keep(self, batch: Batch) -> None:
        """Return when the batch is written, or nobody is to wait for it."""
        if self._late:
            if self._behind + batch.size > BEHIND_LIMIT_BYTES:
                self._log.drop(batch)
            else:
                self._give_way(batch)
                self._queue.put((batch, None))
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._pending.append((time.monotonic(), batch, done))
        self._queue.put((batch, done))
        await done

    def check(self, now_s: float) -> None:
        """Let go of those who have waited too long."""
        while self._pending and now_s - self._pending[0][0] > PATIENCE_S:
            _, batch, done = self._pending.popleft()
            self._give_way(batch)
            if not done.done():
                done.set_result(None)

    def _give_way(self, batch: Batch) -> None:
        self._late += 1
        self._behind += batch.size
        self._log.delay(batch)

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            batch, done = item
            try:
                self._log.append(batch)
            except Exception as error:  # the door of the thread, which must not end
                traceback.print_exception(error)
                self._log.drop(batch)
            self._loop.call_soon_threadsafe(self._written, batch, done)

    def _written(self, batch: Batch, done: asyncio.Future[None] | None) -> None:
        if self._pending and self._pending[0][1] is batch:
            self._pending.popleft()
        else:
            self._late -= 1
            self._behind -= batch.size
        if done is not None and not done.done():
            done.set_result(None)

    def close(self) -> None:
        """Write what is left, unless the disk hangs; this blocks."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
