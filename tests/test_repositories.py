"""Runs from repositories of every kind: as people leave them, and as attackers make them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbmlops import archives, layout, pipelines, runs, snapshot, submission, workspace
from nbmlops.errors import NbmlopsError
from nbmlops.launchers.local import LocalLauncher
from nbmlops.records import RunRecord
from sources import SETTINGS, git, notebook_text
from terminal import refused, typed
from test_snapshot import users_state

pytestmark = pytest.mark.slow  # repositories in every state


def captured(folder, tmp_path):
    """Capture a work tree; return the files that a job would get, as bytes, link or program."""
    opened = workspace.open_at(folder)
    taken = submission.capture(opened)
    snapshot.export(opened.repo, taken.commit, tmp_path / "source.tar")
    opened.close()
    place = tmp_path / "job"
    shutil.rmtree(place, ignore_errors=True)
    archives.unpack(tmp_path / "source.tar", place)
    return files_of(place, [p.relative_to(place) for p in place.rglob("*")])


def seen(folder):
    """Return what a kernel sees in the folder, but for what git ignores."""
    listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return files_of(folder, [Path(name) for name in listed.split("\0") if name])


def files_of(folder, names):
    found = {}
    for name in names:
        path = folder / name
        if path.is_symlink():
            found[str(name)] = ("link", os.readlink(path))
        elif path.is_file():
            found[str(name)] = (os.access(path, os.X_OK), path.read_bytes())
    return found


# --- F6: what is captured is what the kernel sees -------------------------------------------------


def staged(folder):
    (folder / "a.py").write_text("staged\n")
    git(folder, "add", "a.py")
    (folder / "a.py").write_text("and edited since\n")


def renamed(folder):
    (folder / "a.py").write_text("one\n" * 20)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a")
    git(folder, "mv", "a.py", "b.py")


def deleted(folder):
    (folder / "a.py").write_text("a\n")
    (folder / "b.py").write_text("b\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a")
    (folder / "a.py").unlink()
    git(folder, "rm", "--quiet", "b.py")


def links(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "f.txt").write_text("x")
    (folder / "to-file").symlink_to("deep/f.txt")
    (folder / "to-folder").symlink_to("deep")
    (folder / "to-nothing").symlink_to("not/there")
    (folder / "to-elsewhere").symlink_to("/etc/hostname")


def odd_files(folder):
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "crlf.csv").write_bytes(b"a,b\r\n1,2\r\n")
    (folder / "empty").touch()
    (folder / "nul.bin").write_bytes(bytes(range(256)) * 10)
    for name in ("-rf", "--help", ":(glob)x", "a b", "ünï", "q'\"", "star*", "nl\nx", "\udcff"):
        (folder / os.fsdecode(os.fsencode(name))).write_text(repr(name))


def detached(folder):
    git(folder, "checkout", "--quiet", "--detach")
    (folder / "a.py").write_text("x\n")


def unborn(folder):
    shutil.rmtree(folder / ".git")
    git(folder, "init", "--quiet", "--initial-branch=main")


def in_a_merge_without_conflicts(folder):
    git(folder, "checkout", "--quiet", "-b", "other")
    (folder / "other.py").write_text("x\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "other")
    git(folder, "checkout", "--quiet", "main")
    git(folder, "merge", "--quiet", "--no-commit", "--no-ff", "other")


def in_a_rebase(folder):
    for number in range(3):
        (folder / f"{number}.py").write_text("x\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", str(number))
    os.environ["GIT_SEQUENCE_EDITOR"] = "sed -i 1s/pick/edit/"
    git(folder, "rebase", "--quiet", "-i", "HEAD~2")
    del os.environ["GIT_SEQUENCE_EDITOR"]
    (folder / "0.py").write_text("edited in between\n")


def with_a_split_index(folder):
    git(folder, "config", "core.splitIndex", "true")
    git(folder, "config", "index.version", "4")
    git(folder, "update-index", "--split-index")
    (folder / "a.py").write_text("x\n")
    git(folder, "add", ".")
    (folder / "b.py").write_text("x\n")


def with_a_socket_and_a_pipe(folder):
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)  # paths of sockets are short
        made.bind("socket")
        os.chdir(here)
    os.mkfifo(folder / "pipe")
    (folder / "a.py").write_text("x\n")


def with_a_submodule_that_is_not_there(folder):
    inner = folder.parent / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    git(inner, "commit", "--quiet", "--allow-empty", "-m", "x")
    git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner))
    git(folder, "commit", "--quiet", "-m", "submodule")
    git(folder, "submodule", "--quiet", "deinit", "--all", "--force")


def below_a_long_path(folder):
    deep = folder / Path(*["d" * 50] * 30)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_text("x")


@pytest.mark.parametrize(
    "left",
    [
        staged, renamed, deleted, links, odd_files, detached, unborn,
        in_a_merge_without_conflicts, in_a_rebase, with_a_split_index, with_a_socket_and_a_pipe,
        with_a_submodule_that_is_not_there, below_a_long_path,
    ],
    ids=lambda function: function.__name__,
)  # fmt: skip
@pytest.mark.timeout(60)
def test_a_job_gets_what_the_kernel_sees(folder, tmp_path, left):
    left(folder)
    before = users_state(folder)
    wanted = seen(folder)
    assert captured(folder, tmp_path) == wanted
    assert users_state(folder) == before


def in_conflict(folder, how):
    git(folder, "checkout", "--quiet", "-b", "other")
    (folder / "a.py").write_text("other\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "other")
    git(folder, "checkout", "--quiet", "main")
    (folder / "a.py").write_text("main\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "main")
    subprocess.run(["git", how, "other"], cwd=folder, check=False, capture_output=True)


def with_a_submodule(folder):
    with_a_submodule_that_is_not_there(folder)
    (folder.parent / "inner" / "x.py").write_text("x\n")
    git(folder.parent / "inner", "add", ".")
    git(folder.parent / "inner", "commit", "--quiet", "-m", "x")
    git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    (folder / "inner" / "y.py").write_text("y\n")


def with_a_pipe_in_place_of_a_file(folder):
    (folder / "a.py").write_text("x\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a")
    (folder / "a.py").unlink()
    os.mkfifo(folder / "a.py")


def with_a_pointer(folder):
    (folder / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (folder / "weights.bin").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"
    )
    git(folder, "-c", "filter.lfs.clean=", "add", ".")


def with_a_huge_file(folder):
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(11 * 2**20)


def with_a_data_pipe(folder):
    (folder / "data").mkdir()
    os.mkfifo(folder / "data" / "raw")
    with (folder / "nbmlops.toml").open("a") as file:
        file.write('\n[data]\nraw = "data/raw"\n')


def with_a_link_to_a_notebook_elsewhere(folder):
    (folder / "train.ipynb").rename(folder.parent / "train.ipynb")
    (folder / "train.ipynb").symlink_to("../train.ipynb")


def with_a_lock_that_is_a_link_elsewhere(folder):
    (folder.parent / "requirements.txt").write_text("")
    (folder / "requirements.txt").symlink_to("../requirements.txt")


@pytest.mark.parametrize(
    ("left", "named"),
    [
        (lambda folder: in_conflict(folder, "merge"), "a.py"),
        (lambda folder: in_conflict(folder, "rebase"), "a.py"),
        (lambda folder: in_conflict(folder, "cherry-pick"), "a.py"),
        (with_a_submodule, "inner"),
        (with_a_pipe_in_place_of_a_file, "a.py"),
        (with_a_pointer, "weights.bin"),
        (with_a_huge_file, "huge.bin"),
        (with_a_data_pipe, "data/raw"),
        (with_a_link_to_a_notebook_elsewhere, "train.ipynb"),
        (with_a_lock_that_is_a_link_elsewhere, "requirements.txt"),
    ],
    ids=[
        "merge", "rebase", "cherry-pick", "submodule", "pipe", "lfs", "huge", "data-pipe", "linked",
        "lock",
    ],
)  # fmt: skip
@pytest.mark.timeout(60)
def test_what_a_job_could_not_get_is_refused_by_name(folder, left, named):
    left(folder)
    before = users_state(folder)
    opened = workspace.open_at(folder)
    with pytest.raises(NbmlopsError, match=named.replace(".", r"\.")) as caught:
        submission.submit(opened, pipelines.find(opened, "train"), {})
    assert caught.value.hint
    assert caught.value.exit_code == 2, caught.value
    assert users_state(folder) == before
    assert opened.store.page(runs.KIND, RunRecord) == []
    opened.close()


@pytest.mark.timeout(60)
def test_files_that_may_not_be_read_are_refused_by_name(folder):
    (folder / "private.key").write_text("x")
    (folder / "private.key").chmod(0)
    command = [sys.executable, "-m", "nbmlops", "train", "--detach"]
    if os.getuid() == 0:  # root may read everything, unless that right is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv, which takes root's right to read everything, is not installed")
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert "private.key" in result.stderr
    assert ".gitignore" in result.stderr
    assert "Traceback" not in result.stderr


def test_attributes_decide_the_form_in_which_git_keeps_a_file(folder, tmp_path):
    """Line endings and encodings reach a job as the commit has them (docs/design.md)."""
    (folder / ".gitattributes").write_text(
        "*.csv text eol=crlf\n*.txt working-tree-encoding=UTF-16LE\n"
    )
    (folder / "a.csv").write_bytes(b"a,b\r\n")
    (folder / "b.txt").write_bytes("ü\n".encode("utf-16-le"))
    (folder / "c.dat").write_bytes(b"untouched\r\n")
    found = captured(folder, tmp_path)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all")
    for name in ("a.csv", "b.txt", "c.dat"):
        stored = subprocess.run(
            ["git", "cat-file", "blob", f"HEAD:{name}"], cwd=folder, check=True, capture_output=True
        ).stdout
        assert found[name] == (False, stored)
    assert captured(folder, tmp_path) == found, "the same before and after it is committed"


def test_a_sparse_checkout_keeps_what_the_commit_has(folder, tmp_path):
    for name in ("near", "far"):
        (folder / name).mkdir()
        (folder / name / "a.py").write_text(f"{name}\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "two")
    for more in ((), ("--sparse-index",)):
        git(folder, "sparse-checkout", "set", "--cone", *more, "near")
        assert not (folder / "far").exists()
        (folder / "near" / "a.py").write_text("edited\n")
        found = captured(folder, tmp_path)
        assert found["near/a.py"][1] == b"edited\n"
        assert found["far/a.py"][1] == b"far\n", "not looked at is not removed"


def test_a_shallow_clone_and_a_worktree_are_captured_and_share_their_home(folder, tmp_path):
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "two")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{folder}", str(shallow))
    (shallow / "a.py").write_text("x\n")
    assert captured(shallow, tmp_path) == seen(shallow)
    tree = tmp_path / "tree"
    git(folder, "worktree", "add", "--quiet", str(tree), "-b", "side")
    (tree / "only-here.py").write_text("x\n")
    assert captured(tree, tmp_path) == seen(tree)
    assert not (folder / "only-here.py").exists()
    one, other = workspace.open_at(folder), workspace.open_at(tree)
    assert one.home == other.home
    taken = submission.capture(other)
    snapshot.hold(other.repo, taken)
    git(folder, "worktree", "remove", "--force", str(tree))
    git(folder, "gc", "--quiet", "--prune=now")
    assert snapshot.read(one.repo, taken.commit, "only-here.py") is not None
    one.close()
    other.close()


def test_a_bare_repository_and_a_folder_without_git_say_what_to_type(folder, tmp_path):
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(folder), str(bare))
    (bare / "nbmlops.toml").write_text(SETTINGS)
    assert refused(bare, "train", code=5)["code"] == "no-git"
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "nbmlops.toml").write_text(SETTINGS)
    error = refused(plain, "train", code=5)
    assert (error["code"], "git -C" in error["hint"]) == ("no-git", True)


def test_without_the_program_git_every_command_says_so(folder, tmp_path):
    (tmp_path / "bin").mkdir()
    for words in (["train"], ["runs"], ["doctor"]):
        result = subprocess.run(
            [sys.executable, "-m", "nbmlops", *words],
            cwd=folder,
            env={**os.environ, "PATH": str(tmp_path / "bin")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 5, result.stderr
        assert "git is not installed" in result.stderr
        assert "Traceback" not in result.stderr


# --- hostile repositories (A4) ------------------------------------------------------------------

CONFIG = """
[core]
  hooksPath = {hooks}
  fsmonitor = {program}
  pager = {program}
  editor = {program}
  sshCommand = {program}
  attributesFile = {attributes}
