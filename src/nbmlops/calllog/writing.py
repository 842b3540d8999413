"""Writing the call log: one writer for each process and deployment."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import layout
from nbmlops.calllog.ids import TAIL_BITS, checked_deployment, milliseconds, new_call_id
from nbmlops.calllog.redaction import Redaction
from nbmlops.calllog.segments import (
    COUNT_NAME,
    SEGMENT_SPAN_MS,
    Count,
    first_link,
    is_live,
    next_link,
    segments_of,
)
from nbmlops.records import CallRecord, Prediction, Route, dump

SEGMENT_LIMIT_BYTES = 64 * 1024 * 1024
SYNC_INTERVAL_S = 0.2


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
    count: Count
    counter: int | None = None
    segment: _Open | None = None
    leaving: list[_Open] = field(default_factory=list["_Open"])
    dirty: bool = False
    synced: int = 0
    new_names: bool = False
    previous: str | None = None
    numbered: int = 0  # calls that were given their number
    uncounted: int = 0  # dropped, and not yet in ``count``
    late: int = 0  # answered, and still being written


@dataclass(slots=True, eq=False)
class Batch:
    """Calls that were answered together, as they are to be written."""

    writer: _Writer
    records: list[CallRecord] = field(default_factory=list[CallRecord])
    contents: list[bytes] = field(default_factory=list[bytes])
    size: int = 0  # of the contents
    is_late: bool = False  # nobody waits for it any more


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is known of an answered call before it is written."""

    records: Sequence[dict[str, Any]]
    predictions: tuple[Prediction, ...]
    latency_ms: float
    client_id: str | None = None
    client: str | None = None


