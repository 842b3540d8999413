"""What all records share: immutable, JSON round trip, aware UTC times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: immutable, keyword-only."""


RecordT = TypeVar("RecordT", bound=msgspec.Struct)


def dump(record: Any) -> bytes:
    """Encode a record as one JSON document; non-finite numbers become ``null``."""
    return msgspec.json.encode(record)


def load(data: bytes | str, kind: type[RecordT]) -> RecordT:
    """Decode a JSON document into a record of ``kind``.

    Raises
    ------
    msgspec.ValidationError
        When a required key is missing or has the wrong type.
    """
    return msgspec.json.decode(data, type=kind)


def plain(record: Any) -> Any:
    """Return the record as dictionaries, lists, strings and numbers."""
    return msgspec.to_builtins(record)


def replace(record: RecordT, **changes: Any) -> RecordT:
    """Return a copy of the record with some fields changed."""
    return msgspec.structs.replace(record, **changes)


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)
