"""The executed notebook as people read it: cleaned, and as an HTML page made by nbconvert."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path

from nbmlops.runner.console import Redaction


def prepare() -> None:
    """Load what makes the page while the kernel starts, which leaves this process idle."""

    def load() -> None:
        import nbconvert.exporters.html  # noqa: F401  # pyright: ignore[reportUnusedImport]

    threading.Thread(target=load, daemon=True).start()


def tidy(executed: Path, redacted: Redaction) -> None:
    """Take secrets out of an executed notebook, and the widgets' state.

    Without the state every viewer shows the text, HTML and picture that widgets leave behind;
    with it, viewers without a kernel show nothing, from a file many times as large.
    """
    document = redacted.within(json.loads(executed.read_text(encoding="utf-8")))
    document["metadata"].pop("widgets", None)
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    executed.write_text(text, encoding="utf-8")


def html(executed: Path, title: str) -> bytes:
    """Return an executed notebook as one HTML page, pictures included."""
    import nbformat
    from nbconvert.exporters.html import HTMLExporter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nbformat and bleach, about themselves
        notebook = nbformat.read(executed, as_version=4)
        body, _ = HTMLExporter().from_notebook_node(
            notebook, resources={"metadata": {"name": title}}
        )
    return body.encode()
