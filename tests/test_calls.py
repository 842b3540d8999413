"""Logged calls as tables, one by its id, shipped and expired."""

from datetime import UTC, datetime, timedelta

import pytest

from nbmlops import calllog, calls, endpoints, shipping, tick
from nbmlops.calllog import CallLog
from nbmlops.errors import ArtifactMissing, UnknownCall, UnknownEndpoint
from nbmlops.records import Prediction
from served import call, row
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
    assert tick.tick(workspace)
    assert list(shipping.shipments(workspace.home.calls)) == []
    log.close()
    assert tick.tick(workspace)
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
