"""Bytes behind a URL, through fsspec, with verified copies on this machine.

An object store shows an object when all of it has arrived; other places get the bytes under another
name first. What comes back is read into the cache, and taken only with the right digest.
"""

from __future__ import annotations

import contextlib
import errno
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from nbmlops import digests, layout
from nbmlops.artifacts.folder import Folder, Present, corrupt
from nbmlops.errors import (
    ArtifactCorrupt,
    InvalidSettings,
    MissingExtra,
    StorageFailed,
    storage_failed,
)

_CACHE_BYTES = 4 << 30
_FETCHES = 3
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_PART_BYTES = 16 << 20
_FRESH_S = 12 * 3600.0
# Where an object appears when the last byte of it has arrived.
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"}
_S3 = {"s3", "s3a"}
# This machine's disk, and requests that are wrong: waiting does not help.
_DISK = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}
_WRONG = {errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.EMSGSIZE}
_MAY_PASS = {408, 409, 425, 429}
_SECRET = re.compile("key|secret|token|password|credential|sas|connection_string", re.IGNORECASE)
_CREDENTIALS_HINT = (
    "Renew the credentials (for S3: AWS_PROFILE or AWS_ACCESS_KEY_ID and its kin), see that they"
    " may read and write there; then try again."
)
_HINT = "See that the place is up and [artifacts] url and options name it; then try again."

T = TypeVar("T")


class Remote:
    """Bytes below ``url``, with copies in the folder ``cache``."""

    def __init__(
        self, url: str, options: Mapping[str, Any], cache: Folder, patience_s: float
    ) -> None:
        parts = urlsplit(url)
        self.shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._protocol = parts.scheme
        self._url = url
        self._options = options
        self._cache = cache
        self._patience_s = patience_s
        self._secrets = {*_secrets(options), *filter(None, (parts.password, parts.query))}
        self._secrets |= {unquote(secret) for secret in self._secrets}
        self._opened: tuple[Any, str] | None = None

    # --- keeping --------------------------------------------------------------------------------

    def put(self, data: bytes) -> str:
        """Keep the bytes here and there, and return their digest."""
        return self._sent(self._cache.put(data))

    def keep(self, blocks: Iterable[bytes], name: str, expected: str | None = None) -> str:
        """Keep the bytes here and there, and return their digest."""
        return self._sent(self._cache.keep(blocks, name, expected))

    def _sent(self, digest: str) -> str:
        self._send(digest)
        self._trim(digest)
        return digest

    def _send(self, digest: str) -> None:
        source = self._cache.path(digest)
        size = source.stat().st_size

        def once() -> None:
            fs, path = self._at(digest)
            there = self._present(digest)
            # What was kept long ago may be about to be removed: it is kept anew.
            if there and there.bytes == size and time.time() - there.kept_at < _FRESH_S:
                return
            if self._protocol in _WHOLE_AT_ONCE:
                fs.put_file(str(source), path, **self._in_parts())
            else:
                self._send_aside(fs, source, path)
            if (found := self._size(digest)) != size:
                raise ConnectionError(f"{found} of {size} bytes arrived")

        self._patiently("write", once)

    def _send_aside(self, fs: Any, source: Path, path: str) -> None:
        aside = f"{path.rpartition('/')[0]}/.incoming-{random.getrandbits(64):016x}"
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            fs.put_file(str(source), aside)
            fs.mv(aside, path)
        finally:
            if fs.exists(aside):
                fs.rm_file(aside)

    # --- reading --------------------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        """Return whether there is something of that digest."""
        layout.checked_digest(digest)
        return self._patiently("read", lambda: self._size(digest)) is not None

    def read(self, digest: str) -> bytes:
        """Return the bytes of a digest, verified."""
        return self._through_cache(digest, lambda: self._cache.read(digest))

    def copy_to(self, digest: str, target: Path) -> None:
        """Write the bytes of a digest to a file, which appears only when they are verified."""
        self._through_cache(digest, lambda: self._cache.copy_to(digest, target))

    def _through_cache(self, digest: str, read: Callable[[], T]) -> T:
        layout.checked_digest(digest)
        try:
            if self._cache.path(digest).exists():
                self._cache.renew(digest)
                return read()
        except (ArtifactCorrupt, FileNotFoundError):
            pass  # a bad or vanished copy is made again
        self._fetch(digest, keep=True)
        self._trim(digest)
        return read()

    def _fetch(self, digest: str, *, keep: bool) -> None:
        """Bring the bytes here and verify them; a bad answer is asked for again, a few times."""
        temporary = self._cache.incoming()
        found = ""

        def once() -> None:
            fs, path = self._at(digest)
            temporary.touch()
            try:
                fs.get_file(path, str(temporary), **self._in_parts())
            except _failures() as error:
                # Some libraries notice wrong bytes themselves; the digest says it of all.
                if type(error).__name__ != "FlexibleChecksumError":
                    raise

        try:
            for _ in range(_FETCHES):
                self._patiently("read", once)
                found = digests.of_file(temporary)
                if found == digest:
                    if keep:
                        self._cache.adopt(temporary, digest)
                    return
        finally:
            temporary.unlink(missing_ok=True)
        raise corrupt(f"{digest[:12]} in {self.shown}", digest, found)

    def damaged(self) -> Iterator[str]:
        """Yield the digests under which other bytes are found."""

        def once() -> list[str]:
            fs, root = self._place()
            return sorted(fs.find(root)) if fs.exists(root) else []

        for path in self._patiently("list", once):
            digest = "".join(path.rsplit("/", 2)[-2:])
            if layout.is_digest(digest):
                try:
                    self._fetch(digest, keep=False)
                except ArtifactCorrupt:
                    yield digest

    def present(self) -> Iterator[Present]:
        """Yield what is there, sorted by digest."""

        def once() -> dict[str, Any]:
            fs, root = self._place()
            return fs.find(root, detail=True) if fs.exists(root) else {}

        for path, about in sorted(self._patiently("list", once).items()):
            digest = "".join(path.rsplit("/", 2)[-2:])
            if layout.is_digest(digest):
                yield Present(digest, int(about["size"]), _kept_at(about))

    def remove(self, digest: str) -> None:
        """Remove the bytes of a digest, here and there; none are no mistake."""

        def once() -> None:
            fs, path = self._at(digest)
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(path)

        layout.checked_digest(digest)
        self._patiently("remove", once)
        self._cache.remove(digest)

    def left_over(self) -> Iterator[tuple[Path, float]]:
        """Yield the files of writes that have not ended, of this machine's copies."""
        yield from self._cache.left_over()

    # --- the place ------------------------------------------------------------------------------

    def _in_parts(self) -> dict[str, int]:
        # Of its own accord s3fs holds ten parts of 50 MiB.
        return {"chunksize": _PART_BYTES, "max_concurrency": 2} if self._protocol in _S3 else {}

    def _trim(self, digest: str) -> None:
        # Listing the cache costs more than most puts: every sixteenth digest does it.
        if digest.startswith("0"):
            self._cache.trim(_CACHE_BYTES)

    def _size(self, digest: str) -> int | None:
        found = self._present(digest)
        return None if found is None else found.bytes

    def _present(self, digest: str) -> Present | None:
        fs, path = self._at(digest)
        try:
            about = fs.info(path)
        except FileNotFoundError:
            return None
        return Present(digest, int(about["size"]), _kept_at(about))

    def _at(self, digest: str) -> tuple[Any, str]:
        fs, root = self._place()
        return fs, f"{root}/{digest[:2]}/{digest[2:]}"

    def _place(self) -> tuple[Any, str]:
        if self._opened is None:
            options: dict[str, Any] = {**self._options, "use_listings_cache": False}
            if self._protocol in _S3:
                # We try again ourselves, within a deadline.
                config = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5}
                options["config_kwargs"] = {**config, **options.get("config_kwargs", {})}
            try:
                import fsspec

                fs, root = fsspec.url_to_fs(self._url, **options)
            except ImportError as error:
                s3 = self._protocol in _S3
                raise MissingExtra(
                    f"{self.shown} needs a package: {self._redacted(error)}",
                    "Type `pip install 'nbmlops[s3]'`." if s3 else "Install what it names.",
                ) from error
            except (ValueError, TypeError) as error:
                raise InvalidSettings(
                    f"artifacts cannot be kept in {self.shown}: {self._redacted(error)}",
                    "Correct [artifacts] url and options, or NBMLOPS_ARTIFACTS_URL.",
                ) from None
            self._opened = fs, root.rstrip("/")
        return self._opened

    def _patiently(self, what: str, once: Callable[[], T]) -> T:
        """Do it, and again after what may pass, until the deadline."""
        deadline = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return once()
            except FileNotFoundError as error:
                if what == "read":
                    raise
                raise self._failure(what, error) from error
            except _failures() as error:
                if not _may_pass(error) or time.monotonic() + pause_s > deadline:
                    raise self._failure(what, error) from error
            time.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _failure(self, what: str, error: BaseException) -> StorageFailed:
        if isinstance(error, OSError) and error.errno in _DISK:
            return storage_failed(error)
        return StorageFailed(
            f"cannot {what} artifacts in {self.shown}: {self._redacted(error)}",
            _CREDENTIALS_HINT if _refused(error) else _HINT,
        )

    def _redacted(self, error: BaseException) -> str:
        words = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        for secret in sorted(self._secrets, key=len, reverse=True):
            words = words.replace(secret, "***")
        return words[:300]


