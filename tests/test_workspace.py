"""A project opens its store and its artifacts where the settings or the environment say."""

import os

import pytest

from nbmlops import decisions, records, runs
from nbmlops import workspace as workspaces
from nbmlops.errors import WrongUse
from nbmlops.records import RunRecord, Status


def finished(name, number, status=Status.SUCCEEDED):
    now = records.utc_now()
    return RunRecord(
        run_id=name,
        pipeline="train" if number % 2 else "other",
        status=status,
        commit="c" * 40,
        base_commit=None,
        dirty=False,
        parameters={},
        metrics={"accuracy": number / 10},
        environment_id="e",
        launcher="local",
        created_at=now,
        finished_at=now,
        snapshot="s",
        author="Ada",
    )


def fill(workspace, count=5):
    for number in range(count):
        name = f"run-{number}"
        status = Status.FAILED if number == 4 else Status.SUCCEEDED
        workspace.store.swap(
            runs.KIND,
            name,
            finished(name, number, status),
            expected=0,
            key=name,
            status=status.value,
        )


def names(workspace, **asked):
    return [run.run_id for run in runs.page(workspace, limit=10, **asked)[0]]


def test_runs_are_asked_for_by_metric_status_and_pipeline(workspace):
    fill(workspace)
    assert names(workspace)[0] == "run-4"
    assert names(workspace, best="accuracy")[:2] == ["run-4", "run-3"]
    assert names(workspace, lowest="accuracy")[0] == "run-0"
    assert names(workspace, best="accuracy", status="succeeded", pipeline="train") == [
        "run-3",
        "run-1",
    ]
    assert names(workspace, status="failed") == ["run-4"]
    assert names(workspace, best="no-such-metric") == []


@pytest.mark.parametrize(
    "asked", [{"status": "sucess"}, {"best": "a", "lowest": "b"}, {"best": "a", "cursor": "3"}]
)
def test_questions_without_a_meaning_are_refused(workspace, asked):
    with pytest.raises(WrongUse):
        runs.page(workspace, limit=10, **asked)


@pytest.mark.slow
def test_a_team_shares_a_database_and_a_bucket_by_two_variables(folder, postgres, s3):
    bucket = s3.bucket()
    options = "\n[artifacts.options]\nkey = 'k'\nsecret = 's'\n"
    endpoint = f"[artifacts.options.client_kwargs]\nendpoint_url = '{s3.url}'\n"
    settings = folder / "nbmlops.toml"
    settings.write_text(settings.read_text() + options + endpoint)
    shared = {
        "NBMLOPS_STORE_URL": postgres.url(postgres.create()),
        "NBMLOPS_ARTIFACTS_URL": f"s3://{bucket}/team",
    }
    one = workspaces.open_at(folder, environ={**os.environ, **shared})
    other = workspaces.open_at(
        folder, environ={**os.environ, **shared, "NBMLOPS_HOME": str(folder.parent / "home")}
    )
    fill(one, 3)
    digest = one.artifacts.put(b"a model")
    assert names(other) == ["run-2", "run-1", "run-0"]
    assert other.artifacts.get(digest) == b"a model"
    assert not one.home.store.exists()
    assert not one.home.artifacts.exists()
    for opened in (one, other):
        assert postgres.password not in opened.store.shown
        assert opened.artifacts.shown == f"s3://{bucket}/team"
        opened.close()


def test_jobs_of_this_machine_are_reached_by_the_clone_that_started_them(workspace, monkeypatch):
    assert workspace.reaches("local", None)  # older than places
    assert not workspace.reaches("local", "a" * 32)  # nothing was ever started here
    ours = decisions.place(workspace)
    assert workspace.reaches("local", ours)
    assert not workspace.reaches("local", "a" * 32)
    monkeypatch.setattr(workspaces, "OF_THIS_CLONE", ())
    assert workspace.reaches("local", "a" * 32)
