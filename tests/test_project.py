from datetime import timedelta

import pytest

from nbmlops import layout, project
from nbmlops.errors import InvalidName, InvalidSettings, NoProject


def read(tmp_path, text):
    (tmp_path / "nbmlops.toml").write_text(text)
    return project.read(tmp_path)


GOOD = """
[project]
name = "churn"
secrets = ["API_KEY"]

[pipelines.train]
steps = [{ notebook = "a.ipynb", outputs = ["data/x.csv"] }, { name = "fit", notebook = "b.ipynb" }]
resources = { memory_mib = 512 }

[monitoring]
false_alarms = 2
"""


def test_a_good_file_is_read_with_its_defaults(tmp_path):
    settings = read(tmp_path, GOOD)
    assert settings.project.name == "churn"
    assert settings.pipelines["train"].steps[1].name == "fit"
    assert settings.pipelines["train"].resources.memory_mib == 512
    assert settings.pipelines["train"].resources.timeout_s is None
    assert (settings.monitoring.false_alarms, settings.monitoring.windows) == (2, 100)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[proyect]\nname='x'", "unknown key `proyect`"),
        ("[project]\nname='x'\nsecret=['A']", "unknown key `secret` \\(line 3\\)"),
        ("[project]\nname='x'\n[monitoring]\nwindws=1", "unknown key `windws`"),
        ("[project]\nname='x'\n[pipelines.p]\nsteps=[{notebok='a'}]", "step 1: .*`notebok`"),
        ("[project]\nname='x'\n[pipelines.p]\nsteps=[]", "has no steps"),
        ("[project]\nname='x'\n[pipelines.p]\nsteps='a'", "Expected `array`"),
        ("[project]\nname=3", "Expected `str`"),
        ("[project", "not valid TOML"),
        ("", "project"),
        ("[project]\nname='x'\n[pipelines.p]\nsteps=[{notebook='../a.ipynb'}]", "inside the pr"),
        ("[project]\nname='x'\n[pipelines.p]\nsteps=[{notebook='/a.ipynb'}]", "inside the pr"),
        ("[project]\nname='x'\n[pipelines.p]\nsteps=[{notebook='a'},{notebook='a'}]", "two steps"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path, wrong, said):
    with pytest.raises(InvalidSettings, match=said) as caught:
        read(tmp_path, wrong)
    assert caught.value.hint


def test_an_unknown_key_is_answered_with_the_nearest_known(tmp_path):
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, "[project]\nname='x'\nsecrts=[]")
    assert caught.value.hint == "Did you mean `secrets`?"


@pytest.mark.parametrize("name", ["Has Space", "-x", "x/../y", "", "ü", "a" * 41, "a\n", ".."])
def test_odd_names_are_refused_everywhere(tmp_path, name):
    for check in (layout.checked_name,):
        with pytest.raises(InvalidName):
            check(name, "thing")
    with pytest.raises(InvalidName):
        layout.checked_job(name + "!")


def test_no_project_says_what_to_type(tmp_path):
    with pytest.raises(NoProject) as caught:
        project.read(tmp_path)
    assert "nbmlops init" in caught.value.hint


def test_ids_sort_by_time_and_are_dns_labels():
    early, late = layout.new_id("train", 1000.0), layout.new_id("train", 2000.0)
    assert early < late
    assert layout.checked_job(layout.new_id("a" * 40)) != layout.new_id("a" * 40)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "f"
    layout.write_file(target, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        layout.write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


CALLS = "[project]\nname = 'a'\n[calls]\n"


def test_calls_are_kept_as_the_table_says(tmp_path):
    path = tmp_path / "nbmlops.toml"
    path.write_text(CALLS + "never = ['ssn']\nhashed = ['customer_id']\nkeep = '90d'\n")
    found = project.read(tmp_path).calls
    assert (found.never, found.hashed, found.kept_for) == (
        ("ssn",),
        ("customer_id",),
        timedelta(days=90),
    )
    path.write_text("[project]\nname = 'a'\n")
    assert project.read(tmp_path).calls.kept_for is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("keep = '90 days'", "no length of time"),
        ("keep = '0d'", "no length of time"),
        ("never = ['a']\nhashed = ['a']", "`a` in never and in hashed"),
        ("hash = ['a']", "unknown key `hash`"),
        ("never = 'a'", "Expected `array`"),
    ],
)
def test_a_table_of_calls_without_meaning_is_refused(tmp_path, line, words):
    (tmp_path / "nbmlops.toml").write_text(CALLS + line)
    with pytest.raises(InvalidSettings) as caught:
        project.read(tmp_path)
    assert words in caught.value.message
