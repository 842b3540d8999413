"""How much rows hang together: what their number is worth.

Rows that follow each other are alike where a series has a memory, a season or a trend, and then a
thousand of them tell less than a thousand independent ones. Rows are looked at in blocks of those
that followed each other, of several sizes. Between independent blocks the counts of a cell vary as
the multinomial distribution says; how many times more they do is the variance inflation, or design
effect (Kish, "Survey Sampling", 1965; batch means: Alexopoulos & Seila in "Handbook of
Simulation", 1998): that many rows count as one.

Of the training data, blocks tell as well how far a part of them ever lies from the whole, for a
part of any size (a block bootstrap of the window, Künsch, Ann. Statist. 17, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring.arrays import pack, unpack
from nbmlops.monitoring.coarse import Coarse
from nbmlops.monitoring.columns import Codes, Floats
from nbmlops.monitoring.statistics import distance_error, jensen_shannon_distances
from nbmlops.records import Record

SIZES = (16, 64, 256, 1024, 4096, 16384)
"""How many rows a block has, at each level."""

BLOCKS_NEEDED = 8
"""How many blocks a level needs before it is listened to."""

STRETCHES = 64
"""How many parts of each size are held against the whole of training."""

_BASE = SIZES[0]
_TOGETHER = 16  # variables, whose counts fit into a processor's cache
_STRETCH_SHARE = 8
_CHANCE = 3.0  # standard deviations
_USUAL = 0.95  # a cell's share of training, for a part that lies in it alone to be no wonder
_FARTHEST_BY_CHANCE = 4.5  # standard errors, of the farthest of 64 independent parts


LOOKED_AT = 2048
"""How many rows of a part are looked at, from its beginning."""

Whole = NDArray[np.signedinteger[Any]]


class Sums(NamedTuple):
    """What is to be known of the blocks of one variable.

    For each level the number of blocks, and two sums of squares: over blocks and cells of
    ``count^2 / (rows of the block * share of the cell)``, and over blocks of
    ``(sum of scores)^2 / rows``; and the counts of the coarse cells in all blocks together. All of
    them add up over windows, whose last blocks may be short.
    """

    blocks: list[int]
    by_cells: list[float]
    by_scores: list[float]
    totals: Floats


class Blocks(Record, frozen=True, kw_only=True):
    """The :class:`Sums` of all variables, as they are kept."""

    blocks: bytes = b""
    squares: bytes = b""
    totals: bytes = b""


def sums(coded: Sequence[Whole], coarse: Sequence[Coarse]) -> Blocks:
    """Return the sums of all variables, one after another.

    ``coded`` are the coarse cells of a variable's rows, in the order in which they came.
    """
    if not coded:
        return Blocks()
    first = [one[:LOOKED_AT] for one in coded]
    found = [_sums(first[alike], coarse[alike]) for alike in _alike([len(one) for one in first])]
    return Blocks(
        blocks=pack(np.concatenate([blocks for blocks, _, _ in found])),
        squares=pack(np.concatenate([squares for _, squares, _ in found])),
        totals=pack(np.concatenate([totals for _, _, totals in found]).astype(np.int64)),
    )


def _alike(rows: Sequence[int]) -> Iterator[slice]:
    """Yield which variables are summed up at once: neighbours of as many rows, some at a time."""
    start = 0
    for stop in range(1, len(rows) + 1):
        if stop == len(rows) or stop - start == _TOGETHER or rows[stop] != rows[start]:
            yield slice(start, stop)
            start = stop


def _sums(coded: Sequence[Whole], coarse: Sequence[Coarse]) -> tuple[Codes, Floats, Floats]:
    """Return numbers of blocks, sums of squares and totals of variables of as many rows."""
    shares = np.concatenate([one.shares for one in coarse])
    scores = np.concatenate([one.scores for one in coarse])
    firsts = np.cumsum([0, *(one.size for one in coarse[:-1])])
    cells = np.stack(coded, dtype=np.intp)
    cells += firsts[:, None]
    counts = _blocks(cells, len(shares))
    totals = counts.sum(axis=0)
    rows = counts[:, : coarse[0].size].sum(axis=1, keepdims=True)  # as in any other variable
    scored = np.add.reduceat(counts * scores, firsts, axis=1)
    blocks: list[int] = []
    squares: list[Floats] = []
    for level in range(len(SIZES)):
        if level:
            counts, scored, rows = _joined(counts), _joined(scored), _joined(rows)
        # No matrix products: they start threads, which cost more than they bring here.
        by_cell = _squares(counts, rows) / shares
        blocks.append(len(counts))
        squares += [np.add.reduceat(by_cell, firsts), _squares(scored, rows)]
    by_level = np.stack(squares).reshape(len(SIZES), 2, len(coded))
    return np.tile(blocks, len(coded)), by_level.transpose(2, 1, 0).ravel(), totals


def _squares(sums: Floats, rows: Floats) -> Floats:
    """Return what squares by rows come to over all blocks."""
    return (np.square(sums) / rows).sum(axis=0)


def merge(parts: Sequence[Blocks]) -> Blocks:
    """Add up the sums of several windows."""
    filled = [part for part in parts if part.blocks]
    if not filled:
        return Blocks()

    def added(column: str) -> bytes:
        found = np.stack([unpack(getattr(part, column)) for part in filled])
        return pack(found.sum(axis=0, dtype=np.float64 if column == "squares" else np.int64))

    return Blocks(blocks=added("blocks"), squares=added("squares"), totals=added("totals"))


def _blocks(codes: Codes, size: int) -> Floats:
    """Count each block of the least size; the last one may be short.

    There is a last axis of rows; what comes before it is counted together.
    """
    rows = codes.shape[-1]
    count = -(-rows // _BASE)
    at = codes + _offsets(count, size)[:rows]
    held = np.bincount(at.ravel(), minlength=count * size)
    return held.reshape(count, size).astype(np.float64)


@lru_cache(maxsize=64)
def _offsets(count: int, size: int) -> Codes:
    return np.repeat(np.arange(count) * size, _BASE)


def _joined(counts: Floats) -> Floats:
    """Return blocks four times as large."""
    short = -len(counts) % 4
    if short:
        counts = np.concatenate([counts, np.zeros((short, counts.shape[1]))])
    return counts.reshape(-1, 4, counts.shape[1]).sum(axis=1)


def inflations(
    coarse: Coarse, kept: Blocks, variable: int, first: int
) -> list[tuple[float, float]]:
    """Return rows of a block and the variance inflation, for each level that can tell it.

    The greater of that of all cells and that of their scores: rows with a memory are alike in where
    they lie more than in anything else. ``first`` is where the totals of the variable begin.
    """
    sums = _sums_of(coarse, kept, variable, first)
    if sums is None:
        return []
    totals = sums.totals
    rows = float(totals.sum())
    now = totals / rows
    expected = float((now * (1 - now) / coarse.shares).sum())
    mean = float((now * coarse.scores).sum())
    variance = float((now * np.square(coarse.scores - mean)).sum())
    if expected <= 0 or variance <= 0:  # one cell has all
        return []
    whole = float((totals * now / coarse.shares).sum())
    freedom = max(1, int((now > 0).sum()) - 1)
    found: list[tuple[float, float]] = []
    for count, by_cells, by_scores in zip(sums.blocks, sums.by_cells, sums.by_scores, strict=True):
        if count < BLOCKS_NEEDED:
            break
        of_cells = (by_cells - whole) / ((count - 1) * expected)
        of_scores = (by_scores - rows * mean**2) / ((count - 1) * variance)
        told = max(_told(of_cells, freedom * (count - 1)), _told(of_scores, count - 1))
        found.append((rows / count, told))
    return found


def hang_together(coarse: Coarse, parts: Sequence[Blocks], variable: int, first: int) -> bool:
    """Whether rows within the parts of a window are alike, whatever differs from part to part.

    The inflation of the variance of the least blocks, within each part around its own mean: its
    median over the parts, so that one in whose midst a change lies has no say.
    """
    found: list[tuple[float, float]] = []
    freedom = np.zeros(2)
    for kept in parts:
        told = _sums_of(coarse, kept, variable, first)
        if told is None or told.blocks[0] < 2:
            continue
        rows = float(told.totals.sum())
        now = told.totals / rows
        mean = float((now * coarse.scores).sum())
        variance = float((now * np.square(coarse.scores - mean)).sum())
        expected = float((now * (1 - now) / coarse.shares).sum())
        if variance <= 0 or expected <= 0:  # one cell has all: in training as well, or one wonders
            if coarse.shares[int(now.argmax())] >= _USUAL:
                found.append((1.0, 1.0))
            continue
        more = told.blocks[0] - 1
        whole = float((told.totals * now / coarse.shares).sum())
        of_cells = (told.by_cells[0] - whole) / (more * expected)
        of_scores = (told.by_scores[0] - rows * mean**2) / (more * variance)
        found.append((of_cells, of_scores))
        freedom += (more * max(1, int((now > 0).sum()) - 1), more)
    if not freedom.all():
        return False
    middle = np.sort(np.array(found), axis=0)[(len(found) - 1) // 2]
    # A median varies a quarter more than a mean does.
    return bool((middle > 1 + 1.25 * _CHANCE * np.sqrt(2 / freedom)).any())


def _sums_of(coarse: Coarse, kept: Blocks, variable: int, first: int) -> Sums | None:
    if not kept.blocks:
        return None
    totals = unpack(kept.totals)[first : first + coarse.size].astype(np.float64)
    if not totals.sum():
        return None
    blocks = unpack(kept.blocks).reshape(-1, len(SIZES))[variable].tolist()
    by_cells, by_scores = unpack(kept.squares).reshape(-1, 2, len(SIZES))[variable].tolist()
    return Sums(blocks, by_cells, by_scores, totals)


def _told(inflation: float, freedom: int) -> float:
    """Return an inflation of the variance if it is more than chance makes of none, else 1."""
    return inflation if inflation > 1 + _CHANCE * math.sqrt(2 / freedom) else 1.0


def inflation(levels: Sequence[tuple[float, float]], rows: float) -> float:
    """Return the variance inflation of the whole of so many rows, at least 1.

    It is the greatest that any level tells. Where it still grows from level to level, it goes on
    growing up to the whole: by the square root of the last growth for each level that is left.
    """
    if not levels:
        return 1.0
    greatest = max(value for _, value in levels)
    if len(levels) < 2 or levels[-1][1] < greatest or levels[-2][1] < 1.5:
        return greatest
    growth = levels[-1][1] / levels[-2][1]
    left = math.log(max(1.0, rows / levels[-1][0])) / math.log(SIZES[1] / SIZES[0])
    return greatest * growth ** (left / 2) if growth > 1.25 else greatest


def farthest(stretches: Mapping[int, bytes], variable: int, rows: float, training: float) -> float:
    """Return how far parts of about so many rows of training lay from the whole; 0 if by chance."""
    sizes = [size for size in stretches if size <= rows] or sorted(stretches)[:1]
    if not sizes:
        return 0.0
    found = float(unpack(stretches[max(sizes)])[variable])
    return found if found > _FARTHEST_BY_CHANCE * distance_error(training, max(sizes)) else 0.0


def stretches(coded: Codes, coarse: Coarse) -> dict[int, float]:
    """Return, for parts of several sizes, how far the farthest lies from the whole.

    For each number of rows that is a power of two, up to an eighth of all, the greatest
    Jensen-Shannon distance of evenly spaced parts.
    """
    size = coarse.size
    plan = _plan(len(coded), size)
    if not plan.lengths:
        return {}
    held = np.bincount(coded[: len(plan.spans)] + plan.spans, minlength=plan.among * size)
    running = np.zeros((plan.among + 1, size))
    np.cumsum(held.reshape(plan.among, size), axis=0, out=running[1:])
    parts = running[plan.ends] - running[plan.begins]
    distances = jensen_shannon_distances(running[-1], parts)
    farthest = np.maximum.reduceat(distances, plan.firsts).tolist()
    return dict(zip(plan.lengths, farthest, strict=True))


class _Plan(NamedTuple):
    """Which parts are looked at: their ``lengths`` in rows, and where the parts of each begin.

    Rows are counted in spans in which no part begins or ends. There are ``among``; ``spans`` tells
    that of each row, times the coarse cells, and ``begins`` and ``ends`` before which of them a
    part begins and ends. The parts of each length begin at ``firsts`` among all.
    """

    lengths: list[int]
    firsts: Codes
    begins: Codes
    ends: Codes
    spans: Codes
    among: int


@lru_cache(maxsize=1)  # columns have as many rows each, and mostly as many cells
def _plan(rows: int, size: int) -> _Plan:
    lengths: list[int] = []
    length = _BASE
    while length * _STRETCH_SHARE <= rows:
        lengths.append(length)
        length *= 2
    blocks = rows // _BASE
    starts = [
        np.unique(np.linspace(0, blocks - length // _BASE, STRETCHES).astype(np.intp)) * _BASE
        for length in lengths
    ]
    begins = np.concatenate([np.empty(0, dtype=np.intp), *starts])
    ends = begins + np.repeat(np.array(lengths, dtype=np.intp), [len(one) for one in starts])
    edges = np.unique(np.concatenate([[0], begins, ends, [blocks * _BASE]]))
    return _Plan(
        lengths,
        np.cumsum([0, *map(len, starts[:-1])]),
        np.searchsorted(edges, begins),
        np.searchsorted(edges, ends),
        np.repeat(np.arange(len(edges) - 1) * size, np.diff(edges)),
        len(edges) - 1,
    )
