"""What is kept out of the call log: columns that are never logged, and columns kept as hashes.

A hash is the HMAC-SHA256 (RFC 2104) of the value's text under a key of the workspace, cut to 128
bits: equal values of a column can be joined, and nobody without the key can try values out. The
column's name is hashed as well, so that equal values of two columns do not look alike. A null stays
null: that a value is missing is what monitoring counts.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import layout
from nbmlops.records import Route

KEY_FILE = "redaction.key"
_KEY_BYTES = 32
_HEX = 32


def redacted(
    records: Sequence[Mapping[str, Any]],
    never: Collection[str],
    hashed: Collection[str],
    key: bytes | None,
) -> list[dict[str, Any]]:
    """Return records without the columns ``never``, and with hashes in the columns ``hashed``.

    Without a ``key`` the columns ``hashed`` are left out too: what was to be hidden is never
    written as it is.

    >>> redacted([{"age": 41, "name": "Ada"}], ["name"], [], None)
    [{'age': 41}]
    """
    left_out = {*never} if key is not None else {*never, *hashed}
    return [
        {
            name: digest(name, value, key) if key is not None and name in hashed else value
            for name, value in record.items()
            if name not in left_out
        }
        for record in records
    ]


def named(
    records: Sequence[Mapping[str, Any]], never: Collection[str], hashed: Collection[str]
) -> tuple[str, ...]:
    """Return the columns of some records that :func:`redacted` changes, sorted."""
    concerned = {*never, *hashed}
    return tuple(sorted(concerned.intersection(*records[:1]))) if records else ()


def digest(column: str, value: Any, key: bytes) -> str | None:
    """Return what stands for a value in the log."""
    if value is None:
        return None
    message = f"{column}\0{spelled(value)}".encode("utf-8", "surrogatepass")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:_HEX]


def spelled(value: Any) -> str:
    """Return a value's text, the same for ``5``, ``5.0`` and ``"5"``, as files tell no types."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class Redaction:
    """What a log does to records before it writes them; the key is read when it is needed."""

    def __init__(self, calls: Path) -> None:
        self._calls = calls
        self._key: bytes | None = None

    def apply(
        self, route: Route, records: Sequence[dict[str, Any]]
    ) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...] | msgspec.UnsetType]:
        """Return the records as they are logged, and which columns were changed."""
        if not (route.never or route.hashed):
            return tuple(records), msgspec.UNSET
        if route.hashed and self._key is None:
            self._key = read_key(self._calls)
        kept = redacted(records, route.never, route.hashed, self._key)
        return tuple(kept), named(records, route.never, route.hashed) or msgspec.UNSET


def read_key(calls: Path) -> bytes | None:
    """Return the key of a folder of calls, or ``None`` where there is none that is whole."""
    try:
        found = bytes.fromhex((calls / KEY_FILE).read_text().strip())
    except (OSError, ValueError):
        return None
    return found if len(found) == _KEY_BYTES else None


def ensure_key(calls: Path) -> bytes:
    """Return the key of a folder of calls; drawn once, for this user's eyes only."""
    found = read_key(calls)
    if found is None:
        calls.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = secrets.token_bytes(_KEY_BYTES)
        temporary = calls / f".{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        layout.write_file(temporary, fresh.hex().encode(), mode=0o600)
        try:
            os.link(temporary, calls / KEY_FILE)  # whoever is first has drawn it
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
        found = read_key(calls)
        if found is None:
            raise FileNotFoundError(f"{calls / KEY_FILE} is not a key")
    return found
