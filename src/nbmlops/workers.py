"""Workers: the job that loads one model version in its own environment and predicts.

A version whose program has an image of its own needs no environment: the image is run as it is,
with the model's files and what the program has to know laid where it is told.
"""

from __future__ import annotations

import http.client
import shutil
import socket

import msgspec

from nbmlops import (
    archives,
    formats,
    images,
    layout,
    models,
    records,
    sites,
    snapshot,
    tensors,
)
from nbmlops.layout import JobPaths
from nbmlops.records import Environment, JobHandle, JobSpec, ModelVersion, WorkerSpec
from nbmlops.sites import Foreign
from nbmlops.workspace import IN_CONTAINERS, Workspace

PORT = 8080
NUMERIC_FILE = "numeric.npz"
FILES_FOLDER = "model"  # the model's files, in the inbox of a program in an image of its own
READY_PATH = "/v2/health/ready"
_PATIENCE_S = 5.0


def job(
    workspace: Workspace, version: ModelVersion, deployment_id: str, launcher: str = "local"
) -> JobSpec:
    """Return the job that serves a version, its inbox filled."""
    paths = workspace.home.job(deployment_id)
    if version.image is not None:
        asked = sites.foreign(workspace, launcher, version)  # first: what is refused leaves nothing
        _fill(workspace, version, deployment_id, paths)
        _write_token(workspace, deployment_id, paths)
        return _of_image(version, deployment_id, paths, asked)
    file = version.files["model"]
    name = "model.skops" if version.format == formats.SKOPS else "model.tar"
    workspace.artifacts.copy_to(file.digest, paths.inbox / name)
    if version.format != formats.SKOPS:
        snapshot.export(workspace.repo, version.commit, paths.inbox / layout.SOURCE_FILE)
    numeric = version.files.get("numeric")
    if numeric is not None:
        workspace.artifacts.copy_to(numeric.digest, paths.inbox / NUMERIC_FILE)
    spec = WorkerSpec(
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        format=version.format,
        model_file=name,
        model_digest=file.digest,
        schema=models.schema(workspace, version),
        form=version.probe.form,
        numeric_file=NUMERIC_FILE if numeric else None,
        numeric_digest=numeric.digest if numeric else "",
        sample=models.sample(workspace, version),
        loader=version.loader,
        command=version.command,
        project_dir=version.project_dir,
    )
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(spec))
    paths.outbox.mkdir(parents=True, exist_ok=True)
    if launcher in IN_CONTAINERS:
        _write_token(workspace, deployment_id, paths)
    before = models.environment(workspace, version)
    made = sites.again(workspace, launcher, version.commit, before)
    return described(workspace, version, deployment_id, made)


def planned(
    workspace: Workspace, version: ModelVersion, deployment_id: str, launcher: str
) -> JobSpec:
    """Return the job that would serve a version; nothing is made, pulled or written.

    Raises
    ------
    NeedsContainers, ImageNotPinned
        When the launcher cannot run the version's image.
    """
    if version.image is not None:
        asked = sites.foreign_planned(workspace, launcher, version)
        return _of_image(version, deployment_id, workspace.home.job(deployment_id), asked)
    made = sites.planned(workspace, launcher, version.commit)
    return described(workspace, version, deployment_id, made)


def _write_token(workspace: Workspace, deployment_id: str, paths: JobPaths) -> None:
    token = sites.worker_token(workspace, deployment_id)
    layout.write_file(paths.inbox / layout.TOKEN_FILE, token.encode(), mode=0o600)


def _fill(workspace: Workspace, version: ModelVersion, deployment_id: str, paths: JobPaths) -> None:
    """Lay the model's files in the inbox of a program that cannot unpack them itself."""
    file = version.files["model"]
    archive = paths.root / "model.tar"
    workspace.artifacts.copy_to(file.digest, archive)
    shutil.rmtree(paths.inbox / FILES_FOLDER, ignore_errors=True)
    archives.unpack(archive, paths.inbox / FILES_FOLDER)
    archive.unlink()
    spec = WorkerSpec(
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        format=version.format,
        model_file=FILES_FOLDER,
        model_digest=file.digest,
        schema=models.schema(workspace, version),
        command=version.command,
    )
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(spec))
    paths.outbox.mkdir(parents=True, exist_ok=True)


def _of_image(
    version: ModelVersion, deployment_id: str, paths: JobPaths, asked: Foreign
) -> JobSpec:
    """Return the job that runs a program in an image of its own, as a launcher is told it."""
    told = {
        "files": f"{images.INBOX}/{FILES_FOLDER}",
        "model": version.model,
        "version": str(version.version),
        "host": "0.0.0.0",  # noqa: S104  # in a network of its own, with a token
        "port": str(images.PORT),
    }
    token = {"token_file": f"{images.INBOX}/{layout.TOKEN_FILE}"}
    return JobSpec(
        name=deployment_id,
        command=formats.filled(version.command, told),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        image=asked.image,
        carrier=asked.carrier,
        environment=formats.variables({**told, **token}),
        port=images.PORT,
        tcp=True,
        ready_path=READY_PATH,
        labels=_labels(version, deployment_id, asked.digest),
    )


def _labels(version: ModelVersion, deployment_id: str, digest: str | None) -> dict[str, str]:
    return {
        "deployment": deployment_id,
        "model": f"{version.model}.{version.version}",
        "commit": version.commit,
        **({"image": digest} if digest else {}),
    }


def described(
    workspace: Workspace, version: ModelVersion, deployment_id: str, made: Environment
) -> JobSpec:
    """Return the job that serves a version in an environment, as a launcher is told it."""
    paths = workspace.home.job(deployment_id)
    foreign = version.format == formats.COMMAND
    return JobSpec(
        name=deployment_id,
        # -E: variables such as PYTHONPATH are of the tool's side.
        command=(made.python, *_isolated(made), "-m", "nbmlops.worker"),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        image=made.image,
        port=_free_port() if foreign else PORT,
        tcp=foreign,
        ready_path=READY_PATH,
        labels=_labels(version, deployment_id, made.image_digest),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _isolated(made: Environment) -> tuple[str, ...]:
    return () if made.source is None else ("-E", "-u")


def takes_binary(workspace: Workspace, version: ModelVersion, handle: JobHandle) -> bool:
    """Whether a version's worker takes binary tensors: ours do, another program says so."""
    if version.format != formats.COMMAND:
        return True
    with workspace.launcher(handle.launcher).reach(handle) as address:
        return _says_binary(address)


def _says_binary(address: str) -> bool:
    try:
        where = tensors.parse_address(address)
    except tensors.InvalidAddress:
        return False
    connection = http.client.HTTPConnection(where.host, where.port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/v2")
        answer = connection.getresponse()
        told = msgspec.json.decode(answer.read())
        return "binary_tensor_data" in told.get("extensions", ())
    except (OSError, http.client.HTTPException, msgspec.DecodeError, AttributeError, TypeError):
        return False
    finally:
        connection.close()
