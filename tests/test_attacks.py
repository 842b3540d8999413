"""Attacks on runs: names, links, archives, tampering, code in data, secrets."""

import contextlib
import io
import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from nbmlops import (
    archives,
    commands,
    datasets,
    digests,
    errors,
    health,
    ledger,
    models,
    project,
    records,
    runs,
    stepcache,
    submission,
)
from nbmlops import workspace as workspaces
from nbmlops.errors import InvalidName, InvalidSettings, NbmlopsError
from nbmlops.records import CachedStep, Status, replace
from nbmlops.runner import checkout
from sources import SETTINGS, git, notebook_text
from terminal import refused, typed
from test_runs import end, start

pytestmark = pytest.mark.slow  # commands and jobs, each with odd names

# --- A1: names and ids ----------------------------------------------------------------------------

ODD = [
    "", ".", "..", "../../etc/passwd", "/etc/passwd", "%252e%252e%252f", "a/../../b", "a\0b",
    "a\nb",
    ";touch pwned", "$(touch pwned)", "`touch pwned`", "| cat", "--upload-pack=touch pwned", "-rf",
    "--end-of-options", "run/../../x", "sweep-../x", "train-/../x", "C:\\x", "\\\\host\\x", "~root",
    "x" * 5000, "\udcff", "' OR 1=1 --", "%", "_", "*", "{0.__class__}", "refs/heads/main", "HEAD",
    "@{u}", ":/x", "file:///etc/passwd", "ünï", "\u202e", "\x1b[2J",
]  # fmt: skip


def asked(row, odd):
    """Return a command's arguments with the odd word wherever a person gives a name."""
    given = {}
    for parameter in row.parameters:
        if parameter.default is not parameter.empty and parameter.name not in ("pipeline", "model"):
            continue
        kind = str(parameter.annotation)
        given[parameter.name] = (odd, odd) if "tuple" in kind else odd
    return given


def shown(row, context, arguments):
    result = row.function(context, **arguments)
    return list(result) if row.streams else result


@pytest.mark.parametrize(
    "row",
    [row for row in commands.TABLE if row.name not in ("init", "ci")],
    ids=lambda row: row.name,
)
def test_an_odd_name_is_refused_by_every_command(folder, row, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(p for p in folder.parent.rglob("*") if ".git" not in p.parts)
    named = [p for p in row.parameters if p.name in asked(row, "x")]
    # A listing is not refused: there is nothing of that name. Half characters end at the parser.
    for odd in [odd for odd in ODD if odd != "\udcff"] if named and row.name != "runs" else []:
        context = commands.Context(start=folder)
        with contextlib.closing(context), pytest.raises(NbmlopsError) as caught:
            shown(row, context, asked(row, odd))
        error = caught.value
        assert error.exit_code in (2, 5), (odd, error)
        assert error.hint, (odd, error)
        assert len(error.message) < 6000
        json.dumps(error.document()).encode()
    assert sorted(p for p in folder.parent.rglob("*") if ".git" not in p.parts) == before


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd and not {"\0", "\n"} & {*odd}])
def test_an_odd_word_typed_is_an_error_of_two_lines(folder, odd):
    for words in (["run", odd], ["logs", odd], ["rerun", odd], ["train", odd], ["trace", odd]):
        error = refused(folder, *words, code=2)
        assert "pwned" not in {path.name for path in folder.iterdir()}
        assert error["code"] in {
            kind.code for kind in vars(errors).values() if hasattr(kind, "exit_code")
        }


