"""Asking a worker: whole batches over one connection, as whoever started it does.

A front has many callers and keeps them apart; whoever answers files or replays calls has one
question at a time, and this is its side of the protocol.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from nbmlops import schema, tensors
from nbmlops.errors import InvalidRecords, NbmlopsError
from nbmlops.records import ModelSchema, ModelVersion, Prediction
from nbmlops.tensors import HEADER_LENGTH, InvalidTensors

_PATIENCE_S = 600.0
_LOOK_S = 5.0


class ModelFailed(NbmlopsError):
    """A model could not answer rows that fit its schema."""

    code = "model-failed"
    exit_code = 1


class Asker:
    """One connection to a worker that is ready.

    ``binary`` is whether it takes binary tensors, ``token`` what it wants to be shown.
    """

    def __init__(
        self,
        version: ModelVersion,
        contract: ModelSchema,
        address: str,
        *,
        binary: bool = True,
        token: str | None = None,
    ) -> None:
        self.version = version
        self.schema = contract
        where = tensors.parse_address(address)
        self._path = f"/v2/models/{version.model}/infer"
        self._binary = binary
        self._token = token
        self._connection = _Connection(where, timeout=_PATIENCE_S)

    def predict(self, columns: Sequence[Sequence[Any]]) -> tuple[Prediction, ...]:
        """Return the predictions for columns that were checked, in schema order.

        Raises
        ------
        InvalidRecords
            When the model refuses a value that fits its schema.
        ModelFailed
            When it fails otherwise, or its worker has ended.
        """
        rows = len(columns[0])
        inputs = schema.inputs(self.schema, columns, matrix=not self.version.served_by_program)
        body, length = tensors.encode_request(inputs, binary=self._binary)
        headers = {"Content-Type": "application/json"}
        if length is not None:
            headers = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        try:
            self._connection.request("POST", self._path, body, headers | self._shown())
            answer = self._connection.getresponse()
            content, told = answer.read(), answer.headers.get(HEADER_LENGTH)
        except (OSError, http.client.HTTPException) as error:
            raise ModelFailed(
                f"the worker of {self.version.name} has ended ({type(error).__name__})",
                "It may have needed more memory than there is; see `dmesg`, then try again.",
            ) from error
        if answer.status != 200:
            raise _refusal(self.version, content)
        try:
            outputs = tensors.decode_response(content, int(told) if told else None).outputs
            return schema.predictions(self.schema, outputs, rows)
        except (InvalidTensors, ValueError) as error:
            raise ModelFailed(
                f"{self.version.name} does not answer as its schema says: {error}",
                "Train it again.",
            ) from error

    def _shown(self) -> dict[str, str]:
        return {} if self._token is None else {"Authorization": f"Bearer {self._token}"}

    def is_ready(self) -> bool:
        """Whether the worker answers already."""
        try:
            self._connection.request("GET", "/v2/health/ready", headers=self._shown())
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False
        return answer.status == 200

    def close(self) -> None:
        """Give up the connection."""
        self._connection.close()


class _Connection(http.client.HTTPConnection):
    """An HTTP connection to a worker: a Unix socket, or a port where it is another program."""

    def __init__(self, where: tensors.Address, timeout: float) -> None:
        super().__init__(where.host or "localhost", where.port, timeout=timeout)
        self._socket_path = where.path

    def connect(self) -> None:
        if self._socket_path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket_path))


def _refusal(version: ModelVersion, content: bytes) -> NbmlopsError:
    try:
        document: Any = msgspec.json.decode(content)
        told, kind = str(document.get("error")), str(document.get("type"))
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        told, kind = repr(content[:200]), ""
    if kind in {"ValueError", "OverflowError", "FloatingPointError"}:
        return InvalidRecords(
            f"{version.name} refuses the values: {told}"[:500],
            "They fit the schema's types; compare them with what it was trained on.",
        )
    return ModelFailed(
        f"{version.name} failed: {told}"[:500], "Look into the model's own code, and its data."
    )


def says_binary(address: str) -> bool:
    """Return whether a worker that is not ours says that it takes binary tensors."""
    try:
        where = tensors.parse_address(address)
    except tensors.InvalidAddress:
        return False
    connection = http.client.HTTPConnection(where.host, where.port, timeout=_LOOK_S)
    try:
        connection.request("GET", "/v2")
        answer = connection.getresponse()
        told = msgspec.json.decode(answer.read())
        return "binary_tensor_data" in told.get("extensions", ())
    except (OSError, http.client.HTTPException, msgspec.DecodeError, AttributeError, TypeError):
        return False
    finally:
        connection.close()
