"""Two people share models by a git remote: the ledger, the snapshots, and nothing else."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbmlops import (
    decisions,
    deployments,
    following,
    health,
    ledger,
    models,
    rebuilding,
    records,
    remotes,
    runs,
    traces,
    transport,
)
from nbmlops import workspace as workspaces
from nbmlops.commands import Context, project, serving
from nbmlops.errors import (
    Conflict,
    GitFailed,
    InvalidName,
    LedgerDamaged,
    NoRemote,
    RemoteFailed,
    SecretLeaving,
)
from nbmlops.layout import LEDGER_REF
from nbmlops.records import DeploymentRecord, DeploymentStatus, RunRecord
from registered import deployed
from sources import git
from teams import trained

pytestmark = pytest.mark.slow  # git remotes, fetched from and pushed to

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"  # of the shape of a GitHub token


@pytest.fixture
def team(folder, tmp_path):
    """A bare repository, and two clones of it, opened: Ada's and Bob's."""
    bare = tmp_path / "origin.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(folder), str(bare))
    opened = []
    for name in ("ada", "bob"):
        git(tmp_path, "clone", "--quiet", str(bare), name)
        opened.append(workspaces.open_at(tmp_path / name))
    yield bare, *opened
    for workspace in opened:
        workspace.close()


def names(workspace):
    return {version.name: version.digest for version in models.recorded(workspace)}


def sound(workspace):
    """Hold ledger, store and runs against each other, and return what ``doctor`` says."""
    report = health.check(workspace)
    assert report.findings == ()
    assert {v.name: v.digest for v in models.versions(workspace)} == names(workspace)
    entries = list(ledger.entries(workspace.repo))
    for kept in workspace.store.page(runs.KIND, RunRecord, limit=1000):
        assert kept.record.model_versions == rebuilding.versions_of(kept.record, entries)
    return report


# --- one after the other --------------------------------------------------------------------------


def test_what_one_has_decided_the_other_has_after_both_have_synced(team):
    _, ada, bob = team
    first = trained(ada, "first")
    models.set_alias(ada, "iris:1", "best")
    told = remotes.sync(ada)
    assert [item.what for item in told.pushed] == [
        "registered iris:1",
        "gave iris:1 the alias best",
    ]
    assert told.snapshots.pushed == (first.snapshot,)
    assert told.head == ledger.head(ada.repo)
    got = remotes.sync(bob)
    assert [item.what for item in got.fetched] == [item.what for item in told.pushed]
    assert (got.pushed, got.renumbered, got.head) == ((), (), told.head)
    assert got.snapshots.fetched == (first.snapshot,)
    assert models.find(bob, "iris@best") == first
    again = remotes.sync(bob)
    assert (again.pushed, again.fetched, again.snapshots.fetched) == ((), (), ())


def test_a_version_of_a_colleague_is_traced_down_to_its_cell(team):
    _, ada, bob = team
    trained(ada, "first")
    remotes.sync(ada)
    remotes.sync(bob)
    here = traces.trace(ada, "model/iris:1")
    there = traces.trace(bob, "model/iris:1")
    assert here.complete
    assert there.snapshot.source == here.snapshot.source
    assert "log_metrics" in there.snapshot.source
    assert not there.complete
    assert [name.split("/")[0] for name in there.missing] == ["run", "environment"]
    report = sound(bob)
    assert [item.code for item in report.advice] == ["artifact-elsewhere"]
    assert "iris:1 was made elsewhere, by Ada, and its model, schema" in report.advice[0].message
    assert health.check(ada).advice == ()


def test_with_artifacts_in_one_place_the_trace_is_whole_and_the_run_is_there(team, tmp_path):
    _, ada, bob = team
    for workspace in (ada, bob):
        toml = workspace.root / "nbmlops.toml"
        toml.write_text(f'{toml.read_text()}\n[artifacts]\nurl = "{tmp_path}/shared"\n')
    ada, bob = (workspaces.open_at(workspace.root) for workspace in (ada, bob))
    version = trained(ada, "first")
    remotes.sync(ada)
    remotes.sync(bob)
    assert traces.trace(bob, "model/iris:1").complete
    assert runs.get(bob, version.run_id).model_versions == ("iris:1",)
    assert sound(bob).advice == ()
    ada.artifacts._place.path(version.files["model"].digest).unlink()
    # It has been here once: its loss is no advice.
    assert {item.code for item in health.check(bob).findings} == {"artifact-gone"}
    ada.close()
    bob.close()


def test_a_number_that_was_taken_becomes_the_next_and_what_names_it_follows(team):
    _, ada, bob = team
    trained(ada, "of ada")
    remotes.sync(ada)
    one, two = trained(bob, "of bob, 1"), trained(bob, "of bob, 2")
    models.set_alias(bob, "iris:2", "best")
    deployed(bob, one, "iris-d1")
    deployed(bob, two, "iris-d2", replaces="iris-d1")
    deployed(bob, one, "iris-d3", reason="rollback", rolled_back_from=2)
    rebuilding.repair(bob)
    told = remotes.sync(bob)
    assert [(item.was, item.version, item.already) for item in told.renumbered] == [
        (1, 2, False),
        (2, 3, False),
    ]
    assert len(told.pushed) == 6
    found = names(bob)
    assert (found["iris:2"], found["iris:3"]) == (one.digest, two.digest)
    assert models.find(bob, "iris@best").digest == two.digest
    by_id = {item.decision.deployment_id: item.decision for item in
             decisions.placed(ledger.entries(bob.repo))}  # fmt: skip
    assert [by_id[f"iris-d{n}"].version for n in (1, 2, 3)] == [2, 3, 2]
    assert by_id["iris-d3"].rolled_back_from == 3
    for name, number in (("iris-d1", 2), ("iris-d2", 3), ("iris-d3", 2)):
        assert deployments.recorded(bob, name).version == number
        assert traces.trace(bob, f"deployment/{name}").model_version["version"] == number
    assert runs.get(bob, two.run_id).model_versions == ("iris:3",)
    assert {finding.code for finding in health.check(bob).findings} == {"deployment-down"}
    remotes.sync(ada)
    assert names(ada) == found
    sound(ada)  # Bob's endpoint is his: nothing of it is missing here
    assert deployments.listed(ada, every=True) == []
    assert trained(ada, "the next one").version == 4


def test_the_same_model_has_one_version_whoever_trained_it(team):
    _, ada, bob = team
    first = trained(ada, "the same")
    remotes.sync(ada)
    trained(bob, "another")
    mine = trained(bob, "the same")
    models.set_alias(bob, "iris:2", "best")
    assert (mine.digest, mine.version) == (first.digest, 2)
    told = remotes.sync(bob)
    assert [(item.was, item.version, item.already) for item in told.renumbered] == [
        (1, 2, False),
        (2, 1, True),
    ]
    assert [item.what for item in told.left_out] == ["registered iris:2"]
    assert len(names(bob)) == 2
    assert models.find(bob, "iris@best").version == 1
    sound(bob)
    remotes.sync(ada)
    sound(ada)


def test_an_alias_that_both_have_moved_is_where_the_last_who_synced_has_put_it(team):
    _, ada, bob = team
    for content in ("one", "two", "three"):
        trained(ada, content)
    models.set_alias(ada, "iris:1", "best")
    remotes.sync(ada)
    remotes.sync(bob)
    models.set_alias(ada, "iris:2", "best")
    models.set_alias(bob, "iris:3", "best")
    models.take_alias(bob, "iris:3", "best")
    models.set_alias(bob, "iris:3", "best")
    remotes.sync(ada)
    remotes.sync(bob)
    remotes.sync(ada)
    moves = [alias for _, alias in decisions.moved(ledger.entries(ada.repo))]
    assert [(a.version, a.moved_from, a.removed) for a in moves] == [
        (1, None, False),
        (2, 1, False),
        (3, 2, False),
        (3, None, True),
        (3, None, False),
    ]
    assert ledger.head(ada.repo) == ledger.head(bob.repo)
    models.take_alias(ada, "iris:3", "best")
    models.set_alias(bob, "iris:1", "best")
    remotes.sync(bob)
    told = remotes.sync(ada)
    assert [item.what for item in told.left_out] == ["took the alias best from iris:3"]
    assert models.find(ada, "iris@best").version == 1


def test_models_say_whether_the_remote_has_their_number(team, folder):
    _, ada, _ = team
    trained(ada, "first")
    context = Context(ada.root)
    assert [item.pushed for item in serving.models(context).items] == [False]
    remotes.sync(ada)
    trained(ada, "second")
    assert [item.pushed for item in serving.models(context).items] == [False, True]
    context.close()
    alone = Context(folder)
    trained(alone.workspace(), "first")
    assert [item.pushed for item in serving.models(alone).items] == [None]
    alone.close()


def test_the_user_s_own_things_stay_as_they_were(team):
    bare, ada, bob = team
    trained(ada, "first")
    remotes.sync(ada)
    git(bob.repo.top, "config", "push.followTags", "true")
    git(bob.repo.top, "config", "remote.origin.mirror", "true")
    git(bob.repo.top, "config", "fetch.prune", "true")
    git(bob.repo.top, "tag", "-a", "-m", "mine", "v1")
    git(bob.repo.top, "branch", "mine")
    hook = bob.repo.git_dir / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)

    def state():
        refs = git(bob.repo.top, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return (
            [ref for ref in refs if not ref.startswith("refs/nbmlops/")],
            (bob.repo.git_dir / "config").read_text(),
            (bob.repo.git_dir / "FETCH_HEAD").exists(),
            git(bob.repo.top, "status", "--porcelain"),
        )

    (bob.root / "params.txt").write_text("of bob")
    before = state()
    trained(bob, "of bob")
    remotes.sync(bob)
    assert state() == before
    assert not (bob.root / "ran").exists()
    there = git(bare, "for-each-ref", "--format=%(refname)").splitlines()
    assert [ref for ref in there if not ref.startswith("refs/nbmlops/")] == ["refs/heads/main"]


# --- what is refused ------------------------------------------------------------------------------


def test_without_a_remote_the_command_that_adds_one_is_told(workspace):
    with pytest.raises(NoRemote, match="no git remote `origin`") as refused:
        remotes.sync(workspace)
    assert "git remote add origin URL" in refused.value.hint
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "name", ["ext::sh -c id", "--upload-pack=id", "../x", "https://h/x", "", "a b", "-o", "a..b"]
)
def test_what_is_no_name_of_a_remote_is_refused(workspace, name):
    with pytest.raises((InvalidName, NoRemote)):
        remotes.sync(workspace, name)


@pytest.mark.parametrize("how", ["url", "pushurl", "vcs", "uploadpack"])
def test_a_remote_s_settings_start_no_program(team, tmp_path, how):
    _, ada, _ = team
    trained(ada, "first")
    mark = tmp_path / "started"
    value = {
        "url": f"ext::sh -c 'touch {mark}'",
        "pushurl": f"ext::sh -c 'touch {mark}'",
        "vcs": "ext",
        "uploadpack": f"touch {mark}; git-upload-pack",
    }[how]
    git(ada.repo.top, "config", "protocol.ext.allow", "always")
    git(ada.repo.top, "config", f"remote.origin.{how}", value)
    if how == "vcs":
        git(ada.repo.top, "config", "remote.origin.url", f"sh -c 'touch {mark}'")
    if how == "uploadpack":
        remotes.sync(ada)
    else:
        with pytest.raises(RemoteFailed):
            remotes.sync(ada)
    assert not mark.exists()


def test_a_remote_that_is_not_there_is_told_in_its_own_words(team):
    bare, ada, _ = team
    trained(ada, "first")
    bare.rename(bare.with_name("gone.git"))
    with pytest.raises(RemoteFailed, match="does not appear to be a git repository") as refused:
        remotes.sync(ada)
    assert refused.value.exit_code == 5
    assert refused.value.hint


def test_credentials_of_a_url_are_never_told(team):
    _, ada, _ = team
    secret = "s3cr3t-t0ken-0123456789"
    git(ada.repo.top, "remote", "set-url", "origin", f"http://ada:{secret}@127.0.0.1:1/x.git")
    with pytest.raises(RemoteFailed) as refused:
        remotes.sync(ada)
    assert secret not in str(refused.value.document())
    assert transport.find(ada.repo, "origin").url == "http://127.0.0.1:1/x.git"


def rewritten(workspace, sequence, **changes):
    """Make the ledger anew with one entry said otherwise, each commit as an append makes it."""
    commit = None
    for entry in list(ledger.entries(workspace.repo)):
        if entry.sequence == sequence:
            entry = records.replace(entry, body={**entry.body, **changes})  # noqa: PLW2901
        commit = ledger.appended(workspace.repo, commit, entry)
    assert ledger.faults(workspace.repo, commit) == []
    return commit


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_a_rewritten_ledger_is_not_taken_over(team, sequence):
    _, ada, bob = team
    for content in ("first", "second", "third"):
        trained(ada, content)
    remotes.sync(ada)
    remotes.sync(bob)
    before, known = ledger.head(bob.repo), names(bob)
    made = rewritten(ada, sequence, metrics={"accuracy": 0.99999})
    git(ada.repo.top, "push", "--quiet", "--force", "origin", f"{made}:{LEDGER_REF}")
    for _ in range(2):  # nothing of it was remembered
        with pytest.raises(LedgerDamaged, match=r"the ledger of `origin` was rewritten") as refused:
            remotes.sync(bob)
    assert refused.value.exit_code == 1
    assert before[:12] in refused.value.message
    assert (ledger.head(bob.repo), names(bob)) == (before, known)
    sound(bob)
    # What it says to type puts it right, and then both share as before.
    git(bob.repo.top, *refused.value.hint.split("`")[1].split()[1:])
    trained(bob, "fourth")
    assert [item.what for item in remotes.sync(bob).pushed] == ["registered iris:4"]
    remotes.sync(ada)
    assert ledger.head(ada.repo) == ledger.head(bob.repo)


def test_a_ledger_that_was_rewritten_and_grown_is_not_taken_over_either(team):
    _, ada, bob = team
    trained(ada, "first")
    remotes.sync(ada)
    remotes.sync(bob)
    made = rewritten(ada, 1, commit=ada.repo.text("rev-parse", "HEAD"))
    git(ada.repo.top, "update-ref", LEDGER_REF, made)
    models.set_alias(ada, "iris:1", "best")
    git(ada.repo.top, "push", "--quiet", "--force", "origin", LEDGER_REF)
    before = ledger.head(bob.repo)
    trained(bob, "second")
    with pytest.raises(LedgerDamaged, match="rewritten"):
        remotes.sync(bob)
    assert ledger.descends(bob.repo, ledger.head(bob.repo), before)


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_rewritten_ledger_is_known_by_what_is_here_too(team, sequence):
    _, ada, bob = team
    trained(ada, "first")
    models.set_alias(ada, "iris:1", "best")
    remotes.sync(ada)
    remotes.sync(bob)
    made = rewritten(ada, sequence, metrics={"accuracy": 1.0})
    git(ada.repo.top, "push", "--quiet", "--force", "origin", f"{made}:{LEDGER_REF}")
    git(bob.repo.top, "remote", "rename", "origin", "other")  # nothing was seen of that one
    before = ledger.head(bob.repo)
    with pytest.raises(LedgerDamaged, match=f"entry {sequence} of the ledger of `other`"):
        remotes.sync(bob, "other")
    assert ledger.head(bob.repo) == before
    sound(bob)


def test_a_remote_that_has_lost_the_end_of_its_ledger_gets_it_again(team):
    bare, ada, bob = team
    trained(ada, "first")
    trained(ada, "second")
    remotes.sync(ada)
    remotes.sync(bob)
    git(bare, "update-ref", LEDGER_REF, f"{LEDGER_REF}~1")
    trained(bob, "third")
    told = remotes.sync(bob)
    assert [item.what for item in told.pushed] == ["registered iris:2", "registered iris:3"]
    assert git(bare, "rev-parse", LEDGER_REF) == told.head
    sound(bob)


def test_a_snapshot_never_moves(team):
    _, ada, bob = team
    version = trained(ada, "first")
    remotes.sync(ada)
    remotes.sync(bob)
    ref = f"refs/nbmlops/snapshots/{version.snapshot}"
    other = git(ada.repo.top, "commit-tree", "-m", "other", f"{version.commit}^{{tree}}")
    git(ada.repo.top, "push", "--quiet", "--force", "origin", f"{other}:{ref}")
    warned = []
    bob.warn = warned.append
    remotes.sync(bob)
    assert other[:12] in warned[0]
    assert version.snapshot not in remotes.sync(bob).snapshots.fetched
    assert git(bob.repo.top, "rev-parse", ref) == version.commit
    # An entry of a whole ledger that would have it be another one is refused.
    made = records.replace(version, version=2, digest="d" * 64, commit=other)
    decisions.decide(ada, "version", lambda _: records.plain(made))
    git(ada.repo.top, "push", "--quiet", "origin", LEDGER_REF)
    before = ledger.head(bob.repo)
    with pytest.raises(LedgerDamaged, match="a snapshot never changes") as refused:
        remotes.sync(bob)
    assert ref in refused.value.hint
    assert ledger.head(bob.repo) == before
    assert git(bob.repo.top, "rev-parse", ref) == version.commit


def test_what_the_user_has_git_fetch_moves_nothing_of_ours(team):
    _, ada, bob = team
    trained(ada, "first")
    remotes.sync(ada)
    remotes.sync(bob)
    git(bob.repo.top, "config", "--add", "remote.origin.fetch", "+refs/nbmlops/*:refs/nbmlops/*")
    made = rewritten(ada, 1, metrics={"accuracy": 1.0})
    git(ada.repo.top, "push", "--quiet", "--force", "origin", f"{made}:{LEDGER_REF}")
    before = ledger.head(bob.repo)
    with pytest.raises(LedgerDamaged, match="rewritten"):
        remotes.sync(bob)
    assert ledger.head(bob.repo) == before


def test_a_damaged_ledger_is_not_taken_over(team):
    bare, ada, bob = team
    trained(ada, "first")
    remotes.sync(ada)
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=bare, input=b"no json", capture_output=True,
        check=True,
    ).stdout.decode().strip()  # fmt: skip
    month = git(bare, "ls-tree", "--name-only", LEDGER_REF)
    tree = subprocess.run(
        ["git", "mktree"], cwd=bare, capture_output=True, check=True,
        input=f"100644 blob {blob}\t00000001.json\n".encode(),
    ).stdout.decode().strip()  # fmt: skip
    top = subprocess.run(
        ["git", "mktree"], cwd=bare, capture_output=True, check=True,
        input=f"040000 tree {tree}\t{month}\n".encode(),
    ).stdout.decode().strip()  # fmt: skip
    git(bare, "update-ref", LEDGER_REF, git(bare, "commit-tree", "-m", "x", top))
    with pytest.raises(LedgerDamaged, match="cannot be read"):
        remotes.sync(bob)
    assert ledger.head(bob.repo) is None
    with pytest.raises(LedgerDamaged):
        remotes.sync(bob)  # nothing of it was remembered


def test_a_ledger_that_names_odd_snapshots_reaches_no_ref(team):
    bare, ada, bob = team
    version = trained(ada, "first")
    for number, (snapshot, commit) in enumerate(
        [("../../heads/main", version.commit), ("s-odd", "+refs/heads/main"), ("s-two", "--all")], 2
    ):
        body = records.plain(
            records.replace(
                version, version=number, digest=f"{number:064x}", snapshot=snapshot, commit=commit
            )
        )
        decisions.decide(ada, "version", lambda _, body=body: body)
    remotes.sync(ada)
    assert set(git(bare, "for-each-ref", "--format=%(refname)").splitlines()) == {
        "refs/heads/main",
        LEDGER_REF,
        f"refs/nbmlops/snapshots/{version.snapshot}",
    }
    remotes.sync(bob)
    assert len(names(bob)) == 4


@pytest.fixture
def pushes(monkeypatch):
    """Count how often something is pushed."""
    found = []
    push = transport.push

    def counted(*arguments):
        found.append(arguments)
        return push(*arguments)

    monkeypatch.setattr(transport, "push", counted)
    return found


@pytest.mark.parametrize("place", ["origin.git", "blocks.git"])
def test_what_a_hook_refuses_is_told_once_in_the_hook_s_own_line(team, pushes, place):
    bare, ada, _ = team
    moved = bare.rename(bare.with_name(place))
    git(ada.repo.top, "remote", "set-url", "origin", str(moved))
    hook = moved / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'not on a Sunday' >&2\necho 'ask Eve' >&2\nexit 1\n")
    hook.chmod(0o755)
    trained(ada, "first")
    with pytest.raises(RemoteFailed, match=r"failed: not on a Sunday\n") as refused:
        remotes.sync(ada)
    assert len(pushes) == 1
    assert "A hook of `origin` refused it" in refused.value.hint
    assert "ask Eve" in refused.value.context["stderr"]
    assert "\n" not in refused.value.message + refused.value.hint


def test_a_clone_without_its_history_is_told_how_to_get_it(team, tmp_path):
    bare, ada, _ = team
    (ada.root / "more.txt").write_text("x")
    git(ada.root, "add", ".")
    git(ada.root, "commit", "--quiet", "-m", "more")
    git(ada.root, "push", "--quiet", "origin", "HEAD:main")
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{bare}", "carol")
    empty = tmp_path / "empty.git"
    git(tmp_path, "init", "--quiet", "--bare", str(empty))
    git(tmp_path / "carol", "remote", "add", "new", str(empty))
    carol = workspaces.open_at(tmp_path / "carol")
    trained(carol, "first")
    with pytest.raises(RemoteFailed, match="shallow update not allowed") as refused:
        remotes.sync(carol, "new")
    assert "`git fetch --unshallow`" in refused.value.hint
    carol.close()


def test_what_was_seen_of_a_remote_counts_while_it_has_its_name(team):
    bare, ada, _ = team
    trained(ada, "first")
    git(ada.repo.top, "remote", "add", "team/main", str(bare))
    assert len(remotes.sync(ada, "team/main").pushed) == 1
    assert remotes.sync(ada).pushed == ()
    head = ledger.head(ada.repo)
    assert ledger.remote_heads(ada.repo) == {"origin": head, "team/main": head}
    git(ada.repo.top, "remote", "rename", "origin", "upstream")
    assert ledger.remote_heads(ada.repo) == {"team/main": head}
    assert remotes.sync(ada, "upstream").pushed == ()
    assert ledger.remote_heads(ada.repo) == {"team/main": head, "upstream": head}
    for name in ("team/main", "upstream"):
        git(ada.repo.top, "remote", "remove", name)
    assert ledger.remote_heads(ada.repo) is None


def test_numbers_come_from_one_remote(team, tmp_path):
    bare, ada, bob = team
    fork = tmp_path / "fork.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(bare), str(fork))
    git(ada.repo.top, "remote", "add", "fork", str(fork))
    theirs = trained(bob, "of bob")
    remotes.sync(bob)
    mine = trained(ada, "of ada")
    remotes.sync(ada, "fork")
    for _ in range(2):
        with pytest.raises(Conflict, match="iris:1 was pushed to `fork`") as refused:
            remotes.sync(ada)
        assert names(ada) == {"iris:1": mine.digest}
        assert remotes.sync(ada, "fork").renumbered == ()
    sound(ada)
    # What it says to type has the numbers come from the other one.
    git(ada.repo.top, *refused.value.hint.split("`")[3].split()[1:])
    told = remotes.sync(ada)
    assert [(item.was, item.version) for item in told.renumbered] == [(1, 2)]
    assert names(ada) == {"iris:1": theirs.digest, "iris:2": mine.digest}
    with pytest.raises(Conflict, match="was pushed to `origin`") as refused:
        remotes.sync(ada, "fork")
    git(ada.repo.top, *refused.value.hint.split("`")[-2].split()[1:])
    git(ada.repo.top, "update-ref", "-d", "refs/nbmlops/remotes/fork/ledger")
    assert remotes.sync(ada, "fork").renumbered == ()
    assert remotes.sync(ada).renumbered == ()
    sound(ada)


# --- secrets --------------------------------------------------------------------------------------


def refs_of(bare):
    return git(bare, "for-each-ref", "--format=%(refname) %(objectname)")


def test_a_snapshot_with_a_secret_does_not_leave_nor_does_its_entry(team):
    bare, ada, _ = team
    (ada.root / "settings.py").write_text(f"# nothing\nkey = '{TOKEN}'\n")
    version = trained(ada, "first")
    before = refs_of(bare)
    with pytest.raises(SecretLeaving) as refused:
        remotes.sync(ada)
    assert refused.value.exit_code == 1
    assert version.snapshot in refused.value.message
    assert "settings.py" in refused.value.message
    assert TOKEN not in str(refused.value.document())
    assert refused.value.context["line"] == 2
    assert refs_of(bare) == before
    assert git(bare, "cat-file", "--batch-all-objects", "--batch-check").count("\n") < 6
    toml = ada.root / "nbmlops.toml"
    toml.write_text(f'{toml.read_text()}\n[rules]\nsecret = "warn"\n')
    opened = workspaces.open_at(ada.root)
    warned = []
    opened.warn = warned.append
    assert len(remotes.sync(opened).pushed) == 1
    assert "settings.py" in warned[0]
    opened.close()


def test_a_secret_below_the_snapshot_does_not_leave_either(team):
    bare, ada, _ = team
    (ada.root / "settings.py").write_text(f"key = '{TOKEN}'\n")
    git(ada.root, "add", ".")
    git(ada.root, "commit", "--quiet", "-m", "oops")
    (ada.root / "settings.py").write_text("key = None\n")
    git(ada.root, "commit", "--quiet", "-a", "-m", "taken out")
    trained(ada, "first")
    before = refs_of(bare)
    with pytest.raises(SecretLeaving, match=r"settings\.py"):
        remotes.sync(ada)
    assert refs_of(bare) == before


def test_what_the_remote_has_already_is_not_looked_at_again(team):
    _, ada, _ = team
    (ada.root / "settings.py").write_text(f"key = '{TOKEN}'\n")
    git(ada.root, "add", ".")
    git(ada.root, "commit", "--quiet", "-m", "oops")
    git(ada.root, "push", "--quiet", "origin", "HEAD:main")
    trained(ada, "first")
    assert len(remotes.sync(ada).pushed) == 1


def test_a_secret_that_the_remote_has_had_for_long_stops_nothing(team, tmp_path):
    _, ada, bob = team
    for text in (TOKEN, "renewed"):
        (ada.root / "settings.py").write_text(f"key = '{text}'\n")
        git(ada.root, "add", ".")
        git(ada.root, "commit", "--quiet", "-m", "settings")
    git(ada.root, "push", "--quiet", "origin", "HEAD:main")
    git(bob.root, "pull", "--quiet", "origin", "main")
    (bob.root / "notes.txt").write_text("of bob")
    git(bob.root, "add", ".")
    git(bob.root, "commit", "--quiet", "-m", "notes")
    git(bob.root, "push", "--quiet", "origin", "HEAD:main")
    trained(ada, "first")
    assert len(remotes.sync(ada).pushed) == 1  # what Bob pushed is not here
    # Another place under the same name has had nothing.
    empty = tmp_path / "empty.git"
    git(tmp_path, "init", "--quiet", "--bare", str(empty))
    git(ada.repo.top, "remote", "set-url", "origin", str(empty))
    with pytest.raises(SecretLeaving, match=r"settings\.py"):
        remotes.sync(ada)
    assert refs_of(empty) == ""


def test_files_that_leave_are_read_many_at_once_and_whole(team, monkeypatch):
    _, ada, _ = team
    for number in range(9):
        (ada.root / f"file{number}.txt").write_bytes(bytes([number, 10, 0]) * number)
    version = trained(ada, "first")
    monkeypatch.setattr(transport, "_AT_ONCE_BYTES", 40)
    remote = transport.find(ada.repo, "origin")
    found = dict(transport.leaving(remote, version.commit, transport.look(remote).values()))
    assert found == {
        "params.txt": b"first",
        **{f"file{number}.txt": bytes([number, 10, 0]) * number for number in range(9)},
    }


def test_a_rule_that_was_turned_on_since_counts(team):
    _, ada, _ = team
    (ada.root / "db.py").write_text("password = 'k3Jx9vQ2mZ7w'\n")
    trained(ada, "first")
    toml = ada.root / "nbmlops.toml"
    toml.write_text(f'{toml.read_text()}\n[rules]\npassword = "block"\n')
    opened = workspaces.open_at(ada.root)
    with pytest.raises(SecretLeaving, match=r"db\.py.*\[password\]"):
        remotes.sync(opened)
    opened.close()


def test_a_version_that_was_registered_while_it_was_looked_at_is_looked_at_too(team, monkeypatch):
    bare, ada, _ = team
    trained(ada, "first")
    before = refs_of(bare)
    take_in = remotes._Sync._take_in

    def then(self, theirs):
        take_in(self, theirs)
        (ada.root / "settings.py").write_text(f"key = '{TOKEN}'\n")
        trained(ada, "second")

    monkeypatch.setattr(remotes._Sync, "_take_in", then)
    with pytest.raises(SecretLeaving, match=r"settings\.py"):
        remotes.sync(ada)
    assert refs_of(bare) == before


# --- at once, and killed --------------------------------------------------------------------------


def program(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "teams", *map(str, words)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_of_two_who_sync_at_once_nothing_is_lost_or_doubled(team):
    _, ada, bob = team
    both = [program("versions", w.root, who, 20) for w, who in ((ada, "ada"), (bob, "bob"))]
    for one in both:
        out, err = one.communicate(timeout=400)
        assert one.returncode == 0, err
        assert len(out.splitlines()) == 20
    for workspace in (ada, bob, ada):
        remotes.sync(workspace)
    assert ledger.head(ada.repo) == ledger.head(bob.repo)
    found = models.recorded(ada)
    assert sorted(version.version for version in found) == list(range(1, 41))
    assert len({version.digest for version in found}) == 40
    assert ledger.faults(ada.repo) == []
    for workspace in (ada, bob):
        sound(workspace)
        assert all(
            "commit/" not in name and "snapshot/" not in name and "notebook/" not in name
            for version in found
            for name in traces.trace(workspace, f"model/{version.name}").missing
        )


@pytest.mark.timeout(1200)
def test_a_sync_that_is_killed_is_completed_by_the_next(team, request, tmp_path):
    _, ada, bob = team
    seed = request.config.getoption("--seed")
    seed = random.randrange(10**9) if seed is None else seed
    rounds = request.config.getoption("--kills") or 6
    print(f"seed {seed}, {rounds} kills")
    chance = random.Random(seed)
    contents = set()
    for turn in range(rounds):
        for workspace, who in ((ada, "ada"), (bob, "bob")):
            for number in range(2):
                contents.add(f"iris {who} {turn} {number}")
                trained(workspace, f"{who} {turn} {number}")
        models.set_alias(bob, "iris", f"round-{turn}")
        best = models.find(bob, "iris").digest
        remotes.sync(ada)
        killed = program("sync", bob.root)
        assert killed.stdout.readline() == "begun\n"
        time.sleep(chance.random() * 1.2)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        opened = workspaces.open_at(bob.root)
        until = time.monotonic() + 30
        while True:  # git itself was not killed: it may hold a lock for a moment
            try:
                remotes.sync(opened)
                break
            except (GitFailed, RemoteFailed):
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        sound(opened)
        assert models.find(opened, f"iris@round-{turn}").digest == best
        remotes.sync(ada)
        assert ledger.head(ada.repo) == ledger.head(opened.repo)
        assert len(names(ada)) == len(set(names(ada).values())) == len(contents)
        sound(ada)
        opened.close()


def test_a_store_that_has_not_followed_yet_is_told_and_followed(team, monkeypatch):
    _, ada, bob = team
    trained(ada, "of ada")
    remotes.sync(ada)
    mine = trained(bob, "of bob")

    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(following, "follow", killed)
        with pytest.raises(KeyboardInterrupt):
            remotes.sync(bob)
    report = health.check(bob)
    assert [item.code for item in report.findings if item.code != "version-not-indexed"] == [
        "sync-unfinished"
    ]
    context = Context(bob.root)
    assert project.doctor(context, repair=True).findings == ()
    context.close()
    assert models.find(bob, "iris:2").digest == mine.digest
    sound(bob)
    remotes.sync(bob)
    remotes.sync(ada)
    sound(ada)


@pytest.fixture
def halfway(team, monkeypatch):
    """Bob's clone, whose `sync` was killed when the ledger had moved and the store had not."""
    _, ada, bob = team
    theirs = trained(ada, "of ada")
    remotes.sync(ada)
    mine = trained(bob, "of bob")
    deployed(bob, mine, "iris-d1")
    rebuilding.repair(bob)

    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(following, "follow", killed)
        with pytest.raises(KeyboardInterrupt):
            remotes.sync(bob)
    assert bob.home.unsettled.exists()
    return bob, mine, theirs