PLACES = [
    '[pipelines."{}"]\nsteps = [{{ notebook = "train.ipynb" }}]',
    '[pipelines.p]\nsteps = [{{ notebook = "train.ipynb", name = "{}" }}]',
    '[pipelines.p]\nsteps = [{{ notebook = "{}" }}]',
    '[pipelines.p]\nsteps = [{{ notebook = "train.ipynb", outputs = ["{}"] }}]',
    '[pipelines.p]\nsteps = [{{ notebook = "train.ipynb", after = ["{}"] }}]',
    '[data]\n"{}" = "data/raw.csv"',
    '[data]\nraw = "{}"',
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "odd",
    [
        "..",
        "../x",
        "/etc/x",
        "a/../../x",
        ".git/config",
        ".git",
        ".",
        "",
        "\\u0000",
        "a/..",
        "./..",
    ],
)
def test_no_setting_leads_out_of_the_project(tmp_path, place, odd):
    if not odd and 'name = "{}"' in place:
        return  # no name: the notebook's is the step's
    (tmp_path / "nbmlops.toml").write_text(
        '[project]\nname = "x"\n' + place.format(odd), encoding="utf-8"
    )
    with pytest.raises((InvalidSettings, InvalidName)) as caught:
        project.read(tmp_path)
    assert caught.value.hint


# --- A1: links ------------------------------------------------------------------------------------


@pytest.fixture
def outside(folder):
    place = folder.parent / "disk"
    (place / "deep").mkdir(parents=True)
    (place / "raw.csv").write_text("precious")
    (place / "deep" / "more.csv").write_text("more")
    return place


def everything(place):
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


def test_data_behind_a_link_reach_the_job_and_the_original_is_never_touched(folder, outside):
    """``data`` is often a link to a disk of data, and the commit has that link too."""
    (folder / ".gitignore").write_text("")
    (folder / "data").symlink_to(outside)
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[data]\nraw = "data/raw.csv"\ndeep = "data/deep"\n')
    (folder / "train.ipynb").write_text(
        notebook_text(
            "import pathlib\nplace = pathlib.Path('data')\nassert not place.is_symlink()\n"
            "print(sorted(str(p) for p in place.rglob('*') if p.is_file()))\n"
            "for path in list(place.rglob('*')):\n    path.is_file() and path.unlink()"
        )
    )
    before = everything(outside)
    document, code, _ = typed(folder, "train")
    assert everything(outside) == before
    assert (code, document["status"]) == (0, "succeeded"), document["cause"]
    log = typed(folder, "logs", document["run_id"])[0]["items"]
    assert "['data/deep/more.csv', 'data/raw.csv']" in log


@pytest.mark.parametrize(
    "link", ["../disk", "{outside}", "../../{name}/disk", "inside/../../disk", "nowhere", "/"]
)
def test_what_is_laid_out_never_goes_through_a_link_that_leads_out(folder, outside, link):
    work = folder.parent / "work"
    (work / "inside").mkdir(parents=True)
    target = link.format(outside=outside, name=folder.parent.name)
    (work / "data").symlink_to(target)
    content = folder.parent / "content"
    content.write_text("new")
    before = everything(outside)
    for path in ("data/raw.csv", "data/deep/more.csv", "data/made/x.csv"):
        checkout.lay(content, work, path)
        assert (work / path).read_text() == "new"
        assert not (work / "data").is_symlink()
    assert everything(outside) == before


def test_what_is_laid_out_follows_a_link_that_stays_inside(folder):
    work = folder.parent / "work"
    (work / "shared").mkdir(parents=True)
    (work / "shared" / "there.txt").write_text("x")
    (work / "data").symlink_to("shared")
    content = folder.parent / "content"
    content.write_text("new")
    checkout.lay(content, work, "data/raw.csv")
    assert (work / "shared" / "raw.csv").read_text() == "new"
    assert (work / "data" / "there.txt").exists()
    for path in ("../x", "/x", "a/../../x", "data/../../x"):
        with pytest.raises(ValueError, match="leads out"):
            checkout.lay(content, work, path)


