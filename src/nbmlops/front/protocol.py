"""HTTP in and out: request bodies to records, errors to statuses, at one place each.

JSON is strict (RFC 8259): no NaN or Infinity, no number beyond a double, UTF-8 only. A value is a
scalar, so nesting ends where the decoder meets the first list or object in a record.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from nbmlops import records
from nbmlops.errors import InvalidRecords, NbmlopsError
from nbmlops.front.deadlines import Deadline
from nbmlops.tensors import HEADER_LENGTH, InvalidTensors

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY_GRACE_S = 5.0
BODY_RATE_BYTES_S = 64 * 1024  # what is slower after the grace is cut off
_DRAIN_LIMIT_BYTES = 256 * 1024 * 1024
_DRAIN_LIMIT_S = 5.0
_EXPLAINED_BYTES = 1024 * 1024
_FEWER = "Send them in several calls."
_HINT = 'Send {"records": [{"column": value}]}; see /docs.'


# --- errors -------------------------------------------------------------------------------------


class InvalidJson(NbmlopsError):
    """The body is not JSON."""

    code: ClassVar[str] = "invalid-json"


class BodyTooLarge(NbmlopsError):
    """The body has more bytes than the endpoint takes."""

    code: ClassVar[str] = "body-too-large"


class BodyTooSlow(NbmlopsError):
    """The body trickles."""

    code: ClassVar[str] = "body-too-slow"


class TooManyRecords(NbmlopsError):
    """The body has more records than the endpoint takes at once."""

    code: ClassVar[str] = "too-many-records"


class EncodingRefused(NbmlopsError):
    """The body is compressed."""

    code: ClassVar[str] = "encoding-refused"


class NothingServed(NbmlopsError):
    """Nothing is served at a path."""

    code: ClassVar[str] = "nothing-served"


class MethodRefused(NbmlopsError):
    """A path does not take a method."""

    code: ClassVar[str] = "method-refused"


class HostRefused(NbmlopsError):
    """The Host header names another host: a page that was rebound to this address, perhaps."""

    code: ClassVar[str] = "host-refused"


class OriginRefused(NbmlopsError):
    """A page of another origin asks a browser to send something."""

    code: ClassVar[str] = "origin-refused"


class TokenRefused(NbmlopsError):
    """A bearer token is missing or wrong."""

    code: ClassVar[str] = "token-refused"


class InvalidRoutes(NbmlopsError):
    """A route table has no meaning."""

    code: ClassVar[str] = "invalid-routes"


class StaleRoutes(NbmlopsError):
    """A route table is not newer than the present one."""

    code: ClassVar[str] = "stale-routes"


class Overloaded(NbmlopsError):
    """There are more calls than can be answered in time."""

    code: ClassVar[str] = "overloaded"


class NoDeployment(NbmlopsError):
    """No deployment stands behind the endpoint."""

    code: ClassVar[str] = "no-deployment"


class WorkerUnreachable(NbmlopsError):
    """The deployment's worker does not answer."""

    code: ClassVar[str] = "worker-unreachable"


class ModelFailed(NbmlopsError):
    """The model raised something, or answered what its schema does not say."""

    code: ClassVar[str] = "model-failed"


class DeadlineExceeded(NbmlopsError):
    """The model did not answer within the deadline."""

    code: ClassVar[str] = "deadline-exceeded"


STATUSES: dict[str, int] = {
    InvalidJson.code: 400,
    InvalidTensors.code: 400,
    TokenRefused.code: 401,
    OriginRefused.code: 403,
    NothingServed.code: 404,
    MethodRefused.code: 405,
    BodyTooSlow.code: 408,
    StaleRoutes.code: 409,
    BodyTooLarge.code: 413,
    TooManyRecords.code: 413,
    EncodingRefused.code: 415,
    HostRefused.code: 421,
    InvalidRecords.code: 422,
    InvalidRoutes.code: 422,
    Overloaded.code: 429,
    ModelFailed.code: 502,
    NoDeployment.code: 503,
    WorkerUnreachable.code: 503,
    DeadlineExceeded.code: 504,
}

_RETRY_LATER = {Overloaded.code, NoDeployment.code, WorkerUnreachable.code}


# --- answers ------------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole HTTP answer."""

    status: int
    body: bytes = b""
    media_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_answer(document: Any, status: int = 200) -> Answer:
    """Return a document as an answer."""
    return Answer(status, records.dump(document))


def error_answer(error: NbmlopsError, *, plain: bool = False) -> Answer:
    """Return an error as an answer; an error that no status is known for is our own fault.

    ``plain`` is the form of the V2 protocol, where ``error`` is a text.
    """
    headers: list[tuple[bytes, bytes]] = []
    if error.code in _RETRY_LATER:
        headers.append((b"retry-after", b"1"))
    if error.code == TokenRefused.code:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.code == MethodRefused.code:
        headers.append((b"allow", str(error.context.get("allow", "")).encode()))
    status = STATUSES.get(error.code, 500)
    document: Any = error.document()
    if plain:
        document = {"error": f"{error.message}. {error.hint}".strip(), "code": error.code}
    return Answer(status, records.dump(document), headers=tuple(headers))


