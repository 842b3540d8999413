"""Monitoring what the call log has."""

import pytest

from nbmlops import deployments, monitors
from nbmlops.project import CallSettings
from nbmlops.records import replace
from served import call, row

pytestmark = pytest.mark.slow


def test_columns_that_are_kept_out_of_the_log_are_unknown_and_raise_no_alarm(churn):
    churn.settings = replace(churn.settings, calls=CallSettings(never=("city",), hashed=("age",)))
    try:
        deployments.deploy(churn, "churn:1")
        call(churn, *(row(age, city=["Bern", "Rome", "Oslo"][age % 3]) for age in range(120)))
        report = monitors.monitor(churn, "churn")
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
