"""Numbers as they stand in a profile's JSON: base64 of a little-endian array, in as few bytes.

The first byte says which type the numbers have, and whether they are deflated.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHOLE = ("<u1", "<u2", "<u4", "<u8")
_TYPES = (*_WHOLE, "<f8", "<i8")
_DEFLATED = 0x80


def pack(numbers: NDArray[Any], *, deflate: bool = False) -> bytes:
    """Return an array as bytes; whole numbers that are not negative as short as they can be.

    >>> unpack(pack(np.array([1, 2, 300]))).tolist()
    [1, 2, 300]
    >>> len(pack(np.array([1, 2, 3])))
    4
    """
    kind = "<f8"
    if numbers.dtype.kind in "iub":
        low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
        kind = "<i8"
        if low >= 0:
            kind = next(name for name in _WHOLE if high < 1 << (8 * int(name[2])))
    data = numbers.astype(kind).tobytes()
    code = _TYPES.index(kind)
    if deflate:
        return bytes([code | _DEFLATED]) + zlib.compress(data, 9)
    return bytes([code]) + data


def unpack(packed: bytes) -> NDArray[Any]:
    """Return what was packed, as one row of numbers.

    Raises
    ------
    ValueError
        When these bytes were not made by :func:`pack`.
    """
    if not packed or packed[0] & ~_DEFLATED >= len(_TYPES):
        raise ValueError("no packed array")
    data = packed[1:]
    if packed[0] & _DEFLATED:
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise ValueError(f"a damaged array: {error}") from error
    return np.frombuffer(data, dtype=_TYPES[packed[0] & ~_DEFLATED])
