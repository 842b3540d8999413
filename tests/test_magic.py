"""What a cell with ``%mlops`` shows: cards of runs and sweeps, and what stops the notebook."""

from __future__ import annotations

import pytest

from nbmlops import magic
from sources import notebook_text


@pytest.mark.slow
def test_without_a_kernel_a_run_is_a_few_lines_and_not_a_flood(shell, capsys):
    result = shell.run_cell("%mlops train")
    assert result.success
    printed = capsys.readouterr().out.splitlines()
    run = shell.user_ns["_mlops"]
    assert run.status == "succeeded"
    assert f"{run.run_id}: pipeline train at commit {run.commit[:8]}" in printed
    assert printed.count("● train running") <= 1
    assert sum(line.startswith("✓ succeeded") for line in printed) == 1
    assert len(printed) < 20


@pytest.mark.slow
def test_a_run_that_is_only_looked_at_is_shown_as_a_card(shell, capsys):
    shell.run_cell("%mlops train")
    run_id = shell.user_ns["_mlops"].run_id
    capsys.readouterr()
    shell.run_cell(f"%mlops run {run_id}")
    printed = capsys.readouterr().out
    assert printed.startswith(f"✓ succeeded  {run_id}")
    assert "3 of 3 cells" in printed


@pytest.mark.slow
def test_an_interrupt_stops_watching_in_one_line_and_the_run_goes_on(
    shell, folder, capsys, monkeypatch
):
    from nbmlops import runs

    (folder / "train.ipynb").write_text(notebook_text("import time; time.sleep(60)"))

    def interrupted(workspace, run_id, **_):
        yield runs.get(workspace, run_id)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "watch", interrupted)
    result = shell.run_cell("%mlops train")
    assert isinstance(result.error_in_exec, magic.Stopped)
    shown = capsys.readouterr()
    said = shown.out + shown.err
    assert "the run goes on" in said
    assert "%mlops logs train-" in said
    assert "%mlops cancel train-" in said
    assert "Traceback" not in said
    shell.run_cell("%mlops runs --json")
    [run] = shell.user_ns["_mlops"].items
    assert run.status in ("pending", "running")
    shell.run_cell(f"%mlops cancel {run.run_id}")
    assert shell.user_ns["_mlops"].status == "cancelled"


@pytest.mark.slow
def test_a_sweep_is_a_line_for_each_trial_and_a_table_at_the_end(shell, capsys):
    result = shell.run_cell("%mlops sweep train -p depth=2,4 --metric accuracy")
    assert result.success, capsys.readouterr()
    printed = capsys.readouterr().out
    record = shell.user_ns["_mlops"]
    assert (record.status, len(record.trials), record.best) == ("succeeded", 2, 2)
    assert "best: accuracy=0.4 by trial 2: depth=4" in printed
    assert f"run it again: %mlops rerun {record.trials[1].run_id}" in printed
    assert "2 of 2 trials done" in printed


def test_completion_knows_the_notebook_one_stands_in(shell, folder, monkeypatch):
    (folder / "other.ipynb").write_text(notebook_text(("parameters", "max_depth: int = 3")))
    monkeypatch.setenv("JPY_SESSION_NAME", str(folder / "other.ipynb"))

    def completed(line):
        with pytest.warns(Warning, match="provisional"):
            return [c.text for c in shell.Completer.completions(line, len(line))]

    assert completed("%mlops train -p max_d") == ["max_depth="]
    assert completed("%mlops train oth") == ["other.ipynb"]
    assert completed("%%mlops dep") == ["deploy", "deployments"]
