"""Monitoring what the call log has."""

import csv
import json
import random
import re
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from nbmlops import actuals, alerts, deployments, endpoints, monitors, tick, traces
from nbmlops.errors import UnknownEndpoint
from nbmlops.monitoring import answering, spans
from nbmlops.monitors import hours, looking
from nbmlops.project import CallSettings, MonitoringSettings
from nbmlops.records import MonitorReport, dump, replace
from served import call, row
from serving import until

pytestmark = pytest.mark.slow

CITIES = ["Bern", "Rome", "Oslo"]


def usual(count, first=0, **changes):
    """Return rows as training had them."""
    return [
        row(
            age % 120,
            city=CITIES[age % 3],
            member=age % 2 == 0,
            income=1000.5 + 7.25 * (age % 13),
            **changes,
        )
        for age in range(first, first + count)
    ]


@pytest.fixture
def fresh(churn):
    """The project with an endpoint that nobody has called yet."""
    deployments.undeploy(churn, "churn")
    deployments.deploy(churn, "churn:1")
    return churn


def verdicts(report):
    return {column.name: column.verdict for column in report.columns}


def test_columns_that_are_kept_out_of_the_log_are_unknown_and_raise_no_alarm(churn):
    churn.settings = replace(churn.settings, calls=CallSettings(never=("city",), hashed=("age",)))
    try:
        deployments.deploy(churn, "churn:1")
        call(churn, *(row(age, city=["Bern", "Rome", "Oslo"][age % 3]) for age in range(120)))
        report = monitors.monitor(churn, "churn")
        (route,) = endpoints.told(churn, "churn")
        assert re.findall(rb'"city"|"age"|Bern', route.profile) == []
    finally:
        churn.settings = replace(churn.settings, calls=CallSettings())
        deployments.deploy(churn, "churn:1")
    found = {column.name: column for column in report.columns}
    assert set(found) >= {"city", "age", "member", "income"}
    for name in ("city", "age"):
        assert found[name].verdict == "unknown"
        assert "[calls]" in found[name].reason
    assert found["member"].verdict != "unknown"


def test_what_breaks_half_way_is_found_with_its_time_its_share_and_what_it_was(fresh):
    for first in range(0, 600, 100):
        call(fresh, *usual(100, first))
    whole = monitors.monitor(fresh, "churn")
    assert verdicts(whole)["income"] == "ok"
    assert whole.explanation is None
    broke_at = datetime.now(UTC)
    for first in range(0, 300, 100):
        call(fresh, *(one | {"income": one["income"] * 1000} for one in usual(100, first)))
    report = monitors.monitor(fresh, "churn")
    assert report.verdict == "alert"
    assert [name for name, verdict in verdicts(report).items() if verdict == "drift"] == ["income"]
    assert report.explanation is not None
    (suspect,) = report.explanation.suspects
    assert (suspect.column, suspect.share) == ("income", 1.0)
    assert (suspect.change, suspect.factor) == ("unit", 1000.0)
    assert abs(report.explanation.since - broke_at) < timedelta(seconds=30)
    assert report.changed_since == report.explanation.since
    (told,) = [one for one in report.explanation.coincidences if one.kind == "pipeline"]
    assert "income is about 1000 times" in told.message
    effects = [slice_.columns["income"].effect for slice_ in report.history]
    assert effects[0] < 0.1
    assert effects[-1] > 0.9
    assert report.traffic.rows == 900
    assert 0 < report.traffic.latency_p50_ms <= report.traffic.latency_p99_ms


def test_a_window_that_is_chosen_is_looked_at_alone_and_not_kept(fresh):
    call(fresh, *usual(60))
    between = fresh.now()
    call(fresh, *usual(90))
    kept = monitors.monitor(fresh, "churn")
    assert kept.window.rows == 150
    first = monitors.between(fresh, "churn", between - timedelta(hours=1), between)
    second = monitors.between(fresh, "churn", between, between + timedelta(hours=1))
    assert (first.window.rows, second.window.rows) == (60, 90)
    deployment = deployments.pointed(fresh, "churn").deployment_id
    assert monitors.latest(fresh, deployment).created_at == kept.created_at
    assert monitors.latest(fresh, deployment).window == kept.window


