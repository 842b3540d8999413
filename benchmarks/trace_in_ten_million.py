"""A call traced among ten million: CPU time and files opened, in a process that is warm.

``--calls N`` makes the log smaller. Ten million calls take about 6 GB of the temporary folder and
some minutes to write; everything is removed afterwards. The log is what the call log itself would
have written, digests and chain included, over several deployments, writers and hours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import measure

from nbmlops import calllog, traces, workspace
from nbmlops.calllog.ids import assembled
from nbmlops.calllog.segments import Count, first_link
from nbmlops.calllog.writing import SEGMENT_LIMIT_BYTES
from nbmlops.records import CallRecord, Prediction, dump

CALLS = 10_000_000
OTHERS = 4  # deployments besides the one that is real
WRITERS = 2
HOURS = 50
SAMPLE = 200
CPU_MS, FILES = 50.0, 3.0
HOUR_MS = 3_600_000


def record_of(deployment: str, commit: str) -> tuple[str, str]:
    """Return what stands before and behind the id and the number in a record's bytes."""
    made = CallRecord(
        call_id="<id>",
        sequence=77777,
        at=calllog_time(),
        endpoint="cancer",
        deployment_id=deployment,
        model="cancer",
        version=1,
        commit=commit,
        records=({"x": 1.5},),
        predictions=(Prediction(label="benign"),),
        latency_ms=1.25,
    )
    head, _, rest = dump(made).decode().partition('"<id>","sequence":77777')
    return head, rest


def calllog_time() -> datetime:

    return datetime(2026, 1, 1, tzinfo=UTC)


def write(folder: Path, deployment: str, writer: str, commit: str, calls: int) -> list[str]:
    """Write one writer's segments and counts; return the ids of some of its calls."""
    folder.mkdir(parents=True, exist_ok=True)
    head, tail = record_of(deployment, commit)
    begins_ms = int(time.time() * 1000) - (HOURS + 2) * HOUR_MS
    every = max(1, calls // SAMPLE)
    chosen: list[str] = []
    sha256 = hashlib.sha256
    chain = first_link(deployment, writer)
    file, opened_ms, size, lines = None, 0, 0, []
    for sequence in range(1, calls + 1):
        now_ms = begins_ms + sequence * HOURS * HOUR_MS // calls
        # Ids grow by their time and then by a counter, as within a millisecond.
        call_id = f"{assembled(now_ms, sequence << 20):032x}-{deployment}"
        record = f'{head}"{call_id}","sequence":{sequence}{tail}'
        digest = sha256(record.encode()).hexdigest()
        chain = sha256(f"{chain}\0{call_id}\0{sequence}\0{digest}".encode()).hexdigest()
        line = (
            f'{{"call_id":"{call_id}","sequence":{sequence},"digest":"{digest}",'
            f'"chain":"{chain}","record":{record}}}\n'
        )
        if file is None or now_ms - opened_ms >= HOUR_MS or size + len(line) > SEGMENT_LIMIT_BYTES:
            if file is not None:
                file.write("".join(lines).encode())
                lines.clear()
                os.fchmod(file.fileno(), 0o400)
                file.close()
            file = (folder / f"{call_id[:32]}-{writer}.jsonl").open("xb")
            opened_ms, size = now_ms, 0
        lines.append(line)
        size += len(line)
        if len(lines) >= 5000:
            file.write("".join(lines).encode())
            lines.clear()
        if sequence % every == 0:
            chosen.append(call_id)
    if file is not None:
        file.write("".join(lines).encode())
        file.close()
    (folder / f"{writer}.count").write_bytes(Count(calls, 0, chain).line())
    return chosen


def served(folder: Path) -> tuple[Path, str, str]:
    """Make the example project, train it, deploy it and stop it; return where and what."""
    nbmlops = (sys.executable, "-m", "nbmlops")
    measure.run(*nbmlops, "init", folder / "project", "--example")
    project = folder / "project"
    measure.run(*nbmlops, "train", "train", cwd=project)
    deployed = json.loads(measure.run(*nbmlops, "deploy", "cancer", "--json", cwd=project))
    measure.run(*nbmlops, "undeploy", "cancer", cwd=project)
    return project, deployed["deployment_id"], deployed["commit"]


def main() -> None:
    """Write the log, trace some calls of it, print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=CALLS)
    calls = parser.parse_args().calls
    opened: list[str] = []
    watching = False
    nameless = {os.devnull, tempfile.gettempdir()}

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        # The store's database is opened by SQLite itself, so a connection counts as a file; pipes
        # to git, and the file without a name that holds what it is asked, do not.
        if watching and event in {"open", "sqlite3.connect"}:
            name = arguments[0]
            if not isinstance(name, int) and str(name) not in nameless:
                opened.append(str(name))

    with tempfile.TemporaryDirectory(prefix="nbmlops-bench-") as temporary:
        project, deployment, commit = served(Path(temporary))
        space = workspace.open_at(project)
        each = calls // (1 + OTHERS) // WRITERS
        began_s = time.perf_counter()
        ids: list[str] = []
        for number in range(1 + OTHERS):
            name = deployment if number == 0 else f"other-{number:012d}"
            for writer in range(WRITERS):
                chosen = write(space.home.calls / name, name, f"{writer:08x}", commit, each)
                ids += chosen if number == 0 else []
        measure.title(
            f"trace call/ID among {calls:,} calls"
            f" (written in {time.perf_counter() - began_s:.0f} s)"
        )
        random.shuffle(ids)
        traces.trace(space, f"call/{ids[0]}")  # warm
        sys.addaudithook(audited)
        spent: list[float] = []
        found: list[float] = []
        files: list[int] = []
        for call_id in ids[:SAMPLE]:
            opened.clear()
            watching = True
            spent.append(measure.cpu_s(lambda call_id=call_id: trace(space, call_id)))
            watching = False
            files.append(len(opened))
            found.append(
                measure.cpu_s(lambda call_id=call_id: calllog.find(space.home.calls, call_id))
            )
        measure.alone("the whole chain, CPU, worst of the sample", 1000 * max(spent), CPU_MS)
        measure.alone("the call alone, CPU, worst of the sample", 1000 * max(found), CPU_MS)
        measure.alone("files opened, most of the sample", max(files), FILES, unit="files")
        space.close()


def trace(space: workspace.Workspace, call_id: str) -> None:
    """Trace a call; what is missing ends the benchmark."""
    told = traces.trace(space, f"call/{call_id}")
    if not told.complete or told.call is None or told.call["call_id"] != call_id:
        raise SystemExit(f"call/{call_id} is not traced: {told.missing}")


if __name__ == "__main__":
    main()