class CallLog:
    """Writes the calls that this process answers; one writer for each deployment.

    ``copied`` says that others read copies of the files, made while they are written.
    ``encode`` and ``drop`` never touch the disk. ``append`` may run in another thread, ``sync`` in
    a third one at the same time.
    """

    def __init__(
        self,
        calls: Path,
        endpoint: str,
        *,
        copied: bool = False,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._calls = calls
        self._endpoint = endpoint
        self._copied = copied
        self._now_ms = now_ms
        self._random = random
        self._writers: dict[str, _Writer] = {}
        self._redaction = Redaction(calls)
        self._lock = threading.Lock()  # of the files; whoever has it may be waiting for the disk
        self._counting = threading.Lock()  # of what is counted without the disk
        self._one_sync = threading.Lock()
        self.sync_failures = 0
        self.last_error = ""

    @property
    def drops(self) -> dict[str, int]:
        """The calls of each deployment that were answered and could not be written."""
        return {
            name: writer.count.dropped + writer.uncounted + writer.late
            for name, writer in self._writers.items()
        }

    def prepare(self, deployment_id: str) -> None:
        """Make a deployment's count file while there is space, and mend what a crash has left.

        Never raises for the disk's sake: serving goes on, and the first drop tries again.
        """
        if deployment_id in self._writers:
            return
        writer = f"{self._random(32):08x}"
        folder = self._calls / checked_deployment(deployment_id)
        count = Count(0, 0, first_link(deployment_id, writer), copied=self._copied)
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
        client: str | None = None,
    ) -> CallRecord:
        """Write an answered call and return its record; see :meth:`write_all`."""
        entry = Entry(records, predictions, latency_ms, client_id, client)
        return self.write_all(route, [entry])[0]

    def write_all(self, route: Route, entries: Sequence[Entry]) -> list[CallRecord]:
        """Write calls that were answered together, and return their records.

        They are one write(2), and so are written or dropped together; a failure is counted, never
        raised.
        """
        batch = self.encode(route, entries)
        self.append(batch)
        return batch.records

    def encode(self, route: Route, entries: Sequence[Entry]) -> Batch:
        """Give calls their ids and numbers; :meth:`append` or :meth:`drop` is to follow."""
        self.prepare(route.deployment_id)
        writer = self._writers[route.deployment_id]
        now_ms = self._now_ms()
        batch = Batch(writer)
        for entry in entries:
            writer.numbered += 1
            record = self._record(writer, route, entry, now_ms, writer.numbered)
            batch.records.append(record)
            content = dump(record)
            batch.contents.append(content)
            batch.size += len(content)
        return batch

    def append(self, batch: Batch) -> None:
        """Write a batch; this may take as long as the disk likes. One thread at a time."""
        if not batch.records:
            return
        writer = batch.writer
        with self._lock:
            self._count_drops(writer)
            link = writer.count.chain
            lines: list[bytes] = []
            for record, content in zip(batch.records, batch.contents, strict=True):
                line, link = _encoded(record, content, link)
                lines.append(line)
            try:
                self._append(writer, batch.records[0].call_id, b"".join(lines))
            except OSError as error:
                self.last_error = str(error)
                writer.count.dropped += len(lines)
            else:
                writer.count.chain = link
            writer.count.answered += len(lines)
            self._keep_count(writer)
        with self._counting:
            if batch.is_late:
                batch.is_late = False
                writer.late -= len(lines)

    def drop(self, batch: Batch) -> None:
        """Count a batch as dropped without touching the disk."""
        with self._counting:
            batch.writer.uncounted += len(batch.records)
            if batch.is_late:
                batch.is_late = False
                batch.writer.late -= len(batch.records)

    def delay(self, batch: Batch) -> None:
        """Count a batch as dropped until it is written after all."""
        with self._counting:
            batch.is_late = True
            batch.writer.late += len(batch.records)

    def _count_drops(self, writer: _Writer) -> None:
        """Take over what was dropped without touching the disk; called with the lock held."""
        with self._counting:
            uncounted, writer.uncounted = writer.uncounted, 0
        writer.count.answered += uncounted
        writer.count.dropped += uncounted

    def _record(
        self, writer: _Writer, route: Route, entry: Entry, now_ms: int, sequence: int
    ) -> CallRecord:
        call_id = new_call_id(route.deployment_id, now_ms, self._random(TAIL_BITS), writer.previous)
        writer.previous = call_id
        records, redacted = self._redaction.apply(route, entry.records)
        return CallRecord(
            call_id=call_id,
            sequence=sequence,
            at=_moment(milliseconds(call_id)),
            endpoint=self._endpoint,
            deployment_id=route.deployment_id,
            model=route.model,
            version=route.version,
            commit=route.commit,
            records=records,
            predictions=entry.predictions,
            latency_ms=entry.latency_ms,
            client_id=entry.client_id,
            client=entry.client,
            redacted=redacted,
        )

    def _append(self, writer: _Writer, call_id: str, lines: bytes) -> None:
        """Write lines; called with the lock held, so that ``sync`` closes no file in use."""
        segment = self._segment_for(writer, call_id, len(lines))
        try:
            written = os.write(segment.descriptor, lines)
        except OSError:
            _undo(writer, segment)
            raise
        if written != len(lines):
            _undo(writer, segment)
            raise OSError(f"{written} of {len(lines)} bytes could be written")
        segment.size += len(lines)
        writer.dirty = True

    def _segment_for(self, writer: _Writer, call_id: str, size: int) -> _Open:
        begins_ms = milliseconds(call_id)
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
            if writer.uncounted:
                self._count_drops(writer)
                self._keep_count(writer)
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


@functools.lru_cache(16)
def _moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


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


def _encoded(record: CallRecord, content: bytes, chain: str) -> tuple[bytes, str]:
    """Return a record's line and the chain's link after it."""
    digest = hashlib.sha256(content).hexdigest()
    link = next_link(chain, record.call_id, record.sequence, digest)
    head = (
        f'{{"call_id":"{record.call_id}","sequence":{record.sequence},"digest":"{digest}",'
        f'"chain":"{link}","record":'
    )
    return b"".join((head.encode(), content, b"}\n")), link


def _repair(folder: Path) -> None:
    """Cut off the unfinished last lines of writers that are no more, and seal their segments."""
    segments = segments_of(folder)
    for name in os.listdir(folder):  # noqa: PTH208 names are all that is needed
        found = COUNT_NAME.fullmatch(name)
        if found is None or is_live(folder / name):
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
