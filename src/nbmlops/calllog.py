"""The call log: every answered call, found by its id alone.

``<calls>/<deployment_id>/`` holds, for each process that has answered (a *writer*), segments
``<uuid7 of its first call>-<writer>.jsonl`` and one ``<writer>.count``. A line is one call::

    {"call_id": ..., "sequence": n, "digest": ..., "chain": ..., "record": {...}}

``digest`` is the SHA-256 of the record's bytes and ``chain`` that of the chain before, the call id,
the sequence and the digest: whoever must forget a call sets ``record`` to ``null``, and the chain
still holds. The call id is a UUIDv7 (RFC 9562) and the deployment's id, and a segment holds an hour
at most, so the id tells which few segments can have it.

A record is written by one write(2) before the answer's last byte, so killing the process loses no
answered call; :meth:`CallLog.sync`, called every 200 ms, bounds what a power cut can take. Where
the write fails the answer is sent all the same, and the drop is counted in the ``.count`` file,
which was given its blocks at the start and is rewritten in place: the count survives the process
and needs no space on the disk. Answered calls = records + drops, for each writer.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import layout
from nbmlops.errors import ArtifactCorrupt, InvalidName, UnknownCall
from nbmlops.records import CallRecord, Prediction, Route, dump, load

SEGMENT_SPAN_MS = 3_600_000
SEGMENT_LIMIT_BYTES = 64 * 1024 * 1024
SYNC_INTERVAL_S = 0.2

_TAIL_BITS = 74  # the random bits of a UUIDv7
_UUID7 = r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}"
_DEPLOYMENT = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_CALL_ID = re.compile(f"({_UUID7})-({_DEPLOYMENT})")
_SEGMENT = re.compile(rf"({_UUID7})-([0-9a-f]{{8}})\.jsonl")
_COUNT = re.compile(r"([0-9a-f]{8})\.count")


# --- ids ----------------------------------------------------------------------------------------


def uuid7(now_ms: int, random: int, previous: int = 0) -> int:
    """Return a UUID version 7 (RFC 9562, 5.7) that is greater than ``previous``.

    ``random`` are 74 random bits. Within a millisecond, and when the clock has gone back, the
    random part of the one before is increased by a random amount (RFC 9562, 6.2, method 2).
    """
    before_ms = previous >> 80
    if now_ms > before_ms:
        # The top bit is left for increments.
        return _assembled(now_ms, random >> 1)
    tail = ((previous >> 64 & 0xFFF) << 62 | previous & (1 << 62) - 1) + 1 + (random & 0xFFFFFFFF)
    if tail >> _TAIL_BITS:
        return _assembled(before_ms + 1, random >> 1)
    return _assembled(before_ms, tail)


def _assembled(milliseconds: int, tail: int) -> int:
    high = milliseconds << 16 | 0x7000 | tail >> 62
    return high << 64 | 0b10 << 62 | tail & (1 << 62) - 1


def new_call_id(deployment_id: str, now_ms: int, random: int, previous: str | None = None) -> str:
    """Return a call's id, greater than ``previous``: a UUIDv7 in hex, ``-``, the deployment's id.

    >>> new_call_id("cancer-k3x9q2ab", 1_700_000_000_000, 0)
    '018bcfe5680070008000000000000000-cancer-k3x9q2ab'
    """
    _checked_deployment(deployment_id)
    before = int(previous[:32], 16) if previous else 0
    return f"{uuid7(now_ms, random, before):032x}-{deployment_id}"


def deployment_of(call_id: str) -> str:
    """Return the id of the deployment that answered a call.

    Raises
    ------
    UnknownCall
        When the text is no call's id.
    """
    return _parsed(call_id)[1]


def _parsed(call_id: str) -> tuple[str, str]:
    found = _CALL_ID.fullmatch(call_id)
    if found is None:
        raise UnknownCall(
            f"{call_id[:120]!r} is not the id of a call",
            "Copy the `call_id` of an answer, or its header `Nbmlops-Call-Id`.",
        )
    return found[1], found[2]


def _checked_deployment(deployment_id: str) -> str:
    if not re.fullmatch(_DEPLOYMENT, deployment_id):
        raise InvalidName(
            f"{deployment_id[:80]!r} is not the id of a deployment",
            "Copy it from `nbmlops deployments`.",
        )
    return deployment_id


def _milliseconds(uuid_hex: str) -> int:
    return int(uuid_hex[:12], 16)


# --- lines and segments -------------------------------------------------------------------------


class _Line(msgspec.Struct):
    call_id: str
    sequence: int
    digest: str
    chain: str
    record: msgspec.Raw


class _Count(msgspec.Struct):
    """What a writer counts; ``chain`` is that of its last record."""

    answered: int
    dropped: int
    chain: str

    def line(self) -> bytes:
        """Return the counts in a fixed number of bytes, which is JSON all the same."""
        text = f'{{"answered":{self.answered:20d},"dropped":{self.dropped:20d},"chain":"'
        return f'{text}{self.chain}"}}\n'.encode()


_LINES = msgspec.json.Decoder(_Line)
_COUNTS = msgspec.json.Decoder(_Count)


def _first_link(deployment_id: str, writer: str) -> str:
    return hashlib.sha256(f"{deployment_id}\0{writer}".encode()).hexdigest()


def _next_link(chain: str, call_id: str, sequence: int, digest: str) -> str:
    return hashlib.sha256(f"{chain}\0{call_id}\0{sequence}\0{digest}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment's file and what its name says."""

    first: str
    writer: str
    path: Path

    @property
    def begins_ms(self) -> int:
        return _milliseconds(self.first)

    def lines(self) -> Iterator[bytes]:
        """Yield the full lines: one that a killed writer left unfinished does not count."""
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line


