"""Whoever is up all day does what is due in the projects that people work in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nbmlops import layout

EVERY_S = 2.0


class Ticker:
    """Ticks the projects that it was told of, whenever it is asked to.

    ``warn`` is told of alerts, and of what went wrong, but not again of what it was told by the
    tick before.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._roots: set[Path] = set()
        self._said: dict[Path, set[str]] = {}

    def attend(self, place: Path) -> None:
        """Tick the project at or above a folder from now on; where there is none, nothing."""
        root = layout.project_root(place)
        if root is not None:
            self._roots.add(root)

    def tick(self) -> None:
        """Do what is due in each project; one that is gone is forgotten."""
        for root in sorted(self._roots):
            if (root / layout.SETTINGS_FILE).is_file():
                self._tick(root)
            else:
                self._roots.discard(root)

    def _tick(self, root: Path) -> None:
        # They load all of it: nobody waits for that while a server starts.
        from nbmlops import tick, workspace

        said: set[str] = set()

        def warn(line: str) -> None:
            if line not in self._said.get(root, ()) and line not in said:
                self._warn(line)
            said.add(line)

        try:
            with closing(workspace.open_at(root, warn=warn)) as opened:
                if opened.home.root.exists():  # else nothing was ever asked of it
                    tick.tick(opened)
        except Exception as error:
            warn(f"{root.name}: {type(error).__name__}: {error}")
        self._said[root] = said
