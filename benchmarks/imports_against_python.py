"""What a start costs in CPU time above a bare Python."""

from __future__ import annotations

import statistics
import sys

import measure

REPEATS = 15
LOAD = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
{}
"""


def started(program: str) -> float:
    """Return the median CPU time of a Python that runs the program."""

    def start() -> None:
        measure.run(sys.executable, "-c", program)

    start()
    return statistics.median(measure.cpu_s(start) for _ in range(REPEATS))


def main() -> None:
    """Print the three figures."""
    measure.title(f"starts, CPU above bare Python {sys.version.split()[0]}")
    bare = started("pass")
    measure.alone("import nbmlops", (started("import nbmlops") - bare) * 1000, 30)
    shell = started(LOAD.format(""))
    loaded = started(LOAD.format("shell.run_line_magic('load_ext', 'nbmlops')"))
    measure.alone("%load_ext nbmlops, above a bare IPython", (loaded - shell) * 1000, 60)
    helped = started("from nbmlops.cli import main; main(['--help'])")
    measure.alone("nbmlops --help", (helped - bare) * 1000, 200)


if __name__ == "__main__":
    main()
