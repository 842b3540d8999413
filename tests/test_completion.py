"""What Tab offers: the table's words, and the project's own names."""

from __future__ import annotations

import pytest

import registered
from nbmlops import commands, completion, models, parser, runs, workspace
from nbmlops.commands import Context
from nbmlops.records import RunRecord, Status
from sources import notebook_text

COMMIT = "c" * 40


@pytest.fixture
def offered(folder):
    """Return what is offered for a line, in the project."""

    def asked(typed, start=folder, notebook=None):
        context = Context(start=start, notebook=notebook, environ={})
        try:
            return completion.candidates(typed, context)
        finally:
            context.close()

    return asked


@pytest.fixture
def kept(folder):
    """Keep a run, as if it had been done."""
    opened = workspace.open_at(folder, environ={})
    record = RunRecord(
        run_id="train-1abc",
        pipeline="train",
        status=Status.SUCCEEDED,
        commit=COMMIT,
        base_commit=COMMIT,
        dirty=False,
        parameters={},
        metrics={"accuracy": 0.5},
        environment_id="e",
        launcher="local",
        created_at=opened.now(),
        snapshot="s",
        author="Ada",
    )
    opened.store.swap(runs.KIND, record.run_id, record, expected=0, key="k", status="succeeded")
    opened.close()
    return record


def test_commands_and_options_come_from_the_table(offered):
    assert offered("dep") == ["deploy", "deployments"]
    assert "--detach" in offered("train --")
    assert offered("nope ") == []
    assert offered("") == parser.command_names()


def test_pipelines_and_notebooks_are_offered_where_one_is_asked_for(offered):
    assert offered("train ") == ["train", "train.ipynb"]
    assert offered("train --detach tr") == ["train", "train.ipynb"]
    assert offered("train train ") == []  # there is no second one


def test_parameters_of_the_pipeline_come_after_p_without_those_given(offered, folder):
    assert offered("train train -p ") == ["depth=", "name="]
    assert offered("train -p d") == ["depth="]  # the only pipeline
    assert offered("train train --param depth=3 -p ") == ["name="]
    (folder / "other.ipynb").write_text(notebook_text(("parameters", "wide: bool = False")))
    assert offered("train other.ipynb -p ") == ["wide="]
    assert offered("train -p ", notebook=folder / "other.ipynb") == ["wide="]
    assert offered("train other.ipynb -p wide=") == ["wide=true", "wide=false"]


def test_choices_are_offered_where_a_command_takes_one_of_a_few(offered):
    assert offered("sweep train --search ") == ["grid", "random", "bayes"]
    assert offered("check --level b") == ["block"]


@pytest.mark.usefixtures("kept")
def test_runs_references_and_metrics_are_those_of_the_store(offered):
    for word in ("run", "logs", "cancel", "rerun"):
        assert offered(f"{word} tr") == ["train-1abc"], word
    assert offered("compare train-1abc tr") == ["train-1abc"]
    assert offered("trace run/") == ["run/train-1abc"]
    assert offered("runs --best ") == ["accuracy"]
    assert offered("run train-1abc ") == []


def test_where_no_project_is_nothing_is_offered_and_nothing_raised(offered, tmp_path):
    for row in commands.TABLE:
        assert offered(f"{row.name} ", start=tmp_path) in ([], offered(f"{row.name} "))
        for parameter in row.parameters:
            assert isinstance(offered(f"{row.name} --{parameter.name} ", start=tmp_path), list)
    assert offered("run ", start=tmp_path) == []


def test_a_broken_project_completes_its_commands_all_the_same(offered, folder):
    (folder / "nbmlops.toml").write_text("[[[")
    assert offered("train ") == []
    assert offered("train --d") == ["--detach"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_script_has_every_command(shell):
    script = parser.completion_script(shell)
    for name in parser.command_names():
        assert name in script
    assert "--detach" in script or "'detach'" in script or "-l detach" in script


def test_aliases_of_models_are_offered(folder, offered):
    opened = workspace.open_at(folder)
    registered.version(opened, 1)
    models.set_alias(opened, "iris:1", "best")
    opened.close()
    assert offered("deploy iris@") == ["iris@best"]
    assert offered("model iri") == ["iris", "iris:1", "iris@best"]
