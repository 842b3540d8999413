"""The program of a pod, run for real as a process with a folder for a mounted Secret."""

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time

import msgspec
import pytest

from nbmlops import digests, parcels
from nbmlops.exchange.courier import Courier
from nbmlops.launchers.kubernetes import couriers, depots
from nbmlops.parcels import Outcome, ParcelRefused, ParcelTooLarge, Plan

MARKER = parcels.new_marker()


def plan_of(tmp_path, **changes):
    asked = {
        "way": "secret",
        "work": str(tmp_path / "work"),
        "attempt": "a1",
        "inbox": str(tmp_path / "inbox.tar.gz"),
        "message": str(tmp_path / "message"),
        **changes,
    }
    return Plan(**asked)


def start(tmp_path, program, environ=None, command=None, **changes):
    """Start the program with an inbox of one file, and return its process."""
    source = tmp_path / "given"
    source.mkdir(exist_ok=True)
    (source / "greeting").write_text("hi")
    (tmp_path / "inbox.tar.gz").write_bytes(parcels.pack_inbox(source))
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "nbmlops.exchange", "--"),
            *(command or (sys.executable, "-c", program)),
        ],
        env={
            **os.environ,
            parcels.PLAN_VARIABLE: msgspec.json.encode(plan_of(tmp_path, **changes)).decode(),
            parcels.MARKER_VARIABLE: MARKER,
            **(environ or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(process, tmp_path):
    """Return the exit code, the lines for people, the frames, and the outcome."""
    output = process.communicate(timeout=60)[0].decode()
    gathered = parcels.Gathered(MARKER)
    told = [shown for line in output.splitlines() if (shown := gathered.take(line)) is not None]
    return (
        process.returncode,
        told,
        gathered,
        parcels.outcome_of((tmp_path / "message").read_text()),
    )


def test_inbox_comes_and_the_outbox_goes_back_at_the_end_of_the_log(tmp_path):
    program = (
        "import os, pathlib;"
        "said = pathlib.Path(os.environ['NBMLOPS_INBOX'], 'greeting').read_text();"
        "out = pathlib.Path(os.environ['NBMLOPS_OUTBOX'], os.environ['NBMLOPS_ATTEMPT']);"
        "out.mkdir(); (out / 'result.json').write_text(said);"
        "(out / 'big').write_bytes(os.urandom(20000));"
        "print('one'); print('two', end='')"
    )
    code, told, gathered, outcome = ended(start(tmp_path, program), tmp_path)
    assert (code, told) == (0, ["one", "two"])
    assert outcome is not None
    assert (outcome.exit_code, outcome.reason) == (0, None)
    parcels.lay_small(gathered.archive(outcome.digest), tmp_path / "out")
    assert (tmp_path / "out" / "a1" / "result.json").read_text() == "hi"
    assert (tmp_path / "out" / "a1" / "big").stat().st_size == 20000


def laid(tmp_path, **changes):
    """Lay the inbox of a program that has nothing of ours before it."""
    plan = msgspec.json.encode(plan_of(tmp_path, port=8080, **changes)).decode()
    return subprocess.run(
        [sys.executable, "-I", "-m", "nbmlops.exchange", "lay"],
        env={**os.environ, parcels.PLAN_VARIABLE: plan},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["secret", "url", "claim"])
def test_an_inbox_alone_is_laid_and_laid_again(tmp_path, way):
    source = tmp_path / "given"
    (source / "model").mkdir(parents=True)
    (source / "model" / "weights.json").write_text("[1]")
    (tmp_path / "place").mkdir()
    for path in (tmp_path, tmp_path / "place"):
        (path / "inbox.tar.gz").write_bytes(parcels.pack_inbox(source))
    place = {"url": (tmp_path / "place").as_uri(), "claim": str(tmp_path / "place")}.get(way)
    changes = {"way": way, "place": place, **({} if way == "secret" else {"inbox": None})}
    for _ in range(2):
        done = laid(tmp_path, **changes)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert (tmp_path / "work" / "inbox" / "model" / "weights.json").read_text() == "[1]"


def test_an_inbox_that_is_not_there_is_told_in_the_pod_s_message(tmp_path):
    done = laid(tmp_path, inbox=str(tmp_path / "nothing"))
    outcome = parcels.outcome_of((tmp_path / "message").read_text())
    assert (done.returncode, outcome.exit_code, outcome.reason) == (1, 1, "inbox-missing")
    assert "nothing" in outcome.message
    assert outcome.message in done.stderr


def test_the_program_sees_neither_marker_nor_plan_nor_the_keys_of_the_store(tmp_path):
    program = (
        "import os; print([n for n in os.environ if 'EXCHANGE' in n or n == 'STORE_KEY']);"
        f"print({MARKER!r} in ''.join(os.environ.values()));"
        "print(os.getuid() == 0 or open(f'/proc/{os.getppid()}/environ').read())"
    )
    secret = {f"{parcels.CREDENTIALS_PREFIX}STORE_KEY": "k"}
    _, told, _, _ = ended(start(tmp_path, program, secret), tmp_path)
    assert told[:2] == ["[]", "False"]


def test_a_program_that_ends_badly_gives_its_code_and_a_signal_is_told_as_such(tmp_path):
    code, _, _, outcome = ended(start(tmp_path, "import sys; sys.exit(3)"), tmp_path)
    assert (code, outcome.exit_code) == (3, 3)
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    code, _, _, outcome = ended(start(tmp_path, kill), tmp_path)
    assert (code, outcome.exit_code) == (137, -9)


def test_a_program_that_is_not_there_is_told_apart(tmp_path):
    code, _, _, outcome = ended(start(tmp_path, "", command=["/no/such/program"]), tmp_path)
    assert (code, outcome.reason) == (127, "cannot-start")
    assert "/no/such/program" in outcome.message


def test_the_time_is_limited_and_the_outbox_still_comes(tmp_path):
    program = (
        "import os, pathlib, time; pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'f').write_text('x');"
        "time.sleep(600)"
    )
    _, _, gathered, outcome = ended(start(tmp_path, program, timeout_s=1), tmp_path)
    assert (outcome.exit_code, outcome.reason) == (-15, "time-limit")
    parcels.lay_small(gathered.archive(outcome.digest), tmp_path / "out")
    assert (tmp_path / "out" / "f").exists()


def test_sigterm_is_forwarded_and_what_is_left_over_is_killed(tmp_path):
    program = (
        "import subprocess, sys, time, signal;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True);"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(5));"
        # Short sleeps: a signal just before one would be heard when it is over.
        "print(p.pid, flush=True); [time.sleep(0.05) for _ in range(12000)]"
    )
    process = start(tmp_path, program)
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    code, _, _, outcome = ended(process, tmp_path)
    assert (code, outcome.exit_code, outcome.reason) == (5, 5, "cancelled")
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")


def test_an_outbox_that_is_too_large_for_a_log_is_a_failure_with_its_reason(tmp_path):
    program = (
        "import os, pathlib;"
        "pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'f').write_bytes(os.urandom(2**21 + 1))"
    )
    code, told, _, outcome = ended(start(tmp_path, program), tmp_path)
    assert (code, outcome.reason, told) == (1, "outbox-too-large", [])


def test_an_inbox_that_is_too_large_for_a_secret_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "f").write_bytes(os.urandom(2**20))
    with pytest.raises(ParcelTooLarge) as caught:
        parcels.pack_inbox(tmp_path)
    assert "exchange" in caught.value.hint