def member(name, kind, target=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    "entries",
    [
        [("a", tarfile.LNKTYPE, "/etc/passwd")],
        [("a", tarfile.CHRTYPE, "")],
        [("a", tarfile.FIFOTYPE, "")],
        [("a", tarfile.SYMTYPE, "/tmp"), ("a/b", tarfile.REGTYPE, "")],
        [("a", tarfile.REGTYPE, ""), ("a", tarfile.SYMTYPE, "/etc"), ("a/b", tarfile.REGTYPE, "")],
        [("a", tarfile.REGTYPE, ""), ("a", tarfile.REGTYPE, "")],
        [("..", tarfile.REGTYPE, "")],
        [("a/./../../b", tarfile.REGTYPE, "")],
        [("/b", tarfile.REGTYPE, "")],
    ],
    ids=["hard", "device", "pipe", "through", "twice-through", "twice", "up", "hidden", "absolute"],
)
def test_an_archive_with_tricks_is_not_laid_out(tmp_path, entries):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for name, kind, target in entries:
            archive.addfile(member(name, kind, target), io.BytesIO(b""))
    before = sorted(p for p in tmp_path.iterdir())
    with pytest.raises((ValueError, OSError)):
        archives.unpack(tmp_path / "evil.tar", tmp_path / "work")
    assert sorted(p for p in tmp_path.iterdir() if p.name != "work") == before


@pytest.mark.parametrize("kind", ["link", "sparse"])
def test_files_of_a_model_hold_no_links_and_nothing_that_unfolds(tmp_path, kind):
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        about = tarfile.TarInfo("weights")
        if kind == "link":
            about.type, about.linkname = tarfile.SYMTYPE, "/etc/passwd"
        else:
            about.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(about)
    with pytest.raises((ValueError, tarfile.TarError)):
        archives.unpack(tmp_path / "model.tar", tmp_path / "files", with_links=False)
    assert not (tmp_path / "files" / "weights").exists()


def test_links_in_a_folder_of_data_are_read_and_never_in_a_circle(folder, outside):
    data = folder / "data"
    (data / "own").mkdir(parents=True)
    (data / "own" / "a.txt").write_text("a")
    (data / "to-file").symlink_to(outside / "raw.csv")
    (data / "to-folder").symlink_to(outside / "deep")
    (data / "own" / "up").symlink_to("..")
    (data / "own" / "top").symlink_to("/")
    (outside / "deep" / "back").symlink_to(data)
    (data / "to-nothing").symlink_to("not-there")
    os.mkfifo(data / "pipe")
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[data]\nall = "data"\n')
    workspace = workspaces.open_at(folder)
    found = {file.path: file.digest for file in datasets.gather(workspace).files}
    assert set(found) == {"data/own/a.txt", "data/to-file", "data/to-folder/more.csv"}
    assert found["data/to-file"] == digests.of_bytes(b"precious")
    workspace.close()


HOSTILE_NAMES = [
    "../out",
    "/abs",
    "a/../../b",
    "..",
    ".",
    "n\0ul",
    "x" * 300,
    "new\nline",
    "-rf",
    "é",
]


def test_artifacts_with_odd_names_are_kept_and_never_written_outside(folder):
    (folder / "train.ipynb").write_text(
        notebook_text(
            f"import nbmlops as mlops, os, pathlib\nnames = {HOSTILE_NAMES!r}\n"
            "for number, name in enumerate(names):\n"
            "    pathlib.Path(f'f{number}').write_text(name)\n"
            "    mlops.log_artifact(f'f{number}', name=name)\n"
            "    mlops.log_metrics({name: number})",
            # What a step leaves by links is not what it says that it leaves.
            "place = pathlib.Path(os.environ['NBMLOPS_TRACKING'])\n"
            "(place / 'files').mkdir(exist_ok=True)\n"
            "(place / 'files' / 'trap').symlink_to('/etc/passwd')",
        )
    )
    document, code, _ = typed(folder, "train")
    assert (code, document["status"]) == (0, "succeeded"), document["cause"]
    assert {a["name"] for a in document["artifacts"]} >= set(HOSTILE_NAMES)
    error = refused(folder, "run", document["run_id"], "--save", "saved")
    assert "leads out" in error["message"]
    assert not (folder / "saved").exists()
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}
    assert typed(folder, "doctor")[1] == 0


