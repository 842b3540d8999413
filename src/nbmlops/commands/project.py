"""Commands on the project itself."""

from __future__ import annotations

from typing import Literal

from nbmlops import records
from nbmlops.commands.answers import CiAnswer, InitAnswer, NotebookAnswer, ProjectAnswer
from nbmlops.commands.context import Context
from nbmlops.errors import WrongUse
from nbmlops.records import (
    CheckReport,
    Health,
    Level,
)


def init(context: Context, folder: str = ".", *, example: bool = False) -> InitAnswer:
    """Make a project: nbmlops.toml, a git repository, a first commit.

    In a folder that is a repository already, the files are written and nothing is committed.

    Parameters
    ----------
    folder
        The project's folder; made when it is not there.
    example
        Write the example too: two notebooks that train a classifier of breast cancer.
    """
    from nbmlops import projects

    target = (context.start / folder).resolve()
    if context.bounds is not None and not target.is_relative_to(context.bounds):
        raise WrongUse(f"{folder!r} leads out of {context.bounds}", "Name a folder inside it.")
    return InitAnswer(**projects.init(target, example=example))


def project(context: Context) -> ProjectAnswer:
    """Show the project that you stand in, and what a run of your notebook would run."""
    from nbmlops import pipelines

    workspace = context.workspace()
    answer = ProjectAnswer(
        project=workspace.settings.project.name,
        path=str(workspace.root),
        pipelines=tuple(workspace.settings.pipelines),
    )
    if context.notebook is None:
        return answer
    found = pipelines.find(workspace, str(context.notebook))
    declared = pipelines.declared_parameters(workspace, found)
    notebook = NotebookAnswer(
        pipeline=found.name, step=found.step, parameters=tuple(declared.values())
    )
    return records.replace(answer, notebook=notebook)


def check(
    context: Context, files: tuple[str, ...] = (), *, level: Level = "warn", fix: bool = False
) -> CheckReport:
    """Hold notebooks and files against the rules, each with its level and what mends it.

    A rule's level (off, advise, warn, block) is set in [rules] of nbmlops.toml. Exit code 1 means
    that something of `--level` or above was found and not mended. As a pre-commit hook:
    `nbmlops check --level block`.

    Parameters
    ----------
    files
        Only these notebooks and files; the whole project without them.
    level
        From where on a finding is a failure: advise, warn or block.
    fix
        Mend what can be mended without a change of what the code does: outputs, doubled ids of
        cells, old formats.
    """
    from nbmlops import rules

    return rules.check(
        context.workspace(),
        files=[context.start / file for file in files] or None,
        fix=fix,
        level=level,
        say=context.say,
    )


def ci(context: Context, kind: Literal["github", "gitlab"], *, force: bool = False) -> CiAnswer:
    """Write a workflow for continuous integration: rules, tests, a run of each pipeline.

    The file goes where the service looks for it in the repository. Its jobs hold the project
    against the rules (`check --level block`), run its tests (the folder `tests`, by pytest, with
    the project's own packages) and train each pipeline, and keep the executed notebooks as HTML
    and the JUnit report. Started by hand, it takes a pipeline and parameters.

    Parameters
    ----------
    kind
        The service: github or gitlab.
    force
        Write over another file that is there.
    """
    from nbmlops import layout, workflows

    workspace = context.workspace()
    target = workflows.target(workspace, kind)
    if context.bounds is not None and not target.resolve().is_relative_to(context.bounds):
        raise WrongUse(
            f"{layout.WORKFLOW_FILES[kind]} leads out of {context.bounds}",
            f"Write it from a terminal: `nbmlops ci {kind}`.",
        )
    return CiAnswer(
        kind=kind,
        path=layout.WORKFLOW_FILES[kind],
        written=workflows.write(workspace, kind, force=force),
        pipelines=tuple(workspace.settings.pipelines),
    )


def doctor(context: Context, *, repair: bool = False) -> Health:
    """Check that nothing is lost, doubled, damaged or running without an owner.

    A store that was lost is made again with `--repair`, from the ledger, the artifacts, the call
    logs and what is still up: model versions, the runs that made them, deployments and endpoints.
    Other runs, sweeps and reports were in the store alone.

    Parameters
    ----------
    repair
        Put right what is safe to put right; what is left is told as findings.
    """
    from nbmlops import following, health, tick

    workspace = context.workspace()
    if repair:
        following.settle(workspace)
    repaired = health.repair(workspace) if repair else ()
    tick.tick(workspace, recovers=False)  # what is down is told
    return records.replace(health.check(workspace), repaired=repaired)
