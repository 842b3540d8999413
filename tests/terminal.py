"""Typing commands in tests: in this process, which is quick, with the document that comes back."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from nbmlops import cli


def typed(folder: Path, *words: str) -> tuple[Any, int, str]:
    """Type a command in a folder; return its document, its exit code and what it said besides."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.run(words, as_json=True)
    assert out.getvalue().count("\n") == 1, out.getvalue()
    return json.loads(out.getvalue()), code, err.getvalue()


def refused(folder: Path, *words: str, code: int = 2) -> dict[str, Any]:
    """Type a command that is refused; return the error: one line what, one line what to type."""
    document, ended, said = typed(folder, *words)
    assert ended == code, (document, said)
    error = document["error"]
    assert "Traceback" not in said, said
    assert error["code"] != "internal-error", error
    assert error["message"], error
    assert error["hint"], error
    assert "\n" not in error["message"].strip(), error
    return error
