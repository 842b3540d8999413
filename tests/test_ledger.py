import json
import multiprocessing
import threading
from datetime import UTC, datetime

import pytest

from nbmlops import health, ledger, models, rebuilding, snapshot
from nbmlops.errors import GitFailed
from nbmlops.layout import LEDGER_REF
from registered import deployed, version
from sources import git

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def repo_of(folder):
    found = snapshot.repository_at(folder)
    assert found is not None
    return found


def append_some(folder, who):
    repo = repo_of(folder)
    for number in range(4):
        ledger.append(repo, "deployed", lambda _, n=number: {"who": who, "n": n}, NOW)


def test_entries_come_back_in_order_and_only_ever_grow(folder):
    repo = repo_of(folder)
    assert list(ledger.entries(repo)) == []
    for number in range(3):
        ledger.append(repo, "deployed", lambda earlier: {"n": len(earlier)}, NOW)
        assert [e.body["n"] for e in ledger.entries(repo)] == list(range(number + 1))
    assert git(folder, "rev-list", "--count", LEDGER_REF) == "3"
    assert git(folder, "status", "--porcelain") == ""


def test_a_decision_that_stands_already_is_not_written_again(folder):
    repo = repo_of(folder)

    def decide(earlier):
        return earlier[0] if earlier else {"n": 1}

    first = ledger.append(repo, "deployed", decide, NOW)
    assert ledger.append(repo, "deployed", decide, NOW) == first
    assert len(list(ledger.entries(repo))) == 1


def test_a_repository_of_sha256_has_a_ledger_too(tmp_path):
    git(tmp_path, "init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    repo = repo_of(tmp_path)
    for number in range(2):
        ledger.append(repo, "deployed", lambda _, n=number: {"n": n}, NOW)
    assert [entry.body["n"] for entry in ledger.entries(repo)] == [0, 1]
    assert len(ledger.head(repo)) == 64
    assert not ledger.move(repo, ledger.head(repo), None)  # there is one already
    assert ledger.faults(repo) == []


@pytest.mark.slow
def test_of_writers_at_once_all_land_one_after_the_other(folder):
    method = multiprocessing.get_context("spawn")
    writers = [method.Process(target=append_some, args=(folder, who)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found = list(ledger.entries(repo_of(folder)))
    assert [entry.sequence for entry in found] == list(range(1, 13))
    assert {(e.body["who"], e.body["n"]) for e in found} == {
        (who, n) for who in range(3) for n in range(4)
    }


def append_fifty(folder, who):
    repo = repo_of(folder)
    for number in range(50):
        ledger.append(repo, "deployed", lambda _, n=number: {"who": who, "n": n}, NOW)


@pytest.mark.slow
def test_of_two_people_who_append_at_once_every_entry_lands(folder):
    method = multiprocessing.get_context("spawn")
    writers = [method.Process(target=append_fifty, args=(folder, who)) for who in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    repo = repo_of(folder)
    found = list(ledger.entries(repo))
    assert [entry.sequence for entry in found] == list(range(1, 101))
    for who in range(2):
        assert [e.body["n"] for e in found if e.body["who"] == who] == list(range(50))
    assert ledger.faults(repo) == []


@pytest.mark.slow
def test_a_writer_who_finds_the_ref_locked_tries_again_and_is_told_at_last(folder):
    repo = repo_of(folder)
    ledger.append(repo, "deployed", lambda _: {}, NOW)
    lock = repo.common_dir / f"{LEDGER_REF}.lock"
    lock.touch()
    with pytest.raises(GitFailed, match=r"\.lock") as failed:
        ledger.append(repo, "deployed", lambda _: {}, NOW)
    assert "\n" not in failed.value.message  # git says more
    assert "another git process" in failed.value.context["stderr"].lower()
    threading.Timer(0.5, lock.unlink).start()
    assert ledger.append(repo, "deployed", lambda _: {}, NOW).sequence == 2


# --- a ledger that somebody has changed ---------------------------------------------------------


@pytest.fixture
def decided(workspace):
    """A project with two versions, an alias and two deployments in its ledger."""
    one, two = (version(workspace, number) for number in (1, 2))
    models.set_alias(workspace, "iris:1", "best")
    deployed(workspace, one, "iris-d1")
    deployed(workspace, two, "iris-d2", replaces="iris-d1")
    deployed(workspace, two, "iris-d2", "undeployed")
    rebuilding.repair(workspace)
    assert health.check(workspace).findings == ()
    return workspace


def codes(workspace):
    report = health.check(workspace)
    assert all(finding.fix for finding in report.findings)
    assert report.invariants["I1"] == ("broken" if report.findings else "ok")
    return {finding.code for finding in report.findings}


def files_of(repo, commit):
    """Return the path, mode and blob of each file of a commit."""
    lines = repo.text("ls-tree", "-r", commit).splitlines()
    return {line.split("\t")[1]: line.split()[2] for line in lines}


def commit_of(repo, files, *parents):
    """Make a commit that has just these files."""
    folders = {}
    for path, blob in files.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(f"100644 blob {blob}\t{name}")
    lines = []
    for folder, inner in folders.items():
        tree = repo.run("mktree", stdin="".join(f"{one}\n" for one in sorted(inner)).encode())
        lines.append(f"040000 tree {tree.decode().strip()}\t{folder}\n")
    made = repo.run("mktree", stdin="".join(lines).encode()).decode().strip()
    words = [word for parent in parents for word in ("-p", parent)]
    return repo.commit_tree(made, *words, message=b"changed")


def chained(repo, files):
    """Make a chain that adds the files one by one, as if each had been appended."""
    commit, so_far = None, {}
    for path in sorted(files, key=lambda path: path.rpartition("/")[2]):
        so_far[path] = files[path]
        commit = commit_of(repo, so_far, *([commit] if commit else []))
    return commit


def blob_of(repo, text):
    return repo.run("hash-object", "-w", "--stdin", stdin=text).decode().strip()


def forged(repo, files, number, **changes):
    """Return the files with one entry said otherwise."""
    path = next(path for path in files if path.endswith(f"{number:08d}.json"))
    entry = json.loads(repo.run("cat-file", "blob", files[path]))
    return {**files, path: blob_of(repo, json.dumps({**entry, **changes}).encode())}


def set_ref(repo, commit):
    repo.run("update-ref", LEDGER_REF, commit)


def test_an_entry_replaced_in_a_new_commit_is_found(decided):
    repo, head = decided.repo, ledger.head(decided.repo)
    files = forged(repo, files_of(repo, head), 4, author="Eve <eve@example.org>")
    set_ref(repo, commit_of(repo, files, head))
    assert codes(decided) == {"ledger-changed"}
    (finding,) = health.check(decided).findings
    assert "changes 20" in finding.message
    repo.run(*finding.fix.split()[1:])  # what it says to type puts it right
    assert codes(decided) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 7))
def test_an_entry_replaced_by_rewriting_the_whole_chain_is_found(decided, number):
    repo, head = decided.repo, ledger.head(decided.repo)
    files = forged(repo, files_of(repo, head), number, author="Eve <eve@example.org>")
    set_ref(repo, chained(repo, files))
    assert codes(decided) == {"ledger-rewritten"}
    # What is decided now does not make it true.
    models.set_alias(decided, "iris:2", "best")
    assert codes(decided) == {"ledger-rewritten"}
    (finding,) = health.check(decided).findings
    repo.run(*finding.fix.split()[1:])
    assert codes(decided) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 7))
