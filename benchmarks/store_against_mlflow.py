"""Recording and finding runs, against MLflow 3 with its default SQLite store.

`python benchmarks/store_against_mlflow.py` makes an environment with MLflow's newest release of
version 3 under build/ (once), then measures both in the same call, each in a process of its own.
MLflow's 10,000 runs are written in bulk by its own SQLAlchemy models: one by one they would take an
hour. Ours are written one by one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = Path(__file__).parent.parent
PEER = TOP / "build" / "mlflow-venv" / "bin" / "python"
RUNS, RECORDED, ASKED, SHOWN = 10_000, 60, 20, 50


def median_ms(act: Callable[[int], Any], times: int) -> float:
    """Return the median of how long something takes, after three times to warm up."""
    took = []
    for number in range(times + 3):
        began = time.perf_counter()
        act(number)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[3:])


def accuracy(number: int) -> float:
    """Return the metric of a run by which the best are found: no order in it."""
    return number * 7919 % 10_007 / 10_007


# --- ours ---------------------------------------------------------------------------------------


def ours(folder: Path) -> dict[str, float]:
    """Measure nbmlops."""
    from nbmlops.records import RunRecord
    from nbmlops.store import Store

    store = Store(folder / "store.sqlite")

    def swap(record: RunRecord, expected: int, key: str) -> None:
        store.swap(
            "run", record.run_id, record, expected=expected, key=key, status=record.status.value
        )

    for number in range(RUNS):
        swap(our_run(f"filled-{number:05d}", number), 0, f"filled:{number}")

    def record_once(number: int) -> None:
        swap(our_run(f"once-{number}", number), 0, f"once:{number}")

    def record_from_start(number: int) -> None:
        run = our_run(f"whole-{number}", number)
        swap(run, 0, f"submit:{number}")
        swap(run, 1, f"end:{number}")

    newest = median_ms(lambda _: store.page("run", RunRecord, limit=SHOWN), ASKED)
    best = median_ms(lambda _: store.best("run", RunRecord, "m0", limit=SHOWN), ASKED)
    found = store.best("run", RunRecord, "m0", limit=SHOWN)
    assert [kept.record.metrics["m0"] for kept in found] == expected_best()
    return {
        "log": median_ms(record_once, RECORDED),
        "whole": median_ms(record_from_start, RECORDED),
        "newest": newest,
        "best": best,
    }


def our_run(run_id: str, number: int) -> Any:
    """Return a run's final record as one of the example project looks."""
    from nbmlops import records
    from nbmlops.records import ArtifactRecord, RunRecord, Status, StepRecord

    now = records.utc_now()
    step = StepRecord(
        name="train",
        notebook="notebooks/train.ipynb",
        notebook_blob="b" * 40,
        status=Status.SUCCEEDED,
        cells_done=9,
        cells_total=9,
    )
    artifacts = tuple(
        ArtifactRecord(name=f"train/{name}", digest=f"{number:064x}", bytes=12_345)
        for name in ("executed.ipynb", "report.html", "model.skops", "schema.json", "log.txt")
    )
    return RunRecord(
        run_id=run_id,
        pipeline="train",
        status=Status.SUCCEEDED,
        commit="c" * 40,
        base_commit="d" * 40,
        dirty=True,
        parameters={f"p{one}": f"{number}.{one}" for one in range(5)},
        metrics={f"m{one}": accuracy(number) + one for one in range(10)},
        environment_id="e" * 16,
        launcher="local",
        created_at=now,
        started_at=now,
        finished_at=now,
        steps=(step,),
        artifacts=artifacts,
        snapshot="s" * 12,
        author="Ada <ada@example.org>",
    )


def expected_best() -> list[float]:
    """Return the values of the best runs."""
    return sorted((accuracy(number) for number in range(RUNS)), reverse=True)[:SHOWN]


# --- the peer -----------------------------------------------------------------------------------


