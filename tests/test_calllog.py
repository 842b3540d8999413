from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops import calllog
from nbmlops.calllog import CallLog, ids, seeking, segments, writing
from nbmlops.errors import ArtifactCorrupt, InvalidName, UnknownCall
from nbmlops.records import ModelSchema, OutputSchema, Prediction, Route

DEPLOYMENT = "cancer-k3x9q2ab"
ROUTE = Route(
    deployment_id=DEPLOYMENT,
    role="champion",
    share=100.0,
    address="unix:/nowhere",
    model="cancer",
    version=3,
    commit="a" * 40,
    schema=ModelSchema(columns=(), output=OutputSchema(kind="value")),
)
HOUR_MS = 3_600_000
START_MS = 1_790_000_000_000


class Clock:
    def __init__(self, now_ms=START_MS):
        self.now_ms = now_ms

    def __call__(self):
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    made = CallLog(tmp_path, "cancer", now_ms=clock)
    yield made
    made.close()


def write(log, value=1.0, **more):
    answer = (Prediction(value=value),)
    return log.write(ROUTE, [{"x": value, **more}], answer, latency_ms=1.5)


def lines(tmp_path):
    return [
        (path, line)
        for path in sorted((tmp_path / DEPLOYMENT).glob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
    ]


# --- ids ----------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**48 - 2), min_size=1, max_size=30), st.randoms())
def test_ids_grow_whatever_the_clock_does(clock_ms, chance):
    previous = 0
    for now_ms in clock_ms:
        made = calllog.uuid7(now_ms, chance.getrandbits(74), previous)
        assert made > previous
        assert made >> 76 & 0xF == 7
        assert made >> 62 & 0b11 == 0b10
        assert made < 2**128
        if now_ms > previous >> 80:
            assert made >> 80 == now_ms
        previous = made


def test_an_exhausted_millisecond_borrows_from_the_next():
    full = ids.assembled(5, 2**74 - 1)
    assert calllog.uuid7(5, 0, full) >> 80 == 6


def test_a_call_id_names_its_deployment():
    call_id = calllog.new_call_id(DEPLOYMENT, START_MS, random.getrandbits(74))
    assert calllog.deployment_of(call_id) == DEPLOYMENT
    assert len(calllog.new_call_id("d" * 63, START_MS, 0)) == 63 + 33


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "../../etc/passwd",
        "018bcfe5680070008000000000000000",
        "018bcfe5680070008000000000000000-",
        "018bcfe5680070008000000000000000-../a",
        "018bcfe5680070008000000000000000-a/b",
        "018bcfe5680070008000000000000000-a\n",
        "018bcfe5680070008000000000000000-A",
        "018bcfe5680040008000000000000000-a",
        "018bcfe5680070008000000000000000-" + "a" * 64,
        "%2e%2e-a",
        "\0",
    ],
)
def test_what_is_no_call_id_never_touches_a_path(text, tmp_path):
    with pytest.raises(UnknownCall):
        calllog.deployment_of(text)
    with pytest.raises(UnknownCall):
        calllog.find(tmp_path, text)


def test_what_is_no_deployment_id_never_touches_a_path(tmp_path):
    for wrong in ("..", "a/b", "", "A", "a" * 64):
        with pytest.raises(InvalidName):
            calllog.verify(tmp_path, wrong)
        with pytest.raises(InvalidName):
            list(calllog.window(tmp_path, wrong, None, None))


# --- writing and finding ------------------------------------------------------------------------


def test_a_written_call_is_found_by_its_id(tmp_path, log, clock):
    made = [write(log, float(number)) for number in range(5)]
    for record in made:
        assert calllog.find(tmp_path, record.call_id) == record
    assert [record.sequence for record in made] == [1, 2, 3, 4, 5]
    assert made[0].at == datetime.fromtimestamp(START_MS / 1000, UTC)
    (segment,) = (tmp_path / DEPLOYMENT).glob("*.jsonl")
    assert segment.name.startswith(made[0].call_id[:32] + "-")
    assert segment.stat().st_mode & 0o777 == 0o600


