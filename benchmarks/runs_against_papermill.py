"""Runs and sweeps against the papermill command, which does no more than run the notebook."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

BIN = Path(sys.executable).parent
REPEATS = 9
TRIALS = 20
SETTINGS = """
[project]
name = "bench"

[pipelines.train]
metric = "x"
steps = [{ notebook = "train.ipynb" }]
"""


def notebook() -> str:
    """Return a trivial notebook: a parameter, a cell that logs it."""
    cells = [
        ("parameters", "x: int = 1"),
        ("", "import nbmlops\nnbmlops.log_metrics(x=x)\nprint(x)"),
    ]
    return json.dumps(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "id": f"c{number}",
                    "metadata": {"tags": [tag]} if tag else {},
                    "execution_count": None,
                    "outputs": [],
                    "source": source,
                }
                for number, (tag, source) in enumerate(cells)
            ],
            "metadata": {
                "kernelspec": {"name": "python3", "display_name": "", "language": "python"}
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def project(folder: Path) -> None:
    """Make a project in a repository, and run it once so that its environment is there."""
    (folder / "nbmlops.toml").write_text(SETTINGS)
    (folder / "train.ipynb").write_text(notebook())
    git = ("git", "-c", "user.name=b", "-c", "user.email=b@localhost")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "start")):
        measure.run(*git, *words, cwd=folder)


def main() -> None:
    """Print the three figures."""
    measure.title("runs: nbmlops train | papermill train.ipynb out.ipynb -p x N", ["papermill"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project(folder)
        values = itertools.count(1000)

        def train() -> None:
            measure.run(BIN / "nbmlops", "train", "train", "-p", f"x={next(values)}", cwd=folder)

        def papermill() -> None:
            out = folder.parent / f"{folder.name}.ipynb"
            measure.run(
                BIN / "papermill", "train.ipynb", out, "-p", "x", str(next(values)), cwd=folder
            )
            out.unlink()

        ours, peer = measure.pairs(train, papermill, repeats=REPEATS)
        measure.row("one trivial notebook, command to collected record", ours, peer, 1.3)
        submitted(folder, values)

        def sweep() -> None:
            first = next(values) * 1000
            measure.run(
                *(BIN / "nbmlops", "sweep", "train", "-p", f"x={first}..{first + TRIALS - 1}"),
                *("--parallel", "2"),
                cwd=folder,
            )

        def one_after_the_other() -> None:
            for _ in range(TRIALS):
                papermill()

        ours = min(measure.wall_s(sweep) for _ in range(2))
        peer = min(measure.wall_s(one_after_the_other) for _ in range(2))
        measure.row(f"a sweep of {TRIALS} trials, --parallel 2", ours, peer, 0.6)


def submitted(folder: Path, values: itertools.count[int]) -> None:
    """Print the CPU time from a warm caller's submit to a run that survives the caller."""
    from nbmlops import pipelines, runs, submission, workspace

    opened = workspace.open_at(folder)
    pipeline = pipelines.find(opened, "train")
    times: list[float] = []
    for _ in range(REPEATS):
        given = {"x": str(next(values))}
        before = measure.used_cpu_s()
        run = submission.submit(opened, pipeline, given)
        times.append(measure.used_cpu_s() - before)
        list(runs.watch(opened, run.run_id))
    opened.close()
    measure.alone(
        "submit until the run is durable, CPU, warm caller",
        sorted(times)[len(times) // 2] * 1000,
        150,
    )


if __name__ == "__main__":
    subprocess.run([BIN / "nbmlops", "--version"], check=True, stdout=subprocess.DEVNULL)
    main()
