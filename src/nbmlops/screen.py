"""Progress on standard error: rewritten in place on a terminal, lines elsewhere.

Standard output is the result's alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nbmlops import records, render
from nbmlops.records import RunRecord, StepRecord, SweepRecord
from nbmlops.widgets import progress, wording

if TYPE_CHECKING:
    from rich.live import Live

_A_SECOND = 4
_COLOURS = {
    "running": "blue",
    "succeeded": "green",
    "failed": "red",
    "lost": "red",
    "cancelled": "yellow",
    "cached": "dim",
    "pending": "dim",
}


class Screen:
    """What a person sees while a command works; ``quiet`` leaves a pipe or file alone."""

    def __init__(self, *, quiet: bool) -> None:
        self._rewrites = sys.stderr.isatty()
        self._quiet = quiet and not self._rewrites
        self._live: Live | None = None
        self._line = ""
        self._run: RunRecord | None = None
        self._sweep: SweepRecord | None = None

    def say(self, line: str) -> None:
        """Show a line of progress."""
        if line == self._line:
            return
        self._line = line
        self._show([line])

    def warn(self, line: str) -> None:
        """Show a line that stays, and is shown whoever reads the result."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        sys.stderr.write(f"{render.printable(line)}\n")
        sys.stderr.flush()

    def watch(self, run: RunRecord) -> None:
        """Show how far a run is."""
        before, self._run = self._run, run
        self._show([] if self._rewrites or run == before else progress.run_changes(before, run))

    def watch_sweep(self, record: SweepRecord) -> None:
        """Show how far a sweep is."""
        before, self._sweep = self._sweep, record
        self._line = render.sweep_progress(record)
        self._show([] if self._rewrites else progress.sweep_changes(before, record))

    def clear(self) -> None:
        """Take what can be rewritten away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, lines: list[str]) -> None:
        if self._rewrites:
            self._begin()
            return
        if not self._quiet:
            sys.stderr.writelines(f"{render.printable(line)}\n" for line in lines)
            sys.stderr.flush()

    def _begin(self) -> None:
        if self._live is not None:
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, highlight=False)
        self._live = Live(
            console=console,
            get_renderable=self._drawn,
            refresh_per_second=_A_SECOND,
            transient=True,
            # The result goes to standard output as it is.
            redirect_stdout=False,
        )
        self._live.start()

    def _drawn(self) -> Any:
        from rich.text import Text

        if self._run is not None and self._sweep is None:
            return _run_drawn(self._run)
        return Text(wording.clean(self._line), no_wrap=True, overflow="ellipsis")


def _run_drawn(run: RunRecord) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    state = run.status.value
    since = progress.seconds_between(run.started_at or run.created_at, records.utc_now())
    head = Text.assemble(
        (f"{progress.MARKS[state]} {run.run_id}", f"bold {_COLOURS[state]}"),
        (f"  {progress.length(since)}  commit ", "dim"),
        (progress.commit(run.commit, dirty=run.dirty), "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
    steps = Table.grid(padding=(0, 1))
    steps.add_column(width=3, justify="right")
    steps.add_column(no_wrap=True, overflow="ellipsis", max_width=32)
    steps.add_column(width=24)
    steps.add_column(no_wrap=True)
    steps.add_column(no_wrap=True, justify="right", style="dim")
    for step in run.steps:
        steps.add_row(*_step_drawn(step))
    parts: list[Any] = [head, steps]
    if run.metrics:
        told = "  ".join(f"{name}={progress.number(value)}" for name, value in run.metrics.items())
        parts.append(Text(f"  {wording.clean(told)}", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _step_drawn(step: StepRecord) -> tuple[Any, ...]:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    state = "cached" if step.cached else step.status.value
    total = max(1, step.cells_total)
    done = total if step.cached else step.cells_done
    told = state if step.cached else f"{step.cells_done} of {step.cells_total} cells"
    end = records.utc_now() if state == "running" else step.finished_at
    took = progress.length(progress.seconds_between(step.started_at, end))
    return (
        Text(progress.MARKS[state], style=_COLOURS[state]),
        Text(wording.clean(step.name)),
        ProgressBar(total=total, completed=done, width=24),
        Text(told, style="dim" if step.cached else ""),
        "" if step.cached else took,
    )
