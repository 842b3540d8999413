"""An endpoint's description of itself: OpenAPI 3.1, made from its model's schema."""

from __future__ import annotations

from typing import Any

from nbmlops import records
from nbmlops._version import __version__
from nbmlops.front import openapi_v2
from nbmlops.records import Column, ModelSchema, OutputSchema, Route, RouteTable
from nbmlops.schema import EXACT_IN_FLOAT, INT64_MAX, INT64_MIN

_JSON = "application/json"
_TEXT = "text/plain"

# What an operation may answer besides 200; only what takes a body has all of them.
_PROBLEMS = {
    "400": "The body is not JSON, or not of the protocol.",
    "401": "A bearer token is needed: this endpoint is served beyond its own machine.",
    "403": "A page of another origin may not call.",
    "404": "No such model or version is served here.",
    "408": "The body came too slowly.",
    "413": "The body has too many bytes or records.",
    "415": "The body is compressed.",
    "421": "The Host header names another host.",
    "422": "The values do not fit the schema; the message names the column.",
    "429": "Too many calls at once: try again after `Retry-After` seconds.",
    "502": "The model failed.",
    "503": "No worker answers: try again after `Retry-After` seconds.",
    "504": "The model did not answer within the deadline.",
}
_CALL_PROBLEMS = tuple(status for status in _PROBLEMS if status != "404")
_LATER = {"429", "503"}
# Programs that only watch need no token, also beyond the machine.
_OPEN = ("421",)
_READ = ("401", "421")

_CALL_HEADERS: dict[str, Any] = {
    "Nbmlops-Call-Id": "The call's id: what `nbmlops trace call/ID` takes.",
    "Nbmlops-Model": "The model that answered.",
    "Nbmlops-Version": "Its version.",
    "Nbmlops-Commit": "The commit that it was trained at.",
}


