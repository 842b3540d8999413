import json

import pytest

from nbmlops import comparisons, pipelines, runs, submission
from nbmlops.errors import InvalidNotebook, WrongUse
from sources import notebook_text


@pytest.fixture
def run(workspace):
    """A run that has ended; what it was made of is what counts here."""
    started = submission.submit(workspace, pipelines.find(workspace, "train"), {})
    return runs.cancel(workspace, started.run_id)


def edited(folder, change):
    path = folder / "train.ipynb"
    document = json.loads(path.read_text())
    change(document["cells"])
    path.write_text(json.dumps(document))


def test_one_run_alone_is_compared_with_the_saved_notebooks_only(workspace, run):
    with pytest.raises(WrongUse) as caught:
        comparisons.compare(workspace, [run.run_id])
    assert "--now" in caught.value.hint
    found = comparisons.compare(workspace, [run.run_id], now=True)
    assert [one.run_id for one in found.runs] == [run.run_id]
    assert found.notebooks == ()


def test_what_has_changed_in_a_saved_notebook_since_a_run_is_told_by_cell(workspace, folder, run):
    def change(cells):
        cells[1]["source"] = "import nbmlops as mlops\nmlops.log_metrics(accuracy=1)"
        cells[2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello"]}]
        cells[2]["execution_count"] = 7
        del cells[0]

    edited(folder, change)
    [changed] = comparisons.compare(workspace, [run.run_id], now=True).notebooks
    assert (changed.notebook, changed.run_id) == ("train.ipynb", comparisons.NOW)
    # An output is no change of the code.
    assert [(one.kind, one.cell) for one in changed.changes] == [("changed", 1), ("removed", 1)]
    lines = changed.changes[0].diff.splitlines()
    assert "-mlops.log_metrics(accuracy=depth / 10)" in lines
    assert "+mlops.log_metrics(accuracy=1)" in lines


def test_a_notebook_that_is_gone_has_lost_all_its_cells(workspace, folder, run):
    (folder / "train.ipynb").unlink()
    [changed] = comparisons.compare(workspace, [run.run_id], now=True).notebooks
    assert [one.kind for one in changed.changes] == ["removed"] * 3


def test_a_notebook_that_cannot_be_read_is_not_taken_for_an_empty_one(workspace, folder, run):
    (folder / "train.ipynb").write_text(notebook_text("a = 1")[:-10])
    with pytest.raises(InvalidNotebook):
        comparisons.compare(workspace, [run.run_id], now=True)
