import contextlib
import os
import time

import psutil
import pytest

from nbmlops import cli, health, models, pipelines, runs, submission, sweeps
from nbmlops.errors import InvalidParameter, UnknownParameter, WrongUse
from nbmlops.records import Status, replace
from sources import git, notebook_text

pytestmark = pytest.mark.slow


def start(workspace, space, **options):
    return sweeps.submit(workspace, pipelines.find(workspace, "train"), space, **options)


def end(workspace, sweep_id, patience_s=120):
    deadline = time.monotonic() + patience_s
    seen = None
    for seen in sweeps.watch(workspace, sweep_id, every_s=0.1):
        assert time.monotonic() < deadline, seen
    return seen


def test_a_grid_runs_each_combination_and_names_the_best(workspace, folder):
    record = start(workspace, {"depth": "2,9,4", "name": "b"}, parallel=2)
    assert record.status is Status.PENDING
    done = end(workspace, record.sweep_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert [trial.parameters for trial in done.trials] == [{"depth": d} for d in (2, 9, 4)]
    assert [trial.value for trial in done.trials] == [0.2, 0.9, 0.4]
    assert (done.metric, done.best) == ("accuracy", 2)
    found = [runs.get(workspace, trial.run_id) for trial in done.trials]
    assert {run.sweep for run in found} == {done.sweep_id}
    assert {run.commit for run in found} == {done.commit} == {git(folder, "rev-parse", "HEAD")}
    assert [run.parameters for run in found] == [{"depth": d, "name": "b"} for d in (2, 9, 4)]
    assert health.check(workspace).findings == ()


def test_all_trials_run_what_was_there_when_the_sweep_began(workspace, folder):
    record = start(workspace, {"depth": "1,2"})
    (folder / "train.ipynb").write_text(notebook_text("raise ValueError('edited meanwhile')"))
    done = end(workspace, record.sweep_id)
    assert [trial.status for trial in done.trials] == [Status.SUCCEEDED] * 2, done.cause


def test_a_sweep_outlives_its_process_and_every_trial_runs_once(workspace):
    seed = int(os.environ.get("NBMLOPS_TEST_SEED", time.time_ns() % 2**32))
    print("seed", seed)
    record = start(workspace, {"depth": "1..9"}, how="random", trials=4, seed=seed, parallel=2)
    killed = 0
    while killed < 2 and not sweeps.get(workspace, record.sweep_id).status.is_final:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "nbmlops.driver" in words and record.sweep_id in words:
                time.sleep((seed >> killed) % 7 / 10)
                # It may have ended by itself: two looks can start two, and one of them leaves.
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed += 1
    assert killed
    done = end(workspace, record.sweep_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert len(done.trials) == 4
    kept = [k for k in workspace.store.page(runs.KIND, runs.RunRecord) if k.record.sweep]
    different = {trial.parameters["depth"] for trial in done.trials}
    assert len(kept) == len(different)
    assert health.check(workspace).findings == ()


def test_a_space_that_cannot_be_searched_starts_nothing(workspace):
    with pytest.raises(UnknownParameter, match="deph"):
        start(workspace, {"deph": "1,2"})
    with pytest.raises(InvalidParameter, match="no parameter varies"):
        start(workspace, {"depth": "1"})
    with pytest.raises(WrongUse, match="how many trials"):
        start(workspace, {"depth": "1..9"}, how="bayes")
    with pytest.raises(WrongUse, match="0 trials at a time"):
        start(workspace, {"depth": "1,2"}, parallel=0)
    assert workspace.store.page(sweeps.KIND, sweeps.SweepRecord) == []


def test_a_sweep_whose_trials_all_fail_stops_and_names_one(workspace, folder):
    (folder / "train.ipynb").write_text(
        notebook_text(("parameters", "depth: int = 1"), "raise ValueError('always')")
    )
    done = end(workspace, start(workspace, {"depth": "1..50"}, parallel=2).sweep_id)
    assert done.status is Status.FAILED
    assert done.cause.code == "trials-failed"
    assert done.trials[0].run_id in done.cause.hint
    assert len(done.trials) < 10


def test_a_metric_that_no_trial_logged_is_named_with_those_that_were(workspace):
    done = end(workspace, start(workspace, {"depth": "1,2"}, metric="acuracy").sweep_id)
    assert done.status is Status.FAILED
    assert done.cause.code == "metric-missing"
    assert "accuracy" in done.cause.hint


def test_a_cancelled_sweep_ends_its_trials(workspace, folder):
    (folder / "train.ipynb").write_text(
        notebook_text(("parameters", "depth: int = 1"), "import time\ntime.sleep(300)")
    )
    record = start(workspace, {"depth": "1,2,3"}, parallel=2)
    deadline = time.monotonic() + 60
    while not any(t.run_id for t in sweeps.get(workspace, record.sweep_id).trials):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = sweeps.cancel(workspace, record.sweep_id)
    assert done.status is Status.CANCELLED
    while any(not run.status.is_final for run in runs.unfinished(workspace)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert sweeps.get(workspace, record.sweep_id).status is Status.CANCELLED


def test_the_best_is_judged_by_the_direction_alone():
    from test_search import INT, search, sweep

    record = sweep(search.dimension(INT, "1,2,3"), total=3)
    trials = tuple(
        sweeps.Trial(
            number=n, parameters={"depth": n}, status=Status.SUCCEEDED, metrics={"score": float(n)}
        )
        for n in (1, 2, 3)
    )
    assert sweeps._judged(replace(record, trials=trials)).best == 3
    assert sweeps._judged(replace(record, trials=trials, direction="minimize")).best == 1


LOGS_A_MODEL = """
import nbmlops as mlops
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier
X, y = load_iris(return_X_y=True, as_frame=True)
model = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(X, y)
mlops.log_model(model, name="iris", train=(X, y), test=(X, y))
"""


def test_only_the_best_trial_becomes_a_model_version_and_any_other_when_it_is_asked_for(
    workspace, folder
):
    (folder / "train.ipynb").write_text(
        notebook_text(("parameters", "depth: int = 1"), ("train", LOGS_A_MODEL))
    )
    done = end(workspace, start(workspace, {"depth": "1,4,2"}).sweep_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert done.best == 2
    assert done.model_versions == ("iris:1",)
    (version,) = models.versions(workspace)
    assert version.run_id == done.trials[1].run_id
    assert runs.get(workspace, version.run_id).model_versions == ("iris:1",)
    asked = submission.submit(workspace, pipelines.find(workspace, "train"), {"depth": "2"})
    assert asked.run_id == done.trials[2].run_id
    assert asked.model_versions == ("iris:2",)
    assert health.check(workspace).findings == ()


def test_sweeps_are_listed_newest_first_a_page_at_a_time(workspace):
    first = end(workspace, start(workspace, {"depth": "1,2"}).sweep_id)
    second = sweeps.cancel(workspace, start(workspace, {"depth": "3,4"}).sweep_id)
    shown, following = sweeps.page(workspace, limit=1)
    assert [one.sweep_id for one in shown] == [second.sweep_id]
    rest, end_of_list = sweeps.page(workspace, limit=1, cursor=following)
    assert ([one.sweep_id for one in rest], end_of_list) == ([first.sweep_id], "")
    done, _ = sweeps.page(workspace, limit=9, status=Status.SUCCEEDED)
    assert [one.sweep_id for one in done] == [first.sweep_id]
    assert sweeps.page(workspace, limit=9, pipeline="other") == ([], "")
    with pytest.raises(WrongUse):
        sweeps.page(workspace, limit=1, cursor="x")


def test_a_list_of_sweeps_says_how_far_each_is_and_what_is_best(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert cli.run(["sweep", "-p", "depth=2,9"], as_json=False) == 0
    capsys.readouterr()
    assert cli.run(["runs", "--sweeps"], as_json=False) == 0
    shown = capsys.readouterr().out
    assert "2/2" in shown
    assert "accuracy=0.9  depth=9" in shown
    assert cli.run(["runs", "--sweeps", "--best", "accuracy"], as_json=False) == 2
