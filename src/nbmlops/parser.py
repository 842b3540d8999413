"""What people type, parsed: one parser for the command line and the magic, made from the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
)

from nbmlops._version import __version__
from nbmlops.commands import TABLE, Command, Context
from nbmlops.errors import WrongUse

_HELP = """From a notebook to a traced, watched service.

With --json a command writes one JSON document to standard output. Exit codes: 0 done, 1 the work
failed, 2 wrong use, 3 monitor: alert, 4 monitor: unknown, 5 the outside is not there, 130
interrupted while watching.
"""


@dataclass(frozen=True)
class Parsed:
    """A command with what was typed after it; or a text to show, such as help."""

    command: Command | None
    arguments: dict[str, Any]
    show: Callable[[], Any] | None = None

    def run(self, context: Context) -> Any:
        """Carry out the command."""
        if self.command is None:
            raise WrongUse("nothing to do", "See the commands: `nbmlops --help`.")
        return self.command.function(context, **self.arguments)


def parse(words: Sequence[str]) -> Parsed:
    """Parse a command line without the program's name.

    Raises
    ------
    WrongUse
        When it is no command, or an option or argument of it is wrong.
    """
    for word in words:
        if not word.isascii() and word != word.encode("utf-8", "replace").decode():
            raise WrongUse(f"`{word[:80]}` is not UTF-8", "Rename what it names, or type it anew.")
    app, rows = _app()
    try:
        function, bound, _ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        word = words[0] if words and not words[0].startswith("-") else None
        known = word in {row.name for row in TABLE}
        bare = next((word for word in words[2:] if "=" in word and word[0] != "-"), None)
        if known and bare and isinstance(error, UnusedCliTokensError):
            raise WrongUse(f"`{bare}` is no argument", f"Try `-p {bare}`.") from error
        help_line = f"nbmlops {word} --help" if known else "nbmlops --help"
        if isinstance(error, MissingArgumentError) and error.argument is not None:
            wanted = error.argument.field_info
            if wanted.kind is not inspect.Parameter.KEYWORD_ONLY:  # cyclopts writes it as an option
                place = wanted.name.removesuffix("s").upper()
                raise WrongUse(
                    f"`{word}` wants {place} after it", f"See: `{help_line}`."
                ) from error
        text = " ".join(str(error).split())
        raise WrongUse(text[:1].lower() + text[1:].rstrip("."), f"See: `{help_line}`.") from error
    command = rows.get(function)
    if command is None:
        return Parsed(None, {}, show=lambda: _help(function, bound))
    return Parsed(command, dict(bound.arguments))


def _help(function: Callable[..., Any], bound: inspect.BoundArguments) -> None:
    """Show a text about the program itself, or install the completion of its words."""
    from cyclopts.completion.detect import ShellDetectionError

    try:
        function(*bound.args, **bound.kwargs)
    except ShellDetectionError as error:
        raise WrongUse(
            "nobody tells which shell this is",
            "Name it: `nbmlops --install-completion --shell bash` (or zsh, fish).",
        ) from error


def completion_script(shell: Literal["bash", "zsh", "fish"]) -> str:
    """Return the script by which a shell completes commands and options."""
    return _app()[0].generate_completion(shell=shell)


def _app() -> tuple[App, dict[Any, Command]]:
    app = App(name="nbmlops", help=_HELP, version=__version__, help_format="plaintext")
    app.register_install_completion_command(
        help="Install the completion of words for your shell (bash, zsh, fish)."
    )
    rows: dict[Any, Command] = {}
    for row in TABLE:
        function = _typed(row)
        app.command(function, name=row.name, group=row.group)
        rows[function] = row
    return app, rows


def _typed(row: Command) -> Callable[..., Any]:
    """Return a function with the signature that people type, for the parser to read."""
    parameters: list[inspect.Parameter] = []
    for parameter in row.parameters:
        n = parameter.name
        names = [option(n), *([row.short[n]] if n in row.short else [])]
        typed = Parameter(
            name=tuple(names), negative=(), show_default=parameter.default not in ((), None, False)
        )
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            # `-` stands for standard input.
            typed = Parameter(negative=(), show_default=False, allow_leading_hyphen=n == "data")
        parameters.append(parameter.replace(annotation=Annotated[parameter.annotation, typed]))

    def function(**_: Any) -> None:
        return None

    function.__name__ = row.name
    function.__doc__ = row.function.__doc__
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    vars(function)["__signature__"] = inspect.Signature(parameters)
    return function


def option(parameter: str) -> str:
    """Return the option of a parameter; ``from_`` is called so for Python's sake."""
    return f"--{parameter.rstrip('_')}"


def command_names() -> list[str]:
    """Return the words that can come first."""
    return [row.name for row in TABLE]


def options_of(name: str) -> list[str]:
    """Return the options that a command takes."""
    found = next((row for row in TABLE if row.name == name), None)
    if found is None:
        return []
    options = [
        option(parameter.name)
        for parameter in found.parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return [*options, *found.short.values(), "--json", "--help"]