def test_a_call_that_was_never_made_is_unknown_with_a_hint(tmp_path, log, clock):
    write(log)
    other = calllog.new_call_id(DEPLOYMENT, START_MS, 0)
    with pytest.raises(UnknownCall) as caught:
        calllog.find(tmp_path, other)
    assert "doctor" in caught.value.hint
    with pytest.raises(UnknownCall):
        calllog.find(tmp_path, calllog.new_call_id("elsewhere", START_MS, 0))


def test_records_whose_text_looks_like_the_logs_own_do_not_mislead(tmp_path, log):
    first = write(log)
    forged = f'\n{{"call_id":"{first.call_id}","sequence":9'
    write(log, note=forged, call_id=first.call_id)
    assert calllog.find(tmp_path, first.call_id) == first
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()


OPENED = {"watching": False, "paths": []}


def _audited(event, arguments):
    if event == "open" and OPENED["watching"]:
        OPENED["paths"].append(str(arguments[0]))


sys.addaudithook(_audited)


@contextlib.contextmanager
def opened_files():
    """Give the files that the block opens."""
    OPENED.update(watching=True, paths=[])
    try:
        yield OPENED["paths"]
    finally:
        OPENED["watching"] = False


def test_segments_are_sealed_each_hour_and_calls_found_by_opening_one(tmp_path, log, clock):
    made = []
    for _ in range(6):
        made.append(write(log))
        clock.now_ms += HOUR_MS // 2
    clock.now_ms -= 1
    log.sync()
    segments = sorted((tmp_path / DEPLOYMENT).glob("*.jsonl"))
    assert len(segments) == 3
    assert [path.stat().st_mode & 0o200 for path in segments] == [0, 0, 0o200]
    for record in made:
        with opened_files() as opened:
            assert calllog.find(tmp_path, record.call_id) == record
        assert len(opened) == 1


@given(
    notes=st.lists(st.integers(0, 9000), max_size=40),
    cut=st.integers(0, 400),
    chance=st.randoms(use_true_random=False),
)
def test_any_line_of_any_segment_is_found_by_its_id_and_none_that_is_not_whole(
    tmp_path_factory, notes, cut, chance
):
    path = tmp_path_factory.mktemp("segment") / "one.jsonl"
    numbers = sorted({chance.getrandbits(60) for _ in notes})
    ids = [calllog.new_call_id(DEPLOYMENT, START_MS + n % 10**9, n) for n in numbers]
    written = {
        call_id: f'{{"call_id":"{call_id}","record":{{"note":"{"x" * length}"}}}}'.encode()
        for call_id, length in zip(sorted(ids), notes, strict=False)
    }
    data = b"".join(line + b"\n" for line in written.values())
    kept = data[: max(0, len(data) - cut)]
    path.write_bytes(kept)
    with path.open("rb") as file:
        for call_id, line in written.items():
            whole = kept.find(line + b"\n") >= 0
            assert seeking.sought(file.fileno(), call_id) == (line if whole else None)
        for _ in range(5):
            other = calllog.new_call_id(
                DEPLOYMENT, START_MS + chance.randrange(10**9), chance.getrandbits(74)
            )
            assert seeking.sought(file.fileno(), other) == written.get(other)
        assert seeking.sought(file.fileno(), "0" * 12 + "70008" + "0" * 15 + "-a") is None


def test_a_line_that_was_changed_hides_no_other(tmp_path, log):
    made = [write(log, float(number)) for number in range(9)]
    (path, line) = lines(tmp_path)[4]
    path.write_bytes(path.read_bytes().replace(line, b"junk" * 300 + b"\n"))
    for record in made[:4] + made[5:]:
        assert calllog.find(tmp_path, record.call_id) == record
    with pytest.raises(UnknownCall):
        calllog.find(tmp_path, made[4].call_id)


def test_a_call_is_found_by_reading_little_of_its_segment(tmp_path, log, monkeypatch):
    made = [write(log, float(number), note="x" * 500) for number in range(3000)]
    usual, read = os.pread, []
    monkeypatch.setattr(os, "pread", lambda *words: read.append(usual(*words)) or read[-1])
    for record in random.sample(made, 20):
        read.clear()
        assert calllog.find(tmp_path, record.call_id) == record
        assert sum(map(len, read)) < 200_000


