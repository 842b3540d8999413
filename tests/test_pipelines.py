import pytest

from nbmlops import pipelines
from nbmlops import workspace as workspaces
from nbmlops.errors import (
    InvalidNotebook,
    InvalidParameter,
    UnknownParameter,
    UnknownPipeline,
    WrongUse,
)
from sources import git, notebook_text


def commit(folder):
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "more")
    return git(folder, "rev-parse", "HEAD")


def test_a_notebook_of_a_pipeline_stands_for_it_and_any_other_for_itself(workspace, folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "My Notebook.ipynb").write_text(notebook_text("a = 1"))
    found = pipelines.find(workspace, "train.ipynb")
    assert (found.name, found.step) == ("train", "train")
    found = pipelines.find(workspace, "My Notebook.ipynb", start=folder / "sub")
    assert (found.name, found.step) == ("my-notebook", "my-notebook")
    assert found.settings.steps[0].notebook == "sub/My Notebook.ipynb"
    assert pipelines.find(workspace, None).name == "train"


@pytest.mark.parametrize("name", ["trian", "../x.ipynb", "/etc/passwd.ipynb", "none.ipynb"])
def test_what_is_not_there_is_answered_with_what_is(workspace, name):
    with pytest.raises(UnknownPipeline) as caught:
        pipelines.find(workspace, name)
    assert "train" in caught.value.hint


def test_a_name_is_wanted_where_there_are_several(folder):
    (folder / "nbmlops.toml").write_text(
        "[project]\nname='x'\n[pipelines.a]\nsteps=[{notebook='train.ipynb'}]\n"
        "[pipelines.b]\nsteps=[{notebook='train.ipynb'}]\n"
    )
    opened = workspaces.open_at(folder)
    with pytest.raises(WrongUse) as caught:
        pipelines.find(opened, None)
    assert caught.value.hint == "Name one: `nbmlops train NOTEBOOK.ipynb`. Known: a, b."
    assert pipelines.find(opened, "train.ipynb").name == "train", "a step of both stands alone"


def test_a_value_goes_to_each_step_that_declares_it(folder):
    (folder / "a.ipynb").write_text(notebook_text(("parameters", "seed = 1\nonly_a = 'x'")))
    (folder / "b.ipynb").write_text(notebook_text(("parameters", "seed: int = 2\nrate = 0.5")))
    (folder / "nbmlops.toml").write_text(
        "[project]\nname='x'\n[pipelines.p]\nsteps=[{notebook='a.ipynb'},"
        "{notebook='b.ipynb', parameters={rate=0.1}}]\n"
    )
    opened = workspaces.open_at(folder)
    specs, effective = pipelines.steps(
        opened, commit(folder), pipelines.find(opened, "p"), {"seed": "9"}
    )
    assert [spec.parameters for spec in specs] == [{"seed": 9}, {"rate": 0.1, "seed": 9}]
    assert effective == {"seed": 9, "only_a": "x", "rate": 0.1}


@pytest.mark.parametrize("name", ["deph", "import", "x; import os", "__class__", ""])
def test_a_name_that_no_step_declares_never_reaches_the_code(workspace, folder, name):
    with pytest.raises(UnknownParameter):
        pipelines.steps(workspace, commit(folder), pipelines.find(workspace, "train"), {name: "1"})


def test_what_is_checked_is_the_commit_not_the_work_tree(workspace, folder):
    taken = commit(folder)
    (folder / "train.ipynb").write_text("broken")
    specs, _ = pipelines.steps(workspace, taken, pipelines.find(workspace, "train"), {})
    assert specs[0].cells_total == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (notebook_text("x").replace('"python"', '"R"'), "written in r"),
        ("{}", "is not a notebook"),
        (None, "not in the snapshot"),
    ],
)
def test_a_notebook_that_cannot_run_is_refused_by_name(workspace, folder, text, said):
    if text is None:
        git(folder, "rm", "--quiet", "train.ipynb")
    else:
        (folder / "train.ipynb").write_text(text)
    pipeline = pipelines.Pipeline(name="train", settings=workspace.settings.pipelines["train"])
    with pytest.raises(InvalidNotebook, match=said):
        pipelines.steps(workspace, commit(folder), pipeline, {})


def test_assignments_are_split_at_the_first_equals_sign():
    assert pipelines.assignments(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InvalidParameter):
            pipelines.assignments(wrong)
