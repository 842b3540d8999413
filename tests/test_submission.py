import json
from pathlib import Path

import pytest

from nbmlops import pipelines, runs, stepcache, submission
from nbmlops import workspace as workspaces
from nbmlops.errors import DataMissing, InvalidSettings, RuleBroken
from nbmlops.records import Status
from sources import git, notebook_text

pytestmark = pytest.mark.slow

DAG = """
[project]
name = "tiny"

[pipelines.train]
steps = [
  { name = "left", notebook = "left.ipynb", after = [], outputs = ["data/left.txt"] },
  { name = "right", notebook = "right.ipynb", after = [], outputs = ["data/right"] },
  { name = "join", notebook = "join.ipynb", after = ["left", "right"] },
]
"""


@pytest.fixture
def dag(folder):
    """A project whose pipeline has two branches that a third step joins."""
    (folder / "nbmlops.toml").write_text(DAG)
    (folder / "left.ipynb").write_text(
        notebook_text(
            ("parameters", "word: str = 'hello'"),
            "import pathlib, nbmlops\npathlib.Path('data').mkdir(exist_ok=True)\n"
            "pathlib.Path('data/left.txt').write_text(word)\n"
            "pathlib.Path('data/unlisted.txt').write_text('x')\n"
            "nbmlops.log_metrics(left=len(word))",
        )
    )
    (folder / "right.ipynb").write_text(
        notebook_text(
            "import pathlib, nbmlops\npathlib.Path('data/right/deep').mkdir(parents=True)\n"
            "pathlib.Path('data/right/deep/b.txt').write_text('world')\n"
            "assert not pathlib.Path('data/left.txt').exists(), 'a branch sees the other one'\n"
            "nbmlops.log_metrics(right=1)",
        )
    )
    (folder / "join.ipynb").write_text(
        notebook_text(
            ("parameters", "mark: str = '!'"),
            "import pathlib, nbmlops\n"
            "said = pathlib.Path('data/left.txt').read_text() + ' '"
            " + pathlib.Path('data/right/deep/b.txt').read_text() + mark\n"
            "assert not pathlib.Path('data/unlisted.txt').exists()\n"
            "print('said:', said)\nnbmlops.log_metrics(length=len(said))",
        )
    )
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "dag")
    return folder


@pytest.fixture
def at():
    """Opens a project anew, as each command does; closes all at the end."""
    opened = []

    def open_at(folder):
        opened.append(workspaces.open_at(folder))
        return opened[-1]

    yield open_at
    for one in opened:
        one.close()


def run(workspace, *, force=False, **given):
    pipeline = pipelines.find(workspace, "train")
    started = submission.submit(workspace, pipeline, given, force=force)
    return runs.get(workspace, list(runs.watch(workspace, started.run_id, every_s=0.05))[-1].run_id)


def taken(record):
    return {step.name: step.cached for step in record.steps}


def test_branches_meet_in_a_step_that_sees_the_outputs_of_both_and_of_nobody_else(dag, at):
    done = run(at(dag))
    assert done.status is Status.SUCCEEDED, done.cause
    assert done.metrics == {"left": 5.0, "right": 1.0, "length": 12.0}
    assert {a.name for a in done.artifacts if a.kind == "output"} == {
        "data/left.txt",
        "data/right/deep/b.txt",
    }


def test_unchanged_steps_do_not_run_again_elyra_2864(dag, at):
    first = run(at(dag))
    changed = run(at(dag), mark="?")
    assert taken(changed) == {"left": True, "right": True, "join": False}
    assert changed.run_id != first.run_id
    assert changed.metrics == first.metrics
    assert "said: hello world?" in list(runs.logs(at(dag), changed.run_id))
    assert {a.name for a in changed.artifacts} == {a.name for a in first.artifacts}
    assert changed.steps[0].cached_from == first.run_id
    # A branch whose parameter changed runs, and so does what comes after it; the other does not.
    other = run(at(dag), word="good")
    assert taken(other) == {"left": False, "right": True, "join": False}
    # The same step in a run of its own: nothing is left to run, and still there is a record.
    (dag / "README.md").write_text("a document\n")
    documented = run(at(dag), word="good")
    assert documented.run_id != other.run_id
    assert documented.commit != other.commit
    assert set(taken(documented).values()) == {True}
    assert documented.metrics == other.metrics
    assert {a.name for a in other.artifacts} - {"log.txt"} <= {a.name for a in documented.artifacts}
    # A module that a notebook may import does count.
    (dag / "module.py").write_text("X = 1\n")
    assert set(taken(run(at(dag), word="good")).values()) == {False}


