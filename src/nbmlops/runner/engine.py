"""Papermill and nbclient as a run needs them: bounded outputs, literal parameters, whole files.

Imported when cells are about to run, not before: both libraries are slow to load.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.execute import ERROR_MARKER_TAG
from papermill.translators import PythonTranslator

from nbmlops.runner.console import Console, Redaction

# What a notebook keeps of its outputs; the log has more of what was printed.
_PRINTED_LIMIT_CHARACTERS = 16 * 2**20
_SHOWN_LIMIT_CHARACTERS = 64 * 2**20
# What ipykernel says when it is asked to end.
_NOISE = "KeyboardInterrupt caught in kernel"
_DRAIN_S = 1.0
# A socket's name has 104 bytes on macOS and 108 on Linux; what follows the folder has 9.
_SOCKET_FOLDER_LIMIT_CHARACTERS = 90
_END = "\n[nbmlops: the notebook keeps no more output than this]\n"


class Client(PapermillNotebookClient):
    """Papermill's client, which keeps a bounded share of what cells print and show."""

    _printed = 0
    _shown = 0
    folder: Path

    def create_kernel_manager(self) -> Any:
        """Reach the kernel by Unix sockets in ``folder``: TCP ports are raced for, and seen by all.

        Where the folder's name is too long for a socket's, it is TCP.
        """
        manager = super().create_kernel_manager()
        manager.connection_file = str(self.folder / "kernel.json")
        if len(str(self.folder)) < _SOCKET_FOLDER_LIMIT_CHARACTERS:
            manager.transport = "ipc"
            manager.ip = str(self.folder / "kernel")
        return manager

    def output(
        self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> Any:
        """Take an output unless the notebook has too much already; errors are always taken."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            room = _PRINTED_LIMIT_CHARACTERS - self._printed
            self._printed += len(content["text"])
            if len(content["text"]) > room:
                if room >= 0:
                    last = {**content, "text": f"{content['text'][:room]}{_END}"}
                    super().output(outs, {**msg, "content": last}, display_id, cell_index)
                self._log(content)
                return None
        elif kind in ("display_data", "execute_result"):
            self._shown += sum(len(str(value)) for value in content["data"].values())
            if self._shown > _SHOWN_LIMIT_CHARACTERS:
                told = {"text/plain": _END.strip()}
                msg = {**msg, "content": {**content, "data": told, "metadata": {}}}
        return super().output(outs, msg, display_id, cell_index)

    def _log(self, content: Mapping[str, Any]) -> None:
        """Write to the log what the notebook does not keep; the log has an end of its own."""
        console: Any = self.stdout_file
        console.write(content["text"])


@contextlib.contextmanager
def written_to(console: Console) -> Generator[int, None, None]:
    """Give a descriptor for what a kernel's process writes by itself, not as output of a cell.

    It goes to the console, where secrets are taken out, and not straight into the log.
    """
    reading, writing = os.pipe()

    def read() -> None:
        with open(reading, encoding="utf-8", errors="replace", newline="\n") as lines:  # noqa: PTH123
            for line in lines:
                if _NOISE not in line:
                    console.write(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield writing
    finally:
        os.close(writing)
        reader.join(_DRAIN_S)  # a process that a cell left behind may hold the other end


class Literals(PythonTranslator):
    """Writes parameters as Python literals: what the notebook reads equals what was sent.

    ``kinds`` are the declared types by name; JSON has no tuples and no sets.
    """

    kinds: Mapping[str, str] = {}

    @classmethod
    def codify(cls, parameters: Mapping[str, Any], comment: str = "Parameters") -> str:
        """Return the code of the cell that sets the parameters."""
        typed = {name: _typed(value, cls.kinds.get(name, "")) for name, value in parameters.items()}
        return super().codify(typed, comment)

    @classmethod
    def translate(cls, val: Any) -> str:
        """Return a value as Python spells it."""
        return repr(val)


def literals(kinds: Mapping[str, str]) -> type[Literals]:
    """Return the translator for parameters of these declared types."""
    return type("Own", (Literals,), {"kinds": kinds})


def _typed(value: Any, kind: str) -> Any:
    """Return a list as the tuple or set that its parameter is declared to be."""
    words = set(re.findall(r"\w+", kind))
    if isinstance(value, list) and "list" not in words:
        if "tuple" in words:
            return tuple(value)
        if "set" in words:
            return set(value)
    return value


def unmark(executed: Path) -> None:
    """Take out what papermill writes above cells that failed, where they were meant to."""
    document = json.loads(executed.read_text(encoding="utf-8"))
    document["cells"] = [
        cell
        for cell in document["cells"]
        if ERROR_MARKER_TAG not in cell["metadata"].get("tags", ())
    ]
    executed.write_text(json.dumps(document), encoding="utf-8")


class Writer:
    """Writes the executed notebook for papermill: whole or not at all, and without secrets."""

    def __init__(self, redacted: Redaction) -> None:
        self._redacted = redacted

    def write(self, text: str, path: str) -> None:
        """Write the notebook's text to a file."""
        if self._redacted.finds(text):
            text = json.dumps(self._redacted.within(json.loads(text)), ensure_ascii=False, indent=1)
        temporary = f"{path}.{os.getpid()}"
        try:
            # A lone surrogate becomes its escape, which means the same in JSON.
            Path(temporary).write_text(text, encoding="utf-8", errors="backslashreplace")
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def pretty_path(self, path: str) -> str:
        """Return how papermill shows the path."""
        return path
