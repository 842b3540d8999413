"""Mending: what `check --fix` changes in a notebook's file, and how little of it.

Order of keys, indentation, line ends and escapes stay as they are. What cannot be written back
without a change of something else is left as it is, and said.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nbmlops import layout
from nbmlops.errors import Unmendable

# What only a session knows: the same that a snapshot leaves out.
_CELL_SESSION = ("execution", "papermill", "collapsed", "scrolled", "ExecuteTime")
_NOTEBOOK_SESSION = ("widgets", "papermill")


def strip_outputs(document: dict[str, Any]) -> None:
    """Take away outputs, execution counts and what only a session knows."""
    for cell in document["cells"]:
        if cell.get("cell_type") == "code":
            cell["outputs"] = []
            cell["execution_count"] = None
        _without(cell.get("metadata"), _CELL_SESSION)
    _without(document.get("metadata"), _NOTEBOOK_SESSION)


def _without(metadata: Any, keys: Iterable[str]) -> None:
    if isinstance(metadata, dict):
        for key in keys:
            metadata.pop(key, None)


def renew_ids(document: dict[str, Any]) -> None:
    """Give each cell whose id an earlier one has an id of its own, always the same one."""
    taken = {cell.get("id") for cell in document["cells"]}
    seen: set[str] = set()
    for position, cell in enumerate(document["cells"], 1):
        known = cell.get("id")
        if not known:
            continue
        if known in seen:
            fresh = known
            while fresh in taken:
                digest = hashlib.sha256(f"{fresh}:{position}".encode()).hexdigest()
                fresh = digest[:8]
            taken.add(fresh)
            cell["id"] = fresh
        seen.add(cell["id"])


def convert(data: bytes) -> bytes:
    """Return a notebook of an old format in the current one.

    Raises
    ------
    Unmendable
        When nbformat cannot convert it.
    """
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about ids, which the old format had none of
            converted = nbformat.reads(data.decode(), as_version=4)
            nbformat.validate(converted)
            text = nbformat.writes(converted)
    except Exception as error:  # nbformat fails in many ways on what is no notebook
        raise _unmendable(f"nbformat cannot convert it: {error}") from error
    return text.encode() + b"\n"


def rewritten(data: bytes, mends: Iterable[Callable[[dict[str, Any]], None]]) -> bytes:
    """Return the notebook after the mends, everything else as it was.

    Raises
    ------
    Unmendable
        When the file has keys twice, or numbers that JSON has not.
    """
    try:
        text = data.decode()
        document: dict[str, Any] = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite
        )
        sources = _sources(document)
        for mend in mends:
            mend(document)
        if _sources(document) != sources:
            raise _unmendable("the fix would have changed a cell's source")
        return _written(document, text)
    except (ValueError, RecursionError) as error:
        raise _unmendable(f"it cannot be written back as it is: {error}") from error


def _unmendable(what: str) -> Unmendable:
    return Unmendable(what, "Open it in JupyterLab and save it again, then try again.")


def _sources(document: dict[str, Any]) -> list[Any]:
    return [cell.get("source") for cell in document["cells"]]


def _written(document: Any, original: str) -> bytes:
    found = re.match(r"\s*\{(\r?\n)([ \t]+)", original)
    dense = found is None and re.search(r'": ', original[:200]) is None
    text = json.dumps(
        document,
        indent=found.group(2) if found else None,
        ensure_ascii=original.isascii(),  # then there are escapes, or nothing to escape
        separators=(",", ":") if dense else None,
    )
    if found and found.group(1) == "\r\n":
        text = text.replace("\n", "\r\n")
    begins = original[: len(original) - len(original.lstrip())]
    return (begins + text + original[len(original.rstrip()) :]).encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _unmendable("an object of it has a key twice")
    return made


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _unmendable(f"it holds the number {text}, which JSON does not have")
    return value


def write(file: Path, top: Path, data: bytes, mended: bytes) -> None:
    """Write a notebook whose bytes are still those that were looked at.

    Raises
    ------
    Unmendable
        When it leads out of the repository, has changed meanwhile, or cannot be written.
    """
    target = file.resolve()
    if not target.is_relative_to(top):
        raise Unmendable("it is a link to a file outside of the repository", f"Mend {target}.")
    try:
        if target.read_bytes() != data:
            raise Unmendable("it was written by somebody else just now", "Check again.")
        layout.write_file(target, mended, stat.S_IMODE(target.stat().st_mode))
    except OSError as error:
        raise Unmendable(f"it cannot be written: {error.strerror}", "See who owns it.") from error
