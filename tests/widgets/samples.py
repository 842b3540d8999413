"""Reports to draw: a plain one, one of odd columns, and one whose every text is an attack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from nbmlops.records import (
    Answer,
    Budget,
    Coincidence,
    ColumnReport,
    Distribution,
    Effect,
    Explanation,
    Judgement,
    Metric,
    MonitorReport,
    Questions,
    Reference,
    Slice,
    Suspect,
    Traffic,
    Window,
    replace,
)

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)

PAYLOADS = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><svg onload="window.hacked = 1">',
    "' onmouseover='window.hacked = 1",
    "</style><script>window.hacked = 1</script>",
    "</title></svg><script>window.hacked = 1</script>",
    "javascript:window.hacked=1",
    "{{ constructor.constructor('window.hacked = 1')() }}",
    "$\\frac{1}{0}$ $unclosed",
    "\x1b[31mred\x1b[0m\x07",
    "line\nbreak\r\x00nul",
    "\u202eright to left\u2066",
    "lone \ud800 surrogate",
    "&lt;script&gt;",
    '<a data-commandlinker-command="terminal:create-new" href="#">open</a>',
)


def answers(features="yes", reason="All 32 features look like the training data.") -> Questions:
    """Answers as of a window without actuals."""
    return Questions(
        features=Answer(answer=features, reason=reason),
        predictions=Answer(answer="yes", reason="The predictions look like the training labels."),
        bounds=Answer(answer="yes", reason="All 200 predictions are within bounds."),
        performance=Answer(
            answer="unknown",
            reason="no-actuals: the true outcomes of these calls are not known, so metrics cannot"
            " be computed.",
        ),
    )


def sample() -> MonitorReport:
    """Thirty columns, one of which drifts, a category with a new value, one all null."""
    rng = np.random.default_rng(3)
    columns = [_number(f"feature {index}", rng, drifts=index == 7) for index in range(30)]
    columns.append(_categories("clinic", ("north", "south", "west"), (0.505, 0.495, 0.0)))
    columns.append(
        ColumnReport(
            name="empty",
            kind="number",
            verdict="unknown",
            reason="the training data have no value in this column",
            missing_share=1.0,
        )
    )
    return MonitorReport(
        verdict="alert",
        model="cancer",
        version=3,
        commit="1a2b3c4d5e6f",
        endpoint="cancer",
        window=Window(since=NOW - timedelta(days=1), until=NOW, rows=200),
        reference=Reference(rows=400, digest="sha256:ab"),
        questions=answers(
            "no", "2 of 32 features differ from the training data: feature 7 and clinic."
        ),
        columns=tuple(columns),
        prediction=ColumnReport(
            name="prediction",
            kind="label",
            verdict="ok",
            reason="like the training data",
            effect=_distance(0.0),
            p_value=1.0,
            missing_share=0.0,
            distribution=Distribution(
                labels=("benign", "malignant"), reference=(0.5325, 0.4675), window=(0.495, 0.505)
            ),
        ),
        budget=Budget(false_alarms=1, windows=100),
        created_at=NOW,
    )


def _distance(value: float) -> Effect:
    return Effect(name="jensen-shannon-distance", value=value, threshold=0.1)


def _number(name: str, rng: np.random.Generator, *, drifts: bool) -> ColumnReport:
    edges = np.arange(-3.5, 6, 0.5) if drifts else np.arange(-3.5, 4, 0.5)
    moved = 2 if drifts else 0
    shares = [
        np.histogram(rng.normal(mean, 1, rows), edges)[0] / rows
        for mean, rows in ((0, 400), (moved, 200))
    ]
    reason = "12.5% above the greatest of training; distance 0.69 from training, over 0.1"
    return ColumnReport(
        name=name,
        kind="number",
        verdict="drift" if drifts else "ok",
        reason=reason if drifts else "like the training data",
        effect=_distance(0.69 if drifts else float(rng.uniform(0, 0.09))),
        p_value=1e-30 if drifts else 1.0,
        missing_share=0.0,
        distribution=Distribution(
            edges=tuple(edges.tolist()),
            reference=tuple(shares[0].tolist()),
            window=tuple(shares[1].tolist()),
        ),
    )


def _categories(name: str, labels: tuple[str, ...], reference: tuple[float, ...]) -> ColumnReport:
    return ColumnReport(
        name=name,
        kind="category",
        verdict="drift",
        reason="35.0% in new categories (west); distance 0.45 from training, over 0.1",
        effect=_distance(0.45),
        p_value=1e-36,
        missing_share=0.0,
        new_categories=("west",),
        distribution=Distribution(labels=labels, reference=reference, window=(0.355, 0.295, 0.35)),
    )


SLICES = 48
BEGIN = NOW - timedelta(minutes=30) * SLICES
CHANGED = BEGIN + timedelta(minutes=30) * (SLICES // 2)


def metric(name, value, half=0.03, reference=0.95, *, estimated=False, rows=200, better=True):
    """A metric with intervals of that half width beside a test set's value."""
    difference = None if value is None or reference is None else round(value - reference, 4)
    away = 0 if difference is None else (-difference if better else difference)
    return Metric(
        name=name,
        value=value,
        low=None if value is None else round(value - half, 4),
        high=None if value is None else round(value + half, 4),
        reference=reference,
        reference_low=None if reference is None else round(reference - 0.02, 4),
        reference_high=None if reference is None else round(reference + 0.02, 4),
        difference=difference,
        difference_low=None if difference is None else round(difference - half - 0.01, 4),
        difference_high=None if difference is None else round(difference + half + 0.01, 4),
        rows=rows,
        estimated=estimated,
        worse=away > half + 0.01,
        greater_is_better=better,
    )


