"""The three doors say the same words and give the same documents."""

import asyncio
import io
import json
import os
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest
from tornado.httpclient import HTTPClientError

from nbmlops import cli, commands, magic, models, parser, render, server_extension
from nbmlops.errors import WrongUse
from registered import version
from sources import notebook_text

pytest_plugins = ("pytest_jupyter.jupyter_server",)


def by_cli(words):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(words, as_json=True)
    return json.loads(out.getvalue()), code


def by_magic(shell, words):
    from IPython.core.error import UsageError

    out = io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            shell.run_line_magic("mlops", " ".join([*words, "--json"]))
    except (UsageError, magic.WorkFailed) as error:
        return {"error": str(error)}
    return json.loads(out.getvalue())


async def by_http(fetch, name, method="GET", /, **arguments):
    arguments = {"path": "tiny", **arguments}
    try:
        if method == "GET":
            # A list is one argument several times.
            params = [
                (key, item)
                for key, value in arguments.items()
                for item in (value if isinstance(value, list) else [value])
            ]
            answer = await fetch("nbmlops", "api", name, params=params)
        else:
            answer = await fetch("nbmlops", "api", name, method="POST", body=json.dumps(arguments))
    except HTTPClientError as error:
        return json.loads(error.response.body), error.code
    return json.loads(answer.body), answer.code