def peer(folder: Path) -> dict[str, float]:
    """Measure MLflow, in its own environment."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("bench", artifact_location=str(folder / "artifacts"))
    fill_peer(folder, int(experiment))

    def log(run_id: str, number: int) -> None:
        now = int(time.time() * 1000)
        client.log_batch(
            run_id,
            metrics=[Metric(f"m{one}", accuracy(number) + one, now, 0) for one in range(10)],
            params=[Param(f"p{one}", f"{number}.{one}") for one in range(5)],
        )

    def record_from_start(number: int) -> None:
        log(client.create_run(experiment).info.run_id, number)

    newest = median_ms(lambda _: client.search_runs([experiment], max_results=SHOWN), ASKED)

    def ask_best(_: int) -> Any:
        return client.search_runs([experiment], max_results=SHOWN, order_by=["metrics.m0 DESC"])

    best = median_ms(ask_best, ASKED // 5)  # each takes seconds
    assert [run.data.metrics["m0"] for run in ask_best(0)] == expected_best()
    fresh = [client.create_run(experiment).info.run_id for _ in range(RECORDED + 3)]
    return {
        "log": median_ms(lambda number: log(fresh[number], number), RECORDED),
        "whole": median_ms(record_from_start, RECORDED),
        "newest": newest,
        "best": best,
        "version": mlflow.__version__,
    }


def fill_peer(folder: Path, experiment: int) -> None:
    """Write the runs that are asked for, in bulk."""
    import sqlalchemy as sa
    from mlflow.store.tracking.dbmodels import models

    columns: dict[Any, list[dict[str, Any]]] = {
        models.SqlRun: [],
        models.SqlParam: [],
        models.SqlMetric: [],
        models.SqlLatestMetric: [],
        models.SqlTag: [],
    }
    for number in range(RUNS):
        run = {"run_uuid": f"{number:032x}"}
        columns[models.SqlRun].append(
            {
                **run,
                "name": f"run-{number}",
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "user_id": "ada",
                "status": "FINISHED",
                "start_time": 10**12 + number,
                "end_time": 10**12 + number + 1,
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": f"{folder}/artifacts/{number}",
                "experiment_id": experiment,
            }
        )
        columns[models.SqlTag].append(
            {**run, "key": "mlflow.runName", "value": f"run-{number}"},
        )
        columns[models.SqlParam] += [
            {**run, "key": f"p{one}", "value": f"{number}.{one}"} for one in range(5)
        ]
        numbers = [
            {
                **run,
                "key": f"m{one}",
                "value": accuracy(number) + one,
                "timestamp": 10**12,
                "step": 0,
                "is_nan": False,
            }
            for one in range(10)
        ]
        columns[models.SqlMetric] += numbers
        columns[models.SqlLatestMetric] += numbers
    engine = sa.create_engine(f"sqlite:///{folder}/mlflow.db")
    with engine.begin() as connection:
        for model, rows in columns.items():
            connection.execute(model.__table__.insert(), rows)
    engine.dispose()


# --- both ---------------------------------------------------------------------------------------


def prepare() -> None:
    """Make the peer's environment if it is not there."""
    if not PEER.exists():
        venv = PEER.parent.parent
        import uv  # which the peer's environment, that runs this file too, does not have

        binary = uv.find_uv_bin()
        subprocess.run([binary, "venv", "--quiet", str(venv)], check=True)
        install = [binary, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(PEER)]
        subprocess.run([*install, "mlflow>=3,<4"], check=True)


def measured(python: str, which: str) -> dict[str, Any]:
    """Measure one side in a process of its own."""
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [python, __file__, which]
    print(f"# {Path(python).relative_to(TOP)} benchmarks/{Path(__file__).name} {which}")
    with tempfile.TemporaryDirectory(dir=TOP / "build") as folder:
        done = subprocess.run(
            [*command, folder],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if which == "--peer" else None,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one row for each measurement: name, ours, peer, ratio, what is to be reached."""
    if len(sys.argv) == 3:
        side = ours if sys.argv[1] == "--ours" else peer
        print(json.dumps(side(Path(sys.argv[2]))))
        return
    (TOP / "build").mkdir(exist_ok=True)
    prepare()
    mine, theirs = measured(sys.executable, "--ours"), measured(str(PEER), "--peer")
    print(f"# peer: MLflow {theirs['version']}, sqlite:///mlflow.db, medians")
    rows = (
        ("record 5 parameters and 10 metrics, durable (log_batch)", "log", 0.1),
        ("record a run from its start (create_run and log_batch)", "whole", None),
        (f"newest {SHOWN} of {RUNS:,} runs", "newest", 1 / 8),
        (f"best {SHOWN} of {RUNS:,} runs by one metric", "best", 1 / 100),
    )
    for name, key, reach in rows:
        ratio = mine[key] / theirs[key]
        wanted = "-" if reach is None else f"<= {reach:.3f}"
        print(
            f"{name:<58} ours {mine[key]:8.2f} ms  peer {theirs[key]:8.2f} ms"
            f"  ratio {ratio:.4f}  reach {wanted}"
        )


if __name__ == "__main__":
    main()
