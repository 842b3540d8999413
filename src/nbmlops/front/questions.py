"""Predictions as clients ask for them: records as JSON, or tensors of the V2 protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nbmlops import records, schema, tensors
from nbmlops.front import protocol
from nbmlops.front.protocol import Answer
from nbmlops.front.upstream import Call, Done
from nbmlops.records import CallAnswer, Route
from nbmlops.tensors import HEADER_LENGTH


class Question(Protocol):
    """What a client wants to be predicted, and the form in which it wants to be told."""

    def call(self, route: Route, done: Done) -> Call:
        """Return it as a call, checked against the schema of the route.

        Raises
        ------
        InvalidRecords
            When it does not fit.
        """
        ...

    def answer(self, call: Call) -> Answer:
        """Return what was predicted in the form that was asked for."""
        ...


class Records:
    """``POST /predict``: records, each with a value for each column."""

    __slots__ = ("_client", "_client_id", "_rows", "_size")

    def __init__(self, body: bytes, headers: Mapping[str, str], rows_limit: int) -> None:
        self._rows = protocol.decode_records(body, rows_limit)
        self._client_id = protocol.client_id(headers)
        self._client = protocol.client(headers)
        self._size = len(body)

    def call(self, route: Route, done: Done) -> Call:
        """Return it as a call."""
        contract, rows = route.schema, self._rows
        block = schema.block(contract, rows)
        columns = schema.check(contract, rows) if block is None else None
        return Call(
            route, len(rows), done, block, columns, rows, self._client_id, self._client, self._size
        )

    def answer(self, call: Call) -> Answer:
        """Return the predictions, each with its label or value."""
        route = call.route
        document = CallAnswer(
            call_id=call.call_id,
            model=route.model,
            version=route.version,
            commit=route.commit,
            predictions=call.predictions,
        )
        return Answer(200, records.dump(document), headers=_call_headers(call.call_id, route))


class Tensors:
    """``POST /v2/models/NAME/infer``: an input for each column, or one matrix."""

    __slots__ = ("_asked", "_client", "_client_id", "_endpoint", "_rows_limit", "_size")

    def __init__(
        self, body: bytes, headers: Mapping[str, str], rows_limit: int, width: int, endpoint: str
    ) -> None:
        self._endpoint = endpoint
        self._rows_limit = rows_limit
        self._asked = tensors.decode_request(
            body,
            protocol.header_length(headers),
            lambda shape: protocol.check_shape(shape, rows_limit, width),
        )
        self._client_id = protocol.client_id(headers) or protocol.kept_id(self._asked.id)
        self._client = protocol.client(headers)
        self._size = len(body)

    def call(self, route: Route, done: Done) -> Call:
        """Return it as a call."""
        contract, asked = route.schema, self._asked
        schema.check_outputs(contract, asked.wanted)
        block = schema.read_block(contract, asked.inputs)
        if block is not None:
            return Call(
                route,
                len(block) // len(contract.columns),
                done,
                block,
                client_id=self._client_id,
                client=self._client,
                size=self._size,
            )
        columns = schema.read(contract, asked.inputs)
        protocol.check_rows(len(columns[0]), self._rows_limit)
        return Call(
            route,
            len(columns[0]),
            done,
            None,
            columns,
            client_id=self._client_id,
            client=self._client,
            size=self._size,
        )

    def answer(self, call: Call) -> Answer:
        """Return the outputs that were asked for, as JSON or as bytes."""
        route = call.route
        parameters = {
            "nbmlops_call_id": call.call_id,
            "nbmlops_version": route.version,
            "nbmlops_commit": route.commit,
        }
        content, length = tensors.encode_response(
            self._endpoint, route.version, call.own_outputs(), self._asked, parameters
        )
        headers = _call_headers(call.call_id, route)
        if length is None:
            return Answer(200, content, headers=headers)
        headers = (*headers, (HEADER_LENGTH.lower().encode(), b"%d" % length))
        return Answer(200, content, b"application/octet-stream", headers)


def _call_headers(call_id: str, route: Route) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"nbmlops-call-id", call_id.encode()),
        (b"nbmlops-model", route.model.encode()),
        (b"nbmlops-version", b"%d" % route.version),
        (b"nbmlops-commit", route.commit.encode()),
    )


# Of a request's headers, what a question is read with.
_READ = (b"nbmlops-client-id", b"x-request-id", b"user-agent", HEADER_LENGTH.lower().encode())


def headers_read(given: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the headers that a question is read with, as texts."""
    return {name.decode(): given[name].decode("latin-1") for name in _READ if name in given}
