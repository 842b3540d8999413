"""A widget's module in Chromium, with a model that stands for the kernel's."""

from __future__ import annotations

import base64
import shutil

import pytest
from wires import wired

from nbmlops.widgets.assets import module, styles

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
MOUNT = """async ([source, shown, more]) => {
  const { default: widget } = await import("data:text/javascript;base64," + source);
  const listeners = new Map();
  const traits = { document: shown, selection: null, asked: 0, hooks: {}, ...more };
  window.model = {
    traits,
    sent: [],
    get shown() { return traits.document; },
    get: (name) => traits[name],
    on: (event, listener) => listeners.set(listener, event),
    off: (_, listener) => listeners.delete(listener),
    set: (...given) => {
      const [name, value] = given.length === 1 ? ["document", given[0]] : given;
      traits[name] = value;
      for (const [listener, event] of listeners) if (event === `change:${name}`) listener();
    },
    save_changes: () => window.model.sent.push(structuredClone(traits.selection)),
    count: () => listeners.size,
  };
  window.unmount = widget.render({ model: window.model, el: document.body });
}"""


@pytest.fixture
def chromium():
    """Start Debian's Chromium; one for each test, as no event loop may run between tests."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium: `make test-system` installs Debian's")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def blank(chromium):
    """Return what opens an empty page; no error, dialog or request may come up in it."""
    faults = []

    def opened(width=1000):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: "data:" in asked.url or faults.append(asked.url))
        page.set_content("<!doctype html><html lang=en><body></body></html>")
        return page

    yield opened
    assert faults == []


@pytest.fixture
def mount(blank):
    """Return what shows a document in a page, by the live module of that name."""

    def show(kind, document, width=1000, **more):
        page = blank(width)
        page.add_style_tag(content=styles(kind))
        source = base64.b64encode(module(kind).encode()).decode()
        page.evaluate(MOUNT, [source, wired(document), more])
        return page

    return show
