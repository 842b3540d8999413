"""The route for the bytes that runs left: what it gives, and that they can do nothing in Lab."""

import asyncio
import json

import pytest
from tornado.httpclient import HTTPClientError

from nbmlops import pipelines, runs, submission
from nbmlops.records import ArtifactRecord, EarlierAttempt, RunRecord, Status, replace

pytest_plugins = ("pytest_jupyter.jupyter_server",)

HOSTILE = b"<!doctype html><script>parent.hacked = 1</script><img src=x onerror='hacked=1'>"
POLICY = ("sandbox;", "default-src 'none'", "img-src data:")


@pytest.fixture
def run(workspace):
    """A run that left a hostile page, a picture, a page that calls itself a script, and a log."""
    left = {
        "train.html": ("text/html", HOSTILE),
        "plots/a b.png": ("image/png", b"\x89PNG"),
        "evil": ("text/javascript", b"hacked = 1"),
        "picture.svg": ("image/svg+xml", b"<svg onload='hacked=1'/>"),
        "table.csv": (None, b"a,b"),
        "log.txt": ("text/plain", b"<b>no tag</b>"),
        'a";x=.bin': (None, b"\x00"),
    }
    pipeline = pipelines.find(workspace, "train")
    record = submission.submit(workspace, pipeline, {})
    record = runs.cancel(workspace, record.run_id)
    kept = runs.find(workspace, record.run_id)
    earlier = EarlierAttempt(
        attempt=1,
        status=Status.LOST,
        cause=None,
        started_at=None,
        finished_at=None,
        artifacts=(put(workspace, "train.html", "text/html", b"the first attempt's"),),
    )
    files = tuple(put(workspace, name, kind, data) for name, (kind, data) in left.items())
    made = replace(record, artifacts=files, attempts=2, earlier=(earlier,))
    runs.keep(workspace, made, kept.revision, "test:artifacts")
    return made


def put(workspace, name, kind, data):
    digest = workspace.artifacts.put(data)
    return ArtifactRecord(name=name, digest=digest, bytes=len(data), media_type=kind)


async def get(fetch, **arguments):
    try:
        return await fetch("nbmlops", "artifact", params={"path": "tiny", **arguments})
    except HTTPClientError as error:
        return error.response


async def refused(fetch, **arguments):
    answer = await get(fetch, **arguments)
    return answer.code, json.loads(answer.body)["error"]["code"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("train.html", "text/html; charset=utf-8", "inline"),
        ("log.txt", "text/plain; charset=utf-8", "inline"),
        ("plots/a b.png", "image/png", "inline"),
        ("table.csv", "text/plain; charset=utf-8", "inline"),
        ("evil", "application/octet-stream", "attachment"),
        ("picture.svg", "application/octet-stream", "attachment"),
        ('a";x=.bin', "application/octet-stream", "attachment"),
    ],
)
async def test_a_file_of_a_run_has_no_rights_whatever_it_is(jp_fetch, run, name, content, place):
    answer = await get(jp_fetch, run_id=run.run_id, name=name)
    assert answer.code == 200
    assert answer.headers["Content-Type"] == content
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    told = answer.headers["Content-Disposition"]
    assert told.startswith(f"{place}; filename*=UTF-8''")
    assert not set(told.partition("''")[2]) & set('";=/ ')
    [policy] = answer.headers.get_list("Content-Security-Policy")
    for part in POLICY:
        assert part in policy
    assert "allow-" not in policy


async def test_a_file_is_given_as_it_was_left_also_by_an_earlier_attempt(jp_fetch, run):
    newest = await get(jp_fetch, run_id=run.run_id, name="train.html")
    assert newest.body == HOSTILE
    first = await get(jp_fetch, run_id=run.run_id, name="train.html", attempt="1")
    assert first.body == b"the first attempt's"


async def test_a_file_that_is_not_there_or_not_asked_for_rightly_is_refused(jp_fetch, run):
    run_id = run.run_id
    assert await refused(jp_fetch, run_id=run_id, name="no.html") == (404, "unknown-reference")
    assert await refused(jp_fetch, run_id=run_id, name="../../x") == (404, "unknown-reference")
    assert await refused(jp_fetch, run_id="no", name="train.html") == (404, "unknown-run")
    assert await refused(jp_fetch, run_id=run_id) == (400, "wrong-use")
    asked = {"run_id": run_id, "name": "train.html"}
    assert await refused(jp_fetch, **asked, attempt="-1") == (400, "wrong-use")
    assert await refused(jp_fetch, **asked, attempt="3") == (404, "unknown-reference")
    assert await refused(jp_fetch, **asked, path="../..") == (400, "wrong-use")


async def test_a_file_whose_bytes_were_changed_is_not_given(jp_fetch, run, workspace):
    digest = run.artifacts[0].digest
    path = workspace.home.artifacts / digest[:2] / digest[2:]
    path.chmod(0o644)
    path.write_bytes(b"something else")
    answered = await refused(jp_fetch, run_id=run.run_id, name="train.html")
    assert answered == (503, "artifact-corrupt")


async def test_a_file_too_large_for_a_browser_is_refused_with_the_way_to_have_it(
    jp_fetch, run, workspace
):
    kept = await asyncio.to_thread(runs.find, workspace, run.run_id)
    large = replace(run.artifacts[0], bytes=65 * 2**20)
    runs.keep(workspace, replace(run, artifacts=(large,)), kept.revision, "test:large")
    answer = await get(jp_fetch, run_id=run.run_id, name="train.html")
    error = json.loads(answer.body)["error"]
    assert (answer.code, error["code"]) == (400, "wrong-use")
    assert f"nbmlops run {run.run_id} --save" in error["hint"]


@pytest.mark.slow
async def test_what_is_due_is_done_while_the_server_is_up(jp_fetch, workspace):
    pipeline = pipelines.find(workspace, "train")
    record = submission.submit(workspace, pipeline, {})
    await jp_fetch("nbmlops", "api", "project", params={"path": "tiny"})  # somebody works in it

    def status():
        return workspace.store.get(runs.KIND, record.run_id, RunRecord).record.status

    for _ in range(600):
        if status().is_final:
            break
        await asyncio.sleep(0.1)
    assert status() is Status.SUCCEEDED, "nobody has asked for the run, and it was collected"
