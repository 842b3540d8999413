"""The style sheets and modules of the views, each put together as the one that a browser gets."""

from __future__ import annotations

import re
from pathlib import Path

_STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export \{([^}]*)\};\n", re.MULTILINE)


def styles(name: str) -> str:
    """Return the theme's and a view's own style sheet as one."""
    return _read("theme.css") + sheet(name)


def sheet(name: str) -> str:
    """Return a view's own style sheet."""
    return _read(f"{name}.css")


def module(name: str) -> str:
    """Return a view's own module with all that it imports inside it, names kept apart.

    Each imported module becomes a function that is called once, after those that it imports.
    """
    parts: dict[str, str] = {}
    source = _own(name, parts)
    return "".join(parts.values()) + source


def _own(name: str, parts: dict[str, str]) -> str:
    """Return a module's source without imports; put what it imports into ``parts``, in order."""

    def named(found: re.Match[str]) -> str:
        other = found[2]
        if other not in parts:
            inside = _EXPORT.sub(r"return {\1};\n", _own(other, parts))
            parts[other] = f"const {other}$ = (() => {{\n{inside}}})();\n"
        return f"const {{{found[1]}}} = {other}$;\n"

    return _IMPORT.sub(named, _read(f"{name}.js"))


def _read(file: str) -> str:
    return (_STATIC / file).read_text(encoding="utf-8")
