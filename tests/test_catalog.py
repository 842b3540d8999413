"""What stood where and when, by whom it was decided, and how a person is told."""

from datetime import UTC, datetime

import pytest

from nbmlops import catalog, models, render
from nbmlops.errors import UnknownAlias, UnknownModel, WrongUse
from nbmlops.records import Cause
from nbmlops.widgets import timeline
from registered import deployed, version

pytestmark = pytest.mark.slow  # long ledgers


def day(number, hour=12):
    return datetime(2026, 5, number, hour, tzinfo=UTC)


@pytest.fixture
def decided(workspace):
    """Three versions; on the 1st one serves, on the 3rd two, on the 5th three, then back to two."""

    def on(number):
        workspace.now = lambda: day(number)

    on(1)
    one = version(workspace, 1)
    deployed(workspace, one, "iris-d1")
    models.set_alias(workspace, "iris:1", "best")
    on(3)
    two = version(workspace, 2)
    deployed(workspace, two, "iris-d2", replaces="iris-d1")
    on(4)
    models.set_alias(workspace, "iris:2", "best")
    on(5)
    three = version(workspace, 3)
    deployed(workspace, three, "iris-d3", replaces="iris-d2")
    on(6)
    deployed(workspace, two, "iris-d4", replaces="iris-d3", reason="rollback", rolled_back_from=3)
    version(workspace, 1, model="other")
    on(20)
    return workspace


def test_a_model_as_it_stands(decided):
    found = catalog.report(decided, "iris")
    assert (found.model, found.version, found.at) == ("iris", 3, None)
    assert [item.version for item in found.versions] == [3, 2, 1]
    assert found.aliases == {"best": 2}
    assert found.versions[1].aliases == ("best",)
    assert found.versions[1].endpoints == ("iris",)
    (placed,) = found.deployed
    assert (placed.version, placed.deployment_id, placed.since) == (2, "iris-d4", day(6))
    assert (placed.author, placed.reason) == ("Ada <ada@example.org>", "rollback")
    assert [(item.sequence, item.kind, item.version) for item in found.history] == [
        (1, "version", 1),
        (2, "deployed", 1),
        (3, "alias", 1),
        (4, "version", 2),
        (5, "deployed", 2),
        (6, "alias", 2),
        (7, "version", 3),
        (8, "deployed", 3),
        (9, "rolled-back", 2),
    ]
    assert found.history[5].what == "moved the alias best from 1 to iris:2"
    assert found.history[8].what == "rolled iris back from 3 to iris:2"


def test_the_lineage_is_of_the_version_that_was_asked_for(decided):
    lineage = catalog.report(decided, "iris@best").lineage
    assert (lineage.version, lineage.run_id) == (2, "train-iris-2")
    assert lineage.commit == decided.repo.text("rev-parse", "HEAD")
    assert (lineage.notebook, lineage.cell, lineage.parameters) == ("train.ipynb", 2, {"depth": 3})
    assert lineage.columns == {"width": "number", "city": "category"}
    assert (lineage.output, lineage.missing) == ("label", ())
    assert set(lineage.files) == {"model", "schema", "profile", "environment"}


def test_what_is_lost_is_named_and_the_rest_is_told(decided):
    schema = catalog.report(decided, "iris:1").lineage.files["schema"].digest
    (decided.home.artifacts / schema[:2] / schema[2:]).unlink()
    lineage = catalog.report(decided, "iris:1").lineage
    assert (lineage.missing, lineage.columns) == (("schema",), {})
    assert lineage.parameters == {"depth": 3}


@pytest.mark.parametrize(
    ("at", "versions", "serving", "aliases"),
    [
        ("2026-05-01", [1], 1, {"best": 1}),
        ("2026-05-02", [1], 1, {"best": 1}),
        ("2026-05-03T11:59:59Z", [1], 1, {"best": 1}),
        ("2026-05-03T12:00:00Z", [2, 1], 2, {"best": 1}),
        ("2026-05-03T14:00:00+02:00", [2, 1], 2, {"best": 1}),
        ("2026-05-03", [2, 1], 2, {"best": 1}),
        ("2026-05-04", [2, 1], 2, {"best": 2}),
        ("2026-05-05", [3, 2, 1], 3, {"best": 2}),
        ("2026-05-06", [3, 2, 1], 2, {"best": 2}),
        ("2099-01-01", [3, 2, 1], 2, {"best": 2}),
    ],
)
def test_a_model_as_it_stood(decided, at, versions, serving, aliases):
    found = catalog.report(decided, "iris", at=at)
    assert [item.version for item in found.versions] == versions
    assert [item.version for item in found.deployed] == [serving]
    assert found.aliases == aliases
    assert found.version == versions[0]
    assert found.deployed[0].status is None
    assert all(item.at <= catalog.moment_of(at) for item in found.history)


