"""What becomes of a document on its way to the browser."""

from __future__ import annotations

import json


def wired(document):
    """Return what the wire makes of a document: JSON, without lone surrogates."""
    text = json.dumps(document, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "replace"))