# What each command is asked through every door. `{first}` and `{second}` are runs, `{sweep}` is a
# sweep; a command that is in none of these tables fails a test.
READS = {
    "project": ([], {}),
    "runs": (["--pipeline", "train"], {"pipeline": "train"}),
    "run": (["{first}"], {"run_id": "{first}"}),
    "logs": (["{first}"], {"run_id": "{first}"}),
    "compare": (["{first}", "{second}"], {"run_ids": ["{first}", "{second}"]}),
    "models": ([], {}),
    "deployments": ([], {}),
    "trace": (["run/{first}"], {"reference": "run/{first}"}),
    "doctor": ([], {}),
    "plan": (["train", "-p", "depth=4"], {"what": "train", "param": ["depth=4"]}),
}
CHANGES = {
    # Each time the same once more; for `ci`, the file is there, just so.
    "check": (["--level", "block"], {"level": "block"}),
    "ci": (["github"], {"kind": "github"}),
    "gc": (["--keep", "30d"], {"keep": "30d"}),
    "cancel": (["{first}"], {"run_id": "{first}"}),
}
WORK = {
    "train": (["-p", "depth=4", "--force"], {"param": ["depth=4"], "force": True}),
    "rerun": (["{first}"], {"run_id": "{first}"}),
    "sweep": (
        ["-p", "depth=7,8", "--seed", "3", "--force"],
        {"param": ["depth=7,8"], "seed": 3, "force": True},
    ),
}
MISTAKES = [
    (["run", "nope"], {"run_id": "nope"}, "GET", "unknown-run", 404, 2),
    (["trace", "x"], {"reference": "x"}, "GET", "unknown-reference", 404, 2),
    (["trace", "call/zz"], {"reference": "call/zz"}, "GET", "unknown-call", 404, 2),
    (["monitor", "none"], {"endpoint": "none"}, "GET", "unknown-endpoint", 404, 2),
    (["trace", "none", "--source"], {"reference": "none"}, "GET", "unknown-reference", 404, 2),
    (["replay", "none"], {"reference": "none"}, "POST", "unknown-endpoint", 404, 2),
    (["replay", "call/zz"], {"reference": "call/zz"}, "POST", "unknown-call", 404, 2),
    (
        ["actuals", "none", "truths.csv"],
        {"endpoint": "none", "file": "truths.csv"},
        "POST",
        "unknown-endpoint",
        404,
        2,
    ),
    (
        ["predict", "none", "in.csv", "--out", "out.csv"],
        {"model": "none", "file": "in.csv", "out": "out.csv"},
        "POST",
        "unknown-model",
        404,
        2,
    ),
    (["monitor", "../x"], {"endpoint": "../x"}, "GET", "invalid-name", 400, 2),
    (["deploy", "none"], {"model": "none"}, "POST", "unknown-model", 404, 2),
    (["model", "none"], {"model": "none"}, "GET", "unknown-model", 404, 2),
    (["model", "none@x"], {"model": "none@x"}, "GET", "unknown-model", 404, 2),
    (["model", "x", "--at", "now"], {"model": "x", "at": "now"}, "GET", "wrong-use", 400, 2),
    (["alias", "none", "a"], {"model": "none", "alias": "a"}, "POST", "unknown-model", 404, 2),
    (["rollback", "none"], {"endpoint": "none"}, "POST", "unknown-endpoint", 404, 2),
    (["undeploy", "none"], {"endpoint": "none"}, "POST", "unknown-endpoint", 404, 2),
    (
        ["call", "none", "[]"],
        {"endpoint": "none", "data": "[]"},
        "POST",
        "unknown-endpoint",
        404,
        2,
    ),
    (["cancel", "none"], {"run_id": "none"}, "POST", "unknown-run", 404, 2),
    (["rerun", "none"], {"run_id": "none"}, "POST", "unknown-run", 404, 2),
    (["sync"], {}, "POST", "no-remote", 400, 2),
    (["sync", "--remote", "ext::x"], {"remote": "ext::x"}, "POST", "invalid-name", 400, 2),
    (["scheduler", "--every", "soon"], {"every": "soon"}, "POST", "wrong-use", 400, 2),
    (["gc", "--keep", "long"], {"keep": "long"}, "POST", "wrong-use", 400, 2),
    (["compare", "none", "no"], {"run_ids": ["none", "no"]}, "GET", "unknown-run", 404, 2),
    (["compare", "none"], {"run_ids": "none"}, "GET", "unknown-run", 404, 2),
    (["check", "no.ipynb"], {"files": ["no.ipynb"]}, "POST", "wrong-use", 400, 2),
    (["build"], {}, "POST", "environment-failed", 400, 2),
    (["plan", "deploy", "a"], {"what": "deploy", "name": "a"}, "GET", "unknown-model", 404, 2),
    (["plan", "deploy"], {"what": "deploy"}, "GET", "wrong-use", 400, 2),
    (["init", "."], {"folder": "."}, "POST", "project-exists", 409, 2),
    (["train", "nope"], {"pipeline": "nope"}, "POST", "unknown-pipeline", 404, 2),
    (["train", "-p", "deph=1"], {"param": ["deph=1"]}, "POST", "unknown-parameter", 400, 2),
    (["sweep", "-p", "depth=1"], {"param": ["depth=1"]}, "POST", "invalid-parameter", 400, 2),
]


def test_every_command_is_asked_through_every_door():
    asked = {*READS, *CHANGES, *WORK, *(words[0] for words, *_ in MISTAKES)}
    assert asked == {row.name for row in commands.TABLE}


def named(case, **names):
    """Return a case's words and arguments with the names put in."""
    words, arguments = case

    def put(value):
        if isinstance(value, list):
            return [put(item) for item in value]
        return value.format(**names) if isinstance(value, str) else value

    return put(words), {name: put(value) for name, value in arguments.items()}


@pytest.mark.slow
async def test_reads_are_the_same_through_every_door(jp_fetch, shell):
    first, code = await asyncio.to_thread(by_cli, ["train", "-p", "depth=5"])
    assert code == 0
    second, code = await asyncio.to_thread(by_cli, ["train", "-p", "depth=6"])
    assert code == 0
    by_cli(["ci", "github"])
    for name, case in {**READS, **CHANGES}.items():
        words, arguments = named(case, first=first["run_id"], second=second["run_id"])
        typed, code = by_cli([name, *words])
        assert code == 0, typed
        method = "GET" if name in READS else "POST"
        asked, status = await by_http(jp_fetch, name, method, **arguments)
        assert status == 200, asked
        if name == "project":  # a server tells places as its contents API names them
            assert asked.pop("path") == "tiny"
            assert typed.pop("path").endswith("/tiny")
        assert asked == typed, name
        if name not in ("logs", "project"):  # the magic prints lines as they are
            assert by_magic(shell, [name, *words]) == typed


