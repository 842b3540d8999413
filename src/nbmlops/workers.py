"""Workers: the job that loads one model version in its own environment and predicts."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import msgspec

from nbmlops import environment, formats, layout, models, pipelines, records, snapshot, tensors
from nbmlops.records import Environment, JobSpec, ModelVersion, WorkerSpec
from nbmlops.workspace import Workspace

PORT = 8080
NUMERIC_FILE = "numeric.npz"
_PATIENCE_S = 5.0


def job(workspace: Workspace, version: ModelVersion, deployment_id: str) -> JobSpec:
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
    made = models.environment(workspace, version)
    foreign = version.format == formats.COMMAND
    return JobSpec(
        name=deployment_id,
        # -E: variables such as PYTHONPATH are of the tool's side.
        command=(_interpreter(workspace, version, made), *_isolated(made), "-m", "nbmlops.worker"),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        port=_free_port() if foreign else PORT,
        tcp=foreign,
        ready_path="/v2/health/ready",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _isolated(made: Environment) -> tuple[str, ...]:
    return () if made.source is None else ("-E", "-u")


def _interpreter(workspace: Workspace, version: ModelVersion, made: Environment) -> str:
    """Return the interpreter of the version's environment; made again when it is gone."""
    if made.source is None or Path(made.python).exists():
        return made.python
    plan = pipelines.environment_plan(workspace, version.commit)
    return environment.ensure(plan, workspace.cache, workspace.say).python


def takes_binary(version: ModelVersion, address: str) -> bool:
    """Whether a version's worker takes binary tensors: ours do, another program says so."""
    if version.format != formats.COMMAND:
        return True
    where = tensors.parse_address(address)
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
