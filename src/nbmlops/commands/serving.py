"""Commands on models, deployments and calls."""

from __future__ import annotations

import msgspec

from nbmlops import records
from nbmlops.commands.context import Context
from nbmlops.errors import InvalidRecords, WrongUse
from nbmlops.records import (
    CallAnswer,
    DeploymentRecord,
    Listing,
)


def models(context: Context, *, model: str | None = None) -> Listing:
    """List the model versions, newest first.

    Parameters
    ----------
    model
        Only of this model.
    """
    from nbmlops import models as verbs

    workspace = context.workspace()
    verbs.index(workspace)
    return Listing(items=tuple(verbs.versions(workspace, model)))


def deploy(context: Context, model: str) -> DeploymentRecord:
    """Serve a model version as an HTTP service whose URL stays.

    Parameters
    ----------
    model
        `NAME` for the newest version, or `NAME:VERSION`.
    """
    from nbmlops import deployments as verbs

    return verbs.deploy(context.workspace(), model)


def deployments(context: Context, *, every: bool = False) -> Listing:
    """List what is deployed, with its URL and what monitoring found last.

    Parameters
    ----------
    every
        Also those that have been stopped.
    """
    from nbmlops import deployments as verbs
    from nbmlops import monitors

    workspace = context.workspace()
    items: list[DeploymentRecord] = []
    for record in verbs.listed(workspace, every=every):
        report = monitors.latest(workspace, record.deployment_id)
        items.append(records.replace(record, monitor=report.verdict if report else None))
    return Listing(items=tuple(items))


def undeploy(context: Context, endpoint: str) -> DeploymentRecord:
    """Stop serving; the URL stays reserved for the next deployment.

    Parameters
    ----------
    endpoint
        The endpoint's name.
    """
    from nbmlops import deployments as verbs

    return verbs.undeploy(context.workspace(), endpoint)


def call(context: Context, endpoint: str, data: str) -> CallAnswer:
    """Ask an endpoint for predictions.

    Parameters
    ----------
    endpoint
        The endpoint's name.
    data
        One record as JSON, a list of them, or `-` to read it from standard input.
    """
    from nbmlops import endpoints

    if data == "-":
        if context.stdin is None:
            raise WrongUse("there is no standard input here", "Pass the records themselves.")
        data = context.stdin()
    text = data
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidRecords(
            f"the data is not JSON: {error}",
            "JSON has no NaN: write null where a value is missing."
            if "NaN" in text
            else """Quote it: `nbmlops call NAME '{"column": 1.5}'`; or `call NAME - < FILE`.""",
        ) from error
    return records.load(endpoints.call(context.workspace(), endpoint, text.encode()), CallAnswer)
