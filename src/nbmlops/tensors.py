"""The wire between front and worker: Open Inference Protocol V2, REST with binary tensors.

A body is a JSON header, as long as the HTTP header ``Inference-Header-Content-Length`` says,
followed by the raw little-endian bytes of each tensor in order (the binary tensor data extension
of KServe's and Triton's protocol). Without that HTTP header the whole body is JSON and each
tensor has its ``data`` there. What is decoded is checked: names, datatypes, shapes, sizes.

Null has no place in the protocol, so it travels as NaN in ``FP64``, and in ``BYTES`` as the one
byte ``0xFF``, which is never valid UTF-8 and so can never be somebody's text.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import msgspec

from nbmlops.errors import NbmlopsError

HEADER_LENGTH = "Inference-Header-Content-Length"

Datatype = Literal["FP64", "INT64", "BOOL", "BYTES"]

_NULL_BYTES = b"\xff"
_LENGTH = struct.Struct("<I")
_BIG_ENDIAN = sys.byteorder == "big"


class InvalidTensors(NbmlopsError):
    """A V2 body says something that has no meaning, or its sizes do not agree."""

    code: ClassVar[str] = "invalid-tensors"


class InvalidAddress(NbmlopsError):
    """An address is neither ``unix:/path`` nor ``tcp:HOST:PORT``."""

    code: ClassVar[str] = "invalid-address"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor: ``values`` are flat, in row-major order, ``len(values) == prod(shape)``.

    Decoded ``FP64`` and ``INT64`` values are an :class:`array.array`, which numpy takes without
    a copy; ``BYTES`` are ``str`` or, for null, ``None``.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Response:
    """A decoded answer: which model gave it, and its outputs by name."""

    model: str
    version: str | None
    outputs: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker or a front listens: a Unix socket's ``path``, or ``host`` and ``port``."""

    path: Path | None = None
    host: str = ""
    port: int = 0


_TCP = re.compile(r"tcp:(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]{0,252}):([0-9]{1,5})")


def parse_address(text: str) -> Address:
    """Return the address that ``unix:/path`` or ``tcp:HOST:PORT`` spells.

    Raises
    ------
    InvalidAddress
        For anything else, among them relative paths and ports above 65535.

    >>> parse_address("tcp:127.0.0.1:8080")
    Address(path=None, host='127.0.0.1', port=8080)
    """
    if text.startswith("unix:/") and "\0" not in text:
        return Address(path=Path(text.removeprefix("unix:")))
    found = _TCP.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise InvalidAddress(
            f"{text[:120]!r} is not an address",
            "Write `unix:/absolute/path.sock` or `tcp:HOST:PORT`.",
        )
    return Address(host=found[1].strip("[]"), port=int(found[2]))


# --- encoding -----------------------------------------------------------------------------------


def encode_request(inputs: Sequence[Tensor]) -> tuple[bytes, int]:
    """Return the body of an ``infer`` request and the length of its JSON header, in bytes.

    The answer is asked for in binary (``binary_data_output``).
    """
    return _encode({"parameters": {"binary_data_output": True}}, "inputs", inputs)


def encode_response(model: str, version: int, outputs: Sequence[Tensor]) -> tuple[bytes, int]:
    """Return the body of an ``infer`` answer and the length of its JSON header, in bytes."""
    return _encode({"model_name": model, "model_version": str(version)}, "outputs", outputs)


def encode_json_response(model: str, version: int, outputs: Sequence[Tensor]) -> bytes:
    """Return an ``infer`` answer as JSON alone, for clients that ask for no binary data."""
    tensors = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "data": list(tensor.values),
        }
        for tensor in outputs
    ]
    return msgspec.json.encode(
        {"model_name": model, "model_version": str(version), "outputs": tensors}
    )


def _encode(document: dict[str, Any], key: str, tensors: Sequence[Tensor]) -> tuple[bytes, int]:
    blobs = [_pack(tensor) for tensor in tensors]
    document[key] = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "parameters": {"binary_data_size": len(blob)},
        }
        for tensor, blob in zip(tensors, blobs, strict=True)
    ]
    header = msgspec.json.encode(document)
    return b"".join((header, *blobs)), len(header)


