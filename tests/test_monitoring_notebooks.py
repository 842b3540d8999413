"""Reports as notebooks: made from a template, executed, whole or absent."""

from __future__ import annotations

import json
import random

import pytest

from nbmlops import cli, project
from nbmlops.errors import InvalidSettings
from nbmlops.monitors import notebooks
from sources import SETTINGS, notebook_text


@pytest.fixture
def rows(folder, monkeypatch):
    """Two files of a project: `age` of one lies far from that of the other."""
    draw = random.Random(1)
    for name, mean in (("then", 40), ("now", 60)):
        lines = [f"{draw.gauss(mean, 9):.1f},{draw.choice('ab')}" for _ in range(600)]
        (folder / f"{name}.csv").write_text("\n".join(["age,city", *lines, ""]))
    monkeypatch.chdir(folder)
    return folder


BARE = ["monitor", "--from", "now.csv", "--reference", "then.csv", "--notebook"]


def said(capsys, words):
    """Run a command line; return its exit code and its document."""
    code = cli.run(words, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def shown(path):
    """Return what the cells of a notebook display, by the cell's id: a text for each form."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c.get("outputs")]
    return {
        cell["id"]: {form: "".join(value) for form, value in cell["outputs"][0]["data"].items()}
        for cell in cells
    }


@pytest.mark.slow
def test_a_report_of_files_is_a_notebook_that_any_reader_shows(rows, capsys):
    (rows / "reports").mkdir()
    out = rows / "reports" / "today.ipynb"
    code, document = said(capsys, [*BARE, "reports/today.ipynb"])
    assert (code, document["verdict"]) == (3, "alert")
    made = json.loads(out.read_text())
    assert made["metadata"]["nbmlops"] == notebooks.MARK
    assert made["metadata"]["kernelspec"]["name"] == "python3"
    assert not {"widgets", "papermill"} & {*made["metadata"]}
    found = shown(out)
    assert {*found["show"]} == {"text/plain", "text/html", "image/png"}
    assert "age" in found["features"]["text/html"]
    assert found["verdict"]["text/plain"] == "'alert'"
    # Its parameters lead from where it is to the files, whatever folder this machine has them in.
    injected = next(cell for cell in made["cells"] if "injected" in str(cell["metadata"]))
    assert 'folder = ".."' in "".join(injected["source"])
    assert str(rows) not in out.read_text()
    # A report may be written again, over the one before.
    assert said(capsys, [*BARE, "reports/today.ipynb"])[0] == 3
    assert [path.name for path in (rows / "reports").iterdir()] == ["today.ipynb"]


@pytest.mark.slow
def test_a_team_s_own_template_is_used_and_what_fails_in_it_leaves_nothing(rows, capsys):
    (rows / "nbmlops.toml").write_text(f'{SETTINGS}\n[monitoring]\ntemplate = "ours.ipynb"\n')
    code, document = said(capsys, [*BARE, "out.ipynb"])
    assert (code, document["error"]["code"]) == (2, "invalid-settings")
    (rows / "ours.ipynb").write_text(
        notebook_text(("parameters", "from_ = None"), "print('ours:', from_)")
    )
    assert said(capsys, [*BARE, "out.ipynb"])[0] == 3
    assert "ours: now.csv" in (rows / "out.ipynb").read_text()
    before = (rows / "out.ipynb").read_bytes()

    (rows / "ours.ipynb").write_text(
        notebook_text(("parameters", "from_ = None"), "print(1)", "no_such_name")
    )
    code, document = said(capsys, [*BARE, "out.ipynb"])
    assert (code, document["error"]["code"]) == (1, "notebook-failed")
    assert "cell 3 of ours.ipynb: NameError" in document["error"]["message"]
    assert (rows / "out.ipynb").read_bytes() == before
    code, document = said(capsys, [*BARE, "ours.ipynb"])
    assert (code, document["error"]["code"]) == (2, "wrong-use")
    assert sorted(path.name for path in rows.glob("*out*")) == ["out.ipynb"]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("train.ipynb", "notebook-exists"),
        ("then.csv", "wrong-use"),
        ("nowhere/out.ipynb", "wrong-use"),
        ("folder.ipynb", "notebook-exists"),
        ("odd.ipynb", "notebook-exists"),
    ],
)
def test_what_is_no_report_is_not_overwritten(rows, capsys, place, code):
    (rows / "folder.ipynb").mkdir()
    (rows / "odd.ipynb").write_text("[1]")
    held = {path: path.read_bytes() for path in rows.iterdir() if path.is_file()}
    ended, document = said(capsys, [*BARE, place])
    assert (ended, document["error"]["code"]) == (2, code)
    assert {path: path.read_bytes() for path in rows.iterdir() if path.is_file()} == held


def test_a_notebook_is_about_one_endpoint(rows, capsys):
    words = ["monitor", "--every", "1m", "--notebook", "out.ipynb"]
    ended, document = said(capsys, words)
    assert (ended, document["error"]["code"]) == (2, "wrong-use")


@pytest.mark.parametrize("template", ["../ours.ipynb", "/ours.ipynb", ".git/x.ipynb", "ours.py"])
def test_a_template_is_a_notebook_inside_the_project(folder, template):
    (folder / "nbmlops.toml").write_text(f'{SETTINGS}\n[monitoring]\ntemplate = "{template}"\n')
    with pytest.raises(InvalidSettings) as told:
        project.read(folder)
    assert template in told.value.message


@pytest.mark.slow
def test_the_notebook_of_an_endpoint_says_what_the_command_says(churn, capsys, monkeypatch):
    from served import call, row

    call(churn, *(row(age) for age in range(60)))
    monkeypatch.chdir(churn.root)
    out = churn.root / "report.ipynb"
    try:
        code, document = said(capsys, ["monitor", "churn", "--notebook", "report.ipynb"])
        assert code in (0, 3, 4)
        found = shown(out)
        assert found["verdict"]["text/plain"] == f"'{document['verdict']}'"
        assert f"{document['window']['rows']:,} rows" in found["show"]["text/plain"]
    finally:
        out.unlink(missing_ok=True)