def test_segments_are_sealed_at_their_size(tmp_path, log, monkeypatch):
    monkeypatch.setattr(writing, "SEGMENT_LIMIT_BYTES", 2000)
    made = [write(log) for _ in range(12)]
    segments = list((tmp_path / DEPLOYMENT).glob("*.jsonl"))
    assert len(segments) > 2
    assert all(path.stat().st_size <= 2000 for path in segments)
    assert [calllog.find(tmp_path, record.call_id) for record in made] == made
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()


def test_an_idle_segment_is_sealed_when_its_hour_is_over(tmp_path, log, clock):
    write(log)
    clock.now_ms += HOUR_MS
    log.sync()
    (segment,) = (tmp_path / DEPLOYMENT).glob("*.jsonl")
    assert not segment.stat().st_mode & 0o200


def test_a_clock_that_goes_back_loses_no_call(tmp_path, log, clock):
    made = [write(log)]
    clock.now_ms -= 3 * HOUR_MS
    made += [write(log), write(log)]
    clock.now_ms += 9 * HOUR_MS
    made.append(write(log))
    assert [calllog.find(tmp_path, record.call_id) for record in made] == made
    assert [record.call_id for record in made] == sorted(record.call_id for record in made)


def test_a_window_gives_the_calls_between_two_times(tmp_path, log, clock, monkeypatch):
    made = []
    for _ in range(10):
        made.append(write(log))
        clock.now_ms += HOUR_MS // 2
    everything = list(calllog.window(tmp_path, DEPLOYMENT, None, None))
    assert everything == made
    opened = []
    usual = segments.Segment.lines
    monkeypatch.setattr(
        segments.Segment, "lines", lambda segment: opened.append(segment) or usual(segment)
    )
    got = list(calllog.window(tmp_path, DEPLOYMENT, made[4].at, made[6].at))
    assert got == made[4:6]
    assert len(opened) <= 2
    assert list(calllog.window(tmp_path, DEPLOYMENT, made[9].at, None)) == made[9:]
    later = made[9].at + timedelta(microseconds=1)
    assert list(calllog.window(tmp_path, DEPLOYMENT, later, None)) == []
    assert list(calllog.window(tmp_path, "nothing-yet", None, None)) == []


def test_two_processes_write_the_same_deployment_side_by_side(tmp_path, clock):
    logs = [CallLog(tmp_path, "cancer", now_ms=clock) for _ in range(2)]
    made = [write(logs[number % 2]) for number in range(10)]
    assert [calllog.find(tmp_path, record.call_id) for record in made] == made
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert (found.answered, found.records, found.drops, found.problems) == (10, 10, 0, ())
    assert sorted(found.last_sequence.values()) == [5, 5]
    for log in logs:
        log.close()


# --- verifying ----------------------------------------------------------------------------------


def test_a_record_that_is_removed_leaves_the_chain_valid(tmp_path, log):
    made = [write(log, float(number)) for number in range(3)]
    (path, line) = lines(tmp_path)[1]
    emptied = line[: line.index(b'"record":')] + b'"record":null}\n'
    path.write_bytes(path.read_bytes().replace(line, emptied))
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert found.problems == ()
    assert (found.records, found.removed) == (3, 1)
    with pytest.raises(UnknownCall, match="removed"):
        calllog.find(tmp_path, made[1].call_id)
    assert list(calllog.window(tmp_path, DEPLOYMENT, None, None)) == [made[0], made[2]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda all_lines: [all_lines[0].replace(b'"x":0.0', b'"x":9.0'), *all_lines[1:]],
            "digest",
        ),
        (lambda all_lines: [all_lines[1], all_lines[0], *all_lines[2:]], "chain"),
        (lambda all_lines: [all_lines[0], *all_lines[2:]], "chain"),
        (lambda all_lines: all_lines[:-1], "1 records are missing"),
        (lambda _: [], "4 records are missing"),
        (lambda all_lines: [b"junk\n", *all_lines], "changed"),
        (lambda all_lines: [*all_lines, all_lines[-1]], "sequence 4 after 4"),
        (
            lambda all_lines: [all_lines[0].replace(b'nce":1', b'nce":2', 1), *all_lines[1:]],
            "chain",
        ),
    ],
)
def test_tampering_is_reported(tmp_path, clock, change, problem):
    log = CallLog(tmp_path, "cancer", now_ms=clock)
    made = [write(log, float(number)) for number in range(4)]
    log.close()
    before = lines(tmp_path)
    changed = change([line for _, line in before])
    before[0][0].chmod(0o600)
    before[0][0].write_bytes(b"".join(changed))
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert any(problem in one for one in found.problems), found.problems
    if problem == "digest":
        with pytest.raises(ArtifactCorrupt):
            calllog.find(tmp_path, made[0].call_id)


