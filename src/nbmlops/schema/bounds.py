"""Declared bounds, laid over what was inferred from training."""

from __future__ import annotations

import math

import msgspec

from nbmlops import records
from nbmlops.errors import InvalidSettings, nearest
from nbmlops.records import Bounds, OutputSchema
from nbmlops.schema.answers import spelled_class


def bounded(output: OutputSchema, bounds: Bounds, where: str) -> OutputSchema:
    """Return what a model answers, held within what somebody has declared.

    What is not declared stays as it was inferred; ``inf`` and ``-inf`` are no bound. ``where``
    says in errors where the declaration stands.

    Raises
    ------
    InvalidSettings
        When the bounds are another kind of model's, or name a label that the model has not.

    >>> inferred = OutputSchema(kind="value", low=-5.0, high=20.0)
    >>> held = bounded(inferred, Bounds(low=0.0), "[models.price.bounds]")
    >>> held.low, held.high
    (0.0, 20.0)
    """
    if output.kind == "value":
        return _values(output, bounds, where)
    if bounds.of_values:
        raise InvalidSettings(
            f"{where} has bounds of values, and the model answers labels",
            f'Write labels = ["{(output.classes or ("yes",))[0]}", ...], or confidence = 0.5.',
        )
    allowed: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    if bounds.labels is not None:
        allowed = tuple(_known(output, label, where) for label in bounds.labels)
    if bounds.confidence is not None and not output.probabilities:
        raise InvalidSettings(
            f"{where} has a confidence, and the model has no probabilities",
            "Take it out; or train one that has predict_proba.",
        )
    return records.replace(
        output,
        allowed=allowed,
        confidence=msgspec.UNSET if bounds.confidence is None else bounds.confidence,
    )


def _values(output: OutputSchema, bounds: Bounds, where: str) -> OutputSchema:
    if bounds.of_labels:
        raise InvalidSettings(
            f"{where} has bounds of labels, and the model answers values",
            "Write low and high, or one of them.",
        )
    low = output.low if bounds.low is None else bounds.low
    high = output.high if bounds.high is None else bounds.high
    if low is not None and high is not None and low > high:
        left, other = ("low", "high") if bounds.high is None else ("high", "low")
        raise InvalidSettings(
            f"{where} leaves no value: {low:g} is the least and {high:g} the greatest, of which"
            f" {other} was inferred from training",
            f"Write {other} beside {left}; {other} = {'inf' if other == 'high' else '-inf'} is no"
            " bound.",
        )
    return records.replace(output, low=_finite(low), high=_finite(high))


def _finite(bound: float | None) -> float | None:
    """Return a bound that JSON can hold; none where it bounds nothing."""
    return bound if bound is not None and math.isfinite(bound) else None


def _known(output: OutputSchema, label: str | bool | float, where: str) -> str:
    """Return a label as the model's classes spell it."""
    classes = output.classes or ()
    if isinstance(label, bool):
        spelled = "true" if label else "false"
    elif isinstance(label, str):
        spelled = label
    else:
        # TOML tells 1 from 1.0; the classes of a model whose labels are floats do not.
        whole = output.class_kind != "number" and float(label).is_integer()
        spelled = spelled_class("integer" if whole else "number", label)
    if spelled not in classes:
        raise InvalidSettings(
            f"{where} allows the label `{spelled[:80]}`, which the model never answers",
            nearest(spelled, classes),
            label=spelled[:200],
        )
    return spelled
