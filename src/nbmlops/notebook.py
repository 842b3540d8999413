"""Notebooks: read as the JSON they are; cells, tags, parameters; stored without outputs."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import keyword
import tokenize
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from nbmlops.errors import InvalidNotebook, InvalidParameter
from nbmlops.records import Parameter


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: ``position`` counts from 1 over all cells of the notebook."""

    position: int
    cell_id: str | None
    kind: str
    source: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Notebook:
    """What nbmlops needs to know of a notebook."""

    path: str
    cells: tuple[Cell, ...]
    language: str
    kernel: str | None

    @property
    def code_cells(self) -> tuple[Cell, ...]:
        """The cells that run."""
        return tuple(cell for cell in self.cells if cell.kind == "code")

    def tagged(self, tag: str) -> Cell | None:
        """Return the first code cell with that tag."""
        return next((cell for cell in self.code_cells if tag in cell.tags), None)


def parse(data: bytes, path: str) -> Notebook:
    """Read a notebook.

    Raises
    ------
    InvalidNotebook
        When it is not JSON, not a notebook, of a format before 4, or not in Python.
    """
    document = _document(data, path)
    metadata = _table(document.get("metadata"))
    kernelspec = _table(metadata.get("kernelspec"))
    language = _table(metadata.get("language_info")).get("name") or kernelspec.get("language")
    cells = tuple(
        Cell(
            position=position,
            cell_id=str(cell["id"]) if cell.get("id") is not None else None,
            kind=str(cell.get("cell_type", "")),
            source=_joined(cell.get("source", "")),
            tags=tuple(map(str, cell["metadata"].get("tags") or ())),
        )
        for position, cell in enumerate(document["cells"], 1)
    )
    return Notebook(path, cells, str(language or "python").lower(), kernelspec.get("name"))


def _document(data: bytes, path: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidNotebook(
            f"{path} is not a notebook: {error}", "Open it in JupyterLab and save it again."
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("nbformat"), int):
        raise InvalidNotebook(f"{path} is not a notebook", "Choose a file that ends with .ipynb.")
    if document["nbformat"] < 4 or not isinstance(document.get("cells"), list):
        raise InvalidNotebook(
            f"{path} has notebook format {document['nbformat']}, which is too old",
            f"Convert it: `jupyter nbconvert --to notebook --inplace {path}`.",
        )
    for cell in document["cells"]:
        if not isinstance(cell, dict):
            raise InvalidNotebook(f"{path} has a cell that is none", "Save it again in JupyterLab.")
        metadata = cell.setdefault("metadata", {})
        if not isinstance(metadata, dict) or not isinstance(metadata.get("tags") or [], list):
            raise InvalidNotebook(
                f"{path} has a cell whose metadata are none", "Save it again in JupyterLab."
            )
    return document


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _joined(source: Any) -> str:
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def stripped(data: bytes, path: str) -> bytes:
    """Return the notebook without outputs, execution counts and what only a session knows.

    A notebook that is clean already comes back byte for byte.
    """
    document = _document(data, path)
    changed = False
    for cell in document["cells"]:
        if cell.get("cell_type") == "code":
            if cell.get("outputs") or cell.get("execution_count") is not None:
                changed = True
            cell["outputs"] = []
            cell["execution_count"] = None
        metadata = cell.get("metadata")
        if isinstance(metadata, dict):
            for key in ("execution", "papermill", "collapsed", "scrolled", "ExecuteTime"):
                changed = metadata.pop(key, None) is not None or changed
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        for key in ("widgets", "papermill"):
            changed = metadata.pop(key, None) is not None or changed
    if not changed:
        return data
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True)
    return text.encode() + b"\n"


def parameters(notebook: Notebook) -> tuple[Parameter, ...]:
    """Return the parameters that the cell tagged ``parameters`` declares, in order.

    A parameter is a plain assignment of a literal, with or without an annotation. Its type is the
    annotation, else the type of the literal; the comment behind it, or on the lines above, is its
    help.

    Raises
    ------
    InvalidNotebook
        When there are two such cells, or the cell is not valid Python.
    """
    cells = [cell for cell in notebook.code_cells if "parameters" in cell.tags]
    if len(cells) > 1:
        places = " and ".join(str(cell.position) for cell in cells)
        raise InvalidNotebook(
            f"{notebook.path} has {len(cells)} cells tagged `parameters` (cells {places})",
            "Keep the tag on one of them.",
        )
    if not cells:
        return ()
    try:
        body = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise InvalidNotebook(
            f"the parameters cell of {notebook.path} is not valid Python: {error.msg}"
            f" (line {error.lineno})",
            "Correct the cell; it may hold assignments of literals only.",
        ) from error
    helps = _comments(cells[0].source)
    found: dict[str, Parameter] = {}
    for node in body:
        declared = _declaration(node)
        if declared is not None:
            name, kind, default = declared
            found[name] = Parameter(name=name, type=kind, default=default, help=_help(helps, node))
    return tuple(found.values())


