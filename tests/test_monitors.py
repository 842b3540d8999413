"""Monitoring what the call log has."""

import json
import random
import re
import urllib.request

import pytest

from nbmlops import deployments, endpoints, monitors, traces
from nbmlops.project import CallSettings
from nbmlops.records import replace
from served import call, row
from serving import until

pytestmark = pytest.mark.slow


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


def test_a_window_is_looked_at_in_parts_as_it_would_be_whole(churn, monkeypatch):
    for ages in (range(40), range(40, 90), range(90, 120)):
        call(churn, *(row(age) for age in ages))
    whole = monitors.monitor(churn, "churn")
    usual = monitors.calls.Calls.batches
    monkeypatch.setattr(monitors.calls.Calls, "batches", lambda calls: usual(calls, 1))
    parts = monitors.monitor(churn, "churn")
    assert parts.window == whole.window
    assert parts.questions == whole.questions
    assert [c.verdict for c in parts.columns] == [c.verdict for c in whole.columns]


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