@pytest.mark.parametrize("copied", [False, True])
def test_a_copy_of_the_count_may_be_older_than_the_records(tmp_path, clock, copied):
    log = CallLog(tmp_path, "cancer", now_ms=clock, copied=copied)
    write(log, 0.0)
    (counter,) = (tmp_path / DEPLOYMENT).glob("*.count")
    before = counter.read_bytes()
    for number in range(3):
        write(log, float(number))
    log.close()
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()
    assert len(before) == counter.stat().st_size
    counter.write_bytes(before)
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert bool(found.problems) == (not copied), found.problems
    # Records that the count tells of are missed all the same.
    (segment,) = (tmp_path / DEPLOYMENT).glob("*.jsonl")
    segment.chmod(0o600)
    segment.write_bytes(b"")
    assert calllog.verify(tmp_path, DEPLOYMENT).problems


def test_a_log_with_nothing_in_it_has_no_problems(tmp_path):
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert (found.answered, found.records, found.drops, found.problems) == (0, 0, 0, ())


def test_a_log_is_verified_while_it_is_written(tmp_path):
    log = CallLog(tmp_path, "cancer")
    over = threading.Event()

    def keep_writing():
        while not over.is_set():
            write(log)

    def keep_syncing():
        while not over.is_set():
            log.sync()

    threads = [threading.Thread(target=one) for one in (keep_writing, keep_syncing)]
    for thread in threads:
        thread.start()
    try:
        seen = []
        for _ in itertools.count():
            seen.append(calllog.verify(tmp_path, DEPLOYMENT))
            if len(seen) >= 20 and seen[-1].records > 100:
                break
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {found.problems for found in seen} == {()}
    log.close()
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()


# --- faults -------------------------------------------------------------------------------------

CHILD = textwrap.dedent(
    """
    import resource, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_calllog import ROUTE, CallLog, write
    log = CallLog(Path(sys.argv[1]), "cancer")
    """,
)


def child(tmp_path, program, **more):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + textwrap.dedent(program), tmp_path, Path(__file__).parent],
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


def test_a_killed_process_loses_no_answered_call(tmp_path):
    process = child(
        tmp_path,
        """
        while True:
            print(write(log).call_id, flush=True)
        """,
    )
    answered = [process.stdout.readline().strip() for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    answered += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.wait()
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert found.problems == ()
    assert len(answered) <= found.records <= len(answered) + 1
    for call_id in random.sample(answered, 50):
        assert calllog.find(tmp_path, call_id).call_id == call_id


def test_a_line_cut_off_by_a_kill_is_skipped_and_then_mended(tmp_path, clock):
    process = child(tmp_path, "for _ in range(3): write(log)")
    assert process.wait() == 0
    process.stdout.close()
    (segment,) = (tmp_path / DEPLOYMENT).glob("*.jsonl")
    whole = segment.read_bytes()
    segment.write_bytes(whole + whole[:70])
    assert len(list(calllog.window(tmp_path, DEPLOYMENT, None, None))) == 3
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()
    log = CallLog(tmp_path, "cancer")
    write(log)
    assert segment.read_bytes() == whole
    assert not segment.stat().st_mode & 0o200
    assert len(list(calllog.window(tmp_path, DEPLOYMENT, None, None))) == 4
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()
    log.close()


def test_a_living_writers_segment_is_left_alone(tmp_path, log):
    write(log)
    (segment,) = (tmp_path / DEPLOYMENT).glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b"half a li")
    other = CallLog(tmp_path, "cancer")
    write(other)
    assert segment.read_bytes().endswith(b"half a li")
    other.close()


