"""The live widget's side in the kernel: what it asks for, and what it then shows."""

from __future__ import annotations

from datetime import timedelta

import pytest
from samples import BEGIN, CHANGED, NOW, SLICES, sample, watched

from nbmlops.errors import NbmlopsError
from nbmlops.records import Window, replace
from nbmlops.widgets import drift, front_end
from nbmlops.widgets.drift_widget import DriftWidget

CHOSEN = {"since": "2026-11-19T21:30:00Z", "until": "2026-11-20T09:30:00Z"}


class Reports:
    """Stands for the monitor: remembers what was asked, and answers a report without a history."""

    def __init__(self):
        self.asked = []

    def between(self, since, until):
        self.asked.append((since, until))
        window = Window(since=since, until=until, rows=77)
        return replace(sample(), window=window)

    def now(self):
        self.asked.append("now")
        return replace(watched(), model="newer")


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def widget(reports):
    made = DriftWidget(watched(), on_select=reports.between, refresh=reports.now)
    yield made
    made.close()


def test_a_chosen_window_is_asked_for_and_shown_below_the_whole_history(widget, reports):
    widget.selection = CHOSEN
    assert reports.asked == [(CHANGED, NOW)]
    assert "77 rows" in " ".join(widget.document["facts"])
    assert len(widget.document["timeline"]["pieces"]) == SLICES
    assert widget.hooks["selected"] == CHOSEN


def test_all_goes_back_to_the_whole_without_asking(widget, reports):
    widget.selection = CHOSEN
    widget.selection = None
    assert len(reports.asked) == 1
    assert "77 rows" not in " ".join(widget.document["facts"])
    assert widget.hooks["selected"] is None


def test_an_update_keeps_the_chosen_window(widget, reports):
    widget.selection = CHOSEN
    later = watched()
    widget.update(replace(later, history=later.history[1:]))
    assert reports.asked == [(CHANGED, NOW)] * 2
    assert len(widget.document["timeline"]["pieces"]) == SLICES - 1
    assert widget.hooks["selected"] == CHOSEN


def test_the_news_are_asked_for_by_counting_up(widget, reports):
    widget.asked = 1
    assert reports.asked == ["now"]
    assert widget.document["title"] == "newer:3"
    assert widget.hooks["answered"] == 1


def test_without_hooks_nothing_is_asked_and_nothing_changes():
    widget = DriftWidget(watched())
    before = widget.document
    widget.selection, widget.asked = CHOSEN, 1
    assert widget.document == before
    assert not widget.hooks["selectable"]
    assert not widget.hooks["refreshable"]
    widget.close()


def test_why_there_is_no_report_is_told_beside_the_last_one():
    def fail(since, until):
        raise NbmlopsError("no calls between these times", hint="Choose more.")

    widget = DriftWidget(watched(), on_select=fail)
    before = widget.document
    widget.selection = CHOSEN
    assert widget.hooks["problem"] == "no calls between these times\nChoose more."
    assert widget.hooks["selected"] is None
    assert widget.document == before
    widget.selection = None
    assert widget.hooks["problem"] is None
    widget.close()


def test_a_fault_is_told_and_raised_too():
    def fail():
        raise RuntimeError("broken")

    widget = DriftWidget(watched(), refresh=fail)
    with pytest.raises(RuntimeError):
        widget.asked = 1
    assert widget.hooks["problem"] == "RuntimeError('broken')"
    assert widget.hooks["answered"] == 1
    widget.close()


def test_what_is_no_time_is_told(widget, reports):
    with pytest.raises(ValueError, match="isoformat"):
        widget.selection = {"since": "<b>", "until": "?"}
    assert reports.asked == []
    assert "isoformat" in widget.hooks["problem"]


def test_what_is_left_behind_is_the_last_report(widget):
    widget.update(replace(watched(), model="newer"))
    data, _ = widget._repr_mimebundle_()
    assert "newer:3" in data["text/plain"]
    assert {"text/plain", "text/html", "image/png"} < set(data)


def test_a_kernel_shows_the_widget_with_its_hooks_and_elsewhere_they_are_not_needed(
    monkeypatch, reports
):
    assert isinstance(drift.show(watched(), on_select=reports.between), drift.StaticReport)
    monkeypatch.setattr(front_end, "shows_widgets", lambda: True)
    shown = drift.show(watched(), on_select=reports.between, refresh=reports.now)
    assert shown.hooks["selectable"]
    shown.selection = {
        "since": BEGIN.isoformat(),
        "until": (BEGIN + timedelta(hours=1)).isoformat(),
    }
    assert reports.asked == [(BEGIN, BEGIN + timedelta(hours=1))]
    shown.close()
