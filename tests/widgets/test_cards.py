"""The place where a card stands: live while the cell runs, lasting when it has ended."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import nbformat
import pytest
from nbclient import NotebookClient
from run_samples import LOG, NOW, run, succeeded, sweep

from nbmlops.records import dump
from nbmlops.widgets import cards
from nbmlops.widgets.cards import Place, RunCard, SweepCard

LIVE = "application/vnd.jupyter.widget-view+json"


class Display:
    """Stands for IPython's display: keeps what each output has been."""

    def __init__(self):
        self.shown = []

    def __call__(self, bundle, *, raw, display_id):
        assert raw
        assert display_id
        self.shown.append(bundle)
        return self

    def update(self, bundle, *, raw):
        assert raw
        self.shown.append(bundle)


@pytest.fixture
def output(monkeypatch):
    made = Display()
    monkeypatch.setattr("IPython.display.display", made)
    return made


@pytest.fixture
def place():
    return Place(in_kernel=True)


def tail(lines=LOG):
    return lambda _, count: list(lines)[-count:]


def test_a_line_of_progress_gives_way_to_the_live_card_and_that_to_one_that_lasts(output, place):
    card = RunCard(place, tail(), now=lambda: NOW)
    place.say("making the environment")
    card.watch(run())
    card.watch(succeeded())
    first, live, last = output.shown
    assert first == {"text/plain": "making the environment"}
    assert set(live) == {"text/plain", "text/html", LIVE}
    assert set(last) == {"text/plain", "text/html"}
    assert "✓ succeeded" in last["text/plain"]
    assert "epoch 29/40" in last["text/html"]


def test_while_the_cell_runs_only_the_widget_s_document_changes(output, place):
    card = RunCard(place, tail(), now=lambda: NOW)
    card.watch(run())
    card.watch(run(metrics={"accuracy": 0.5}))
    assert len(output.shown) == 1
    assert place._widget.document["metrics"] == [{"name": "accuracy", "value": "0.5"}]


def test_the_log_is_read_at_most_twice_a_second_and_a_tenth_of_the_time(output, place):
    seconds = [0.0]
    asked = []

    def slow(_, count):
        asked.append(seconds[0])
        seconds[0] += 0.2
        return [f"line {len(asked)}"]

    card = RunCard(place, slow, now=lambda: NOW, clock=lambda: seconds[0])
    for _ in range(60):
        card.watch(run())
        seconds[0] += 0.3
    apart = [later - earlier for earlier, later in pairwise(asked)]
    assert len(asked) > 3
    assert min(apart) >= 2.0  # ten times as long as it takes
    assert place._widget.document["log"] == [f"line {len(asked)}"]


def test_a_look_at_which_nothing_has_changed_sends_nothing(output, place, monkeypatch):
    sent = []
    monkeypatch.setattr(cards, "run_document", lambda *a, **k: sent.append(1) or {})
    monkeypatch.setattr(cards, "run_bundle", lambda document: {})
    card = RunCard(place, tail(), now=lambda: NOW)
    for _ in range(20):
        card.watch(run())
    assert len(sent) == 1


def test_who_leaves_finds_the_card_at_rest_with_both_commands(output, place):
    card = RunCard(place, tail(), now=lambda: NOW)
    card.watch(run())
    card.leave()
    last = output.shown[-1]
    assert set(last) == {"text/plain", "text/html"}
    assert "the run goes on" in last["text/plain"]
    assert "%mlops cancel train-20261120-093000-k3q9" in last["text/html"]


def test_without_anywidget_the_card_is_rewritten_as_html(output, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "nbmlops.widgets.run_widget", raising=False)
    card = RunCard(place, tail(), now=lambda: NOW)
    card.watch(run())
    card.watch(run(metrics={"accuracy": 0.5}))
    assert [set(bundle) for bundle in output.shown] == [{"text/plain", "text/html"}] * 2
    assert "0.5" in output.shown[-1]["text/html"]


def test_outside_of_a_kernel_steps_are_printed_once_and_the_whole_at_the_end(capsys):
    place = Place(in_kernel=False)
    card = RunCard(place, tail(), now=lambda: NOW)
    place.say("making the environment")
    place.say("making the environment")
    for _ in range(10):
        card.watch(run())
    card.watch(succeeded())
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        "making the environment",
        "train-20261120-093000-k3q9: pipeline train at commit 1a2b3c4d (from uncommitted changes)",
        "↺ prepare cached",
        "● train running",
    ]
    assert len([line for line in printed if line == "● train running"]) == 1
    assert "  Serve it: %mlops deploy cancer:3" in printed
    assert len(printed) < 15


def test_a_sweep_that_has_ended_stays_live_with_text_html_and_a_picture_beside(output, place):
    card = SweepCard(place, now=lambda: NOW)
    card.watch(sweep())
    card.watch(sweep())
    card.show(sweep(20, 0, 20))
    assert len(output.shown) == 2
    last = output.shown[-1]
    assert set(last) == {"text/plain", "text/html", "image/png", LIVE}
    assert last[LIVE] == output.shown[0][LIVE]
    assert place._widget.document["state"] == "succeeded"
    assert "20 of 20 trials done" in last["text/plain"]


def test_a_sweep_outside_of_a_kernel_is_a_line_for_each_trial_that_ends(capsys):
    card = SweepCard(Place(in_kernel=False), now=lambda: NOW)
    card.watch(sweep(1))
    card.watch(sweep(1))
    card.watch(sweep(2))
    card.show(sweep(2))
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if "trials done, 2 running, best" in line]) == 2
    assert sum("  best: accuracy=" in line for line in printed) == 1


def test_an_executed_notebook_keeps_the_last_state_and_no_view_that_needs_a_kernel(tmp_path):
    (tmp_path / "running.json").write_bytes(dump(run()))
    (tmp_path / "over.json").write_bytes(dump(succeeded()))
    source = (
        "from pathlib import Path\n"
        "from nbmlops.records import RunRecord, load\n"
        "from nbmlops.widgets.cards import Place, RunCard\n"
        "card = RunCard(Place(), lambda *_: ['a line'])\n"
        "for name in ('running', 'over'):\n"
        "    card.watch(load(Path(f'{name}.json').read_bytes(), RunRecord))\n"
    )
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(made, resources={"metadata": {"path": str(tmp_path)}}).execute()
    [output] = made.cells[0].outputs
    assert set(output.data) == {"text/plain", "text/html"}
    assert output.data["text/plain"].startswith("✓ succeeded")
    assert len(json.dumps(made)) < 100_000
