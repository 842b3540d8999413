"""Progress on standard error: in place on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from nbmlops import screen
from nbmlops.records import RunRecord, Status, StepRecord, replace, utc_now
from sources import notebook_text


def a_run(**changes):
    now = utc_now()
    steps = (
        StepRecord(
            name="prepare",
            notebook="p.ipynb",
            notebook_blob="b",
            status=Status.SUCCEEDED,
            cached=True,
            cells_total=3,
        ),
        StepRecord(
            name="train\x1b[2J",
            notebook="t.ipynb",
            notebook_blob="b",
            status=Status.RUNNING,
            cells_done=2,
            cells_total=8,
            started_at=now,
        ),
    )
    fields = {
        "run_id": "train-1",
        "pipeline": "train",
        "status": Status.RUNNING,
        "commit": "c" * 40,
        "base_commit": None,
        "dirty": False,
        "parameters": {},
        "metrics": {"accuracy": 0.9},
        "environment_id": "e",
        "launcher": "local",
        "created_at": now,
        "started_at": now,
        "steps": steps,
        "snapshot": "s",
        "author": "a",
    }
    return RunRecord(**{**fields, **changes})


def drawn(run, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen._run_drawn(run))
    return console.file.getvalue()


def test_a_terminal_sees_a_bar_the_cells_and_the_time_of_each_step():
    told = drawn(a_run())
    assert "● train-1" in told
    assert "commit cccccccc" in told
    assert re.search(r"↺ prepare +━+ cached", told)
    assert re.search(r"● train.* ━+ +2 of 8 cells +0\.\d s", told)
    assert "accuracy=0.9" in told
    assert "\x1b[2J" not in told


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    long = replace(a_run().steps[1], name="a-very-long-name-of-a-step" * 3)
    for line in drawn(a_run(steps=(long,), run_id="r" * 90), width).splitlines():
        assert len(line) <= width


def test_elsewhere_there_is_a_line_for_each_change_of_a_step(capsys):
    shown = screen.Screen(quiet=False)
    shown.say("making the environment")
    shown.say("making the environment")
    for _ in range(5):
        shown.watch(a_run())
    shown.watch(a_run(metrics={"accuracy": 0.95}))
    shown.clear()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "making the environment",
        "train-1: pipeline train at commit cccccccc",
        "↺ prepare cached",
        "● train\N{REPLACEMENT CHARACTER}[2J running",
    ]


def test_with_json_a_pipe_stays_empty(capsys):
    shown = screen.Screen(quiet=True)
    shown.say("making the environment")
    shown.watch(a_run())
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_on_a_terminal_progress_is_drawn_in_place_and_the_result_alone_goes_out(folder):
    (folder / "train.ipynb").write_text(
        notebook_text("import nbmlops as m; m.log_metrics(accuracy=0.5)", "print('a')")
    )
    leader, follower = pty.openpty()
    told = bytearray()

    def read():
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:
                return
            if not part:
                return
            told.extend(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    done = subprocess.run(
        [sys.executable, "-m", "nbmlops", "train", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=follower,
        check=False,
        timeout=120,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(follower)
    reader.join(10)
    os.close(leader)
    run = json.loads(done.stdout)
    assert (done.returncode, run["status"]) == (0, "succeeded")
    text = told.decode(errors="replace")
    assert "of 2 cells" in text
    assert "\x1b[1A" in text  # drawn over what stood there
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[2K" in text[-60:]  # and taken away
