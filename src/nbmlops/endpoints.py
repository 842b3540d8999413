"""Endpoints: a URL that stays, and a front behind it that is told where the traffic goes.

An endpoint is a job that runs a front. Its route table is recorded first and handed over then; a
front takes only a higher revision, and confirms it. An endpoint that restarts takes the table from
its inbox.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import secrets
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from nbmlops import calllog, decisions, images, layout, records, sites, tensors
from nbmlops._version import __version__
from nbmlops.errors import (
    CallFailed,
    DeploymentFailed,
    EndpointUnreachable,
    NbmlopsError,
    UnknownEndpoint,
    WrongUse,
    nearest,
)
from nbmlops.records import (
    DeploymentRecord,
    EndpointRecord,
    FrontSpec,
    JobHandle,
    JobSpec,
    JobStatus,
    Route,
    RouteTable,
    Status,
    replace,
)
from nbmlops.workspace import FAR, StartedElsewhere, Workspace

KIND = "endpoint"
READY_S = 90.0
READY_FAR_S = 300.0  # a node may have to pull the image first
_END_S = 20.0


def find(workspace: Workspace, name: str) -> EndpointRecord | None:
    """Return the endpoint of that name, up or not, or ``None`` when there never was one."""
    kept = workspace.store.get(KIND, layout.checked_name(name, "endpoint"), EndpointRecord)
    return None if kept is None else kept.record


def every(workspace: Workspace) -> list[EndpointRecord]:
    """Return all endpoints that there ever were."""
    return [kept.record for kept in workspace.store.page(KIND, EndpointRecord, limit=10_000)]


def running(workspace: Workspace, name: str) -> EndpointRecord:
    """Return the endpoint of that name.

    Raises
    ------
    UnknownEndpoint
        When it is not up.
    """
    found = find(workspace, name)
    if found is not None and found.running:
        return found
    known = [endpoint.endpoint for endpoint in every(workspace) if endpoint.running]
    hint = nearest(name, known) if known else f"Deploy one: `nbmlops deploy {name}`."
    raise UnknownEndpoint(f"no endpoint `{name}` is up", hint, endpoint=name)


def launcher_of(workspace: Workspace, name: str) -> str:
    """Return where an endpoint is up; one that is not is to be made on this machine."""
    found = find(workspace, name)
    return found.launcher if found is not None and found.running else "local"


def lock(name: str) -> str:
    """Return the name of the lock that whoever changes an endpoint holds."""
    return f"endpoint-{name}"


def is_here(workspace: Workspace, record: EndpointRecord | DeploymentRecord) -> bool:
    """Return whether what a record tells of is for this clone to look at, to settle and to end."""
    return workspace.reaches(record.launcher, record.place)


def refuse_elsewhere(workspace: Workspace, name: str) -> None:
    """Refuse an endpoint that is up in another clone.

    Raises
    ------
    StartedElsewhere
        When it is.
    """
    found = find(workspace, name)
    if found is not None and found.running and not is_here(workspace, found):
        raise StartedElsewhere(
            f"the endpoint `{name}` is up in another clone of this project, at {found.url}",
            f"End it there: `nbmlops undeploy {name}`; or serve under another name:"
            " `nbmlops deploy MODEL --endpoint NAME`.",
            endpoint=name,
            place=found.place,
        )


class CallsEphemeral(NbmlopsError):
    """Nothing would keep the calls of an endpoint."""

    code = "calls-ephemeral"


def calls_are_ephemeral(workspace: Workspace, launcher: str) -> bool:
    """Return whether calls are lost with the pod that answers them."""
    return launcher in FAR and workspace.settings.kubernetes.exchange == "secret"


def refuse_ephemeral(workspace: Workspace, name: str, launcher: str, *, allowed: bool) -> None:
    """Refuse to serve where nothing keeps the calls, unless that was allowed, now or before.

    Raises
    ------
    CallsEphemeral
        When it was not.
    """
    if allowed or not calls_are_ephemeral(workspace, launcher):
        return
    found = find(workspace, name)
    if found is not None and found.running and found.launcher == launcher:
        return
    raise CallsEphemeral(
        "in the cluster nothing keeps the calls: they would be lost with the pod that answers them",
        'Name an object store or a claim, exchange = "s3://..." or "pvc:NAME" under [kubernetes] in'
        " nbmlops.toml; or do without: `--ephemeral-calls`.",
        endpoint=name,
    )


def made(workspace: Workspace, name: str, launcher: str) -> EndpointRecord:
    """Return the endpoint of that name; a new one gets a free port, which it keeps.

    One that another clone had, and that is not up any more, becomes ours.

    Raises
    ------
    StartedElsewhere
        When it is up in another clone.
    Conflict
        When another clone makes it at this moment.
    WrongUse
        When it is up on another launcher.
    """
    refuse_elsewhere(workspace, name)
    kept = workspace.store.get(KIND, layout.checked_name(name, "endpoint"), EndpointRecord)
    if kept is not None and is_here(workspace, kept.record):
        if kept.record.launcher == launcher:
            return kept.record
        if kept.record.running:
            raise WrongUse(
                f"the endpoint `{name}` is up on {kept.record.launcher}, and a front and its worker"
                " are always in one place",
                f"Serve under another name (`--endpoint NAME`), or end it first:"
                f" `nbmlops undeploy {name}`.",
                endpoint=name,
            )
    record = found_again(workspace, name, launcher)
    revision = kept.revision if kept else 0
    key = f"{KIND}:{name}:made:{record.place}:{revision}"  # that of another clone is another's
    workspace.store.swap(KIND, name, record, expected=revision, key=key)
    return record


def found_again(workspace: Workspace, name: str, launcher: str) -> EndpointRecord:
    """Return the record of an endpoint that the store does not know, with the URL that it had.

    A front that is up tells its own, the ledger that of one that is down; else the port is any
    that is free. Its revision is not below that of the table that the front has.
    """
    job = JobHandle(launcher=launcher, name=f"endpoint-{name}")
    placed = [
        item
        for item in decisions.placed(decisions.here(workspace))
        if item.decision.endpoint == name
    ]
    if launcher in FAR:  # which gives the URL when the front is launched
        up, url, port = True, "", images.PORT
    else:
        status = workspace.launcher(launcher).poll([job])[job]
        up = status.status is Status.RUNNING
        known = (status.address if up else None, *(item.decision.url for item in reversed(placed)))
        url = next((url for url in known if url), None) or f"http://127.0.0.1:{tensors.free_port()}"
        port = int(url.rpartition(":")[2])
    table = given(workspace, job)
    return EndpointRecord(
        endpoint=name,
        launcher=launcher,
        port=port,
        url=url,
        # Without its table, the time is a number that no front has counted to.
        revision=table.revision if table else int(workspace.now().timestamp()) if up else 0,
        deployment_id=None,
        running=False,
        created_at=placed[0].entry.at if placed else workspace.now(),
        handle=job,
        place=decisions.place(workspace),
    )


def given(workspace: Workspace, job: JobHandle) -> RouteTable | None:
    """Return the route table that a front was given last."""
    try:
        data = (workspace.home.job(job.name).inbox / layout.ROUTES_FILE).read_bytes()
        return records.load(data, RouteTable)
    except (OSError, msgspec.DecodeError):
        return None


def point(workspace: Workspace, name: str, deployment_id: str | None) -> EndpointRecord:
    """Record where the endpoint's traffic is to go (nowhere: ``None``); the front follows."""
    refuse_elsewhere(workspace, name)
    kept = workspace.store.get(KIND, name, EndpointRecord)
    if kept is None:
        raise UnknownEndpoint(f"there is no endpoint `{name}`", f"`nbmlops deploy {name}`")
    pointed = replace(
        kept.record,
        revision=kept.record.revision + 1,
        deployment_id=deployment_id,
        running=deployment_id is not None,
    )
    # By the record's revision: route tables are counted anew where another clone takes the name.
    key = f"{KIND}:{name}:{kept.revision}:{deployment_id}"
    workspace.store.swap(KIND, name, pointed, expected=kept.revision, key=key)
    return pointed


