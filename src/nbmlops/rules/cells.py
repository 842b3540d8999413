"""Code cells as Python: magics made into what they do, all cells joined to one program.

IPython's own input transformer makes magics into valid Python. It is loaded only for cells that
are not valid Python as they stand: importing it takes longer than checking most notebooks.
"""

from __future__ import annotations

import ast
import bisect
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from nbmlops.notebook import Cell
from nbmlops.rules.magics import (
    HARMLESS_CELL_MAGICS,
    HARMLESS_MAGICS,
    PYTHON_CELL_MAGICS,
    TIMERS,
    Plainer,
)

_FAILURES = (SyntaxError, ValueError, RecursionError, MemoryError)
_CELL_MAGIC = re.compile(r"\s*%%([^\s%]+)([^\n]*)\n?")
_WORD = re.compile(r"[a-z_]\w*(?![\w.(\[=])(?!\s*[=(\[.,:+*/|&<>-])")
_LIMIT_CHARACTERS = 500_000


@dataclass(frozen=True, slots=True)
class CellCode:
    """A code cell as Python, its lines counted over the whole notebook.

    ``opaque`` says that it may define any name: a magic that is not known, code that is not valid
    Python. ``error`` is what is wrong with it, and the line of the cell.
    """

    cell: Cell
    start: int
    body: tuple[ast.stmt, ...] = ()
    opaque: bool = False
    error: tuple[str, int] | None = None

    def line(self, node: ast.stmt | ast.expr) -> int:
        """Return the line of the cell in which a node of it stands."""
        return node.lineno - self.start


@dataclass(frozen=True, slots=True)
class Script:
    """All code cells of a notebook, in order."""

    cells: tuple[CellCode, ...]

    def module(self) -> ast.Module:
        """Return one program of all cells.

        A ``from ... import *`` stands before a cell that may define any name.
        """
        body: list[ast.stmt] = []
        for code in self.cells:
            if code.opaque:
                star = ast.ImportFrom(module="anything", names=[ast.alias(name="*")], level=0)
                body.append(_placed(star, code.start + 1))
            body.extend(code.body)
        return ast.Module(body=body, type_ignores=[])

    def place(self, line: int) -> tuple[Cell, int]:
        """Return the cell, and the line of it, for a line of the whole program."""
        index = bisect.bisect_left([code.start for code in self.cells], line) - 1
        code = self.cells[max(0, index)]
        return code.cell, line - code.start


def read(cells: Iterable[Cell]) -> Script:
    """Return the code cells as one script."""
    found: list[CellCode] = []
    start = 0
    for cell in cells:
        found.append(_read(cell, start))
        start += cell.source.count("\n") + 2
    return Script(tuple(found))


def _read(cell: Cell, start: int) -> CellCode:
    if len(cell.source) > _LIMIT_CHARACTERS:
        return CellCode(cell, start, opaque=True)
    try:
        statements, opaque = _parsed(cell.source)
    except (RecursionError, MemoryError):  # nested deeper than can be read from here
        return CellCode(cell, start, opaque=True)
    except (SyntaxError, ValueError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        return CellCode(cell, start, opaque=True, error=(what or "not valid Python", line or 1))
    for statement in statements:
        ast.increment_lineno(statement, start)
    return CellCode(cell, start, tuple(statements), opaque)


def _parsed(source: str) -> tuple[list[ast.stmt], bool]:
    """Return a cell's statements, and whether it may define names that they do not show."""
    source = source.removeprefix("\ufeff")
    if "\n" not in source.strip():
        source = _with_percent(source)
    try:
        tree = _checked(source)
    except _FAILURES:
        found = _CELL_MAGIC.match(source)
        if found is not None:
            return _of_cell_magic(found, source)
        tree = _transformed(source)
    plainer = Plainer()
    try:
        return plainer.made(tree.body), plainer.opaque
    except RecursionError:  # deeper than we can follow, and valid all the same
        return [], True


def _with_percent(source: str) -> str:
    """Return a cell of one line with the ``%`` that IPython lets one leave out."""
    word = _WORD.match(source.strip())
    if word is not None and word.group() in HARMLESS_MAGICS:
        return f"%{source.strip()}"
    return source


def _checked(source: str) -> ast.Module:
    """Return the tree of valid Python, in which `await` may stand outside of functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a notebook's code is warned of is its own affair
        tree = ast.parse(source)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compile(tree, "<cell>", "exec", flags=flags, dont_inherit=True)
    return tree


def _transformed(source: str) -> ast.Module:
    from IPython.core.inputtransformer2 import TransformerManager

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = TransformerManager().transform_cell(source)
    skipped = len(source) - len(source.lstrip("\n"))  # empty lines, which IPython leaves out
    return _checked("\n" * skipped + text)


def _of_cell_magic(found: re.Match[str], source: str) -> tuple[list[ast.stmt], bool]:
    name, options = found.group(1), found.group(2)
    if name not in PYTHON_CELL_MAGICS:
        known = name in HARMLESS_CELL_MAGICS and "--out" not in options
        return [], not known
    above = found.group().count("\n")
    statements, opaque = _parsed(source[found.end() :])
    for statement in statements:
        ast.increment_lineno(statement, above)
    target = next((word for word in options.split() if word.isidentifier()), None)
    if name in TIMERS and statements:
        # It runs in a function of its own: its names are gone afterwards.
        return [_function(statements)], opaque
    if name == "capture" and target:
        value = ast.Constant(value=None)
        assigned = ast.Assign(targets=[ast.Name(id=target, ctx=ast.Store())], value=value)
        statements.append(_placed(assigned, above))
    return statements, opaque


def _function(body: list[ast.stmt]) -> ast.stmt:
    made = ast.parse("def timed(): pass").body[0]
    if isinstance(made, ast.FunctionDef):
        made.body = body
        made.lineno = body[0].lineno
    return made


def _placed(node: ast.stmt, line: int) -> ast.stmt:
    """Return a node that we have made, with the places that every node of a tree has."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.stmt | ast.expr | ast.alias):
            inner.lineno = inner.end_lineno = line
            inner.col_offset = inner.end_col_offset = 0
    return node
