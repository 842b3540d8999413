"""The job's standard output: what cells print, and events between its lines.

Events are lines behind a marker that is drawn at random and told in the first line, before any
cell runs, so that no cell can forge one; ``events.jsonl`` is the runner's own copy.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from nbmlops import records
from nbmlops.records import Event

MARKER_LINE = "nbmlops-events "
_LOG_LIMIT_CHARACTERS = 32 * 2**20


class Redaction:
    """Takes the values of secrets out of whatever is written; short ones would hit chance text."""

    def __init__(self, values: Iterable[str]) -> None:
        spelled = {
            spelling
            for value in values
            if len(value) >= 4
            for spelling in (
                value,
                json.dumps(value)[1:-1],
                json.dumps(value, ensure_ascii=False)[1:-1],
            )
        }
        self._spelled = sorted(spelled, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with ``[secret]`` in their places."""
        for value in self._spelled:
            text = text.replace(value, "[secret]")
        return text

    def finds(self, text: str) -> bool:
        """Return whether the value of a secret is in the text."""
        return any(value in text for value in self._spelled)

    def begun(self, text: str) -> int:
        """Return how many characters at the text's end may be the beginning of a secret."""
        longest = 0
        for value in self._spelled:
            for length in range(min(len(value) - 1, len(text)), longest, -1):
                if text.endswith(value[:length]):
                    longest = length
                    break
        return longest

    def within(self, value: Any) -> Any:
        """Return JSON with the values of secrets taken out of every text in it, keys included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(str(key)): self.within(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.within(item) for item in value]
        return value


class Console:
    """Standard output, shared by the cells' text and the events between its lines."""

    def __init__(self, stream: TextIO, copy: Path, redacted: Redaction) -> None:
        self._stream = stream
        self._redacted = redacted
        self._lock = threading.Lock()
        self._at_line_start = True
        self._written = 0
        self._waiting = ""
        self._marker = secrets.token_hex(16)
        self._copy = copy.open("ab")
        self.write(f"{MARKER_LINE}{self._marker}\n")

    def write(self, text: str) -> int:
        """Write what a cell printed."""
        told = len(text)
        if text and self._written <= _LOG_LIMIT_CHARACTERS:
            room = _LOG_LIMIT_CHARACTERS - self._written
            self._written += len(text)
            if len(text) > room:
                text = f"{text[:room]}\n[nbmlops: the log ends here, at 32 MiB]\n"
            with self._lock:
                # A secret may come in two parts: what could be its first one waits for the next.
                text = self._redacted(self._waiting + text)
                kept = self._redacted.begun(text)
                text, self._waiting = text[: len(text) - kept], text[len(text) - kept :]
                self._put(text)
        return told

    def _put(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()
            self._at_line_start = text.endswith("\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def event(self, event: Event) -> None:
        """Write an event as a line of its own, and to the runner's copy."""
        line = records.dump(self._redacted.within(records.plain(event))).decode()
        with self._lock:
            self._put(self._waiting)
            self._waiting = ""
            self._stream.write(f"{'' if self._at_line_start else chr(10)}{self._marker} {line}\n")
            self._stream.flush()
            self._at_line_start = True
            self._copy.write(line.encode() + b"\n")
            self._copy.flush()


def parse_events(lines: Iterator[str]) -> tuple[list[Event], list[str]]:
    """Split a job's log into its events and the rest, by the marker of its first line.

    >>> parse_events(iter(["hello"]))
    ([], ['hello'])
    """
    events: list[Event] = []
    rest: list[str] = []
    prefix: str | None = None
    for line in lines:
        if prefix is None and line.startswith(MARKER_LINE):
            prefix = line.removeprefix(MARKER_LINE) + " "
        elif prefix is not None and line.startswith(prefix):
            try:
                events.append(records.load(line.removeprefix(prefix), Event))
            except (msgspec.DecodeError, msgspec.ValidationError):
                rest.append(line)  # torn, or not ours
        else:
            rest.append(line)
    return events, rest