def _segments(folder: Path) -> list[_Segment]:
    """Return the segments of a deployment, oldest first."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 names are all that is needed
    except FileNotFoundError:
        return []
    return [
        _Segment(found[1], found[2], folder / name)
        for name in names
        if (found := _SEGMENT.fullmatch(name))
    ]


# --- writing ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A segment that is being written."""

    descriptor: int
    begins_ms: int
    size: int = 0


@dataclass(slots=True)
class _Writer:
    """The one writer of a deployment in this process."""

    deployment_id: str
    folder: Path
    writer: str
    count: _Count
    counter: int | None = None
    segment: _Open | None = None
    leaving: list[_Open] = field(default_factory=list["_Open"])
    dirty: bool = False
    synced: int = 0
    new_names: bool = False
    previous: str | None = None


class CallLog:
    """Writes the calls that this process answers; one writer for each deployment.

    ``write`` is for one thread and never blocks on the disk's durability; ``sync`` may run in
    another at the same time.
    """

    def __init__(
        self,
        calls: Path,
        endpoint: str,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._calls = calls
        self._endpoint = endpoint
        self._now_ms = now_ms
        self._random = random
        self._writers: dict[str, _Writer] = {}
        self._lock = threading.Lock()
        self._one_sync = threading.Lock()
        self.sync_failures = 0
        self.last_error = ""

    @property
    def drops(self) -> dict[str, int]:
        """The calls of each deployment that were answered and could not be written."""
        return {name: writer.count.dropped for name, writer in self._writers.items()}

    def prepare(self, deployment_id: str) -> None:
        """Make a deployment's count file while there is space, and mend what a crash has left.

        Never raises for the disk's sake: serving goes on, and the first drop tries again.
        """
        if deployment_id in self._writers:
            return
        writer = f"{self._random(32):08x}"
        folder = self._calls / _checked_deployment(deployment_id)
        count = _Count(0, 0, _first_link(deployment_id, writer))
        self._writers[deployment_id] = made = _Writer(deployment_id, folder, writer, count)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _repair(folder)
        except OSError as error:
            self.last_error = str(error)
        self._open_counter(made)

    def write(
        self,
        route: Route,
        records: Sequence[dict[str, Any]],
        predictions: tuple[Prediction, ...],
        *,
        latency_ms: float,
        client_id: str | None = None,
    ) -> CallRecord:
        """Write an answered call and return its record; a failure is counted, never raised."""
        self.prepare(route.deployment_id)
        writer = self._writers[route.deployment_id]
        call_id = new_call_id(
            route.deployment_id, self._now_ms(), self._random(_TAIL_BITS), writer.previous
        )
        writer.previous = call_id
        record = CallRecord(
            call_id=call_id,
            sequence=writer.count.answered + 1,
            at=datetime.fromtimestamp(_milliseconds(call_id) / 1000, UTC),
            endpoint=self._endpoint,
            deployment_id=route.deployment_id,
            model=route.model,
            version=route.version,
            commit=route.commit,
            records=tuple(records),
            predictions=predictions,
            latency_ms=latency_ms,
            client_id=client_id,
        )
        line, chain = _encoded(record, writer.count.chain)
        try:
            with self._lock:
                self._append(writer, call_id, line)
        except OSError as error:
            self.last_error = str(error)
            writer.count.dropped += 1
        else:
            writer.count.chain = chain
        writer.count.answered += 1
        self._keep_count(writer)
        return record

    def _append(self, writer: _Writer, call_id: str, line: bytes) -> None:
        """Write one line; called with the lock held, so that ``sync`` closes no file in use."""
        segment = self._segment_for(writer, call_id, len(line))
        try:
            written = os.write(segment.descriptor, line)
        except OSError:
            _undo(writer, segment)
            raise
        if written != len(line):
            _undo(writer, segment)
            raise OSError(f"{written} of {len(line)} bytes could be written")
        segment.size += len(line)
        writer.dirty = True

    def _segment_for(self, writer: _Writer, call_id: str, size: int) -> _Open:
        begins_ms = _milliseconds(call_id)
        now = writer.segment
        if now is not None and (
            begins_ms - now.begins_ms >= SEGMENT_SPAN_MS
            or (now.size and now.size + size > SEGMENT_LIMIT_BYTES)
        ):
            _leave(writer)
        if writer.segment is None:
            path = writer.folder / f"{call_id[:32]}-{writer.writer}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            writer.segment = _Open(os.open(path, flags, 0o600), begins_ms)
            writer.new_names = True
        return writer.segment

    def _open_counter(self, writer: _Writer) -> None:
        path = writer.folder / f"{writer.writer}.count"
        descriptor = None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # The lock says that this writer lives; it falls with the process.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(descriptor, writer.count.line(), 0)
            os.fsync(descriptor)
        except OSError as error:
            self.last_error = str(error)
            if descriptor is not None:
                os.close(descriptor)
            return
        writer.counter = descriptor
        writer.new_names = True

    def _keep_count(self, writer: _Writer) -> None:
        if writer.counter is None:
            self._open_counter(writer)
        else:
            try:
                os.pwrite(writer.counter, writer.count.line(), 0)
            except OSError as error:
                self.last_error = str(error)

    def sync(self) -> None:
        """Make durable what has been written, and seal the segments whose hour is over.

        An fsync that fails is counted and never tried again: what it should have kept may be gone
        already. The segment is left, and the next call begins a new one.
        """
        with self._one_sync:
            for writer in list(self._writers.values()):
                self._sync(writer)

    def _sync(self, writer: _Writer) -> None:
        with self._lock:
            segment = writer.segment
            if segment and self._now_ms() - segment.begins_ms >= SEGMENT_SPAN_MS:
                _leave(writer)
            leaving, writer.leaving = writer.leaving, []
            dirty, writer.dirty = writer.dirty, False
            new_names, writer.new_names = writer.new_names, False
            segment = writer.segment
            counted = writer.count.answered
        for one in leaving:
            self._durable(one.descriptor)
            with suppress(OSError):
                os.fchmod(one.descriptor, 0o400)
            os.close(one.descriptor)
        if dirty and segment is not None and not self._durable(segment.descriptor):
            with self._lock:
                if writer.segment is segment:
                    writer.segment = None
            os.close(segment.descriptor)
        if counted != writer.synced and writer.counter is not None:
            self._durable(writer.counter)
            writer.synced = counted
        if new_names:
            with suppress(OSError):
                layout.sync_folder(writer.folder)

    def _durable(self, descriptor: int) -> bool:
        try:
            os.fsync(descriptor)
        except OSError as error:
            self.sync_failures += 1
            self.last_error = str(error)
            return False
        return True

    def close(self) -> None:
        """Make everything durable, seal the segments and give up the writers."""
        with self._lock:
            for writer in self._writers.values():
                _leave(writer)
        self.sync()
        for writer in self._writers.values():
            if writer.counter is not None:
                os.close(writer.counter)
                writer.counter = None
        self._writers.clear()


def _leave(writer: _Writer) -> None:
    """Write no more to the present segment; ``sync`` seals it."""
    if writer.segment is not None:
        writer.leaving.append(writer.segment)
        writer.segment = None


def _undo(writer: _Writer, segment: _Open) -> None:
    """Take half a line away, so that it does not stand before the next one."""
    try:
        os.ftruncate(segment.descriptor, segment.size)
    except OSError:
        _leave(writer)


def _encoded(record: CallRecord, chain: str) -> tuple[bytes, str]:
    """Return a record's line and the chain's link after it."""
    content = dump(record)
    digest = hashlib.sha256(content).hexdigest()
    link = _next_link(chain, record.call_id, record.sequence, digest)
    head = (
        f'{{"call_id":"{record.call_id}","sequence":{record.sequence},"digest":"{digest}",'
        f'"chain":"{link}","record":'
    )
    return b"".join((head.encode(), content, b"}\n")), link


def _repair(folder: Path) -> None:
    """Cut off the unfinished last lines of writers that are no more, and seal their segments."""
    segments = _segments(folder)
    for name in os.listdir(folder):  # noqa: PTH208 names are all that is needed
        found = _COUNT.fullmatch(name)
        if found is None or _is_live(folder / name):
            continue
        for segment in segments:
            if segment.writer == found[1] and segment.path.stat().st_mode & 0o200:
                _seal(segment.path)


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        keep, step = size, 64 * 1024
        while keep > 0:
            start = max(0, keep - step)
            file.seek(start)
            at = file.read(keep - start).rfind(b"\n")
            if at >= 0:
                keep = start + at + 1
                break
            keep = start
        if keep != size:
            file.truncate(keep)
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o400)