OF_MODELS = [
    ("models", [], {}, "GET"),
    ("model", ["iris"], {"model": "iris"}, "GET"),
    ("model", ["iris@best"], {"model": "iris@best"}, "GET"),
    ("model", ["iris", "--at", "2999-01-01"], {"model": "iris", "at": "2999-01-01"}, "GET"),
    ("alias", ["iris:1", "best"], {"model": "iris:1", "alias": "best"}, "POST"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words", "arguments", "method"), OF_MODELS)
async def test_models_are_the_same_through_every_door(
    jp_fetch, shell, workspace, name, words, arguments, method
):
    for number in (1, 2):
        version(workspace, number)
    models.set_alias(workspace, "iris:1", "best")
    typed, code = by_cli([name, *words])
    assert code == 0, typed
    assert by_magic(shell, [name, *words]) == typed
    assert await by_http(jp_fetch, name, method, **arguments) == (typed, 200)


# What differs from one piece of work to the next that was asked for in the same words.
OWN = {"run_id", "sweep_id", "created_at", "started_at", "finished_at", "snapshot", "record_digest"}
OWN |= {"handle", "sweep", "digest", "bytes", "model_versions"}


def alike(document):
    """Return a document without what no two of them share."""
    if isinstance(document, dict):
        return {name: alike(value) for name, value in document.items() if name not in OWN}
    return [alike(item) for item in document] if isinstance(document, list) else document


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
async def test_work_is_the_same_through_every_door(jp_fetch, shell, name):
    run, _ = await asyncio.to_thread(by_cli, ["train"])
    words, arguments = named(WORK[name], first=run["run_id"])
    typed, code = await asyncio.to_thread(by_cli, [name, *words])
    assert (code, typed["status"]) == (0, "succeeded")
    told = await asyncio.to_thread(by_magic, shell, [name, *words])
    assert set(told) == set(typed)
    assert alike(told) == alike(typed)
    asked, status = await by_http(jp_fetch, name, "POST", **arguments)
    assert (status, set(asked)) == (200, set(typed))
    made = asked.get("run_id") or asked["sweep_id"]
    deadline = time.monotonic() + 120
    while asked["status"] in ("pending", "running") and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        asked, status = await by_http(jp_fetch, "run", run_id=made)
        assert status == 200
    assert alike(asked) == alike(typed)
    if name == "sweep":
        assert [trial["value"] for trial in typed["trials"]] == [0.7, 0.8]
        assert typed["best"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("words", "arguments", "method", "code", "status", "exit_code"), MISTAKES)
async def test_mistakes_are_the_same_through_every_door(
    jp_fetch, shell, words, arguments, method, code, status, exit_code
):
    typed, ended = by_cli(words)
    assert (typed["error"]["code"], ended) == (code, exit_code)
    assert typed["error"]["message"]
    assert typed["error"]["hint"]
    asked, told = await by_http(jp_fetch, words[0], method, **arguments)
    assert (asked, told) == (typed, status)
    said = by_magic(shell, words)["error"]
    assert typed["error"]["message"] in said
    assert typed["error"]["hint"] in said


async def test_every_route_wants_authentication_and_its_own_method(jp_fetch, jp_serverapp):
    live = [
        rule
        for rule in jp_serverapp.web_app.default_router.rules[0].target.rules
        if "nbmlops" in str(rule.matcher.regex.pattern)
    ] or [
        rule
        for group in jp_serverapp.web_app.default_router.rules
        for rule in getattr(group.target, "rules", [])
        if "nbmlops" in rule.matcher.regex.pattern
    ]
    assert {rule.target for rule in live} == {
        server_extension.CommandHandler,
        server_extension.ArtifactHandler,
    }
    assert len(live) == 2
    for method, route in server_extension.routes():
        parts = route.split("/")
        with pytest.raises(HTTPClientError) as caught:
            await jp_fetch(
                *parts,
                method=method,
                headers={"Authorization": "token wrong"},
                **({"body": "{}"} if method == "POST" else {}),
            )
        assert caught.value.code == 403, route
        other = "POST" if method == "GET" else "GET"
        with pytest.raises(HTTPClientError) as caught:
            await jp_fetch(*parts, method=other, **({"body": "{}"} if other == "POST" else {}))
        assert caught.value.code == 405, route


@pytest.mark.parametrize(
    ("name", "arguments", "method"),
    [
        ("runs", {"limit": "many"}, "GET"),
        ("runs", {"nope": "1"}, "GET"),
        ("run", {}, "GET"),
        ("train", {"param": "max_depth=6"}, "POST"),
        ("train", {"junit": "/tmp/report.xml"}, "POST"),
        ("runs", {"path": "../.."}, "GET"),
        ("init", {"folder": "../../elsewhere"}, "POST"),
    ],
)
async def test_a_request_that_has_no_meaning_is_refused(jp_fetch, name, arguments, method):
    asked, status = await by_http(jp_fetch, name, method, **arguments)
    assert status == 400
    assert asked["error"]["code"] == "wrong-use"
    assert asked["error"]["hint"]


async def test_a_bare_time_against_caches_is_no_argument(jp_fetch):
    answer = await jp_fetch("nbmlops", "api", "runs", params={"path": "tiny", "1790000000": ""})
    assert answer.code == 200


async def test_a_folder_without_a_project_says_so(jp_fetch, folder):
    asked, status = await by_http(jp_fetch, "runs", path="")
    assert (asked["error"]["code"], status) == ("no-project", 404)
    assert "nbmlops init" in asked["error"]["hint"]


async def test_the_notebook_that_one_stands_in_is_told_with_its_parameters(jp_fetch):
    asked, _ = await by_http(jp_fetch, "project", path="tiny/train.ipynb")
    assert asked["path"] == "tiny"
    assert (asked["notebook"]["pipeline"], asked["notebook"]["step"]) == ("train", "train")
    assert [p["name"] for p in asked["notebook"]["parameters"]] == ["depth", "name"]


# --- the magic ----------------------------------------------------------------------------------


def test_inside_a_job_the_magic_does_nothing(shell, monkeypatch, capsys):
    monkeypatch.setenv("NBMLOPS_JOB", "train-1")
    shell.run_line_magic("mlops", "train no-such-pipeline")
    shell.run_cell_magic("mlops", "train", "-p what=ever")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "place"),
    [(["logs"], "RUN_ID"), (["compare"], "RUN_ID"), (["call", "x"], "DATA")],
)
def test_what_is_left_out_is_named_as_the_help_names_it(words, place):
    with pytest.raises(WrongUse, match=f"^`{words[0]}` wants {place} after it") as refused:
        parser.parse(words)
    assert refused.value.hint == f"See: `nbmlops {words[0]} --help`."


