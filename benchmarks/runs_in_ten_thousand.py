"""What 10,000 runs cost the store and those who look at them, against 1,000.

Ratios of the same look at ten times as many runs: 1 means that it does not matter how many there
are, 10 that it grows with them. Also how many bytes a run takes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nbmlops import runs
from nbmlops import workspace as workspaces
from nbmlops.records import (
    ArtifactRecord,
    DataRecord,
    JobHandle,
    RunRecord,
    Status,
    StepRecord,
    dump,
)
from nbmlops.workspace import Workspace

FEW, MANY = 1_000, 10_000
REPEATS = 15


def record(number: int) -> RunRecord:
    """Return a run as the example's are: two steps, a dozen artifacts."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    name = f"train-{number:012d}"
    steps = tuple(
        StepRecord(
            name=step,
            notebook=f"notebooks/{step}.ipynb",
            status=Status.SUCCEEDED,
            notebook_blob="0" * 40,
            cells_done=6,
            cells_total=6,
            started_at=at,
            finished_at=at,
            parameters={"max_depth": number % 9},
        )
        for step in ("data", "train")
    )
    artifacts = tuple(
        ArtifactRecord(name=f"file-{n}", digest=f"{number:032x}{n:032x}", bytes=1000)
        for n in range(12)
    )
    return RunRecord(
        run_id=name,
        pipeline="train",
        status=Status.SUCCEEDED,
        commit="0" * 40,
        base_commit="0" * 40,
        dirty=False,
        parameters={"max_depth": number % 9, "seed": 7},
        metrics={"accuracy": 0.9 + (number % 97) / 1000, "f1": 0.9},
        environment_id="e-0000000000000000",
        launcher="local",
        created_at=at,
        started_at=at,
        finished_at=at,
        steps=steps,
        artifacts=artifacts,
        data=(DataRecord(name="data/cancer.csv", digest="0" * 64),),
        snapshot="s",
        author="Ada <ada@example.org>",
        content_key=f"{number:064x}",
        handle=JobHandle(launcher="local", name=name),
        record_digest="0" * 64,
    )


def project(folder: Path) -> Path:
    (folder / "nbmlops.toml").write_text('[project]\nname = "many"\n')
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def median_ms(look: Callable[[], object]) -> float:
    look()
    took = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        look()
        took.append(1000 * (time.perf_counter() - began_s))
    return statistics.median(took)


def looks(workspace: Workspace) -> dict[str, float]:
    return {
        "a page of the newest 20": median_ms(lambda: runs.page(workspace, limit=20)),
        "the best 20 by a metric": median_ms(
            lambda: runs.page(workspace, limit=20, best="accuracy")
        ),
        "one by its id": median_ms(lambda: runs.find(workspace, "train-000000000500")),
        "those that are unfinished": median_ms(lambda: runs.unfinished(workspace)),
    }


def main() -> int:
    """Write the runs, look at them, print the table."""
    with tempfile.TemporaryDirectory() as top:
        workspace = workspaces.open_at(project(Path(top)))
        told: dict[int, dict[str, float]] = {}
        sizes: dict[int, int] = {}
        for number in range(MANY):
            if number == FEW:
                told[FEW] = looks(workspace)
                sizes[FEW] = workspace.home.store.stat().st_size
            runs.keep(workspace, record(number), 0, f"bench:{number}")
        told[MANY] = looks(workspace)
        sizes[MANY] = workspace.home.store.stat().st_size
        workspace.close()
    each = (sizes[MANY] - sizes[FEW]) / (MANY - FEW)
    print(f"{each:,.0f} bytes of store for each run (its record has {len(dump(record(1))):,})")
    print(f"{'look':32} {FEW:>8,} {MANY:>8,}  ratio")
    for name, few in told[FEW].items():
        many = told[MANY][name]
        print(f"{name:32} {few:5.2f} ms {many:5.2f} ms  {many / few:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
