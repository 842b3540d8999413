"""The wire between front and worker: Open Inference Protocol V2, REST with binary tensors.

A body is a JSON header, as long as the HTTP header ``Inference-Header-Content-Length`` says,
followed by the raw little-endian bytes of each tensor in order (the binary tensor data extension
of KServe's and Triton's protocol). Without that HTTP header the whole body is JSON and each
tensor has its ``data`` there. What is decoded is checked: names, datatypes, shapes, sizes.

Null has no place in the protocol, so it travels as NaN in ``FP64``, and in ``BYTES`` as the one
byte ``0xFF``, which is never valid UTF-8 and so can never be somebody's text.

Front and worker send each other ``FP64``, ``INT64``, ``BOOL`` and ``BYTES``; clients may send every
datatype of the protocol.
"""

from __future__ import annotations

import math
import re
import socket
import struct
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import msgspec

from nbmlops.errors import NbmlopsError

HEADER_LENGTH = "Inference-Header-Content-Length"
PRIVATE = "Nbmlops-Private"  # is said where values of the request must not be written anywhere

# The numeric datatypes and the codes of :class:`array.array` that hold them; those of 16 bits that
# are no integers have none, and become doubles.
NUMERIC = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP16": "d", "BF16": "d", "FP32": "f", "FP64": "d",
}  # fmt: skip
INTEGERS = frozenset(name for name in NUMERIC if "INT" in name)
DATATYPES = (*NUMERIC, "BOOL", "BYTES")
_WIDTHS = {"FP16": 2, "BF16": 2, "BOOL": 1}

_NULL_BYTES = b"\xff"
_LENGTH = struct.Struct("<I")
_BIG_ENDIAN = sys.byteorder == "big"


class InvalidTensors(NbmlopsError):
    """A V2 body says something that has no meaning, or its sizes do not agree."""

    code: ClassVar[str] = "invalid-tensors"


class InvalidAddress(NbmlopsError):
    """An address is neither ``unix:/path`` nor ``tcp:HOST:PORT``."""

    code: ClassVar[str] = "invalid-address"


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """A named tensor: ``values`` are flat, in row-major order, ``len(values) == prod(shape)``.

    Decoded numbers are an :class:`array.array`, which numpy takes without a copy; ``BYTES`` are
    ``str`` or, for null, ``None``.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


class Request(msgspec.Struct, frozen=True, gc=False):
    """A decoded request: its inputs by name, and which outputs it wants, in which form.

    ``wanted`` maps the names of the outputs that are asked for to whether they are to be binary;
    ``None`` asks for all, in the form that ``binary`` says.
    """

    inputs: dict[str, Tensor]
    binary: bool = False
    wanted: dict[str, bool] | None = None
    id: str | None = None


class Response(msgspec.Struct, frozen=True, gc=False):
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


def free_port() -> int:
    """Return a TCP port of this machine's loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def encode_request(inputs: Sequence[Tensor], *, binary: bool = True) -> tuple[bytes, int | None]:
    """Return the body of an ``infer`` request and the length of its JSON header, in bytes.

    The answer is asked for in binary (``binary_data_output``). Without ``binary`` all is JSON, for
    whoever does not take the extension, and the length is ``None``.
    """
    document: dict[str, Any] = {"parameters": {"binary_data_output": True}} if binary else {}
    return _encode(document, "inputs", inputs, (binary,) * len(inputs))


