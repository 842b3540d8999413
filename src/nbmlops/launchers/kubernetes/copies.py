"""Copies of what a job that stays up writes, brought while it goes on writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from nbmlops import layout, parcels
from nbmlops.parcels import ParcelRefused

# The names of files, each with its size and what tells whether it has changed.
Listing = Mapping[str, tuple[int, str]]


def bring(
    listed: Callable[[], Listing],
    get: Callable[[str, Path], object],
    folder: Path,
    came: dict[str, str],
) -> None:
    """Bring the files that are new or have changed below a folder, each by ``get(name, target)``.

    ``came`` are the files that have come before, each with its size and state, and is brought up
    to date: one that was removed here since then, or changed, is not brought again. Small files
    come first, see :data:`.parcels.SMALL_BYTES`, and the large ones are listed after them.

    Raises
    ------
    ParcelRefused
        When a name leads out of the folder, or there is too much.
    """
    for small in (True, False):
        left = parcels.LAID_LIMIT_BYTES
        for told, (size, state) in sorted(listed().items()):
            name = PurePosixPath(told)
            left -= size
            if name.is_absolute() or ".." in name.parts or not name.parts or left < 0:
                raise ParcelRefused(
                    f"{told[:200]} is not a file that may be taken", "Remove it where it lies."
                )
            seen = f"{size} {state}"
            if (size <= parcels.SMALL_BYTES) != small or came.get(str(name)) == seen:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.{layout.new_id('copy')}")
            try:
                get(told, beside)
                came[str(name)] = seen
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
