"""How often rows repeat: a sample of the distinct rows, by their digests.

A bottom-k sample (Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC 2007), which
merges exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring.arrays import pack, unpack
from nbmlops.monitoring.columns import Floats, Names, Numbers
from nbmlops.records import Record

LIMIT = 128
"""How many distinct rows, by the least digests, are kept."""

_ENOUGH = 4096
Digests = NDArray[np.uint64]


class RowSample(Record, frozen=True, kw_only=True):
    """The least digests among the distinct rows, and how often each of these rows was there."""

    digests: bytes = b""
    copies: bytes = b""


class RowDigests:
    """Digests of some rows, made a column at a time."""

    def __init__(self, rows: int) -> None:
        self._digests: Digests = np.zeros(rows, dtype=np.uint64)
        self._column = 0

    def add(self, column: Numbers | Names) -> None:
        """Let a column's values change the digests of their rows."""
        self._column += 1
        if isinstance(column, Numbers):
            bits = (column.values + 0.0).view(np.uint64)  # -0.0 is 0.0
        else:
            known = [_digest(name) for name in column.names]
            bits = np.array([*known, _digest("")], dtype=np.uint64)[column.codes]
        factor = np.uint64((0x9E3779B97F4A7C15 * (2 * self._column + 1)) & 0xFFFFFFFFFFFFFFFF | 1)
        mixed = bits * factor
        mixed ^= mixed >> np.uint64(29)
        self._digests ^= mixed
        self._digests *= np.uint64(0xBF58476D1CE4E5B9)

    def sample(self) -> RowSample:
        """Return the sample of these rows."""
        digests = self._digests ^ (self._digests >> np.uint64(31))
        digests >>= np.uint64(16)  # 48 bits, which every JSON reader takes
        if len(digests) > 4 * _ENOUGH:
            few = digests[digests <= np.partition(digests, _ENOUGH)[_ENOUGH]]
            least, copies = np.unique(few, return_counts=True)
            if len(least) > LIMIT:
                return _sample(least, copies)
        return _sample(*np.unique(digests, return_counts=True))


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest())


def _sample(digests: Digests, copies: NDArray[np.int64]) -> RowSample:
    return RowSample(digests=pack(digests[:LIMIT]), copies=pack(copies[:LIMIT]))


def merge(samples: Sequence[RowSample]) -> RowSample:
    """Return the sample of all rows together."""
    filled = [sample for sample in samples if sample.digests]
    if not filled:
        return RowSample()
    digests = np.concatenate([unpack(sample.digests).astype(np.uint64) for sample in filled])
    counts = np.concatenate([unpack(sample.copies).astype(np.int64) for sample in filled])
    least, places = np.unique(digests, return_inverse=True)
    return _sample(least, np.bincount(places, counts, len(least)).astype(np.int64))


def copies_of(sample: RowSample) -> Floats:
    """Return how often each row of the sample was there."""
    return unpack(sample.copies).astype(np.float64) if sample.copies else np.empty(0)
