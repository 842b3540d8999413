"""Stints: a worker of one version that a command starts for itself, asks, and ends.

It is the same job that a deployment runs: the version's own environment, its model verified, its
sample answered before it is ready. Whoever started it holds a lock as long as the command lives;
a worker whose lock nobody holds was left by a command that was killed, and :func:`settle` ends it.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import msgspec

from nbmlops import endpoints, layout, models, predictors, schema, sites, tensors, workers
from nbmlops.errors import DeploymentFailed, InvalidRecords, NbmlopsError
from nbmlops.records import JobHandle, ModelSchema, ModelVersion, Prediction
from nbmlops.tensors import HEADER_LENGTH, InvalidTensors
from nbmlops.workspace import Workspace

PREFIX = "stint-"
_PATIENCE_S = 600.0
_LAST_WORDS = 5
FOREIGN_RTOL = 1e-6  # another language adds up in another order, or in single precision


class ModelFailed(NbmlopsError):
    """A model could not answer rows that fit its schema."""

    code = "model-failed"
    exit_code = 1


class Stint:
    """A worker that is ready, and one connection to it."""

    def __init__(
        self,
        version: ModelVersion,
        contract: ModelSchema,
        address: str,
        name: str,
        *,
        binary: bool = True,
        token: str | None = None,
    ) -> None:
        self.version = version
        self.schema = contract
        self.name = name
        where = tensors.parse_address(address)
        self._path = f"/v2/models/{version.model}/infer"
        self._binary = binary
        self._token = token
        self._connection = _Connection(where, timeout=_PATIENCE_S)

    def predict(self, columns: Sequence[Sequence[Any]]) -> tuple[Prediction, ...]:
        """Return the predictions for columns that were checked, in schema order.

        Raises
        ------
        InvalidRecords
            When the model refuses a value that fits its schema.
        ModelFailed
            When it fails otherwise, or its worker has ended.
        """
        rows = len(columns[0])
        inputs = schema.inputs(self.schema, columns, matrix=not self.version.served_by_program)
        body, length = tensors.encode_request(inputs, binary=self._binary)
        headers = {"Content-Type": "application/json"}
        if length is not None:
            headers = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            content, told = answer.read(), answer.headers.get(HEADER_LENGTH)
        except (OSError, http.client.HTTPException) as error:
            raise ModelFailed(
                f"the worker of {self.version.name} has ended ({type(error).__name__})",
                "It may have needed more memory than there is; see `dmesg`, then try again.",
            ) from error
        if answer.status != 200:
            raise _refusal(self.version, content)
        try:
            outputs = tensors.decode_response(content, int(told) if told else None).outputs
            return schema.predictions(self.schema, outputs, rows)
        except (InvalidTensors, ValueError) as error:
            raise ModelFailed(
                f"{self.version.name} does not answer as its schema says: {error}",
                "Train it again.",
            ) from error

    def close(self) -> None:
        """Give up the connection."""
        self._connection.close()


class _Connection(http.client.HTTPConnection):
    """An HTTP connection to a worker: a Unix socket, or a port where it is another program."""

    def __init__(self, where: tensors.Address, timeout: float) -> None:
        super().__init__(where.host or "localhost", where.port, timeout=timeout)
        self._socket_path = where.path

    def connect(self) -> None:
        if self._socket_path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket_path))


def _refusal(version: ModelVersion, content: bytes) -> NbmlopsError:
    try:
        document: Any = msgspec.json.decode(content)
        told, kind = str(document.get("error")), str(document.get("type"))
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        told, kind = repr(content[:200]), ""
    if kind in {"ValueError", "OverflowError", "FloatingPointError"}:
        return InvalidRecords(
            f"{version.name} refuses the values: {told}"[:500],
            "They fit the schema's types; compare them with what it was trained on.",
        )
    return ModelFailed(
        f"{version.name} failed: {told}"[:500], "Look into the model's own code, and its data."
    )


def check_sample(workspace: Workspace, version: ModelVersion, handle: JobHandle) -> None:
    """Hold a worker that is no program of ours against what the model said when it was logged.

    Raises
    ------
    DeploymentFailed
        When it answers otherwise, or not as the schema says.
    """
    sample, contract = models.sample(workspace, version), models.schema(workspace, version)
    rows = list(sample.records) if sample else [contract.example]
    deployment_id = handle.name
    try:
        with _asking(workspace, version, contract, handle) as made:
            found = made.predict(schema.check(contract, rows))
    except (ModelFailed, InvalidRecords) as error:
        raise DeploymentFailed(
            f"the program of {version.name} does not answer its sample: {error.message}",
            f"See what it wrote: `nbmlops logs {deployment_id}`.",
            job=deployment_id,
        ) from error
    if sample and not all(
        predictors.agree(one, other, rtol=FOREIGN_RTOL)
        for one, other in zip(found, sample.predictions, strict=True)
    ):
        raise DeploymentFailed(
            f"the program of {version.name} answers otherwise than the model did in the notebook",
            f"The first row is {found[0]}, and was {sample.predictions[0]}.",
            job=deployment_id,
        )


@contextlib.contextmanager
def _asking(
    workspace: Workspace, version: ModelVersion, contract: ModelSchema, handle: JobHandle
) -> Generator[Stint, None, None]:
    """Hold a connection to a worker that is ready, wherever it runs."""
    binary = workers.takes_binary(workspace, version, handle)
    token = sites.token_for(workspace, handle)
    with (
        workspace.launcher(handle.launcher).reach(handle) as address,
        contextlib.closing(
            Stint(version, contract, address, handle.name, binary=binary, token=token)
        ) as made,
    ):
        yield made


@contextlib.contextmanager
def stint(
    workspace: Workspace, version: ModelVersion, launcher: str | None = None
) -> Generator[Stint, None, None]:
    """Start a worker of a version, and end it with the block, whatever happens in it.

    Without a launcher it is a process of this machine, or a container where its program has an
    image of its own.

    Raises
    ------
    DeploymentFailed
        When it does not get ready.
    """
    launcher = launcher or ("local" if version.image is None else "docker")
    workspace.launcher(launcher).check()
    name = layout.new_id(f"{PREFIX}{version.model}"[:40], workspace.now().timestamp())
    handle = JobHandle(launcher=launcher, name=name)
    with workspace.exclusively(name):
        try:
            workspace.say(f"starting {version.name}")
            workspace.launcher(launcher).launch(workers.job(workspace, version, name, launcher))
            try:
                endpoints.until_ready(workspace, handle, version.name)
            except DeploymentFailed as failure:
                raise _with_last_words(workspace, handle, failure) from failure
            with _asking(workspace, version, models.schema(workspace, version), handle) as made:
                yield made
        finally:
            _end(workspace, handle)


def _with_last_words(
    workspace: Workspace, handle: JobHandle, failure: DeploymentFailed
) -> DeploymentFailed:
    """Return the failure with what the worker wrote last, for whoever looks further."""
    lines = list(workspace.launcher(handle.launcher).logs(handle))[-_LAST_WORDS:]
    return DeploymentFailed(
        " ".join(failure.message.split()),
        "Check that its environment can still be made: `nbmlops doctor`.",
        job=handle.name,
        log=lines,
    )


def _end(workspace: Workspace, handle: JobHandle) -> None:
    workspace.launcher(handle.launcher).cancel(handle)
    endpoints.until_ended(workspace, [handle])
    # Its inbox holds a copy of the model; what it wrote stays with the launcher.
    shutil.rmtree(workspace.home.job(handle.name).root, ignore_errors=True)
    (workspace.home.root / "locks" / handle.name).unlink(missing_ok=True)


def _present(workspace: Workspace) -> Iterator[JobHandle]:
    for launcher in workspace.launchers():
        for handle in launcher.jobs():
            if handle.name.startswith(PREFIX):
                yield handle


def at_work(workspace: Workspace) -> set[str]:
    """Return the names of the jobs whose commands are there."""
    found: set[str] = set()
    for handle in _present(workspace):
        with workspace.exclusively(handle.name, wait=False) as ours:
            if not ours:
                found.add(handle.name)
    return found


def settle(workspace: Workspace) -> None:
    """End the workers that killed commands have left."""
    for handle in _present(workspace):
        with workspace.exclusively(handle.name, wait=False) as ours:
            if ours:
                _end(workspace, handle)
