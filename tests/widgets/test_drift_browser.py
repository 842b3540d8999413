"""The live widget's module in Chromium, with a model that stands for the kernel's."""

from __future__ import annotations

import pytest
from samples import PAYLOADS, hostile, sample

from nbmlops.widgets.drift_widget import _document
from nbmlops.widgets.wording import clean

pytestmark = pytest.mark.browser


@pytest.fixture
def show(mount):
    """Show a report in a page of its own."""
    return lambda report: mount("drift", _document(report), width=1100)


def test_the_widget_shows_the_answers_and_the_features_by_difference(show):
    page = show(sample())
    assert page.locator(".nbm-title").inner_text().split() == ["✕", "alert", "cancer:3"]
    assert page.locator(".nbm-answer").all_inner_texts() == ["✕ no", "✓ yes", "✓ yes", "? unknown"]
    names = page.locator(".nbm-tile .nbm-name").all_inner_texts()
    assert names[:3] == ["prediction", "feature 7", "clinic"]
    assert len(names) == 33
    assert page.locator(".nbm-tile svg").count() == 32
    assert "1 new category" in page.locator(".nbm-tile", has_text="clinic").inner_text()


def test_a_feature_opens_and_closes_with_the_keyboard_alone(show):
    page = show(sample())
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


def test_one_feature_is_open_at_a_time(show):
    page = show(sample())
    page.locator(".nbm-tile").nth(1).click()
    page.locator(".nbm-tile").nth(2).click()
    assert page.locator(".nbm-detail").count() == 1
    assert page.locator(".nbm-tile[aria-expanded=true]").count() == 1
    page.get_by_role("button", name="Close").click()
    assert page.locator(".nbm-detail").count() == 0


def test_the_filter_leaves_the_features_with_that_name(show):
    page = show(sample())
    box = page.get_by_label("Filter features by name")
    box.fill("CLIN")
    assert page.locator(".nbm-tile:visible").count() == 1
    box.fill("no such feature")
    assert page.locator(".nbm-tile:visible").count() == 0
    assert page.get_by_role("status").inner_text() == "No feature has that in its name."
    box.fill("")
    assert page.locator(".nbm-tile:visible").count() == 33


def test_a_new_report_redraws_until_the_view_is_gone(show):
    page = show(sample())
    page.evaluate("() => { model.set({ ...model.shown, title: 'other:4' }); }")
    assert "other:4" in page.locator(".nbm-title").inner_text()
    page.evaluate("() => unmount()")
    assert page.evaluate("() => model.count()") == 0


def test_hostile_text_stays_text_in_every_field(show):
    page = show(hostile())
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


def test_hostile_text_stays_text_in_the_static_html(blank):
    from nbmlops.widgets.drift_report import html

    page = blank()
    page.set_content(html(hostile()))
    assert page.evaluate("() => window.hacked === undefined")
    assert page.locator("script, img, iframe, a").count() == 0
    assert clean(PAYLOADS[0]) in page.locator("table").inner_text()
    page.close()
