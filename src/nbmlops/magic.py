"""The ``%mlops`` magic: the words of the command line, inside a notebook.

Inside a job (the runner sets ``NBMLOPS_JOB``) its lines do nothing, so that a notebook never
submits itself. A mistake is a usage error; failed work stops the notebook; neither shows a
traceback.
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbmlops import layout
from nbmlops.errors import Detached, NbmlopsError
from nbmlops.records import MonitorReport, RunRecord, SweepRecord, utc_now

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nbmlops.commands import Context

LAST = "_mlops"  # the variable that holds what the last %mlops answered, as a record


_EXECUTED = "_nbmlops_executed"


class WorkFailed(Exception):
    """Stops the notebook where a run has failed or a check is red, in two lines."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class Stopped(WorkFailed):
    """Stops the notebook where a person has stopped watching; the card says how to go on."""


def register(ipython: InteractiveShell) -> None:
    """Give a notebook the ``%mlops`` and ``%%mlops`` magics, with completion."""
    manager: Any = ipython
    executed = _executed(manager)

    def mlops(line: str, cell: str | None = None) -> None:
        run(ipython, line, cell, executed)

    manager.register_magic_function(mlops, magic_kind="line_cell", magic_name="mlops")
    matchers = ipython.Completer.custom_matchers
    if not any(getattr(matcher, "matcher_identifier", "") == "nbmlops" for matcher in matchers):
        matchers.append(_matcher())


def _executed(ipython: Any) -> dict[str, tuple[str, datetime]]:
    """Return what the kernel has run, by the cell's id, kept up to date from now on.

    Held against the file, it tells of edits that were executed and are not saved.
    """
    kept: dict[str, tuple[str, datetime]] | None = vars(ipython).get(_EXECUTED)
    if kept is not None:
        return kept
    executed: dict[str, tuple[str, datetime]] = {}
    setattr(ipython, _EXECUTED, executed)

    def note(info: Any) -> None:
        if info.cell_id:
            executed[str(info.cell_id)] = (str(info.raw_cell), utc_now())

    ipython.events.register("pre_run_cell", note)
    return executed


def run(
    ipython: InteractiveShell,
    line: str,
    cell: str | None = None,
    executed: Mapping[str, tuple[str, datetime]] | None = None,
) -> None:
    """Carry out a line; the body of a cell magic is more of it, or the data of ``call``."""
    from IPython.core.error import UsageError

    if os.environ.get(layout.JOB_VARIABLE):
        return
    words = _words(line, cell)
    from nbmlops.commands import Context

    context = Context(start=Path.cwd(), notebook=current_notebook(ipython), executed=executed or {})
    try:
        _run(ipython, words, context)
    except Detached as error:
        # The card says how to go on; with --json there is none.
        raise Stopped(str(error) if "--json" in words else error.message) from None
    except NbmlopsError as error:
        if error.exit_code == 1:
            raise WorkFailed(str(error)) from None
        raise UsageError(str(error)) from None
    finally:
        context.close()


def _words(line: str, cell: str | None) -> list[str]:
    from IPython.core.error import UsageError

    try:
        words = shlex.split(line, comments=True)
        if cell is None:
            return words
        if words[:1] == ["call"]:
            return [*[word for word in words if word != "-"], cell]
        return words + shlex.split(cell, comments=True)
    except ValueError as error:
        raise UsageError(f"{error}: {line[:80]}\nClose the quotes.") from None


def _run(ipython: InteractiveShell, words: list[str], context: Context) -> None:
    from nbmlops.parser import parse

    as_json = "--json" in words
    parsed = parse([word for word in words if word != "--json"])
    if parsed.command is None:
        if parsed.show is not None:
            parsed.show()
        return
    cards = _Cards(context)
    context.warn = cards.warn
    if not as_json:
        context.say, context.watch, context.watch_sweep = cards.say, cards.watch, cards.watch_sweep
    reports = _Reports(context.start, parsed.arguments)
    context.show = _print_json if as_json else reports.show
    try:
        result = parsed.run(context)
    except Detached:
        cards.leave()
        raise
    if parsed.command.streams:
        for text in result:
            print(text)  # noqa: T201
        return
    ipython.user_ns[LAST] = result
    if "every" in parsed.arguments:
        return
    if as_json:
        _print_json(result)
    else:
        _show(result, cards, reports)
    cause = result.cause if isinstance(result, RunRecord | SweepRecord) else None
    if isinstance(result, RunRecord | SweepRecord) and parsed.command.exit_code(result):
        name = result.run_id if isinstance(result, RunRecord) else result.sweep_id
        what = f"{name} {result.status.value}: {cause.message if cause else ''}"
        raise WorkFailed(f"{what}\n{cause.hint or '' if cause else ''}")


