"""Notebooks of every kind, each through a whole run: what they do ends named and bounded."""

import json
import os
import resource
import subprocess
import time

import nbformat
import psutil
import pytest

from nbmlops import pipelines, runs, submission
from nbmlops import workspace as workspaces
from nbmlops.records import Status
from sources import git, notebook_text
from terminal import refused

pytestmark = pytest.mark.slow


def changed(text, **changes):
    return json.dumps({**json.loads(text), **changes})


def without_ids(text):
    document = json.loads(text)
    for cell in document["cells"]:
        del cell["id"]
    return json.dumps({**document, "nbformat_minor": 2})


def with_one_id(text):
    document = json.loads(text)
    for cell in document["cells"]:
        cell["id"] = "same"
    return json.dumps(document)


PLAIN = notebook_text("print('one')", "print('two')", "print('three')")
OTHER_KERNEL = {"kernelspec": {"name": "gone", "display_name": "g", "language": "python"}}

GOOD = {
    "no-parameters": PLAIN,
    "no-cells": notebook_text(),
    "no-metadata": changed(PLAIN, metadata={}),
    "missing-kernel": changed(PLAIN, metadata=OTHER_KERNEL),
    "without-ids": without_ids(PLAIN),
    "doubled-ids": with_one_id(PLAIN),
    "meant-to-raise": notebook_text(
        ("raises-exception", "1 / 0"), ("raises-exception", "print('or not')"), "print('three')"
    ),
    "many-files": notebook_text(
        "import pathlib\npathlib.Path('many').mkdir()\n"
        "for n in range(10_000):\n    pathlib.Path(f'many/{n}').write_text('x')",
        "print('three')",
    ),
    "leaves-a-process": notebook_text(
        "import subprocess\nsubprocess.Popen(['sleep', '987654'], start_new_session=True)",
        "print('three')",
    ),
    "half-a-character": notebook_text("print('\\udcff')\n'\\udcff'"),
    "closes-its-output": notebook_text("import os\nos.close(1)\nos.close(2)", "print('three')"),
    "large-picture": notebook_text(
        "from IPython.display import display\nimport os\n"
        "for n in range(30):\n"
        "    display({'image/png': os.urandom(2**21).hex()}, raw=True)",
        "print('three')",
    ),
}
# What is run, with the cause's code, and what the cause says.
BAD = {
    "asks": (notebook_text("input('name? ')"), "cell-failed", "StdinNotImplementedError"),
    "asks-in-secret": (
        notebook_text("import getpass\ngetpass.getpass()"),
        "cell-failed", "StdinNotImplementedError",
    ),
    "exits": (notebook_text("import sys\nsys.exit()", "print('two')"), "cell-failed", "0 of 2"),
    "exits-with-3": (notebook_text("import sys\nsys.exit(3)"), "cell-failed", "SystemExit: 3"),
    "recurses": (notebook_text("f = lambda: f()\nf()"), "cell-failed", "RecursionError"),
    "is-no-python": (notebook_text("for for"), "cell-failed", "SyntaxError"),
    "raises-after-one-that-may": (
        notebook_text(("raises-exception", "1 / 0"), "{}['key']"), "cell-failed", "KeyError",
    ),
    "group": (notebook_text("import os\nos.kill(0, 9)"), None, ""),
    "interrupts-itself": (
        notebook_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\n"
                      "time.sleep(1)"),
        "cell-failed", "KeyboardInterrupt",
    ),
}  # fmt: skip


