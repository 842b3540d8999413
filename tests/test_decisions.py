"""What stands follows from the ledger's entries, one after the other."""

import pytest

from nbmlops import decisions, ledger, models
from nbmlops.errors import InvalidName, UnknownAlias, UnknownModel
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