def test_an_object_store_carries_both_and_a_service_ships_while_it_runs(tmp_path):
    place = (tmp_path / "store" / "job").as_uri()
    given = tmp_path / "given"
    given.mkdir()
    (given / "greeting").write_text("hi")
    (tmp_path / "store" / "job" / "a1" / "files" / "calls").mkdir(parents=True)
    (tmp_path / "store" / "job" / "inbox.tar.gz").write_bytes(parcels.pack(given))
    program = (
        "import os, pathlib;"
        "said = pathlib.Path(os.environ['NBMLOPS_INBOX'], 'greeting').read_text();"
        "pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'f').write_text(said)"
    )
    process = start(tmp_path, program, way="url", place=place, inbox=None)
    _, _, _, outcome = ended(process, tmp_path)
    there = tmp_path / "store" / "job" / "a1"
    assert (there / "outbox.sha256").read_text() == outcome.digest
    assert digests.of_file(there / "outbox.tar.gz") == outcome.digest
    serve = (
        "import os, pathlib, time; out = pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'calls');"
        "out.mkdir(); (out / 'log').write_text('1\\n');"
        "print(os.environ['NBMLOPS_LISTEN'], flush=True);"
        "time.sleep(600)"
    )
    (tmp_path / "work" / "outbox" / "f").unlink()
    process = start(tmp_path, serve, way="url", place=place, inbox=None, port=8080)
    assert process.stdout.readline() == b"tcp:0.0.0.0:8080\n"
    deadline = time.monotonic() + 20
    while not (there / "files" / "calls" / "log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    ended(process, tmp_path)


def test_a_claim_carries_both(tmp_path):
    place = tmp_path / "claim" / "job"
    program = "import os, pathlib; pathlib.Path(os.environ['NBMLOPS_OUTBOX'], 'f').write_text('x')"
    process = start(tmp_path, program, way="claim", place=str(place))
    _, _, _, outcome = ended(process, tmp_path)
    assert digests.of_file(place / "a1" / "outbox.tar.gz") == outcome.digest


@pytest.fixture
def courier(tmp_path):
    root = tmp_path / "claim"
    (root / "job" / "a1").mkdir(parents=True)
    made = Courier(root, 0, idle_s=30)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def asked_of(courier, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", courier.server_address[1], timeout=10)
    connection.request(method, path, body=body)
    response = connection.getresponse()
    return response.status, response.read()


def state(path):
    about = path.stat()
    return f"{about.st_mtime_ns}.{about.st_ino}"


def test_a_courier_hands_out_files_and_what_a_job_puts_in_the_way_leads_nowhere(courier, tmp_path):
    job = courier.root / "job"
    (tmp_path / "private").write_text("secret")
    (job / "a1" / "f").write_text("x")
    (job / "a1" / "link").symlink_to(tmp_path / "private")
    (job / "out").symlink_to(tmp_path)
    os.mkfifo(job / "a1" / "fifo")
    assert asked_of(courier, "GET", "/job/a1/f") == (200, b"x")
    assert json.loads(asked_of(courier, "GET", "/job/a1")[1]) == {"f": [1, state(job / "a1" / "f")]}
    for path in (
        *("/job/a1/link", "/job/out/private", "/job/out", "/job/a1/fifo", "/../private", "/"),
        *("/job/../../private", "/job/%2e%2e/%2e%2e/private", "/job/a1/f%00", "/none"),
    ):
        assert asked_of(courier, "GET", path) == (404, b""), path
    assert asked_of(courier, "PUT", "/job/out/private", b"no")[0] == 404
    assert asked_of(courier, "PUT", "/new/inbox.tar.gz", b"abc")[0] == 200
    assert (courier.root / "new" / "inbox.tar.gz").read_bytes() == b"abc"
    assert asked_of(courier, "DELETE", "/job/out")[0] == 200
    assert (tmp_path / "private").read_text() == "secret"
    assert asked_of(courier, "DELETE", "/new")[0] == 200
    assert not (courier.root / "new").exists()


def test_a_courier_ends_when_nobody_asks(tmp_path):
    Courier(tmp_path, 0, idle_s=0.2).serve_for_a_while()


def test_an_index_of_a_batch_has_a_name_of_its_own(tmp_path):
    program = "import os; print(os.environ['NBMLOPS_ATTEMPT'])"
    process = start(tmp_path, program, {"JOB_COMPLETION_INDEX": "7"})
    assert ended(process, tmp_path)[1] == ["i7"]


def batch_of(folder):
    """Fill the inbox of a batch of three: a common file, and one for each part."""
    for index in range(3):
        (folder / "each" / str(index)).mkdir(parents=True)
        (folder / "each" / str(index) / "rows").write_text(f"rows {index}")
    (folder / "common").write_text("all")
    return folder


SEEN = (
    "import os, pathlib; inbox = pathlib.Path(os.environ['NBMLOPS_INBOX']);"
    "print(sorted(p.relative_to(inbox).as_posix() for p in inbox.rglob('*') if p.is_file()))"
)


@pytest.mark.parametrize("way", ["url", "claim"])
def test_a_part_gets_what_is_its_own_and_nothing_of_the_others(tmp_path, way):
    inbox, store = batch_of(tmp_path / "batch"), tmp_path / "store"
    (store / "job" / "each").mkdir(parents=True)
    (store / "job" / "i2").mkdir()
    if way == "url":
        depots.send_inbox(inbox, (store / "job").as_uri(), parts=3)
        place, by_secret = (store / "job").as_uri(), None
    else:
        place, by_secret = str(store / "job"), None
        courier = Courier(store, 0)
        threading.Thread(target=courier.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", courier.server_address[1])
        couriers.send(connection, "job", parcels.pack(inbox, without="each"), inbox, 3)
        connection.close()
        courier.shutdown()
    assert sorted(path.name for path in (store / "job" / "each").iterdir()) == [
        *("0.tar.gz", "1.tar.gz", "2.tar.gz")
    ]
    one = {"JOB_COMPLETION_INDEX": "2"}
    process = start(tmp_path, SEEN, one, way=way, place=place, inbox=by_secret, apart=True)
    code, told, _, _ = ended(process, tmp_path)
    assert (code, told) == (0, ["['common', 'each/2/rows']"])


def test_by_a_secret_a_part_finds_its_own_among_all(tmp_path):
    inbox = batch_of(tmp_path / "given")
    process = start(tmp_path, SEEN, {"JOB_COMPLETION_INDEX": "0"}, apart=False)
    _, told, _, _ = ended(process, tmp_path)
    assert "each/0/rows" in told[0]
    assert inbox.is_dir()


def test_the_same_files_are_the_same_bytes_whoever_packs_them(tmp_path):
    inbox = batch_of(tmp_path / "batch")
    (inbox / "serve").write_text("a program")
    (inbox / "serve").chmod(0o755)
    digest = parcels.pack_to(inbox, tmp_path / "one")
    os.utime(inbox / "common", (1, 1))
    assert digest == parcels.pack_to(inbox, tmp_path / "two")
    parcels.lay(io.BytesIO(parcels.pack(inbox)), tmp_path / "laid")
    assert (tmp_path / "laid" / "each" / "1" / "rows").read_text() == "rows 1"
    modes = [(tmp_path / "laid" / name).stat().st_mode & 0o777 for name in ("serve", "common")]
    assert modes == [0o755, 0o644]
    empty = tmp_path / "empty"
    empty.mkdir()
    parcels.lay(io.BytesIO(parcels.pack(empty)), tmp_path / "nothing")
    assert not any((tmp_path / "nothing").iterdir())


def test_an_outbox_that_leads_outside_or_is_no_outbox_is_refused(tmp_path):
    def archive(*members):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as made:
            for name, kind in members:
                about = tarfile.TarInfo(name)
                about.type = kind
                about.linkname = "/etc/passwd"
                made.addfile(about)
        return buffer.getvalue()

    hostile = [
        archive(("../f", tarfile.REGTYPE)),
        archive(("/tmp/f", tarfile.REGTYPE)),
        archive(("f", tarfile.SYMTYPE)),
        archive(("f", tarfile.LNKTYPE)),
        archive(("f", tarfile.FIFOTYPE)),
        archive(("d", tarfile.SYMTYPE), ("d/f", tarfile.REGTYPE)),
        archive(("f", tarfile.REGTYPE), ("f/g", tarfile.REGTYPE)),
        archive(("f" * 300, tarfile.REGTYPE)),
        b"no archive",
    ]
    for sent in hostile:
        with pytest.raises(ParcelRefused):
            parcels.lay_small(sent, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out"]


def test_an_archive_that_unfolds_without_an_end_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "zeros").write_bytes(bytes(2**20))
    with pytest.raises(ParcelRefused, match="more than"):
        parcels.lay(io.BytesIO(parcels.pack(tmp_path / "in")), tmp_path / "out", limit_bytes=2**19)


def test_what_a_notebook_prints_cannot_pass_for_an_outbox(tmp_path):
    forged = b"".join(parcels.frames(b"forged", "nbmlops-outbox-" + "0" * 32)).decode()
    assert list(parcels.shown(forged.splitlines(), MARKER)) == forged.splitlines()
    gathered = parcels.Gathered(MARKER)
    for frame in parcels.frames(b"sent", MARKER):
        gathered.take(frame.decode())
    assert gathered.archive(digests.of_bytes(b"sent")) == b"sent"
    with pytest.raises(ParcelRefused):
        gathered.archive(digests.of_bytes(b"other"))


def test_a_message_fits_into_what_a_pod_may_say():
    long = Outcome(exit_code=1, reason="x", message="é" * 5000)
    assert len(parcels.message(long)) <= 4096
    assert parcels.outcome_of(parcels.message(long).decode()).reason == "x"
    assert parcels.outcome_of("Error: no") is None
    assert parcels.outcome_of(json.dumps({"exit": 1})) is None