def openapi(table: RouteTable, *, rows_limit: int, token: bool = False) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of an endpoint; its model is the champion's.

    ``token`` is whether the endpoint asks for a bearer token.
    """
    champion = next((one for one in table.routes if one.role == "champion"), None)
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Error": _ERROR, "InferError": openapi_v2.ERROR}
    if champion is not None:
        paths["/predict"] = {"post": _predict(champion, rows_limit)}
        schemas["Record"] = record_schema(champion.schema)
        schemas["Prediction"] = _prediction(champion.schema.output)
        schemas["Answer"] = _answer(champion)
        schemas |= openapi_v2.schemas(table, champion)
    paths |= _watching(table, champion)
    paths |= openapi_v2.paths(table, champion, _response, _problems)
    document: dict[str, Any] = {
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
        "servers": [{"url": "./"}],
        "tags": [
            {"name": "predict", "description": "Predictions from records as JSON."},
            {"name": "v2", "description": "The Open Inference Protocol V2."},
            {"name": "watch", "description": "Health, counts and this description."},
        ],
        "paths": paths,
        "components": {"schemas": schemas, "headers": _headers(), "responses": _responses()},
    }
    operations = [operation for path in paths.values() for operation in path.values()]
    if token:
        scheme = {"type": "http", "scheme": "bearer"}
        document["components"]["securitySchemes"] = {"token": scheme}
        document["security"] = [{"token": []}]
    for operation in operations:
        if not token:
            operation["responses"].pop("401", None)
        elif "401" not in operation["responses"]:
            operation["security"] = []
    return document


def _described(champion: Route | None) -> str:
    if champion is None:
        return "No deployment stands behind this endpoint."
    return f"Model {champion.model}, version {champion.version}, of commit {champion.commit}."


# --- answers ------------------------------------------------------------------------------------


def _headers() -> dict[str, Any]:
    later = {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
    text = {"type": "string", "minLength": 1}
    told = {
        name: {"description": about, "required": True, "schema": text}
        for name, about in _CALL_HEADERS.items()
    }
    return {"Retry-After": later, **told}


def _responses() -> dict[str, Any]:
    """Return each problem twice: as our own document, and as the V2 protocol has it."""
    found: dict[str, Any] = {}
    for status, about in _PROBLEMS.items():
        for name, schema in (("Problem", "Error"), ("InferProblem", "InferError")):
            content = {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
            made: dict[str, Any] = {"description": about, "content": content}
            if status in _LATER:
                made["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
            found[f"{name}{status}"] = made
    return found


def _problems(statuses: tuple[str, ...] | None = None, *, v2: bool = False) -> dict[str, Any]:
    """Return what an operation may answer besides 200; without statuses, those of a call."""
    name = "InferProblem" if v2 else "Problem"
    wanted = _CALL_PROBLEMS if statuses is None else statuses
    return {one: {"$ref": f"#/components/responses/{name}{one}"} for one in wanted}


def _response(about: str, schema: Any, example: Any = None, *, call: bool = False) -> Any:
    """Return a response of JSON; ``call`` is whether it has the headers of an answered call."""
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    made: dict[str, Any] = {"description": about, "content": {_JSON: content}}
    if call:
        made["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in _CALL_HEADERS}
    return made


# --- watching -----------------------------------------------------------------------------------


def _watching(table: RouteTable, champion: Route | None) -> dict[str, Any]:
    label = {"deployment": champion.deployment_id} if champion else {}
    sample = "".join(f'{{{key}="{text}"}}' for key, text in label.items())
    return {
        "/health/live": _get(
            "Whether the endpoint is up.",
            "live",
            {"200": _response("It is up.", _flag("live"), {"live": True}), **_problems(_OPEN)},
        ),
        "/health/ready": _get(
            "Whether predictions are answered.",
            "ready",
            {
                "200": _response("They are.", _flag("ready"), {"ready": True}),
                "503": _response("They are not.", _flag("ready"), {"ready": False}),
                **_problems(_OPEN),
            },
        ),
        "/metrics": _get(
            "Counts for Prometheus.",
            "metrics",
            {
                "200": {
                    "description": "Prometheus' text format, version 0.0.4.",
                    "content": {
                        _TEXT: {
                            "schema": {"type": "string"},
                            "example": f"nbmlops_call_log_drops_total{sample} 0\n",
                        }
                    },
                },
                **_problems(_OPEN),
            },
        ),
        "/openapi.json": _get(
            "This description.",
            "description",
            {
                "200": _response(
                    f"OpenAPI 3.1 of {table.endpoint}.",
                    {
                        "type": "object",
                        "properties": {"openapi": {"const": "3.1.0"}},
                        "required": ["openapi", "info", "paths"],
                    },
                ),
                **_problems(_READ),
            },
        ),
    }


def _get(summary: str, name: str, responses: dict[str, Any]) -> dict[str, Any]:
    operation = {
        "summary": summary,
        "operationId": name,
        "tags": ["watch"],
        "responses": responses,
    }
    return {"get": operation}


def _flag(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]}


# --- predicting ---------------------------------------------------------------------------------


def _predict(champion: Route, rows_limit: int) -> dict[str, Any]:
    record = {"$ref": "#/components/schemas/Record"}
    rows = {"type": "array", "items": record, "minItems": 1, "maxItems": rows_limit}
    wrapped = {
        "type": "object",
        "properties": {"records": rows},
        "required": ["records"],
        "additionalProperties": False,
    }
    return {
        "summary": "Predict one or more records.",
        "description": (
            "A record is an object with a value for each column. A list of records, or one record"
            " alone, may also be sent bare. The call is in the call log when the answer leaves."
        ),
        "operationId": "predict",
        "tags": ["predict"],
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
            "200": _response(
                "The predictions, in the records' order.",
                {"$ref": "#/components/schemas/Answer"},
                call=True,
            ),
            **_problems(),
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
        # Its bounds cannot be said: what is just beyond the largest double is rounded to it.
        found["format"] = "double"
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


def _answer(champion: Route) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "call_id": {"type": "string"},
        "model": {"type": "string", "examples": [champion.model]},
        "version": {"type": "integer", "minimum": 1, "examples": [champion.version]},
        "commit": {"type": "string", "examples": [champion.commit]},
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


def encoded(table: RouteTable, *, rows_limit: int, token: bool = False) -> bytes:
    """Return the document as JSON."""
    return records.dump(openapi(table, rows_limit=rows_limit, token=token))