@pytest.mark.parametrize(
    "trick",
    [
        "digest.unlink(); digest.symlink_to('/etc/passwd')",
        "digest.write_bytes(digest.read_bytes() + b'x')",
        "digest.unlink(); os.mkfifo(digest)",
    ],
    ids=["symlink", "changed", "pipe"],
)
@pytest.mark.timeout(60)
def test_a_file_of_the_outbox_that_is_exchanged_is_not_taken(folder, workspace, trick):
    (folder / "train.ipynb").write_text(
        notebook_text(
            "import nbmlops as mlops, os, pathlib, time\npathlib.Path('a').write_text('abc')\n"
            "mlops.log_artifact('a')",
            "out = pathlib.Path(os.environ['NBMLOPS_TRACKING']).parent\n"
            "deadline = time.monotonic() + 20\n"
            "while not (found := list(out.glob('files/*'))) and time.monotonic() < deadline:\n"
            f"    time.sleep(0.05)\ndigest = found[0]\n{trick}",
        )
    )
    done = end(workspace, start(workspace).run_id)
    assert done.status is Status.FAILED
    assert done.cause is not None
    assert done.cause.code in ("result-refused", "artifact-corrupt", "runner-failed")
    assert typed(folder, "runs")[1] == 0


# --- A3: tampering at rest ------------------------------------------------------------------------


@pytest.fixture
def done(folder, workspace):
    (folder / "data").mkdir()
    (folder / "data" / "raw.csv").write_text("raw")
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[data]\nraw = "data/raw.csv"\n')
    (folder / "nbmlops.toml").write_text(
        (folder / "nbmlops.toml")
        .read_text()
        .replace(
            '"train.ipynb" }]',
            '"train.ipynb", outputs = ["out.txt"] }, { notebook = "next.ipynb" }]',
        )
    )
    (folder / "train.ipynb").write_text(notebook_text("open('out.txt', 'w').write('made')"))
    (folder / "next.ipynb").write_text(
        notebook_text(("parameters", "n: int = 0"), "print(open('out.txt').read())")
    )
    opened = workspaces.open_at(folder)
    yield opened, end(opened, start(opened).run_id)
    opened.close()


def tamper(workspace, digest):
    path = Path(workspace.home.artifacts, digest[:2], digest[2:])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_bytes_that_were_changed_are_never_used_and_doctor_names_them(folder, done):
    workspace, run = done
    assert run.status is Status.SUCCEEDED, run.cause
    output = next(artifact for artifact in run.artifacts if artifact.kind == "output")
    tamper(workspace, output.digest)
    report, code, _ = typed(folder, "doctor")
    assert (code, report["invariants"]["I4"]) == (1, "broken")
    assert output.digest[:12] in json.dumps(report["findings"])
    for words in (
        ["run", run.run_id, "--save", "saved"],  # to a reader
        ["train", "-p", "n=1"],  # to a later step, whose forerunner is cached
    ):
        error = refused(folder, *words, code=5)
        assert error["code"] == "artifact-corrupt", words
    assert not list((folder / "saved").rglob("out.txt"))
    # What is made anew heals it.
    forced, code, _ = typed(folder, "train", "--force")
    assert (code, forced["status"]) == (0, "succeeded"), forced
    assert typed(folder, "doctor")[1] == 0
    assert typed(folder, "train", "-p", "n=1")[0]["status"] == "succeeded"


def test_data_that_were_changed_at_rest_are_not_run_with(folder, done):
    workspace, run = done
    (data,) = (item for item in run.data if item.name == "data/raw.csv")
    tamper(workspace, data.digest)
    assert refused(folder, "rerun", run.run_id, code=5)["code"] == "artifact-corrupt"
    assert typed(folder, "runs")[1] == 0


