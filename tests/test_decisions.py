"""What stands follows from the ledger's entries, one after the other."""

import pytest

from nbmlops import decisions, deployments, endpoints, health, ledger, models, rebuilding, records
from nbmlops.errors import (
    Conflict,
    InvalidName,
    NothingToGoBackTo,
    UnknownAlias,
    UnknownModel,
    WrongUse,
)
from nbmlops.records import Cause
from registered import deployed, version


def back(workspace):
    traffic = decisions.traffic(ledger.entries(workspace.repo))["iris"]
    standing = traffic.standing and traffic.standing.decision.version
    return standing, [item.decision.version for item in traffic.back]


def test_going_back_goes_further_back_each_time(workspace):
    one, two, three = (version(workspace, number) for number in (1, 2, 3))
    for number, made in enumerate((one, two, three)):
        deployed(workspace, made, f"iris-d{number}")
    assert back(workspace) == (3, [1, 2, 3])
    deployed(workspace, two, "iris-d4", reason="rollback", rolled_back_from=3)
    assert back(workspace) == (2, [1, 2])
    deployed(workspace, one, "iris-d5", reason="rollback", rolled_back_from=2)
    assert back(workspace) == (1, [1])
    deployed(workspace, three, "iris-d6")
    assert back(workspace) == (3, [1, 3])
    # The same version once more is not one more step back.
    deployed(workspace, three, "iris-d7")
    assert back(workspace) == (3, [1, 3])
    # One that was left by a rollback took the traffic once: going there is a step of its own.
    deployed(workspace, two, "iris-d8", reason="rollback", rolled_back_from=3)
    assert back(workspace) == (2, [1, 3, 2])


def test_what_was_taken_back_leaves_what_served_before(workspace):
    one, two = (version(workspace, number) for number in (1, 2))
    first = deployed(workspace, one, "iris-d1")
    deployed(workspace, two, "iris-d2", replaces="iris-d1")
    taken_back = deployed(
        workspace, two, "iris-d2", "undeployed", cause=Cause(code="deployment-failed", message="x")
    )
    entries = list(ledger.entries(workspace.repo))
    assert back(workspace) == (1, [1])
    assert decisions.ended_at(entries, "iris-d1") is None
    assert decisions.ended_at(entries, "iris-d2") == taken_back.at
    stopped = deployed(workspace, one, "iris-d1", "undeployed")
    assert back(workspace) == (None, [1])
    assert decisions.ended_at(ledger.entries(workspace.repo), "iris-d1") == stopped.at > first.at


def test_an_alias_names_one_version_and_each_move_is_an_entry(workspace):
    for number in (1, 2):
        version(workspace, number)
    assert models.set_alias(workspace, "iris:1", "best").moved_from is None
    assert models.set_alias(workspace, "iris:1", "best") is None
    assert models.set_alias(workspace, "iris", "best").moved_from == 1
    assert models.find(workspace, "iris@best").version == 2
    listed = models.aliased(workspace, models.versions(workspace))
    assert [(item.version, item.aliases) for item in listed] == [(2, ("best",)), (1, ())]
    with pytest.raises(UnknownAlias, match="no alias of iris:1"):
        models.take_alias(workspace, "iris:1", "best")
    assert models.take_alias(workspace, "iris@best", "best").removed
    with pytest.raises(UnknownAlias):
        models.find(workspace, "iris@best")
    moves = [e.body["version"] for e in ledger.entries(workspace.repo) if e.kind == "alias"]
    assert moves == [1, 2, 2]


@pytest.mark.parametrize("word", ["latest", "1", "Best", "", "a_b", "-a", "a" * 64, "a\n"])
def test_words_that_are_no_alias_are_refused(workspace, word):
    version(workspace, 1)
    with pytest.raises(InvalidName):
        models.set_alias(workspace, "iris:1", word)
    assert [entry.kind for entry in ledger.entries(workspace.repo)] == ["version"]


def test_unknown_names_say_what_is_known(workspace):
    version(workspace, 1)
    models.set_alias(workspace, "iris:1", "best")
    with pytest.raises(UnknownAlias) as caught:
        models.find(workspace, "iris@bst")
    assert "Did you mean `best`?" in caught.value.hint
    with pytest.raises(UnknownModel):
        models.find(workspace, "irs@best")


