"""From whatever one has in hand down to the cell."""

import json
import os
import tempfile

import pytest

from nbmlops import commands, endpoints, models, records, render, runs, traces
from nbmlops.commands import Context
from nbmlops.errors import UnknownCall, UnknownReference
from served import call, row
from teams import trained
from test_calllog import opened_files


def test_a_run_that_made_the_very_same_model_again_is_traced_to_its_own_commit(workspace):
    first = trained(workspace, "first")
    (workspace.root / "notes.md").write_text("another file")
    assert trained(workspace, "first", dirty=False) == first
    second = next(run for run in runs.page(workspace, limit=9)[0] if run.run_id != first.run_id)
    assert second.commit != first.commit
    found = traces.trace(workspace, f"run/{second.run_id}")
    assert found.snapshot.commit == found.run["commit"] == second.commit
    assert found.model_version["commit"] == first.commit
    assert (found.snapshot.cell, found.snapshot.cell_id) == (2, "cell-1")  # the same notebook
    assert found.complete
    assert traces.trace(workspace, f"run/{first.run_id}").snapshot.commit == first.commit
    assert traces.trace(workspace, "model/iris:1").snapshot.commit == first.commit


@pytest.mark.slow
def test_a_bare_id_or_version_is_told_by_its_form(churn):
    call_id = call(churn, row(1))["call_id"]
    deployment_id = endpoints.running(churn, "churn").deployment_id
    version = models.find(churn, "churn:1")
    for bare, kind in (
        (call_id, "call"),
        (deployment_id, "deployment"),
        (version.run_id, "run"),
        ("churn:1", "model"),
    ):
        assert traces.trace(churn, bare) == traces.trace(churn, f"{kind}/{bare}")


@pytest.mark.slow
@pytest.mark.parametrize("bare", ["nope", "", "x y", "../x", "train", "0" * 32])
def test_what_may_be_nothing_or_several_is_refused_with_the_forms(churn, bare):
    with pytest.raises(UnknownReference) as caught:
        traces.trace(churn, bare)
    assert caught.value.hint


@pytest.mark.slow
def test_a_call_that_never_was_is_unknown_in_either_form(churn):
    with pytest.raises(UnknownCall):
        traces.trace(churn, "018bcfe5680070008000000000000000-churn-x")


@pytest.mark.slow
def test_the_source_alone_is_shown_with_its_place_and_json_has_all(churn):
    context = Context(start=churn.root)
    row = commands.find("trace")
    try:
        found = row.function(context, "churn:1", source=True)
        whole = row.function(context, "churn:1")
    finally:
        context.close()
    text = render.text(render.view(found))
    assert "churn:1 was trained by train.ipynb" in text
    assert "cell 2" in text
    assert "model = make_pipeline(encoder" in text
    assert "environment" not in text
    assert json.loads(records.dump(found)) == json.loads(records.dump(whole))


@pytest.mark.slow
def test_tracing_a_call_opens_three_files_at_most(churn):
    call_id = call(churn, row(1))["call_id"]
    traces.trace(churn, call_id)
    with opened_files() as opened:
        traces.trace(churn, f"call/{call_id}")
    # Pipes to git are numbers, what it is asked stands in a file without a name; the store is
    # opened by SQLite, so it is counted here.
    nameless = {os.devnull, tempfile.gettempdir()}
    files = [name for name in opened if not name.isdecimal() and name not in nameless]
    assert len(files) + 1 <= 3, files
