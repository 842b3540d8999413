"""The live modules of the run card and the sweep widget in Chromium."""

from __future__ import annotations

import pytest
from run_samples import LOG, NOW, failed, hostile_run, hostile_sweep, run, succeeded, sweep
from samples import PAYLOADS
from wires import wired

from nbmlops.widgets import run_report, sweep_report
from nbmlops.widgets.run_document import run_document
from nbmlops.widgets.sweep_document import sweep_document
from nbmlops.widgets.wording import clean

pytestmark = pytest.mark.browser


def of_run(record, log=LOG, **more):
    return run_document(record, log, now=NOW, **more)


def of_sweep(record, **more):
    return sweep_document(record, now=NOW, **more)


def renew(page, document):
    """Give the view another document, as the kernel does."""
    page.evaluate("(next) => model.set(next)", wired(document))


# --- the run card -------------------------------------------------------------------------------


def test_each_step_has_its_name_bar_cells_and_state(mount):
    page = mount("run", of_run(run()))
    rows = page.locator(".nbm-step")
    assert rows.evaluate_all("rows => rows.map(row => row.dataset.state)") == [
        "cached",
        "running",
        "pending",
    ]
    bar = page.get_by_role("progressbar", name="cells of train")
    assert (bar.get_attribute("aria-valuenow"), bar.get_attribute("aria-valuemax")) == ("2", "8")
    assert "running, cell 3 of 8" in rows.nth(1).inner_text()
    assert "cached, from train-20261119-101500-a1b2" in rows.nth(0).inner_text()
    assert page.get_by_label("metrics").inner_text().split() == [
        "accuracy",
        "0.9474",
        "loss",
        "0.12",
    ]


def test_the_time_ticks_in_the_browser_until_the_run_has_ended(mount):
    page = mount("run", of_run(run()))
    clock = page.locator(".nbm-title .nbm-clock")
    assert clock.inner_text() == "1 min 15 s"
    page.wait_for_function(
        "() => document.querySelector('.nbm-title .nbm-clock').textContent === '1 min 17 s'",
        timeout=15_000,
    )
    renew(page, of_run(succeeded()))
    assert clock.inner_text() == "1 min 05 s"
    assert page.locator("[data-since]").count() == 0


def test_a_fold_stays_open_and_keeps_the_focus_when_the_card_is_renewed(mount):
    page = mount("run", of_run(run()))
    summary = page.locator("summary", has_text="Log")
    assert not page.locator(".nbm-log").is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    renew(page, of_run(run(), [*LOG, "one more line"]))
    assert page.locator(".nbm-log").is_visible()
    assert "one more line" in page.locator(".nbm-log").inner_text()
    assert summary.evaluate("made => made === document.activeElement")


def test_a_failure_is_an_alert_with_notebook_and_cell(mount):
    page = mount("run", of_run(failed()))
    told = page.get_by_role("alert").inner_text()
    assert "notebooks/train.ipynb, cell 3" in told
    assert "ZeroDivisionError: division by zero" in told


def test_the_bars_of_all_steps_are_aligned_and_nothing_leaves_a_narrow_card(mount):
    page = mount("run", of_run(run()))
    lefts = page.locator(".nbm-bar").evaluate_all("b => b.map(x => x.getBoundingClientRect().x)")
    assert len(set(lefts)) == 1
    for document in (of_run(run()), of_run(failed()), of_run(hostile_run())):
        page = mount("run", document, 500)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 500


def test_a_view_that_is_gone_listens_and_ticks_no_more(mount):
    page = mount("run", of_run(run()))
    page.evaluate("() => unmount()")
    assert page.evaluate("() => model.count()") == 0


# --- the sweep widget ---------------------------------------------------------------------------


def rows(page):
    return page.locator("tbody tr:visible").evaluate_all(
        "rows => rows.map(row => Number(row.dataset.trial))"
    )


def test_trials_stand_best_first_and_a_head_sorts_them_by_its_column(mount):
    page = mount("sweep", of_sweep(sweep()))
    assert rows(page)[:3] == [6, 12, 11]
    assert rows(page)[-3:] == [5, 13, 14]
    page.get_by_role("button", name="trial").click()
    assert rows(page)[:3] == [1, 2, 3]
    head = page.locator("th", has_text="trial")
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert rows(page)[:3] == [14, 13, 12]
    assert head.get_attribute("aria-sort") == "descending"


def test_each_valued_trial_is_a_line_and_each_parameter_and_the_metric_an_axis(mount):
    page = mount("sweep", of_sweep(sweep()))
    assert page.locator(".nbm-line").count() == 11
    assert page.locator(".nbm-parallel .nbm-name").all_text_contents() == [
        "max_depthmax_depth",  # with the title in full
        "learning_ratelearning_rate",
        "solversolver",
        "n_estimatorsn_estimators",
        "accuracyaccuracy",
    ]
    assert page.locator(".nbm-line[data-tone=best]").count() == 1
    assert page.locator(".nbm-history circle").count() == 11


