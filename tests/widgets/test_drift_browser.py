"""The live widget's module in Chromium, with a model that stands for the kernel's."""

from __future__ import annotations

import pytest
from samples import BEGIN, PAYLOADS, SLICES, hostile, sample, watched
from wires import wired

from nbmlops.records import replace
from nbmlops.widgets.drift_document import drift_document
from nbmlops.widgets.wording import clean

pytestmark = pytest.mark.browser


@pytest.fixture
def show(mount):
    """Show a report in a page of its own."""

    def shown(report, width=1100, **more):
        return mount("drift", drift_document(report), width=width, **more)

    return shown


def renew(page, report, **hooks):
    """Give the view another document, as the kernel does."""
    page.evaluate("(next) => model.set(next)", wired(drift_document(report)))
    page.evaluate("(next) => model.set('hooks', next)", hooks)


def focus(page):
    return page.evaluate("() => document.activeElement.dataset.key ?? null")


def selection(page):
    return page.evaluate("() => model.traits.selection")


def iso(index):
    return f"{BEGIN + (watched().history[0].until - BEGIN) * index:%Y-%m-%dT%H:%M:%SZ}"


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
    assert page.locator(".nbm-none[role=status]").inner_text() == "No feature has that in its name."
    box.fill("")
    assert page.locator(".nbm-tile:visible").count() == 33


def test_a_new_report_redraws_until_the_view_is_gone(show):
    page = show(sample())
    page.evaluate("() => { model.set({ ...model.shown, title: 'other:4' }); }")
    assert "other:4" in page.locator(".nbm-title").inner_text()
    page.evaluate("() => unmount()")
    assert page.evaluate("() => model.count()") == 0


def test_hostile_text_stays_text_in_every_field(show):
    page = show(hostile(), hooks={"problem": " ".join(PAYLOADS[:8]), "refreshable": True})
    for index in range(len(PAYLOADS)):
        page.locator(".nbm-feature").nth(index).click()
        page.locator(".nbm-detail").hover()
        page.locator(".nbm-chart .nbm-lane").nth(index).hover()
        assert page.locator(".nbm-tip").inner_text()
    page.get_by_role("button", name="Distributions").click()
    for index in range(len(PAYLOADS)):
        page.locator(".nbm-tile").nth(index).click()
        page.locator(".nbm-detail").hover()
    assert page.evaluate("() => window.hacked === undefined")
    kinds = page.evaluate(
        "() => [...new Set([...document.body.querySelectorAll('*')]"
        ".map((element) => element.localName))]"
    )
    assert not {"script", "img", "iframe", "style", "a"} & set(kinds)
    names = page.evaluate(
        "() => [...document.body.querySelectorAll('*')].flatMap((element) =>"
        " element.getAttributeNames())"
    )
    assert [name for name in names if name.startswith("on") or "commandlinker" in name] == []
    for place in (".nbm-tile .nbm-name", ".nbm-feature", ".nbm-chart .nbm-name", ".nbm-metrics th"):
        shown = page.locator(place).all_text_contents()
        assert "<script>window.hacked = 1</script>" in shown
    assert "<script>" in page.locator(".nbm-why").inner_text()
    assert "<script>" in page.get_by_role("alert").inner_text()


def test_hostile_text_stays_text_in_the_static_html(blank):
    from nbmlops.widgets.drift_report import html

    page = blank()
    page.set_content(html(hostile()))
    assert page.evaluate("() => window.hacked === undefined")
    assert page.locator("script, img, iframe, a").count() == 0
    assert clean(PAYLOADS[0]) in page.locator(".nbm-columns").inner_text()
    page.close()


# --- over time ------------------------------------------------------------------------------------


def test_an_alert_says_since_when_and_why_before_all_else(show):
    page = show(watched())
    assert (
        page.locator(".nbm-why")
        .inner_text()
        .startswith("Since 2026-11-19 21:30 UTC: feature 7 accounts for 62% of the change")
    )
    above = page.evaluate(
        "() => document.querySelector('.nbm-why').getBoundingClientRect().bottom"
        " <= document.querySelector('.nbm-cards').getBoundingClientRect().top"
    )
    assert above


def test_the_heat_map_has_a_row_for_each_feature_and_marks_drift_and_what_is_unknown(show):
    page = show(watched())
    assert page.locator(".nbm-heat:visible").count() == 30
    names = page.locator(".nbm-feature").all_text_contents()
    assert names[:4] == ["prediction", "feature 7", "clinic", "feature 12"]
    row = page.locator("[data-row='column:feature 7']").first
    dots = row.locator(".nbm-dots").evaluate_all("all => all.map(one => one.getAttribute('d'))")
    assert sum(d.count("M") for d in dots) == SLICES // 2
    assert row.locator(".nbm-strokes").count() == 1
    assert page.locator(".nbm-levels .nbm-swatch").count() == 8
    page.get_by_role("button", name="Show all 33 rows").click()
    assert page.locator(".nbm-heat:visible").count() == 33


