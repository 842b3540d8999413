"""A program that forks writers with everything imported, so that thousands can be killed.

It reads one request a line from standard input: ``write WHERE FOLDER WHO TOLD`` answers with the
process id of a new writer, ``reap PID`` with what it ended by.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

from nbmlops.artifacts import Artifacts
from nbmlops.errors import Conflict
from nbmlops.records import Cause
from nbmlops.store import Store

SHARED = "shared"


def word(text: str) -> Cause:
    """Return a record."""
    return Cause(code="c", message=text)


def place(text: str) -> Path | str:
    """Return where a store is: a path, or the URL it is."""
    return text if "://" in text else Path(text)


def data_of(name: str) -> bytes:
    """Return the bytes that go with a name."""
    return f"{name} ".encode() * 500


def write_on(where: Path | str, folder: Path, who: str, told: Path) -> None:
    """Write for ever; tell each mutation that was acknowledged, after it."""
    store, artifacts = Store(where), Artifacts(folder)
    descriptor = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    number = 0
    while True:
        name = f"{who}-{number}"
        if number % 3 == 2:
            kept = store.get("k", SHARED, Cause)
            expected = kept.revision if kept else 0
            try:
                stands = store.swap("k", SHARED, word(name), expected=expected, key=name)
            except Conflict:
                continue
        else:
            digest = artifacts.put(data_of(name))
            stands = store.swap("k", name, word(digest), expected=0, key=name)
        os.write(descriptor, f"{name} {stands}\n".encode())
        number += 1


class Writers:
    """The program, asked from a test."""

    def __init__(self, where: Path | str) -> None:
        self._where = where
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(where)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._ask("ready?") == "ready"

    def _ask(self, words: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(words + "\n")
        return self._process.stdout.readline().strip()

    def start(self, folder: Path, who: str, told: Path) -> int:
        """Start a writer and return its process id."""
        return int(self._ask(f"write {self._where} {folder} {who} {told}"))

    def reap(self, pid: int) -> int:
        """Return how a writer ended, a negative number for a signal."""
        return int(self._ask(f"reap {pid}"))

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


def main() -> None:
    """Fork and reap as asked."""
    if "://" in sys.argv[1]:
        import psycopg  # noqa: F401  # so that no writer has to import it
    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder) / "warm.sqlite").close()
    for line in sys.stdin:
        what, *words = line.split()
        if what == "write":
            if (pid := os.fork()) == 0:
                where, folder, who, told = words
                write_on(place(where), Path(unquote(folder)), who, Path(told))
            print(pid, flush=True)
        elif what == "reap":
            _, status = os.waitpid(int(words[0]), 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        else:
            print("ready", flush=True)


if __name__ == "__main__":
    main()
