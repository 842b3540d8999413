"""Who shows what a cell displays: nobody, a program that only keeps it, or people's front end."""

from __future__ import annotations

from typing import Any


def is_kernel() -> bool:
    """Return whether this is a kernel."""
    return _kernel() is not None


def shows_widgets() -> bool:
    """Return whether a person's front end has asked for the cell that runs.

    JupyterLab, Notebook and VS Code say which of their cells it is. papermill and nbconvert do not,
    and keep a widget's view with its state: whoever opens that later has a blank place unless a CDN
    answers, so what needs no script is the better thing to leave.
    """
    kernel = _kernel()
    if kernel is None:
        return False
    try:
        asked = kernel.get_parent()
    except (AttributeError, LookupError):
        return True  # a kernel that does not tell
    return "cellId" in ((asked or {}).get("metadata") or {})


def _kernel() -> Any:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    return getattr(get_ipython(), "kernel", None)
