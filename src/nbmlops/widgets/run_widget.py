"""The live run card; imported only where anywidget is."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from nbmlops.widgets.assets import module, styles


class RunWidget(anywidget.AnyWidget):
    """Draws one run; ``document`` is what :func:`~nbmlops.widgets.run_document` makes of it."""

    _esm = module("run")
    _css = styles("run")
    document = traitlets.Dict().tag(sync=True)

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document=document)