def _is_live(counter: Path) -> bool:
    """Whether the writer of a count file is still there."""
    descriptor = os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# --- reading ------------------------------------------------------------------------------------


def find(calls: Path, call_id: str) -> CallRecord:
    """Return a logged call, from the few segments that its id allows.

    Raises
    ------
    UnknownCall
        When the id is none, or no such call was logged, or its record was removed.
    ArtifactCorrupt
        When the record is not the one that was written.
    """
    uuid_hex, deployment_id = _parsed(call_id)
    latest: dict[str, _Segment] = {}
    for segment in _segments(calls / deployment_id):
        age_ms = _milliseconds(uuid_hex) - segment.begins_ms
        if segment.first <= uuid_hex and age_ms <= SEGMENT_SPAN_MS:
            latest[segment.writer] = segment
    for segment in latest.values():
        line = _line_of(segment.path, call_id)
        if line is not None:
            return _record(line)
    raise UnknownCall(
        f"no call {call_id} is in the log",
        "It may have been answered elsewhere, or dropped on a full disk: `nbmlops doctor`.",
        call_id=call_id,
    )


def _line_of(path: Path, call_id: str) -> _Line | None:
    # Inside a JSON text a quote is escaped and a line never ends, so this is no record's content.
    start = f'{{"call_id":"{call_id}",'.encode()
    data = path.read_bytes()
    at = 0 if data.startswith(start) else data.find(b"\n" + start) + 1
    end = data.find(b"\n", at)
    if end < 0 or not data.startswith(start, at):
        return None
    return _decoded(data[at:end], path)