def test_after_a_killed_sync_the_next_command_goes_by_the_new_numbers(halfway):
    bob, mine, theirs = halfway
    context = Context(bob.root)
    listed = serving.models(context).items
    assert [(item.version, item.digest) for item in listed] == [
        (2, mine.digest),
        (1, theirs.digest),
    ]
    assert not bob.home.unsettled.exists()
    assert serving.alias(context, "iris:1", "theirs").version.digest == theirs.digest
    assert serving.alias(context, "iris:2", "mine").version.digest == mine.digest
    assert deployments.recorded(bob, "iris-d1").version == 2
    assert traces.trace(bob, f"run/{mine.run_id}").model_version["version"] == 2
    assert {item.code for item in health.check(bob).findings} == {"deployment-down"}
    context.close()


def test_who_had_the_project_open_goes_by_the_new_numbers_too(halfway):
    bob, mine, theirs = halfway
    assert models.find(bob, "iris:1").digest == theirs.digest
    assert models.find(bob, "iris").digest == mine.digest
    assert models.set_alias(bob, "iris:1", "best").version_digest == theirs.digest
    assert trained(bob, "the next").version == 3
    assert deployments.pointed(bob, "iris").version == 2
    following.settle(bob)
    assert models.find(bob, "iris@best").digest == theirs.digest


