"""The ``%mlops`` magic: the words of the command line, inside a notebook.

Inside a job (the runner sets ``NBMLOPS_JOB``) its lines do nothing, so that a notebook never
submits itself. A mistake is a usage error; failed work stops the notebook; neither shows a
traceback.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbmlops import layout
from nbmlops.errors import NbmlopsError
from nbmlops.records import MonitorReport, RunRecord

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nbmlops.commands import Context

LAST = "_mlops"  # the variable that holds what the last %mlops answered, as a record


class WorkFailed(Exception):
    """Stops the notebook where a run has failed or a check is red, in two lines."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


def register(ipython: InteractiveShell) -> None:
    """Give a notebook the ``%mlops`` and ``%%mlops`` magics, with completion."""

    def mlops(line: str, cell: str | None = None) -> None:
        run(ipython, line, cell)

    manager: Any = ipython
    manager.register_magic_function(mlops, magic_kind="line_cell", magic_name="mlops")
    matchers = ipython.Completer.custom_matchers
    if not any(getattr(matcher, "matcher_identifier", "") == "nbmlops" for matcher in matchers):
        matchers.append(_matcher())


def run(ipython: InteractiveShell, line: str, cell: str | None = None) -> None:
    """Carry out a line; the body of a cell magic is more of it, or the data of ``call``."""
    from IPython.core.error import UsageError

    if os.environ.get(layout.JOB_VARIABLE):
        return
    words = _words(line, cell)
    from nbmlops.commands import Context

    context = Context(start=Path.cwd(), notebook=current_notebook(ipython))
    try:
        _run(ipython, words, context)
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
    from IPython.display import display

    from nbmlops import render
    from nbmlops.parser import parse

    as_json = "--json" in words
    parsed = parse([word for word in words if word != "--json"])
    if parsed.command is None:
        if parsed.show is not None:
            parsed.show()
        return
    card = _Card()
    context.watch, context.say = card.watch, card.say
    result = parsed.run(context)
    if parsed.command.streams:
        for text in result:
            print(text)  # noqa: T201
        return
    ipython.user_ns[LAST] = result
    if as_json:
        from nbmlops.records import dump

        print(dump(result).decode())  # noqa: T201
    elif isinstance(result, MonitorReport):
        from nbmlops.widgets import drift

        display(drift.show(result))
    elif isinstance(result, RunRecord):
        card.watch(result)
    else:
        blocks = render.view(result)
        bundle = {"text/plain": render.text(blocks), "text/html": render.html(blocks)}
        display(bundle, raw=True)
    if isinstance(result, RunRecord) and parsed.command.exit_code(result):
        cause = result.cause
        what = f"{result.run_id} {result.status.value}: {cause.message if cause else ''}"
        raise WorkFailed(f"{what}\n{cause.hint or '' if cause else ''}")


class _Card:
    """The place in the cell's output where a run's card stands and is renewed."""

    def __init__(self) -> None:
        self._handle: Any = None

    def _show(self, bundle: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def say(self, line: str) -> None:
        """Show a line of progress."""
        self._show({"text/plain": line})

    def watch(self, run: RunRecord) -> None:
        """Show how far a run is."""
        from nbmlops import render

        self._show(render.card(run))


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
                found = _candidates(line.removeprefix(start))
                return {
                    "completions": [SimpleCompletion(text) for text in found],
                    "suppress": True,
                }
        return {"completions": [], "suppress": False}

    return context_matcher(identifier="nbmlops", priority=200)(matcher)


def _candidates(typed: str) -> list[str]:
    from nbmlops.parser import command_names, options_of

    words = typed.split(" ")
    if len(words) == 1:
        return [name for name in command_names() if name.startswith(words[0])]
    return [option for option in options_of(words[0]) if option.startswith(words[-1])]
