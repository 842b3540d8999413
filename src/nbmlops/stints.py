"""Stints: a worker of one version that a command starts for itself, asks, and ends.

It is the same job that a deployment runs: the version's own environment, its model verified, its
sample answered before it is ready. Whoever started it holds a lock as long as the command lives;
a worker whose lock nobody holds was left by a command that was killed, and :func:`settle` ends it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Iterator

from nbmlops import endpoints, layout, models, predictors, schema, sites, workers
from nbmlops.asking import Asker, ModelFailed
from nbmlops.errors import DeploymentFailed, InvalidRecords
from nbmlops.records import JobHandle, ModelSchema, ModelVersion
from nbmlops.workspace import Workspace

PREFIX = "stint-"
_LAST_WORDS = 5
FOREIGN_RTOL = 1e-6  # another language adds up in another order, or in single precision


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
) -> Generator[Asker, None, None]:
    """Hold a connection to a worker that is ready, wherever it runs."""
    binary = workers.takes_binary(workspace, version, handle)
    token = sites.token_for(workspace, handle)
    with (
        workspace.launcher(handle.launcher).reach(handle) as address,
        contextlib.closing(Asker(version, contract, address, binary=binary, token=token)) as made,
    ):
        yield made


def place_of(version: ModelVersion) -> str:
    """Return the launcher of a worker that is asked from here, where nobody names one."""
    return "local" if version.image is None else "docker"


@contextlib.contextmanager
def stint(
    workspace: Workspace, version: ModelVersion, launcher: str | None = None
) -> Generator[Asker, None, None]:
    """Start a worker of a version, and end it with the block, whatever happens in it.

    Without a launcher it is a process of this machine, or a container where its program has an
    image of its own.

    Raises
    ------
    DeploymentFailed
        When it does not get ready.
    """
    launcher = launcher or place_of(version)
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
            contract = models.bounded(workspace, version, lenient=True)
            with _asking(workspace, version, contract, handle) as made:
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
