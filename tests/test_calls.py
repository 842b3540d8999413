"""Logged calls as tables, one by its id, shipped and expired."""

import os
from datetime import UTC, datetime, timedelta

import pytest

import teams
from nbmlops import (
    calllog,
    calls,
    cleaning,
    deployments,
    endpoints,
    health,
    models,
    rebuilding,
    shipping,
    tick,
)
from nbmlops import workspace as workspaces
from nbmlops.calllog import CallLog
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing, UnknownCall, UnknownEndpoint
from nbmlops.project import CallSettings
from nbmlops.records import (
    DeploymentRecord,
    DeploymentStatus,
    OutputSchema,
    Prediction,
    replace,
)
from registered import deployed, version
from served import call, row
from teams import trained
from test_calllog import DEPLOYMENT, HOUR_MS, ROUTE, START_MS, Clock

NOW = datetime.fromtimestamp(START_MS / 1000, UTC)


def written(workspace, count, every_ms=HOUR_MS // 2):
    """Write some calls, and seal their segments."""
    clock = Clock()
    log = CallLog(workspace.home.calls, "cancer", now_ms=clock)
    made = []
    for number in range(count):
        records = [{"x": float(number)}, {"x": None}]
        answers = (Prediction(value=number / 2), Prediction(value=None, within_bounds=False))
        made.append(log.write(ROUTE, records, answers, latency_ms=2.5, client_id=f"c{number}"))
        clock.now_ms += every_ms
    log.close()
    return made


def renumbered(workspace, monkeypatch):
    """Log a call as of version 1, which is another's model now: ours has become version 2."""
    for classes, content in ((("x", "y"), "theirs"), (("a", "b"), "ours")):
        output = OutputSchema(kind="label", classes=classes, probabilities=True)
        monkeypatch.setattr(teams, "OutputSchema", lambda output=output, **_: output)
        ours = trained(workspace, content)
    deployed(workspace, ours, "iris-d1")
    rebuilding.repair(workspace)
    route = replace(
        ROUTE, deployment_id="iris-d1", model="iris", version=1,
        schema=models.schema(workspace, ours),
    )  # fmt: skip
    log = CallLog(workspace.home.calls, "iris")
    answer = (Prediction(label="a", probabilities={"a": 0.75, "b": 0.25}),)
    call = log.write(route, [{"width": 1.0}], answer, latency_ms=1.0)
    log.close()
    return call


def test_calls_are_read_by_the_number_that_their_version_has_now(workspace, monkeypatch):
    """A sync gives a version another number; the log keeps the one of that day."""
    call = renumbered(workspace, monkeypatch)
    window = calls.window(workspace, "iris")
    assert list(window) == [call]
    table = window.pandas()
    assert (call.version, list(table["version"])) == (1, [1])
    assert list(table["inputs.width"]) == [1.0]
    assert list(table["probability.b"]) == [0.25]
    assert "probability.y" not in table
    assert calls.versions_of(workspace, ["iris-d1", "iris-d2"]) == {"iris-d1": "iris:2"}
    assert calls.answered_by(call, {}) == "iris:1"


def test_where_the_store_was_lost_the_ledger_tells_who_answered(workspace, monkeypatch, tmp_path):
    renumbered(workspace, monkeypatch)
    environ = {**os.environ, "NBMLOPS_STORE_URL": f"sqlite:///{tmp_path}/new.sqlite"}
    opened = workspaces.open_at(workspace.root, environ=environ)
    assert calls.versions_of(opened, ["iris-d1"]) == {"iris-d1": "iris:2"}
    assert calls.endpoint_of(opened, "iris-d1") == "iris"
    opened.close()


def test_a_window_has_a_row_for_each_record_of_each_call(workspace):
    made = written(workspace, 5)
    found = calls.window(workspace, DEPLOYMENT)
    assert list(found) == made
    table = found.pandas()
    assert len(table) == 10
    assert list(table["call_id"][::2]) == [one.call_id for one in made]
    assert list(table["row"]) == [0, 1] * 5
    assert str(table["at"].dtype).endswith("UTC]")
    assert list(table["within_bounds"]) == [True, False] * 5
    assert list(calls.window(workspace, DEPLOYMENT, made[2].at, made[4].at)) == made[2:4]
    assert [len(batch) for batch in found.batches(2)] == [2, 2, 1]


def test_arrow_and_pandas_say_the_same(workspace):
    written(workspace, 7)
    found = calls.window(workspace, DEPLOYMENT)
    arrow, frame = found.arrow(), found.pandas()
    assert arrow.column_names == list(frame.columns)
    assert arrow["call_id"].to_pylist() == list(frame["call_id"])
    assert arrow["latency_ms"].to_pylist() == [2.5] * 14
    empty = calls.window(workspace, DEPLOYMENT, NOW + timedelta(days=9))
    assert empty.arrow().num_rows == len(empty.pandas()) == 0
    assert list(empty.pandas().columns) == empty.arrow().column_names


def test_a_name_that_never_was_is_unknown(workspace):
    with pytest.raises(UnknownEndpoint) as caught:
        calls.window(workspace, "nothing")
    assert "nbmlops deploy nothing" in caught.value.hint
    with pytest.raises(UnknownEndpoint, match="no deployment `nothing`"):
        calls.window(workspace, "deployment/nothing")


def test_a_deployment_is_named_with_its_kind_or_without(workspace):
    made = written(workspace, 2)
    assert list(calls.window(workspace, DEPLOYMENT)) == made
    assert list(calls.window(workspace, f"deployment/{DEPLOYMENT}")) == made
    assert calls.endpoint_of(workspace, f"deployment/{DEPLOYMENT}") == "cancer"
    assert calls.endpoint_of(workspace, "cancer") == "cancer"
    with pytest.raises(UnknownEndpoint):  # an endpoint is no deployment
        calls.window(workspace, "deployment/cancer")


def test_a_shipped_segment_that_is_lost_comes_back_from_the_artifacts(workspace):
    made = written(workspace, 4)
    folder = workspace.home.calls / DEPLOYMENT
    assert shipping.ship(workspace) == 2
    assert shipping.ship(workspace) == 0
    for segment in folder.glob("*.jsonl"):
        segment.unlink()
    with pytest.raises(UnknownCall):
        calllog.find(workspace.home.calls, made[3].call_id)
    assert calls.find(workspace, made[3].call_id) == made[3]
    assert calls.find(workspace, made[0].call_id) == made[0]
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.jsonl")} == {0o400}
    assert calllog.verify(workspace.home.calls, DEPLOYMENT).problems == ()


def lost(workspace):
    """Ship all segments and lose them."""
    shipping.ship(workspace)
    for segment in workspace.home.calls.glob("*/*.jsonl"):
        segment.unlink()


def test_a_window_and_many_ids_bring_lost_segments_back_as_one_id_does(workspace):
    made = written(workspace, 6)
    lost(workspace)
    assert list(calls.window(workspace, DEPLOYMENT, made[2].at, made[4].at)) == made[2:4]
    folder = workspace.home.calls / DEPLOYMENT
    assert len(list(folder.glob("*.jsonl"))) < 3  # what lies outside stays away
    assert list(calls.window(workspace, "cancer")) == made
    lost(workspace)
    wanted = [made[5].call_id, made[0].call_id, "nope"]
    assert list(calls.find_many(workspace, DEPLOYMENT, wanted)) == [made[0], made[5]]
    assert calllog.verify(workspace.home.calls, DEPLOYMENT).problems


def test_doctor_tells_lost_segments_and_brings_them_back(workspace):
    made = written(workspace, 6)
    record = DeploymentRecord(
        endpoint="cancer", url="http://127.0.0.1:9", deployment_id=DEPLOYMENT, model="cancer",
        version=3, commit="a" * 40, launcher="local", author="Ada", created_at=NOW,
        status=DeploymentStatus.STOPPED,
    )  # fmt: skip
    workspace.store.swap(deployments.KIND, DEPLOYMENT, record, expected=0, key="made")
    lost(workspace)
    found = health.check(workspace)
    assert {finding.code for finding in found.findings} == {"calls-away"}
    assert found.invariants["I6"] == "broken"
    assert "doctor --repair" in found.findings[0].fix
    assert {finding.code for finding in health.repair(workspace)} == {"calls-away"}
    assert health.check(workspace).findings == ()
    assert list(calls.window(workspace, DEPLOYMENT)) == made
    # What the artifacts do not have either stays told as what is missing.
    lost(workspace)
    for _, shipment in shipping.shipments(workspace.home.calls):
        workspace.artifacts.remove(shipment.digest)
    assert health.repair(workspace) == ()
    assert {one.code for one in health.check(workspace).findings} == {"calls-damaged"}


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\x00", b'{"digest": "../x", "bytes": 1}'])
def test_a_damaged_note_is_told_and_stops_only_what_needs_it(workspace, data):
    made = written(workspace, 2)
    shipping.ship(workspace)
    (note,) = workspace.home.calls.glob(f"*/*{shipping.SUFFIX}")
    note.write_bytes(data)
    assert cleaning.clean(workspace).freed == ()
    assert list(calls.window(workspace, "cancer")) == made
    found = [one for one in health.check(workspace).findings if one.code == "note-damaged"]
    assert note.name in found[0].message
    assert "doctor --repair" in found[0].fix
    assert [finding.code for finding in health.repair(workspace)] == ["note-damaged"]
    assert shipping.ship(workspace) == 1
    # Without its segment nobody knows which artifact it is: nothing is freed by guesses.
    note.write_bytes(data)
    shipping.of_note(note).unlink()
    for refused in (
        lambda: cleaning.clean(workspace),
        lambda: list(calls.window(workspace, "cancer")),
        lambda: calls.find(workspace, made[0].call_id),
    ):
        with pytest.raises(ArtifactCorrupt, match="was changed"):
            refused()
    assert health.repair(workspace) == ()
    told = [one for one in health.check(workspace).findings if one.code == "note-damaged"]
    assert "backup" in told[0].fix


def test_what_neither_the_log_nor_the_artifacts_have_says_so(workspace):
    (made,) = written(workspace, 1)
    shipping.ship(workspace)
    ((segment, shipment),) = shipping.shipments(workspace.home.calls)
    segment.unlink()
    kept = workspace.home.artifacts / shipment.digest[:2] / shipment.digest[2:]
    kept.unlink()
    with pytest.raises(ArtifactMissing):
        calls.find(workspace, made.call_id)


def test_a_tick_ships_what_is_sealed_and_nothing_that_is_written(workspace):
    log = CallLog(workspace.home.calls, "cancer")
    log.write(ROUTE, [{"x": 1.0}], (Prediction(value=1.0),), latency_ms=1.0)
    log.sync()
    assert tick.tick(workspace).ours
    assert list(shipping.shipments(workspace.home.calls)) == []
    log.close()
    assert tick.tick(workspace).ours
    assert len(list(shipping.shipments(workspace.home.calls))) == 1


def test_a_tick_ships_no_longer_than_its_time(workspace):
    written(workspace, 8)
    assert shipping.ship(workspace, limit_s=-1.0) == 1
    assert shipping.ship(workspace) == 3


def test_expired_calls_go_with_their_notes_and_the_rest_verifies(workspace):
    made = written(workspace, 8)  # four segments of an hour
    shipping.ship(workspace)
    keep = timedelta(days=1)
    now = NOW + keep + timedelta(hours=2, minutes=30)
    gone = calllog.drop_expired(workspace.home.calls, now, keep)
    assert (gone.segments, gone.records) == (2, 4)
    found = calllog.verify(workspace.home.calls, DEPLOYMENT)
    assert found.problems == ()
    assert (found.answered, found.records, found.expired, found.drops) == (8, 4, 4, 0)
    with pytest.raises(UnknownCall):
        calls.find(workspace, made[0].call_id)
    assert list(calls.window(workspace, DEPLOYMENT)) == made[4:]
    assert len(list(shipping.shipments(workspace.home.calls))) == 2
    assert calllog.drop_expired(workspace.home.calls, now, keep).segments == 0


def test_without_a_length_calls_are_kept_for_ever(workspace):
    written(workspace, 2)
    assert calls.drop_expired(workspace).segments == 0


@pytest.mark.slow
def test_columns_are_typed_by_the_models_schema(churn):
    answer = call(churn, row(31), row(99, city="Oslo"))
    since = calls.find(churn, answer["call_id"]).at
    table = calls.window(churn, "churn", since).arrow()
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert kinds["inputs.age"] == "int64"
    assert kinds["inputs.income"] == "double"
    assert kinds["inputs.member"] == "bool"
    assert kinds["inputs.city"] == "string"
    assert kinds["prediction"] == "string"
    assert kinds["probability.yes"] == "double"
    rows = [one for one in table.to_pylist() if one["call_id"] == answer["call_id"]]
    assert [one["inputs.age"] for one in rows] == [31, 99]
    assert [one["prediction"] for one in rows] == [p["label"] for p in answer["predictions"]]
    frame = calls.window(churn, endpoints.running(churn, "churn").deployment_id, since).pandas()
    assert str(frame["inputs.age"].dtype) == "Int64"


def test_a_column_that_is_to_be_withheld_and_that_no_model_has_is_warned_of(workspace):
    said = []
    workspace.warn = said.append
    one, other = version(workspace, 1), version(workspace, 1, model="tulip")
    settings = CallSettings(never=("city", "widht"), hashed=("width", "email"))
    workspace.settings = replace(workspace.settings, calls=settings)
    calls.warn_of_unknown(workspace, one)
    assert len(said) == 2
    assert "`never` of [calls] names `widht`" in said[0]
    assert "Did you mean `width`?" in said[0]
    assert "`hashed` of [calls] names `email`" in said[1]
    said.clear()
    workspace.settings = replace(workspace.settings, calls=CallSettings(never=("city",)))
    calls.warn_of_unknown(workspace, other)
    assert said == []


def test_a_column_of_another_model_is_not_warned_of(workspace):
    said = []
    workspace.warn = said.append
    one = version(workspace, 1)
    trained(workspace, "tulips have a width alone", model="tulip")
    workspace.settings = replace(workspace.settings, calls=CallSettings(never=("city",)))
    calls.warn_of_unknown(workspace, models.find(workspace, "tulip"))
    assert said == []
    # A schema that is not in reach says nothing about what is in it.
    workspace.artifacts.remove(one.files["schema"].digest)
    calls.warn_of_unknown(workspace, one)
    assert said == []
