"""A report in the forms that need no script and no kernel."""

from __future__ import annotations

from base64 import b64encode

from nbmlops.records import MonitorReport
from nbmlops.widgets.drift_report import html, text


def mimebundle(report: MonitorReport) -> dict[str, str]:
    """Return the report in every form that needs no script; a picture where matplotlib is."""
    bundle = {"text/plain": text(report), "text/html": html(report)}
    try:
        from nbmlops.widgets.drift_picture import png

        bundle["image/png"] = b64encode(png(report)).decode("ascii")
    except ImportError:
        pass
    return bundle