def watched() -> MonitorReport:
    """The sample after a day in 48 slices: from the middle on three features drift.

    Truths of the last eight slices are not there yet, slice 10 had no calls, the column ``empty``
    cannot be judged.
    """
    rng = np.random.default_rng(5)
    base = sample()
    history = tuple(_slice(base, index, rng) for index in range(SLICES))
    return replace(
        base,
        history=history,
        changed_since=CHANGED,
        metrics=(
            metric("accuracy", 0.871, rows=7800),
            metric("accuracy", 0.889, 0.02, estimated=True, rows=9400),
            metric("log_loss", 0.34, 0.05, 0.19, rows=7800, better=False),
        ),
        traffic=Traffic(calls=4700, rows=9400, failed=21, latency_p50_ms=3.12, latency_p99_ms=14.8),
        explanation=Explanation(
            since=CHANGED,
            suspects=(
                Suspect(column="feature 7", share=0.62, change="unit", factor=1000.0),
                Suspect(
                    column="clinic",
                    share=0.25,
                    change="new-categories",
                    since=CHANGED + timedelta(hours=1),
                ),
                Suspect(column="feature 12", share=0.08, change="shift"),
                Suspect(column="feature 3", share=0.05, change="range"),
            ),
            coincidences=(
                Coincidence(
                    kind="release",
                    at=CHANGED - timedelta(minutes=4),
                    message="cancer:3 took the traffic from cancer:2",
                ),
                Coincidence(
                    kind="client",
                    at=None,
                    message="the client intake/2.1 was seen for the first time",
                ),
            ),
            commit="1a2b3c4d5e6f",
            version="cancer:3",
        ),
    )