def _print_json(result: Any) -> None:
    from nbmlops.records import dump

    print(dump(result).decode())  # noqa: T201


class _Reports:
    """The report of this cell, which people may ask for anew, or for another window."""

    def __init__(self, start: Path, arguments: Mapping[str, Any]) -> None:
        self._start = start
        self._endpoint: str | None = arguments.get("endpoint")
        self._window: str | None = arguments.get("window")
        self._shown: dict[str | None, Any] = {}

    def show(self, report: MonitorReport) -> None:
        """Display a report; where the same endpoint's is there already, in its place."""
        from IPython.display import display

        from nbmlops.commands.watching import looking_again
        from nbmlops.widgets import drift

        shown = self._shown.get(report.endpoint)
        if shown is not None and hasattr(shown, "update"):
            shown.update(report)
            return
        if self._endpoint is None:
            shown = drift.show(report)
        else:
            on_select, refresh = looking_again(self._start, self._endpoint, self._window)
            shown = drift.show(report, on_select=on_select, refresh=refresh)
        self._shown[report.endpoint] = shown
        display(shown)


def _show(result: Any, cards: _Cards, reports: _Reports) -> None:
    from IPython.display import display

    from nbmlops import render

    if isinstance(result, MonitorReport):
        reports.show(result)
    elif isinstance(result, RunRecord):
        cards.end(result)
    elif isinstance(result, SweepRecord):
        cards.end_sweep(result)
    else:
        blocks = render.view(result)
        bundle = {"text/plain": render.text(blocks), "text/html": render.html(blocks)}
        display(bundle, raw=True)


class _Cards:
    """The card of this cell: of the run or the sweep that its command follows."""

    def __init__(self, context: Context) -> None:
        from nbmlops.widgets.cards import Place, RunCard, SweepCard

        self._context = context
        self._place = Place()
        self._run = RunCard(self._place, self._tail)
        self._sweep = SweepCard(self._place)
        self._ended = ""
        self.say, self.watch_sweep = self._place.say, self._sweep.watch
        self.warn = self._place.write

    def watch(self, run: RunRecord) -> None:
        """Show how far a run is."""
        self._run.watch(run)
        if run.status.is_final:
            self._ended = run.run_id

    def end(self, run: RunRecord) -> None:
        """Show a run that a command has answered; one that was watched to its end stands there."""
        if self._ended != run.run_id:
            self._run.show(run)

    def end_sweep(self, record: SweepRecord) -> None:
        """Show a sweep that a command has answered."""
        self._sweep.show(record)

    def leave(self) -> None:
        """Show that nobody watches any more."""
        self._run.leave()
        self._sweep.leave()

    def _tail(self, run_id: str, lines: int) -> list[str]:
        from nbmlops import runs

        try:
            return list(deque(runs.logs(self._context.workspace(), run_id), lines))
        except (NbmlopsError, OSError):
            return []  # a card without log lines is still a card


def current_notebook(ipython: InteractiveShell) -> Path | None:
    """Return the notebook that the kernel runs for, as far as its front end tells.

    JupyterLab and Notebook 7 name it in ``JPY_SESSION_NAME``, VS Code in a variable; both are
    hints, so a file that is not there is no answer.
    """
    told = ipython.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    if not told:
        return None
    path = Path(str(told))
    for candidate in (path, Path.cwd() / path.name):
        if candidate.suffix == ".ipynb" and candidate.is_absolute() and candidate.is_file():
            return candidate
    return None


def _matcher() -> Any:
    from IPython.core.completer import SimpleCompletion, context_matcher

    def matcher(context: Any) -> dict[str, Any]:
        line = context.line_with_cursor[: context.cursor_position].lstrip()
        for start in ("%mlops ", "%%mlops "):
            if line.startswith(start):
                typed = line.removeprefix(start)
                found = _candidates(typed)
                return {
                    "completions": [SimpleCompletion(text) for text in found],
                    "suppress": True,
                    # A name may have characters at which IPython would begin a new word.
                    "matched_fragment": typed.rpartition(" ")[2],
                }
        return {"completions": [], "suppress": False}

    return context_matcher(identifier="nbmlops", priority=200)(matcher)


def _candidates(typed: str) -> list[str]:
    from IPython.core.getipython import get_ipython

    from nbmlops import completion
    from nbmlops.commands import Context

    shell = get_ipython()
    notebook = current_notebook(shell) if shell is not None else None
    context = Context(start=Path.cwd(), notebook=notebook)
    try:
        return completion.candidates(typed, context)
    finally:
        context.close()
