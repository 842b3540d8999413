"""The Open Inference Protocol V2 in an endpoint's description of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbmlops._version import __version__
from nbmlops.records import Column, ModelSchema, Route, RouteTable
from nbmlops.schema import datatype, metadata
from nbmlops.tensors import DATATYPES, HEADER_LENGTH, NUMERIC

_JSON = "application/json"
_BINARY = "application/octet-stream"
_NUMERIC_KINDS = {"number", "integer", "boolean"}

_ABOUT_INFER = (
    "One input for each column, of shape `[n]` or `[n, 1]`; where all columns are numbers or truth"
    " values also one input of any name and any numeric datatype, of shape `[n, columns]`. The"
    " outputs are `prediction` and, for classifiers, `probability`, whose columns are in the order"
    " of the metadata's `properties.classes`. `outputs` chooses among them; without it all are"
    " answered.\n\n"
    "**Binary form.** The body is a JSON header followed by the raw little-endian bytes of the"
    f" tensors, in order and without gaps. The HTTP header `{HEADER_LENGTH}` says how many bytes"
    ' the JSON has; a tensor in binary has `"parameters": {"binary_data_size": BYTES}` instead of'
    " `data`. An element of `BYTES` is its length in four bytes, then UTF-8; `BOOL` is one byte, 0"
    ' or 1. Ask for binary outputs with `"parameters": {"binary_data_output": true}` on the'
    ' request, or `{"binary_data": true}` on one output. Null is NaN in `FP64`, and `null` in'
    " JSON's `data`."
)

ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
    "required": ["error", "code"],
}

# What an answer is made with; both are handed in, so that they are written once.
Response = Callable[..., Any]
Problems = Callable[..., dict[str, Any]]


def paths(
    table: RouteTable, champion: Route | None, response: Response, problems: Problems
) -> dict[str, Any]:
    """Return the paths of the protocol; those of the model where there is one."""
    model = f"/v2/models/{table.endpoint}"
    found: dict[str, Any] = {
        "/v2": _get("Which server this is.", "v2_server", _server(response, problems)),
        "/v2/health/live": _get(
            "Whether the endpoint is up.",
            "v2_live",
            {
                "200": response("It is up.", _flags("live"), {"live": True}),
                **problems(("421",), v2=True),
            },
        ),
        "/v2/health/ready": _get(
            "Whether predictions are answered.", "v2_ready", _readiness(response, problems)
        ),
    }
    if champion is None:
        return found
    versions = [str(route.version) for route in table.routes]
    version = {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "A version that is served now.",
        "schema": {"type": "string", "enum": versions},
        "example": str(champion.version),
    }
    about = metadata(table.endpoint, champion.version, "nbmlops", champion.schema)
    about["versions"] = versions
    for path, name, given in (
        (model, "", []),
        (f"{model}/versions/{{version}}", "_version", [version]),
    ):
        found[path] = _get(
            "What the model takes and answers.",
            f"v2_model{name}",
            {
                "200": response(
                    "Its inputs, in the order of its columns, and its outputs.",
                    {"$ref": "#/components/schemas/ModelMetadata"},
                    about,
                ),
                **problems(("401", "404", "421"), v2=True),
            },
            given,
        )
        found[f"{path}/ready"] = _get(
            "Whether the model's predictions are answered.",
            f"v2_model{name}_ready",
            {**_readiness(response, problems, "name"), **problems(("401", "404"), v2=True)},
            given,
        )
        found[f"{path}/infer"] = {
            "post": {
                "summary": "Predict by tensors.",
                "description": _ABOUT_INFER,
                "operationId": f"v2_infer{name}",
                "tags": ["v2"],
                "parameters": given,
                "requestBody": _infer_body(champion),
                "responses": _infer_answers(response, problems),
            }
        }
    return found


def _get(
    summary: str, name: str, responses: dict[str, Any], parameters: list[Any] | None = None
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "operationId": name, "tags": ["v2"]}
    if parameters:
        operation["parameters"] = parameters
    return {"get": {**operation, "responses": responses}}


def _flags(flag: str, *texts: str) -> dict[str, Any]:
    properties: dict[str, Any] = {flag: {"type": "boolean"}}
    properties |= {text: {"type": "string"} for text in texts}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _readiness(response: Response, problems: Problems, *texts: str) -> dict[str, Any]:
    return {
        "200": response("They are.", _flags("ready", *texts)),
        "503": response("They are not.", _flags("ready", *texts)),
        **problems(("421",), v2=True),
    }


def _server(response: Response, problems: Problems) -> dict[str, Any]:
    texts = {"type": "array", "items": {"type": "string"}}
    properties: dict[str, Any] = {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "extensions": texts,
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    example = {"name": "nbmlops", "version": __version__, "extensions": ["binary_tensor_data"]}
    return {
        "200": response("The server.", schema, example),
        **problems(("401", "421"), v2=True),
    }


# --- inferring ----------------------------------------------------------------------------------


def _infer_body(champion: Route) -> dict[str, Any]:
    columns = champion.schema.columns
    examples: dict[str, Any] = {
        "columns": {"summary": "An input for each column.", "value": _by_column(champion.schema)}
    }
    if _takes_matrix(champion.schema):
        values = [champion.schema.example[column.name] for column in columns]
        row = [None if value is None else float(value) for value in values]
        matrix = {"name": "input", "datatype": "FP64", "shape": [1, len(columns)], "data": row}
        examples["matrix"] = {"summary": "One matrix.", "value": {"inputs": [matrix]}}
    return {
        "required": True,
        "content": {
            _JSON: {
                "schema": {"$ref": "#/components/schemas/InferRequest"},
                "examples": examples,
            },
            _BINARY: {
                "schema": {"type": "string", "format": "binary", "maxLength": 4096},
            },
        },
    }


def _takes_matrix(schema: ModelSchema) -> bool:
    return all(column.kind in _NUMERIC_KINDS for column in schema.columns)


def _by_column(schema: ModelSchema) -> dict[str, Any]:
    inputs: list[dict[str, Any]] = []
    for column in schema.columns:
        value, kind = schema.example[column.name], datatype(column)
        if kind == "FP64" and value is not None:  # truth values that may be null are numbers here
            value = float(value)
        inputs.append({"name": column.name, "datatype": kind, "shape": [1], "data": [value]})
    return {"inputs": inputs}


def _infer_answers(response: Response, problems: Problems) -> dict[str, Any]:
    answered = response(
        "The outputs, in the form that was asked for.",
        {"$ref": "#/components/schemas/InferResponse"},
        call=True,
    )
    answered["content"][_BINARY] = {"schema": {"type": "string", "format": "binary"}}
    answered["headers"][HEADER_LENGTH] = {
        "description": "In the binary form, how many bytes of the body are JSON.",
        "schema": {"type": "integer", "minimum": 0},
    }
    return {"200": answered, **problems(v2=True), **problems(("404",), v2=True)}


def schemas(table: RouteTable, champion: Route) -> dict[str, Any]:
    """Return the schemas of the protocol's documents, for the champion's columns."""
    schema = champion.schema
    names = ["prediction", *(["probability"] if schema.output.probabilities else [])]
    tensor: dict[str, Any] = {
        "type": "object",
        "properties": {
            "name": {"enum": names},
            "datatype": {"enum": sorted(DATATYPES)},
            "shape": _shape(),
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape"],
    }
    asked: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"enum": names}, "parameters": {"type": "object"}},
        "required": ["name"],
    }
    request: dict[str, Any] = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"], "description": "Comes back with the answer."},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": _inputs(schema)},
            },
            "outputs": {"type": ["array", "null"], "items": asked},
            "parameters": {"type": "object"},
        },
        "required": ["inputs"],
    }
    answer: dict[str, Any] = {
        "type": "object",
        "properties": {
            "model_name": {"const": table.endpoint},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {
                "type": "object",
                "properties": {
                    "nbmlops_call_id": {"type": "string"},
                    "nbmlops_version": {"type": "integer"},
                    "nbmlops_commit": {"type": "string"},
                },
                "required": ["nbmlops_call_id", "nbmlops_version", "nbmlops_commit"],
            },
            "outputs": {"type": "array", "items": tensor, "minItems": 1},
        },
        "required": ["model_name", "model_version", "parameters", "outputs"],
    }
    return {"InferRequest": request, "InferResponse": answer, "ModelMetadata": _metadata(table)}


def _shape() -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        "minItems": 1,
        "maxItems": 2,
    }


def _inputs(schema: ModelSchema) -> list[dict[str, Any]]:
    """Return the schema of each tensor that the model takes."""
    found = [
        _input({"const": column.name}, _datatypes(column), nullable=column.nullable)
        for column in schema.columns
    ]
    if _takes_matrix(schema):
        nullable = any(column.nullable for column in schema.columns)
        found.append(_input({"type": "string"}, sorted(NUMERIC), nullable=nullable))
    return found


def _datatypes(column: Column) -> list[str]:
    if column.kind not in _NUMERIC_KINDS:
        return ["BYTES"]
    return sorted([*NUMERIC, "BOOL"] if column.kind == "boolean" else NUMERIC)


def _input(name: dict[str, Any], datatypes: list[str], *, nullable: bool) -> dict[str, Any]:
    kinds = {"BYTES": "string", "BOOL": "boolean"}
    values = {kinds.get(one, "number") for one in datatypes} | {"array"}
    if nullable:
        values.add("null")
    return {
        "type": "object",
        "properties": {
            "name": name,
            "datatype": {"enum": datatypes},
            "shape": _shape(),
            "data": {"type": "array", "items": {"type": sorted(values)}},
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape"],
    }


def _metadata(table: RouteTable) -> dict[str, Any]:
    about: dict[str, Any] = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": sorted(DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["name", "datatype", "shape"],
    }
    properties: dict[str, Any] = {
        "name": {"const": table.endpoint},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": about},
        "outputs": {"type": "array", "items": about},
        "properties": {
            "type": "object",
            "properties": {"classes": {"type": "array", "items": {"type": "string"}}},
        },
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
