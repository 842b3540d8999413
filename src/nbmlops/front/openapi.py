"""An endpoint's description of itself: OpenAPI 3.1, made from its model's schema."""

from __future__ import annotations

import sys
from typing import Any

from nbmlops import records
from nbmlops._version import __version__
from nbmlops.records import Column, ModelSchema, OutputSchema, Route, RouteTable
from nbmlops.schema import EXACT_IN_FLOAT, INT64_MAX, INT64_MIN

_JSON = "application/json"
_TEXT = "text/plain"

_PROBLEMS = {
    "400": "The body is not JSON.",
    "408": "The body came too slowly.",
    "413": "The body has too many bytes or records.",
    "415": "The body is compressed.",
    "422": "The records do not fit the schema; the message names record and column.",
    "429": "Too many calls at once: try again after `Retry-After` seconds.",
    "502": "The model failed.",
    "503": "No worker answers: try again after `Retry-After` seconds.",
    "504": "The model did not answer within the deadline.",
}


def openapi(table: RouteTable, *, rows_limit: int) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of an endpoint; its model is the champion's."""
    champion = next((one for one in table.routes if one.role == "champion"), None)
    paths: dict[str, Any] = {
        "/health/live": _get("Whether the endpoint is up.", "live", {"200": _document("Up.")}),
        "/health/ready": _get(
            "Whether predictions are answered.",
            "ready",
            {"200": _document("Ready."), "503": _document("Not ready.")},
        ),
        "/metrics": _get(
            "Counts for Prometheus.",
            "metrics",
            {"200": {"description": "Text format.", "content": {_TEXT: {}}}},
        ),
    }
    schemas: dict[str, Any] = {"Error": _ERROR}
    if champion is not None:
        paths["/predict"] = {"post": _predict(champion, rows_limit)}
        schemas["Record"] = record_schema(champion.schema)
        schemas["Prediction"] = _prediction(champion.schema.output)
        schemas["Answer"] = _answer()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": table.endpoint,
            "version": f"{champion.model}:{champion.version}" if champion else "none",
            "description": _described(champion),
            "x-nbmlops": {
                "version": __version__,
                "revision": table.revision,
                "commit": champion.commit if champion else None,
            },
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _described(champion: Route | None) -> str:
    if champion is None:
        return "No deployment stands behind this endpoint."
    return f"Model {champion.model}, version {champion.version}, of commit {champion.commit}."


def _get(summary: str, name: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "operationId": name, "responses": responses}}


def _document(description: str) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": {"type": "object"}}}}


def _predict(champion: Route, rows_limit: int) -> dict[str, Any]:
    record = {"$ref": "#/components/schemas/Record"}
    rows = {"type": "array", "items": record, "minItems": 1, "maxItems": rows_limit}
    wrapped = {
        "type": "object",
        "properties": {"records": rows},
        "required": ["records"],
        "additionalProperties": False,
    }
    headers = {
        f"Nbmlops-{name}": {"schema": {"type": "string"}}
        for name in ("Call-Id", "Model", "Version", "Commit")
    }
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    problems = {
        status: {"description": told, "content": content} for status, told in _PROBLEMS.items()
    }
    return {
        "summary": "Predict one or more records.",
        "operationId": "predict",
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {
                    "schema": {"anyOf": [wrapped, rows, record]},
                    "example": {"records": [champion.schema.example]},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The predictions, in the records' order.",
                "headers": headers,
                "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Answer"}}},
            },
            **problems,
        },
    }


def record_schema(schema: ModelSchema) -> dict[str, Any]:
    """Return the JSON Schema of one record."""
    return {
        "type": "object",
        "properties": {column.name: column_schema(column) for column in schema.columns},
        "required": [column.name for column in schema.columns],
        "additionalProperties": False,
        "examples": [schema.example],
    }


def column_schema(column: Column) -> dict[str, Any]:
    """Return the JSON Schema of one column, with what training saw in words."""
    types = {"category": "string", "text": "string"}
    kind = types.get(column.kind, column.kind)
    found: dict[str, Any] = {"type": [kind, "null"] if column.nullable else kind}
    told: list[str] = []
    if column.kind == "integer":
        exact = column.nullable
        found["minimum"] = -EXACT_IN_FLOAT if exact else INT64_MIN
        found["maximum"] = EXACT_IN_FLOAT if exact else INT64_MAX
    elif column.kind == "number":
        found["minimum"], found["maximum"] = -sys.float_info.max, sys.float_info.max
    if column.low is not None and column.high is not None:
        told.append(f"In training from {column.low:g} to {column.high:g}.")
    if column.categories:
        found["examples"] = list(column.categories)
        told.append(f"In training one of {len(column.categories)} categories; others are accepted.")
    if column.nullable:
        told.append("May be null.")
    if told:
        found["description"] = " ".join(told)
    return found


def _prediction(output: OutputSchema) -> dict[str, Any]:
    properties: dict[str, Any] = {"within_bounds": {"type": "boolean"}}
    if output.kind == "value":
        properties["value"] = {"type": ["number", "null"]}
    else:
        kinds = {"text": "string", "integer": "integer", "boolean": "boolean", "number": "number"}
        properties["label"] = {"type": [kinds[output.class_kind], "null"]}
    properties["probabilities"] = {
        "type": ["object", "null"],
        "additionalProperties": {"type": ["number", "null"]},
    }
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _answer() -> dict[str, Any]:
    properties: dict[str, Any] = {
        "call_id": {"type": "string"},
        "model": {"type": "string"},
        "version": {"type": "integer"},
        "commit": {"type": "string"},
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": "string"},
                "context": {"type": "object"},
            },
            "required": ["code", "message", "hint", "context"],
        }
    },
    "required": ["error"],
}


def encoded(table: RouteTable, *, rows_limit: int) -> bytes:
    """Return the document as JSON."""
    return records.dump(openapi(table, rows_limit=rows_limit))
