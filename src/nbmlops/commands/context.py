"""Who acts, from where, and who watches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nbmlops.errors import WrongUse
from nbmlops.records import (
    RunRecord,
    SweepRecord,
)

if TYPE_CHECKING:
    from nbmlops.workspace import Workspace


# Where jobs can run, as people type it.
Launchers = Literal["local", "docker", "kubernetes"]


def _silent(_: Any) -> None:
    return None


@dataclass
class Context:
    """Who acts, from where, and who watches.

    ``start`` is the folder they stand in, ``notebook`` the notebook if they stand in one;
    ``say`` takes a line of progress, ``warn`` one that stays, ``watch`` a run and ``watch_sweep``
    a sweep each time somebody has looked. ``executed`` is what the notebook's kernel has run, by
    the cell's id, with the time. ``bounds`` is the folder that a person who is not on their own
    terminal cannot leave. ``show`` takes a result of a command that looks again and again, and
    ``sleep`` waits in between.
    """

    start: Path
    notebook: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    say: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent
    watch: Callable[[RunRecord], None] = _silent
    watch_sweep: Callable[[SweepRecord], None] = _silent
    executed: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    bounds: Path | None = None
    show: Callable[[Any], None] = _silent
    sleep: Callable[[float], None] = time.sleep
    stdin: Callable[[], str] | None = None
    _open: Workspace | None = None

    def workspace(self) -> Workspace:
        """Return the project at or above ``start``, opened once."""
        if self._open is None:
            from nbmlops import workspace

            self._open = workspace.open_at(
                self.start, environ=self.environ, say=self.say, warn=self.warn
            )
            if self._open.home.unsettled.exists():  # whoever has nothing to settle imports nothing
                from nbmlops import following

                following.settle_at_once(self._open)
        return self._open

    def close(self) -> None:
        """Close what was opened."""
        if self._open is not None:
            self._open.close()
            self._open = None


def inside(context: Context, file: str) -> Path:
    """Return the file that is meant; whoever is not on their own terminal stays in their folder.

    Raises
    ------
    WrongUse
        When it can be none, or leads out.
    """
    if not file:
        raise WrongUse("the name of a file is empty", "Name one; `.` is the folder you stand in.")
    target = context.start / file
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whoever opens it says so
    except (ValueError, OSError) as error:
        raise WrongUse(
            f"{file[:100]!r} cannot be the name of a file: {getattr(error, 'strerror', error)}",
            "Name another one; see what is there: `ls`.",
        ) from error
    if context.bounds is not None and not target.resolve().is_relative_to(context.bounds):
        raise WrongUse(f"{file!r} leads out of {context.bounds}", "Name a file inside it.")
    return target