def test_an_entry_of_the_step_cache_that_was_changed_is_not_taken_for_true(folder, done):
    workspace, run = done
    kept = next(
        item
        for item in workspace.store.page(stepcache.KIND, CachedStep)
        if any(artifact.kind == "output" for artifact in item.record.artifacts)
    )
    other = workspace.artifacts.put(b"other bytes")
    for digest in ("0" * 64, other):
        forged = replace(
            kept.record,
            artifacts=tuple(replace(one, digest=digest) for one in kept.record.artifacts),
        )
        workspace.store._database.write(
            lambda connection, body=forged: connection.exec_driver_sql(
                "UPDATE nbmlops_heads SET body = ? WHERE kind = 'step' AND id = ?",
                (records.dump(body), kept.record.key),
            )
        )
        report, code, _ = typed(folder, "doctor")
        assert code == 1, "the newest revision is not the one that was written"
        assert kept.record.key[:12] in json.dumps(report["findings"])
    assert run.status is Status.SUCCEEDED


def test_a_ledger_that_was_rewritten_is_found(folder):
    (folder / "train.ipynb").write_text(
        notebook_text(
            "import nbmlops as mlops\nfrom sklearn.datasets import load_iris\n"
            "from sklearn.dummy import DummyClassifier\nx, y = load_iris(return_X_y=True)\n"
            "mlops.log_model(DummyClassifier().fit(x, y), name='iris', train=(x, y))"
        )
    )
    document, code, _ = typed(folder, "train")
    assert (code, document["model_versions"]) == (0, ["iris:1"]), document["cause"]
    workspace = workspaces.open_at(folder)
    before = ledger.head(workspace.repo)
    (entry,) = ledger.entries(workspace.repo)
    git(folder, "update-ref", "-d", "refs/nbmlops/ledger")
    body = {**entry.body, "author": "Mallory <m@example.org>"}
    ledger.append(workspace.repo, "version", lambda _: body, workspace.now())
    report = health.check(workspace)
    assert {finding.code for finding in report.findings} == {"ledger-rewritten"}
    git(folder, "update-ref", "-d", "refs/nbmlops/ledger")
    assert {f.code for f in health.check(workspace).findings} == {"ledger-rewritten"}
    git(folder, "update-ref", "refs/nbmlops/ledger", before)
    assert health.check(workspace).findings == ()
    assert [version.name for version in models.versions(workspace)] == ["iris:1"]
    workspace.close()


# --- A7: secrets ----------------------------------------------------------------------------------

CANARY = 'canary/5ecret"quoted\\ü-4711'


def found_in(folder, needle=CANARY):
    """Return where a text is kept: our files as they are, and all that our refs lead to."""
    forms = {needle, json.dumps(needle)[1:-1], json.dumps(needle, ensure_ascii=False)[1:-1]}
    raw = [form.encode() for form in forms]
    places = [
        str(path)
        for path in (folder / ".git" / "nbmlops").rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in raw)
    ]
    refs = git(folder, "for-each-ref", "--format=%(refname)", "refs/nbmlops").splitlines()
    listed = git(folder, "rev-list", "--objects", *refs).splitlines() if refs else []
    for line in listed:
        content = subprocess.run(
            ["git", "cat-file", "-p", line.split()[0]], cwd=folder, check=True, capture_output=True
        ).stdout
        if any(form in content for form in raw):
            places.append(line)
    return places


@pytest.fixture
def secret(folder, monkeypatch):
    monkeypatch.setenv("API_KEY", CANARY)
    (folder / "nbmlops.toml").write_text(
        SETTINGS.replace("[pipelines", 'secrets = ["API_KEY"]\n[pipelines')
    )
    return folder


