"""Folders as tar archives: the same files are the same bytes, and nothing leads outside."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from nbmlops import digests
from nbmlops.errors import WrongUse


def pack(source: Path) -> bytes:
    """Return a file, or all files below a folder, as an archive; times and owners are left out.

    Raises
    ------
    WrongUse
        When nothing is there.
    """
    if source.is_file():
        files = [(source.name, source)]
    elif source.is_dir():
        files = sorted(digests.files_below(source))
    else:
        files = []
    if not files:
        raise WrongUse(f"there are no files at {source}", "Write the model before you log it.")
    buffer = io.BytesIO()
    write(buffer, files)
    return buffer.getvalue()


def write(target: io.BufferedIOBase, files: Iterable[tuple[str, Path]]) -> None:
    """Write files under their names into an archive, piece by piece."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files:
            about = tarfile.TarInfo(name)
            about.size = path.stat().st_size
            about.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as content:
                archive.addfile(about, content)


def unpack(archive: Path, work: Path, *, with_links: bool = True) -> None:
    """Lay out the files of an archive; links come last, so that nothing is written through one.

    Where ``with_links`` is false there may be none: what is read through one may be anywhere.

    Raises
    ------
    ValueError
        When a name leads out of the folder, or something is neither a file nor a link.
    """
    work.mkdir(parents=True)
    inside = work.resolve()
    links: list[tuple[Path, str]] = []
    with tarfile.open(archive) as source:
        for member in source:
            path = inside / member.name
            if not path.parent.resolve().is_relative_to(inside) or ".." in path.parts:
                raise ValueError(f"{member.name} leads out of the archive")
            path.parent.mkdir(parents=True, exist_ok=True)
            is_file = member.isreg() and not member.issparse()  # which may unfold without an end
            content = source.extractfile(member) if is_file else None
            if content is not None:
                with path.open("xb") as target:
                    shutil.copyfileobj(content, target)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
            elif with_links and member.issym():
                links.append((path, member.linkname))
            else:
                raise ValueError(
                    f"{member.name} is no plain file{' or link' if with_links else ''}"
                )
    for path, target in links:
        path.symlink_to(target)
