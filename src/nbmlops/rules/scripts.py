"""Rules of a notebook's code: what a run from top to bottom would stumble over."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence

from nbmlops import notebook
from nbmlops.errors import InvalidNotebook
from nbmlops.rules.cells import CellCode
from nbmlops.rules.rule import Fault, Subject

# What IPython puts into every notebook's names, beside Python's own.
_GIVEN = frozenset({
    "In", "Out", "_", "__", "___", "_dh", "_exit_code", "_i", "_ih", "_ii", "_iii", "_mlops",
    "_oh", "display", "exit", "get_ipython", "open", "quit",
})  # fmt: skip
_HISTORY = re.compile(r"_i?\d+")
# A cell that is meant to fail may use what is not there.
_MEANT_TO_FAIL = "raises-exception"

# Folders of one person or one machine; what stands in them is nowhere else.
_PERSONAL = re.compile(r"(?:/(?:home|Users|root|content|kaggle|mnt|media)/|[A-Za-z]:[\\/]+\w)")
_SYSTEM = re.compile(r"/(?:bin|boot|dev|etc|lib\w*|proc|run|sbin|sys|tmp|usr|var|net|afs)(?:/|$)")
_LIMIT_CHARACTERS = 300


def syntax_error(subject: Subject) -> Iterator[Fault]:
    """Find cells that are not valid Python."""
    for code in _cells(subject):
        if code.error is not None and _MEANT_TO_FAIL not in code.cell.tags:
            what, line = code.error
            yield Fault(
                f"it is not valid Python: {what}",
                "Correct the cell, or make it a raw or Markdown cell.",
                cell=code.cell.position,
                line=line,
            )


def star_import(subject: Subject) -> Iterator[Fault]:
    """Find imports of all names of a module."""
    for code in _cells(subject):
        for node in _walk(code.body):
            if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                module = "." * node.level + (node.module or "")
                yield Fault(
                    f"`from {module} import *` hides where names come from",
                    f"Import the names that you use, or the module: `import {module}`.",
                    cell=code.cell.position,
                    line=code.line(node),
                )


def absolute_path(subject: Subject) -> Iterator[Fault]:
    """Find texts that are paths of this machine, where a job would look in vain."""
    for code in _cells(subject):
        for node in _walk(code.body):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if _is_of_this_machine(node.value):
                yield Fault(
                    f"`{_short(node.value)}` is a path of one machine",
                    "Write it relative to the notebook. Data that git ignores goes into [data] of"
                    " nbmlops.toml; then use `mlops.data(...)`.",
                    cell=code.cell.position,
                    line=code.line(node),
                )


def _is_of_this_machine(text: str) -> bool:
    if not 4 <= len(text) <= _LIMIT_CHARACTERS or "\n" in text or "\0" in text:
        return False
    if _PERSONAL.match(text):
        return True
    inner = text.startswith("/") and "/" in text.strip("/") and not text.startswith("//")
    return inner and not _SYSTEM.match(text) and os.path.exists(text)  # noqa: PTH110


def parameters_overwritten(subject: Subject) -> Iterator[Fault]:
    """Find later cells that assign a parameter's name, and so discard what was given.

    An assignment that uses the parameter itself, such as ``seed = int(seed)``, discards nothing;
    nor does the cell of what an earlier run was given, in whose place papermill puts another.
    """
    names = _parameters(subject)
    behind = False
    for code in _cells(subject):
        if behind and "injected-parameters" not in code.cell.tags:
            for name, line in _discarded(code, names):
                yield Fault(
                    f"it assigns the parameter `{name}`: whatever a run is given is lost",
                    "Choose another name here, or take the assignment out.",
                    cell=code.cell.position,
                    line=line,
                )
        behind = behind or "parameters" in code.cell.tags


def _parameters(subject: Subject) -> frozenset[str]:
    if subject.notebook is None or subject.script is None:
        return frozenset()
    try:
        return frozenset(p.name for p in notebook.parameters(subject.notebook))
    except (InvalidNotebook, RecursionError, ValueError):  # other rules say so
        return frozenset()


def _discarded(code: CellCode, names: frozenset[str]) -> Iterator[tuple[str, int]]:
    for statement in _statements(code.body, names):
        used = {
            n.id
            for n in ast.walk(statement)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        }
        for node in _targets(statement):
            if node.id in names and node.id not in used:
                yield node.id, code.line(node)


def _statements(body: Sequence[ast.stmt], names: frozenset[str]) -> Iterator[ast.stmt]:
    """Yield the statements of the module's own level; not those under a test of a parameter."""
    for statement in body:
        if isinstance(statement, ast.If | ast.While):
            if not names & {n.id for n in ast.walk(statement.test) if isinstance(n, ast.Name)}:
                yield from _statements([*statement.body, *statement.orelse], names)
        elif isinstance(statement, ast.For | ast.With | ast.Try):
            handlers = statement.handlers if isinstance(statement, ast.Try) else []
            inner = [*statement.body, *(line for handler in handlers for line in handler.body)]
            yield from _statements([*inner, *getattr(statement, "orelse", [])], names)
            if isinstance(statement, ast.For):
                yield ast.copy_location(
                    ast.Assign(targets=[statement.target], value=statement.iter), statement
                )
        else:
            yield statement


def _targets(statement: ast.stmt) -> Iterator[ast.Name]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node


def hidden_state(subject: Subject) -> Iterator[Fault]:
    """Find names that are used before any cell defines them.

    Scopes are pyflakes' business: cells are one program, read from top to bottom.
    """
    if subject.script is None:
        return
    from pyflakes import checker, messages

    try:
        module = subject.script.module()
        found = checker.Checker(module, builtins=_GIVEN).messages
    except RecursionError:  # deeper than pyflakes can follow; Python itself runs it
        return
    told: set[str] = set()
    for message in sorted(found, key=lambda message: message.lineno):
        name = str(message.message_args[0]) if message.message_args else ""
        if type(message) is not messages.UndefinedName or name in told or _HISTORY.fullmatch(name):
            continue
        cell, line = subject.script.place(message.lineno)
        if _MEANT_TO_FAIL in cell.tags:
            continue
        told.add(name)
        below = _defined_below(subject, name, cell.position)
        yield Fault(
            f"`{name}` is used, and "
            + (f"only cell {below} below defines it" if below else "no cell defines it"),
            f"Move cell {below} up." if below else f"Define or import `{name}` above.",
            cell=cell.position,
            line=line,
        )


def _defined_below(subject: Subject, name: str, position: int) -> int | None:
    for code in _cells(subject):
        if code.cell.position > position and name in _defined(code):
            return code.cell.position
    return None


def _defined(code: CellCode) -> Iterator[str]:
    for node in _walk(code.body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]


def _cells(subject: Subject) -> Sequence[CellCode]:
    return subject.script.cells if subject.script else ()


def _walk(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        yield from ast.walk(statement)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
