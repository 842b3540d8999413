"""How inboxes come and outboxes go: by a Secret and the log, by an object store, by a claim."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from nbmlops import digests, layout, parcels
from nbmlops.errors import NbmlopsError, WrongUse
from nbmlops.parcels import Outcome, ParcelTooLarge, Plan
from nbmlops.records import replace

_EVERY_S = 5.0
_PATIENCE_S = 60.0


class StoreRefused(NbmlopsError):
    """The object store did not take or give what was asked."""

    code = "object-store-refused"
    exit_code = 5


# A store's library raises what it likes; whatever it is, it is told in the pod's last message.
FAILURES = (Exception,)


class Way(Protocol):
    """How one job's inbox and outbox travel."""

    def bring(self, inbox: Path) -> None:
        """Lay the inbox."""
        ...

    def outbox(self, proposed: Path) -> Path:
        """Return the folder that the program writes into, made."""
        ...

    def shipping(self, outbox: Path) -> AbstractContextManager[None]:
        """Ship again and again, for as long as the block lasts, where the program stays up."""
        ...

    def ship(self, outbox: Path, outcome: Outcome) -> Outcome:
        """Ship the outbox at the end; return the outcome with its digest."""
        ...


def of(plan: Plan, attempt: str, marker: str) -> Way:
    """Return the way that a plan names."""
    if plan.way == "secret":
        return LogWay(plan, marker)
    if plan.way == "url":
        return StoreWay(plan, attempt)
    if plan.way == "claim":
        return ClaimWay(plan, attempt)
    raise WrongUse(f"there is no way `{plan.way}`", "The image is of another version of nbmlops.")


def told(error: BaseException) -> str:
    """Return an error in one line."""
    text = error.message if isinstance(error, NbmlopsError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:1000]


def reason_of(error: BaseException) -> str:
    """Return the code of what kept an outbox from being sent."""
    return "outbox-too-large" if isinstance(error, ParcelTooLarge) else "outbox-lost"


class LogWay:
    """The inbox from a mounted Secret, the outbox as frames at the end of the log."""

    def __init__(self, plan: Plan, marker: str) -> None:
        self._plan = plan
        self._marker = marker

    def bring(self, inbox: Path) -> None:
        """Lay the mounted archive."""
        _from_secret(self._plan, inbox)

    def outbox(self, proposed: Path) -> Path:
        """Return the proposed folder."""
        proposed.mkdir(parents=True, exist_ok=True)
        return proposed

    def shipping(self, outbox: Path) -> AbstractContextManager[None]:
        """Ship nothing meanwhile: what such a job with a port writes goes with its pod."""
        del outbox
        return contextlib.nullcontext()

    def ship(self, outbox: Path, outcome: Outcome) -> Outcome:
        """Write the frames.

        Raises
        ------
        ParcelTooLarge
            When the log is no place for so much.
        """
        if self._plan.port is not None:
            return outcome
        archive = parcels.pack(outbox)
        if len(archive) > parcels.OUTBOX_LIMIT_BYTES:
            raise ParcelTooLarge(
                f"the outbox has {len(archive):,} bytes when packed, and the log of a pod carries"
                f" {parcels.OUTBOX_LIMIT_BYTES:,}",
                "Name an object store or a claim.",
            )
        sys.stdout.flush()
        for frame in parcels.frames(archive, self._marker):
            _write_all(1, frame)
        return replace(outcome, digest=digests.of_bytes(archive), size_bytes=len(archive))