LEAKY = """
import os, sys, subprocess, nbmlops as mlops, pathlib
key = os.environ['API_KEY']
print('the key is', key)
print(key[:9], end='', flush=True)
import time; time.sleep(0.5)
print(key[9:])
print(key, file=sys.stderr)
subprocess.run(['sh', '-c', 'echo "$API_KEY"'])
mlops.log_metrics({key: 1, f'loss of {key}': 2})
pathlib.Path('a').write_text('x')
mlops.log_artifact('a', name=f'file of {key}')
from IPython.display import display, HTML
display(HTML(f'<b>{key}</b>'))
display({'application/json': {key: [key]}}, raw=True)
key
"""


@pytest.mark.parametrize("ends", ["raise ValueError(f'bad key {key}')", "os.kill(os.getppid(), 9)"])
def test_the_value_of_a_secret_is_found_nowhere(secret, ends):
    (secret / "train.ipynb").write_text(notebook_text(LEAKY, "time.sleep(1)", ends))
    workspace = workspaces.open_at(secret)
    run = start(workspace)
    seen = set()
    while not runs.get(workspace, run.run_id).status.is_final:
        for process in psutil.process_iter(["cmdline"]):
            seen.add("\0".join(process.info["cmdline"] or ()))
        time.sleep(0.1)
    assert not [line for line in seen if CANARY in line], "in `ps`"
    document, _, said = typed(secret, "run", run.run_id)
    shown = json.dumps(document, ensure_ascii=False) + said
    shown += json.dumps(typed(secret, "logs", run.run_id)[0], ensure_ascii=False)
    assert document["status"] == "failed"
    assert "the key is [secret]" in shown
    assert CANARY not in shown.replace("\\\\", "\\").replace('\\"', '"')
    if "ValueError" in ends:
        assert document["cause"]["message"] == "ValueError: bad key [secret]"
        assert "loss of [secret]" in document["metrics"]
    kept = {artifact["name"] for artifact in document["artifacts"]}
    assert {"train.ipynb", "log.txt"} <= kept, "the partial notebook is kept all the same"
    assert found_in(secret) == []
    workspace.close()


def test_a_secret_is_no_parameter(secret):
    (secret / "train.ipynb").write_text(notebook_text(("parameters", "token: str = ''")))
    for command in (["train"], ["sweep", "--trials", "1"]):
        error = refused(secret, *command, "-p", f"token=Bearer {CANARY}")
        assert error["code"] == "invalid-parameter"
        assert "API_KEY" in error["message"] + error["hint"]
        assert CANARY not in json.dumps(error, ensure_ascii=False)
    assert found_in(secret) == []


@pytest.mark.parametrize("place", ["train.ipynb", "settings.py", "nbmlops.toml"])
def test_a_secret_in_a_source_stops_the_run_and_is_in_no_snapshot(secret, place):
    key = CANARY.replace('"', "").replace("\\", "")
    os.environ["API_KEY"] = key  # one that can stand between quotes
    try:
        if place == "train.ipynb":
            (secret / place).write_text(notebook_text(f"key = '{key}'"))
        else:
            with (secret / place).open("a") as file:
                file.write(f"\n# {key}\n")
        error = refused(secret, "train")
        assert error["code"] == "rule-broken"
        assert place in error["message"]
        assert key not in json.dumps(error, ensure_ascii=False)
        assert found_in(secret, key) == []
    finally:
        os.environ["API_KEY"] = CANARY


def test_a_secret_in_the_output_of_a_saved_notebook_is_in_no_snapshot(secret):
    document = json.loads(notebook_text("print('x')", outputs=True))
    document["cells"][0]["outputs"][0]["text"] = f"key {CANARY}\n"
    (secret / "train.ipynb").write_text(json.dumps(document, ensure_ascii=False))
    workspace = workspaces.open_at(secret)
    taken = submission.capture(workspace)
    everywhere = git(secret, "cat-file", "--batch-all-objects", "--batch-check").splitlines()
    for line in everywhere:
        content = subprocess.run(
            ["git", "cat-file", "-p", line.split()[0]], cwd=secret, check=True, capture_output=True
        ).stdout
        assert b"canary" not in content, "not even in an object that nobody holds"
    assert taken.dirty
    workspace.close()
