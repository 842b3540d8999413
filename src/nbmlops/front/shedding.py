"""Refusing calls when there are too many of them, at less cost than answering them.

A refusal that costs as much as an answer takes the time of those that are accepted, and a client
that is refused at once comes again at once. So whether there is room is seen before anything of a
call is read, the refusal is made beforehand, and refusals leave at a bounded rate: the more wait
for theirs, the longer each of them waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from nbmlops.front import protocol
from nbmlops.front.protocol import Overloaded, Send

REFUSALS_PER_S = 1000
PAUSE_LIMIT_S = 2.0
# A larger body is read before it is refused: who still sends would not see the answer.
_UNREAD_LIMIT_BYTES = 64 * 1024


def is_call(scope: Mapping[str, Any]) -> bool:
    """Whether a request is a prediction whose body may be left unread."""
    path: str = scope["path"]
    if scope["method"] != "POST" or not (path == "/predict" or path.endswith("/infer")):
        return False
    for name, value in scope["headers"]:
        if name == b"content-length":
            return value.isdigit() and int(value[:12]) <= _UNREAD_LIMIT_BYTES
    return False


class Shedder:
    """Refuses calls."""

    def __init__(self) -> None:
        error = Overloaded("there are more calls than can wait", "Try again in a second.")
        self._answers = {
            plain: protocol.error_answer(error, plain=plain) for plain in (False, True)
        }
        self._last_s = 0.0  # when the refusal that leaves last does

    async def refuse(self, scope: Mapping[str, Any], send: Send, *, closing: bool) -> int:
        """Answer a call with a refusal, and return its status."""
        await self.pause()
        answer = self._answers[scope["path"] != "/predict"]
        await protocol.send_answer(send, answer, closing=closing)
        return answer.status

    async def pause(self) -> None:
        """Wait until the next refusal may leave."""
        now_s = time.monotonic()
        self._last_s = min(
            max(self._last_s, now_s) + 1 / REFUSALS_PER_S,
            now_s + PAUSE_LIMIT_S,
        )
        await asyncio.sleep(self._last_s - now_s)