def test_an_alias_is_asked_as_it_stood(decided):
    assert catalog.report(decided, "iris@best", at="2026-05-03").version == 1
    assert catalog.report(decided, "iris@best", at="2026-05-04").version == 2


def test_what_was_not_there_yet_is_refused_with_when_it_came(decided):
    with pytest.raises(UnknownModel, match="had no version at 2026-04-30T23:59:59Z") as caught:
        catalog.report(decided, "iris", at="2026-04-30")
    assert "2026-05-01T12:00:00Z" in caught.value.hint
    with pytest.raises(UnknownModel, match="no version `3` at 2026-05-04"):
        catalog.report(decided, "iris:3", at="2026-05-04")
    with pytest.raises(UnknownAlias):
        catalog.report(decided, "iris@worst")
    with pytest.raises(UnknownModel) as caught:
        catalog.report(decided, "irs")
    assert "Did you mean `iris`?" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["yesterday", "", "2026-13-01", "2026-05-01T12:00:00", "12:00Z", "9999-99-99", "20260501"],
)
def test_a_moment_that_is_none_is_refused(text):
    with pytest.raises(WrongUse, match="neither a date nor a time") as caught:
        catalog.moment_of(text)
    assert "2026-05-01" in caught.value.hint


def test_where_clocks_disagree_the_order_of_the_ledger_counts(workspace):
    workspace.now = lambda: day(10)
    one = version(workspace, 1)
    two = version(workspace, 2)
    deployed(workspace, one, "iris-d1")
    workspace.now = lambda: day(2)  # a machine whose clock is behind
    deployed(workspace, two, "iris-d2", replaces="iris-d1")
    workspace.now = lambda: day(20)
    found = catalog.report(workspace, "iris", at="2026-05-11")
    assert [item.version for item in found.deployed] == [2]
    assert [item.sequence for item in found.history] == [1, 2, 3, 4]


PICTURE = """\
iris:3              ● ━━
iris:2        ● ━━◆━━━  ↩━  → iris @best
iris:1  ● ━━◆━━━
"""


def test_the_picture_shows_who_had_the_traffic(decided):
    drawn = timeline.drawn(catalog.report(decided, "iris"))
    assert drawn.startswith(PICTURE)
    assert drawn.splitlines()[-1] == timeline.LEGEND


def test_the_picture_shows_what_was_taken_back_and_stopped(workspace):
    one, two = (version(workspace, number) for number in (1, 2))
    deployed(workspace, one, "iris-d1")
    deployed(workspace, two, "iris-d2", replaces="iris-d1")
    cause = Cause(code="deployment-failed", message="it ended")
    deployed(workspace, two, "iris-d2", "undeployed", cause=cause)
    deployed(workspace, one, "iris-d1", "undeployed")
    found = catalog.report(workspace, "iris")
    assert found.deployed == ()
    assert [item.kind for item in found.history][-2:] == ["taken-back", "undeployed"]
    two_row, one_row, *_ = timeline.drawn(found).splitlines()
    assert two_row[8:].rstrip() == "  ●   ━━✗"
    assert one_row[8:].rstrip() == "●   ━━  ━━╸"
    shown = render.text(render.view(found))
    assert "It serves nowhere." in shown
    assert "took back iris:2 from iris: it ended" in shown


def test_a_long_history_is_cut_and_said_so(workspace):
    made = [version(workspace, number) for number in range(1, 16)]
    for number in range(30):
        deployed(workspace, made[number % 15], f"iris-d{number}")
    drawn = timeline.drawn(catalog.report(workspace, "iris")).splitlines()
    assert max(len(line) for line in drawn) < 100
    assert "… and 3 older versions" in drawn
    shown = render.text(render.view(catalog.report(workspace, "iris")))
    assert "… after 15 earlier ones" in shown


def test_the_text_tells_what_a_person_asks(decided):
    shown = render.text(render.view(catalog.report(decided, "iris")))
    for told in ("iris: 3 versions", "rolled back 2026-05-06", "train-iris-3", "What was decided"):
        assert told in shown
    assert "as it stood on 2026-05-03" in render.text(
        render.view(catalog.report(decided, "iris", at="2026-05-03"))
    )
    assert "<script" not in render.html(render.view(catalog.report(decided, "iris")))
