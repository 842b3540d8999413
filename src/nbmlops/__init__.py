"""nbmlops: from a notebook to a traced, watched service.

In a notebook, ``import nbmlops as mlops`` gives the functions that record a run
(:func:`log_metrics`, :func:`log_figure`, :func:`log_artifact`, :func:`data`, :func:`log_model`)
and ``%load_ext nbmlops`` the ``%mlops`` magic. Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbmlops._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nbmlops.tracking import data, log_artifact, log_figure, log_metrics, log_model

__all__ = [
    "__version__",
    "data",
    "log_artifact",
    "log_figure",
    "log_metrics",
    "log_model",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from nbmlops import tracking

        return getattr(tracking, name)
    raise AttributeError(f"module 'nbmlops' has no attribute {name!r}")


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register the ``%mlops`` and ``%%mlops`` magics (``%load_ext nbmlops``)."""
    from nbmlops import magic

    magic.register(ipython)


# The names by which JupyterLab and the Jupyter server find their extensions.


def _jupyter_labextension_paths() -> list[dict[str, str]]:  # pyright: ignore[reportUnusedFunction]
    return [{"src": "labextension", "dest": "nbmlops"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:  # pyright: ignore[reportUnusedFunction]
    return [{"module": "nbmlops"}]


def _load_jupyter_server_extension(server_app: Any) -> None:  # pyright: ignore[reportUnusedFunction]
    from nbmlops import server_extension

    server_extension.load(server_app)