def test_a_mistake_in_a_cell_shows_no_traceback(shell, capsys):
    shell.run_cell("%mlops run nope")
    shown = capsys.readouterr()
    assert "there is no run `nope`" in shown.err + shown.out
    assert "Traceback" not in shown.err + shown.out


def test_the_notebook_one_stands_in_is_what_train_means(shell, folder, monkeypatch):
    (folder / "other.ipynb").write_text(notebook_text("a = 1"))
    monkeypatch.setenv("JPY_SESSION_NAME", str(folder / "other.ipynb"))
    assert magic.current_notebook(shell) == folder / "other.ipynb"
    monkeypatch.setenv("JPY_SESSION_NAME", "tiny/other.ipynb")
    assert magic.current_notebook(shell) == folder / "other.ipynb"
    monkeypatch.setenv("JPY_SESSION_NAME", "gone.ipynb")
    assert magic.current_notebook(shell) is None


def test_commands_and_options_are_completed(shell):
    from IPython.core.completer import provisionalcompleter

    def completed(line):
        with provisionalcompleter():
            return {c.text for c in shell.Completer.completions(line, len(line))}

    assert completed("%mlops dep") == {"deploy", "deployments"}
    assert completed("%mlops train --d") == {"--detach"}
    assert completed("%mlops train --j") >= {"--json", "--junit"}


