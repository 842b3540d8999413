"""Which programs call: counted in spans, and named where calls have changed."""

from datetime import UTC, datetime, timedelta

import pytest

from nbmlops.monitoring import answering, spans
from nbmlops.monitoring.profile import Gauge, reference_profile
from nbmlops.monitoring.shown import Shown
from nbmlops.monitoring.spans import Against
from nbmlops.monitors import hours
from nbmlops.records import CallRecord, Column, ModelSchema, OutputSchema, Prediction, dump, load

BEGAN = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
SCHEMA = ModelSchema(
    columns=(Column(name="age", kind="number"),),
    output=OutputSchema(kind="label", classes=("a", "b")),
)
GAUGE = Gauge(reference_profile({"age": range(500)}, {"age": "number"}, ["a", "b"] * 250))
AGAINST = Against(GAUGE, Shown(None, SCHEMA), "profile")


def calls(clients, begins=0):
    """Return a call a second, by these clients."""
    return [
        CallRecord(
            call_id=f"{begins + number:032x}-cancer-w1",
            sequence=begins + number + 1,
            at=BEGAN + timedelta(seconds=begins + number),
            endpoint="cancer",
            deployment_id="cancer-w1",
            model="cancer",
            version=1,
            commit="c" * 40,
            records=({"age": float(number % 500)},),
            predictions=(Prediction(label="a"),),
            latency_ms=1.0,
            client=client,
        )
        for number, client in enumerate(clients)
    ]


def counted(found):
    return list(spans.counted(found, AGAINST))


def told(before, after, split=None):
    """Return what is said of the clients after a change."""
    found = counted(calls(before)) + counted(calls(after, len(before)))
    split = split or len(counted(calls(before)))
    merged = spans.merged(found[split:])
    return list(answering._new_clients(found, split, merged))


def test_a_span_counts_who_called():
    (one,) = counted(calls(["app/1", "app/1", None, "curl/8"]))
    assert one.clients == {"app/1": 2, "curl/8": 1}
    assert one.calls == 4
    assert load(dump(one), spans.Span) == one


def test_spans_add_up_and_name_the_most_frequent():
    many = [f"app/{number:03}" for number in range(60)] + ["app/000"] * 30 + ["curl/8"] * 10
    found = counted(calls(many * 3))
    assert len(found) > 1
    whole = spans.merged(found)
    assert len(whole.clients) == spans.CLIENTS
    assert list(whole.clients)[:2] == ["app/000", "curl/8"]
    assert whole.clients["app/000"] == 93
    assert whole.calls == len(many * 3)


def test_spans_that_were_kept_without_clients_are_counted_anew(tmp_path):
    (one,) = counted(calls(["app/1"]))
    kept = hours.Kept(format=1, reference="profile", spans=(one,))
    (tmp_path / "kept.json").write_bytes(dump(kept))
    assert hours._kept(tmp_path / "kept.json", "profile") is None


def test_a_client_that_comes_with_a_change_is_named():
    (one,) = told(["app/1"] * 300, ["app/1"] * 150 + ["loader/3"] * 150)
    assert one.kind == "client"
    assert one.at == BEGAN + timedelta(seconds=400), "the first span that has it"
    assert one.message == "`loader/3` makes 50% of the calls since then, and made none before"


def test_a_client_that_hardly_called_before_is_named_with_what_it_did():
    (one,) = told((["app/1"] * 199 + ["loader/3"]) * 3, ["loader/3"] * 200)
    assert one.message.endswith("makes 100% of the calls since then, and made 0.4% of them before")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["app/1"] * 200, ["app/1"] * 200),
        ((["app/1"] * 18 + ["loader/3"] * 2) * 10, ["loader/3"] * 200),
        (["app/1"] * 200, ["app/1"] * 192 + ["loader/3"] * 8),
        ([None] * 200, ["loader/3"] * 200),
        (["app/1"] * 200, [None] * 200),
    ],
    ids=["the same", "known", "rare", "nobody said who he was", "nobody says who he is"],
)
def test_who_is_not_new_is_not_named(before, after):
    assert told(before, after) == []


def test_a_span_that_holds_both_sides_of_a_change_hides_nobody():
    found = told(["app/1"] * 290 + ["loader/3"] * 10, ["loader/3"] * 300)
    assert [one.at for one in found] == [BEGAN + timedelta(seconds=200)]


def test_a_few_are_named_those_who_call_most():
    after = ["a/1"] * 10 + ["b/1"] * 40 + ["c/1"] * 30 + ["d/1"] * 20
    found = told(["app/1"] * 200, after * 2)
    assert [one.message[1:4] for one in found] == ["b/1", "c/1", "d/1"]
