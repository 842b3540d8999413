"""The place in a cell's output where a run or a sweep is shown, and shown anew as it goes on.

While the cell runs, a live widget follows; when it ends, the same place takes the last state in
forms that need no kernel. A notebook keeps what was displayed, so a widget that is left there is
an error message tomorrow.
"""

from __future__ import annotations

import contextlib
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from nbmlops import records
from nbmlops.records import RunRecord, SweepRecord
from nbmlops.widgets import front_end, progress, run_report, sweep_report
from nbmlops.widgets.run_document import LOG_LINES, run_document
from nbmlops.widgets.sweep_document import sweep_document

_EVERY_S = 0.5
_REST = 10  # reading a log takes at most a tenth of the time

Tail = Callable[[str, int], Sequence[str]]
"""Returns the last lines (second argument: how many) that a run wrote."""


class Place:
    """One output of a cell: a line of progress, then a live widget, at last a static bundle.

    Outside of a kernel there is nothing to rewrite: lines are printed, each once.
    """

    def __init__(self, *, in_kernel: bool | None = None) -> None:
        self.rewrites = front_end.is_kernel() if in_kernel is None else in_kernel
        self._live = front_end.shows_widgets() if in_kernel is None else in_kernel
        self._handle: Any = None
        self._widget: Any = None
        self._said = ""

    def say(self, line: str) -> None:
        """Show a line of progress where no card stands yet."""
        if self._widget is not None or line == self._said:
            return
        self._said = line
        if self.rewrites:
            self._put({"text/plain": line})
        else:
            self.write(line)

    def write(self, line: str) -> None:
        """Print a line that stays."""
        print(line, flush=True)  # noqa: T201

    def follow(
        self,
        document: dict[str, Any],
        widget: Callable[[dict[str, Any]], Any],
        still: Callable[[Mapping[str, Any]], dict[str, str]],
    ) -> None:
        """Show a document that will change: live where somebody can see that, else as HTML."""
        if self._widget is not None:
            self._widget.document = document
            return
        if self._live:
            with contextlib.suppress(ImportError):
                self._widget = widget(document)
        self.keep(still(document))

    def keep(self, bundle: dict[str, str]) -> None:
        """Leave the live widget as it is, with the last state beside it for other readers."""
        live = self._widget._repr_mimebundle_()[0] if self._widget is not None else {}
        self._put({**live, **bundle})

    def settle(self, bundle: dict[str, str]) -> None:
        """Show the last state in its static forms, and end the live widget."""
        self._put(bundle)
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.close()

    def _put(self, bundle: dict[str, Any]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class RunCard:
    """Shows one run as it goes on. ``tail`` gives the end of its log, asked for now and then."""

    def __init__(
        self,
        place: Place,
        tail: Tail,
        *,
        now: Callable[[], datetime] = records.utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place, self._tail, self._now, self._clock = place, tail, now, clock
        self._run: RunRecord | None = None
        self._log: list[str] = []
        self._due = 0.0

    def watch(self, run: RunRecord) -> None:
        """Show how far the run is; cheap to call often."""
        before, self._run = self._run, run
        if not self._place.rewrites:
            for line in progress.run_changes(before, run):
                self._place.write(line)
        if run.status.is_final:
            self.show(run)
        elif self._place.rewrites and (self._read(run.run_id) or run != before):
            self._place.follow(self._document(run), _run_widget, run_bundle)

    def show(self, run: RunRecord) -> None:
        """Show the run as it is, in forms that last."""
        self._log = list(self._tail(run.run_id, LOG_LINES))
        document = self._document(run)
        if self._place.rewrites:
            self._place.settle(run_bundle(document))
        else:
            self._place.write(run_report.text(document))

    def leave(self) -> None:
        """Show that nobody watches any more, while the run goes on."""
        if self._run is None or self._run.status.is_final:
            return
        document = self._document(self._run, detached=True)
        if self._place.rewrites:
            self._place.settle(run_bundle(document))
        else:
            self._place.write(run_report.text(document))

    def _document(self, run: RunRecord, *, detached: bool = False) -> dict[str, Any]:
        return run_document(run, self._log, now=self._now(), detached=detached)

    def _read(self, run_id: str) -> bool:
        """Read the end of the log when it is due; return whether it is another one."""
        begin = self._clock()
        if begin < self._due:
            return False
        lines = list(self._tail(run_id, LOG_LINES))
        end = self._clock()
        self._due = end + max(_EVERY_S, _REST * (end - begin))
        changed = lines != self._log
        self._log = lines
        return changed


class SweepCard:
    """Shows one sweep as its trials go on."""

    def __init__(self, place: Place, *, now: Callable[[], datetime] = records.utc_now) -> None:
        self._place, self._now = place, now
        self._record: SweepRecord | None = None

    def watch(self, record: SweepRecord) -> None:
        """Show how far the sweep is; cheap to call often."""
        before, self._record = self._record, record
        if not self._place.rewrites:
            for line in progress.sweep_changes(before, record):
                self._place.write(line)
        elif record != before:
            self._place.follow(self._document(record), _sweep_widget, sweep_bundle)

    def show(self, record: SweepRecord) -> None:
        """Show the sweep as it is, in forms that last; live as well, to look around in it."""
        document = self._document(record)
        if not self._place.rewrites:
            self._place.write(sweep_report.text(document))
            return
        self._place.follow(document, _sweep_widget, sweep_bundle)
        self._place.keep(sweep_bundle(document, picture=True))

    def leave(self) -> None:
        """Show that nobody watches any more, while the sweep goes on."""
        if self._record is None or self._record.status.is_final:
            return
        document = self._document(self._record, detached=True)
        if self._place.rewrites:
            self._place.settle(sweep_bundle(document, picture=True))
        else:
            self._place.write(sweep_report.text(document))

    def _document(self, record: SweepRecord, *, detached: bool = False) -> dict[str, Any]:
        return sweep_document(record, now=self._now(), detached=detached)


def run_bundle(document: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's card in the forms that need no kernel."""
    return {"text/plain": run_report.text(document), "text/html": run_report.html(document)}


def sweep_bundle(document: Mapping[str, Any], *, picture: bool = False) -> dict[str, str]:
    """Return a sweep in the forms that need no kernel; a picture where matplotlib is."""
    bundle = {"text/plain": sweep_report.text(document), "text/html": sweep_report.html(document)}
    if picture:
        try:
            from nbmlops.widgets.sweep_picture import png

            bundle["image/png"] = b64encode(png(document)).decode("ascii")
        except ImportError:
            pass
    return bundle


def _run_widget(document: dict[str, Any]) -> Any:
    from nbmlops.widgets.run_widget import RunWidget

    return RunWidget(document)


def _sweep_widget(document: dict[str, Any]) -> Any:
    from nbmlops.widgets.sweep_widget import SweepWidget

    return SweepWidget(document)
