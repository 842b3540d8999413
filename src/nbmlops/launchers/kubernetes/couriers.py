"""What lies between this machine and pods on a claim, which only a pod can read: a courier.

A small pod of the same image mounts the owner's folder of the claim and answers on its loopback,
to which a port is forwarded. It goes away by itself when nobody has asked it for long.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import secrets
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from urllib.parse import quote

import msgspec

from nbmlops import parcels
from nbmlops.errors import LauncherUnavailable
from nbmlops.launchers.kubernetes import copies, forwarding, manifests, names, troubles
from nbmlops.launchers.kubernetes.cluster import Cluster
from nbmlops.parcels import ParcelRefused
from nbmlops.project import ClusterSettings

_PATIENCE_S = 60.0
_ANSWER_S = 60.0
_COPY_BYTES = 2**20
# Names of files with size and state; of a courier of an older version the sizes alone.
_Found = dict[str, int | tuple[int, str]]


class Couriers:
    """Brings files to a claim and fetches them from there."""

    def __init__(self, cluster: Cluster, settings: ClusterSettings, owner: str) -> None:
        self._cluster = cluster
        self._settings = settings
        self._owner = owner

    def send_inbox(
        self, job: str, image: str, archive: bytes | None, folder: Path, parts: int = 0
    ) -> None:
        """Put an inbox onto the claim, and of a batch what only each of its parts gets.

        Without an ``archive`` the rest comes by a Secret.

        Raises
        ------
        LauncherUnavailable
            When no courier gets ready, or it does not answer.
        """
        with self._reached(image) as connection:
            send(connection, job, archive, folder, parts)

    def get_outbox(
        self, job: str, image: str, attempt: str, digest: str | None, folder: Path
    ) -> None:
        """Get an outbox from the claim, and lay it.

        Raises
        ------
        ParcelRefused
            When it is not what was sent.
        LauncherUnavailable
            When no courier gets ready, or it does not answer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.download")
        try:
            with self._reached(image) as connection:
                found = _download(connection, f"/{job}/{attempt}/{parcels.OUTBOX_FILE}", beside)
                if digest is not None and found != digest:
                    raise ParcelRefused(
                        "the outbox on the claim is not what the job has sent", "Run it again."
                    )
                with beside.open("rb") as archive:
                    parcels.lay(archive, folder)
        finally:
            beside.unlink(missing_ok=True)

    def get_files(
        self, job: str, image: str, attempt: str, folder: Path, came: dict[str, str]
    ) -> None:
        """Get what a job that stays up has written so far; see :func:`.copies.bring`.

        Raises
        ------
        ParcelRefused
            When a name leads out of the folder.
        LauncherUnavailable
            When no courier gets ready, or it does not answer.
        """
        where = f"/{job}/{attempt}/files"
        with self._reached(image) as connection:

            def listed() -> copies.Listing:
                connection.request("GET", where)
                found = msgspec.json.decode(_answered(connection) or b"{}", type=_Found)
                return {
                    name: (about, "") if isinstance(about, int) else about
                    for name, about in found.items()
                }

            def get(name: str, target: Path) -> None:
                _download(connection, f"{where}/{quote(name)}", target)

            copies.bring(listed, get, folder, came)

    def remove(self, job: str) -> None:
        """Remove what a job has left on the claim, where a courier is there that can."""
        pod = self._ready()
        if pod is not None:
            with (
                contextlib.suppress(LauncherUnavailable),
                self._reached("", pod) as connection,
            ):
                connection.request("DELETE", f"/{job}")
                _answered(connection)

    @contextlib.contextmanager
    def _reached(
        self, image: str, known: str | None = None
    ) -> Generator[http.client.HTTPConnection, None, None]:
        pod = known or self._ready() or self._started(image)
        cluster = self._cluster

        def opened() -> object:
            return forwarding.opened(cluster.connection, pod, manifests.PORT)

        with forwarding.forwarded(opened) as address:
            connection = http.client.HTTPConnection(address.removeprefix("tcp:"), timeout=_ANSWER_S)
            try:
                yield connection
            except (OSError, http.client.HTTPException) as error:
                raise LauncherUnavailable(
                    f"the courier {pod} does not answer: {error}", "Try again."
                ) from error
            finally:
                connection.close()

    def _ready(self) -> str | None:
        """Return a courier that answers, if there is one."""
        selector = names.selector(self._owner, manifests.COURIER)
        pods = self._cluster.listed("Pod", selector)
        return next((pod["metadata"]["name"] for pod in pods if troubles.is_ready(pod)), None)

    def _started(self, image: str) -> str:
        document = manifests.courier(self._settings, self._owner, image, f"c{secrets.token_hex(3)}")
        self._cluster.apply(document)
        deadline = time.monotonic() + _PATIENCE_S
        while (pod := self._ready()) is None:
            if time.monotonic() > deadline:
                self._cluster.delete("Job", document["metadata"]["name"])
                raise LauncherUnavailable(
                    f"no pod gets at the claim {self._settings.claim}",
                    "See why: `kubectl describe pods`; a claim that one node alone may mount is"
                    " reached on that node only.",
                )
            time.sleep(0.2)
        return pod


def send(
    connection: http.client.HTTPConnection,
    job: str,
    archive: bytes | None,
    folder: Path,
    parts: int,
) -> None:
    """Send an inbox to the courier at the other end; see :meth:`Couriers.send_inbox`."""
    if archive is not None:
        connection.request("PUT", f"/{job}/{parcels.INBOX_FILE}", body=archive)
        _answered(connection)
    for index in range(parts):
        with tempfile.TemporaryDirectory() as aside:
            packed = Path(aside) / "part"
            parcels.pack_part(folder, packed, index)
            with packed.open("rb") as body:
                size = {"Content-Length": str(packed.stat().st_size)}
                connection.request("PUT", f"/{job}/{parcels.part_file(index)}", body, size)
                _answered(connection)


def _answered(connection: http.client.HTTPConnection) -> bytes:
    response = connection.getresponse()
    body = response.read()
    if response.status >= 500:
        raise http.client.HTTPException(f"answered {response.status}")
    return body if response.status == 200 else b""


def _download(connection: http.client.HTTPConnection, path: str, target: Path) -> str:
    """Get a file, and return the digest of what came."""
    connection.request("GET", path)
    response = connection.getresponse()
    if response.status != 200:
        response.read()
        raise ParcelRefused(f"there is no {path} on the claim", "Run it again.")
    found = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := response.read(_COPY_BYTES):
            found.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return found.hexdigest()