def test_the_row_in_focus_marks_its_line_and_the_line_under_the_pointer_its_row(mount):
    page = mount("sweep", of_sweep(sweep()))
    page.locator("tr[data-trial='7']").focus()
    assert page.locator(".nbm-line.nbm-over").get_attribute("data-trial") == "7"
    assert page.locator(".nbm-history .nbm-over").get_attribute("data-trial") == "7"
    assert "trial 7: 0.76, max_depth=4" in page.get_by_role("status").last.inner_text()
    page.keyboard.press("ArrowUp")
    assert page.locator(".nbm-line.nbm-over").get_attribute("data-trial") == "1"
    page.locator(".nbm-reach[data-trial='9']").dispatch_event("pointerover", {"bubbles": True})
    assert page.locator("tr.nbm-over").get_attribute("data-trial") == "9"
    page.locator(".nbm-reach[data-trial='9']").dispatch_event("click", {"bubbles": True})
    assert page.evaluate("() => document.activeElement.dataset.trial") == "9"


def test_a_brush_over_an_axis_filters_the_table_until_it_is_cleared(mount):
    page = mount("sweep", of_sweep(sweep()))
    box = page.locator("[data-axis='4']").bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.33, steps=4)
    page.mouse.up()
    assert rows(page) == [6, 12, 11]
    assert page.locator(".nbm-line.nbm-out").count() == 8
    page.mouse.move(0, 0)
    page.get_by_text("3 of 14 trials shown").wait_for()
    renew(page, of_sweep(sweep(13, 1)))  # the brush outlives the next document
    assert page.locator(".nbm-brush").count() == 1
    assert len(rows(page)) < 14
    page.get_by_role("button", name="Clear filters").click()
    assert len(rows(page)) == 14


def test_an_axis_is_brushed_with_the_keyboard_alone(mount):
    page = mount("sweep", of_sweep(sweep()))
    page.locator("[data-axis='4']").focus()
    page.keyboard.press("ArrowUp")  # the upper half
    upper = rows(page)
    assert upper
    assert set(upper) < set(range(1, 15))
    page.keyboard.press("Shift+ArrowDown")
    assert len(rows(page)) <= len(upper)
    page.keyboard.press("Escape")
    assert len(rows(page)) == 14


def test_sorting_focus_and_scroll_outlive_the_next_document(mount):
    page = mount("sweep", of_sweep(sweep(39, 1, 40)))
    page.get_by_role("button", name="trial").click()
    page.mouse.move(0, 0)
    page.locator("tr[data-trial='30']").focus()
    before = page.locator(".nbm-trials").evaluate("box => box.scrollTop")
    assert before > 0
    renew(page, of_sweep(sweep(40, 0, 40)))
    assert rows(page)[:3] == [1, 2, 3]
    assert page.evaluate("() => document.activeElement.dataset.trial") == "30"
    assert page.locator(".nbm-trials").evaluate("box => box.scrollTop") == before
    assert page.locator(".nbm-line.nbm-over").get_attribute("data-trial") == "30"


def test_a_narrow_output_scrolls_the_plot_and_the_table_inside_the_card(mount):
    from run_samples import wide_space

    page = mount("sweep", of_sweep(sweep(40, 0, 40, wide_space(8))), 500)
    page.locator(".nbm-line").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 500
    assert page.locator(".nbm-plot").first.evaluate("box => box.scrollWidth > box.clientWidth")


# --- hostile text -------------------------------------------------------------------------------

FORBIDDEN = {"script", "img", "iframe", "style", "a", "object", "embed", "foreignobject"}


def elements(page):
    return set(
        page.evaluate("() => [...document.body.querySelectorAll('*')].map(made => made.localName)")
    )


def handlers(page):
    return page.evaluate(
        "() => [...document.body.querySelectorAll('*')].flatMap(made =>"
        " made.getAttributeNames()).filter(name => name.startsWith('on'))"
    )


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_hostile_text_stays_text_in_every_field_of_the_live_view(mount, kind):
    if kind == "run":
        page = mount("run", of_run(hostile_run(), list(PAYLOADS)))
        for summary in page.locator("summary").all():
            summary.click()
        words = page.locator(".nbm-step strong").all_text_contents()
    else:
        page = mount("sweep", of_sweep(hostile_sweep()))
        for number in range(1, len(PAYLOADS) + 1):
            page.locator(f"tr[data-trial='{number}']").focus()
        words = page.locator("tbody td").all_text_contents()
    page.mouse.move(300, 300)
    assert page.evaluate("() => window.hacked === undefined")
    assert not FORBIDDEN & elements(page)
    assert handlers(page) == []
    assert PAYLOADS[0] in words


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_hostile_text_stays_text_in_the_static_html(blank, kind):
    page = blank()
    if kind == "run":
        markup = run_report.html(of_run(hostile_run(), list(PAYLOADS)))
    else:
        markup = sweep_report.html(of_sweep(hostile_sweep()))
    page.set_content(markup)
    assert page.evaluate("() => window.hacked === undefined")
    assert not (FORBIDDEN - {"style"}) & elements(page)
    assert handlers(page) == []
    assert clean(PAYLOADS[0]) in page.locator("body").inner_text()
