"""Writers that are killed, and many writers at once.

`--kills 10000` (or NBMLOPS_TEST_KILLS) is the full number, `--seed` repeats a run by its seed.
"""

import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from nbmlops.artifacts import Artifacts
from nbmlops.records import Cause
from nbmlops.store import Store
from test_store import where  # noqa: F401  # fixture
from writers import SHARED, Writers, data_of, word

SHARE = {"sqlite": 100, "postgresql": 30}


def check_acknowledged(store, artifacts, who, told):
    """Hold what was acknowledged against what is there, then send the next mutation again."""
    lines = told.read_text().splitlines() if told.exists() else []
    for number, line in enumerate(lines):
        name, stands = line.split()
        assert name == f"{who}-{number}"
        if number % 3 == 2:
            # Its key still stands for the very revision that it made.
            assert store.swap("k", SHARED, word("again"), expected=0, key=name) == int(stands)
            continue
        kept = store.get("k", name, Cause)
        assert kept is not None, f"{name} was acknowledged and is gone"
        assert kept.revision == 1
        assert artifacts.get(kept.record.message) == data_of(name)
    if len(lines) % 3 != 2:
        # The one that was under way is there or not; sent again it is there once.
        name = f"{who}-{len(lines)}"
        digest = artifacts.put(data_of(name))
        assert store.swap("k", name, word(digest), expected=0, key=name) == 1
        assert artifacts.get(digest) == data_of(name)
    return len(lines)


def time_to_write(writers, store, artifacts, tmp_path):
    """Return the seconds that two writers take here and now from their start to six mutations."""
    pair = []
    began = time.monotonic()
    for who in ("warm1", "warm2"):
        told = tmp_path / f"told-{who}"
        pair.append((writers.start(tmp_path / "a", who, told), who, told))
    while not all(t.exists() and t.read_text().count("\n") >= 6 for *_, t in pair):
        assert time.monotonic() - began < 60, "two writers did not write six mutations in a minute"
        time.sleep(0.002)
    took = time.monotonic() - began
    for pid, who, told in pair:
        os.kill(pid, signal.SIGKILL)
        assert writers.reap(pid) == -signal.SIGKILL
        check_acknowledged(store, artifacts, who, told)
    return took


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_writers_lose_nothing_and_double_nothing(where, tmp_path, request):  # noqa: F811
    kind = "sqlite" if isinstance(where, Path) else "postgresql"
    kills = request.config.getoption("--kills") or SHARE[kind]
    given = request.config.getoption("--seed")
    seed = random.randrange(10**9) if given is None else given
    print(f"seed {seed}, {kills} kills")
    chance = random.Random(seed)
    store, artifacts = Store(where), Artifacts(tmp_path / "a")
    writers, acknowledged = Writers(where), 0
    span = time_to_write(writers, store, artifacts, tmp_path)
    print(f"killed within {span * 1e3:.0f} ms")
    for turn in range(0, kills, 2):
        pair = []
        for who in (f"{turn}", f"{turn + 1}"):
            told = tmp_path / f"told-{who}"
            pair.append((writers.start(tmp_path / "a", who, told), who, told))
        for pid, who, told in pair:
            time.sleep(chance.random() * span)  # the point of the kill, drawn from the seed
            os.kill(pid, signal.SIGKILL)
            assert writers.reap(pid) == -signal.SIGKILL
            acknowledged += check_acknowledged(store, artifacts, who, told)
            told.unlink(missing_ok=True)
    writers.close()
    print(f"{acknowledged} acknowledged mutations")
    assert acknowledged > kills  # most writers came to write
    assert store.faults() == []
    assert list(artifacts.damaged()) == []
    assert {k.revision for k in store.page("k", Cause, limit=10**6)} - {1} != set()
    strangers = [
        path
        for path in (tmp_path / "a").rglob("*")
        if path.is_file()
        and not path.name.startswith(".incoming-")
        and hashlib.sha256(path.read_bytes()).hexdigest() != path.parent.name + path.name
    ]
    assert strangers == []
    store.close()


def write_some(where, who, count, together, told):  # noqa: F811
    store = Store(where)
    together.wait()
    waits = []
    for number in range(count):
        began = time.monotonic()
        name = f"{who}-{number}"
        store.swap("k", name, word(name), expected=0, key=name, status="open")
        waits.append(time.monotonic() - began)
    told.put(waits)
    store.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_writers_at_once_all_land_and_nobody_waits_long(where, request):  # noqa: F811
    full = bool(request.config.getoption("--kills"))
    count = 500 if full else 50
    Store(where).close()
    method = multiprocessing.get_context("spawn")
    together, told = method.Barrier(20), method.Queue()
    writers = [
        method.Process(target=write_some, args=(where, who, count, together, told))
        for who in range(20)
    ]
    began = time.monotonic()
    for writer in writers:
        writer.start()
    waits = sorted(wait for _ in writers for wait in told.get(timeout=900))
    took = time.monotonic() - began
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
    print(
        f"20 x {count}: {len(waits) / took:.0f} a second, p50 {p50:.3f} s,"
        f" p99 {p99:.3f} s, longest {waits[-1]:.3f} s"
    )
    store = Store(where)
    kept = store.page("k", Cause, limit=10**6)
    assert len(kept) == len({k.record.message for k in kept}) == 20 * count
    assert [k.sequence for k in kept] == [*range(20 * count, 0, -1)]
    # A second is the figure of a machine that does nothing else (`--kills`); that nobody starves
    # shows on a busy one too, by how much longer the unlucky wait than the others.
    assert p99 < (1.0 if full else max(1.0, 20 * p50))
    store.close()


@pytest.mark.slow
def test_readers_go_on_while_writers_write(where):  # noqa: F811
    Store(where).close()
    method = multiprocessing.get_context("spawn")
    together, told = method.Barrier(5), method.Queue()
    writers = [
        method.Process(target=write_some, args=(where, who, 50, together, told)) for who in range(4)
    ]
    for writer in writers:
        writer.start()
    reader, longest, reads = Store(where), 0.0, 0
    together.wait()
    with contextlib.closing(reader):
        while any(writer.is_alive() for writer in writers) and reads < 10**5:
            began = time.monotonic()
            reader.page("k", Cause, limit=50)
            longest, reads = max(longest, time.monotonic() - began), reads + 1
            with contextlib.suppress(Exception):
                told.get_nowait()
    print(f"{reads} pages, longest {longest:.3f} s")
    assert reads > 20
    assert longest < 2.0
