"""Reports to draw: a plain one, one of odd columns, and one whose every text is an attack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from nbmlops.monitoring.profile import Gauge, reference_profile
from nbmlops.monitoring.reporting import report
from nbmlops.records import (
    Answer,
    Budget,
    ColumnReport,
    Distribution,
    Effect,
    MonitorReport,
    Prediction,
    Questions,
    Reference,
    Window,
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
)


def sample() -> MonitorReport:
    """Thirty columns, one of which drifts, a category with a new value, one all null."""
    rng = np.random.default_rng(3)
    names = [f"feature {index}" for index in range(30)]
    kinds = {**dict.fromkeys(names, "number"), "clinic": "category", "empty": "number"}
    data = {name: rng.normal(size=400) for name in names}
    data["clinic"] = rng.choice(["north", "south"], 400)
    data["empty"] = [None] * 400
    gauge = Gauge(reference_profile(data, kinds, rng.choice(["benign", "malignant"], 400)))
    records = []
    for _ in range(200):
        record = dict(zip(names, rng.normal(size=30).tolist(), strict=True))
        record["feature 7"] += 2
        record["clinic"] = str(rng.choice(["north", "south", "west"]))
        records.append(record)
    labels = rng.choice(["benign", "malignant"], 200).tolist()
    return report(
        gauge,
        [gauge.calls(records, [Prediction(label=label) for label in labels])],
        model="cancer",
        version=3,
        commit="1a2b3c4d5e6f",
        endpoint="cancer",
        reference_digest="sha256:ab",
        since=NOW - timedelta(days=1),
        until=NOW,
        created_at=NOW,
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
        budget=Budget(false_alarms=1, windows=100),
        created_at=NOW,
    )


def empty() -> MonitorReport:
    """A model without columns and a window without calls."""
    gauge = Gauge(reference_profile({}, {}, [], label=False))
    return report(
        gauge,
        [gauge.calls([], [])],
        model="m",
        version=None,
        commit=None,
        endpoint=None,
        reference_digest="",
        since=None,
        until=None,
        created_at=NOW,
    )
