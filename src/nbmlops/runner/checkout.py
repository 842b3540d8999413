"""The folder that a step runs in: the commit's files, the data, the outputs of earlier steps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from nbmlops import layout


def lay(content: Path, work: Path, path: PurePosixPath | str) -> None:
    """Copy a file into the checkout, over what the commit has there.

    A link to a folder within the checkout is followed. One that leads out of it, such as ``data``
    to a disk of data, gives way to a folder: nothing outside is ever written or removed.

    Raises
    ------
    ValueError
        When the path itself leads out of the checkout.
    """
    inside = work.resolve()
    *above, name = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in (*above, name):
        raise ValueError(f"{path} leads out of the snapshot")
    place = inside
    for part in above:
        place /= part
        within = place.resolve().is_relative_to(inside)
        if not (place.is_dir() and within) and os.path.lexists(place):
            place.unlink()
        place.mkdir(exist_ok=True)
    target = place / name
    if target.is_symlink() or target.is_file():
        target.unlink()
    shutil.copyfile(content, target)


def content_of(inbox: Path, digest: str) -> Path:
    """Return the file of the inbox that holds the bytes of that digest."""
    return inbox / "files" / layout.checked_digest(digest)
