"""Looks that a launcher's jobs make: the same answers, taken in once, whoever is killed."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from nbmlops import alerts, calls, deployments, health, layout, monitors, tick
from nbmlops.errors import LauncherUnavailable, UnknownEndpoint
from nbmlops.monitors import hours, jobs, looking
from nbmlops.project import AlertSettings, MonitoringSettings
from nbmlops.records import (
    AlertState,
    JobHandle,
    LookJob,
    MonitorReport,
    Resources,
    dump,
    replace,
)
from served import call, row
from serving import until

pytestmark = pytest.mark.slow

QUIET = AlertSettings(after=1000)
HOURLY = MonitoringSettings(every="1h", on="local", alerts=QUIET)


@pytest.fixture
def fresh(churn):
    """The project with an endpoint that nobody has called yet; what it was told is forgotten."""
    settings, state = churn.settings, alerts.state_of(churn, "churn")
    churn.settings = replace(settings, monitoring=MonitoringSettings(alerts=QUIET))
    deployments.undeploy(churn, "churn")
    deployments.deploy(churn, "churn:1")
    yield churn
    churn.settings = settings
    kept = churn.store.get(alerts.STATES, "churn", AlertState)
    if kept is not None:
        fresh_state = state or AlertState(endpoint="churn", series=layout.new_id("churn"))
        key = f"test:{layout.new_id('t')}"
        churn.store.swap(alerts.STATES, "churn", fresh_state, expected=kept.revision, key=key)


def usual(count, **changes):
    cities = ["Bern", "Rome", "Oslo"]
    return [row(age % 120, city=cities[age % 3], **changes) for age in range(count)]


def served(opened):
    return deployments.pointed(opened, "churn")


def plain(report, *left):
    """Return a report but for when it was asked for."""
    return replace(report, created_at=None, window=replace(report.window, until=None))


def ended(opened):
    """Wait until the jobs that look have ended, and return their records."""
    found = list(jobs.standing(opened))
    until(lambda: all(is_over(opened, one) for one in found))
    return found


def bad(opened):
    """Return in how many windows in a row the features were not as in training."""
    state = alerts.state_of(opened, "churn")
    return state.streaks["features"].bad if state and "features" in state.streaks else 0


def is_over(opened, asked):
    handle = JobHandle(launcher=asked.launcher, name=asked.job)
    return opened.launcher(asked.launcher).poll([handle])[handle].status.is_final


def test_a_job_answers_as_one_does_here_and_the_report_is_kept(fresh):
    call(fresh, *usual(200, income=5000.0))
    by_job = monitors.monitor(fresh, "churn", on="local")
    assert by_job.verdict == "alert"
    kept = monitors.latest(fresh, served(fresh).deployment_id)
    assert kept.created_at == by_job.created_at
    assert alerts.state_of(fresh, "churn").streaks
    here = monitors.monitor(fresh, "churn")
    assert plain(by_job) == plain(here)
    assert here.history or by_job.history == here.history
    assert health.check(fresh).findings == ()


def test_hours_that_a_job_has_counted_are_not_counted_again(fresh, monkeypatch):
    call(fresh, *usual(120))
    deployment = served(fresh)
    (segment,) = calls.segments(fresh, deployment.deployment_id, None, None)
    segment.path.chmod(0o400)  # nothing is written to it any more
    first = monitors.monitor(fresh, "churn", on="local")
    assert [path.name for path in fresh.home.monitored(deployment.deployment_id).iterdir()] == [
        f"{segment.path.name}.json"
    ]
    monkeypatch.setattr(hours.spans, "counted", None)
    assert plain(monitors.monitor(fresh, "churn")) == plain(first)
    asked = jobs.submit(fresh, deployment, "local")
    inbox = fresh.home.job(asked.job).inbox
    assert list((inbox / layout.SEGMENTS_FOLDER).iterdir()) == []
    assert plain(monitors.monitor(fresh, "churn", on="local")) == plain(first)


def test_a_window_cuts_what_a_job_looks_at(fresh):
    call(fresh, *usual(60))
    time.sleep(1.2)
    call(fresh, *usual(90))
    assert monitors.monitor(fresh, "churn", on="local").window.rows == 150
    assert monitors.monitor(fresh, "churn", window="1s", on="local").window.rows in {0, 90}


def test_a_tick_submits_what_is_due_and_a_later_one_takes_it_in_once(fresh, monkeypatch):
    call(fresh, *usual(200, income=5000.0))
    fresh.settings = replace(fresh.settings, monitoring=HOURLY)
    before = bad(fresh)
    assert tick.tick(fresh).looked == ()
    (asked,) = ended(fresh)
    assert asked.window == "24h"
    looked = tick.tick(fresh).looked
    assert [(one.endpoint, one.verdict) for one in looked] == [("churn", "alert")]
    assert bad(fresh) == before + 1, "the window counts once"
    assert tick.tick(fresh).looked == ()
    assert list(jobs.standing(fresh)) == []
    now = fresh.now()
    monkeypatch.setattr(fresh, "now", lambda: now + timedelta(hours=2))
    tick.tick(fresh)
    (again,) = ended(fresh)
    assert again.job != asked.job
    assert [path for path in fresh.home.root.rglob(asked.job) if "locks" not in path.parts] == []
    tick.tick(fresh)


def test_the_same_look_twice_is_one_job(fresh):
    call(fresh, *usual(30))
    first = jobs.submit(fresh, served(fresh), "local", window="24h")
    assert jobs.submit(fresh, served(fresh), "local", window="24h") == first
    other = jobs.submit(fresh, served(fresh), "local", window="12h")
    assert other.job != first.job
    ended(fresh)
    assert len(list(jobs.take_in(fresh))) == 2
    assert len(list(jobs.take_in(fresh))) == 0


def test_a_job_that_leaves_nothing_is_told_and_the_next_one_is_due_in_its_time(fresh, monkeypatch):
    call(fresh, *usual(30))
    told = []
    monkeypatch.setattr(fresh, "warn", told.append)
    monkeypatch.setattr(jobs, "_program", lambda python: (python, "-c", "raise SystemExit(3)"))
    fresh.settings = replace(fresh.settings, monitoring=HOURLY)
    tick.tick(fresh)
    (asked,) = ended(fresh)
    assert tick.tick(fresh).looked == ()
    (line,) = told
    assert asked.job in line
    assert f"nbmlops logs {asked.job}" in line
    tick.tick(fresh)
    assert list(jobs.standing(fresh)) == [], "it is not asked again at once"
    with pytest.raises(jobs.LookFailed, match="could not look at the calls"):
        monitors.monitor(fresh, "churn", window="24h", on="local")


def test_what_a_job_could_not_do_is_told_with_its_own_words(fresh, monkeypatch):
    call(fresh, *usual(30))
    told = []
    monkeypatch.setattr(fresh, "warn", told.append)
    asked = jobs.submit(fresh, served(fresh), "local")
    ended(fresh)
    cause = {"code": "profile-too-old", "message": "it is old", "hint": "Train again."}
    fresh.home.job(asked.job).result("a1").write_bytes(dump({"cause": cause}))
    assert list(jobs.take_in(fresh)) == []
    (line,) = told
    assert "it is old" in line
    assert "Train again." in line


def test_what_a_job_says_of_other_segments_is_not_kept(fresh):
    call(fresh, *usual(30))
    asked = jobs.submit(fresh, served(fresh), "local")
    ended(fresh)
    path = fresh.home.job(asked.job).result("a1")
    path.write_bytes(path.read_bytes().replace(b'"counted":{', b'"counted":{"../../evil":[]', 1))
    assert len(list(jobs.take_in(fresh))) == 1
    assert list(fresh.home.root.rglob("evil*")) == []
    assert list(jobs.logs(fresh, asked.job) or ()) == ["30 rows answered by churn:1"]


def test_a_job_asks_for_what_the_pipeline_of_the_version_does_but_for_its_gpus(fresh, monkeypatch):
    launcher, launched = fresh.launcher("local"), []
    launch = launcher.launch
    monkeypatch.setattr(launcher, "launch", lambda job: launched.append(job) or launch(job))
    asks = Resources(cpu_cores=0.5, memory_mib=768, gpus=1, timeout_s=10)
    train = replace(fresh.settings.pipelines["train"], resources=asks)
    fresh.settings = replace(fresh.settings, pipelines={"train": train})
    monitors.monitor(fresh, "churn", on="local")
    (job,) = launched
    assert job.resources == replace(asks, gpus=0, timeout_s=jobs.TIMEOUT_S)


def test_a_look_that_cannot_be_asked_for_is_noted_and_due_in_its_time(fresh, monkeypatch):
    call(fresh, *usual(30))
    told, launcher = [], fresh.launcher("local")
    monkeypatch.setattr(fresh, "warn", told.append)

    def refused(_):
        raise LauncherUnavailable("nobody answers", "Ask again.")

    monkeypatch.setattr(launcher, "launch", refused)
    fresh.settings = replace(fresh.settings, monitoring=HOURLY)
    before = sorted(fresh.home.job("x").root.parent.iterdir())
    for _ in range(3):
        assert tick.tick(fresh).looked == ()
    assert told == ["churn: nobody answers"], "once, though two more ticks came"
    noted = jobs.newest(fresh, served(fresh).deployment_id, "24h")
    assert (noted.ended, noted.cause.message) == (True, "nobody answers")
    assert sorted(fresh.home.job("x").root.parent.iterdir()) == before


def test_a_look_whose_asker_was_killed_before_it_began_is_begun_by_the_next(fresh, monkeypatch):
    call(fresh, *usual(30))
    launcher = fresh.launcher("local")
    with monkeypatch.context() as patch:
        patch.setattr(launcher, "launch", lambda job: None)
        asked = jobs.submit(fresh, served(fresh), "local")
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    assert list(jobs.take_in(fresh)) == []
    ended(fresh)
    (report,) = jobs.take_in(fresh)
    assert (report.created_at, report.window.rows) == (asked.asked_at, 30)


def test_a_launcher_that_is_away_keeps_nobody_from_being_told(fresh, monkeypatch):
    call(fresh, *usual(30))
    jobs.submit(fresh, served(fresh), "local", window="12h")
    told, delivered = [], []

    def away(_):
        raise LauncherUnavailable("the engine is away", "Start it.")

    with monkeypatch.context() as patch:
        patch.setattr(fresh, "warn", told.append)
        patch.setattr(fresh.launcher("local"), "poll", away)
        patch.setattr(alerts, "deliver", delivered.append)
        assert list(jobs.take_in(fresh)) == []
        patch.setattr(monitors, "look_at_due", away)
        patch.setattr(tick, "runs", SimpleNamespace(unfinished=lambda _: None))
        for name in ("sweeps", "deployments", "stints", "shipping"):
            patch.setattr(tick, name, Mock())
        with pytest.raises(LauncherUnavailable):
            tick.tick(fresh)
    assert "the engine is away" in told[0]
    assert delivered == [fresh]
    ended(fresh)
    assert len(list(jobs.take_in(fresh))) == 1


@pytest.mark.parametrize(
    "lie",
    [{"model": "other"}, {"version": 2}, {"endpoint": "x"}, {"created_at": "2999-01-01T00:00:00Z"}],
)
def test_a_report_about_something_else_is_none(fresh, monkeypatch, lie):
    call(fresh, *usual(30))
    monkeypatch.setattr(fresh, "warn", lambda line: None)
    asked = jobs.submit(fresh, served(fresh), "local")
    ended(fresh)
    path = fresh.home.job(asked.job).result("a1")
    document = json.loads(path.read_bytes())
    document["report"] |= lie
    path.write_text(json.dumps(document))
    assert list(jobs.take_in(fresh)) == []
    assert monitors.latest(fresh, asked.deployment_id) is None


def test_a_report_that_comes_when_the_traffic_has_gone_is_kept_and_raises_nothing(fresh):
    call(fresh, *usual(200, income=5000.0))
    asked = jobs.submit(fresh, served(fresh), "local")
    ended(fresh)
    before = alerts.state_of(fresh, "churn")
    deployments.undeploy(fresh, "churn")
    try:
        (report,) = jobs.take_in(fresh)
        assert report.verdict == "alert"
        assert alerts.state_of(fresh, "churn") == before
        assert monitors.latest(fresh, asked.deployment_id).created_at == report.created_at
    finally:
        deployments.deploy(fresh, "churn:1")


def test_a_report_that_is_older_than_the_last_raises_nothing(fresh):
    call(fresh, *usual(200, income=5000.0))
    asked = jobs.submit(fresh, served(fresh), "local")
    ended(fresh)
    newer = monitors.monitor(fresh, "churn")
    before = alerts.state_of(fresh, "churn")
    (older,) = jobs.take_in(fresh)
    assert older.created_at < newer.created_at
    assert monitors.latest(fresh, asked.deployment_id).created_at == newer.created_at
    assert alerts.state_of(fresh, "churn") == before


def test_a_clock_that_was_ahead_silences_nothing(fresh, monkeypatch):
    call(fresh, *usual(40))
    fresh.settings = replace(fresh.settings, monitoring=replace(HOURLY, on=None))
    with monkeypatch.context() as patch:
        ahead = fresh.now() + timedelta(days=1)
        patch.setattr(fresh, "now", lambda: ahead)
        assert len(tick.tick(fresh).looked) == 1
    (report,) = tick.tick(fresh).looked
    assert report.created_at < ahead
    assert monitors.latest(fresh, served(fresh).deployment_id).created_at == report.created_at
    assert tick.tick(fresh).looked == ()


def test_an_endpoint_that_is_not_up_is_refused_before_anything_is_started(fresh):
    deployments.undeploy(fresh, "churn")
    try:
        with pytest.raises(UnknownEndpoint):
            monitors.monitor(fresh, "churn", on="local")
        assert list(jobs.standing(fresh)) == []
    finally:
        deployments.deploy(fresh, "churn:1")


def test_whoever_asks_and_is_killed_leaves_a_look_that_a_tick_takes_in(fresh, request):
    seed = request.config.getoption("--seed") or random.SystemRandom().randrange(2**32)
    print(f"--seed {seed}")
    chosen = random.Random(seed)
    call(fresh, *usual(150))
    for _ in range(4):
        asker = subprocess.Popen(
            [sys.executable, "-m", "nbmlops", "monitor", "churn", "--on", "local", "--json"],
            cwd=fresh.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            asker.wait(chosen.uniform(0.2, 2.0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(asker.pid, signal.SIGKILL)
        asker.wait()
    asked = monitors.monitor(fresh, "churn", on="local")
    assert asked.window.rows == 150
    ended(fresh)
    tick.tick(fresh)
    assert list(jobs.standing(fresh)) == []
    kept = fresh.store.page(jobs.KIND, LookJob, limit=100)
    mine = [one for one in kept if one.record.deployment_id == served(fresh).deployment_id]
    assert len(mine) == 1
    assert fresh.store.get(looking.KIND, served(fresh).deployment_id, MonitorReport)
    assert health.check(fresh).findings == ()