def test_the_same_once_more_is_the_same_run_and_force_is_another(dag, at):
    first = run(at(dag))
    workspace = at(dag)
    again = submission.submit(workspace, pipelines.find(workspace, "train"), {})
    assert again.run_id == first.run_id
    assert set(taken(again).values()) == {True}
    assert set(taken(runs.get(workspace, first.run_id)).values()) == {False}
    forced = run(workspace, force=True)
    assert forced.run_id != first.run_id
    assert set(taken(forced).values()) == {False}


def test_a_cached_step_whose_output_is_lost_runs_again(dag, at):
    first = run(at(dag))
    lost = next(a for a in first.artifacts if a.name == "data/left.txt")
    workspace = at(dag)
    path = Path(workspace.home.artifacts, lost.digest[:2], lost.digest[2:])
    path.unlink()
    done = run(workspace, mark="?")
    assert done.status is Status.SUCCEEDED, done.cause
    assert taken(done) == {"left": False, "right": True, "join": False}


def test_declared_inputs_narrow_what_a_step_depends_on(dag, at):
    settings = (dag / "nbmlops.toml").read_text()
    (dag / "nbmlops.toml").write_text(
        settings.replace('name = "left",', 'name = "left", inputs = ["library"],')
    )
    (dag / "library").mkdir()
    (dag / "library" / "words.py").write_text("W = 1\n")
    run(at(dag))
    (dag / "other.py").write_text("O = 1\n")
    assert taken(run(at(dag))) == {"left": True, "right": False, "join": False}
    (dag / "library" / "words.py").write_text("W = 2\n")
    assert taken(run(at(dag)))["left"] is False


def test_a_run_that_failed_gets_a_new_attempt_which_takes_over_what_succeeded(dag, at):
    document = json.loads((dag / "join.ipynb").read_text())
    flag = dag.parent / "now-it-works"
    document["cells"][1]["source"] = f"import pathlib\nassert pathlib.Path({str(flag)!r}).exists()"
    (dag / "join.ipynb").write_text(json.dumps(document))
    first = run(at(dag))
    assert first.status is Status.FAILED
    assert first.cause.notebook == "join.ipynb"
    flag.write_text("")
    second = run(at(dag))
    assert second.run_id == first.run_id
    assert second.status is Status.SUCCEEDED, second.cause
    assert second.attempts == 2
    assert taken(second) == {"left": True, "right": True, "join": False}
    (earlier,) = second.earlier
    assert earlier.status is Status.FAILED
    assert earlier.cause == first.cause
    assert {a.name for a in earlier.artifacts} >= {"join.ipynb", "log.txt"}


def test_rerun_of_a_run_that_succeeded_is_a_new_run_of_the_same_snapshot(dag, at):
    first = run(at(dag), mark="?")
    (dag / "join.ipynb").write_text(notebook_text("raise ValueError('edited since')"))
    workspace = at(dag)
    started = submission.rerun(workspace, first.run_id)
    again = list(runs.watch(workspace, started.run_id, every_s=0.05))[-1]
    assert again.status is Status.SUCCEEDED, again.cause
    assert again.run_id != first.run_id
    assert (again.commit, again.parameters) == (first.commit, first.parameters)
    assert set(taken(again).values()) == {False}


def test_ignored_data_reach_the_job_jupyter_scheduler_505(folder, at):
    (folder / "data").mkdir()
    (folder / "data" / "raw.csv").write_text("a\n1\n")
    (folder / "data" / "parts").mkdir()
    (folder / "data" / "parts" / "one.txt").write_text("one")
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[data]\nraw = "data/raw.csv"\nparts = { path = "data/parts" }\n')
    (folder / "train.ipynb").write_text(
        notebook_text(
            "import nbmlops as mlops\nprint(mlops.data('raw').read_text())\n"
            "assert mlops.data('data/parts').joinpath('one.txt').read_text() == 'one'"
        )
    )
    done = run(at(folder))
    assert done.status is Status.SUCCEEDED, done.cause
    digests = {item.name: item.digest for item in done.data}
    assert set(digests) == {"data/raw.csv", "data/parts"}
    assert run(at(folder)).run_id == done.run_id
    # Changed data are other data: the step runs, and the record says so.
    (folder / "data" / "raw.csv").write_text("a\n2\n")
    changed = run(at(folder))
    assert changed.run_id != done.run_id
    assert set(taken(changed).values()) == {False}
    assert {i.name: i.digest for i in changed.data}["data/raw.csv"] != digests["data/raw.csv"]
    assert {i.name: i.digest for i in changed.data}["data/parts"] == digests["data/parts"]