def _slice(base, index, rng):
    after = index >= SLICES // 2
    rows = 0 if index == 10 else int(rng.integers(150, 250))
    columns = {}
    for column in base.columns:
        shift = {"feature 7": 0.42, "clinic": 0.17, "feature 12": 0.12}.get(column.name, 0)
        effect = float(
            abs(rng.normal(0.03, 0.02)) + (shift * rng.uniform(0.8, 1.2) if after else 0)
        )
        if rows == 0 or column.name == "empty":
            columns[column.name] = Judgement(verdict="unknown")
        else:
            verdict = "drift" if effect > 0.1 and shift and after else "ok"
            columns[column.name] = Judgement(verdict=verdict, effect=effect)
    since = BEGIN + timedelta(minutes=30) * index
    drop = 0.08 if after else 0.0
    metrics = []
    if rows and index < SLICES - 8:
        metrics.append(metric("accuracy", round(0.95 - drop + rng.normal(0, 0.012), 4)))
        loss = round(0.19 + 2 * drop + rng.normal(0, 0.02), 4)
        metrics.append(metric("log_loss", loss, 0.06, 0.19, better=False))
    if rows:
        value = round(0.945 - 0.8 * drop + rng.normal(0, 0.008), 4)
        metrics.append(metric("accuracy", value, 0.02, estimated=True))
    return Slice(
        since=since,
        until=since + timedelta(minutes=30),
        rows=rows,
        verdict="unknown" if rows == 0 else "alert" if after else "ok",
        columns=columns,
        prediction=Judgement(verdict="ok", effect=0.02) if rows else None,
        out_of_bounds=2 if index == 40 else 0,
        metrics=tuple(metrics),
        traffic=Traffic(
            calls=rows // 2,
            rows=rows,
            failed=int(rng.poisson(0.4)),
            latency_p50_ms=float(rng.uniform(2.8, 3.4)) if rows else None,
            latency_p99_ms=float(rng.uniform(9, 18)) if rows else None,
        ),
    )


def hostile() -> MonitorReport:
    """Every text that comes from outside is a payload."""
    answer = Answer(answer="no", reason=" ".join(PAYLOADS))
    return MonitorReport(
        verdict="alert",
        model=PAYLOADS[0],
        version=1,
        commit=PAYLOADS[1],
        endpoint=PAYLOADS[2],
        window=Window(since=None, until=None, rows=100),
        reference=Reference(rows=100, digest=PAYLOADS[3]),
        questions=Questions(features=answer, predictions=answer, bounds=answer, performance=answer),
        columns=tuple(
            ColumnReport(
                name=payload,
                kind="category",
                verdict="drift",
                reason=payload,
                effect=Effect(name=payload, value=0.5, threshold=0.1),
                p_value=0.0,
                missing_share=0.0,
                new_categories=PAYLOADS,
                distribution=Distribution(
                    labels=(payload, "b"), reference=(1.0, 0.0), window=(0.0, 1.0)
                ),
            )
            for payload in PAYLOADS
        ),
        metrics=tuple(metric(payload, 0.5) for payload in PAYLOADS),
        history=tuple(
            Slice(
                since=NOW + timedelta(hours=index),
                until=NOW + timedelta(hours=index + 1),
                rows=10,
                verdict="alert",
                columns={name: Judgement(verdict="drift", effect=0.5) for name in PAYLOADS},
                metrics=tuple(metric(payload, 0.5) for payload in PAYLOADS),
                traffic=Traffic(calls=1, rows=10, failed=1, latency_p50_ms=1.0),
            )
            for index in range(3)
        ),
        explanation=Explanation(
            since=NOW,
            suspects=tuple(
                Suspect(column=payload, share=0.1, change="shift") for payload in PAYLOADS
            ),
            coincidences=tuple(
                Coincidence(kind="client", at=NOW, message=payload) for payload in PAYLOADS
            ),
            commit=PAYLOADS[4],
            version=PAYLOADS[0],
        ),
        budget=Budget(false_alarms=1, windows=100),
        created_at=NOW,
    )


def empty() -> MonitorReport:
    """A model without columns and a window without calls."""
    return MonitorReport(
        verdict="unknown",
        model="m",
        window=Window(since=None, until=None, rows=0),
        reference=Reference(rows=0, digest=""),
        questions=answers("unknown", "The model has no input columns."),
        columns=(),
        prediction=ColumnReport(
            name="prediction",
            kind="value",
            verdict="unknown",
            reason="the training data have no value in this column",
        ),
        budget=Budget(false_alarms=1, windows=100),
        created_at=NOW,
    )
