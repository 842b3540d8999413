"""Calls as rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbmlops.errors import MissingExtra
from nbmlops.records import CallRecord, ModelSchema
from nbmlops.schema import spelled_class

_TYPES = {"number": "double", "integer": "int64", "boolean": "bool"}
_LABEL_TYPES = {"integer": "int64", "boolean": "bool", "number": "double"}


def columns_of(schemas: list[ModelSchema]) -> dict[str, str]:
    """Return the table's columns with their Arrow types."""
    inputs: dict[str, str] = {}
    predictions: set[str] = set()
    classes: dict[str, str] = {}
    for schema in schemas:
        for column in schema.columns:
            kind = _TYPES.get(column.kind, "string")
            if inputs.setdefault(f"inputs.{column.name}", kind) != kind:
                inputs[f"inputs.{column.name}"] = "string"
        output = schema.output
        labels = _LABEL_TYPES.get(output.class_kind, "string")
        predictions.add("double" if output.kind == "value" else labels)
        if output.probabilities:
            classes |= {f"probability.{name}": "double" for name in output.classes or ()}
    return {
        "call_id": "string",
        "row": "int64",
        "at": "timestamp",
        "endpoint": "string",
        "deployment_id": "string",
        "model": "string",
        "version": "int64",
        "commit": "string",
        "client_id": "string",
        "client": "string",
        "latency_ms": "double",
        **inputs,
        "prediction": predictions.pop() if len(predictions) == 1 else "string",
        **classes,
        "within_bounds": "bool",
        "redacted": "list",
    }


def rows_of(call: CallRecord, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a call's records as rows."""
    redacted = list(call.redacted or ())
    for number, (record, answer) in enumerate(zip(call.records, call.predictions, strict=True)):
        row: dict[str, Any] = {
            "call_id": call.call_id,
            "row": number,
            "at": call.at,
            "endpoint": call.endpoint,
            "deployment_id": call.deployment_id,
            "model": call.model,
            "version": call.version,
            "commit": call.commit,
            "client_id": call.client_id,
            "client": call.client,
            "latency_ms": call.latency_ms,
            "within_bounds": answer.within_bounds,
            "redacted": redacted,
        }
        found = {f"inputs.{name}": value for name, value in record.items()}
        found["prediction"] = answer.outcome
        for name, share in (answer.probabilities or {}).items():
            found[f"probability.{name}"] = share
        for name, value in found.items():
            if name in columns:
                row[name] = _typed(columns[name], value)
        yield row


def _typed(kind: str, value: Any) -> Any:
    """Return a logged value as its column has it; ``None`` where it is of another type."""
    if value is None:
        return None
    if kind == "string":
        return value if isinstance(value, str) else _spelled(value)
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if kind == "double" else int(value)


def _spelled(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number"}
    return spelled_class(kinds.get(type(value), "text"), value)


def arrow_type(arrow: Any, kind: str) -> Any:
    """Return a column's type as Arrow has it."""
    if kind == "timestamp":
        return arrow.timestamp("us", tz="UTC")
    if kind == "list":
        return arrow.list_(arrow.string())
    return {
        "string": arrow.string,
        "int64": arrow.int64,
        "double": arrow.float64,
        "bool": arrow.bool_,
    }[kind]()


def frame(pd: Any, rows: list[dict[str, Any]], columns: dict[str, str]) -> Any:
    """Return rows as pandas has them; numbers and truth values may be missing."""
    kinds = {"int64": "Int64", "double": "float64", "bool": "boolean", "string": "object"}
    made: dict[str, Any] = {}
    for name, kind in columns.items():
        values = [row.get(name) for row in rows]
        if kind == "timestamp":
            made[name] = pd.to_datetime(pd.Series(values, dtype="object"), utc=True)
        else:
            dtype = "int64" if name in {"row", "version"} else kinds.get(kind, "object")
            made[name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(made)


def arrow() -> Any:
    """Return pyarrow.

    Raises
    ------
    MissingExtra
        When it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing("pyarrow") from error
    return pa


def missing(package: str) -> MissingExtra:
    """Return the error for a package that is not installed."""
    return MissingExtra(
        f"{package} is not installed, which tables of calls need", "pip install 'nbmlops[lab]'"
    )