def finish(workspace, run_id, patience_s=120):
    deadline = time.monotonic() + patience_s
    for seen in runs.watch(workspace, run_id, every_s=0.05):
        assert time.monotonic() < deadline, seen
    return runs.get(workspace, run_id)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """All of them: those that run to their end as branches of one run, each other as its own."""
    folder = tmp_path_factory.mktemp("odd") / "odd"
    (folder / "real").mkdir(parents=True)
    steps = ", ".join(f'{{ notebook = "{name}.ipynb", after = [] }}' for name in (*GOOD, "linked"))
    (folder / "nbmlops.toml").write_text(
        f'[project]\nname = "odd"\n[pipelines.good]\nsteps = [{steps}]\n'
    )
    texts = {**GOOD, **{name: text for name, (text, _, _) in BAD.items()}}
    for name, text in texts.items():
        (folder / f"{name}.ipynb").write_text(text)
    (folder / "real" / "notebook.ipynb").write_text(PLAIN)
    (folder / "linked.ipynb").symlink_to("real/notebook.ipynb")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "odd")
    workspace = workspaces.open_at(folder)
    done, under_way = {}, {}
    waiting = ["good", *(f"{name}.ipynb" for name in BAD)]
    while waiting or under_way:
        while waiting and len(under_way) < 3:
            name = waiting.pop(0)
            found = pipelines.find(workspace, name)
            under_way[name.removesuffix(".ipynb")] = submission.submit(workspace, found, {}).run_id
        for name, run_id in list(under_way.items()):
            if runs.get(workspace, run_id).status.is_final:
                done[name] = finish(workspace, run_id)
                del under_way[name]
        time.sleep(0.02)
    yield workspace, done
    workspace.close()


@pytest.mark.parametrize("name", [*GOOD, "linked"])
def test_an_odd_notebook_runs_to_its_end(odd, name):
    workspace, done = odd
    run = done["good"]
    (step,) = (step for step in run.steps if step.name == name)
    assert step.status is Status.SUCCEEDED, run.cause
    assert step.cells_done == step.cells_total
    kept = {artifact.name: artifact for artifact in run.artifacts}
    executed = workspace.artifacts.get(kept[f"{name}.ipynb"].digest)
    nbformat.validate(nbformat.reads(executed.decode(), as_version=4))
    assert f"{name}.html" in kept
    if name not in ("no-cells", "half-a-character", "closes-its-output"):
        assert b"three" in executed


def test_what_was_meant_to_raise_is_not_marked_as_a_failure(odd):
    workspace, done = odd
    kept = {artifact.name: artifact for artifact in done["good"].artifacts}
    executed = json.loads(workspace.artifacts.get(kept["meant-to-raise.ipynb"].digest))
    assert "ZeroDivisionError" in json.dumps(executed["cells"][0]["outputs"])
    assert [cell["cell_type"] for cell in executed["cells"]] == ["code"] * 3


@pytest.mark.parametrize("name", BAD)
def test_a_notebook_that_fails_says_where_and_why(odd, name):
    _, done = odd
    run = done[name]
    _, code, said = BAD[name]
    assert run.status in (Status.FAILED, Status.LOST)
    assert run.cause is not None
    if code is not None:
        assert (run.cause.code, run.cause.notebook) == (code, f"{name}.ipynb")
        assert run.cause.cell == (2 if "after" in name else 1)
    assert said in run.cause.message
    assert run.cause.hint
    assert (run.finished_at - run.started_at).total_seconds() < 30
    kept = {artifact.name for artifact in run.artifacts}
    assert {f"{name}.ipynb", "log.txt"} <= kept


def test_nothing_of_a_run_goes_on_after_its_end(odd):
    workspace, done = odd
    assert done["good"].status is Status.SUCCEEDED
    left = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "987654"]]
    assert left == []
    assert [handle.name for handle in workspace.launcher("local").jobs()] == []
    outboxes = [workspace.home.job(run.handle.name).outbox for run in done.values()]
    assert [p for outbox in outboxes for p in outbox.glob("*/work")] == []


# --- refused before anything starts -------------------------------------------------------------

