"""Runs and sweeps to draw: plain ones, large ones, and ones whose every text is an attack."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from samples import PAYLOADS

from nbmlops.records import (
    ArtifactRecord,
    Cause,
    Dimension,
    Environment,
    RunRecord,
    Snapshot,
    Status,
    StepRecord,
    SweepRecord,
    Trial,
)

BEGAN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
NOW = BEGAN + timedelta(seconds=75)
COMMIT = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
LOG = [
    "preparing 569 rows",
    *(f"epoch {epoch}/40  loss 0.{90 - epoch:02d}" for epoch in range(1, 30)),
]


def step(name: str, status: Status, **more) -> StepRecord:
    return StepRecord(
        name=name,
        notebook=more.pop("notebook", f"notebooks/{name}.ipynb"),
        notebook_blob="b" * 40,
        status=status,
        cells_total=more.pop("cells_total", 5),
        **more,
    )


def run(**changes) -> RunRecord:
    """A run whose first step came from the cache and whose second is in its third cell."""
    fields = {
        "run_id": "train-20261120-093000-k3q9",
        "pipeline": "train",
        "status": Status.RUNNING,
        "commit": COMMIT,
        "base_commit": COMMIT,
        "dirty": True,
        "parameters": {"max_depth": 6, "learning_rate": 0.001, "solver": "lbfgs"},
        "metrics": {"accuracy": 0.947368421, "loss": 0.12},
        "environment_id": "py311-ab12",
        "launcher": "local",
        "created_at": BEGAN,
        "started_at": BEGAN,
        "steps": (
            step(
                "prepare",
                Status.SUCCEEDED,
                cached=True,
                cached_from="train-20261119-101500-a1b2",
                cells_done=5,
            ),
            step(
                "train",
                Status.RUNNING,
                cells_done=2,
                cells_total=8,
                started_at=BEGAN + timedelta(seconds=10),
            ),
            step("report", Status.PENDING, cells_total=3),
        ),
        "snapshot": "snap",
        "author": "Ada",
    }
    return RunRecord(**{**fields, **changes})


def succeeded() -> RunRecord:
    steps = (
        run().steps[0],
        step(
            "train",
            Status.SUCCEEDED,
            cells_done=8,
            cells_total=8,
            started_at=BEGAN,
            finished_at=BEGAN + timedelta(seconds=63),
        ),
        step(
            "report",
            Status.SUCCEEDED,
            cells_done=3,
            cells_total=3,
            started_at=BEGAN + timedelta(seconds=63),
            finished_at=BEGAN + timedelta(seconds=64.4),
        ),
    )
    return run(
        status=Status.SUCCEEDED,
        steps=steps,
        finished_at=BEGAN + timedelta(seconds=65),
        model_versions=("cancer:3",),
        artifacts=tuple(
            ArtifactRecord(name=name, digest="d" * 64, bytes=size)
            for name, size in (
                ("prepare.ipynb", 20_480),
                ("train.ipynb", 1_234_567),
                ("log.txt", 812),
            )
        ),
    )


def failed() -> RunRecord:
    steps = (
        run().steps[0],
        step(
            "train", Status.FAILED, cells_done=2, cells_total=8, started_at=BEGAN, finished_at=NOW
        ),
        run().steps[2],
    )
    return run(
        status=Status.FAILED,
        steps=steps,
        finished_at=NOW,
        cause=Cause(
            code="cell-failed",
            message="ZeroDivisionError: \x1b[31mdivision by zero\x1b[0m",
            notebook="notebooks/train.ipynb",
            cell=3,
            hint="See the executed notebook: `nbmlops run train-2026 --save out`.",
        ),
    )


def hostile_run() -> RunRecord:
    """Every text that comes from outside is a payload."""
    text = " ".join(PAYLOADS)
    return run(
        run_id=PAYLOADS[0],
        pipeline=PAYLOADS[1],
        status=Status.FAILED,
        parameters=dict(zip(PAYLOADS, PAYLOADS, strict=True)),
        metrics=dict.fromkeys(PAYLOADS, 1.0),
        steps=tuple(
            step(payload, Status.FAILED, notebook=payload, cells_done=1) for payload in PAYLOADS
        ),
        finished_at=NOW,
        model_versions=PAYLOADS,
        artifacts=tuple(ArtifactRecord(name=p, digest=p, bytes=1) for p in PAYLOADS),
        cause=Cause(code=PAYLOADS[2], message=text, notebook=PAYLOADS[3], cell=1, hint=text),
    )


# --- sweeps -------------------------------------------------------------------------------------

SPACE = (
    Dimension(name="max_depth", kind="choices", choices=(2, 4, 8)),
    Dimension(name="learning_rate", kind="numbers", low=1e-4, high=1e-1, log=True),
    Dimension(name="solver", kind="choices", choices=("lbfgs", "saga", "newton-cholesky")),
    Dimension(name="n_estimators", kind="integers", low=50, high=400),
)


def trial(number: int, space=SPACE, status: Status = Status.SUCCEEDED) -> Trial:
    parameters = {}
    for index, dimension in enumerate(space):
        share = (number * (7 + 2 * index) % 11) / 10
        if dimension.choices:
            parameters[dimension.name] = dimension.choices[
                (number + index) % len(dimension.choices)
            ]
        elif dimension.log:
            low, high = math.log(dimension.low), math.log(dimension.high)
            parameters[dimension.name] = math.exp(low + share * (high - low))
        else:
            parameters[dimension.name] = round(
                dimension.low + share * (dimension.high - dimension.low)
            )
    value = 0.95 - ((number * 37) % 20) / 100
    ended = status.is_final
    return Trial(
        number=number,
        parameters=parameters,
        status=status,
        run_id=f"train-20261120-0930{number:02d}-aaaa",
        value=value if status is Status.SUCCEEDED else None,
        metrics={"accuracy": value, "fit_seconds": 1.5 * number} if ended else {},
        started_at=BEGAN + timedelta(seconds=5 * number),
        finished_at=BEGAN + timedelta(seconds=5 * number + 4.2) if ended else None,
    )


def sweep(done: int = 12, running: int = 2, total: int = 20, space=SPACE, **changes) -> SweepRecord:
    """A sweep of 20 of which 12 are done (the fifth has failed) and 2 run."""
    trials = [
        trial(number, space, Status.FAILED if number == 5 else Status.SUCCEEDED)
        for number in range(1, done + 1)
    ]
    trials += [trial(done + index, space, Status.RUNNING) for index in range(1, running + 1)]
    valued = [one for one in trials if one.value is not None]
    best = max(valued, key=lambda one: one.value).number if valued else None
    over = done == total
    fields = {
        "sweep_id": "sweep-train-20261120-093000-k3q9",
        "pipeline": "train",
        "status": Status.SUCCEEDED if over else Status.RUNNING,
        "search": "bayes",
        "metric": "accuracy",
        "direction": "maximize",
        "space": space,
        "fixed": {"test_size": 0.2},
        "trials_total": total,
        "parallel": 2,
        "seed": 1,
        "trials": tuple(trials),
        "best": best,
        "commit": COMMIT,
        "base_commit": COMMIT,
        "dirty": False,
        "environment_id": "py311-ab12",
        "launcher": "local",
        "created_at": BEGAN,
        "finished_at": BEGAN + timedelta(seconds=5 * total + 9) if over else None,
        "author": "Ada",
        "snapshot": Snapshot(
            id="snap",
            commit=COMMIT,
            tree="t" * 40,
            base_commit=COMMIT,
            dirty=False,
            branch="main",
            created_at=BEGAN,
        ),
        "environment": Environment(
            environment_id="py311-ab12",
            python="/usr/bin/python3",
            python_version="3.11.7",
            platform="linux",
            source=None,
            packages={},
        ),
    }
    return SweepRecord(**{**fields, **changes})


def wide_space(count: int) -> tuple[Dimension, ...]:
    return tuple(
        Dimension(name=f"regularisation_strength_{index}", kind="numbers", low=0, high=10**index)
        for index in range(count)
    )


def hostile_sweep() -> SweepRecord:
    """Every text that comes from outside is a payload."""
    space = tuple(
        Dimension(name=payload, kind="choices", choices=PAYLOADS) for payload in PAYLOADS[:6]
    )
    trials = tuple(
        Trial(
            number=index + 1,
            parameters=dict.fromkeys(PAYLOADS[:6], payload),
            status=Status.SUCCEEDED,
            run_id=payload,
            value=index / 10,
            metrics=dict.fromkeys(PAYLOADS[6:9], 1.0),
            started_at=BEGAN,
            finished_at=NOW,
        )
        for index, payload in enumerate(PAYLOADS)
    )
    return sweep(
        space=space,
        sweep_id=PAYLOADS[0],
        pipeline=PAYLOADS[1],
        metric=PAYLOADS[2],
        fixed=dict(zip(PAYLOADS, PAYLOADS, strict=True)),
        trials=trials,
        best=len(trials),
        cause=Cause(code=PAYLOADS[3], message=PAYLOADS[4], notebook=PAYLOADS[5], cell=1),
    )
