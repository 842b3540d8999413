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

LOOKED_AT = 4096
"""How many rows of a part are looked at, from its beginning."""

REPEATED = 1.1
"""From how many copies of a row on, in the mean, rows count as repeated."""

Digests = NDArray[np.uint64]


class RowSample(Record, frozen=True, kw_only=True):
    """The least digests among the distinct rows, and how often each of these rows was there.

    ``rows`` is how many rows were looked at.
    """

    rows: int = 0
    digests: bytes = b""
    copies: bytes = b""


class RowDigests:
    """Digests of some rows, made a column at a time."""

    def __init__(self, rows: int) -> None:
        self._digests: Digests = np.zeros(min(rows, LOOKED_AT), dtype=np.uint64)
        self._column = 0

    def add(self, column: Numbers | Names) -> None:
        """Let a column's values change the digests of their rows."""
        self._column += 1
        if isinstance(column, Numbers):
            bits = (column.values[:LOOKED_AT] + 0.0).view(np.uint64)  # -0.0 is 0.0
        else:
            known = [_digest(name) for name in column.names]
            bits = np.array([*known, _digest("")], dtype=np.uint64)[column.codes[:LOOKED_AT]]
        factor = np.uint64((0x9E3779B97F4A7C15 * (2 * self._column + 1)) & 0xFFFFFFFFFFFFFFFF | 1)
        bits *= factor
        bits ^= bits >> np.uint64(29)
        self._digests ^= bits
        self._digests *= np.uint64(0xBF58476D1CE4E5B9)

    def sample(self) -> RowSample:
        """Return the sample of these rows."""
        digests = self._digests ^ (self._digests >> np.uint64(31))
        digests >>= np.uint64(16)  # 48 bits, which every JSON reader takes
        return _sample(len(digests), *np.unique(digests, return_counts=True))


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest())


def _sample(rows: int, digests: Digests, copies: NDArray[np.int64]) -> RowSample:
    return RowSample(rows=rows, digests=pack(digests[:LIMIT]), copies=pack(copies[:LIMIT]))


def merge(samples: Sequence[RowSample]) -> RowSample:
    """Return the sample of all rows together."""
    filled = [sample for sample in samples if sample.digests]
    if not filled:
        return RowSample()
    digests = np.concatenate([unpack(sample.digests).astype(np.uint64) for sample in filled])
    counts = np.concatenate([unpack(sample.copies).astype(np.int64) for sample in filled])
    least, places = np.unique(digests, return_inverse=True)
    rows = sum(sample.rows for sample in filled)
    return _sample(rows, least, np.bincount(places, counts, len(least)).astype(np.int64))


def copies_of(sample: RowSample) -> Floats:
    """Return how often each row of the sample was there."""
    return unpack(sample.copies).astype(np.float64) if sample.copies else np.empty(0)


def independent_share(reference: RowSample, window: RowSample, rows: int, *, least: int) -> float:
    """Return which share of a window's rows counts as independent observations.

    Calls that repeat a few rows look like many observations and are not: there are as many as there
    are distinct rows. Only where the reference's rows are nearly all different; elsewhere
    repetition is in the nature of the data. Never fewer than ``least`` rows: a window that repeats
    fewer is unlike training in itself.
    """
    then, now = copies_of(reference), copies_of(window)
    if rows <= least or not len(then) or not len(now) or float(then.mean()) > REPEATED:
        return 1.0
    if float(now.mean()) <= REPEATED:
        return 1.0
    return min(1.0, max(window.rows / float(now.mean()), float(least)) / rows)