def handle(endpoint: EndpointRecord) -> JobHandle:
    """Return the job that runs the endpoint's front."""
    return endpoint.handle or JobHandle(
        launcher=endpoint.launcher, name=f"endpoint-{endpoint.endpoint}"
    )


def until_ready(workspace: Workspace, job: JobHandle, what: str, remedy: str = "") -> JobStatus:
    """Wait until a job with a port answers.

    Raises
    ------
    DeploymentFailed
        When it ends, or does not answer in time.
    """
    launcher = workspace.launcher(job.launcher)
    hint = f"See what it wrote: `nbmlops logs {job.name}`.{remedy}"
    patience_s = READY_FAR_S if job.launcher in FAR else READY_S
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        status = launcher.poll([job])[job]
        if status.ready:
            return status
        if status.status.is_final:
            cause = status.cause.message if status.cause else "it ended"
            if job.launcher in FAR and status.cause and status.cause.hint:
                hint = status.cause.hint  # what a cluster refuses has its own remedy
            raise DeploymentFailed(f"{what} did not start: {cause}", hint, job=job.name)
        time.sleep(0.5 if job.launcher in FAR else 0.05)
    raise DeploymentFailed(f"{what} was not ready within {patience_s:.0f} s", hint, job=job.name)


def until_ended(workspace: Workspace, jobs: list[JobHandle]) -> None:
    """Wait until the jobs have ended; what does not end in time is left to ``doctor``."""
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        ended = [workspace.launcher(job.launcher).poll([job])[job].status.is_final for job in jobs]
        if all(ended):
            return
        time.sleep(0.1)