def test_on_a_full_disk_calls_are_answered_and_the_drops_counted_where_they_survive(tmp_path):
    # A limit on file sizes fails in the middle of a line, as a full disk does; the count file,
    # which has its blocks, stays below it.
    process = child(
        tmp_path,
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
        for _ in range(10):
            write(log)
        print(log.drops, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        write(log)
        print("ready", flush=True)
        sys.stdin.read()
        """,
        stdin=subprocess.PIPE,
    )
    drops = process.stdout.readline()
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert found.problems == ()
    assert found.answered == 11
    assert found.drops > 0
    assert found.records + found.drops == 11
    assert str(found.drops) in drops
    assert [call.sequence for call in calllog.window(tmp_path, DEPLOYMENT, None, None)][-1] == 11
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_drops_at_the_end_are_missed_although_no_record_follows(tmp_path, clock, monkeypatch):
    log = CallLog(tmp_path, "cancer", now_ms=clock)
    write(log)
    monkeypatch.setattr(writing.os, "write", _no_space)
    assert write(log).sequence == 2
    monkeypatch.undo()
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert (found.answered, found.records, found.drops, found.problems) == (2, 1, 1, ())
    log.close()


def _no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_made_drops_calls_until_it_can(tmp_path, clock):
    blocked = tmp_path / "calls"
    blocked.write_text("not a folder")
    log = CallLog(blocked, "cancer", now_ms=clock)
    write(log)
    assert log.drops == {DEPLOYMENT: 1}
    assert log.last_error
    blocked.unlink()
    (blocked / DEPLOYMENT).mkdir(parents=True)
    write(log)
    write(log)
    log.sync()
    found = calllog.verify(blocked, DEPLOYMENT)
    assert (found.answered, found.records, found.drops, found.problems) == (3, 2, 1, ())
    log.close()


def test_a_failed_fsync_is_never_tried_again_on_the_same_segment(tmp_path, log, monkeypatch):
    first = write(log)
    tried = []

    def failing(descriptor):
        tried.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        raise OSError(5, "Input/output error")

    if not Path("/proc/self/fd").exists():
        pytest.skip("names of open files are read from /proc")
    monkeypatch.setattr(writing.os, "fsync", failing)
    log.sync()
    second = write(log)
    log.sync()
    segments = [path for path in tried if path.endswith(".jsonl")]
    assert len(segments) == 2
    assert segments[0] != segments[1]
    assert log.sync_failures >= 2
    monkeypatch.undo()
    assert calllog.find(tmp_path, first.call_id) == first
    assert calllog.find(tmp_path, second.call_id) == second
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()


def test_what_was_not_written_is_not_synced(log, monkeypatch):
    write(log)
    log.sync()
    synced = []
    monkeypatch.setattr(writing.os, "fsync", synced.append)
    log.sync()
    assert synced == []


# --- retention ----------------------------------------------------------------------------------


def retained(tmp_path, clock, calls=10):
    log = CallLog(tmp_path, "cancer", now_ms=clock)
    for number in range(calls):
        write(log, float(number))
        clock.now_ms += HOUR_MS
    log.close()


def later(hours):
    return datetime.fromtimestamp((START_MS + hours * HOUR_MS) / 1000, UTC) + timedelta(minutes=1)


def test_what_is_older_than_is_kept_leaves_a_tombstone_and_the_chain_holds(tmp_path, clock):
    retained(tmp_path, clock)
    for hours, gone in ((5, 4), (7, 6), (30, 10)):
        calllog.drop_expired(tmp_path, later(hours + 1), timedelta(hours=2))
        found = calllog.verify(tmp_path, DEPLOYMENT)
        assert found.problems == ()
        assert (found.answered, found.records, found.expired) == (10, 10 - gone, gone)
        assert list(found.last_sequence.values()) == [10]


def test_a_removal_that_is_killed_is_completed_by_the_next(tmp_path, clock, monkeypatch):
    retained(tmp_path, clock)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            calllog.drop_expired(tmp_path, later(6), timedelta(hours=2))
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert (found.problems, found.records, found.expired) == ((), 9, 1)
    calllog.drop_expired(tmp_path, later(6), timedelta(hours=2))
    found = calllog.verify(tmp_path, DEPLOYMENT)
    assert (found.problems, found.records, found.expired) == ((), 6, 4)


def test_segments_that_are_removed_by_hand_are_still_missed(tmp_path, clock):
    retained(tmp_path, clock)
    calllog.drop_expired(tmp_path, later(6), timedelta(hours=2))
    min((tmp_path / DEPLOYMENT).glob("*.jsonl")).unlink()
    assert calllog.verify(tmp_path, DEPLOYMENT).problems


def test_an_open_segment_is_never_removed(tmp_path, log, clock):
    write(log)
    assert list(calllog.expired(tmp_path, later(1000), timedelta(hours=2))) == []


# --- many ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sought", [0, 10_000])
def test_many_calls_are_found_at_once(tmp_path, log, clock, monkeypatch, sought):
    from nbmlops.calllog import reading

    monkeypatch.setattr(reading, "_SOUGHT", sought)
    made = []
    for _ in range(30):
        made.append(write(log))
        clock.now_ms += HOUR_MS // 7
    wanted = [*made[3:9], made[25]]
    names = [one.call_id for one in wanted] + ["nope", calllog.new_call_id(DEPLOYMENT, 5, 5)]
    assert list(calllog.find_many(tmp_path, DEPLOYMENT, names)) == wanted


# --- redaction ----------------------------------------------------------------------------------

KEY = b"k" * 32


def test_columns_that_are_never_logged_are_absent_and_hashed_ones_are_keyed():
    from nbmlops.calllog import redaction

    records = [{"name": "Ada", "age": 41, "x": 1.5}, {"name": None, "age": 41.0, "x": 2.5}]
    first, second = redaction.redacted(records, ["x"], ["name", "age"], KEY)
    assert first.keys() == {"name", "age"}
    assert first["age"] == second["age"] != first["name"]
    assert len(first["name"]) == 32
    assert second["name"] is None
    assert first["name"] != redaction.digest("name", "Ada", b"o" * 32)
    assert records[0]["name"] == "Ada"
    assert redaction.redacted(records, [], ["name"], None) == [
        {"age": 41, "x": 1.5},
        {"age": 41.0, "x": 2.5},
    ]


@given(st.text(), st.text(), st.text())
def test_a_hash_tells_columns_and_values_apart(column, one, other):
    from nbmlops.calllog import redaction

    same = redaction.digest(column, one, KEY) == redaction.digest(column, other, KEY)
    assert same == (one == other)


def test_a_log_redacts_before_it_writes(tmp_path, clock):
    import msgspec

    route = msgspec.structs.replace(ROUTE, never=("ssn",), hashed=("name",))
    log = CallLog(tmp_path, "cancer", now_ms=clock)
    records = [{"x": 1.0, "ssn": "078-05-1120", "name": "Ada"}]
    # Without a key what should be hashed is not logged at all.
    first = log.write(route, records, (Prediction(value=1.0),), latency_ms=1.0)
    calllog.ensure_key(tmp_path)
    second = log.write(route, records, (Prediction(value=1.0),), latency_ms=1.0)
    log.close()
    assert first.records == ({"x": 1.0},)
    assert calllog.find(tmp_path, second.call_id) == second
    assert second.redacted == ("name", "ssn")
    assert second.records[0].keys() == {"x", "name"}
    data = b"".join(line for _, line in lines(tmp_path))
    assert b"078-05-1120" not in data
    assert b"Ada" not in data
    assert calllog.verify(tmp_path, DEPLOYMENT).problems == ()
    assert (tmp_path / calllog.KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert calllog.ensure_key(tmp_path) == calllog.ensure_key(tmp_path)
