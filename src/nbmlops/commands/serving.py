"""Commands on models, deployments and calls."""

from __future__ import annotations

import msgspec

from nbmlops import records
from nbmlops.commands.answers import AliasAnswer
from nbmlops.commands.context import Context, Launchers
from nbmlops.errors import InvalidRecords, WrongUse
from nbmlops.records import (
    CallAnswer,
    DeploymentRecord,
    Listing,
    ModelReport,
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
    found = verbs.aliased(workspace, verbs.versions(workspace, model))
    return Listing(items=tuple(verbs.pushed(workspace, found)))


def model(context: Context, model: str, *, at: str | None = None) -> ModelReport:
    """Show a model: its versions, where they serve, who decided what and when, and their lineage.

    Read from the ledger, so it can be asked of any day. An entry counts as before that moment by
    the clock of whoever decided; what comes later in the ledger stands, whatever the clocks say.

    Parameters
    ----------
    model
        `NAME` for the newest version, `NAME:VERSION`, or `NAME@ALIAS`.
    at
        As it stood then: a date (the end of that day, UTC) or a time such as 2026-05-01T12:00:00Z.
    """
    from nbmlops import catalog

    return catalog.report(context.workspace(), model, at=at)


def alias(context: Context, model: str, alias: str, *, remove: bool = False) -> AliasAnswer:
    """Give a model version a name that can be moved on, such as `best`.

    `NAME@ALIAS` stands for that version wherever a version is asked for. An alias names one version
    of its model; each move is an entry of the ledger.

    Parameters
    ----------
    model
        `NAME:VERSION`, `NAME` for the newest version, or `NAME@ALIAS`.
    alias
        Lower-case letters, digits and hyphens, beginning with a letter.
    remove
        Take the alias from that version instead.
    """
    from nbmlops import models as verbs

    workspace = context.workspace()
    act = verbs.take_alias if remove else verbs.set_alias
    decided = act(workspace, model, alias)
    named = f"{decided.model}:{decided.version}" if decided else model
    return AliasAnswer(
        version=verbs.aliased(workspace, [verbs.find(workspace, named)])[0],
        alias=alias,
        removed=remove,
        moved_from=decided.moved_from if decided else None,
        changed=decided is not None,
    )


def deploy(
    context: Context,
    model: str,
    *,
    endpoint: str | None = None,
    on: Launchers | None = None,
    ephemeral_calls: bool = False,
) -> DeploymentRecord:
    """Serve a model version as an HTTP service whose URL stays.

    Parameters
    ----------
    model
        `NAME` for the newest version, `NAME:VERSION`, or `NAME@ALIAS`.
    endpoint
        The endpoint's name, if not the model's: several versions can be served side by side.
    on
        Where it serves: in processes of this machine (`local`), in containers of its Docker
        engine, or in a Kubernetes cluster. Without it: where the endpoint is up, else on this
        machine.
    ephemeral_calls
        Serve in a cluster although nothing there keeps the calls; they are lost with their pod.
    """
    from nbmlops import deployments as verbs

    return verbs.deploy(
        context.workspace(), model, endpoint=endpoint, launcher=on, ephemeral_calls=ephemeral_calls
    )


def rollback(context: Context, endpoint: str, *, to: int | str | None = None) -> DeploymentRecord:
    """Go back to the version that took the traffic before, without a failed call.

    Once more goes back further: after versions 1, 2 and 3 the first rollback leads to 2, the next
    one to 1.

    Parameters
    ----------
    endpoint
        The endpoint's name.
    to
        An earlier version instead, by its number or as `NAME:VERSION`; it must have taken the
        traffic before.
    """
    from nbmlops import deployments as verbs

    return verbs.rollback(context.workspace(), endpoint, None if to is None else str(to))


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
    verbs.recover(workspace)
    verbs.rest(workspace)
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
    from nbmlops import deployments as verbs

    payload = _payload(context, data)
    return records.load(verbs.call(context.workspace(), endpoint, payload), CallAnswer)


def _payload(context: Context, data: str) -> bytes:
    """Return what is to be sent: JSON in UTF-8, whatever else it says."""
    try:
        if data == "-":
            if context.stdin is None:
                raise WrongUse("there is no standard input here", "Pass the records themselves.")
            data = context.stdin()
        payload = data.encode()
    except UnicodeError as error:  # read as another encoding, or kept as bytes that are none
        raise InvalidRecords(
            f"the data is not UTF-8: {error.reason}"
            if isinstance(error, UnicodeDecodeError | UnicodeEncodeError)
            else "the data is not UTF-8",
            "Convert it: `iconv -f LATIN1 -t UTF-8 FILE | nbmlops call NAME -`.",
        ) from error
    try:
        msgspec.json.decode(payload)
    except RecursionError as error:
        raise InvalidRecords(
            "the data is nested too deeply",
            """Send a record, or a list of them: `nbmlops call NAME '{"column": 1.5}'`.""",
        ) from error
    except msgspec.DecodeError as error:
        raise InvalidRecords(
            f"the data is not JSON: {error}",
            "JSON has no NaN: write null where a value is missing."
            if b"NaN" in payload
            else """Quote it: `nbmlops call NAME '{"column": 1.5}'`; or `call NAME - < FILE`.""",
        ) from error
    return payload