@pytest.mark.slow
def test_the_same_once_more_is_told_as_cached(folder, monkeypatch):
    monkeypatch.chdir(folder)
    typed, _ = by_cli(["train"])
    assert [step["cached"] for step in typed["steps"]] == [False]
    # The report is written after the snapshot is taken.
    again, code = by_cli(["train", "--junit", "report.xml"])
    assert (code, again["run_id"]) == (0, typed["run_id"])
    assert [step["cached_from"] for step in again["steps"]] == [typed["run_id"]]
    assert f"taken from {typed['run_id']}" in (folder / "report.xml").read_text()


@pytest.mark.slow
def test_failed_work_stops_the_notebook_in_two_lines(shell, folder, capsys):
    (folder / "train.ipynb").write_text(notebook_text("1 / 0"))
    result = shell.run_cell("%mlops train")
    assert isinstance(result.error_in_exec, magic.WorkFailed)
    shown = capsys.readouterr()
    assert "ZeroDivisionError" in shown.err + shown.out
    assert "Traceback" not in shown.err + shown.out
    assert shell.user_ns["_mlops"].status == "failed"


# --- the command line ---------------------------------------------------------------------------


def test_every_command_and_option_has_help():
    for row in commands.TABLE:
        assert row.summary.endswith((".", ";")), row.name
        documentation = row.function.__doc__ or ""
        for parameter in row.parameters:
            assert f"\n    {parameter.name}\n" in documentation, (row.name, parameter.name)


@pytest.mark.parametrize(
    "words",
    [["nope"], ["train", "--nope"], ["run"], ["runs", "--limit", "many"], ["run", "a", "b"]],
)
def test_wrong_use_ends_with_2_and_what_to_type(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    typed, code = by_cli(words)
    assert code == 2
    assert typed["error"]["code"] == "wrong-use"
    assert "--help" in typed["error"]["hint"]


def test_help_names_each_command(capsys):
    assert cli.run(["--help"], as_json=False) == 0
    shown = capsys.readouterr().out
    for name in parser.command_names():
        assert name in shown


def test_a_fault_of_ours_is_still_one_json_document(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def broken(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("nbmlops.workspace.open_at", broken)
    typed, code = by_cli(["runs"])
    assert code == 1
    assert typed["error"]["code"] == "internal-error"


def test_control_characters_of_a_log_do_not_steer_the_terminal():
    assert render.printable("a\x1b[31mred\x1b[0m\x1b]0;title\x07\rb\x1b[2J") == (
        "a\x1b[31mred\x1b[0m]0;titleb[2J"
    )


@pytest.mark.slow
def test_a_failed_run_ends_with_1_and_a_junit_report(folder, monkeypatch):
    from xml.etree import ElementTree as ET

    monkeypatch.chdir(folder)
    (folder / "train.ipynb").write_text(notebook_text("raise ValueError('\\x1b[31m<bad> & \\x00')"))
    typed, code = by_cli(["train", "--junit", "report.xml"])
    assert (code, typed["status"], typed["cause"]["cell"]) == (1, "failed", 1)
    suite = ET.parse(folder / "report.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "ValueError" in (failure.get("message") or "")
    os.unlink(folder / "report.xml")