_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_HEAD = b"content-type: %b\r\ncontent-length: %d\r\n" + b"".join(
    b"%b: %b\r\n" % pair for pair in _ALWAYS
)


def header_lines(answer: Answer) -> bytes:
    """Return the headers of an answer as they are written."""
    lines = [_HEAD % (answer.media_type, len(answer.body))]
    lines += [b"%b: %b\r\n" % pair for pair in answer.headers]
    return b"".join(lines)


async def send_answer(send: Send, answer: Answer, *, closing: bool) -> None:
    """Send an answer; ``closing`` asks the client to begin its next request elsewhere."""
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", b"%d" % len(answer.body)),
        *_ALWAYS,
        *answer.headers,
    ]
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


# --- requests -----------------------------------------------------------------------------------


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers by lower-case name; of a repeated one, all values joined by commas."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def check_source(method: str, headers: Mapping[str, str], hosts: frozenset[str]) -> None:
    """Refuse requests that a page of somebody else's makes a browser send.

    Raises
    ------
    HostRefused
        When the Host header is not one of ``hosts``, so that no other name can be rebound to us.
    OriginRefused
        When another origin wants to change something or to call.
    """
    host = headers.get("host", "").lower()
    if host not in hosts:
        raise HostRefused(f"the host {host[:120]!r} is not served here", f"Call {min(hosts)}.")
    origin = headers.get("origin")
    if method in {"GET", "HEAD"} or origin is None:
        return
    if origin.lower() not in {f"http://{name}" for name in hosts}:
        raise OriginRefused(
            f"pages of {origin[:120]!r} may not call this endpoint", "Call it from a program."
        )


def check_token(headers: Mapping[str, str], digest: str, what: str = "control") -> None:
    """Refuse whoever does not bear the token with this SHA-256, which is compared in constant time.

    Raises
    ------
    TokenRefused
        When the token is missing or wrong.
    """
    if not bears(headers.get("authorization", ""), digest):
        raise TokenRefused(
            f"the {what} token is missing or wrong",
            "Send it as `Authorization: Bearer TOKEN`; `nbmlops deploy --json` names its file.",
        )


def bears(authorization: str, digest: str) -> bool:
    """Whether an ``Authorization`` header bears the token with this SHA-256."""
    scheme, _, token = authorization.partition(" ")
    given = hashlib.sha256(token.strip().encode("latin-1")).hexdigest()
    return hmac.compare_digest(given, digest) and scheme.lower() == "bearer"


class Gone(Exception):
    """The client has closed its connection."""


async def read_body(
    receive: Receive,
    headers: Mapping[str, str],
    limit: int,
    take: Callable[[int], None],
    deadline: Deadline,
) -> bytes:
    """Return the request's body; ``take`` is told of each part's size, and may refuse it.

    Raises
    ------
    EncodingRefused
        When it is compressed: what it would grow to is not known.
    BodyTooLarge
        When it has more than ``limit`` bytes.
    BodyTooSlow
        When it needs longer than 5 s and a second for each 64 KiB, or nothing comes for 5 s.
    Gone
        When the client leaves.
    """
    refused: NbmlopsError | None = None
    encoding = headers.get("content-encoding", "identity").lower().strip()
    if encoding not in {"identity", ""}:
        refused = EncodingRefused(
            f"the content encoding {encoding[:40]!r} is not taken", "Send the JSON as it is."
        )
    elif headers.get("content-length", "0").isdigit() and (
        int(headers.get("content-length", "0")[:18]) > limit
    ):
        refused = _too_large(limit)
    if refused is not None:
        await _drain(receive)
        raise refused
    began_s = time.monotonic()
    deadline.within(BODY_GRACE_S, _too_slow)
    message = await receive()
    parts: list[bytes] = []
    size = 0
    while message["type"] != "http.disconnect":
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            deadline.lift()
            await _drain(receive)
            raise _too_large(limit)
        take(len(part))
        if not message.get("more_body"):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)
        # What has come allows for more time in all, and for no silence.
        left_s = began_s + BODY_GRACE_S + size / BODY_RATE_BYTES_S - time.monotonic()
        deadline.within(min(left_s, BODY_GRACE_S), _too_slow)
        message = await receive()
    raise Gone


def _too_slow() -> BodyTooSlow:
    return BodyTooSlow("the body comes too slowly", "Send the body at once.")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"a body has at most {limit} bytes", "Send the records in several calls.")