[alias]
  ls-files = "!{program}"
  write-tree = "!{program}"
[diff]
  external = {program}
[filter "plain"]
  clean = {program}
  process = {program}
  required = true
[filter "with=sign"]
  clean = {program}
  smudge = {program}
  required = true
[filter "with.dot and space"]
  clean = {program}
  required = true
[gpg]
  program = {program}
[commit]
  gpgSign = true
[gc]
  auto = 1
[uploadpack]
  packObjectsHook = {program}
"""


@pytest.fixture
def hostile(folder, tmp_path):
    """A repository whose configuration names a program wherever git would run one."""
    trap, program, hooks = tmp_path / "trap", tmp_path / "program", tmp_path / "hooks"
    program.write_text(f"#!/bin/sh\necho \"$0 $*\" >> '{trap}'\ncat\n")
    program.chmod(0o755)
    hooks.mkdir()
    names = ("pre-commit", "post-index-change", "reference-transaction", "post-checkout")
    for name in (*names, "fsmonitor-watchman", "pre-auto-gc", "prepare-commit-msg"):
        (hooks / name).symlink_to(program)
        (folder / ".git" / "hooks" / name).symlink_to(program)
    (tmp_path / "attributes").write_text("*.md filter=with=sign diff=plain\n")
    (tmp_path / "included").write_text(
        CONFIG.format(hooks=hooks, program=program, attributes=tmp_path / "attributes")
    )
    (folder / ".gitattributes").write_text(
        "*.py filter=plain\n*.txt filter=with=sign\n*.ipynb filter=with=sign\n"
    )
    for name in ("a.py", "b.txt", "c.md"):
        (folder / name).write_text("x\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "files")
    git(folder, "config", "include.path", str(tmp_path / "included"))
    for name in ("a.py", "b.txt", "c.md", "new.txt", "new.py"):
        (folder / name).write_text("edited\n")
    trap.unlink(missing_ok=True)  # what our own calls above have set off
    return trap


def test_no_program_of_a_hostile_repository_runs(folder, hostile):
    document, code, _ = typed(folder, "train")
    assert (code, document["status"]) == (0, "succeeded"), document["cause"]
    for words in (["runs"], ["doctor"], ["trace", f"run/{document['run_id']}"], ["check"]):
        typed(folder, *words)
    typed(folder, "rerun", document["run_id"])
    assert not hostile.exists(), hostile.read_text()


def test_variables_of_git_lead_nowhere_else(folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (folder / "new.py").write_text("x\n")
    wanted = seen(folder)
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git" / "index",
        "GIT_OBJECT_DIRECTORY": other / ".git" / "objects",
        "GIT_COMMON_DIR": other / ".git",
        "GIT_NAMESPACE": "elsewhere",
        "GIT_CEILING_DIRECTORIES": "/nowhere",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_TRACE": tmp_path / "trace",
        "GIT_EXTERNAL_DIFF": "/bin/false",
        "GIT_PAGER": "/bin/false",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert captured(folder, tmp_path) == wanted
    assert list((other / ".git" / "objects").rglob("??/*")) == []


@pytest.mark.parametrize(
    "name",
    [
        "-evil.ipynb",
        "--upload-pack=touch x.ipynb",
        "a;touch x.ipynb",
        "$(touch x).ipynb",
        "{a}.ipynb",
    ],
)
def test_the_name_of_a_notebook_is_no_option_and_no_command(folder, name):
    (folder / name).write_text(notebook_text("print('ran')"))
    document, code, _ = typed(folder, "train", f"./{name}")
    assert (code, document["status"]) == (0, "succeeded"), document
    assert document["steps"][0]["notebook"] == name
    assert not (folder / "x").exists()


# --- F7: whatever becomes of the repository -------------------------------------------------------


def test_old_runs_are_traced_and_run_again_whatever_became_of_their_branch(folder, tmp_path):
    upstream = tmp_path / "upstream.git"
    git(tmp_path, "init", "--quiet", "--bare", str(upstream))
    git(folder, "remote", "add", "origin", str(upstream))
    git(folder, "checkout", "--quiet", "-b", "work")
    (folder / "local.py").write_text("ANSWER = 42\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "work")
    git(folder, "push", "--quiet", "origin", "work")
    (folder / "more.py").write_text("MORE = 1\n")  # in no commit of the user's
    (folder / "train.ipynb").write_text(
        notebook_text("import local, more\nprint('answer', local.ANSWER + more.MORE)")
    )
    first, code, _ = typed(folder, "train")
    assert code == 0, first
    git(folder, "reset", "--quiet", "--hard", "main")
    git(folder, "push", "--quiet", "--force", "origin", "main:work")
    git(folder, "checkout", "--quiet", "main")
    git(folder, "branch", "--quiet", "-D", "work")
    git(folder, "clean", "-fdxq")
    git(folder, "reflog", "expire", "--expire=now", "--all")
    git(folder, "gc", "--quiet", "--prune=now", "--aggressive")
    git(folder, "fsck", "--full", "--strict")
    assert typed(folder, "doctor")[1] == 0
    traced, code, _ = typed(folder, "trace", f"run/{first['run_id']}")
    assert (code, traced["snapshot"]["commit"]) == (0, first["commit"])
    again, code, _ = typed(folder, "rerun", first["run_id"])
    assert (code, again["status"], again["commit"]) == (0, "succeeded", first["commit"])
    assert "answer 43" in typed(folder, "logs", again["run_id"])[0]["items"]
    tree = tmp_path / "looked-at"
    git(folder, "worktree", "add", "--quiet", "--detach", str(tree), first["commit"])
    assert (tree / "more.py").read_text() == "MORE = 1\n"


# --- two people at once ---------------------------------------------------------------------------


def test_many_who_submit_the_same_at_once_are_answered_by_one_run_each(folder, request):
    """The full number, 200 submissions by 50 people, with `--kills`."""
    keys, people = (200, 50) if request.config.getoption("--kills") else (5, 12)
    at_once = 16 if keys > 5 else people
    launched = folder.parent / "launched"

    def submit_all(who):
        def launch(_, job):
            with launched.open("a") as file:
                file.write(f"{job.name}\n")

        LocalLauncher.launch = launch
        opened = workspace.open_at(folder)
        pipeline = pipelines.find(opened, "train")
        order = [(number * 7 + who) % keys for number in range(keys)]
        told = [
            (depth, submission.submit(opened, pipeline, {"depth": depth}).run_id) for depth in order
        ]
        (folder.parent / f"told-{who}").write_text(repr(told))

    waiting, children = list(range(people)), {}
    deadline = time.monotonic() + (3600 if keys > 5 else 60)
    while waiting or children:
        while waiting and len(children) < at_once:
            who = waiting.pop()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    submit_all(who)
                    code = 0
                finally:
                    os._exit(code)
            children[pid] = who
        pid, status = os.wait()
        assert os.waitstatus_to_exitcode(status) == 0, children[pid]
        del children[pid]
        assert time.monotonic() < deadline
    answers = {}
    for who in range(people):
        for depth, run_id in eval((folder.parent / f"told-{who}").read_text()):
            answers.setdefault(depth, set()).add(run_id)
    assert {len(ids) for ids in answers.values()} == {1}, "one run for each request"
    opened = workspace.open_at(folder)
    found = opened.store.page(runs.KIND, RunRecord, limit=1000)
    assert len(found) == keys == len(set(launched.read_text().split()))
    held = git(folder, "for-each-ref", layout.SNAPSHOT_REFS).splitlines()
    assert len(held) == keys * people
    opened.close()


def test_an_edit_in_the_middle_of_a_submission_is_in_the_run_or_not_but_never_half(
    folder, tmp_path
):
    """Somebody saves, renames and removes files while snapshots are taken."""
    pid = os.fork()
    if pid == 0:
        number = 0
        while True:
            number += 1
            for name in ("a.py", "b.ipynb", "sub/c.txt"):
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                temporary = path.with_name(f"~{path.name}")
                text = str(number) * 1000
                temporary.write_text(
                    notebook_text(text, outputs=True) if name == "b.ipynb" else text
                )
                temporary.replace(path)
            shutil.rmtree(folder / "sub")
    try:
        taken = 0
        deadline = time.monotonic() + 60
        while taken < 6 and time.monotonic() < deadline:
            try:
                found = captured(folder, tmp_path)
            except NbmlopsError:  # a file was gone again before git came to it
                continue
            taken += 1
            for name in ("a.py", "sub/c.txt"):
                text = found.get(name, (False, b""))[1].decode()
                assert text == text[: len(text) // 1000] * 1000, name
            assert b"secret" not in found.get("b.ipynb", (False, b""))[1]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert taken == 6
