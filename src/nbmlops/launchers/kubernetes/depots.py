"""What lies between this machine and pods in an object store: inboxes and outboxes as objects.

Under the exchange's URL each job has a folder: ``inbox.tar.gz``, and of each attempt
``outbox.tar.gz`` with its digest, or, of a job that stays up, ``files/`` as it writes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from nbmlops import layout, parcels
from nbmlops.errors import LauncherUnavailable, MissingExtra, NbmlopsError
from nbmlops.launchers.kubernetes import copies
from nbmlops.parcels import ParcelRefused

_COPY_BYTES = 2**20
_AT_ONCE = 8  # parcels on their way


def send_inbox(folder: Path, place: str, parts: int = 0) -> None:
    """Put an inbox into the store; and of a batch, what only each of its ``parts`` gets.

    Raises
    ------
    LauncherUnavailable
        When the store does not take it.
    """
    archive = parcels.pack(folder, without=layout.EACH_FOLDER if parts else None)
    with _told(place), _fsspec().open(f"{place}/{parcels.INBOX_FILE}", "wb") as target:
        target.write(archive)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for sent in [pool.submit(_send_part, folder, place, index) for index in range(parts)]:
                sent.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _send_part(folder: Path, place: str, index: int) -> None:
    with tempfile.TemporaryDirectory() as aside:
        packed = Path(aside) / "part"
        parcels.pack_part(folder, packed, index)
        where = f"{place}/{parcels.part_file(index)}"
        with _told(place), packed.open("rb") as source, _fsspec().open(where, "wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)


def get_outbox(place: str, attempt: str, digest: str | None, folder: Path) -> None:
    """Get an outbox from the store, and lay it; without a ``digest`` the store's own must fit.

    Raises
    ------
    ParcelRefused
        When it is not what was sent.
    LauncherUnavailable
        When the store does not give it.
    """
    where = f"{place}/{attempt}"
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.download")
    try:
        with _told(place):
            wanted = digest or _text(f"{where}/{parcels.DIGEST_FILE}")
            found = _download(f"{where}/{parcels.OUTBOX_FILE}", beside)
        if found != wanted:
            raise ParcelRefused(
                f"the outbox in {place} is not what the job has sent", "Run it again."
            )
        with beside.open("rb") as archive:
            parcels.lay(archive, folder)
    finally:
        beside.unlink(missing_ok=True)


def get_files(place: str, attempt: str, folder: Path, came: dict[str, str]) -> None:
    """Get what a job that stays up has written so far; see :func:`.copies.bring`.

    Raises
    ------
    ParcelRefused
        When a name leads out of the folder.
    LauncherUnavailable
        When the store does not give them.
    """
    with _told(place):
        store, root = _fsspec().core.url_to_fs(f"{place}/{attempt}/files")

    def listed() -> copies.Listing:
        with _told(place):
            store.invalidate_cache()
            found = store.find(root, detail=True) if store.exists(root) else {}
        return {
            PurePosixPath(path).relative_to(PurePosixPath(root)).as_posix(): (
                int(about["size"]),
                _state(about),
            )
            for path, about in found.items()
        }

    def get(name: str, target: Path) -> None:
        with _told(place), store.open(f"{root}/{name}", "rb") as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _COPY_BYTES)
            file.flush()
            os.fsync(file.fileno())

    copies.bring(listed, get, folder, came)


def _state(about: Mapping[str, Any]) -> str:
    """Return what tells whether an object has changed: files of one size may differ."""
    told = (about.get(key) for key in ("ETag", "etag", "LastModified", "updated", "mtime"))
    return str(next((one for one in told if one is not None), ""))


def remove(place: str) -> None:
    """Remove what a job has left in the store, whose outbox has been laid; as far as it can be."""
    with contextlib.suppress(NbmlopsError), _told(place):
        store, root = _fsspec().core.url_to_fs(place)
        store.invalidate_cache()
        store.rm(root, recursive=True)


def _download(url: str, path: Path) -> str:
    """Get an object, and return the digest of what came."""
    found = hashlib.sha256()
    with _fsspec().open(url, "rb") as source, path.open("wb") as target:
        while chunk := source.read(_COPY_BYTES):
            found.update(chunk)
            target.write(chunk)
    return found.hexdigest()


def _text(url: str) -> str:
    with _fsspec().open(url, "rb") as source:
        return source.read(64).decode(errors="replace")


@contextlib.contextmanager
def _told(place: str) -> Generator[None, None, None]:
    """Say what a store's library raises, which is what it likes, in our words."""
    try:
        yield
    except NbmlopsError:
        raise
    except Exception as error:
        raise LauncherUnavailable(
            f"the store at {place} did not do it: {type(error).__name__}: {str(error)[:300]}",
            "See that [kubernetes] exchange is right, and that you are signed in to the store.",
        ) from error


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError:
        raise MissingExtra(
            "an exchange by an object store needs fsspec",
            "Install it: `pip install 'nbmlops[s3]'`.",
        ) from None
    return fsspec
