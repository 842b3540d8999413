"""Model versions and deployments that were decided, without a training: for tests of the ledger."""

from __future__ import annotations

from nbmlops import decisions, models, records
from nbmlops.records import (
    ArtifactRecord,
    Column,
    DeploymentDecision,
    Environment,
    ModelSchema,
    ModelVersion,
    OutputSchema,
    RunRecord,
    Status,
)

ROLES = ("model", "schema", "profile", "environment")


COLUMNS = (Column(name="width", kind="number"), Column(name="city", kind="category"))


def version(
    workspace, number, model="iris", author="Ada <ada@example.org>", now=None, columns=COLUMNS,
    **changes,
):  # fmt: skip
    """Register a version as a run that ended would; its files are there, and its run's record."""
    now = now or workspace.now()
    schema = ModelSchema(columns=columns, output=OutputSchema(kind="label", classes=("a", "b")))
    contents = {role: f"{model} {number} {role}".encode() for role in ROLES}
    contents["schema"] = records.dump(schema)
    contents["environment"] = records.dump({**_blank(Environment), "environment_id": "e-1"})
    files = {
        role: ArtifactRecord(
            name=f"{role}-{number}", digest=workspace.artifacts.put(data), bytes=len(data),
            kind="environment" if role == "environment" else "model",
        )
        for role, data in contents.items()
    }  # fmt: skip
    commit = workspace.repo.text("rev-parse", "HEAD")
    run = run_record(workspace, f"train-{model}-{number}", commit, tuple(files.values()), now)
    made = ModelVersion(
        model=model,
        version=number,
        digest=f"{number:064x}",
        run_id=run.run_id,
        commit=commit,
        created_at=now,
        metrics={"accuracy": 0.9},
        format="skops",
        files=files,
        environment_id="e-1",
        notebook="train.ipynb",
        notebook_blob="b" * 40,
        cell_id="cell-1",
        cell=2,
        snapshot=run.snapshot,
        run_digest=workspace.artifacts.put(records.dump(run)),
        author=author,
        **changes,
    )
    decisions.decide(workspace, "version", lambda _: records.plain(made))
    models.keep(workspace, made)
    return made


def run_record(workspace, run_id, commit, artifacts, now):
    """Return the record of a run that succeeded, whose snapshot is held."""
    workspace.repo.run("update-ref", f"refs/nbmlops/snapshots/{run_id}", commit)
    known = {
        "run_id": run_id,
        "pipeline": "train",
        "status": Status.SUCCEEDED.value,
        "commit": commit,
        "snapshot": run_id,
        "created_at": now,
        "started_at": now,
        "finished_at": now,
        "parameters": {"depth": 3},
        "artifacts": artifacts,
    }
    return records.load(records.dump({**_blank(RunRecord), **known}), RunRecord)


def _blank(kind):
    """Return the required keys of a record with something of their types."""
    import msgspec.inspect as types

    blank = {}
    for field in types.type_info(kind).fields:
        if not field.required:
            continue
        options = field.type.types if isinstance(field.type, types.UnionType) else (field.type,)
        if any(isinstance(option, types.NoneType) for option in options):
            blank[field.name] = None
        elif isinstance(field.type, types.BoolType):
            blank[field.name] = False
        elif isinstance(field.type, types.IntType | types.FloatType):
            blank[field.name] = 0
        elif isinstance(field.type, types.VarTupleType):
            blank[field.name] = []
        elif isinstance(field.type, types.DictType):
            blank[field.name] = {}
        else:
            blank[field.name] = "x"
    return blank


def deployed(workspace, version, deployment_id, kind="deployed", **changes):
    """Decide a deployment without starting one; ``version`` is a registered one."""
    made = DeploymentDecision(
        endpoint=version.model,
        deployment_id=deployment_id,
        model=version.model,
        version=version.version,
        version_digest=version.digest,
        commit=version.commit,
        launcher="local",
        url="http://127.0.0.1:9",
    )
    body = records.plain(records.replace(made, **changes))
    return decisions.decide(workspace, kind, lambda _: body)
