"""The executed notebook as people read it: cleaned, and as an HTML page made by nbconvert."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from nbmlops.runner.console import Redaction

if TYPE_CHECKING:
    from nbconvert.exporters.html import HTMLExporter


class Pages:
    """Makes HTML pages of notebooks; what that takes is loaded once, and ahead of time."""

    def __init__(self) -> None:
        self._loaders = ThreadPoolExecutor(1)
        self._loading: Future[HTMLExporter] | None = None

    def prepare(self) -> Future[HTMLExporter]:
        """Begin to load while the kernel starts, which leaves this process idle."""
        if self._loading is None:
            self._loading = self._loaders.submit(_loaded)
        return self._loading

    def html(self, executed: Path, title: str) -> bytes:
        """Return an executed notebook as one HTML page, pictures included."""
        import nbformat

        exporter = self.prepare().result()
        notebook = nbformat.read(executed, as_version=4)
        body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
        return body.encode()


def _loaded() -> HTMLExporter:
    import nbformat.v4
    from nbconvert.exporters.html import HTMLExporter

    exporter = HTMLExporter()
    empty = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    exporter.from_notebook_node(empty)  # compiles the templates
    return exporter


def tidy(executed: Path, redacted: Redaction) -> None:
    """Take secrets out of an executed notebook, and the widgets' state.

    Without the state every viewer shows the text, HTML and picture that widgets leave behind;
    with it, viewers without a kernel show nothing, from a file many times as large.
    """
    document = redacted.within(json.loads(executed.read_text(encoding="utf-8")))
    document["metadata"].pop("widgets", None)
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    executed.write_text(text, encoding="utf-8", errors="backslashreplace")
