"""Logged calls run again."""

import math

import pytest

from nbmlops import calls, deployments, endpoints, replays
from nbmlops.errors import UnknownCall, UnknownEndpoint, WrongUse
from nbmlops.project import CallSettings
from nbmlops.records import replace
from served import call, row

pytestmark = pytest.mark.slow


def test_a_call_gets_the_same_answer_again(churn):
    answer = call(churn, row(20), row(100, city="Bern"))
    for reference in (f"call/{answer['call_id']}", answer["call_id"]):
        found = replays.replay(churn, reference)
        assert (found.verdict, found.compared, found.equal) == ("green", 2, 2)
        assert found.different == ()
        assert found.against is None
        assert found.rtol == 1e-9
    assert found.latency_is_ms > 0


def test_the_newest_calls_of_an_endpoint_meet_their_own_versions(churn):
    call(churn, row(10))
    deployments.deploy(churn, "churn:2")
    try:
        newest = call(churn, row(11))
        found = replays.replay(churn, "churn", last=2)
    finally:
        deployments.deploy(churn, "churn:1")
    assert (found.verdict, found.calls, found.equal) == ("green", 2, 2)
    assert set(found.versions) == {"churn:1", "churn:2"}
    assert calls.find(churn, newest["call_id"]).version == 2


def test_the_newest_calls_of_a_deployment_are_named_as_trace_names_it(churn):
    call(churn, row(12))
    deployment_id = endpoints.running(churn, "churn").deployment_id
    for reference in (deployment_id, f"deployment/{deployment_id}"):
        found = replays.replay(churn, reference, last=1)
        assert (found.verdict, found.calls, found.versions) == ("green", 1, ("churn:1",))
    with pytest.raises(UnknownEndpoint, match="no deployment `churn`"):
        replays.replay(churn, "deployment/churn")


def test_another_version_differs_and_says_how(churn):
    answers = [call(churn, row(age)) for age in (1, 2, 118)]
    found = replays.replay(churn, "churn", last=3, against="churn:2")
    assert (found.verdict, found.against) == ("red", "churn:2")
    assert found.different_total == len(found.different) == 3
    assert [one["call_id"] for one in found.different] == [one["call_id"] for one in answers]
    assert found.different[0]["was"]["label"] == "no"
    assert set(found.different[0]) == {"call_id", "row", "version", "was", "is"}
    assert 0 < found.difference_mean <= found.difference_max <= 1
    loose = replays.replay(churn, "churn", last=3, against="churn:2", rtol=0.999)
    assert loose.equal + loose.different_total == 3
    assert sum(loose.changes.values()) == loose.different_total


def test_a_redacted_call_cannot_be_run_again_and_is_unknown(churn):
    churn.settings = replace(churn.settings, calls=CallSettings(never=("city",), hashed=("age",)))
    try:
        deployments.deploy(churn, "churn:1")
        hidden = call(churn, row(55_555, city="Rome"))
        logged = calls.find(churn, hidden["call_id"])
        assert logged.redacted == ("age", "city")
        assert logged.records[0].keys() == {"age", "member", "income"}
        assert len(logged.records[0]["age"]) == 32
        found = replays.replay(churn, f"call/{hidden['call_id']}")
        assert (found.verdict, found.compared, found.unknown) == ("unknown", 0, 1)
        assert "`city`" in found.reason
        raw = [path.read_bytes() for path in churn.home.calls.glob("*/*.jsonl")]
        assert not any(b'"age":55555' in data for data in raw)
    finally:
        churn.settings = replace(churn.settings, calls=CallSettings())
        deployments.deploy(churn, "churn:1")
    shown = call(churn, row(56_565))
    assert calls.find(churn, shown["call_id"]).records[0]["age"] == 56_565
    assert not calls.find(churn, shown["call_id"]).redacted


def test_what_another_versions_schema_refuses_differs_with_the_reason(churn, monkeypatch):
    from nbmlops import schema
    from nbmlops.errors import InvalidRecords

    call(churn, row(33))

    def refuse(*_):
        raise InvalidRecords("records[0], column `age` is not a column of the model")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "check", refuse)
        found = replays.replay(churn, "churn", last=1, against="churn:2")
    assert (found.verdict, found.compared) == ("red", 1)
    assert "`age`" in found.different[0]["reason"]
    assert found.different[0]["is"] is None


def test_what_is_not_there_is_said(churn):
    with pytest.raises(UnknownCall):
        replays.replay(churn, "call/zz")
    with pytest.raises(UnknownEndpoint):
        replays.replay(churn, "nothing")
    with pytest.raises(WrongUse):
        replays.replay(churn, "churn", rtol=math.nan)
    with pytest.raises(WrongUse):
        replays.replay(churn, "churn", last=0)
    assert endpoints.running(churn, "churn")