def test_who_has_nothing_to_settle_looks_for_one_file(workspace, monkeypatch):
    trained(workspace, "first")
    monkeypatch.setattr(following, "unsettled", lambda _: pytest.fail("the store was asked"))
    following.settle_at_once(workspace)
    context = Context(workspace.root)
    assert context.workspace()._store is None
    context.close()


def test_a_sync_that_is_killed_before_the_ledger_moves_leaves_nothing_to_follow(team, monkeypatch):
    _, ada, bob = team
    trained(ada, "of ada")
    remotes.sync(ada)
    mine = trained(bob, "of bob")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "move", killed)
        with pytest.raises(KeyboardInterrupt):
            remotes.sync(bob)
    context = Context(bob.root)
    assert [item.digest for item in serving.models(context).items] == [mine.digest]
    assert not bob.home.unsettled.exists()
    context.close()
    remotes.sync(bob)
    sound(bob)


def test_an_alias_that_is_given_while_a_sync_goes_on_names_the_version_that_was_meant(
    team, monkeypatch
):
    _, ada, bob = team
    trained(ada, "of ada")
    remotes.sync(ada)
    mine = trained(bob, "of bob")
    decide = decisions.decide

    def meanwhile(*arguments):
        monkeypatch.setattr(decisions, "decide", decide)
        remotes.sync(workspaces.open_at(bob.root))
        return decide(*arguments)

    monkeypatch.setattr(decisions, "decide", meanwhile)
    decided = models.set_alias(bob, "iris:1", "best")
    assert (decided.version, decided.version_digest) == (2, mine.digest)
    assert models.find(bob, "iris@best").digest == mine.digest
    sound(bob)


