"""Trials that are parts of one indexed job: started once, however often their start is killed."""

import random

import pytest

from nbmlops import collection, pipelines, runs, submission
from nbmlops.records import JobStatus, RunRecord, Status, replace

TRIALS = 6


class Killed(BaseException):
    """The process ends here."""


class Cluster:
    """A launcher that notes what it is asked to launch, and shows every part as waiting."""

    name = "kubernetes"

    def __init__(self):
        self.launched = []
        self.read = []

    def launch(self, job):
        self.launched.append(job)

    def poll(self, handles):
        return {handle: JobStatus(status=Status.RUNNING) for handle in handles}

    def logs(self, handle, **_):
        self.read.append(handle)
        return iter(())


@pytest.fixture
def cluster(workspace):
    made = Cluster()
    workspace._launchers["kubernetes"] = made
    return made


@pytest.fixture
def asked(workspace):
    """The requests of a sweep's trials."""
    taken = submission.capture(workspace)
    basis = submission.basis(workspace, taken, "local")
    pipeline = pipelines.find(workspace, "train.ipynb")
    found = []
    for number in range(1, TRIALS + 1):
        steps = pipelines.steps(workspace, taken.commit, pipeline, {"depth": number})
        one = submission.request(workspace, pipeline, steps, basis, "kubernetes")
        found.append(replace(one, sweep="sweep-train-1", trial=number))
    return found


def start(workspace, asked):
    return submission.start_all(
        workspace, asked, name="sweep-train-1-b1", launcher="kubernetes", at_once=2
    )


def test_trials_are_one_job_and_each_is_a_run_of_its_own(workspace, cluster, asked):
    started = start(workspace, asked)
    (job,) = cluster.launched
    assert (job.name, job.parallel, job.at_once) == ("sweep-train-1-b1", TRIALS, 2)
    assert sorted(started) == list(range(1, TRIALS + 1))
    handles = [started[number].handle for number in sorted(started)]
    assert [(one.name, one.index) for one in handles] == [(job.name, n) for n in range(TRIALS)]
    for number, record in started.items():
        spec = collection.spec(workspace, record)
        assert (spec.run_id, spec.steps[0].parameters["depth"]) == (record.run_id, number)


def test_many_runs_are_one_look_and_no_log_is_read(workspace, cluster, asked):
    start(workspace, asked)
    looks = []
    real = cluster.poll
    cluster.poll = lambda handles: looks.append(len(handles)) or real(handles)
    assert {run.status for run in runs.unfinished(workspace)} == {Status.RUNNING}
    assert looks == [TRIALS]
    assert cluster.read == []


@pytest.mark.parametrize("seed", range(12))
def test_a_start_that_is_killed_anywhere_is_gone_on_with(
    workspace, cluster, asked, monkeypatch, seed
):
    chance = random.Random(seed)
    swap, launch = workspace.store.swap, cluster.launch
    budget = [chance.randrange(2 * TRIALS + 1)]

    def dying(action):
        def act(*args, **kwargs):
            if budget[0] == 0:
                raise Killed
            budget[0] -= 1
            done = action(*args, **kwargs)
            if budget[0] == 0 and chance.random() < 0.5:
                raise Killed
            return done

        return act

    monkeypatch.setattr(workspace.store, "swap", dying(swap))
    monkeypatch.setattr(cluster, "launch", dying(launch))
    with pytest.raises(Killed):
        start(workspace, asked)
    monkeypatch.setattr(workspace.store, "swap", swap)
    monkeypatch.setattr(cluster, "launch", launch)
    started = start(workspace, asked)
    again = start(workspace, asked)
    ids = {number: record.run_id for number, record in started.items()}
    assert ids == {number: record.run_id for number, record in again.items()}
    kept = [item.record.run_id for item in workspace.store.page("run", RunRecord, limit=100)]
    assert sorted(kept) == sorted(ids.values())
    assert {job.name for job in cluster.launched} == {"sweep-train-1-b1"}
    assert {job.parallel for job in cluster.launched} == {TRIALS}


def test_what_was_run_before_is_no_part_of_the_job(workspace, cluster, asked):
    start(workspace, asked[:3])
    started = submission.start_all(
        workspace, asked, name="sweep-train-2-b1", launcher="kubernetes", at_once=2
    )
    assert sorted(started) == [4, 5, 6]
    assert cluster.launched[-1].parallel == 3


def test_a_trial_alone_is_not_cancelled_out_of_its_job(workspace, cluster, asked):
    from nbmlops.errors import WrongUse

    started = start(workspace, asked)
    with pytest.raises(WrongUse, match="one job with the other trials") as told:
        runs.cancel(workspace, started[1].run_id)
    assert "nbmlops cancel sweep-train-1" in told.value.hint