def serve(workspace: Workspace, endpoint: EndpointRecord, routes: tuple[Route, ...]) -> None:
    """Hand the routes to the endpoint's front, which is started where it is not up.

    Raises
    ------
    DeploymentFailed
        When the front does not start, or refuses the routes.
    """
    job = handle(endpoint)
    launcher = workspace.launcher(endpoint.launcher)
    paths = workspace.home.job(job.name)
    table = RouteTable(endpoint=endpoint.endpoint, revision=endpoint.revision, routes=routes)
    layout.write_file(paths.inbox / layout.ROUTES_FILE, records.dump(table), mode=0o600)
    what = f"the endpoint {endpoint.endpoint} on {endpoint.url}"
    if endpoint.launcher in FAR:
        _start(workspace, endpoint)  # the same once more; one that starts again has these routes
        _hand_over_patiently(workspace, endpoint, table, what)
        until_ready(workspace, job, what)
        return
    if launcher.poll([job])[job].status is Status.RUNNING:
        if _hand_over(workspace, endpoint, table):
            return
        stop(workspace, endpoint)  # it is up and does not answer
        until_ended(workspace, [job])
    _start(workspace, endpoint, anew=True)
    until_ready(workspace, job, what, f" Another program may have port {endpoint.port}.")
    if not _hand_over(workspace, endpoint, table):
        stop(workspace, endpoint)
        raise DeploymentFailed(
            f"another program answers on {endpoint.url}",
            f"End it, or see who it is: `lsof -i :{endpoint.port}`; then deploy again.",
        )


def _start(workspace: Workspace, endpoint: EndpointRecord, *, anew: bool = False) -> JobHandle:
    """Launch the endpoint's front; ``anew`` with another token for its control."""
    token = workspace.home.control_token(endpoint.endpoint)
    if anew or not token.exists():
        layout.write_file(token, secrets.token_urlsafe(32).encode(), mode=0o600)
    return workspace.launcher(endpoint.launcher).launch(front(workspace, endpoint))


def located(workspace: Workspace, endpoint: EndpointRecord) -> EndpointRecord:
    """Return an endpoint with its URL, which a cluster gives when the front is launched."""
    if endpoint.launcher not in FAR:
        return endpoint
    job, launcher = handle(endpoint), workspace.launcher(endpoint.launcher)
    inbox = workspace.home.job(job.name).inbox
    if not (inbox / layout.ROUTES_FILE).exists() or not endpoint.running:
        table = RouteTable(endpoint=endpoint.endpoint, revision=endpoint.revision, routes=())
        layout.write_file(inbox / layout.ROUTES_FILE, records.dump(table), mode=0o600)
    _start(workspace, endpoint)
    address = launcher.poll([job])[job].address
    if address is None:
        raise DeploymentFailed(
            f"the endpoint {endpoint.endpoint} got no address in the cluster",
            f"See what became of it: `nbmlops logs {job.name}`.",
            job=job.name,
        )
    host = workspace.settings.kubernetes.host_of(job.name)
    url = f"http://{host}" if host else address.replace("tcp:", "http://", 1)
    if url == endpoint.url:
        return endpoint
    kept = workspace.store.get(KIND, endpoint.endpoint, EndpointRecord)
    revision = kept.revision if kept else 0
    placed = replace(kept.record if kept else endpoint, url=url)
    key = f"{KIND}:{endpoint.endpoint}:located:{revision}"
    workspace.store.swap(KIND, endpoint.endpoint, placed, expected=revision, key=key)
    return placed


