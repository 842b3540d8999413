"""The live widget's module in Chromium, with a model that stands for the kernel's."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from samples import PAYLOADS, hostile, sample

from nbmlops import widgets
from nbmlops.widgets.drift_widget import _document
from nbmlops.widgets.wording import clean

STATIC = Path(widgets.__file__).parent / "static"
CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
MOUNT = """async ([source, shown]) => {
  const { default: widget } = await import("data:text/javascript;base64," + source);
  const listeners = new Set();
  window.model = {
    shown,
    get: () => window.model.shown,
    on: (_, listener) => listeners.add(listener),
    off: (_, listener) => listeners.delete(listener),
    fire: () => listeners.forEach((listener) => listener()),
    count: () => listeners.size,
  };
  window.unmount = widget.render({ model: window.model, el: document.body });
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's Chromium is not installed"),
]


@pytest.fixture
def browser():
    # One for each test: between tests no event loop may run, which other tests' fixtures close.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def mount(browser):
    """Show a report in a page of its own; no error and no dialog may come up."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on(
        "request", lambda request: faults.append(request.url) if "data:" not in request.url else 0
    )

    def show(report):
        page.set_content("<!doctype html><html lang=en><body></body></html>")
        page.add_style_tag(path=STATIC / "drift.css")
        source = base64.b64encode((STATIC / "drift.js").read_bytes()).decode()
        shown = json.loads(json.dumps(_plain(report)).encode("utf-8", "replace"))
        page.evaluate(MOUNT, [source, shown])
        return page

    yield show
    page.close()
    assert faults == []


def _plain(report):
    return _scrubbed(_document(report))


def _scrubbed(value):
    """Return what the wire makes of a document: times as text, no lone surrogates."""
    if isinstance(value, dict):
        return {key: _scrubbed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(item) for item in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def test_the_widget_shows_the_answers_and_the_features_by_difference(mount):
    page = mount(sample())
    assert page.locator(".nbm-title").inner_text().split() == ["✕", "alert", "cancer:3"]
    assert page.locator(".nbm-answer").all_inner_texts() == ["✕ no", "✓ yes", "✓ yes", "? unknown"]
    names = page.locator(".nbm-tile .nbm-name").all_inner_texts()
    assert names[:3] == ["prediction", "feature 7", "clinic"]
    assert len(names) == 33
    assert page.locator(".nbm-tile svg").count() == 32
    assert "1 new category" in page.locator(".nbm-tile", has_text="clinic").inner_text()


def test_a_feature_opens_and_closes_with_the_keyboard_alone(mount):
    page = mount(sample())
    tile = page.locator(".nbm-tile", has_text="feature 7").first
    tile.focus()
    page.keyboard.press("Enter")
    assert tile.get_attribute("aria-expanded") == "true"
    detail = page.get_by_role("region", name="feature 7")
    assert "over 0.1" in detail.inner_text()
    page.keyboard.press("Escape")
    assert detail.count() == 0
    assert tile.evaluate("tile => tile === document.activeElement")
    page.keyboard.press("Space")
    assert page.locator(".nbm-detail").count() == 1


def test_one_feature_is_open_at_a_time(mount):
    page = mount(sample())
    page.locator(".nbm-tile").nth(1).click()
    page.locator(".nbm-tile").nth(2).click()
    assert page.locator(".nbm-detail").count() == 1
    assert page.locator(".nbm-tile[aria-expanded=true]").count() == 1
    page.get_by_role("button", name="Close").click()
    assert page.locator(".nbm-detail").count() == 0


def test_the_filter_leaves_the_features_with_that_name(mount):
    page = mount(sample())
    box = page.get_by_label("Filter features by name")
    box.fill("CLIN")
    assert page.locator(".nbm-tile:visible").count() == 1
    box.fill("no such feature")
    assert page.locator(".nbm-tile:visible").count() == 0
    assert page.get_by_role("status").inner_text() == "No feature has that in its name."
    box.fill("")
    assert page.locator(".nbm-tile:visible").count() == 33


def test_a_new_report_redraws_until_the_view_is_gone(mount):
    page = mount(sample())
    page.evaluate("() => { model.shown.title = 'other:4'; model.fire(); }")
    assert "other:4" in page.locator(".nbm-title").inner_text()
    page.evaluate("() => unmount()")
    assert page.evaluate("() => model.count()") == 0


def test_hostile_text_stays_text_in_every_field(mount):
    page = mount(hostile())
    for index in range(len(PAYLOADS)):
        page.locator(".nbm-tile").nth(index).click()
        page.locator(".nbm-detail").hover()
    assert page.evaluate("() => window.hacked === undefined")
    kinds = page.evaluate(
        "() => [...new Set([...document.body.querySelectorAll('*')]"
        ".map((element) => element.localName))]"
    )
    assert not {"script", "img", "iframe", "style", "a"} & set(kinds)
    handlers = page.evaluate(
        "() => [...document.body.querySelectorAll('*')].flatMap((element) =>"
        " element.getAttributeNames()).filter((name) => name.startsWith('on'))"
    )
    assert handlers == []
    shown = page.locator(".nbm-tile .nbm-name").all_text_contents()
    assert "<script>window.hacked = 1</script>" in shown


def test_hostile_text_stays_text_in_the_static_html(mount, browser):
    from nbmlops.widgets.drift_report import html

    page = browser.new_page()
    page.set_content(html(hostile()))
    assert page.evaluate("() => window.hacked === undefined")
    assert page.locator("script, img, iframe, a").count() == 0
    assert clean(PAYLOADS[0]) in page.locator("table").inner_text()
    page.close()
