"""Data that git does not hold: digested, kept as artifacts, placed at the same path in every job.

``[data]`` of ``nbmlops.toml`` names files and folders of the project, or fsspec URLs with the path
at which a job finds them. What a run read can be read again, whatever has become of the original.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nbmlops import digests, layout
from nbmlops.errors import DataMissing, StorageFailed
from nbmlops.project import DataSettings
from nbmlops.records import DataRecord, InboxFile
from nbmlops.workspace import Workspace

_KNOWN = "data.json"
_LISTING = "files at "
# A file that was changed a moment ago may change again within the clock's grain.
_SETTLED_S = 2.0


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """The project's data as they are now: what is recorded, and what a job is given."""

    data: tuple[DataRecord, ...] = ()
    files: tuple[InboxFile, ...] = ()


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """A file of ``[data]`` that can be read now.

    ``path`` is where a job finds it. What came from a URL has no ``file``, it is an artifact;
    ``mark`` is how a file looked when its ``digest`` was taken.
    """

    path: str
    digest: str
    file: Path | None = None
    mark: tuple[int, ...] = ()


def gather(workspace: Workspace) -> Gathered:
    """Digest all of ``[data]`` and keep it; a file that has not changed is not read again.

    Raises
    ------
    DataMissing
        When there is nothing at a path or a URL.
    StorageFailed
        When a URL cannot be read.
    """
    declared = workspace.settings.data_settings()
    if not declared:
        return Gathered()
    known = _Known(workspace.home.root / _KNOWN)
    data: list[DataRecord] = []
    files: list[InboxFile] = []
    for name, settings in declared.items():
        if settings.url is None:
            found = list(_local(workspace, name, settings, known))
        else:
            found = list(_remote(workspace, name, settings.path, settings.url, known))
        files += [InboxFile(path=path, digest=digest) for path, digest in found]
        if len(found) == 1 and found[0][0] == settings.path:
            digest = found[0][1]
        else:
            within = len(settings.path) + 1
            digest = digests.of_tree((path[within:], content) for path, content in found)
        data.append(DataRecord(name=settings.path, digest=digest))
    known.write()
    return Gathered(data=tuple(data), files=tuple(files))


def present(workspace: Workspace, name: str, *, fetch: bool = False) -> tuple[Present, ...]:
    """Return those files of an entry of ``[data]`` that are here, without keeping any.

    A file that has not changed is not read again for its digest. Of a URL it is what was fetched
    last and is still kept, which asks no network; with ``fetch`` it is what stands there now.

    Raises
    ------
    DataMissing
        With ``fetch``, when there is nothing at the URL.
    StorageFailed
        With ``fetch``, when the URL cannot be read.
    OSError
        When a file cannot be read.
    """
    settings = workspace.settings.data_settings()[name]
    known = _Known(workspace.home.root / _KNOWN)
    if settings.url is None:
        found = tuple(_here(workspace.root / settings.path, settings.path, known))
    elif fetch:
        fetched = _remote(workspace, name, settings.path, settings.url, known)
        found = tuple(Present(path=path, digest=digest) for path, digest in fetched)
    else:
        found = tuple(_fetched_before(workspace, settings.path, settings.url, known))
    known.write()
    return found


def _here(place: Path, path: str, known: _Known) -> Iterator[Present]:
    if not (place.is_file() or place.is_dir()):
        return
    below = digests.files_below(place, follow=True) if place.is_dir() else [("", place)]
    for within, file in below:
        mark, began_s = marked(file), time.time()
        digest = known.get(str(file), [*mark])
        if digest is None:
            digest = digests.of_file(file)
            if began_s - mark[1] / 1e9 > _SETTLED_S:
                known.put(str(file), [*mark], digest)
        yield Present(
            path=f"{path}/{within}" if within else path, digest=digest, file=file, mark=mark
        )


def _fetched_before(workspace: Workspace, path: str, url: str, known: _Known) -> Iterator[Present]:
    for within, source in known.mark(f"{_LISTING}{url}") or ():
        digest = known.digest(source)
        if digest is not None and workspace.artifacts.has(digest):
            yield Present(path=f"{path}{within}", digest=digest)