def access_token(workspace: Workspace, endpoint: EndpointRecord) -> Path | None:
    """Return the file with the token that callers bear, beyond this machine's loopback."""
    if endpoint.launcher not in FAR:
        return None
    path = workspace.home.access_token(endpoint.endpoint)
    if not path.exists():
        layout.write_file(path, secrets.token_urlsafe(32).encode(), mode=0o600)
    return path


def front(workspace: Workspace, endpoint: EndpointRecord) -> JobSpec:
    """Return the job that is an endpoint's front, its inbox filled but for the routes."""
    job = described(workspace, endpoint, *sites.tool(workspace, endpoint.launcher))
    published = job.image is not None and endpoint.launcher not in FAR
    access = access_token(workspace, endpoint)
    spec = FrontSpec(
        endpoint=endpoint.endpoint,
        calls="" if job.image else str(workspace.home.calls),
        control_digest=_digest(workspace.home.control_token(endpoint.endpoint)),
        access_digest=_digest(access) if access else None,
        hosts=(f"127.0.0.1:{endpoint.port}", f"localhost:{endpoint.port}") if published else (),
        published_on_loopback=published,
    )
    paths = workspace.home.job(job.name)
    key = workspace.home.calls / calllog.KEY_FILE
    if access is not None and key.exists():  # the log is written far from home
        layout.write_file(paths.inbox / calllog.KEY_FILE, key.read_bytes(), mode=0o600)
    layout.write_file(paths.inbox / layout.SPEC_FILE, records.dump(spec))
    for outbox in (paths.outbox, workspace.home.calls):
        outbox.mkdir(parents=True, exist_ok=True)
    return job


def _digest(token: Path) -> str:
    return hashlib.sha256(token.read_bytes()).hexdigest()


def described(
    workspace: Workspace, endpoint: EndpointRecord, tool: str, image: str | None
) -> JobSpec:
    """Return the job that is an endpoint's front, as a launcher is told it."""
    name = handle(endpoint).name
    paths = workspace.home.job(name)
    # In a container the call log is the outbox: nothing else of home is seen there.
    outbox = workspace.home.calls if image else paths.outbox
    return JobSpec(
        name=name,
        command=(tool, "-m", "nbmlops.front"),
        inbox=paths.inbox.as_uri(),
        outbox=outbox.as_uri(),
        image=image,
        port=endpoint.port,
        exposed=True,
        # Where its readiness decides whether anybody reaches it, it answers while workers sleep.
        ready_path="/health/live" if endpoint.launcher in FAR else "/health/ready",
        labels={"endpoint": endpoint.endpoint},
    )


def told(workspace: Workspace, name: str) -> tuple[Route, ...]:
    """Return the routes that an endpoint's front was given last."""
    path = workspace.home.job(f"endpoint-{name}").inbox / layout.ROUTES_FILE
    try:
        return records.load(path.read_bytes(), RouteTable).routes
    except (FileNotFoundError, msgspec.MsgspecError):
        return ()


def stop(workspace: Workspace, endpoint: EndpointRecord) -> None:
    """Ask the endpoint's front to end."""
    workspace.launcher(endpoint.launcher).cancel(handle(endpoint))


def _hand_over(workspace: Workspace, endpoint: EndpointRecord, table: RouteTable) -> bool:
    """Give a running front its new table; return whether it has confirmed."""
    token = workspace.home.control_token(endpoint.endpoint)
    if not token.exists():
        return False
    headers = {
        "Authorization": f"Bearer {token.read_text().strip()}",
        "Content-Type": "application/json",
    }
    try:
        status, body = _request(
            workspace, endpoint, "PUT", "/control/routes", records.dump(table), headers
        )
    except EndpointUnreachable:
        return False
    if status != 200:
        raise DeploymentFailed(
            f"the endpoint {endpoint.endpoint} refused its new routes: {body[:200]!r}",
            f"Start it anew: `nbmlops undeploy {endpoint.endpoint}`, then deploy again.",
        )
    try:
        return msgspec.json.decode(body).get("revision") == table.revision
    except (msgspec.DecodeError, AttributeError):
        return False


