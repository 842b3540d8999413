"""Streams of rows with a known truth: clean as long as nothing is planted."""

from __future__ import annotations

import numpy as np

COLUMNS = 10


class Stream:
    """Rows that go on from where they were; ``shift`` moves the first column."""

    kind = "number"

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.at = 0

    def rows(self, count: int, shift: float = 0.0) -> dict[str, np.ndarray]:
        """Return the next rows as columns."""
        made = self.made(count)
        self.at += count
        found = {f"x{index}": made[:, index] for index in range(COLUMNS)}
        found["x0"] = self.moved(found["x0"], shift)
        return found

    def moved(self, column: np.ndarray, shift: float) -> np.ndarray:
        """Shift a column by so many of its standard deviations."""
        return column + shift

    def made(self, count: int) -> np.ndarray:
        """Return ``count`` rows."""
        raise NotImplementedError


class Independent(Stream):
    """Normal and independent."""

    def made(self, count):
        return self.rng.normal(size=(count, COLUMNS))


class Correlated(Stream):
    """Columns that hang together, rows that do not."""

    mix = np.random.default_rng(5).normal(size=(COLUMNS, COLUMNS)) * 0.3 + np.eye(COLUMNS)

    def made(self, count):
        made = self.rng.normal(size=(count, COLUMNS)) @ self.mix
        return made / np.sqrt((self.mix**2).sum(axis=0))


class HeavyTailed(Stream):
    """Student's t with 1.5 degrees of freedom: no variance."""

    def made(self, count):
        return self.rng.standard_t(1.5, size=(count, COLUMNS))


class Categories(Stream):
    """200 categories, by Zipf's law."""

    kind = "category"
    names = np.array([f"c{index}" for index in range(200)])
    shares = (1 / np.arange(1, 201)) / (1 / np.arange(1, 201)).sum()

    def made(self, count):
        return self.rng.choice(self.names, size=(count, COLUMNS), p=self.shares)

    def moved(self, column, shift):
        """Turn a third of ``shift`` of all values into one rare category."""
        return np.where(self.rng.random(len(column)) < shift / 3, self.names[7], column)


class Autoregressive(Stream):
    """Rows remember those before: each is ``memory`` of the last one and noise."""

    memory = 0.9

    def __init__(self, seed):
        super().__init__(seed)
        self.state = self.rng.normal(size=COLUMNS)

    def made(self, count):
        from scipy.signal import lfilter

        noise = self.rng.normal(size=(count, COLUMNS)) * np.sqrt(1 - self.memory**2)
        found, _ = lfilter([1], [1, -self.memory], noise, axis=0, zi=self.memory * self.state[None])
        self.state = found[-1]
        return found


class LongMemory(Autoregressive):
    """The same with a memory of about 50 rows."""

    memory = 0.98


class Weekly(Stream):
    """A season of 7,000 rows, with two days of seven that differ."""

    def made(self, count):
        at = np.arange(self.at, self.at + count)[:, None]
        wave = 0.6 * np.sin(2 * np.pi * at / 7000 + np.arange(COLUMNS))
        weekend = 0.5 * ((at // 1000) % 7 >= 5)
        return self.rng.normal(size=(count, COLUMNS)) + wave + weekend
