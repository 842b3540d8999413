"""Live calls beside the training data: who counts them, what is dropped, what is left out."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from nbmlops.front import watch as watches
from nbmlops.front.watch import Watch
from nbmlops.monitoring.profile import reference_profile
from nbmlops.records import Prediction, dump, load
from serving import Process, ask, model, route, until
from test_front import READY, counts, document, predict, put, table_of, world  # noqa: F401

KINDS = {"city": "category", "age": "number", "member": "boolean"}
FEATURES = {
    "city": ["Bern", "Rome", "Oslo"] * 20,
    "age": list(range(60)),
    "member": [True, False] * 30,
}
ROW = {"city": "Bern", "age": 41, "member": True}
WATCHED = '{deployment="cancer-w1",model="cancer",version="3"}'


def profile():
    target = ["yes" if age > 30 else "no" for age in range(60)]
    return dump(reference_profile(FEATURES, KINDS, target))


def watched_route(address="unix:/nowhere", **changes):
    return route("mixed", address, **{"profile": profile(), **changes})


def rows(count, **changes):
    return [ROW | {"age": age % 60} | changes for age in range(count)]


def named(metric, column, effect=None):
    more = f',effect="{effect}"' if effect else ""
    return f'{metric}{{deployment="cancer-w1",model="cancer",version="3",column="{column}"{more}}}'


class Clock:
    now_s = 10_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def watch():
    told = []
    clock = Clock()
    made = Watch(told.append, clock=clock, interval_s=0.01)
    made.told, made.clock = told, clock
    yield made
    made.close()


def take(watch, one, records, label="yes"):
    watch.take(one, records, [Prediction(label=label)] * len(records))


def seen(watch, count, name="cancer-w1"):
    """Return what is seen once so many rows are."""
    return until(
        lambda: (found := watch.seen.get(name)) is not None and found.rows == count and found
    )


# --- counting -----------------------------------------------------------------------------------


def test_what_is_answered_adds_up(watch):
    one = watched_route()
    watch.point([one])
    for number in range(1, 6):
        take(watch, one, rows(20))
        found = seen(watch, 20 * number)
    assert [size.name for size in found.columns] == ["city", "age", "member"]
    assert found.columns[0].value > 0.4, "all of one city"
    assert found.prediction.value > 0.3
    assert watch.dropped == {"cancer-w1": 0}


def test_an_hour_is_remembered(watch):
    one = watched_route()
    watch.point([one])
    take(watch, one, rows(40))
    seen(watch, 40)
    watch.clock.now_s += 1800
    take(watch, one, rows(30))
    seen(watch, 70)
    watch.clock.now_s += 1800
    take(watch, one, rows(1))
    seen(watch, 31)


def test_what_nobody_calls_any_more_is_forgotten(watch, monkeypatch):
    monkeypatch.setattr(watches, "_SLIDE_S", 0.02)
    one = watched_route()
    watch.point([one])
    take(watch, one, rows(40))
    seen(watch, 40)
    watch.clock.now_s += 3601
    until(lambda: not watch.seen)


def test_each_deployment_has_a_gauge_of_its_own(watch):
    first, second = watched_route(), watched_route(deployment="cancer-w2")
    watch.point([first, second])
    take(watch, first, rows(40))
    take(watch, second, rows(50, city="Paris"))
    assert seen(watch, 40).columns[0].new_category_share == 0
    assert seen(watch, 50, "cancer-w2").columns[0].new_category_share == 1
    watch.point([second])
    take(watch, first, rows(9))
    take(watch, second, rows(1))
    seen(watch, 51, "cancer-w2")
    until(lambda: set(watch.seen) == {"cancer-w2"})
    assert watch.dropped == {"cancer-w2": 0}


def test_a_deployment_that_comes_while_others_are_counted_loses_nothing(watch):
    watch._interval_s = 0.5
    first, second = watched_route(), watched_route(deployment="cancer-w2")
    watch.point([first])
    take(watch, first, rows(40))
    time.sleep(0.1)  # so the thread waits for more
    watch.point([first, second])
    take(watch, second, rows(50))
    seen(watch, 50, "cancer-w2")
    assert watch.dropped == {"cancer-w1": 0, "cancer-w2": 0}


def test_a_wider_redaction_begins_anew(watch):
    one = watched_route()
    watch.point([one])
    take(watch, one, rows(40))
    seen(watch, 40)
    stricter = watched_route(never=("city",), hashed=("member",))
    watch.point([stricter])
    take(watch, stricter, rows(50))
    assert [size.name for size in seen(watch, 50).columns] == ["age"]


# --- what is not counted ------------------------------------------------------------------------


def test_without_a_profile_there_is_no_thread(watch):
    one = route("mixed", "unix:/nowhere")
    watch.point([one])
    take(watch, one, rows(10))
    assert watch._thread is None
    assert watch._waiting == []
    assert watch.dropped == {}


def test_more_rows_than_there_is_room_for_are_dropped_and_told(watch, monkeypatch):
    monkeypatch.setattr(watches, "ROWS_LIMIT", 100)
    watch._interval_s = 1.0
    one = watched_route()
    watch.point([one])
    for _ in range(5):  # of the third every other row, of the fourth every third, then none
        take(watch, one, rows(35))
    assert watch.dropped == {"cancer-w1": 17 + 23 + 35}
    seen(watch, 100)
    take(watch, one, rows(1000))
    seen(watch, 200)
    assert watch.dropped == {"cancer-w1": 75 + 900}


def test_of_wide_models_fewer_rows_are_counted(watch, monkeypatch):
    monkeypatch.setattr(watches, "VALUES_LIMIT", 30)
    watch._interval_s = 0.5
    one = watched_route()
    watch.point([one])
    take(watch, one, rows(25))
    seen(watch, 9)
    assert watch.dropped == {"cancer-w1": 16}


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 1}', b"\xff"])
def test_a_profile_that_cannot_be_read_is_told_once_and_costs_nothing_else(watch, content):
    one = watched_route(profile=content)
    other = watched_route(deployment="cancer-w2")
    watch.point([one, other])
    take(watch, one, rows(10))
    take(watch, other, rows(40))
    seen(watch, 40, "cancer-w2")
    until(lambda: watch.dropped == {"cancer-w1": 10, "cancer-w2": 0})
    take(watch, one, rows(5))
    until(lambda: watch.dropped["cancer-w1"] == 15)
    assert len(watch.told) == 1
    assert "cancer-w1" in watch.told[0]


def test_where_counting_fails_no_value_is_told(watch, monkeypatch):
    one = watched_route()

    def fail(*_):
        raise ValueError("Ada is 41")

    monkeypatch.setattr(watches, "_counted", fail)
    watch.point([one])
    for _ in range(2):
        take(watch, one, rows(10))
    until(lambda: watch.dropped == {"cancer-w1": 20})
    assert len(watch.told) == 1
    assert "Ada" not in watch.told[0]


def test_an_older_route_has_no_profile():
    plain = json.loads(dump(watched_route()))
    del plain["profile"]
    assert load(json.dumps(plain), type(watched_route())).profile is None


# --- a front ------------------------------------------------------------------------------------


def monitored(address, count):
    """Return the metrics once so many rows are held against training."""
    until(lambda: counts(address).get(f"nbmlops_monitored_rows{WATCHED}") == count)
    return counts(address)


@pytest.mark.slow
def test_metrics_tell_how_far_calls_lie_from_training(world):  # noqa: F811
    worker = world.worker("mixed")
    front = world.front([watched_route(worker.address)])
    assert f"nbmlops_monitored_rows{WATCHED}" not in counts(front.address)
    assert counts(front.address)[f"nbmlops_monitor_dropped_rows_total{WATCHED}"] == 0
    assert predict(front.address, rows(60))[0] == 200
    found = monitored(front.address, 60)
    distance = "jensen-shannon-distance"
    assert found[named("nbmlops_feature_effect", "age", distance)] < 0.05
    assert found[named("nbmlops_feature_effect", "city", distance)] > 0.4
    assert found[named("nbmlops_missing_share", "age")] == 0
    assert found[named("nbmlops_new_category_share", "city")] == 0
    assert named("nbmlops_new_category_share", "age") not in found
    assert any(name.startswith("nbmlops_prediction_effect{") for name in found)


@pytest.mark.slow
def test_columns_that_are_kept_out_of_the_log_are_not_told_of(world):  # noqa: F811
    worker = world.worker("mixed")
    front = world.front([watched_route(worker.address, never=("city",), hashed=("age",))])
    assert predict(front.address, rows(60))[0] == 200
    told = {name for name in monitored(front.address, 60) if "column=" in name}
    assert told
    assert {name for name in told if 'column="member"' not in name} == set()


@pytest.mark.slow
def test_a_front_that_starts_again_has_the_profile_of_its_inbox(world):  # noqa: F811
    worker = world.worker("mixed")
    front = world.front([watched_route(worker.address)], revision=7)
    front.signal(signal.SIGKILL)
    front.ended()
    again = Process("nbmlops.front", front.inbox, front.address)
    world.running.append(again)
    again.ready(READY)
    assert predict(again.address, rows(60))[0] == 200
    monitored(again.address, 60)


@pytest.mark.slow
def test_a_profile_that_is_handed_over_keeps_the_worker_and_counts_from_then_on(world):  # noqa: F811
    worker = world.worker("mixed")
    front = world.front([route("mixed", worker.address)])
    assert predict(front.address, rows(60))[0] == 200
    assert document(put(front.address, table_of(2, watched_route(worker.address)))) == {
        "revision": 2
    }
    assert predict(front.address, rows(50))[0] == 200
    monitored(front.address, 50)
    assert document(put(front.address, table_of(3, route("mixed", worker.address))))
    assert not any("monitor" in name for name in counts(front.address))


@pytest.mark.slow
def test_odd_names_of_columns_are_escaped(world):  # noqa: F811
    odd = 'a "b"\\\nc'
    names = {odd: "number"}
    content = dump(reference_profile({odd: range(60)}, names, ["yes", "no"] * 30))
    worker = world.worker("mixed")
    front = world.front([watched_route(worker.address, profile=content)])
    assert predict(front.address, rows(40))[0] == 200
    assert monitored(front.address, 40)[named("nbmlops_missing_share", 'a \\"b\\"\\\\\\nc')] == 1


@pytest.mark.slow
def test_every_metric_is_documented(world):  # noqa: F811
    worker = world.worker("mixed")
    front = world.front([watched_route(worker.address)])
    text = ask(front.address, "GET", "/metrics")[2].decode()
    told = set(re.findall(r"(?m)^# TYPE (\S+)", text))
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    assert told == set(re.findall(r"(?m)^\| `(nbmlops_\w+)`", page))


def test_the_fixtures_model_is_the_one_that_the_profile_is_of():
    assert [column.name for column in model("mixed")[1].columns] == list(KINDS)