def _pack(tensor: Tensor) -> bytes:
    if len(tensor.values) != math.prod(tensor.shape):
        _refuse(tensor.name, f"shape {list(tensor.shape)} has not {len(tensor.values)} values")
    packer = _PACKERS.get(tensor.datatype)
    if packer is None:
        _refuse(tensor.name, f"datatype {tensor.datatype!r} is not one of {', '.join(_PACKERS)}")
    try:
        return packer(tensor.values)
    except (TypeError, ValueError, OverflowError) as error:
        _refuse(tensor.name, f"values do not fit {tensor.datatype}: {error}", error)


def _pack_floats(values: Sequence[Any]) -> bytes:
    try:
        packed = array("d", values)
    except TypeError:  # nulls are rare: only then a second pass
        packed = array("d", [math.nan if value is None else value for value in values])
    return _little_endian(packed)


def _pack_integers(values: Sequence[Any]) -> bytes:
    return _little_endian(array("q", values))


def _pack_booleans(values: Sequence[Any]) -> bytes:
    return bytes([_checked_bool(value) for value in values])


def _pack_texts(values: Sequence[Any]) -> bytes:
    parts: list[bytes] = []
    for value in values:
        data = _NULL_BYTES if value is None else value.encode() if isinstance(value, str) else None
        if data is None:
            raise TypeError(f"{type(value).__name__} is not text")
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _little_endian(values: array[Any]) -> bytes:
    if _BIG_ENDIAN:
        values.byteswap()
    return values.tobytes()


def _checked_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} is not a truth value")
    return value


_PACKERS: dict[str, Callable[[Sequence[Any]], bytes]] = {
    "FP64": _pack_floats,
    "INT64": _pack_integers,
    "BOOL": _pack_booleans,
    "BYTES": _pack_texts,
}


# --- decoding -----------------------------------------------------------------------------------


class _WireTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _WireRequest(msgspec.Struct):
    inputs: list[_WireTensor]
    parameters: dict[str, Any] = {}


class _WireResponse(msgspec.Struct):
    model_name: str
    outputs: list[_WireTensor]
    model_version: str | None = None


_REQUEST = msgspec.json.Decoder(_WireRequest)
_RESPONSE = msgspec.json.Decoder(_WireResponse)


def decode_request(body: bytes, header_length: int | None) -> tuple[dict[str, Tensor], bool]:
    """Return the inputs of an ``infer`` request by name, and whether it wants binary outputs.

    Parameters
    ----------
    header_length
        What ``Inference-Header-Content-Length`` says, ``None`` where it is missing.

    Raises
    ------
    InvalidTensors
        When the body is not what the protocol describes; the message names the tensor.
    """
    header, rest = _split(body, header_length)
    document: _WireRequest = _parsed(_REQUEST, header)
    wants_binary = document.parameters.get("binary_data_output") is True
    return _tensors(document.inputs, rest), wants_binary


def decode_response(body: bytes, header_length: int | None) -> Response:
    """Return the answer of an ``infer`` request.

    Raises
    ------
    InvalidTensors
        When the body is not what the protocol describes; the message names the tensor.
    """
    header, rest = _split(body, header_length)
    document: _WireResponse = _parsed(_RESPONSE, header)
    return Response(document.model_name, document.model_version, _tensors(document.outputs, rest))