def _decoded(line: bytes, path: Path) -> _Line:
    try:
        return _LINES.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(
            f"a line of {path.name} was changed: {error}", "Restore it from a backup."
        ) from error


def _record(line: _Line) -> CallRecord:
    content = bytes(line.record)
    if content == b"null":
        raise UnknownCall(f"the record of call {line.call_id} was removed", call_id=line.call_id)
    if hashlib.sha256(content).hexdigest() != line.digest:
        raise ArtifactCorrupt(
            f"the record of call {line.call_id} is not the one that was written",
            "Restore it from a backup; `nbmlops doctor` names all that were changed.",
            call_id=line.call_id,
        )
    return load(content, CallRecord)


def window(
    calls: Path, deployment_id: str, since: datetime | None, until: datetime | None
) -> Iterator[CallRecord]:
    """Yield a deployment's logged calls from ``since`` up to and without ``until``.

    They come segment by segment, so in order within each writer. Segments whose names lie outside
    are not opened; records that were removed are left out.

    Raises
    ------
    ArtifactCorrupt
        When a record is not the one that was written.
    """
    begins_ms = _epoch_ms(since) if since else 0
    for segment in _segments(calls / _checked_deployment(deployment_id)):
        if segment.begins_ms + SEGMENT_SPAN_MS < begins_ms:
            continue
        if until and segment.begins_ms >= _epoch_ms(until):
            break
        for text in segment.lines():
            line = _decoded(text, segment.path)
            at_ms = _milliseconds(line.call_id)
            after = at_ms >= begins_ms and bytes(line.record) != b"null"
            if after and (until is None or at_ms < _epoch_ms(until)):
                yield _record(line)