def test_a_row_opens_its_feature_by_mouse_below_it(show):
    page = show(watched())
    row = page.locator("[data-row='column:clinic']").first
    row.locator(".nbm-lane").click()
    panel = page.get_by_role("region", name="clinic")
    assert row.evaluate("row => row.nextElementSibling.className") == "nbm-detail"
    assert "New categories" in panel.inner_text()
    assert "west" in panel.inner_text()
    assert "drift in 24 of 48 slices" in panel.inner_text()
    assert panel.locator("g[data-side=reference] rect").count() > 0
    assert panel.locator(".nbm-past rect[data-verdict=drift]").count() == SLICES // 2
    page.get_by_role("button", name="Close").click()
    assert panel.count() == 0


def test_the_keyboard_alone_reaches_and_opens_everything(show):
    page = show(watched())
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        if focus(page) in reached:
            break
        if focus(page):
            reached.append(focus(page))
    assert reached[:3] == ["metrics", "axis", "prediction:prediction"]
    assert {"performance:accuracy", "traffic:rows", "traffic:latency, ms"} <= set(reached)
    page.locator("[data-key='prediction:prediction']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert focus(page) == "column:feature 7"
    assert "feature 7: drift" in page.locator(".nbm-tip").inner_text()
    assert "09:00 to 09:30 UTC" in page.locator(".nbm-tip").inner_text()
    page.keyboard.press("Enter")
    assert focus(page) == "panel"
    assert page.locator(".nbm-feature[aria-expanded=true]").inner_text() == "feature 7"
    page.keyboard.press("Escape")
    assert focus(page) == "column:feature 7"
    outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_dragging_along_the_times_chooses_a_window_and_all_goes_back(show):
    page = show(watched())
    box = page.locator("[data-key=axis]").bounding_box()
    step = box["width"] / SLICES
    page.mouse.move(box["x"] + 24.5 * step, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 30 * step, box["y"] + 10)
    page.mouse.move(box["x"] + 35.5 * step, box["y"] + 10)
    page.mouse.up()
    page.wait_for_function("() => model.sent.length === 1")
    assert selection(page) == {"since": iso(24), "until": iso(36)}
    assert "12 of 48 slices" in page.locator(".nbm-choice").inner_text()
    page.get_by_role("button", name="All", exact=True).click()
    page.wait_for_function("() => model.sent.length === 2")
    assert selection(page) is None
    assert focus(page) == "axis"


def test_a_drag_over_the_heat_map_chooses_and_opens_nothing(show):
    page = show(watched())
    box = page.locator("[data-row='column:clinic'] .nbm-lane").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 5)
    page.mouse.up()
    page.wait_for_function("() => model.sent.length === 1")
    assert selection(page)["since"] == iso(0)
    assert page.locator(".nbm-detail").count() == 0


def test_shift_and_the_arrow_keys_choose_a_window_and_escape_goes_back(show):
    page = show(watched())
    page.locator("[data-key=axis]").focus()
    page.keyboard.press("End")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    page.wait_for_function("() => model.sent.length === 1")
    assert selection(page) == {"since": iso(44), "until": iso(48)}
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function("() => model.sent.length === 2")
    assert selection(page) == {"since": iso(45), "until": iso(48)}
    page.keyboard.press("Escape")
    page.wait_for_function("() => model.sent.length === 3")
    assert selection(page) is None


def test_the_view_says_that_it_waits_for_the_answers_of_the_chosen_window(show):
    page = show(watched(), hooks={"selectable": True, "selected": None})
    chosen = page.locator(".nbm-choice")
    page.locator("[data-key=axis]").click(position={"x": 5, "y": 10})
    page.wait_for_function("() => model.sent.length === 1")
    assert "waiting for the kernel" in chosen.inner_text()
    renew(page, watched(), selectable=True, selected=selection(page))
    assert "waiting" not in chosen.inner_text()
    assert "1 of 48 slices" in chosen.inner_text()
    page.evaluate("() => model.set('hooks', { selectable: true, problem: 'no calls there' })")
    assert page.get_by_role("alert").inner_text() == "no calls there"


def test_without_a_history_nothing_can_be_chosen(show):
    page = show(sample())
    assert page.locator(".nbm-lane").count() == 0
    assert not page.locator(".nbm-choice").is_visible()
    assert not page.get_by_role("button", name="Over time").is_visible()


def test_an_update_keeps_focus_scroll_filter_and_the_opened_feature(show):
    page = show(watched())
    page.get_by_label("Filter features by name").fill("feature")
    page.locator("[data-key='column:feature 12']").click()
    page.keyboard.press("Escape")
    page.locator("[data-key='column:feature 7']").click()
    page.get_by_role("button", name="Close").focus()
    page.evaluate("() => window.scrollTo(0, 300)")
    later = watched()
    sliding = replace(later, history=later.history[1:], model="newer")
    renew(page, sliding)
    assert "newer:3" in page.locator(".nbm-title").inner_text()
    assert "drift in 24 of 47 slices" in page.get_by_role("region", name="feature 7").inner_text()
    assert focus(page) == "close"
    assert page.evaluate("() => window.scrollY") == 300
    assert page.get_by_label("Filter features by name").input_value() == "feature"
    assert not page.locator("[data-row='column:clinic']").first.is_visible()