def marked(file: Path) -> tuple[int, ...]:
    """Return what changes with a file's bytes and is told without reading them."""
    about = file.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _local(
    workspace: Workspace, name: str, settings: DataSettings, known: _Known
) -> Iterator[tuple[str, str]]:
    place = workspace.root / settings.path
    if not place.exists():
        raise DataMissing(
            f"there is nothing at {settings.path}, which [data] names `{name}`",
            f"Put the data there, or correct the line in {layout.SETTINGS_FILE}.",
            data=name,
        )
    if not (place.is_file() or place.is_dir()):  # a pipe would be waited for without an end
        raise DataMissing(
            f"{settings.path}, which [data] names `{name}`, is neither a file nor a folder",
            f"Write what it gives into a file, and name that in {layout.SETTINGS_FILE}.",
            data=name,
        )
    below = digests.files_below(place, follow=True) if place.is_dir() else [("", place)]
    for within, file in below:
        path = f"{settings.path}/{within}" if within else settings.path
        yield path, _kept(workspace, file, known)


def _kept(workspace: Workspace, file: Path, known: _Known) -> str:
    """Return the digest of a file whose bytes are kept now."""
    about = file.stat()
    mark = [*marked(file)]
    digest = known.get(str(file), mark)
    if digest is None or not workspace.artifacts.has(digest):
        workspace.say(f"keeping {file.name} ({about.st_size:,} bytes)")
        digest = workspace.artifacts.put_file(file)
        if time.time() - about.st_mtime > _SETTLED_S:
            known.put(str(file), mark, digest)
    return digest


def _remote(
    workspace: Workspace, name: str, path: str, url: str, known: _Known
) -> Iterator[tuple[str, str]]:
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
        if not system.exists(root):
            raise DataMissing(
                f"there is nothing at {url}, which [data] names `{name}`",
                f"Correct the line in {layout.SETTINGS_FILE}.",
                data=name,
            )
        whole = system.isfile(root)
        sources = [root] if whole else sorted(system.find(root))
        listing: list[list[str]] = []
        for source in sources:
            within = "" if whole else f"/{source.removeprefix(root).lstrip('/')}"
            listing.append([within, f"{system.protocol}:{source}"])
            yield f"{path}{within}", _fetched(workspace, system, source, known)
        if known.get(f"{_LISTING}{url}", listing) is None:
            known.put(f"{_LISTING}{url}", listing, "")
    except (ImportError, ValueError) as error:
        raise StorageFailed(
            f"{url} cannot be read: {error}",
            "Install what reads it, such as `pip install s3fs`, or correct the URL.",
        ) from error
    except OSError as error:
        raise StorageFailed(
            f"{url} cannot be read: {error}", "Check the network and the credentials."
        ) from error


def _fetched(workspace: Workspace, system: Any, source: str, known: _Known) -> str:
    """Return the digest of a remote file whose bytes are kept now."""
    mark = [str(system.ukey(source))]
    digest = known.get(f"{system.protocol}:{source}", mark)
    if digest is None or not workspace.artifacts.has(digest):
        workspace.say(f"fetching {source}")
        temporary = workspace.home.scratch / layout.new_id("data")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            system.get_file(source, str(temporary))
            digest = workspace.artifacts.put_file(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        known.put(f"{system.protocol}:{source}", mark, digest)
    return digest


class _Known:
    """Digests that were taken before, with what a file looked like then; a mere cache."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            self._known = msgspec.json.decode(
                path.read_bytes(), type=dict[str, tuple[list[Any], str]]
            )
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            self._known = {}

    def get(self, name: str, mark: list[Any]) -> str | None:
        """Return the digest of a file that still looks as it did."""
        found = self._known.get(name)
        return found[1] if found and found[0] == mark else None

    def mark(self, name: str) -> list[Any] | None:
        """Return what was last seen under a name, whatever it is now."""
        found = self._known.get(name)
        return None if found is None else found[0]

    def digest(self, name: str) -> str | None:
        """Return the digest that was last taken, whatever has become of the file."""
        found = self._known.get(name)
        return None if found is None else found[1]

    def put(self, name: str, mark: list[Any], digest: str) -> None:
        """Remember a digest."""
        self._known[name] = (mark, digest)
        self._changed = True

    def write(self) -> None:
        """Keep what was learned."""
        if self._changed:
            layout.write_file(self._path, msgspec.json.encode(self._known))