def test_what_a_newer_version_has_decided_is_passed_over_and_named(workspace):
    version(workspace, 1)
    ledger.append(workspace.repo, "approved", lambda _: {"by": "Eve"}, workspace.now())
    ledger.append(workspace.repo, "alias", lambda _: {"alias": 7}, workspace.now())
    models.set_alias(workspace, "iris:1", "best")
    entries = list(ledger.entries(workspace.repo))
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4]
    assert decisions.aliases(entries) == {"iris": {"best": 1}}
    assert [entry.sequence for entry, _ in decisions.misfits(entries)] == [2, 3]


def test_a_decision_whose_number_and_digest_are_of_two_versions_is_told_until_it_is_decided_anew(
    workspace,
):
    one, two = (version(workspace, number) for number in (1, 2))
    body = {"model": "iris", "version": 1, "version_digest": two.digest, "alias": "best"}
    decisions.decide(workspace, "alias", lambda _: body)
    deployed(workspace, one, "iris-d1", version_digest=two.digest)
    found = list(decisions.astray(ledger.entries(workspace.repo)))
    assert [entry.sequence for entry, _ in found] == [3, 4]
    assert found[0][1] == f"names iris:1 as {two.digest[:12]}, and that is {one.digest[:12]}"
    told = [item for item in health.check(workspace).findings if item.code == "decision-astray"]
    assert ["best" in told[0].fix, "--endpoint iris" in told[1].fix] == [True, True]
    models.set_alias(workspace, "iris:2", "best")
    deployed(workspace, one, "iris-d2", replaces="iris-d1")
    assert list(decisions.astray(ledger.entries(workspace.repo))) == []


def test_a_number_that_is_another_version_s_by_now_is_not_written(workspace):
    one, two = (version(workspace, number) for number in (1, 2))
    entries = list(ledger.entries(workspace.repo))
    assert decisions.numbered(entries, one) == 1
    assert decisions.numbered(entries[:1], two) == 2  # nobody else has it
    assert decisions.numbered(entries, records.replace(two, version=1)) == 2
    with pytest.raises(Conflict, match="iris:1 is another version by now"):
        decisions.numbered(entries, records.replace(one, digest="f" * 64))


# --- two models behind one endpoint ---------------------------------------------------------------


@pytest.fixture
def changed(workspace, monkeypatch):
    """An endpoint `main` that served cancer:1 and then iris:1; a rollback tells where it goes."""
    cancer, iris = version(workspace, 1, "cancer"), version(workspace, 1, "iris")
    deployed(workspace, cancer, "cancer-d1", endpoint="main")
    deployed(workspace, iris, "iris-d2", endpoint="main", replaces="cancer-d1")
    rebuilding.repair(workspace)
    monkeypatch.setattr(endpoints, "running", endpoints.find)
    monkeypatch.setattr(deployments, "_settle", lambda *_: None)
    monkeypatch.setattr(
        deployments,
        "_deploy",
        lambda _, version, *__, rolled_back_from: (version.name, rolled_back_from),
    )
    return workspace


def test_a_rollback_goes_back_to_another_model_of_the_same_number(changed):
    assert deployments.rollback(changed, "main") == ("cancer:1", 1)
    assert deployments.rollback(changed, "main", "cancer:1") == ("cancer:1", 1)
    assert deployments.rollback(changed, "main", "iris:1")[0] == "iris:1"


def test_a_number_that_two_models_have_is_not_guessed_at(changed):
    with pytest.raises(WrongUse, match="version 1 of cancer and of iris") as refused:
        deployments.rollback(changed, "main", "1")
    assert "nbmlops rollback main --to cancer:1" in refused.value.hint
    third = version(changed, 3, "iris")
    deployed(changed, third, "iris-d3", endpoint="main", replaces="iris-d2")
    assert deployments.rollback(changed, "main", "3")[0] == "iris:3"
    with pytest.raises(NothingToGoBackTo, match="those that did: cancer:1, iris:1, iris:3") as none:
        deployments.rollback(changed, "main", "2")
    assert "`nbmlops deploy iris:2 --endpoint main`" in none.value.hint


def test_a_hint_names_the_model_not_the_endpoint(changed):
    cancer = models.find(changed, "cancer:1")
    deployed(changed, cancer, "cancer-d9", endpoint="other")
    rebuilding.repair(changed)
    with pytest.raises(NothingToGoBackTo, match="before cancer:1") as refused:
        deployments.rollback(changed, "other")
    assert refused.value.hint == "See what was decided: `nbmlops model cancer`."
    record = deployments.recorded(changed, "iris-d2")
    assert deployments.deploying(record) == "nbmlops deploy iris:1 --endpoint main"