def test_data_from_a_url_are_fetched_digested_and_placed(folder, at):
    source = folder.parent / "elsewhere.csv"
    source.write_text("b\n7\n")
    with (folder / "nbmlops.toml").open("a") as file:
        file.write(f'\n[data.far]\nurl = "file://{source}"\npath = "data/far.csv"\n')
    (folder / "train.ipynb").write_text(notebook_text("print(open('data/far.csv').read())"))
    done = run(at(folder))
    assert done.status is Status.SUCCEEDED, done.cause
    assert "7" in list(runs.logs(at(folder), done.run_id))
    assert [item.name for item in done.data] == ["data/far.csv"]


def test_data_that_are_not_there_stop_the_submission(folder, at):
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[data]\nraw = "data/raw.csv"\n')
    workspace = at(folder)
    with pytest.raises(DataMissing, match=r"data/raw\.csv"):
        submission.submit(workspace, pipelines.find(workspace, "train"), {})
    assert runs.page(workspace, limit=5, cursor=None) == ([], "")


def test_steps_that_wait_for_each_other_are_refused(dag, at):
    (dag / "nbmlops.toml").write_text(
        DAG.replace('"left.ipynb", after = []', '"left.ipynb", after = ["join"]')
    )
    with pytest.raises(InvalidSettings, match="wait for each other"):
        at(dag)


def test_a_key_covers_what_its_step_follows_from(dag, at):
    workspace = at(dag)
    commit = git(dag, "rev-parse", "HEAD")
    pipeline = pipelines.find(workspace, "train")
    steps, _ = pipelines.steps(workspace, commit, pipeline, {})
    settings = pipeline.settings.steps

    def keys(environment_id="e-1"):
        made = stepcache.keyed(workspace, commit, steps, settings, environment_id, ())
        return {step.name: step.key for step in made}

    assert keys() == keys()
    assert not set(keys().values()) & set(keys("e-2").values())
    before = keys()
    with (dag / "nbmlops.toml").open("a") as file:
        file.write("\n[models]\nranker = {image = 'ranker:2'}\n")
    workspace = at(dag)
    assert not set(keys().values()) & set(before.values())


def test_each_run_has_a_page_of_each_notebook(folder, at):
    done = run(at(folder))
    page = next(a for a in done.artifacts if a.name == "train.html")
    text = at(folder).artifacts.get(page.digest).decode()
    assert "hello from" in text
    assert page.media_type == "text/html"


def test_a_secret_in_a_changed_file_stops_the_run_before_it_is_kept_papermill_416(folder, at):
    (folder / "settings.py").write_text("KEY = 'AKIA" + "Q3EGRIZ7XN2LBJ4T'\n")
    workspace = at(folder)
    before = git(folder, "for-each-ref", "refs/nbmlops/snapshots")
    with pytest.raises(RuleBroken, match=r"settings\.py") as refused:
        submission.submit(workspace, pipelines.find(workspace, "train"), {})
    assert "Q3EGRIZ7" not in str(refused.value)
    assert git(folder, "for-each-ref", "refs/nbmlops/snapshots") == before
    assert runs.page(workspace, limit=5, cursor=None)[0] == []
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[rules]\nsecret = "advise"\n')
    assert run(at(folder)).status is Status.SUCCEEDED


def test_a_rule_that_warns_is_said_and_the_run_goes_on(folder):
    (folder / "train.ipynb").write_text(
        notebook_text(("parameters", "depth: int = 3"), "depth = 4\nprint(depth)")
    )
    said = []
    opened = workspaces.open_at(folder, warn=said.append)
    assert run(opened).status is Status.SUCCEEDED
    opened.close()
    assert any("depth" in line and "[parameters-overwritten]" in line for line in said), said
