"""What the benchmarks share: pairs that take turns, their medians, and one line for each figure.

Ratios of medians within one call are what counts; absolute times are those of the machine.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Libraries are imported in every process that is measured: ours and the peers' with bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def wall_s(action: Callable[[], object]) -> float:
    """Return how long the action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def used_cpu_s() -> float:
    """Return the CPU time so far of this process and of the processes that it waited for."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def cpu_s(action: Callable[[], object]) -> float:
    """Return the CPU time that the action takes, processes that it waits for included."""
    before = used_cpu_s()
    action()
    return used_cpu_s() - before


def pairs(
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    repeats: int,
    clock: Callable[[Callable[[], object]], float] = wall_s,
) -> tuple[float, float]:
    """Return the medians of two actions that take turns, each once before to warm up."""
    ours()
    peer()
    times: list[tuple[float, float]] = [(clock(ours), clock(peer)) for _ in range(repeats)]
    return statistics.median(one for one, _ in times), statistics.median(two for _, two in times)


def run(*command: str | Path, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    """Run a command and return its output; a command that fails ends the benchmark."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, input=stdin, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr.decode()}"
        )
    return done.stdout


def row(what: str, ours: float, peer: float, reach: float, *, unit: str = "s") -> None:
    """Print a figure against its peer, and whether the ratio reaches what it should."""
    ratio = ours / peer
    verdict = "reached" if ratio <= reach else "MISSED"
    print(
        f"{what:58} {_shown(ours, unit):>10} / {_shown(peer, unit):>10} = {ratio:8.4f}"
        f"   at most {reach:g}: {verdict}",
        flush=True,
    )


def alone(what: str, ours: float, reach: float, *, unit: str = "ms") -> None:
    """Print a figure that has no peer but a limit."""
    verdict = "reached" if ours <= reach else "MISSED"
    print(f"{what:58} {ours:10.1f} {unit}   at most {reach:g} {unit}: {verdict}", flush=True)


def _shown(value: float, unit: str) -> str:
    return f"{value * 1000:.1f} ms" if unit == "s" and value < 1 else f"{value:.2f} {unit}"


def title(text: str, packages: Sequence[str] = ()) -> None:
    """Print what follows, with the versions of the peers."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"\n{text}{f' ({versions})' if versions else ''}", flush=True)