def _kept_at(about: Mapping[str, Any]) -> float:
    """Return when an object was written; now, where its place does not tell."""
    for name in ("LastModified", "mtime", "last_modified", "updated", "created"):
        told = about.get(name)
        if isinstance(told, int | float):
            return float(told)
        if isinstance(told, datetime):
            return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    return time.time()


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of options that may be secret."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, str) and value and _SECRET.search(name):
            yield value


def _failures() -> tuple[type[BaseException], ...]:
    """Return what the libraries that are in use raise when a place fails."""
    known = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("gcsfs.retry", "HttpError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("azure.core.exceptions", "AzureError"),
    )
    return (
        OSError,
        *(getattr(sys.modules[module], name) for module, name in known if module in sys.modules),
    )


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that a library's error, or its cause, carries."""
    for one in (error, error.__cause__):
        response: Any = getattr(one, "response", None)
        if isinstance(response, Mapping):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None


def _refused(error: BaseException) -> bool:
    """Return whether the place knows us and says no, or we have nothing to show it."""
    # S3 answers 400 to a HEAD request whose token has expired, without a reason.
    return (
        isinstance(error, PermissionError)
        or _status(error) in {400, 401, 403}
        or re.search("Credential|Token|Auth", type(error).__name__) is not None
    )


def _may_pass(error: BaseException) -> bool:
    if _refused(error):
        return False
    status = _status(error)
    if status is not None and 400 <= status < 500:
        return status in _MAY_PASS
    return not (isinstance(error, OSError) and error.errno in _DISK | _WRONG)
