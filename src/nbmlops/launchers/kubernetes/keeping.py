"""What this machine keeps of a job in a cluster, in a folder of its own.

``asked.json`` is what was launched, ``ending.json`` that it is to end, ``trouble.json`` since when
it does not go on, ``a1.json`` and ``a1.log`` how an attempt ended and what it wrote, ``i7.json``
and ``i7.log`` the same of a part of a batch, ``came.json`` which files of a service have come. What
is kept is known after the cluster has forgotten.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import msgspec

from nbmlops import layout
from nbmlops.records import Attempt, Cause, JobSpec, JobStatus
from nbmlops.records.record import Record, RecordT


class Asked(Record, frozen=True, kw_only=True):
    """What was launched; ``number`` counts how often a job with a port was started."""

    spec: JobSpec
    number: int
    marker: str
    asked_s: float
    inbox_by_secret: bool = True
    launched: bool = False
    address: str | None = None

    @property
    def attempt(self) -> str:
        """The name of what was started last."""
        return f"a{self.number}"


class Ending(Record, frozen=True, kw_only=True):
    """That a job is to end: for good (``cancel``), or until it is scaled up again (``scale``).

    With a ``cause`` nobody asked for it: it did not go on, and has failed by that.
    """

    kind: str
    asked_s: float
    cause: Cause | None = None


class Standing(Record, frozen=True, kw_only=True):
    """A trouble, and since when it stands."""

    code: str
    since_s: float


class Kept:
    """The folder of one job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def asked(self) -> Asked | None:
        """Return what was launched, if anything was."""
        return _read(self._folder / "asked.json", Asked)

    def ask(self, asked: Asked) -> None:
        """Keep what is launched; the marker is nobody else's."""
        layout.write_file(self._folder / "asked.json", msgspec.json.encode(asked), mode=0o600)

    def ending(self) -> Ending | None:
        """Return that the job is to end, if it is."""
        return _read(self._folder / "ending.json", Ending)

    def end(self, ending: Ending) -> None:
        """Keep that the job is to end."""
        layout.write_file(self._folder / "ending.json", msgspec.json.encode(ending))

    def go_on(self) -> None:
        """Forget that the job was to end, and what trouble it had."""
        for name in ("ending.json", "trouble.json"):
            (self._folder / name).unlink(missing_ok=True)

    def standing_s(self, code: str | None, now_s: float) -> float:
        """Return for how long a trouble stands; with ``None`` there is none any more."""
        path = self._folder / "trouble.json"
        if code is None:
            path.unlink(missing_ok=True)
            return 0.0
        seen = _read(path, Standing)
        if seen is None or seen.code != code or seen.since_s > now_s:
            layout.write_file(path, msgspec.json.encode(Standing(code=code, since_s=now_s)))
            return 0.0
        return now_s - seen.since_s

    def came(self) -> dict[str, str]:
        """Return the files that have come of a job that stays up, with what tells their states."""
        try:
            return msgspec.json.decode(
                (self._folder / "came.json").read_bytes(), type=dict[str, str]
            )
        except (FileNotFoundError, msgspec.DecodeError):  # or of an older version
            return {}

    def take(self, came: dict[str, str]) -> None:
        """Keep which files have come."""
        layout.write_file(self._folder / "came.json", msgspec.json.encode(came))

    def status(self, name: str) -> JobStatus | None:
        """Return how an attempt, or a part of a batch, ended; ``None`` while it goes on."""
        return _read(self._folder / f"{name}.json", JobStatus)

    def keep(self, name: str, status: JobStatus) -> None:
        """Keep how an attempt ended."""
        layout.write_file(self._folder / f"{name}.json", msgspec.json.encode(status))

    def attempts(self) -> tuple[Attempt, ...]:
        """Return all attempts that have ended, in their order."""
        found = sorted(self._folder.glob("a*.json"), key=lambda path: (len(path.name), path.name))
        ended = [
            status
            for path in found
            if path.stem[1:].isdigit() and (status := self.status(path.stem)) is not None
        ]
        return tuple(attempt for status in ended for attempt in status.attempts[-1:])

    def parts(self) -> dict[int, JobStatus]:
        """Return the parts of a batch that have ended."""
        found = [path.stem for path in self._folder.glob("i*.json") if path.stem[1:].isdigit()]
        seen = {int(name[1:]): self.status(name) for name in found}
        return {index: status for index, status in sorted(seen.items()) if status is not None}

    def write_log(self, name: str, lines: Iterable[str]) -> None:
        """Keep what an attempt wrote; of one that is cut off, what came."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.log"
        beside = path.with_suffix(".writing")
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{line}\n" for line in lines)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def log(self, name: str) -> Iterator[str] | None:
        """Return the lines that an attempt wrote, or ``None`` when none were kept."""
        path = self._folder / f"{layout.checked_name(name, 'attempt')}.log"
        return _lines(path) if path.exists() else None

    def tail(self, name: str, limit_bytes: int = 2000) -> list[str]:
        """Return the last lines that an attempt wrote."""
        try:
            with (self._folder / f"{name}.log").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - limit_bytes))
                return file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def only_one(self) -> Generator[None, None, None]:
        """Keep other processes from launching, ending or collecting the job meanwhile."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n")


def _read(path: Path, kind: type[RecordT]) -> RecordT | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
