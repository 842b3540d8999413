import os
import shutil
import subprocess
import tarfile
import time
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nbmlops import archives, snapshot
from nbmlops.errors import SnapshotRefused
from sources import git, notebook_text

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def repo_of(folder):
    found = snapshot.repository_at(folder)
    assert found is not None
    return found


def users_state(folder):
    """All that belongs to the user: HEAD, branch, index, work tree status, stash, refs, config."""
    index = folder / ".git" / "index"
    return (
        (folder / ".git" / "HEAD").read_text(),
        index.read_bytes() if index.exists() else None,
        git(folder, "status", "--porcelain=v1", "-z"),
        git(folder, "stash", "list"),
        git(folder, "for-each-ref", "refs/heads", "refs/tags"),
        (folder / ".git" / "config").read_text(),
        sorted(p.name for p in (folder / ".git" / "hooks").glob("*")),
    )


def take(folder, tmp_path):
    return snapshot.take(repo_of(folder), tmp_path / "scratch", NOW)


def test_a_clean_work_tree_gives_its_own_commit(folder, tmp_path):
    taken = take(folder, tmp_path)
    assert taken.commit == git(folder, "rev-parse", "HEAD")
    assert not taken.dirty
    assert taken.branch == "main"


def test_a_dirty_work_tree_is_captured_and_nothing_of_the_users_is_touched(folder, tmp_path):
    (folder / "staged.py").write_text("a = 1\n")
    git(folder, "add", "staged.py")
    (folder / "new.txt").write_bytes(b"CRLF\r\nstays\r\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("new.txt")
    (folder / "nbmlops.toml").unlink()
    (folder / "data").mkdir()
    (folder / "data" / "big.bin").write_text("ignored")
    git(folder, "stash", "list")
    before = users_state(folder)
    taken = take(folder, tmp_path)
    assert users_state(folder) == before
    assert taken.dirty
    assert taken.base_commit == git(folder, "rev-parse", "HEAD")
    listed = git(folder, "ls-tree", "-r", "--name-only", taken.commit).splitlines()
    assert listed == [".gitignore", "link", "new.txt", "run.sh", "staged.py", "train.ipynb"]
    snapshot.export(repo_of(folder), taken.commit, tmp_path / "source.tar")
    archives.unpack(tmp_path / "source.tar", tmp_path / "out")
    assert (tmp_path / "out" / "new.txt").read_bytes() == b"CRLF\r\nstays\r\n"
    assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
    assert (tmp_path / "out" / "link").readlink().name == "new.txt"


@pytest.mark.parametrize("name", ["../out.txt", "/etc/x", "a/../../x", "link/x"])
def test_an_archive_that_leads_out_is_refused(tmp_path, name):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises((ValueError, FileExistsError)):
        archives.unpack(tmp_path / "evil.tar", tmp_path / "work")
    assert not (tmp_path / "x").exists()


def test_notebooks_are_stored_without_outputs(folder, tmp_path):
    (folder / "train.ipynb").write_text(notebook_text("print('x')", outputs=True))
    taken = take(folder, tmp_path)
    stored = git(folder, "show", f"{taken.commit}:train.ipynb")
    assert "secret" not in stored
    assert "secret" in (folder / "train.ipynb").read_text()


def test_a_snapshot_survives_pruning_clean_and_a_deleted_branch(folder, tmp_path):
    (folder / "new.py").write_text("a = 1\n")
    taken = take(folder, tmp_path)
    repo = repo_of(folder)
    snapshot.hold(repo, taken)
    git(folder, "clean", "-fdxq")
    git(folder, "reflog", "expire", "--expire=now", "--all")
    git(folder, "gc", "--quiet", "--prune=now")
    assert snapshot.is_held(repo, taken.id, taken.commit)
    assert snapshot.read(repo, taken.commit, "new.py") == (
        git(folder, "rev-parse", f"{taken.commit}:new.py"),
        b"a = 1\n",
    )


def test_hooks_monitors_and_signing_of_the_repository_do_not_run(folder, tmp_path):
    trap = tmp_path / "trap"
    for name in ("pre-commit", "post-index-change", "reference-transaction"):
        hook = folder / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch '{trap}'\n")
        hook.chmod(0o755)
    git(folder, "config", "core.fsmonitor", f"touch '{trap}'")
    git(folder, "config", "commit.gpgSign", "true")
    git(folder, "config", "filter.evil.clean", f"touch '{trap}'; cat")
    git(folder, "config", "filter.evil.required", "true")
    (folder / ".gitattributes").write_text("* filter=evil\n")
    (folder / "new.py").write_text("a = 1\n")
    trap.unlink(missing_ok=True)
    taken = take(folder, tmp_path)
    snapshot.hold(repo_of(folder), taken)
    assert not trap.exists()


def test_the_variables_of_a_hook_lead_nowhere_else(folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet", "--initial-branch=main")
    (folder / "new.py").write_text("a = 1\n")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    repo = repo_of(folder)
    assert repo.top == folder
    taken = snapshot.take(repo, tmp_path / "scratch", NOW)
    assert snapshot.read(repo, taken.commit, "new.py") is not None


def test_what_git_was_told_not_to_look_at_is_captured_as_it_is(folder, tmp_path):
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("old\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "two")
    git(folder, "update-index", "--assume-unchanged", "a.txt")
    git(folder, "update-index", "--skip-worktree", "b.txt")
    before = git(folder, "ls-files", "-v")
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("new\n")
    taken = take(folder, tmp_path)
    assert taken.dirty
    for name in ("a.txt", "b.txt"):
        found = snapshot.read(repo_of(folder), taken.commit, name)
        assert found is not None
        assert found[1] == b"new\n"
    assert git(folder, "ls-files", "-v") == before


def test_a_repository_inside_is_refused_by_name(folder, tmp_path):
    inner = folder / "vendor"
    inner.mkdir()
    git(inner, "init", "--quiet", "--initial-branch=main")
    (inner / "x.py").write_text("a = 1\n")
    git(inner, "add", ".")
    git(inner, "commit", "--quiet", "-m", "inner")
    with pytest.raises(SnapshotRefused, match="vendor"):
        take(folder, tmp_path)


def test_an_unborn_branch_and_a_detached_head_are_captured(folder, tmp_path):
    git(folder, "checkout", "--quiet", "--detach")
    assert take(folder, tmp_path).branch is None
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "--quiet", "--initial-branch=main")
    (fresh / "a.py").write_text("a = 1\n")
    taken = take(fresh, tmp_path)
    assert taken.base_commit is None
    assert taken.dirty


def test_a_merge_in_progress_is_refused_by_file_name(folder, tmp_path):
    git(folder, "checkout", "--quiet", "-b", "other")
    (folder / "a.py").write_text("other\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "other")
    git(folder, "checkout", "--quiet", "main")
    (folder / "a.py").write_text("main\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "main")
    with pytest.raises(Exception, match="non-zero"):
        git(folder, "merge", "other")
    with pytest.raises(SnapshotRefused, match=r"a\.py"):
        take(folder, tmp_path)


def test_large_and_odd_untracked_files_are_refused_by_name(folder, tmp_path):
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(11 * 2**20)
    with pytest.raises(SnapshotRefused, match=r"huge\.bin") as caught:
        take(folder, tmp_path)
    assert ".gitignore" in caught.value.hint
    (folder / "huge.bin").unlink()
    os.mkfifo(folder / "pipe")
    take(folder, tmp_path)  # git itself passes fifos over; nothing hangs


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("abcxyz -_.äß'\"", min_size=1, max_size=12).filter(
            lambda name: name.strip(". ") and not name.endswith(".ipynb")
        ),
        st.binary(max_size=200),
        max_size=5,
    )
)
@example({"_": b"one", "_..": b"two", "_..x": b"three"})
def test_files_of_any_name_and_content_come_back_byte_for_byte(folder, tmp_path, files):
    place = folder / "sub"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    for name, content in files.items():
        (place / name).write_bytes(content)
    repo = repo_of(folder)
    taken = snapshot.take(repo, tmp_path / "scratch", NOW)
    for name, content in files.items():
        found = snapshot.read(repo, taken.commit, f"sub/{name}")
        assert found is not None
        assert found[1] == content
    together = snapshot.read_all(repo, taken.commit, [f"sub/{name}" for name in files])
    assert {path: found[1] for path, found in together.items()} == {
        f"sub/{name}": content for name, content in files.items()
    }


NAMES = ["a", "b.py", "c d.txt", "[x]*.ipynb", "deep/er/f", "deep/g", "ünï", "-o", ":(top)z"]


def mutate(folder, random):  # noqa: C901
    """Do to a work tree what people and programs do to one."""
    path = folder / random.choice(NAMES)
    what = random.choice(["write", "write", "remove", "folder", "link", "mode", "stage", "intend"])
    if what == "remove" or (what in ("folder", "link", "write") and random.random() < 0.5):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for above in path.relative_to(folder).parents:
        if (folder / above).is_symlink() or (folder / above).is_file():
            (folder / above).unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and what == "write":
        path.unlink()
    if what == "write" and not path.is_dir():
        path.write_text(f"{random.random()}\n")
    elif what == "folder" and not os.path.lexists(path):
        path.mkdir()
        (path / "inside").write_text("x")
    elif what == "link" and not os.path.lexists(path):
        path.symlink_to("elsewhere")
    elif what == "mode" and path.is_file() and not path.is_symlink():
        path.chmod(random.choice([0o755, 0o644]))
    elif what == "stage" and os.path.lexists(path):
        git(folder, "--literal-pathspecs", "add", "--all", "--", str(path.relative_to(folder)))
    elif what == "intend" and path.is_file():
        git(folder, "--literal-pathspecs", "add", "-N", "--", str(path.relative_to(folder)))


@pytest.mark.slow
def test_whatever_was_done_to_a_work_tree_the_snapshot_is_what_add_all_would_take(tmp_path):
    seed = int(os.environ.get("NBMLOPS_TEST_SEED", time.time_ns() % 2**32))
    print("seed", seed)
    random = Random(seed)
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for number in range(40):
        for _ in range(random.randint(1, 8)):
            mutate(folder, random)
        own = folder / ".git" / "index"
        before = own.read_bytes() if own.exists() else None
        taken = take(folder, tmp_path)
        assert (own.read_bytes() if own.exists() else None) == before, number
        index = tmp_path / "oracle"
        index.unlink(missing_ok=True)
        if (folder / ".git" / "index").exists():
            shutil.copy2(folder / ".git" / "index", index)
        environ = {**os.environ, "GIT_INDEX_FILE": str(index)}
        subprocess.run(["git", "add", "--all"], cwd=folder, env=environ, check=True)
        oracle = subprocess.run(
            ["git", "write-tree"], cwd=folder, env=environ, check=True, capture_output=True
        )
        assert taken.tree == oracle.stdout.decode().strip(), number
        if random.random() < 0.3:
            git(folder, "add", "--all")
            git(folder, "commit", "--quiet", "--allow-empty", "-m", str(number))


def test_a_notebook_that_was_stripped_before_is_not_read_again_and_a_lost_one_is(folder, tmp_path):
    (folder / "out.ipynb").write_text(notebook_text("1", outputs=True))
    first = take(folder, tmp_path)
    repo = repo_of(folder)
    blob, data = snapshot.read(repo, first.commit, "out.ipynb")
    assert b"secret" not in data
    asked = []
    run = type(repo).run

    def noted(self, *words, **options):
        asked.append(words)
        return run(self, *words, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(repo), "run", noted)
        assert take(folder, tmp_path).tree == first.tree
    assert ("hash-object", "-w", "--stdin") not in asked
    # What was made for the first snapshot may have been collected as garbage since.
    (folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    assert take(folder, tmp_path).tree == first.tree
    assert snapshot.read(repo, first.commit, "out.ipynb") is not None
