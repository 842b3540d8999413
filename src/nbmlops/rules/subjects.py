"""Notebooks as the rules see them, whatever their bytes are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from nbmlops import notebook
from nbmlops.errors import InvalidNotebook
from nbmlops.rules import cells
from nbmlops.rules.leaks import Leak
from nbmlops.rules.rule import Fault, Session, Subject

_SAVE_AGAIN = "Open it in JupyterLab and save it again; or take the last good one from git."


def read(
    data: bytes,
    path: str,
    *,
    is_step: bool = False,
    leaks: tuple[Leak, ...] = (),
    session: Session | None = None,
) -> Subject:
    """Return a notebook as the rules see it; no bytes make this fail."""
    made = functools.partial(Subject, path, is_step=is_step, leaks=leaks, session=session)
    try:
        document: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return made(unreadable=Fault(f"it is not JSON: {error}", _SAVE_AGAIN))
    if not isinstance(document, dict) or not _is_int(document.get("nbformat")):
        fix = "Choose another name for it: files that end with .ipynb are notebooks."
        return made(unreadable=Fault("it is JSON, but not a notebook", fix))
    if document["nbformat"] < 4:
        return made(document=document, old_format=document["nbformat"])
    wrong = _malformed(document)
    if wrong is not None:
        return made(unreadable=wrong)
    try:
        parsed = notebook.parse(data, path)
    except InvalidNotebook as error:
        return made(unreadable=Fault(error.message, error.hint))
    script = cells.read(parsed.code_cells) if _is_python(document, parsed.language) else None
    return made(document=document, notebook=parsed, script=script)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_python(document: Mapping[str, Any], language: str) -> bool:
    version = (document.get("metadata") or {}).get("language_info") or {}
    # Python 2 is another language, under the same name.
    return language == "python" and not str(version.get("version", "3")).startswith("2")


def _malformed(document: Mapping[str, Any]) -> Fault | None:
    """Return what keeps a document of format 4 from being a notebook."""
    if not isinstance(document.get("cells"), list):
        return Fault("it has no list of cells", _SAVE_AGAIN)
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict) or any(
        not isinstance(metadata.get(key) or {}, dict) for key in ("kernelspec", "language_info")
    ):
        return Fault("its metadata is not as the format asks", _SAVE_AGAIN)
    for position, cell in enumerate(document["cells"], 1):
        if wrong := _malformed_cell(cell):
            return Fault(f"cell {position} {wrong}", _SAVE_AGAIN, cell=position)
    return None


def _malformed_cell(cell: Any) -> str | None:
    if not isinstance(cell, dict):
        return "is no cell"
    source = cell.get("source", "")
    if not isinstance(source, str) and not (
        isinstance(source, list) and all(isinstance(line, str) for line in source)
    ):
        return "has a source that is no text"
    metadata = cell.get("metadata") or {}
    tags = metadata.get("tags") or () if isinstance(metadata, dict) else None
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
        return "has metadata that are not as the format asks"
    if not isinstance(cell.get("id") or "", str):
        return "has an id that is no text"
    if not isinstance(cell.get("outputs") or [], list):
        return "has outputs that are no list"
    return None
