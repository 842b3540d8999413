"""Workers: the job that loads one model version in its own environment and predicts."""

from __future__ import annotations

import socket

from nbmlops import asking, formats, layout, models, records, sites, snapshot
from nbmlops.records import Environment, JobHandle, JobSpec, ModelVersion, WorkerSpec
from nbmlops.workspace import IN_CONTAINERS, Workspace

PORT = 8080
NUMERIC_FILE = "numeric.npz"


def job(
    workspace: Workspace, version: ModelVersion, deployment_id: str, launcher: str = "local"
) -> JobSpec:
    """Return the job that serves a version, its inbox filled."""
    fill(workspace, version, deployment_id)
    if launcher in IN_CONTAINERS:
        token = sites.worker_token(workspace, deployment_id)
        inbox = workspace.home.job(deployment_id).inbox
        layout.write_file(inbox / layout.TOKEN_FILE, token.encode(), mode=0o600)
    before = models.environment(workspace, version)
    made = sites.again(workspace, launcher, version.commit, before)
    return described(workspace, version, deployment_id, made)


def fill(workspace: Workspace, version: ModelVersion, name: str) -> None:
    """Lay what a worker needs into the inbox of a job."""
    paths = workspace.home.job(name)
    file = version.files["model"]
    kept = "model.skops" if version.format == formats.SKOPS else "model.tar"
    workspace.artifacts.copy_to(file.digest, paths.inbox / kept)
    if version.format != formats.SKOPS:
        snapshot.export(workspace.repo, version.commit, paths.inbox / layout.SOURCE_FILE)
    numeric = version.files.get("numeric")
    if numeric is not None:
        workspace.artifacts.copy_to(numeric.digest, paths.inbox / NUMERIC_FILE)
    spec = WorkerSpec(
        deployment_id=name,
        model=version.model,
        version=version.version,
        format=version.format,
        model_file=kept,
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


def described(
    workspace: Workspace, version: ModelVersion, deployment_id: str, made: Environment
) -> JobSpec:
    """Return the job that serves a version in an environment, as a launcher is told it."""
    paths = workspace.home.job(deployment_id)
    foreign = version.format == formats.COMMAND
    return JobSpec(
        name=deployment_id,
        command=program(made),
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


def program(made: Environment) -> tuple[str, ...]:
    """Return what starts a worker in an environment."""
    # -E: variables such as PYTHONPATH are of the tool's side.
    isolated = () if made.source is None else ("-E", "-u")
    return (made.python, *isolated, "-m", "nbmlops.worker")


def takes_binary(workspace: Workspace, version: ModelVersion, handle: JobHandle) -> bool:
    """Whether a version's worker takes binary tensors: ours do, another program says so."""
    if version.format != formats.COMMAND:
        return True
    with workspace.launcher(handle.launcher).reach(handle) as address:
        return asking.says_binary(address)
