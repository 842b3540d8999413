"""The call log: every answered call, found by its id alone.

``<calls>/<deployment_id>/`` holds, for each process that has answered (a *writer*), segments
``<uuid7 of its first call>-<writer>.jsonl`` and one ``<writer>.count``. A line is one call::

    {"call_id": ..., "sequence": n, "digest": ..., "chain": ..., "record": {...}}

``digest`` is the SHA-256 of the record's bytes and ``chain`` that of the chain before, the call id,
the sequence and the digest: whoever must forget a call sets ``record`` to ``null``, and the chain
still holds. The call id is a UUIDv7 (RFC 9562) and the deployment's id, and a segment holds an hour
at most, so the id tells which few segments can have it.

A record is written by one write(2) before the answer's last byte, so killing the process loses no
answered call; :meth:`CallLog.sync`, called every 200 ms, bounds what a power cut can take. Where
the write fails the answer is sent all the same, and the drop is counted in the ``.count`` file,
which was given its blocks at the start and is rewritten in place: the count survives the process
and needs no space on the disk. Answered calls = records + drops + expired, for each writer: what is
older than the project keeps leaves a tombstone, see :mod:`nbmlops.calllog.expiring`.
"""

from nbmlops.calllog.expiring import Dropped, drop_expired, expired
from nbmlops.calllog.ids import deployment_of, is_call_id, new_call_id, uuid7
from nbmlops.calllog.reading import candidates, find, find_many, window
from nbmlops.calllog.redaction import KEY_FILE, ensure_key
from nbmlops.calllog.segments import segments_of
from nbmlops.calllog.verifying import Verification, verify
from nbmlops.calllog.writing import SYNC_INTERVAL_S, Batch, CallLog, Entry

__all__ = [
    "KEY_FILE",
    "SYNC_INTERVAL_S",
    "Batch",
    "CallLog",
    "Dropped",
    "Entry",
    "Verification",
    "candidates",
    "deployment_of",
    "drop_expired",
    "ensure_key",
    "expired",
    "find",
    "find_many",
    "is_call_id",
    "new_call_id",
    "segments_of",
    "uuid7",
    "verify",
    "window",
]
