"""The style sheets and modules of the views, each put together as the one that a browser gets."""

from __future__ import annotations

import re
from pathlib import Path

_STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./shared\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export \{([^}]*)\};\n", re.MULTILINE)


def styles(name: str) -> str:
    """Return the theme's and a view's own style sheet as one."""
    return _read("theme.css") + _read(f"{name}.css")


def module(name: str) -> str:
    """Return a view's own module with what it imports inside it, names kept apart."""
    shared = _EXPORT.sub(r"return {\1};\n", _read("shared.js"))
    return _IMPORT.sub(
        lambda found: f"const {{{found[1]}}} = (() => {{\n{shared}}})();\n", _read(f"{name}.js")
    )


def _read(file: str) -> str:
    return (_STATIC / file).read_text(encoding="utf-8")