REFUSED = {
    "not-json": ("{", "not a notebook"),
    "empty": ("", "not a notebook"),
    "a-list": ("[]", "not a notebook"),
    "nested": ("[" * 100_000, "not a notebook"),
    "v3": ('{"nbformat": 3, "nbformat_minor": 0, "worksheets": [], "metadata": {}}', "too old"),
    "two-parameters": (notebook_text(("parameters", "a = 1"), ("parameters", "b = 2")), "2 cells"),
    "broken-parameters": (notebook_text(("parameters", "a = = 1")), "not valid Python"),
    "in-r": (
        changed(PLAIN, metadata={"language_info": {"name": "R"}, "kernelspec": {"name": "ir"}}),
        "written in r",
    ),
    "half-a-character": (PLAIN.replace("one", "\\ud800"), "not a notebook"),
    "latin-1": (PLAIN.replace("one", "ü").encode("latin-1"), "not a notebook"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_by_name(folder, name):
    text, said = REFUSED[name]
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "train.ipynb").write_bytes(data)
    error = refused(folder, "train")
    assert error["code"] in ("invalid-notebook", "rule-broken")
    assert "train.ipynb" in error["message"]
    assert said in error["message"]


def test_a_notebook_with_200_mb_of_outputs_is_submitted_in_seconds_and_leaves_no_copy(folder):
    document = json.loads(notebook_text("print('ran')"))
    picture = os.urandom(5 * 2**19).hex()
    document["cells"][0]["outputs"] = [
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}}
        for _ in range(40)
    ]
    document["cells"][0]["execution_count"] = 1
    (folder / "train.ipynb").write_text(json.dumps(document))
    assert (folder / "train.ipynb").stat().st_size > 200 * 2**20
    for patience_s in (15, 5):  # the second time it is known
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                opened = workspaces.open_at(folder)
                submission.capture(opened)
                code = 0
            finally:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                (folder.parent / "peak").write_text(str(peak))
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert time.monotonic() - began < patience_s
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert int((folder.parent / "peak").read_text()) < max(own, 300 * 2**10) + 2**20, "KiB"
    size = subprocess.run(
        ["du", "-sm", ".git"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    assert int(size.split()[0]) < 5, "the outputs are in no blob"


# --- outputs without an end ---------------------------------------------------------------------


def test_outputs_without_an_end_are_bounded_in_log_notebook_and_memory(folder):
    (folder / "train.ipynb").write_text(
        notebook_text(
            "for n in range(12_000):\n    print('x' * 10_000)",
            "print('and went on')\n1 / 0",
        )
    )
    workspace = workspaces.open_at(folder)
    started = submission.submit(workspace, pipelines.find(workspace, "train"), {})
    peak, deadline = 0, time.monotonic() + 120
    pids = workspace.home.local_jobs / started.run_id / "a1" / "pid.json"
    while not runs.get(workspace, started.run_id).status.is_final:
        assert time.monotonic() < deadline
        try:
            runner = psutil.Process(json.loads(pids.read_text())["child"])
            peak = max(peak, runner.memory_info().rss)
        except (OSError, psutil.Error):
            pass
        time.sleep(0.02)
    done = finish(workspace, started.run_id)
    assert done.cause is not None
    assert "ZeroDivisionError" in done.cause.message, "what comes after is not lost"
    kept = {artifact.name: artifact for artifact in done.artifacts}
    log = workspace.artifacts.get(kept["log.txt"].digest)
    assert 2**20 < len(log) < 33 * 2**20
    assert b"[nbmlops: the log ends here" in log
    notebook = workspace.artifacts.get(kept["train.ipynb"].digest)
    assert len(notebook) < 20 * 2**20
    assert b"[nbmlops: the notebook keeps no more" in notebook
    assert b"ZeroDivisionError" in notebook
    assert 0 < peak < 600 * 2**20, f"{peak:,} bytes"
    workspace.close()


def test_a_thousand_files_as_an_output_reach_the_next_step(folder):
    (folder / "nbmlops.toml").write_text(
        "[project]\nname = 'tiny'\n[pipelines.train]\n"
        "steps = [{notebook = 'train.ipynb', outputs = ['many']}, {notebook = 'next.ipynb'}]\n"
    )
    (folder / "train.ipynb").write_text(
        notebook_text(
            "import pathlib\npathlib.Path('many').mkdir()\n"
            "for n in range(1_000):\n    pathlib.Path(f'many/{n}').write_text(str(n))"
        )
    )
    (folder / "next.ipynb").write_text(
        notebook_text("import pathlib\nprint(len(list(pathlib.Path('many').iterdir())))")
    )
    workspace = workspaces.open_at(folder)
    began = time.monotonic()
    started = submission.submit(workspace, pipelines.find(workspace, "train"), {})
    done = finish(workspace, started.run_id)
    assert done.status is Status.SUCCEEDED, done.cause
    assert "1000" in list(runs.logs(workspace, done.run_id))
    assert time.monotonic() - began < 60
    workspace.close()