def test_a_deployment_that_is_decided_while_a_sync_goes_on_names_what_was_started(
    team, monkeypatch
):
    _, ada, bob = team
    trained(ada, "of ada")
    remotes.sync(ada)
    mine = trained(bob, "of bob")
    record = DeploymentRecord(
        endpoint="main", url="http://127.0.0.1:9", deployment_id="iris-d1", model="iris",
        version=mine.version, commit=mine.commit, launcher="local", author="Bob",
        status=DeploymentStatus.STARTING, created_at=bob.now(),
    )  # fmt: skip
    bob.home.job("iris-d1").inbox.mkdir(parents=True)
    deployments._keep(bob, record)
    remotes.sync(bob)
    deployments._decide(bob, "deployed", record, None, version=mine)
    (placed,) = decisions.placed(ledger.entries(bob.repo))
    assert (placed.decision.version, placed.decision.version_digest) == (2, mine.digest)
    deployments._keep(bob, records.replace(record, status=DeploymentStatus.RUNNING))
    assert deployments.recorded(bob, "iris-d1").version == 2


def test_models_are_listed_alike_before_and_after_the_store_was_lost(team):
    _, ada, bob = team
    trained(ada, "of ada", "cancer")
    remotes.sync(ada)
    trained(bob, "of bob", "iris")
    trained(bob, "of bob", "cancer")
    remotes.sync(bob)
    listed = [version.name for version in models.versions(bob)]
    assert listed == ["cancer:2", "iris:1", "cancer:1"]
    bob.close()
    bob.home.store.unlink()
    opened = workspaces.open_at(bob.root)
    assert [version.name for version in models.versions(opened)] == listed
    rebuilding.repair(opened)
    assert [version.name for version in models.versions(opened)] == listed
    sound(opened)
    opened.close()


