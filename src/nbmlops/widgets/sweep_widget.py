"""The live sweep widget; imported only where anywidget is."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from nbmlops.widgets.assets import module, styles


class SweepWidget(anywidget.AnyWidget):
    """Draws one sweep; ``document`` is what :mod:`~nbmlops.widgets.sweep_document` makes of it."""

    _esm = module("sweep")
    _css = styles("sweep")
    document = traitlets.Dict().tag(sync=True)

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document=document)