async def _drain(receive: Receive) -> None:
    """Read on for a while: who still sends would be cut off before the answer is read."""
    left = _DRAIN_LIMIT_BYTES
    try:
        async with asyncio.timeout(_DRAIN_LIMIT_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


# A brace, or a text with all braces in it.
_OBJECT_OR_TEXT = re.compile(rb'\{|"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_Scalar = bool | int | float | str | None
_LIST = msgspec.json.Decoder(list[dict[str, _Scalar]])
_OBJECT = msgspec.json.Decoder(dict[str, _Scalar | list[dict[str, _Scalar]]])


def decode_records(body: bytes, rows_limit: int) -> list[Any]:
    """Return the records of ``{"records": [...]}``, of a bare list, or of one bare record.

    Values that are no scalars are kept as an empty list or object, and numbers beyond a double as
    infinity, for the schema's check to name them.

    Raises
    ------
    InvalidJson
        When the body is not strict JSON.
    InvalidRecords
        When it is, and holds no records.
    TooManyRecords
        When there are more than ``rows_limit``.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
    if not text:
        raise InvalidJson("the body is empty", _HINT)
    # Objects are counted before they are made: three bytes of `{},` are 72 in memory.
    if text.count(b"{") > rows_limit + 1 and _has_more_objects(text, rows_limit + 1):
        raise TooManyRecords(f"there are more than {rows_limit} records", _FEWER)
    try:
        found: Any = _LIST.decode(text) if text[:1] == b"[" else _OBJECT.decode(text)
    except msgspec.ValidationError as error:
        found = _explained(text, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson(f"the body is not JSON: {error}"[:300], _HINT) from error
    if isinstance(found, dict):
        inside: Any = found.get("records")
        found = inside if isinstance(inside, list) and len(found) == 1 else [found]
    check_rows(len(found), rows_limit)
    return found


def _has_more_objects(text: bytes, limit: int) -> bool:
    count = 0
    for found in _OBJECT_OR_TEXT.finditer(text):
        count += found[0] == b"{"
        if count > limit:
            return True
    return False


def check_rows(rows: int, limit: int) -> None:
    """Refuse a call of more rows than are taken at once.

    Raises
    ------
    TooManyRecords
        When there are more than ``limit``.
    """
    if rows > limit:
        raise TooManyRecords(f"{rows} records are more than {limit}", _FEWER)


def check_shape(shape: Sequence[int], rows_limit: int, width: int) -> None:
    """Refuse a tensor that is larger than any that is taken, before its values are unpacked.

    Raises
    ------
    TooManyRecords
        When it has more than ``rows_limit`` rows.
    InvalidTensors
        When it has more than ``width`` columns.
    """
    check_rows(shape[0], rows_limit)
    if len(shape) > 1 and shape[1] > max(width, 1):
        raise InvalidTensors(
            f"shape {list(shape)} has more columns than the model, which has {width}",
            "Send each column as [n] or [n, 1], or all of them as one matrix.",
        )


def header_length(headers: Mapping[str, str]) -> int | None:
    """Return the length of a V2 body's JSON header, ``None`` where the whole body is JSON.

    Raises
    ------
    InvalidTensors
        When the HTTP header is no number.
    """
    given = headers.get(HEADER_LENGTH.lower())
    if given is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", given):
        raise InvalidTensors(f"{HEADER_LENGTH} is {given[:40]!r}, not a number of bytes")
    return int(given)


def _explained(text: bytes, error: msgspec.ValidationError) -> Any:
    """Decode what has values of wrong types, so that the schema's check can name the column."""
    if text[:1] not in {b"{", b"["} or len(text) > _EXPLAINED_BYTES:
        raise InvalidRecords(f"the records are not flat JSON objects: {error}", _HINT) from error
    try:
        outer: Any = msgspec.json.decode(text, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
        if isinstance(outer, list):
            return [_shallow(row) for row in outer]
        inside = outer.get("records")
        if len(outer) == 1 and inside is not None and bytes(inside)[:1] == b"[":
            rows = msgspec.json.decode(inside, type=list[msgspec.Raw])
            return {"records": [_shallow(row) for row in rows]}
        if len(outer) == 1 and inside is not None:
            raise InvalidRecords("`records` is not a list", _HINT) from error
        return {name: _scalar(value) for name, value in outer.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as other:
        raise InvalidJson(f"the body is not JSON: {other}"[:300], _HINT) from other


def _shallow(row: msgspec.Raw) -> Any:
    if bytes(row)[:1] != b"{":
        return _scalar(row)
    found = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    return {name: _scalar(value) for name, value in found.items()}


def _scalar(value: msgspec.Raw) -> Any:
    start = bytes(value)[:1]
    if start == b"[":
        return []
    if start == b"{":
        return {}
    try:
        return msgspec.json.decode(value)
    except msgspec.ValidationError:  # beyond a double
        return -math.inf if start == b"-" else math.inf


def client_id(headers: Mapping[str, str]) -> str | None:
    """Return the id that the client gave its call, if it is short and printable."""
    return kept_id(headers.get("nbmlops-client-id") or headers.get("x-request-id"))


# RFC 9110: a product is a token, and its version another one.
_PRODUCT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?")
_CLIENT_LIMIT = 60


def client(headers: Mapping[str, str]) -> str | None:
    """Return which program says that it calls: the first product of its ``User-Agent``.

    >>> client({"user-agent": "python-requests/2.32 (Linux)"})
    'python-requests/2.32'
    """
    given = headers.get("user-agent")
    found = _PRODUCT.match(given.lstrip()) if given else None
    return found[0][:_CLIENT_LIMIT] if found else None


def kept_id(given: str | None) -> str | None:
    """Return what a client calls its call, if it is short and printable."""
    if given is None or not 0 < len(given) <= 128:
        return None
    return given if given.isascii() and given.isprintable() else None
