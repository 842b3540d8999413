import multiprocessing
from datetime import UTC, datetime

from nbmlops import ledger, snapshot
from nbmlops.layout import LEDGER_REF
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
