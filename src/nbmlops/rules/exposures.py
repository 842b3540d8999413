"""Rules of secrets: in notebooks, and in any file that a snapshot takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from nbmlops.rules.leaks import PASSWORD, TOKEN, Leak
from nbmlops.rules.rule import Fault, Subject, Tree

_OUT = (
    "Take it out, read it from the environment (`os.environ[...]`) and name it in `secrets` of"
    " [project]. If it was ever committed or shared, renew it."
)
_OUT_OF_OUTPUT = "Strip the outputs: `nbmlops check --fix`; and do not print it."


def fault(leak: Leak, path: str | None = None) -> Fault:
    """Return a secret that was found as a broken rule."""
    if leak.in_output:
        return Fault(f"its output holds {leak.what}", _OUT_OF_OUTPUT, cell=leak.cell, path=path)
    return Fault(f"it holds {leak.what}", _OUT, cell=leak.cell, line=leak.line, path=path)


def _in_notebook(code: str, subject: Subject) -> Iterator[Fault]:
    for leak in subject.leaks:
        if leak.code == code:
            yield fault(leak)


def _in_project(code: str, tree: Tree) -> Iterator[Fault]:
    for name, leak in tree.leaks:
        if leak.code == code:
            yield fault(leak, tree.path_of(name))


tokens_in_notebook: Callable[[Subject], Iterator[Fault]] = functools.partial(_in_notebook, TOKEN)
tokens_in_project: Callable[[Tree], Iterator[Fault]] = functools.partial(_in_project, TOKEN)
passwords_in_notebook: Callable[[Subject], Iterator[Fault]] = functools.partial(
    _in_notebook, PASSWORD
)
passwords_in_project: Callable[[Tree], Iterator[Fault]] = functools.partial(_in_project, PASSWORD)
