from __future__ import annotations

import base64
import json
import sys

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from samples import sample

from nbmlops.records import dump
from nbmlops.widgets import drift, front_end
from nbmlops.widgets.drift_report import html, text

LIVE = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def report():
    return sample()


def test_outside_of_a_kernel_a_report_has_text_html_and_a_picture(report):
    shown = drift.show(report)
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    assert bundle["text/plain"] == repr(shown) == text(report)
    assert bundle["text/html"] == html(report)
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_without_anywidget_a_kernel_shows_the_static_report(report, monkeypatch):
    monkeypatch.setattr(front_end, "shows_widgets", lambda: True)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "nbmlops.widgets.drift_widget", raising=False)
    assert isinstance(drift.show(report), drift.StaticReport)


def test_without_matplotlib_text_and_html_are_left(report, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert set(drift.show(report)._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_ipython_displays_the_report_s_own_text(report):
    bundle, _ = InteractiveShell.instance().display_formatter.format(drift.show(report))
    InteractiveShell.clear_instance()
    assert bundle["text/plain"] == text(report)


def test_what_nobody_watches_holds_every_static_form_and_no_view(report, tmp_path):
    (tmp_path / "report.json").write_bytes(dump(report))
    source = (
        "from pathlib import Path\n"
        "from nbmlops.records import MonitorReport, load\n"
        "from nbmlops.widgets.drift import show\n"
        "show(load(Path('report.json').read_bytes(), MonitorReport))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    data = notebook.cells[0].outputs[0].data
    assert data["text/plain"] == text(report)
    assert data["text/html"] == html(report)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert LIVE not in data, "whoever opens it later would see nothing without a CDN"
    assert len(json.dumps(notebook)) < 500_000
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert '<div class="nbm-drift' in page
    assert page.count("feature 7") > 1
    assert LIVE not in page