def test_sealed_calls_are_counted_once_and_a_lost_count_is_made_again(fresh, monkeypatch):
    for first in range(0, 300, 60):
        call(fresh, *usual(60, first))
    deployment = deployments.pointed(fresh, "churn").deployment_id
    deployments.undeploy(fresh, "churn")  # which seals the segment
    deployments.deploy(fresh, "churn:1")
    record = deployments.get(fresh, deployment)
    options = {"since": None, "until": None, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    anew = looking.look(fresh, record, **options)
    (kept,) = fresh.home.monitored(deployment).glob("*.json")
    monkeypatch.setattr(spans, "counted", None)  # nobody counts again
    assert looking.look(fresh, record, **options) == anew
    monkeypatch.undo()
    for damage in (b"", b"{", dump(hours.Kept(format=0, reference="", spans=()))):
        kept.write_bytes(damage)
        assert looking.look(fresh, record, **options) == anew
    assert anew.window.rows == 300


def test_actuals_that_come_late_answer_the_fourth_question(fresh, tmp_path):
    answers = [call(fresh, *usual(100, first)) for first in (0, 100)]
    before = monitors.monitor(fresh, "churn").questions.performance
    assert before.answer == "unknown"
    with (tmp_path / "truths.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["call_id", "row", "actual"])
        for answer in answers:
            for place, one in enumerate(answer["predictions"]):
                writer.writerow([answer["call_id"], place, one["label"]])
    actuals.take(fresh, "churn", tmp_path / "truths.csv")
    found = monitors.monitor(fresh, "churn").questions.performance
    assert found.evidence["actuals"] == 200


def test_an_alert_is_raised_once_and_told(fresh):
    told = fresh.home.alerts
    lines = len(told.read_text().splitlines()) if told.exists() else 0
    for first in range(3):
        call(fresh, *(one | {"income": 9e6 + first} for one in usual(60)))
        monitors.monitor(fresh, "churn")
    new = [json.loads(line) for line in told.read_text().splitlines()[lines:]]
    assert [one["event"] for one in new] == ["raised"]
    assert alerts.state_of(fresh, "churn") is not None


def test_whoever_ticks_looks_at_what_is_due(fresh):
    call(fresh, *usual(40))
    deployment = deployments.pointed(fresh, "churn").deployment_id
    assert monitors.latest(fresh, deployment) is None
    tick.tick(fresh)
    assert monitors.latest(fresh, deployment) is None
    fresh.settings = replace(fresh.settings, monitoring=MonitoringSettings(every="1h"))
    try:
        tick.tick(fresh)
        seen = monitors.latest(fresh, deployment)
        assert seen.window.rows == 40
        tick.tick(fresh)
        assert monitors.latest(fresh, deployment) == seen
    finally:
        fresh.settings = replace(fresh.settings, monitoring=MonitoringSettings())


def test_all_endpoints_are_looked_at_where_none_is_named(fresh):
    call(fresh, *usual(40))
    (report,) = monitors.monitor_all(fresh)
    assert isinstance(report, MonitorReport)
    assert report.endpoint == "churn"
    deployments.undeploy(fresh, "churn")
    try:
        with pytest.raises(UnknownEndpoint, match="no endpoint is up"):
            monitors.monitor_all(fresh)
    finally:
        deployments.deploy(fresh, "churn:1")


def test_a_profile_of_an_older_form_is_refused_with_what_to_do():
    with pytest.raises(answering.ProfileTooOld, match="is not read"):
        answering._gauge(b'{"rows": 3, "columns": [], "format": 1}')


def sent_by(opened, client, *records):
    url = endpoints.running(opened, "churn").url
    headers = {"User-Agent": client, "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url}/predict", json.dumps(records).encode(), headers)
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def like_training(numbers):
    return [
        row(
            age, city=["Bern", "Rome", "Oslo"][age % 3], member=age % 2 == 0,
            income=1000.5 + 7.25 * (age % 13),
        )
        for age in random.Random(7).sample(numbers, len(numbers))
    ]  # fmt: skip


def test_a_new_client_is_named_and_metrics_tell_of_its_calls(churn):
    deployments.deploy(churn, "churn:2")
    try:
        for _ in range(2):
            sent_by(churn, "app/1.0", *like_training(range(120)))
        for _ in range(24):
            sent_by(churn, "loader/3", *like_training(range(400, 520)))
        call_id = call(churn, row())["call_id"]
        report = monitors.monitor(churn, "churn")
        url = endpoints.running(churn, "churn").url

        def told():
            with urllib.request.urlopen(f"{url}/metrics") as answer:
                found = re.search(
                    r'nbmlops_feature_effect\{.*version="2",column="age".*\} ([0-9.]+)',
                    answer.read().decode(),
                )
            return float(found[1]) if found else 0.0

        until(lambda: told() > 0.3)
    finally:
        deployments.deploy(churn, "churn:1")
    assert report.explanation is not None
    named = [one for one in report.explanation.coincidences if one.kind == "client"]
    assert [one.message.split("`")[1] for one in named] == ["loader/3"]
    assert traces.trace(churn, f"call/{call_id}").call["client"].startswith("nbmlops/")


def test_a_front_without_a_profile_is_handed_one(churn):
    job = endpoints.handle(endpoints.running(churn, "churn"))
    before = endpoints.given(churn, job)
    assert b"city" in before.routes[0].profile
    older = replace(
        before,
        revision=endpoints.point(churn, "churn", before.routes[0].deployment_id).revision,
        routes=(replace(before.routes[0], profile=None),),
    )
    endpoints.serve(churn, endpoints.running(churn, "churn"), older.routes)
    assert endpoints.told(churn, "churn")[0].profile is None
    deployments.deploy(churn, "churn:1")
    assert endpoints.told(churn, "churn")[0].profile == before.routes[0].profile