def _split(body: bytes, header_length: int | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return view, view[len(view) :]
    if not 0 < header_length <= len(view):
        raise InvalidTensors(f"{HEADER_LENGTH} is {header_length}, the body has {len(view)} bytes")
    return view[:header_length], view[header_length:]


def _parsed(decoder: msgspec.json.Decoder[Any], header: memoryview) -> Any:
    try:
        return decoder.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTensors(f"the JSON header is not of the V2 protocol: {error}") from error


def _tensors(found: Sequence[_WireTensor], rest: memoryview) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    offset = 0
    for wire in found:
        if wire.name in tensors:
            _refuse(wire.name, "appears twice")
        if wire.datatype not in _PACKERS:
            _refuse(wire.name, f"datatype {wire.datatype!r} is not one of {', '.join(_PACKERS)}")
        if not wire.shape or len(wire.shape) > 2 or min(wire.shape) < 0:
            _refuse(wire.name, f"shape {wire.shape} is not [n] or [n, m]")
        size = wire.parameters.get("binary_data_size")
        if (size is None) == (wire.data is None):
            _refuse(wire.name, "needs either `data` or a `binary_data_size`")
        if wire.data is not None:
            values = _from_json(wire, wire.data)
        else:
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                _refuse(wire.name, f"binary_data_size {size!r} is not a number of bytes")
            if offset + size > len(rest):
                _refuse(wire.name, f"wants {size} bytes, {len(rest) - offset} are left")
            values = _from_bytes(wire, bytes(rest[offset : offset + size]))
            offset += size
        tensors[wire.name] = Tensor(wire.name, wire.datatype, tuple(wire.shape), values)
    if offset != len(rest):
        raise InvalidTensors(f"{len(rest) - offset} bytes belong to no tensor")
    return tensors


def _from_bytes(wire: _WireTensor, data: bytes) -> Sequence[Any]:
    count = math.prod(wire.shape)
    if wire.datatype == "BYTES":
        values = _unpack_texts(wire.name, data, count)
    else:
        width = 1 if wire.datatype == "BOOL" else 8
        if len(data) != count * width:
            _refuse(wire.name, f"shape {wire.shape} wants {count * width} bytes, not {len(data)}")
        if wire.datatype == "BOOL":
            if data.translate(None, b"\0\1"):
                _refuse(wire.name, "a BOOL is neither 0 nor 1")
            return [byte == 1 for byte in data]
        values = array("d" if wire.datatype == "FP64" else "q")
        values.frombytes(data)
        if _BIG_ENDIAN:
            values.byteswap()
    return values


def _unpack_texts(name: str, data: bytes, count: int) -> list[str | None]:
    texts: list[str | None] = []
    offset = 0
    while offset < len(data):
        start = offset + _LENGTH.size
        if start > len(data):
            _refuse(name, "its last length prefix is cut off")
        end = start + _LENGTH.unpack_from(data, offset)[0]
        if end > len(data):
            _refuse(name, "its last element is cut off")
        element = data[start:end]
        try:
            texts.append(None if element == _NULL_BYTES else element.decode())
        except UnicodeDecodeError as error:
            _refuse(name, f"element {len(texts)} is not UTF-8", error)
        offset = end
    if len(texts) != count:
        _refuse(name, f"its shape wants {count} elements, not {len(texts)}")
    return texts


def _from_json(wire: _WireTensor, data: list[Any]) -> Sequence[Any]:
    values = data
    if (
        len(wire.shape) == 2 and data and isinstance(data[0], list)
    ):  # nested, as the protocol allows
        rows: list[Any] = data
        if len(rows) != wire.shape[0] or any(
            not isinstance(row, list) or len(row) != wire.shape[1] for row in rows
        ):
            _refuse(wire.name, f"its nested data are not of shape {wire.shape}")
        values = [value for row in rows for value in row]
    if len(values) != math.prod(wire.shape):
        _refuse(wire.name, f"shape {wire.shape} has not {len(values)} values")
    if wire.datatype == "INT64" and any(isinstance(value, bool) for value in values):
        _refuse(wire.name, "values do not fit INT64: a truth value")
    # Packing and unpacking is the one check of each datatype's values.
    return _from_bytes(wire, _pack(Tensor(wire.name, wire.datatype, tuple(wire.shape), values)))


def _refuse(name: str, what: str, cause: BaseException | None = None) -> NoReturn:
    raise InvalidTensors(f"tensor {name[:120]!r}: {what}", tensor=name[:200]) from cause
