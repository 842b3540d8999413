"""Workers: the job that loads one model version in its own environment and predicts."""

from __future__ import annotations

import http.client
import socket

import msgspec

from nbmlops import formats, layout, models, records, sites, snapshot, tensors
from nbmlops.records import Environment, JobHandle, JobSpec, ModelVersion, WorkerSpec
from nbmlops.workspace import IN_CONTAINERS, Workspace

PORT = 8080
NUMERIC_FILE = "numeric.npz"
_PATIENCE_S = 5.0


def job(
    workspace: Workspace, version: ModelVersion, deployment_id: str, launcher: str = "local"
) -> JobSpec:
    """Return the job that serves a version, its inbox filled."""
    paths = workspace.home.job(deployment_id)
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
        token = sites.worker_token(workspace, deployment_id)
        layout.write_file(paths.inbox / layout.TOKEN_FILE, token.encode(), mode=0o600)
    before = models.environment(workspace, version)
    made = sites.again(workspace, launcher, version.commit, before)
    return described(workspace, version, deployment_id, made)


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
        ready_path="/v2/health/ready",
        labels={
            "deployment": deployment_id,
            "model": f"{version.model}.{version.version}",
            "commit": version.commit,
            **({"image": made.image_digest} if made.image_digest else {}),
        },
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
