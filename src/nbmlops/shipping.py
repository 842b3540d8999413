"""Sealed segments of the call log, kept as artifacts as well.

Beside a segment that was shipped lies ``<segment>.shipped``, which says under which digest: it
stays when the segment is lost, and brings it back.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from nbmlops import calllog, layout, records
from nbmlops.calllog.segments import Segment
from nbmlops.errors import ArtifactCorrupt, InvalidName
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


def of_note(note: Path) -> Path:
    """Return the segment that a note is about."""
    return note.with_name(note.name.removesuffix(SUFFIX))


def shipments(calls: Path) -> Iterator[tuple[Path, Shipment]]:
    """Yield each segment that was shipped, whether it is here or not, and where it is kept.

    A note that was damaged is passed over where its segment is here, which loses nothing.

    Raises
    ------
    ArtifactCorrupt
        When nothing but a damaged note tells where a segment is.
    """
    for note in sorted(calls.glob(f"*/*{SUFFIX}")):
        segment = of_note(note)
        try:
            yield segment, _read(note)
        except FileNotFoundError:
            continue  # its time was over
        except ArtifactCorrupt:
            if not segment.exists():
                raise


def damaged(calls: Path) -> Iterator[tuple[Path, ArtifactCorrupt]]:
    """Yield the notes that cannot be read, each with the reason."""
    for note in sorted(calls.glob(f"*/*{SUFFIX}")):
        try:
            _read(note)
        except ArtifactCorrupt as error:
            yield note, error
        except FileNotFoundError:
            continue  # its time was over


def _read(note: Path) -> Shipment:
    try:
        found = records.load(note.read_bytes(), Shipment)
        layout.checked_digest(found.digest)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidName) as error:
        here = of_note(note).exists()
        why = error.message if isinstance(error, InvalidName) else str(error)
        raise ArtifactCorrupt(
            f"{note.parent.name}/{note.name} was changed: {why}",
            "Have it made anew: `nbmlops doctor --repair`."
            if here
            else "Restore it from a backup: nothing else tells where these calls are kept.",
        ) from error
    return found


def gone(workspace: Workspace, deployment_id: str) -> list[Segment]:
    """Return the segments of a deployment that were shipped and are not here any more."""
    folder = workspace.home.calls / deployment_id
    here = {segment.path.name for segment in calllog.segments_of(folder)}
    shipped = calllog.segments_of(folder, SUFFIX)
    return [segment for segment in shipped if segment.path.name not in here]


def away(workspace: Workspace, deployment_id: str) -> list[Segment]:
    """Return the segments of a deployment that are gone here and can be brought back."""
    found: list[Segment] = []
    for segment in gone(workspace, deployment_id):
        with contextlib.suppress(ArtifactCorrupt, FileNotFoundError):
            if workspace.artifacts.has(_read(_note(segment.path)).digest):
                found.append(segment)
    return found


def restore(workspace: Workspace, deployment_id: str, wanted: Callable[[Segment], bool]) -> int:
    """Bring back the ``wanted`` segments of a deployment that are :func:`gone`; return how many.

    Raises
    ------
    ArtifactMissing, ArtifactCorrupt
        When the artifacts do not have them either, or other bytes.
    """
    restored = 0
    for segment in filter(wanted, gone(workspace, deployment_id)):
        try:
            kept = _read(_note(segment.path))
        except FileNotFoundError:
            continue  # its time was over
        workspace.artifacts.copy_to(kept.digest, segment.path)
        segment.path.chmod(0o400)
        restored += 1
    return restored
