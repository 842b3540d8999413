"""Ids of calls: a UUIDv7 (RFC 9562) and the deployment's id."""

from __future__ import annotations

import functools
import re

from nbmlops.errors import InvalidName, UnknownCall

TAIL_BITS = 74  # the random bits of a UUIDv7
UUID7 = r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}"
_DEPLOYMENT = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_CALL_ID = re.compile(f"({UUID7})-({_DEPLOYMENT})")


def uuid7(now_ms: int, random: int, previous: int = 0) -> int:
    """Return a UUID version 7 (RFC 9562, 5.7) that is greater than ``previous``.

    ``random`` are 74 random bits. Within a millisecond, and when the clock has gone back, the
    random part of the one before is increased by a random amount (RFC 9562, 6.2, method 2).
    """
    before_ms = previous >> 80
    if now_ms > before_ms:
        # The top bit is left for increments.
        return assembled(now_ms, random >> 1)
    tail = ((previous >> 64 & 0xFFF) << 62 | previous & (1 << 62) - 1) + 1 + (random & 0xFFFFFFFF)
    if tail >> TAIL_BITS:
        return assembled(before_ms + 1, random >> 1)
    return assembled(before_ms, tail)


def assembled(milliseconds: int, tail: int) -> int:
    """Return a UUIDv7 of a time and 74 further bits."""
    high = milliseconds << 16 | 0x7000 | tail >> 62
    return high << 64 | 0b10 << 62 | tail & (1 << 62) - 1


def new_call_id(deployment_id: str, now_ms: int, random: int, previous: str | None = None) -> str:
    """Return a call's id, greater than ``previous``: a UUIDv7 in hex, ``-``, the deployment's id.

    >>> new_call_id("cancer-k3x9q2ab", 1_700_000_000_000, 0)
    '018bcfe5680070008000000000000000-cancer-k3x9q2ab'
    """
    checked_deployment(deployment_id)
    before = int(previous[:32], 16) if previous else 0
    return f"{uuid7(now_ms, random, before):032x}-{deployment_id}"


def deployment_of(call_id: str) -> str:
    """Return the id of the deployment that answered a call.

    Raises
    ------
    UnknownCall
        When the text is no call's id.
    """
    return parsed(call_id)[1]


def is_call_id(text: str) -> bool:
    """Return whether the text has the form of a call's id."""
    return _CALL_ID.fullmatch(text) is not None


def parsed(call_id: str) -> tuple[str, str]:
    """Return the UUID in hex and the deployment of a call, or refuse the text."""
    found = _CALL_ID.fullmatch(call_id)
    if found is None:
        raise UnknownCall(
            f"{call_id[:120]!r} is not the id of a call",
            "Copy the `call_id` of an answer, or its header `Nbmlops-Call-Id`.",
        )
    return found[1], found[2]


@functools.lru_cache(1024)
def checked_deployment(deployment_id: str) -> str:
    """Return the id of a deployment, or refuse the text: it becomes a folder."""
    if not re.fullmatch(_DEPLOYMENT, deployment_id):
        raise InvalidName(
            f"{deployment_id[:80]!r} is not the id of a deployment",
            "Copy it from `nbmlops deployments`.",
        )
    return deployment_id


def milliseconds(uuid_hex: str) -> int:
    """Return when a UUIDv7 was made."""
    return int(uuid_hex[:12], 16)