def _declaration(node: ast.stmt) -> tuple[str, str, Any] | None:
    annotation = None
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        target, value, annotation = node.target, node.value, ast.unparse(node.annotation)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value = node.targets[0], node.value
    else:
        return None
    if not isinstance(target, ast.Name) or keyword.iskeyword(target.id):
        return None
    try:
        default = ast.literal_eval(value)
        msgspec.json.encode(default)
    except (ValueError, TypeError, msgspec.MsgspecError):
        return None
    return target.id, annotation or _type_of(default), default


def _type_of(value: Any) -> str:
    return "Any" if value is None else type(value).__name__


def _comments(source: str) -> dict[int, tuple[str, bool]]:
    """Return each line's comment, and whether the line holds nothing else."""
    comments: dict[int, tuple[str, bool]] = {}
    with contextlib.suppress(tokenize.TokenError, IndentationError):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                alone = token.line.lstrip().startswith("#")
                comments[token.start[0]] = (token.string.lstrip("# ").rstrip(), alone)
    return comments


def _help(comments: dict[int, tuple[str, bool]], node: ast.stmt) -> str | None:
    behind, _ = comments.get(node.end_lineno or node.lineno, (None, False))
    above, alone = comments.get(node.lineno - 1, (None, False))
    return behind or (above if alone else None)


_SCALARS: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list[Any],
    "tuple": tuple[Any, ...],
    "dict": dict[str, Any],
    "set": set[Any],
    "None": None,
    "Any": Any,
    "object": Any,
}


def _python_type(node: ast.expr, spelled: str, name: str) -> Any:
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _python_type(ast.parse(node.value, mode="eval").body, spelled, name)
    if isinstance(node, ast.Attribute):
        return _python_type(ast.Name(node.attr), spelled, name)
    if isinstance(node, ast.Name) and node.id in _SCALARS:
        return _SCALARS[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left = _python_type(node.left, spelled, name)
        return left | _python_type(node.right, spelled, name)
    if isinstance(node, ast.Subscript):
        return _generic_type(node, spelled, name)
    raise _uncheckable(spelled, name)


def _generic_type(node: ast.Subscript, spelled: str, name: str) -> Any:
    outer = ast.unparse(node.value).rpartition(".")[2]
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer == "Literal":
        return Literal[tuple(ast.literal_eval(item) for item in inner)]
    if outer == "Optional":
        return _python_type(inner[0], spelled, name) | None
    if outer in ("list", "List", "Sequence"):
        return list[_python_type(inner[0], spelled, name)]
    if outer in ("dict", "Dict", "Mapping") and len(inner) == 2:
        return dict[str, _python_type(inner[1], spelled, name)]
    raise _uncheckable(spelled, name)


def _uncheckable(spelled: str, name: str) -> InvalidParameter:
    return InvalidParameter(
        f"parameter `{name}` has the type `{spelled}`, which cannot be checked",
        "Use int, float, str, bool, list[...], dict[str, ...], Literal[...] or a union with None.",
    )


def coerced(parameter: Parameter, value: Any) -> Any:
    """Return the value as the parameter's declared type, or refuse it.

    Text from a command line is read as the type asks: ``6`` for an int, ``true`` for a bool, JSON
    for lists and dictionaries. A ``str`` takes text as it is. A bool is no int, NaN is no float.

    Raises
    ------
    InvalidParameter
        When the value is not of the type.

    Examples
    --------
    >>> coerced(Parameter(name="rate", type="float"), "1e-3")
    0.001
    >>> coerced(Parameter(name="depth", type="int | None"), "None") is None
    True
    """
    try:
        kind = _python_type(
            ast.parse(parameter.type, mode="eval").body, parameter.type, parameter.name
        )
    except (SyntaxError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise _uncheckable(parameter.type, parameter.name) from error
    candidates = _readings(value) if isinstance(value, str) else [value]
    if kind is Any:
        candidates = candidates[::-1]
    for candidate in candidates:
        try:
            converted = msgspec.convert(candidate, kind, strict=True)
            msgspec.json.decode(msgspec.json.encode(converted))
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
            continue  # ValueError: half a character, such as of a name that is no UTF-8
        if _is_finite(converted):
            return converted
    raise InvalidParameter(
        f"parameter `{parameter.name}` wants {parameter.type}, not {str(value)[:80]!r}",
        f"Try `-p {parameter.name}={_shown(parameter.default)}`.",
        parameter=parameter.name,
        type=parameter.type,
    )


def _readings(text: str) -> list[Any]:
    """Return what a text may mean, the most literal meaning first."""
    readings: list[Any] = []
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        readings.append(words[text.lower()])
    try:
        readings.append(msgspec.json.decode(text))
    except RecursionError:
        return [text]
    except (msgspec.DecodeError, ValueError):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            readings.append(ast.literal_eval(text))
    return [text, *readings]


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")  # noqa: PLR0124
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return True


def _shown(default: Any) -> str:
    return default if isinstance(default, str) else json.dumps(default)