def _epoch_ms(moment: datetime) -> int:
    # Rounded up: an id has whole milliseconds.
    return -((datetime(1970, 1, 1, tzinfo=UTC) - moment) // timedelta(milliseconds=1))


@dataclass(frozen=True, slots=True)
class Verification:
    """What a deployment's log holds: ``answered`` = ``records`` + ``drops`` when all is well.

    ``last_sequence`` is that of each writer; ``removed`` counts the records that were removed on
    purpose; ``problems`` says in a sentence each what does not agree.
    """

    answered: int
    records: int
    drops: int
    removed: int
    last_sequence: dict[str, int]
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Tally:
    """What verifying one writer has found so far."""

    chain: str
    records: int = 0
    removed: int = 0
    sequence: int = 0
    counted_chain: str = ""
    problems: list[str] = field(default_factory=list[str])


def verify(calls: Path, deployment_id: str) -> Verification:
    """Check every digest, chain, sequence and count of a deployment's log.

    A log that is being written may be verified too.
    """
    folder = calls / _checked_deployment(deployment_id)
    counts: dict[str, tuple[_Count | None, bool]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if found := _COUNT.fullmatch(path.name):
                # Read before the segments, so that a live writer is only ever ahead of it.
                counts[found[1]] = (_read_count(path), _is_live(path))
    by_writer: dict[str, list[_Segment]] = {name: [] for name in counts}
    for segment in _segments(folder):
        by_writer.setdefault(segment.writer, []).append(segment)
    tallies: dict[str, _Tally] = {}
    answered = drops = 0
    for writer, segments in by_writer.items():
        if writer not in counts:  # it began after the counts were read
            path = folder / f"{writer}.count"
            counts[writer] = (_read_count(path), _is_live(path)) if path.exists() else (None, False)
        count, live = counts[writer]
        if count is None and not segments:
            continue  # made a moment ago and not written yet: there is nothing to account for
        tally = _tally(deployment_id, writer, segments, count)
        tallies[writer] = tally
        if count is None:
            tally.problems.append(f"writer {writer} has no readable count file")
            answered += tally.sequence
            continue
        answered += max(count.answered, tally.sequence)
        drops += count.dropped
        tally.problems += _disagreements(writer, tally, count, live=live)
    return Verification(
        answered=answered,
        records=sum(tally.records for tally in tallies.values()),
        drops=drops,
        removed=sum(tally.removed for tally in tallies.values()),
        last_sequence={name: tally.sequence for name, tally in tallies.items()},
        problems=tuple(problem for tally in tallies.values() for problem in tally.problems),
    )


def _tally(
    deployment_id: str, writer: str, segments: Sequence[_Segment], count: _Count | None
) -> _Tally:
    tally = _Tally(chain=_first_link(deployment_id, writer))
    tally.counted_chain = tally.chain
    for segment in segments:
        for number, text in enumerate(segment.lines(), 1):
            where = f"{segment.path.name} line {number}"
            try:
                line = _decoded(text, segment.path)
            except ArtifactCorrupt as error:
                tally.problems.append(f"{where}: {error.message}")
                continue
            _take(tally, line, where)
            if count is not None and line.sequence <= count.answered:
                tally.counted_chain = line.chain
    return tally


def _take(tally: _Tally, line: _Line, where: str) -> None:
    content = bytes(line.record)
    if content == b"null":
        tally.removed += 1
    elif hashlib.sha256(content).hexdigest() != line.digest:
        tally.problems.append(f"{where}: the record does not have its digest")
    if _next_link(tally.chain, line.call_id, line.sequence, line.digest) != line.chain:
        tally.problems.append(f"{where}: the chain is broken")
    if line.sequence <= tally.sequence:
        tally.problems.append(f"{where}: sequence {line.sequence} after {tally.sequence}")
    tally.chain = line.chain
    tally.sequence = max(tally.sequence, line.sequence)
    tally.records += 1


def _disagreements(writer: str, tally: _Tally, count: _Count, *, live: bool) -> Iterator[str]:
    ahead = tally.sequence - count.answered
    missing = count.answered - count.dropped - tally.records
    if missing > 0:
        yield f"writer {writer} answered {count.answered} calls: {missing} records are missing"
    elif not live and (ahead > 1 or -missing > max(ahead, 0)):
        yield f"writer {writer} has {-missing} records more than it counted"
    elif tally.counted_chain != count.chain:
        yield f"writer {writer} counted another last record than the log has"


def _read_count(path: Path) -> _Count | None:
    try:
        return _COUNTS.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
