"""A run's card: its document, and the text and HTML made from it."""

from __future__ import annotations

import json

import pytest
from run_samples import BEGAN, LOG, NOW, failed, hostile_run, run, step, succeeded
from samples import PAYLOADS

from nbmlops.records import Status
from nbmlops.widgets import progress
from nbmlops.widgets.run_document import LOG_LINES, run_document
from nbmlops.widgets.run_report import html, text


def shown(record, **more):
    return run_document(record, LOG, now=NOW, **more)


def test_a_step_from_the_cache_is_shown_as_such_with_the_run_that_made_it():
    cached = shown(run())["steps"][0]
    assert (cached["state"], cached["word"], cached["share"]) == ("cached", "cached", 1.0)
    assert cached["told"] == "from train-20261119-101500-a1b2"
    assert "↺ prepare  cached     from train-20261119-101500-a1b2" in text(shown(run()))


def test_the_running_step_tells_which_cell_is_under_way_and_since_when():
    under_way = shown(run())["steps"][1]
    assert under_way["told"] == "cell 3 of 8"
    assert under_way["share"] == 0.25
    assert under_way["since"] == "2026-11-20T09:30:10+00:00"
    assert under_way["took"] == "1 min 05 s"


def test_the_commit_is_told_with_whether_it_comes_from_uncommitted_changes():
    assert "commit 1a2b3c4d (from uncommitted changes)" in shown(run())["facts"]
    assert "commit 1a2b3c4d" in shown(run(dirty=False))["facts"]


def test_only_the_last_lines_of_the_log_are_kept_without_escapes_and_endless_lines():
    lines = [*LOG, "\x1b[31mred\x1b[0m", "x" * 5000]
    kept = run_document(run(), lines, now=NOW)["log"]
    assert len(kept) == LOG_LINES
    assert kept[-2] == "red"
    assert len(kept[-1]) == 400


def test_a_failure_is_told_with_its_notebook_and_cell_and_what_helps():
    cause = shown(failed())["cause"]
    assert cause["place"] == "notebooks/train.ipynb, cell 3"
    assert cause["message"] == "ZeroDivisionError: division by zero"
    told = text(shown(failed()))
    assert (
        "cell-failed: ZeroDivisionError: division by zero (notebooks/train.ipynb, cell 3)" in told
    )
    assert "See the executed notebook" in told


def test_a_model_version_comes_with_what_to_type_next():
    assert shown(succeeded())["commands"] == [
        {"what": "Serve it", "type": "%mlops deploy cancer:3"}
    ]
    assert "Serve it: %mlops deploy cancer:3" in text(shown(succeeded()))
    assert "nbmlops deploy cancer:3" in text(shown(succeeded(), prompt="nbmlops"))


def test_who_stopped_watching_is_told_that_the_run_goes_on_and_both_commands():
    document = shown(run(), detached=True)
    assert not document["ticking"]
    assert "the run goes on" in document["note"]
    told = text(document)
    assert "%mlops logs train-20261120-093000-k3q9 --follow" in told
    assert "%mlops cancel train-20261120-093000-k3q9" in told
    assert shown(succeeded(), detached=True)["note"] is None


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_mark_and_can_be_shown_before_anything_is_known(status):
    bare = run(status=status, steps=(), metrics={}, parameters={}, started_at=None)
    document = run_document(bare, now=NOW)
    assert document["mark"]
    assert json.loads(json.dumps(document)) == document
    assert status.value in text(document)
    assert status.value in html(document)


def test_a_step_without_cells_is_no_division_by_zero():
    empty = run(steps=(step("empty", Status.PENDING, cells_total=0),))
    assert shown(empty)["steps"][0]["share"] == 0.0


def test_every_text_of_the_html_is_escaped():
    markup = html(shown(hostile_run()))
    for payload in PAYLOADS:
        assert f">{payload}" not in markup or "<" not in payload
    assert "<script" not in markup
    assert "<img" not in markup
    assert "&lt;script&gt;window.hacked = 1&lt;/script&gt;" in markup
    assert not [c for c in text(shown(hostile_run())) if c < " " and c != "\n"]


# --- lines, where nothing can be rewritten ------------------------------------------------------


def test_progress_is_a_line_for_each_step_and_none_for_each_cell():
    first = run(steps=(step("prepare", Status.RUNNING), step("train", Status.PENDING)))
    more = run(steps=(step("prepare", Status.RUNNING, cells_done=3), step("train", Status.PENDING)))
    over = run(
        steps=(
            step("prepare", Status.SUCCEEDED, cells_done=5, started_at=BEGAN, finished_at=NOW),
            step("train", Status.RUNNING),
        )
    )
    assert progress.run_changes(None, first) == [
        f"{first.run_id}: pipeline train at commit 1a2b3c4d (from uncommitted changes)",
        "● prepare running",
    ]
    assert progress.run_changes(first, more) == []
    assert progress.run_changes(more, over) == [
        "✓ prepare succeeded, 5 of 5 cells, 1 min 15 s",
        "● train running",
    ]
    assert progress.run_changes(None, run())[1] == "↺ prepare cached"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, ""),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_lengths_of_time_are_told_in_two_units_at_most(seconds, told):
    assert progress.length(seconds) == told
