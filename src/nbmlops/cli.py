"""The ``nbmlops`` command: words in, a document or a text out, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbmlops.errors import Detached, MissingExtra, NbmlopsError, storage_failed
from nbmlops.records import dump
from nbmlops.screen import Screen


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    words = list(sys.argv[1:] if words is None else words)
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    try:
        code = run(words, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, such as `head`: nothing more to say, and no traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def run(words: Sequence[str], *, as_json: bool) -> int:
    """Run one command and return its exit code; what it says goes to the two outputs."""
    screen = Screen(quiet=as_json)
    try:
        return _carry_out(words, screen, as_json=as_json)
    except NbmlopsError as error:
        failure = error
    except KeyboardInterrupt:
        failure = Detached(
            "interrupted", "What was begun is completed or rolled back by the next command."
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        failure = storage_failed(error)
    except Exception as error:
        screen.clear()
        return _broken(error, as_json=as_json)
    screen.clear()
    return _failed(failure, as_json=as_json)


def _carry_out(words: Sequence[str], screen: Screen, *, as_json: bool) -> int:
    try:
        from nbmlops.commands import Context
        from nbmlops.parser import parse
    except ImportError as error:
        raise MissingExtra(
            f"{error.name} is not installed", "Install all of it: `pip install 'nbmlops[lab]'`."
        ) from error
    parsed = parse(words)
    if parsed.command is None:
        if parsed.show is not None:
            parsed.show()
        return 0
    shown: list[Any] = []

    def show(result: Any) -> None:
        screen.clear()
        _show(result, as_json=as_json)
        shown[:] = [result]

    context = Context(
        start=Path.cwd(),
        stdin=sys.stdin.read,
        say=screen.say,
        warn=screen.warn,
        watch=screen.watch,
        watch_sweep=screen.watch_sweep,
        show=show,
    )
    try:
        result = parsed.run(context)
        if parsed.command.streams:
            screen.clear()
            _stream(result, as_json=as_json, follow=bool(parsed.arguments.get("follow")))
            return 0
        if result not in shown:  # what is looked at again and again has been
            show(result)
        return parsed.command.exit_code(result)
    finally:
        context.close()


def _show(result: Any, *, as_json: bool) -> None:
    if as_json:
        _write_json(result)
        return
    from nbmlops import render

    terminal = sys.stdout.isatty()
    width = os.get_terminal_size().columns if terminal else 160
    colour = terminal and "NO_COLOR" not in os.environ
    sys.stdout.write(render.text(render.view(result), width, colour=colour))


def _write_json(document: Any) -> None:
    """Write one document in UTF-8, whatever the terminal's encoding is."""
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # a test's or a notebook's
        sys.stdout.write(dump(document).decode() + "\n")
    else:
        binary.write(dump(document) + b"\n")
        binary.flush()


def _stream(lines: Any, *, as_json: bool, follow: bool) -> None:
    if as_json and not follow:
        _write_json({"items": list(lines), "next": None})
        return
    from nbmlops import render

    for line in lines:
        sys.stdout.write(
            (dump({"line": line}).decode() if as_json else render.printable(line)) + "\n"
        )
        sys.stdout.flush()


def _failed(error: NbmlopsError, *, as_json: bool) -> int:
    if as_json:
        _write_json(error.document())
    else:
        sys.stderr.write(f"nbmlops: {error}\n")
    return error.exit_code


def _broken(error: Exception, *, as_json: bool) -> int:
    """Answer for a fault of ours: the document all the same, and the traceback for the report."""
    if as_json:
        told = {
            "code": "internal-error",
            "message": f"{type(error).__name__}: {error}",
            "hint": "This is a bug in nbmlops; report it with what stands on standard error.",
            "context": {},
        }
        _write_json({"error": told})
    traceback.print_exc()
    sys.stderr.write("nbmlops: this is a bug; report it with the lines above\n")
    return 1


if __name__ == "__main__":
    main()