def test_an_update_leaves_what_has_not_changed_alone(show):
    page = show(watched())
    page.evaluate("() => { document.querySelector('.nbm-heat').dataset.same = 'yes'; }")
    renew(page, replace(watched(), model="newer"))
    assert page.locator(".nbm-heat[data-same]").count() == 1


def test_a_chosen_window_stays_while_the_history_goes_on(show):
    page = show(watched())
    page.locator("[data-key=axis]").click(position={"x": 400, "y": 10})
    page.wait_for_function("() => model.sent.length === 1")
    chosen = selection(page)
    told = page.locator(".nbm-choice").inner_text()
    later = watched()
    renew(page, replace(later, history=later.history[2:]))
    assert selection(page) == chosen
    assert page.locator(".nbm-choice").inner_text() == told.replace("of 48", "of 46")
    renew(page, replace(later, history=later.history[-5:]))
    assert "no longer among these times" in page.locator(".nbm-choice").inner_text()
    page.get_by_role("button", name="All", exact=True).click()
    page.wait_for_function("() => model.sent.length === 2")
    assert selection(page) is None


def test_refresh_asks_the_kernel_for_the_news(show):
    page = show(watched(), hooks={"refreshable": True, "answered": 0})
    button = page.get_by_role("button", name="Refresh")
    button.click()
    assert page.evaluate("() => model.traits.asked") == 1
    assert button.get_attribute("aria-busy") == "true"
    renew(page, watched(), refreshable=True, answered=1)
    assert button.get_attribute("aria-busy") == "false"
    assert focus(page) is None or button.evaluate("one => one === document.activeElement")
    renew(page, watched(), refreshable=False)
    assert not button.is_visible()


def test_both_views_of_the_features_show_the_one_that_is_open(show):
    page = show(watched())
    page.locator("[data-key='column:clinic']").click()
    page.get_by_role("button", name="Distributions").click()
    assert page.locator(".nbm-tile:visible").count() == 33
    assert page.locator(".nbm-tile[aria-expanded=true] .nbm-name").inner_text() == "clinic"
    assert page.locator(".nbm-detail").count() == 1
    page.get_by_role("button", name="Over time").click()
    assert page.locator(".nbm-feature[aria-expanded=true]").inner_text() == "clinic"


@pytest.mark.parametrize("width", [400, 1100])
@pytest.mark.parametrize("make", [watched, hostile])
def test_nothing_is_wider_than_the_cell(show, width, make):
    page = show(make(), width)
    page.locator(".nbm-feature").nth(1).click()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    page.close()


def contrast(page, text, ground):
    """Return the contrast of two colours, by WCAG 2."""
    return page.evaluate(
        """([text, ground]) => {
          const light = (query, kind) => {
            const [r, g, b] = getComputedStyle(document.querySelector(query))[kind]
              .match(/[\\d.]+/g).map((part) => Number(part) / 255)
              .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const both = [light(text[0], text[1]), light(ground, 'backgroundColor')];
          return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        }""",
        [text, ground],
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in_light_and_dark(show, scheme):
    page = show(watched())
    page.emulate_media(color_scheme=scheme)
    ground = page.evaluate(
        "() => getComputedStyle(document.querySelector('.nbm-drift')).backgroundColor"
    )
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}[scheme]
    for text in (
        (".nbm-facts", "color"),
        (".nbm-feature", "color"),
        (".nbm-axis text", "fill"),
        (".nbm-plot text", "fill"),
        (".nbm-badge", "color"),
        (".nbm-told", "color"),
    ):
        assert contrast(page, text, ".nbm-drift") > 4.5, text
    assert contrast(page, (".nbm-why", "color"), ".nbm-why") > 7


def test_the_theme_of_jupyterlab_goes_before_the_reader_s_preference(show):
    page = show(watched())
    page.emulate_media(color_scheme="dark")
    scheme = "() => getComputedStyle(document.querySelector('.nbm-drift')).colorScheme"
    page.evaluate("() => { document.body.dataset.jpThemeLight = 'true'; }")
    assert page.evaluate(scheme) == "light"
    page.evaluate("() => { document.body.dataset.jpThemeLight = 'false'; }")
    assert page.evaluate(scheme) == "dark"
    page.evaluate("() => { delete document.body.dataset.jpThemeLight; }")
    page.evaluate("() => { document.body.dataset.vscodeThemeKind = 'vscode-light'; }")
    assert page.evaluate(scheme) == "light"


def test_a_history_that_comes_later_is_shown_at_once(show):
    page = show(sample())
    renew(page, watched())
    assert page.locator(".nbm-heat:visible").count() == 30
    assert page.locator(".nbm-tile:visible").count() == 0


def test_a_chart_tells_each_slice_to_the_keyboard(show):
    page = show(watched())
    page.locator("[data-key='performance:accuracy']").focus()
    page.keyboard.press("Home")
    told = page.locator(".nbm-tip").inner_text()
    assert told.startswith("accuracy: realised 0.9")
    assert "estimated" in told
    assert "09:30 to 10:00 UTC" in told
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert "log_loss: no value" in page.locator(".nbm-tip").inner_text()