def call(workspace: Workspace, endpoint: str, payload: bytes) -> bytes:
    """Send a prediction to an endpoint and return the body of its answer.

    Raises
    ------
    UnknownEndpoint
        When it is not up.
    EndpointUnreachable
        When it does not answer.
    CallFailed
        When it answers with an error, whose message it carries on.
    """
    found = running(workspace, endpoint)
    headers = {"Content-Type": "application/json", "User-Agent": f"nbmlops/{__version__}"}
    token = access_token(workspace, found)
    if token is not None:
        headers["Authorization"] = f"Bearer {token.read_text().strip()}"
    status, body = _request(workspace, found, "POST", "/predict", payload, headers)
    if status == 200 and b'"call_id"' in body:
        return body
    if status == 200:
        raise EndpointUnreachable(
            f"another program answers on {found.url}", "See what is up: `nbmlops deployments`."
        )
    raise _call_error(found, status, body)


def called_at(workspace: Workspace, endpoint: EndpointRecord) -> datetime | None:
    """Return when an endpoint was called last, answered or not; ``None`` when nobody knows.

    Raises
    ------
    EndpointUnreachable
        When it does not answer.
    """
    _, body = _request(workspace, endpoint, "GET", "/metrics", b"", {})
    found = re.search(rb"(?m)^nbmlops_last_call_timestamp_seconds ([0-9.e+]+)$", body)
    seconds = float(found[1]) if found else 0.0
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _call_error(endpoint: EndpointRecord, status: int, body: bytes) -> CallFailed:
    try:
        told = msgspec.json.decode(body)["error"]
        message, hint = str(told["message"]), str(told.get("hint") or "")
        context = {"status": status, "code": str(told.get("code"))}
    except (msgspec.DecodeError, KeyError, TypeError):
        message, hint, context = f"{endpoint.url} answered {status}", "", {"status": status}
    error = InvalidCall if status in (400, 413, 415, 422) else CallFailed
    return error(message, hint or f"See the schema: {endpoint.url}/docs", **context)


class InvalidCall(CallFailed):
    """An endpoint refused what it was sent."""

    code = "invalid-records"
    exit_code = 2


def _hand_over_patiently(
    workspace: Workspace, endpoint: EndpointRecord, table: RouteTable, what: str
) -> None:
    """Give a front its new table as soon as it answers: its pod may have to start first."""
    job = handle(endpoint)
    deadline = time.monotonic() + READY_FAR_S
    while not _hand_over(workspace, endpoint, table):
        status = workspace.launcher(job.launcher).poll([job])[job]
        hint = f"See what it wrote: `nbmlops logs {job.name}`."
        if status.status.is_final:
            cause = status.cause.message if status.cause else "it ended"
            raise DeploymentFailed(f"{what} did not start: {cause}", hint, job=job.name)
        if time.monotonic() > deadline:
            raise DeploymentFailed(f"{what} does not take its routes", hint, job=job.name)
        time.sleep(0.2)


@contextlib.contextmanager
def _reached(workspace: Workspace, endpoint: EndpointRecord) -> Generator[str, None, None]:
    """Yield ``HOST:PORT`` by which this machine reaches an endpoint's front."""
    far = endpoint.launcher in FAR and not workspace.settings.kubernetes.ingress_host
    if not far:
        yield endpoint.url.removeprefix("http://")
        return
    with workspace.launcher(endpoint.launcher).reach(handle(endpoint)) as address:
        if not address:
            raise EndpointUnreachable(
                f"no pod of the endpoint {endpoint.endpoint} is up",
                "See what is up: `nbmlops deployments`.",
            )
        yield address.removeprefix("tcp:")


def _request(
    workspace: Workspace,
    endpoint: EndpointRecord,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
) -> tuple[int, bytes]:
    with _reached(workspace, endpoint) as place:
        connection = http.client.HTTPConnection(place, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EndpointUnreachable(
                f"{endpoint.url} does not answer: {error}",
                "See what is up: `nbmlops deployments`.",
            ) from error
        finally:
            connection.close()