def encode_response(
    model: str,
    version: int,
    outputs: Sequence[Tensor],
    request: Request | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[bytes, int | None]:
    """Return the body of an ``infer`` answer, and the length of its JSON header, in bytes.

    It has the outputs that ``request`` asks for, in the form that it asks for; without one all, in
    binary. The length is ``None`` where the whole body is JSON.

    Raises
    ------
    InvalidTensors
        When an output is asked for that there is not.
    """
    asked = request or Request({}, binary=True)
    names = {tensor.name: tensor for tensor in outputs}
    wanted = asked.wanted or dict.fromkeys(names, asked.binary)
    for name in wanted:
        if name not in names:
            _refuse(name, f"is no output of the model; it has {', '.join(names)}")
    document: dict[str, Any] = {"model_name": model, "model_version": str(version)}
    if asked.id is not None:
        document["id"] = asked.id
    if parameters:
        document["parameters"] = parameters
    return _encode(document, "outputs", [names[name] for name in wanted], tuple(wanted.values()))


def _encode(
    document: dict[str, Any], key: str, tensors: Sequence[Tensor], binary: Sequence[bool]
) -> tuple[bytes, int | None]:
    blobs: list[bytes] = []
    told: list[dict[str, Any]] = []
    for tensor, as_bytes in zip(tensors, binary, strict=True):
        about = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if as_bytes:
            blob = _pack(tensor)
            blobs.append(blob)
            told.append({**about, "parameters": {"binary_data_size": len(blob)}})
        else:
            told.append({**about, "data": list(tensor.values)})
    document[key] = told
    header = msgspec.json.encode(document)
    if not any(binary):
        return header, None
    return b"".join((header, *blobs)), len(header)


def _pack(tensor: Tensor) -> bytes:
    if len(tensor.values) != math.prod(tensor.shape):
        _refuse(tensor.name, f"shape {list(tensor.shape)} has not {len(tensor.values)} values")
    packer = _PACKERS.get(tensor.datatype)
    if packer is None:
        _refuse(tensor.name, f"datatype {tensor.datatype!r} is not one of {', '.join(DATATYPES)}")
    try:
        return packer(tensor.values)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        _refuse(tensor.name, f"values do not fit {tensor.datatype}: {error}", error)


def _pack_numbers(code: str, values: Sequence[Any]) -> bytes:
    if isinstance(values, array) and values.typecode == code:
        return _little_endian(values)
    if code in "fd":
        try:
            return _little_endian(array(code, values))
        except TypeError:  # nulls are rare: only then a second pass
            values = [math.nan if value is None else value for value in values]
    return _little_endian(array(code, values))


def _pack_halves(values: Sequence[Any]) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def _pack_brains(values: Sequence[Any]) -> bytes:
    """Return BF16, the upper half of FP32: what is below is cut off."""
    data = struct.pack(f"<{len(values)}f", *values)
    return b"".join(data[at : at + 2] for at in range(2, len(data), 4))


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
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _checked_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} is not a truth value")
    return value


