"""Whoever is up all day does what is due in the projects that people work in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nbmlops import layout

EVERY_S = 2.0


class Ticker:
    """Ticks the projects that it was told of, whenever it is asked to.

    ``warn`` is told of alerts, and what went wrong, the same of a project not twice in a row.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._roots: set[Path] = set()
        self._said: dict[Path, str] = {}

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

        try:
            with closing(workspace.open_at(root, warn=self._warn)) as opened:
                if opened.home.root.exists():  # else nothing was ever asked of it
                    tick.tick(opened)
            self._said.pop(root, None)
        except Exception as error:
            told = f"{root.name}: {type(error).__name__}: {error}"
            if self._said.get(root) != told:
                self._said[root] = told
                self._warn(told)
