"""Whoever is up all day: which projects it ticks, and what it says."""

import shutil

from nbmlops import tick
from nbmlops.ticker import Ticker
from sources import git


def project(folder):
    folder.mkdir()
    (folder / "nbmlops.toml").write_text("[project]\nname = 'tiny'\n")
    git(folder, "init", "--quiet")
    return folder


def test_a_project_is_ticked_from_any_of_its_folders_and_only_where_something_was_asked(
    tmp_path, monkeypatch
):
    ticked = []
    monkeypatch.setattr(tick, "tick", lambda opened: ticked.append(opened.root))
    made = project(tmp_path / "one")
    (made / "notebooks").mkdir()
    ticker = Ticker(ticked.append)
    ticker.attend(tmp_path)
    ticker.attend(made / "notebooks")
    ticker.attend(made)
    ticker.tick()
    assert ticked == []
    (made / ".git" / "nbmlops").mkdir()
    ticker.tick()
    assert ticked == [made]
    shutil.rmtree(made)
    ticker.tick()
    assert ticked == [made]


def test_what_goes_wrong_is_said_once_and_hinders_no_other(tmp_path, monkeypatch):
    told, ticked = [], []
    monkeypatch.setattr(tick, "tick", lambda opened: ticked.append(opened.root))
    bad, good = project(tmp_path / "bad"), project(tmp_path / "good")
    (good / ".git" / "nbmlops").mkdir()
    (bad / "nbmlops.toml").write_text("[project")
    ticker = Ticker(told.append)
    for one in (bad, good):
        ticker.attend(one)
    ticker.tick()
    ticker.tick()
    (line,) = told
    assert line.startswith("bad: InvalidSettings: ")
    assert ticked == [good, good]
    (bad / "nbmlops.toml").write_text("[project]\nname = 'tiny'\n")
    ticker.tick()
    (bad / "nbmlops.toml").write_text("[project")
    ticker.tick()
    assert len(told) == 2, "it had been well again"
