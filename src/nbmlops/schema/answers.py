"""What a model answers, held against what its schema says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nbmlops.records import ModelSchema, OutputSchema, Prediction
from nbmlops.schema.wire import output_datatype
from nbmlops.tensors import INTEGERS, NUMERIC, InvalidTensors, Tensor

ROUNDING = 1e-9  # shares that a model sums up may leave 0..1 by that much


def spelled_class(kind: str, value: Any) -> str:
    """Return a class label as ``OutputSchema.classes`` and ``probabilities`` spell it."""
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "integer":
        return str(int(value))
    return repr(float(value)) if kind == "number" else str(value)


def outputs(schema: ModelSchema, found: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Return a model's outputs as the schema has them: ``prediction`` and, if any, ``probability``.

    Programs of others may call their one output as they like, and answer in another numeric
    datatype or with shape [n, 1].

    Raises
    ------
    InvalidTensors
        When the outputs are not those of the schema, or not of ``rows`` rows.
    """
    output = schema.output
    only = next(iter(found.values())) if len(found) == 1 else None
    wanted = output_datatype(output)
    made = {"prediction": _fitted(found.get("prediction", only), "prediction", wanted, (rows,))}
    if output.probabilities:
        shape = (rows, len(output.classes or ()))
        share = _fitted(found.get("probability"), "probability", "FP64", shape)
        made["probability"] = share
    return made


def _fitted(tensor: Tensor | None, name: str, wanted: str, shape: tuple[int, ...]) -> Tensor:
    if tensor is None:
        raise InvalidTensors(f"the worker's answer has no output {name!r}")
    if (tensor.name, tensor.datatype, tensor.shape) == (name, wanted, shape):
        return tensor
    fits = tensor.datatype == wanted or (
        tensor.datatype in (NUMERIC if wanted == "FP64" else INTEGERS if wanted == "INT64" else ())
    )
    if not fits or tensor.shape not in {shape, (*shape, 1)}:
        raise InvalidTensors(
            f"output {name!r} is {tensor.datatype} {list(tensor.shape)},"
            f" not {wanted} {list(shape)}",
        )
    values = tensor.values
    if wanted == "FP64":
        values = [float(value) for value in values]
    return Tensor(name, wanted, shape, values)


def predictions(
    schema: ModelSchema, found: Mapping[str, Tensor], rows: int
) -> tuple[Prediction, ...]:
    """Return the model's outputs as one answer a row, each held against what is plausible.

    A label is within bounds if it is one of the classes, or of those that are allowed, its
    probabilities are shares, and its own is not below the least that was declared; a value if it is
    finite and within the plausible range. A value that is not finite becomes ``None``.

    Raises
    ------
    InvalidTensors
        When the outputs are not those of the schema, or not of ``rows`` rows.
    """
    output = schema.output
    fitted = outputs(schema, found, rows)
    labels: Sequence[Any] = fitted["prediction"].values
    if output.kind == "value":
        return tuple(_value(output, value) for value in labels)
    if not output.probabilities:
        return tuple(_label(output, label, None) for label in labels)
    classes = output.classes or ()
    width = len(classes)
    flat = fitted["probability"].values
    at = range(0, len(flat), width)
    if labels and math.isfinite(sum(flat)) and min(flat) >= -ROUNDING and max(flat) <= 1 + ROUNDING:
        known = {label: _label(output, label, None) for label in set(labels)}
        least = _least(output)
        own = {label: _place(output, label) for label in known} if least is not None else {}
        return tuple(
            Prediction(
                label=known[label].label,
                probabilities=dict(zip(classes, flat[start : start + width], strict=True)),
                within_bounds=known[label].within_bounds
                and (least is None or flat[start + own[label]] >= least),
            )
            for label, start in zip(labels, at, strict=True)
        )
    return tuple(
        _label(output, label, flat[start : start + width])
        for label, start in zip(labels, at, strict=True)
    )


def _value(output: OutputSchema, value: float) -> Prediction:
    if not math.isfinite(value):
        return Prediction(value=None, within_bounds=False)
    above = output.low is None or value >= output.low
    below = output.high is None or value <= output.high
    return Prediction(value=value, within_bounds=above and below)


def _label(output: OutputSchema, label: Any, shares: Sequence[float] | None) -> Prediction:
    classes = output.classes or ()
    allowed = classes if output.allowed is msgspec.UNSET else output.allowed
    within = label is not None and spelled_class(output.class_kind, label) in allowed
    least = _least(output)
    if shares is not None and within and least is not None:
        within = shares[_place(output, label)] >= least
    if isinstance(label, float) and not math.isfinite(label):
        label = None
    if shares is None:
        return Prediction(label=label, within_bounds=within)
    return Prediction(
        label=label,
        probabilities={
            name: share if math.isfinite(share) else None
            for name, share in zip(classes, shares, strict=True)
        },
        within_bounds=within and all(-ROUNDING <= share <= 1 + ROUNDING for share in shares),
    )


def _least(output: OutputSchema) -> float | None:
    """Return the least probability of the class that is answered, if one was declared."""
    return None if output.confidence is msgspec.UNSET else output.confidence - ROUNDING


def _place(output: OutputSchema, label: Any) -> int:
    """Return where the probability of a label stands; of one that is no class, anywhere."""
    classes = output.classes or ()
    spelled = "" if label is None else spelled_class(output.class_kind, label)
    return classes.index(spelled) if spelled in classes else 0