def test_what_a_rollback_left_follows_though_it_was_another_model(team):
    _, ada, bob = team
    trained(ada, "of ada", "cancer")
    remotes.sync(ada)
    cancer, iris = trained(bob, "of bob", "cancer"), trained(bob, "of bob", "iris")
    deployed(bob, iris, "iris-d1", endpoint="main")
    deployed(bob, cancer, "cancer-d2", endpoint="main", replaces="iris-d1")
    deployed(
        bob, iris, "iris-d3", endpoint="main", replaces="cancer-d2", reason="rollback",
        rolled_back_from=1,
    )  # fmt: skip
    remotes.sync(bob)
    placed = [item.decision for item in decisions.placed(ledger.entries(bob.repo))]
    assert [item.version for item in placed] == [1, 2, 1]
    assert placed[-1].rolled_back_from == 2


def test_a_deployment_that_was_never_decided_follows_too(team):
    _, ada, bob = team
    trained(ada, "of ada")
    remotes.sync(ada)
    version = trained(bob, "of bob")
    bob.home.job("iris-failed").inbox.mkdir(parents=True)
    failed = DeploymentRecord(
        endpoint="iris", url="http://127.0.0.1:9", deployment_id="iris-failed", model="iris",
        version=version.version, commit=version.commit, launcher="local", author="Bob",
        status=DeploymentStatus.FAILED, created_at=bob.now(),
    )  # fmt: skip
    bob.store.swap(deployments.KIND, "iris-failed", failed, expected=0, key="k", status="failed")
    remotes.sync(bob)
    assert deployments.recorded(bob, "iris-failed").version == 2


def test_a_clone_of_a_clone_has_all_of_it(team, tmp_path):
    bare, ada, _ = team
    for content in ("one", "two"):
        trained(ada, content)
    remotes.sync(ada)
    git(tmp_path, "clone", "--quiet", str(bare), "carol")
    shutil.rmtree(ada.repo.top)
    carol = workspaces.open_at(tmp_path / "carol")
    remotes.sync(carol)
    assert [version.version for version in models.versions(carol)] == [2, 1]
    assert traces.trace(carol, "model/iris:2").snapshot.source
    sound(carol)
    carol.close()
