"""The program that answers one file: ``python -m nbmlops.scorer``, a part of a batch.

It finds its file in the inbox's folder ``each``, starts the worker that would serve the version,
and leaves the answers and ``result.json`` in its folder of the outbox.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, MutableMapping
from pathlib import Path

from nbmlops import asking, digests, formats, layout, records, scoring, tensors
from nbmlops.asking import Asker, ModelFailed
from nbmlops.errors import NbmlopsError
from nbmlops.records import Cause, ScoringResult, ScoringSpec, WorkerSpec

_READY_S = 600.0


def main(environ: MutableMapping[str, str]) -> int:
    """Answer the file of the inbox; return the exit code of the job."""
    inbox = Path(environ.pop(layout.INBOX_VARIABLE))
    attempt = layout.checked_name(environ.pop(layout.ATTEMPT_VARIABLE), "attempt")
    outbox = Path(environ.pop(layout.OUTBOX_VARIABLE)) / attempt
    outbox.mkdir(parents=True, exist_ok=True)
    try:
        result = _answered(inbox, outbox, layout.index_of(attempt) or 0, environ)
    except NbmlopsError as error:
        _say(f"{error.code}: {error.message}")
        cause = Cause(code=error.code, message=error.message, hint=error.hint or None)
        result = ScoringResult(cause=cause)
    layout.write_file(outbox / layout.RESULT_FILE, records.dump(result))
    return 0 if result.cause is None else 1


def _answered(
    inbox: Path, outbox: Path, index: int, environ: MutableMapping[str, str]
) -> ScoringResult:
    began_s = time.monotonic()
    spec = records.load((inbox / layout.SCORING_FILE).read_bytes(), ScoringSpec)
    source = next(path for path in (inbox / layout.EACH_FOLDER / str(index)).iterdir())
    out = outbox / f"answers{source.suffix}"
    with _worker(spec, inbox, environ) as asker:
        _say(f"answering {source.name} by {spec.version.name}")
        scored = scoring.answer(asker, source, out, _say)
    _say(f"{scored.rows:,} rows answered")
    return ScoringResult(
        source_digest=digests.of_file(source),
        out=out.name,
        out_digest=digests.of_file(out),
        rows=scored.rows,
        out_of_bounds=scored.out_of_bounds,
        seconds=round(time.monotonic() - began_s, 3),
    )


@contextlib.contextmanager
def _worker(
    spec: ScoringSpec, inbox: Path, environ: MutableMapping[str, str]
) -> Generator[Asker, None, None]:
    """Start the worker, and end it with the block.

    Raises
    ------
    ModelFailed
        When it does not get ready; why stands in the log.
    """
    contract = spec.contract
    if contract is None:
        contract = records.load((inbox / layout.SPEC_FILE).read_bytes(), WorkerSpec).schema
    foreign = spec.version.format == formats.COMMAND
    with tempfile.TemporaryDirectory() as folder:
        address = (
            f"tcp:127.0.0.1:{tensors.free_port()}" if foreign else f"unix:{folder}/worker.sock"
        )
        given = {
            **environ,
            layout.INBOX_VARIABLE: str(inbox),
            layout.OUTBOX_VARIABLE: folder,
            layout.LISTEN_VARIABLE: address,
        }
        process = subprocess.Popen(spec.command, env=given, stdin=subprocess.DEVNULL)
        try:
            _until_ready(process, spec, Asker(spec.version, contract, address))
            binary = not foreign or asking.says_binary(address)
            with contextlib.closing(Asker(spec.version, contract, address, binary=binary)) as asker:
                yield asker
        finally:
            process.kill()
            process.wait()


def _until_ready(process: subprocess.Popen[bytes], spec: ScoringSpec, asker: Asker) -> None:
    deadline = time.monotonic() + _READY_S
    with contextlib.closing(asker):
        while not asker.is_ready():
            if process.poll() is not None:
                told = f"its worker ended with {process.returncode}"
            elif time.monotonic() > deadline:
                told = f"its worker was not ready within {_READY_S:.0f} s"
            else:
                time.sleep(0.05)
                continue
            raise ModelFailed(
                f"{spec.version.name} did not start: {told}",
                "See what it wrote, in the log of the job; try it here: leave --on out.",
            )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(os.environ))
