"""One line of a segment, found by its call's id without reading the segment.

The lines of a segment are in the order of their ids, since one writer wrote them and its ids grow.
So halving the file at line starts finds a call in about twenty short reads, however large it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_HEAD = b'{"call_id":"'
_KEY = slice(len(_HEAD), len(_HEAD) + 32)
_BLOCK = 4096
_LARGEST_BLOCK = 1 << 20


def sought(descriptor: int, call_id: str) -> bytes | None:
    """Return the line of that call, without its end, or ``None`` when the file has none.

    A last line that a killed writer left unfinished does not count. Where a line was changed, so
    that the order cannot be relied on, the whole file is looked through.
    """
    size = os.fstat(descriptor).st_size
    start = f'{{"call_id":"{call_id}",'.encode()
    key = start[_KEY]
    low, high = 0, size  # the call's line begins in low..high, if anywhere
    while low < high:
        middle = (low + high) // 2
        begins = _first_start(descriptor, middle, high)
        if begins is None:
            high = middle
            continue
        head = os.pread(descriptor, len(start), begins)
        if begins + _KEY.stop > size:  # unfinished, so behind all others
            high = middle
        elif not head.startswith(_HEAD):
            return _looked_through(descriptor, size, start)
        elif head[_KEY] < key:
            low = begins + 1
        elif head[_KEY] > key:
            high = middle
        else:
            return _rest(descriptor, begins, size) if head == start else None
    return None


def _blocks(descriptor: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield what lies between two places, in growing blocks, each with its place."""
    length = _BLOCK
    while start < end:
        block = os.pread(descriptor, min(length, end - start), start)
        if not block:
            return
        yield start, block
        start += len(block)
        length = min(2 * length, _LARGEST_BLOCK)


def _first_start(descriptor: int, start: int, end: int) -> int | None:
    """Return where the first line begins from ``start`` on and before ``end``."""
    if start == 0:
        return 0
    for place, block in _blocks(descriptor, start - 1, end - 1):
        if (found := block.find(b"\n")) >= 0:
            return place + found + 1
    return None


def _rest(descriptor: int, start: int, size: int) -> bytes | None:
    """Return a line without its end, from where it begins."""
    parts: list[bytes] = []
    for _, block in _blocks(descriptor, start, size):
        if (found := block.find(b"\n")) >= 0:
            return b"".join((*parts, block[:found]))
        parts.append(block)
    return None


def _looked_through(descriptor: int, size: int, start: bytes) -> bytes | None:
    # Inside a JSON text a quote is escaped and a line never ends, so this is no record's content.
    data = os.pread(descriptor, size, 0)
    at = 0 if data.startswith(start) else data.find(b"\n" + start) + 1
    end = data.find(b"\n", at)
    return data[at:end] if end >= 0 and data.startswith(start, at) else None
