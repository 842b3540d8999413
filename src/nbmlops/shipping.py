"""Sealed segments of the call log, kept as artifacts as well.

Beside a segment that was shipped lies ``<segment>.shipped``, which says under which digest: it
stays when the segment is lost, and brings it back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from nbmlops import calllog, layout, records
from nbmlops.workspace import Workspace

SUFFIX = ".shipped"
LIMIT_S = 2.0  # of one tick: what is left is shipped by the next


class Shipment(records.Record, frozen=True, kw_only=True):
    """Where a segment's bytes are."""

    digest: str
    bytes: int


def ship(workspace: Workspace, *, limit_s: float = LIMIT_S) -> int:
    """Copy sealed segments to the artifacts that are not there yet; return how many.

    At least one goes, however long it takes; after ``limit_s`` no further one is begun.
    """
    began_s = time.monotonic()
    shipped = 0
    for segment in _unshipped(workspace.home.calls):
        if shipped and time.monotonic() - began_s > limit_s:
            break
        size = segment.stat().st_size
        told = Shipment(digest=workspace.artifacts.put_file(segment), bytes=size)
        layout.write_file(_note(segment), records.dump(told), mode=0o600)
        shipped += 1
    return shipped


def _unshipped(calls: Path) -> Iterator[Path]:
    """Yield the sealed segments without a note, oldest first in each deployment."""
    for folder in sorted(calls.iterdir()) if calls.is_dir() else ():
        if not folder.is_dir():
            continue
        noted = {name for name in os.listdir(folder) if name.endswith(SUFFIX)}  # noqa: PTH208
        for segment in calllog.segments_of(folder):
            if segment.path.name + SUFFIX not in noted and segment.is_sealed:
                yield segment.path


def _note(segment: Path) -> Path:
    return segment.with_name(segment.name + SUFFIX)


def shipments(calls: Path) -> Iterator[tuple[Path, Shipment]]:
    """Yield each segment that was shipped, whether it is here or not, and where it is kept."""
    for note in sorted(calls.glob(f"*/*{SUFFIX}")):
        yield note.with_name(note.name.removesuffix(SUFFIX)), _read(note)


def _read(note: Path) -> Shipment:
    return records.load(note.read_bytes(), Shipment)


def restore(workspace: Workspace, call_id: str) -> bool:
    """Bring back the shipped segments that may have a call and are gone; return whether any was.

    Raises
    ------
    ArtifactMissing, ArtifactCorrupt
        When the artifacts do not have them either, or other bytes.
    """
    folder = workspace.home.calls / calllog.deployment_of(call_id)
    restored = False
    for segment in calllog.candidates(folder, call_id, suffix=SUFFIX):
        if segment.path.exists():
            continue
        try:
            kept = _read(_note(segment.path))
        except (FileNotFoundError, msgspec.MsgspecError):
            continue
        workspace.artifacts.copy_to(kept.digest, segment.path)
        segment.path.chmod(0o400)
        restored = True
    return restored
