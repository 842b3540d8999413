"""Workers: the job that loads one model version in its own environment and predicts."""

from __future__ import annotations

from pathlib import Path

from nbmlops import environment, layout, models, pipelines, records
from nbmlops.records import Environment, JobSpec, ModelVersion, WorkerSpec
from nbmlops.workspace import Workspace

PORT = 8080


def job(workspace: Workspace, version: ModelVersion, deployment_id: str) -> JobSpec:
    """Return the job that serves a version, its inbox filled."""
    paths = workspace.home.job(deployment_id)
    file = version.files["model"]
    workspace.artifacts.copy_to(file.digest, paths.inbox / "model.skops")
    spec = WorkerSpec(
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        format=version.format,
        model_file="model.skops",
        model_digest=file.digest,
        schema=models.schema(workspace, version),
        form=version.probe.form,
        sample=models.sample(workspace, version),
    )
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(spec))
    paths.outbox.mkdir(parents=True, exist_ok=True)
    made = models.environment(workspace, version)
    return JobSpec(
        name=deployment_id,
        # -E: variables such as PYTHONPATH are of the tool's side.
        command=(_interpreter(workspace, version, made), *_isolated(made), "-m", "nbmlops.worker"),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        port=PORT,
        ready_path="/v2/health/ready",
    )


def _isolated(made: Environment) -> tuple[str, ...]:
    return () if made.source is None else ("-E", "-u")


def _interpreter(workspace: Workspace, version: ModelVersion, made: Environment) -> str:
    """Return the interpreter of the version's environment; made again when it is gone."""
    if made.source is None or Path(made.python).exists():
        return made.python
    plan = pipelines.environment_plan(workspace, version.commit)
    return environment.ensure(plan, workspace.cache, workspace.say).python
