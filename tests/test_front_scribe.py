"""The thread that writes the call log: who waits for it, for how long, and what is dropped."""

import asyncio
import threading
import time

import pytest

from nbmlops import calllog
from nbmlops.calllog import CallLog, Entry
from nbmlops.front import scribe as scribes
from nbmlops.front.scribe import Scribe
from nbmlops.records import Prediction
from serving import route, until

ROUTE = route("logistic", "unix:/nowhere")


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """A log whose disk hangs while the event is clear, and that event."""
    monkeypatch.setattr(scribes, "PATIENCE_S", 0.1)
    log = CallLog(tmp_path, "cancer")
    log.prepare(ROUTE.deployment_id)
    goes_on = threading.Event()
    usual = log.append

    def append(batch):
        assert goes_on.wait(30)
        usual(batch)

    monkeypatch.setattr(log, "append", append)
    return log, goes_on


def batch_of(log, number):
    return log.encode(ROUTE, [Entry([{"x": float(number)}], (Prediction(value=1.0),), 1.0)])


async def checking(scribe):
    while True:
        await asyncio.sleep(0.02)
        scribe.check(time.monotonic())


async def asked(log, scribe, numbers):
    """Keep batches one after the other; return how long each was waited for."""
    took = []
    for number in numbers:
        began = time.monotonic()
        await scribe.keep(batch_of(log, number))
        took.append(time.monotonic() - began)
    return took


def drops(log):
    return log.drops[ROUTE.deployment_id]


def logged(tmp_path, log):
    log.close()
    found = calllog.verify(tmp_path, ROUTE.deployment_id)
    assert found.problems == ()
    return found


def test_a_disk_that_hangs_costs_one_call_its_patience_and_no_record(hanging, tmp_path):
    log, goes_on = hanging

    async def scenario():
        scribe = Scribe(log)
        watching = asyncio.create_task(checking(scribe))
        first, *others = await asked(log, scribe, range(50))
        assert 0.05 < first < 5
        assert sum(others) < 5
        assert drops(log) == 50, "until they are written"
        goes_on.set()
        await asyncio.to_thread(until, lambda: not drops(log))
        assert max(await asked(log, scribe, range(50, 60))) < 5
        watching.cancel()
        await asyncio.to_thread(scribe.close)

    asyncio.run(asyncio.wait_for(scenario(), 30))
    found = logged(tmp_path, log)
    assert (found.records, found.drops) == (60, 0)


def test_what_is_kept_for_later_is_bounded(hanging, tmp_path, monkeypatch):
    log, goes_on = hanging

    async def scenario():
        scribe = Scribe(log)
        watching = asyncio.create_task(checking(scribe))
        size = batch_of(log, 0).size
        monkeypatch.setattr(scribes, "BEHIND_LIMIT_BYTES", 10 * size + 9)
        await asked(log, scribe, range(1, 51))
        assert drops(log) == 50
        goes_on.set()
        await asyncio.to_thread(until, lambda: drops(log) == 40)
        watching.cancel()
        await asyncio.to_thread(scribe.close)

    asyncio.run(asyncio.wait_for(scenario(), 30))
    found = logged(tmp_path, log)
    assert (found.answered, found.records, found.drops) == (50, 10, 40)
