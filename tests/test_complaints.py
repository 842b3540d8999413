"""What users of today's tools complain of (mission, section 2), each as a test of what is typed.

Those of serving, monitoring and the panel stand with the tests of these; elyra-ai/elyra#2864 (what
is unchanged runs again) in test_submission.
"""

import contextlib
import io
import json
import os

import pytest

from nbmlops import workspace as workspaces
from sources import git, notebook_text
from terminal import refused, typed

pytestmark = pytest.mark.slow

SETTINGS = """
[project]
name = "complaints"
secrets = ["API_KEY"]

[data]
raw = "data/raw.csv"

[pipelines.train]
steps = [{ notebook = "notebooks/train.ipynb" }]

[pipelines.two]
steps = [
  { notebook = "notebooks/one.ipynb", outputs = ["notebooks/total.txt"] },
  { notebook = "notebooks/other.ipynb" },
]
"""

CELLS = (
    "# Nothing here is written for a tool: cells that share variables, helpers and imports.",
    "import os, sys\nsys.path.insert(0, '..')\nfrom library import helpers\nimport local_module",
    ("parameters", "depth: int | None = None  # of the tree\nname: str = 'a'"),
    "scale = helpers.SCALE\ndef scaled(x):\n    return x * scale  # closes over another cell",
    "total = sum(scaled(x) for x in range(4))\nprint('total', total, local_module.ANSWER)",
    "print('data', open('../data/raw.csv').read().strip())",
    "print('key', os.environ['API_KEY'])",
    "import ipywidgets\nipywidgets.IntSlider(value=7, description='of the run')",
    "%%bash\necho from a shell",
    "import nbmlops as mlops\nmlops.log_metrics(total=total, depth=depth or -1)",
)
KEY = "canary-for-706"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project that was never made for this: edits, modules and data that are in no commit."""
    os.environ["API_KEY"] = KEY
    folder = tmp_path_factory.mktemp("complaints") / "p"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "nbmlops.toml").write_text(SETTINGS)
    (folder / ".gitignore").write_text("/data/\n")
    (folder / "notebooks" / "train.ipynb").write_text(notebook_text("print('an old copy')"))
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "start")
    (folder / "data").mkdir()
    (folder / "data" / "raw.csv").write_text("7\n")
    (folder / "library").mkdir()
    (folder / "library" / "helpers.py").write_text("SCALE = 7\n")
    (folder / "notebooks" / "local_module.py").write_text("ANSWER = 42\n")
    (folder / "notebooks" / "train.ipynb").write_text(notebook_text(*CELLS))
    (folder / "notebooks" / "one.ipynb").write_text(
        notebook_text("total = 6 * 7\nopen('total.txt', 'w').write(str(total))")
    )
    (folder / "notebooks" / "other.ipynb").write_text(
        notebook_text("print('read', open('total.txt').read())", "print('shared?', total)")
    )
    yield folder
    del os.environ["API_KEY"]


@pytest.fixture(scope="module")
def run(project):
    document, code, _ = typed(project, "train", "train", "-p", "depth=6")
    assert (code, document["status"]) == (0, "succeeded"), document["cause"]
    return document


@pytest.fixture(scope="module")
def log(project, run):
    return typed(project, "logs", run["run_id"])[0]["items"]


def bytes_of(project, run, name):
    (digest,) = (a["digest"] for a in run["artifacts"] if a["name"] == name)
    opened = workspaces.open_at(project)
    with contextlib.closing(opened):
        return opened.artifacts.get(digest)


def test_mlflow_973_1912_13220_the_commit_is_recorded_and_never_a_dirty_one(project, run):
    assert run["dirty"]
    assert run["base_commit"] == git(project, "rev-parse", "HEAD")
    assert run["commit"] != run["base_commit"]
    # What ran is what the commit has, also what was in none before.
    stored = git(project, "show", f"{run['commit']}:notebooks/train.ipynb")
    assert stored == (project / "notebooks" / "train.ipynb").read_text()
    assert git(project, "show", f"{run['commit']}:library/helpers.py") == "SCALE = 7"
    traced, code, _ = typed(project, "trace", f"run/{run['run_id']}")
    assert (code, traced["snapshot"]["commit"]) == (0, run["commit"])
    assert run["steps"][0]["notebook_blob"] == git(
        project, "rev-parse", f"{run['commit']}:notebooks/train.ipynb"
    )


def test_jupyter_scheduler_504_a_job_runs_the_notebook_as_it_is_now(log):
    assert "an old copy" not in log
    assert "total 42 42" in log


def test_jupyter_scheduler_505_data_that_git_ignores_reach_the_job(run, log):
    assert "data 7" in log
    assert [item["name"] for item in run["data"]] == ["data/raw.csv"]


def test_jupyter_scheduler_407_modules_beside_the_notebook_and_above_it_are_found(log):
    assert "total 42 42" in log


def test_jupyter_scheduler_594_elyra_3083_each_run_has_the_environment_of_its_own_lock(project):
    path = project / "notebooks" / "locked.ipynb"
    path.write_text(notebook_text("import six\nprint('six', six.__version__)"))
    made = {}
    try:
        for version in ("1.16.0", "1.17.0"):
            (project / "requirements.txt").write_text(f"six=={version}\n")
            made[version], code, _ = typed(project, "train", "notebooks/locked.ipynb")
            assert code == 0, made[version]["cause"]
        # The first again, after the second: its own environment is still there.
        again, code, _ = typed(project, "rerun", made["1.16.0"]["run_id"])
        assert code == 0, again["cause"]
    finally:
        path.unlink()
        (project / "requirements.txt").unlink()
    for version, run in [*made.items(), ("1.16.0", again)]:
        assert f"six {version}" in typed(project, "logs", run["run_id"])[0]["items"]
    assert len({run["environment_id"] for run in made.values()}) == 2


def test_zenml_2870_metaflow_309_2940_cells_stay_cells(project, run, log):
    executed = json.loads(bytes_of(project, run, "train.ipynb"))
    sources = ["".join(cell["source"]) for cell in executed["cells"]]
    own = [source[1] if isinstance(source, tuple) else source for source in CELLS]
    injected = [source for source in sources if source not in own]
    assert [source for source in sources if source in own] == own
    assert len(injected) == 1
    assert "depth = 6" in injected[0]
    assert "from a shell" in log


def test_papermill_x_int_or_none_is_typed_and_checked_before_anything_starts(project, run):
    assert run["parameters"] == {"depth": 6, "name": "a"}
    assert run["metrics"]["depth"] == 6
    before = len(typed(project, "runs")[0]["items"])
    error = refused(project, "train", "train", "-p", "depth=six")
    assert (error["code"], "int | None" in error["message"]) == ("invalid-parameter", True)
    error = refused(project, "train", "train", "-p", "deph=6")
    assert (error["code"], "`depth`" in error["hint"]) == ("unknown-parameter", True)
    assert len(typed(project, "runs")[0]["items"]) == before


def test_papermill_416_706_no_secret_stays_in_the_executed_notebook(project, run, log):
    assert "key [secret]" in log
    for artifact in run["artifacts"]:
        assert KEY.encode() not in bytes_of(project, run, artifact["name"]), artifact["name"]


def test_papermill_400_a_widget_leaves_something_to_read_behind(project, run):
    executed = json.loads(bytes_of(project, run, "train.ipynb"))
    shown = json.dumps([cell.get("outputs") for cell in executed["cells"]])
    assert "IntSlider(value=7" in shown
    assert "widgets" not in executed["metadata"]
    assert b"IntSlider(value=7" in bytes_of(project, run, "train.html")


def test_papermill_a_later_assignment_that_overwrites_a_parameter_is_told_and_can_block(project):
    path = project / "notebooks" / "overwritten.ipynb"
    path.write_text(notebook_text(("parameters", "depth: int = 1"), "depth = 2", "print(depth)"))
    try:
        document, code, said = typed(project, "train", "notebooks/overwritten.ipynb")
        assert (code, document["status"]) == (0, "succeeded")
        findings = typed(project, "check", "--level", "warn")[0]["findings"]
        (found,) = (f for f in findings if f["code"] == "parameters-overwritten")
        assert (found["path"], found["cell"]) == ("notebooks/overwritten.ipynb", 2)
        with (project / "nbmlops.toml").open("a") as file:
            file.write('\n[rules]\nparameters-overwritten = "block"\n')
        error = refused(project, "train", "notebooks/overwritten.ipynb", "--force")
        assert (error["code"], "depth" in error["message"]) == ("rule-broken", True)
        assert "Traceback" not in said
    finally:
        path.unlink()
        (project / "nbmlops.toml").write_text(SETTINGS)


def test_elyra_951_the_cell_that_failed_is_named_with_its_notebook(project):
    document, code, _ = typed(project, "train", "two")
    assert code == 1
    cause = document["cause"]
    assert (cause["code"], cause["notebook"], cause["cell"], cause["cell_id"]) == (
        "cell-failed",
        "notebooks/other.ipynb",
        2,
        "cell-1",
    )
    assert "name 'total' is not defined" in cause["message"]
    assert "notebooks/other.ipynb" in cause["hint"]
    assert [step["status"] for step in document["steps"]] == ["succeeded", "failed"]
    lines = typed(project, "logs", document["run_id"])[0]["items"]
    assert any("print('shared?', total)" in line for line in lines)


def test_kale_faq_a_notebook_that_is_split_shares_files_by_name_and_nothing_else(project):
    """A variable of another step is an error by name, never another result."""
    document, _, _ = typed(project, "train", "two")
    lines = typed(project, "logs", document["run_id"])[0]["items"]
    assert "read 42" in lines
    assert "NameError" in document["cause"]["message"]
    codes = {finding["code"] for finding in typed(project, "check")[0]["findings"]}
    assert "hidden-state" in codes, codes


def test_kale_852_runs_are_seen_and_compared_where_the_notebook_is(project, run, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    other, code, _ = typed(project, "train", "train", "-p", "depth=9")
    assert code == 0, other["cause"]
    monkeypatch.chdir(project)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "nbmlops")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        shell.run_line_magic("mlops", f"compare {run['run_id']} {other['run_id']} --json")
    InteractiveShell.clear_instance()
    compared = json.loads(out.getvalue())
    (depth,) = (item for item in compared["parameters"] if item["name"] == "depth")
    assert (depth["values"], depth["differs"]) == ([6, 9], True)
    (metric,) = (item for item in compared["metrics"] if item["name"] == "depth")
    assert metric["values"] == [6, 9]
