"""Workers: the job that loads one model version in its own environment and predicts.

A version whose program has an image of its own needs no environment: the image is run as it is,
with the model's files and what the program has to know laid where it is told.
"""

from __future__ import annotations

import shutil
import tarfile

from nbmlops import (
    archives,
    asking,
    formats,
    images,
    layout,
    models,
    records,
    sites,
    snapshot,
    tensors,
)
from nbmlops.errors import ModelRefused
from nbmlops.records import Environment, JobHandle, JobSpec, ModelVersion, WorkerSpec, replace
from nbmlops.sites import Foreign
from nbmlops.workspace import IN_CONTAINERS, Workspace

PORT = 8080
NUMERIC_FILE = "numeric.npz"
FILES_FOLDER = "model"  # the model's files, in the inbox of a program in an image of its own
READY_PATH = "/v2/health/ready"


def job(
    workspace: Workspace, version: ModelVersion, deployment_id: str, launcher: str = "local"
) -> JobSpec:
    """Return the job that serves a version, its inbox filled."""
    if version.image is not None:
        asked = sites.foreign(workspace, launcher, version)  # first: what is refused leaves nothing
        _fill_foreign(workspace, version, deployment_id)
        _write_token(workspace, deployment_id)
        return _of_image(workspace, version, deployment_id, asked)
    fill(workspace, version, deployment_id)
    if launcher in IN_CONTAINERS:
        _write_token(workspace, deployment_id)
    before = models.environment(workspace, version)
    made = sites.again(workspace, launcher, version.commit, before)
    return described(workspace, version, deployment_id, made)


def fill(workspace: Workspace, version: ModelVersion, name: str) -> None:
    """Lay what a worker needs into the inbox of a job."""
    paths = workspace.home.job(name)
    kept = "model.skops" if version.format == formats.SKOPS else "model.tar"
    workspace.artifacts.copy_to(version.files["model"].digest, paths.inbox / kept)
    if version.format != formats.SKOPS:
        snapshot.export(workspace.repo, version.commit, paths.inbox / layout.SOURCE_FILE)
    numeric = version.files.get("numeric")
    if numeric is not None:
        workspace.artifacts.copy_to(numeric.digest, paths.inbox / NUMERIC_FILE)
    spec = replace(
        _spec(workspace, version, name, kept),
        form=version.probe.form,
        numeric_file=NUMERIC_FILE if numeric else None,
        numeric_digest=numeric.digest if numeric else "",
        sample=models.sample(workspace, version),
        loader=version.loader,
        project_dir=version.project_dir,
    )
    _write_spec(paths, spec)


def _spec(
    workspace: Workspace, version: ModelVersion, deployment_id: str, model_file: str
) -> WorkerSpec:
    """Return what every worker is told of its model, whoever's program it is."""
    return WorkerSpec(
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        format=version.format,
        model_file=model_file,
        model_digest=version.files["model"].digest,
        schema=models.schema(workspace, version),
        command=version.command,
    )


def _write_spec(paths: layout.JobPaths, spec: WorkerSpec) -> None:
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(spec))
    paths.outbox.mkdir(parents=True, exist_ok=True)


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
        return _of_image(workspace, version, deployment_id, asked)
    made = sites.planned(workspace, launcher, version.commit)
    return described(workspace, version, deployment_id, made)


def _write_token(workspace: Workspace, deployment_id: str) -> None:
    token = sites.worker_token(workspace, deployment_id)
    inbox = workspace.home.job(deployment_id).inbox
    layout.write_file(inbox / layout.TOKEN_FILE, token.encode(), mode=0o600)


def _fill_foreign(workspace: Workspace, version: ModelVersion, deployment_id: str) -> None:
    """Lay the model's files in the inbox of a program that cannot unpack them itself."""
    paths = workspace.home.job(deployment_id)
    archive = paths.root / "model.tar"
    workspace.artifacts.copy_to(version.files["model"].digest, archive)
    shutil.rmtree(paths.inbox / FILES_FOLDER, ignore_errors=True)
    try:
        archives.unpack(archive, paths.inbox / FILES_FOLDER, with_links=False)
    except (ValueError, tarfile.TarError) as error:
        raise ModelRefused(
            f"the files of {version.name} are no archive of plain files: {error}",
            "Log the model again: log_model(model, files=FOLDER, ...).",
        ) from error
    finally:
        archive.unlink()
    _write_spec(paths, _spec(workspace, version, deployment_id, FILES_FOLDER))


def _of_image(
    workspace: Workspace, version: ModelVersion, deployment_id: str, asked: Foreign
) -> JobSpec:
    """Return the job that runs a program in an image of its own, as a launcher is told it."""
    paths = workspace.home.job(deployment_id)
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
        command=program(made),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        image=made.image,
        port=tensors.free_port() if foreign else PORT,
        tcp=foreign,
        ready_path=READY_PATH,
        labels=_labels(version, deployment_id, made.image_digest),
    )


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