def test_an_entry_that_was_taken_away_is_found(decided, number):
    repo, head = decided.repo, ledger.head(decided.repo)
    files = files_of(repo, head)
    less = {path: blob for path, blob in files.items() if f"{number:08d}" not in path}
    set_ref(repo, commit_of(repo, less, head))
    assert "ledger-changed" in codes(decided)
    set_ref(repo, chained(repo, less))
    found = codes(decided)
    assert "ledger-rewritten" in found
    if number < 6:
        assert found >= {"ledger-gap", "ledger-changed"}


def test_a_number_given_twice_a_strange_file_and_two_parents_are_found(decided):
    repo, head = decided.repo, ledger.head(decided.repo)
    files = files_of(repo, head)
    path, blob = next(iter(files.items()))
    set_ref(repo, commit_of(repo, {**files, f"2020-01/{path[8:]}": blob}, head))
    assert codes(decided) == {"ledger-doubled", "ledger-changed", "version-doubled"}
    set_ref(repo, commit_of(repo, {**files, "2026-05/notes.txt": blob_of(repo, b"x")}, head))
    assert codes(decided) == {"ledger-unreadable", "ledger-changed"}
    set_ref(repo, commit_of(repo, files, head, git(decided.root, "rev-parse", "HEAD")))
    assert codes(decided) == {"ledger-changed"}
    set_ref(repo, commit_of(repo, files, head))
    assert codes(decided) == {"ledger-changed"}  # it adds nothing


def test_an_entry_that_cannot_be_read_is_passed_over_keeps_its_number_and_is_named(decided):
    repo, head = decided.repo, ledger.head(decided.repo)
    path = f"{NOW:%Y-%m}/00000007.json"
    broken = {**files_of(repo, head), path: blob_of(repo, b"{")}
    set_ref(repo, commit_of(repo, broken, head))
    assert codes(decided) == {"ledger-unreadable"}
    models.set_alias(decided, "iris:2", "best")
    assert [e.sequence for e in ledger.entries(repo)] == [1, 2, 3, 4, 5, 6, 8]
    assert codes(decided) == {"ledger-unreadable"}


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_an_entry_whose_bytes_are_lost_leaves_the_others_readable(decided, how):
    repo = decided.repo
    files = files_of(repo, ledger.head(repo))
    blob = next(blob for path, blob in files.items() if path.endswith("4.json"))
    loose = repo.common_dir / "objects" / blob[:2] / blob[2:]
    loose.chmod(0o644)
    if how == "gone":
        loose.unlink()
    else:
        loose.write_bytes(b"not zlib")
    ledger._whole.cache_clear()  # as in another process
    assert [entry.sequence for entry in ledger.entries(repo)] == [1, 2, 3, 5, 6]
    assert codes(decided) == {"ledger-unreadable"}
    assert models.find(decided, "iris@best").version == 1


def test_a_ledger_whose_ref_is_gone_is_found(decided):
    head = ledger.head(decided.repo)
    git(decided.root, "update-ref", "-d", LEDGER_REF)
    assert codes(decided) == {"ledger-rewritten"}
    finding = next(f for f in health.check(decided).findings if head in f.fix)
    decided.repo.run(*finding.fix.split()[1:])
    assert codes(decided) == set()
