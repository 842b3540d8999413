"""Commands on images, and on what would be sent to a launcher."""

from __future__ import annotations

from typing import Literal

from nbmlops.commands.context import Context, Launchers
from nbmlops.errors import WrongUse
from nbmlops.records import Built, Plan, replace


def build(context: Context, *, push: bool = False) -> Built:
    """Build the container image that the project's lock stands for; one that is there stays.

    What it is made of stands under [images] in nbmlops.toml. Jobs build it by themselves when they
    need it.

    Parameters
    ----------
    push
        Push it to the registry, and see that the registry has the same.
    """
    from nbmlops import sites, submission

    workspace = context.workspace()
    return sites.build(workspace, submission.capture(workspace).commit, push=push)


def plan(
    context: Context,
    what: Literal["train", "deploy"] | None = None,
    name: str | None = None,
    *,
    param: tuple[str, ...] = (),
    endpoint: str | None = None,
    on: Launchers | None = None,
    output: Literal["text", "yaml"] = "text",
    rbac: bool = False,
) -> Plan:
    """Show what `train` or `deploy` would send to a launcher, and what would change; send nothing.

    With `--rbac`, the least Role that a person needs in the cluster, for who administers it.

    Parameters
    ----------
    what
        The command that would be typed.
    name
        For `train` a pipeline or a notebook; for `deploy` a model version.
    param
        A parameter of the run, as `name=value`; may be repeated.
    endpoint
        The endpoint's name, if not the model's.
    on
        Where it would run. Without it: on this machine, or where the endpoint is up.
    output
        `yaml` for the documents alone, such as for a repository of manifests.
    rbac
        Print the Role instead: `nbmlops plan --rbac | kubectl apply -f -`.
    """
    from nbmlops import pipelines, plans

    workspace = context.workspace()
    if rbac:
        return plans.rbac(workspace)
    if what is None:
        raise WrongUse("plan what?", "Say it: `nbmlops plan train`, or `plan deploy NAME`.")
    if what == "train":
        if endpoint is not None:
            raise WrongUse("a run has no endpoint", "Leave --endpoint out.")
        if name is None and context.notebook is not None:
            name = str(context.notebook)
        found = pipelines.find(workspace, name, start=context.start)
        made = plans.train(workspace, found, pipelines.assignments(param), launcher=on or "local")
    else:
        if name is None:
            raise WrongUse("which model?", "Name it: `nbmlops plan deploy NAME:VERSION`.")
        if param:
            raise WrongUse("a deployment has no parameters", "Leave -p out.")
        made = plans.deploy(workspace, name, endpoint=endpoint, launcher=on)
    return replace(made, output=output)