class StoreWay:
    """Inbox and outbox as objects under a URL; a job with a port ships file by file."""

    def __init__(self, plan: Plan, attempt: str) -> None:
        self._plan = plan
        self._place = str(plan.place)
        self._attempt = attempt
        self._sent: dict[str, object] = {}

    def bring(self, inbox: Path) -> None:
        """Get the archive and lay it."""
        beside = inbox.with_name("inbox.download")
        inbox.parent.mkdir(parents=True, exist_ok=True)
        _apart(lambda: _patiently(lambda: _get(f"{self._place}/{parcels.INBOX_FILE}", beside)))
        with beside.open("rb") as archive:
            parcels.lay(archive, inbox)
        beside.unlink()
        if self._plan.apart:
            _lay_own(self._attempt, self._get_own, inbox)

    def _get_own(self, name: str, target: Path) -> None:
        _apart(lambda: _patiently(lambda: _get(f"{self._place}/{name}", target)))

    def outbox(self, proposed: Path) -> Path:
        """Return the proposed folder."""
        proposed.mkdir(parents=True, exist_ok=True)
        return proposed

    @contextlib.contextmanager
    def shipping(self, outbox: Path) -> Generator[None, None, None]:
        """Ship changed files every few seconds; seldom, where that takes long."""
        if self._plan.port is None:
            yield
            return
        over = threading.Event()

        def ship() -> None:
            pause_s = _EVERY_S
            while not over.wait(pause_s):
                begun = time.monotonic()
                with contextlib.suppress(*FAILURES):  # tried again with the next round
                    self._ship_files(outbox)
                pause_s = max(_EVERY_S, 10 * (time.monotonic() - begun))

        thread = threading.Thread(target=ship, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(_PATIENCE_S)

    def ship(self, outbox: Path, outcome: Outcome) -> Outcome:
        """Put the archive, and its digest last.

        Raises
        ------
        StoreRefused
            When the store does not take it within a minute.
        """
        if self._plan.port is not None:
            _patiently(lambda: self._ship_files(outbox))
            return outcome
        beside = outbox.with_name(parcels.OUTBOX_FILE)
        digest = parcels.pack_to(outbox, beside)
        where = f"{self._place}/{self._attempt}"
        _patiently(lambda: _put(partial(beside.open, "rb"), f"{where}/{parcels.OUTBOX_FILE}"))
        mark = outbox.with_name(parcels.DIGEST_FILE)
        mark.write_text(digest)
        _patiently(lambda: _put(partial(mark.open, "rb"), f"{where}/{parcels.DIGEST_FILE}"))
        return replace(outcome, digest=digest, size_bytes=beside.stat().st_size)

    def _ship_files(self, outbox: Path) -> None:
        small: list[tuple[str, bytes]] = []
        large: list[tuple[str, Path]] = []
        for name, path in digests.files_below(outbox):
            if path.stat().st_size <= parcels.SMALL_BYTES:
                small.append((name, path.read_bytes()))
            else:
                large.append((name, path))
        for name, path in large:
            about = path.stat()
            self._ship_file(name, (about.st_size, about.st_mtime_ns), partial(path.open, "rb"))
        for name, content in small:
            self._ship_file(name, content, partial(io.BytesIO, content))

    def _ship_file(self, name: str, seen: object, opened: Callable[[], BinaryIO]) -> None:
        if self._sent.get(name) != seen:
            _put(opened, f"{self._place}/{self._attempt}/files/{name}")
            self._sent[name] = seen


class ClaimWay:
    """The outbox on a claim; the inbox from there, or by a Secret where it fits.

    Of a job with a port the outbox is a folder of the claim itself.
    """

    def __init__(self, plan: Plan, attempt: str) -> None:
        self._plan = plan
        self._place = Path(str(plan.place))
        self._attempt = attempt

    def bring(self, inbox: Path) -> None:
        """Lay the archive of the Secret, or of the claim."""
        if self._plan.inbox is not None:
            _from_secret(self._plan, inbox)
        else:
            with (self._place / parcels.INBOX_FILE).open("rb") as archive:
                parcels.lay(archive, inbox)
        if self._plan.apart:
            _lay_own(self._attempt, lambda name, to: _copy(self._place / name, to), inbox)

    def outbox(self, proposed: Path) -> Path:
        """Return the proposed folder."""
        proposed.mkdir(parents=True, exist_ok=True)
        return proposed

    def shipping(self, outbox: Path) -> AbstractContextManager[None]:
        """Ship nothing meanwhile: it is there already."""
        del outbox
        return contextlib.nullcontext()

    def ship(self, outbox: Path, outcome: Outcome) -> Outcome:
        """Copy the archive onto the claim, and its digest last."""
        if self._plan.port is not None:
            return outcome
        beside = outbox.with_name(parcels.OUTBOX_FILE)
        digest = parcels.pack_to(outbox, beside)
        folder = self._place / self._attempt
        folder.mkdir(parents=True, exist_ok=True)
        _copy(beside, folder / parcels.OUTBOX_FILE)
        mark = outbox.with_name(parcels.DIGEST_FILE)
        mark.write_text(digest)
        _copy(mark, folder / parcels.DIGEST_FILE)
        return replace(outcome, digest=digest, size_bytes=beside.stat().st_size)


def _from_secret(plan: Plan, inbox: Path) -> None:
    with Path(str(plan.inbox)).open("rb") as archive:
        parcels.lay(archive, inbox)


def _lay_own(attempt: str, get: Callable[[str, Path], None], inbox: Path) -> None:
    """Lay the parcel that only this part of a batch gets."""
    beside = inbox.with_name("own.download")
    get(parcels.part_file(layout.index_of(attempt) or 0), beside)
    with beside.open("rb") as archive:
        parcels.lay(archive, inbox)
    beside.unlink()


def _copy(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}")
    with source.open("rb") as content, beside.open("wb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(target)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _apart(act: Callable[[], None]) -> None:
    """Do something in a process of its own, whose libraries leave the memory to the job."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except FAILURES as error:
            os.write(writing, told(error).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode(errors="replace")
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise StoreRefused(said or "the program that asks the store was killed", "")


def _patiently(act: Callable[[], None]) -> None:
    """Do something that may fail for a while."""
    deadline = time.monotonic() + _PATIENCE_S
    pause_s = 0.5
    while True:
        try:
            act()
        except FAILURES as error:
            if time.monotonic() + pause_s > deadline:
                raise StoreRefused(told(error), "See that the store is there.") from error
            time.sleep(pause_s)
            pause_s = min(8.0, 2 * pause_s)
        else:
            return


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError:
        raise WrongUse(
            "the image has no fsspec", "Build it with the packages of your store: `nbmlops build`."
        ) from None
    return fsspec


def _get(url: str, path: Path) -> None:
    with _fsspec().open(url, "rb") as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 2**20)


def _put(opened: Callable[[], BinaryIO], url: str) -> None:
    with opened() as source, _fsspec().open(url, "wb") as target:
        shutil.copyfileobj(source, target, 2**20)
