"""What a team's tests need: versions that were registered as a run's end does, and programs.

``python -m teams versions FOLDER WHO COUNT`` registers versions and syncs in between; ``python -m
teams sync FOLDER`` syncs once. Both are run as programs, so that they can be killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nbmlops import digests, layout, models, records, remotes, runs, snapshot
from nbmlops import workspace as workspaces
from nbmlops.records import (
    ArtifactRecord,
    Cause,
    Column,
    Environment,
    LoggedModel,
    ModelSchema,
    OutputSchema,
    RunRecord,
    RunResult,
    Status,
    StepRecord,
)


def kept(workspace, name, data, kind="model"):
    """Keep bytes as a run's artifact."""
    return ArtifactRecord(
        name=name, digest=workspace.artifacts.put(data), bytes=len(data), kind=kind
    )


def trained(workspace, content, model="iris", *, dirty=True, made=None, loader=None):
    """Register a version as the end of a run does: snapshot, artifacts, run, ledger, store.

    The same content is the same model, whoever trains it. ``made`` are the model's bytes where they
    do not tell the content.
    """
    bytes_ = f"{model} {content}".encode() if made is None else made
    if dirty:
        (workspace.root / "params.txt").write_text(content)
    taken = snapshot.take(workspace.repo, workspace.home.scratch, workspace.now())
    snapshot.hold(workspace.repo, taken)
    schema = ModelSchema(
        columns=(Column(name="width", kind="number"),),
        output=OutputSchema(kind="label", classes=("a", "b")),
    )
    environment = blank_environment()
    files = (
        kept(workspace, f"models/{model}/model.skops", bytes_),
        kept(workspace, f"models/{model}/schema.json", records.dump(schema)),
        kept(workspace, f"models/{model}/profile.json", f"profile {content}".encode()),
        kept(workspace, "environment.json", records.dump(environment), "environment"),
    )
    now = workspace.now()
    blob = snapshot.listing(workspace.repo, taken.commit)["train.ipynb"].split()[2]
    run = RunRecord(
        run_id=layout.new_id("train", now.timestamp()), pipeline="train", status=Status.SUCCEEDED,
        commit=taken.commit, base_commit=taken.base_commit, dirty=taken.dirty, parameters={},
        environment_id="e-1", launcher="local", created_at=now, started_at=now, finished_at=now,
        snapshot=taken.id, author=workspace.repo.author(), artifacts=files,
        steps=(StepRecord(name="train", notebook="train.ipynb", notebook_blob=blob),),
    )  # fmt: skip
    logged = LoggedModel(
        name=model, format="skops", metrics={"accuracy": 0.9}, step="train", notebook="train.ipynb",
        files={
            "model": f"models/{model}/model.skops", "schema": f"models/{model}/schema.json",
            "profile": f"models/{model}/profile.json",
        },
        notebook_blob=blob, cell_id="cell-1", cell=2, **({"loader": loader} if loader else {}),
    )  # fmt: skip
    result = RunResult(
        run_id=run.run_id, attempt="a1", status=run.status, started_at=now, finished_at=now,
        steps=(), models=(logged,),
    )  # fmt: skip
    digest = workspace.artifacts.put(records.dump(run))
    versions = models.register(workspace, run, result, digest)
    ended = records.replace(run, model_versions=versions, record_digest=digest)
    runs.keep(workspace, ended, 0, f"submit:{run.run_id}")
    return models.find(workspace, versions[0])


def ran(workspace, content, status=Status.SUCCEEDED, environment_id="e-1"):
    """Keep a run that has ended and made no version: artifacts, a snapshot, folders of its job."""
    (workspace.root / "params.txt").write_text(content)
    taken = snapshot.take(workspace.repo, workspace.home.scratch, workspace.now())
    snapshot.hold(workspace.repo, taken)
    now = workspace.now()
    run = RunRecord(
        run_id=layout.new_id("train", now.timestamp()), pipeline="train", status=status,
        commit=taken.commit, base_commit=taken.base_commit, dirty=taken.dirty, parameters={},
        environment_id=environment_id, launcher="local", created_at=now, started_at=now,
        finished_at=now, snapshot=taken.id, author=workspace.repo.author(),
        metrics={"accuracy": 0.5}, content_key=digests.of_bytes(content.encode()),
        cause=None if status is Status.SUCCEEDED else Cause(code="cancelled", message="ended"),
        artifacts=(
            kept(workspace, "train.ipynb", f"executed {content}".encode() * 50, "executed"),
            kept(workspace, "log.txt", f"log of {content}".encode(), "log"),
            kept(workspace, "shared.txt", b"the same bytes in every run"),
            kept(workspace, "environment.json", records.dump(blank_environment()), "environment"),
        ),
    )  # fmt: skip
    digest = workspace.artifacts.put(records.dump(run))
    paths = workspace.home.job(run.run_id)
    for folder in (paths.inbox, paths.outbox):
        folder.mkdir(parents=True)
        (folder / "file").write_text(content)
    run = records.replace(run, record_digest=digest)
    runs.keep(workspace, run, 0, f"submit:{run.run_id}")
    return run


def blank_environment():
    """Return an environment of which nothing is made."""
    return Environment(
        environment_id="e-1", python=sys.executable, python_version="3", platform="p",
        source=None, packages={"numpy": "2"},
    )  # fmt: skip


def main(what, folder, *words):
    """Do what is asked; tell it on standard output."""
    workspace = workspaces.open_at(Path(folder))
    if what == "sync":
        print("begun", flush=True)
        remotes.sync(workspace)
        print("done", flush=True)
    else:
        who, count = words[0], int(words[1])
        for number in range(count):
            trained(workspace, f"{who} {number}")
            print(json.dumps([who, number]), flush=True)
            if number % 4 == 3:
                remotes.sync(workspace)
        remotes.sync(workspace)
    workspace.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
