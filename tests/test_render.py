"""Documents as text and HTML for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nbmlops import render
from nbmlops.records import (
    CellChange,
    Comparison,
    Difference,
    NotebookDifference,
    RunRecord,
    Status,
    StepRecord,
)

BEGAN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
HOSTILE = "<script>window.hacked = 1</script>\x1b[2J"


def a_run(run_id, **changes):
    fields = {
        "run_id": run_id,
        "pipeline": "train",
        "status": Status.SUCCEEDED,
        "commit": "c" * 40,
        "base_commit": None,
        "dirty": False,
        "parameters": {},
        "environment_id": "py311-ab",
        "launcher": "local",
        "created_at": BEGAN,
        "started_at": BEGAN,
        "finished_at": BEGAN + timedelta(seconds=5),
        "snapshot": "s",
        "author": "Ada",
    }
    return RunRecord(**{**fields, **changes})


def comparison(**changes):
    fields = {
        "runs": (a_run("train-1"), a_run("train-2", commit="d" * 40)),
        "parameters": (
            Difference(name="depth", values=(3, 6), differs=True),
            Difference(name="rate", values=(0.1, 0.1), differs=False),
        ),
        "metrics": (Difference(name="accuracy", values=(0.91, None), differs=True),),
        "data": (Difference(name="train.csv", values=("a" * 64, "b" * 64), differs=True),),
        "packages": (
            Difference(name="numpy", values=("2.3.1", "2.4.0"), differs=True),
            Difference(name="pandas", values=("3.1", "3.1"), differs=False),
        ),
        "notebooks": (
            NotebookDifference(
                step="train",
                notebook="notebooks/train.ipynb",
                run_id="train-2",
                changes=(
                    CellChange(
                        kind="changed",
                        cell=4,
                        cell_id="x",
                        diff="@@ -1,2 +1,2 @@\n model = Forest(\n-    3)\n+    6)",
                    ),
                ),
            ),
        ),
    }
    return Comparison(**{**fields, **changes})


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_runs_stand_side_by_side_and_what_differs_is_marked():
    text = render.text(render.view(comparison()), 120)
    assert ["≠", "depth", "3", "6"] in rows(text)
    assert ["rate", "0.1", "0.1"] in rows(text)
    assert ["≠", "accuracy", "0.91", "-"] in rows(text)
    assert ["≠", "train.csv", "a" * 12, "b" * 12] in rows(text)
    assert ["≠", "commit", "cccccccc", "dddddddd"] in rows(text)
    assert ["environment", "py311-ab", "py311-ab"] in rows(text)


def test_only_packages_that_differ_are_listed_and_the_others_counted():
    text = render.text(render.view(comparison()), 120)
    assert ["≠", "numpy", "2.3.1", "2.4.0"] in rows(text)
    assert "pandas" not in text
    assert "1 more packages are the same." in text
    same = comparison(packages=comparison().packages[1:], notebooks=())
    text = render.text(render.view(same), 120)
    assert "All 1 packages are the same." in text
    assert "No cell of a notebook differs." in text


def test_the_cells_of_notebooks_are_told_as_unified_diffs_in_colour():
    blocks = render.view(comparison())
    text = render.text(blocks, 120)
    assert "notebooks/train.ipynb: from train-1 to train-2" in text
    assert "cell 4 changed\n@@ -1,2 +1,2 @@\n model = Forest(\n-    3)\n+    6)" in text
    coloured = render.text(blocks, 120, colour=True)
    assert "\x1b[31m-    3)" in coloured
    assert "\x1b[32m+    6)" in coloured
    html = render.html(blocks)
    assert ">-    3)</del>" in html
    assert ">+    6)</ins>" in html


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_runs_can_be_compared(count):
    runs = tuple(a_run(f"train-{number}") for number in range(count))
    differences = (Difference(name="depth", values=tuple(range(count)), differs=count > 1),)
    found = comparison(
        runs=runs, parameters=differences, metrics=(), data=(), packages=(), notebooks=()
    )
    text = render.text(render.view(found), 120)
    assert all(run.run_id in text for run in runs)


def test_hostile_names_values_and_cells_stay_text():
    found = comparison(
        parameters=(Difference(name=HOSTILE, values=(HOSTILE, None), differs=True),),
        notebooks=(
            NotebookDifference(
                step=HOSTILE,
                notebook=HOSTILE,
                run_id=HOSTILE,
                changes=(CellChange(kind="added", cell=1, cell_id=HOSTILE, diff=f"+{HOSTILE}"),),
            ),
        ),
    )
    blocks = render.view(found)
    assert "<script" not in render.html(blocks)
    assert "\x1b" not in render.text(blocks, 200)


def test_a_step_from_the_cache_says_so_and_from_where():
    cached = StepRecord(
        name="data",
        notebook="data.ipynb",
        notebook_blob="b",
        status=Status.SUCCEEDED,
        cached=True,
        cached_from="train-0",
    )
    shown = render.text(render.view(a_run("train-1", steps=(cached,))))
    assert "cached" in shown
    assert "from train-0" in shown