_PACKERS: dict[str, Callable[[Sequence[Any]], bytes]] = {
    **{name: partial(_pack_numbers, code) for name, code in NUMERIC.items()},
    "FP16": _pack_halves,
    "BF16": _pack_brains,
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


class _WireOutput(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _WireRequest(msgspec.Struct):
    inputs: list[_WireTensor]
    parameters: dict[str, Any] = {}
    outputs: list[_WireOutput] | None = None
    id: str | None = None


class _WireResponse(msgspec.Struct):
    model_name: str
    outputs: list[_WireTensor]
    model_version: str | None = None


_SMALL_HEADER_BYTES = 64 * 1024
_LENGTH_LIMIT = 2**31
_PARTS_LIMIT = 100_000  # lists and objects of a request's JSON: each takes far more than its bytes
_PART_BYTES = 64 * 1024
# A bracket, or a text with all brackets in it.
_BRACKET_OR_TEXT = re.compile(rb'[\[{]|"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

_REQUEST = msgspec.json.Decoder(_WireRequest)
_RESPONSE = msgspec.json.Decoder(_WireResponse)


def decode_request(
    body: bytes,
    header_length: int | None,
    check_shape: Callable[[Sequence[int]], None] | None = None,
) -> Request:
    """Return an ``infer`` request.

    Parameters
    ----------
    header_length
        What ``Inference-Header-Content-Length`` says, ``None`` where it is missing.
    check_shape
        Is told of each tensor's shape before its values are unpacked, and may refuse it: a byte
        on the wire is up to fifty in memory.

    Raises
    ------
    InvalidTensors
        When the body is not what the protocol describes; the message names the tensor.
    """
    header, rest = _split(body, header_length)
    if header.nbytes > _SMALL_HEADER_BYTES and _has_more_parts(header, _PARTS_LIMIT):
        raise InvalidTensors(
            f"the JSON has more than {_PARTS_LIMIT} lists and objects",
            "Send `data` as one flat list, or as binary.",
        )
    document: _WireRequest = _parsed(_REQUEST, header)
    binary = document.parameters.get("binary_data_output") is True
    wanted: dict[str, bool] | None = None
    for output in document.outputs or ():
        wanted = wanted or {}
        if output.parameters.get("classification"):
            _refuse(
                output.name, "the classification extension is not served; ask for `probability`"
            )
        wanted[output.name] = output.parameters.get("binary_data", binary) is True
    return Request(_tensors(document.inputs, rest, check_shape), binary, wanted, document.id)


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


def _has_more_parts(header: memoryview, limit: int) -> bool:
    text = bytes(header)
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    count = 0
    for found in _BRACKET_OR_TEXT.finditer(text):
        count += found[0] in b"[{"
        if count > limit:
            return True
    return False


def _parsed(decoder: msgspec.json.Decoder[Any], header: memoryview) -> Any:
    try:
        return decoder.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTensors(f"the JSON header is not of the V2 protocol: {error}") from error


def _tensors(
    found: Sequence[_WireTensor],
    rest: memoryview,
    check_shape: Callable[[Sequence[int]], None] | None = None,
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    offset = 0
    for wire in found:
        if wire.name in tensors:
            _refuse(wire.name, "appears twice")
        _check_form(wire)
        if check_shape is not None:
            check_shape(wire.shape)
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


def _check_form(wire: _WireTensor) -> None:
    if wire.datatype not in _PACKERS:
        _refuse(wire.name, f"datatype {wire.datatype!r} is not one of {', '.join(DATATYPES)}")
    if any(length > _LENGTH_LIMIT for length in wire.shape):  # such numbers are not even spelled
        _refuse(wire.name, "its shape has a length above 2**31")
    if not wire.shape or len(wire.shape) > 2 or min(wire.shape) < 0:
        _refuse(wire.name, f"shape {wire.shape} is not [n] or [n, m]")


def _from_bytes(wire: _WireTensor, data: bytes) -> Sequence[Any]:
    count = math.prod(wire.shape)
    if wire.datatype == "BYTES":
        return _unpack_texts(wire.name, data, count)
    code = NUMERIC.get(wire.datatype, "b")
    width = _WIDTHS.get(wire.datatype) or array(code).itemsize
    if len(data) != count * width:
        _refuse(wire.name, f"shape {wire.shape} wants {count * width} bytes, not {len(data)}")
    if wire.datatype == "BOOL":
        if data.translate(None, b"\0\1"):
            _refuse(wire.name, "a BOOL is neither 0 nor 1")
        return [byte == 1 for byte in data]
    if wire.datatype in {"FP16", "BF16"}:
        return _unpack_halves(wire.datatype, data)
    values = array(code)
    values.frombytes(data)
    if _BIG_ENDIAN:
        values.byteswap()
    return values


def _unpack_halves(datatype: str, data: bytes) -> array[float]:
    """Return numbers of 16 bits as doubles, a part at a time, since tuples are large."""
    values = array("d")
    for start in range(0, len(data), _PART_BYTES):
        part = data[start : start + _PART_BYTES]
        count = len(part) // 2
        if datatype == "FP16":
            values.extend(struct.unpack(f"<{count}e", part))
        else:
            whole = bytearray(2 * len(part))
            whole[2::4], whole[3::4] = part[::2], part[1::2]
            values.extend(struct.unpack(f"<{count}f", whole))
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
    types = set(map(type, values))
    if wire.datatype == "FP64" and types == {float}:
        return array("d", values)
    if wire.datatype in NUMERIC and bool in types:
        _refuse(wire.name, f"values do not fit {wire.datatype}: a truth value")
    # Packing and unpacking is the one check of each datatype's values.
    return _from_bytes(wire, _pack(Tensor(wire.name, wire.datatype, tuple(wire.shape), values)))


def _refuse(name: str, what: str, cause: BaseException | None = None) -> NoReturn:
    raise InvalidTensors(f"tensor {name[:120]!r}: {what[:400]}", tensor=name[:200]) from cause
