"""Counts of a front, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbmlops._version import __version__
from nbmlops.records import Route, RouteTable

if TYPE_CHECKING:
    from nbmlops.monitoring.effects import Effects, Size

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

LAST_CALL = "nbmlops_last_call_timestamp_seconds"
_CALLS = ("/predict", "/infer")

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Metrics:
    """What has been counted since this process began."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    rows: Counter[tuple[str, str, int]] = field(default_factory=Counter[tuple[str, str, int]])
    out_of_bounds: Counter[tuple[str, str, int]] = field(
        default_factory=Counter[tuple[str, str, int]]
    )
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    seconds: float = 0.0
    called_at_s: float = 0.0  # of the system's clock; 0 before the first call

    def request(self, path: str, status: int) -> None:
        """Count an answered request; ``path`` is one of ours, or ``other``."""
        self.requests[path, status] += 1
        if path.endswith(_CALLS):
            self.called_at_s = time.time()

    def latency(self, seconds: float) -> None:
        """Count the time from a prediction's last byte to its answer."""
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds


def text(
    metrics: Metrics,
    table: RouteTable,
    *,
    in_flight: int,
    ready: bool,
    drops: Mapping[str, int],
    sync_failures: int,
    seen: Mapping[str, Effects],
    unwatched: Mapping[str, int],
) -> bytes:
    """Return all counts as Prometheus reads them.

    ``seen`` is how far each deployment's calls lie from training, ``unwatched`` how many of its
    rows were answered and not counted for that.
    """
    families = (
        (
            "nbmlops_requests_total",
            "counter",
            "Answered requests by path and status.",
            [
                ({"path": path, "status": str(status)}, count)
                for (path, status), count in sorted(metrics.requests.items())
            ],
        ),
        (
            LAST_CALL,
            "gauge",
            "When a prediction was asked for last, answered or not; 0 before the first.",
            [({}, metrics.called_at_s)],
        ),
        (
            "nbmlops_rows_total",
            "counter",
            "Predicted records by deployment.",
            [
                (_version_labels(name, model, number), count)
                for (name, model, number), count in sorted(metrics.rows.items())
            ],
        ),
        (
            "nbmlops_out_of_bounds_total",
            "counter",
            "Of these, records whose prediction is not within plausible bounds.",
            [
                (_version_labels(name, model, number), count)
                for (name, model, number), count in sorted(metrics.out_of_bounds.items())
            ],
        ),
        (
            "nbmlops_call_log_drops_total",
            "counter",
            "Answered calls that could not be logged.",
            [({"deployment": name}, count) for name, count in sorted(drops.items())],
        ),
        (
            "nbmlops_call_log_sync_failures_total",
            "counter",
            "Failed fsyncs of the call log.",
            [({}, sync_failures)],
        ),
        ("nbmlops_in_flight", "gauge", "Predictions being answered.", [({}, in_flight)]),
        ("nbmlops_ready", "gauge", "Whether the champion's worker answers.", [({}, int(ready))]),
        (
            "nbmlops_routes_revision",
            "gauge",
            "Revision of the route table.",
            [({}, table.revision)],
        ),
        (
            "nbmlops_route_share",
            "gauge",
            "Percent of the traffic by deployment.",
            [(_route_labels(route), route.share) for route in table.routes],
        ),
        (
            "nbmlops_build_info",
            "gauge",
            "The version of nbmlops, and the endpoint that it serves.",
            [({"version": __version__, "endpoint": table.endpoint}, 1)],
        ),
        *_watched(table, seen, unwatched),
    )
    lines = [*_histogram(metrics)]
    for name, kind, told, samples in families:
        lines += (f"# HELP {name} {told}", f"# TYPE {name} {kind}")
        lines += [_sample(name, value, labels) for labels, value in samples]
    return ("\n".join(lines) + "\n").encode()


_Samples = list[tuple[dict[str, str], float]]


def _watched(
    table: RouteTable, seen: Mapping[str, Effects], unwatched: Mapping[str, int]
) -> tuple[tuple[str, str, str, _Samples], ...]:
    """Return what the last hour's rows are beside training; what is unknown is left out."""
    rows: _Samples = []
    features: _Samples = []
    predictions: _Samples = []
    missing: _Samples = []
    new: _Samples = []
    dropped: _Samples = []

    def add(to: _Samples, labels: dict[str, str], value: float | None) -> None:
        if value is not None:
            to.append((labels, value))

    def effect(labels: dict[str, str], size: Size) -> dict[str, str]:
        return {**labels, "effect": size.effect}

    for route in table.routes:
        known = _version_labels(route.deployment_id, route.model, route.version)
        add(dropped, known, unwatched.get(route.deployment_id))
        found = seen.get(route.deployment_id)
        if found is None or route.profile is None:
            continue
        hidden = {*route.never, *route.hashed}  # also where the last count is older than the route
        add(rows, known, found.rows)
        for size in found.columns:
            if size.name in hidden:
                continue
            labels = {**known, "column": size.name}
            add(features, effect(labels, size), size.value)
            add(missing, labels, size.missing_share)
            add(new, labels, size.new_category_share)
        if found.prediction is not None:
            add(predictions, effect(known, found.prediction), found.prediction.value)
    return (
        (
            "nbmlops_monitored_rows",
            "gauge",
            "Rows of the last hour that are held against training.",
            rows,
        ),
        (
            "nbmlops_feature_effect",
            "gauge",
            "How far a column's last hour lies from training.",
            features,
        ),
        (
            "nbmlops_prediction_effect",
            "gauge",
            "How far the predictions of the last hour lie from training's answers.",
            predictions,
        ),
        (
            "nbmlops_missing_share",
            "gauge",
            "Share of the last hour's rows in which a column is missing.",
            missing,
        ),
        (
            "nbmlops_new_category_share",
            "gauge",
            "Share of the last hour's rows with a category that training did not have.",
            new,
        ),
        (
            "nbmlops_monitor_dropped_rows_total",
            "counter",
            "Predicted records that were not held against training.",
            dropped,
        ),
    )


def _version_labels(deployment: str, model: str, version: int) -> dict[str, str]:
    return {"deployment": deployment, "model": model, "version": str(version)}


def _route_labels(route: Route) -> dict[str, str]:
    return {
        "deployment": route.deployment_id,
        "role": route.role,
        "model": route.model,
        "version": str(route.version),
        "commit": route.commit,
    }


def _histogram(metrics: Metrics) -> Iterator[str]:
    name = "nbmlops_prediction_seconds"
    yield f"# HELP {name} Time from a prediction's last byte to its answer."
    yield f"# TYPE {name} histogram"
    total = 0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), metrics.buckets, strict=True):
        total += count
        yield _sample(f"{name}_bucket", total, {"le": bound})
    yield _sample(f"{name}_sum", metrics.seconds, {})
    yield _sample(f"{name}_count", total, {})


def _sample(name: str, value: float, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
