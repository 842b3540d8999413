"""Declared bounds: read strictly, laid over the inferred ones, flagged and counted at each call."""

import dataclasses
import json
import math
import urllib.request

import pandas as pd
import pytest

from nbmlops import (
    batches,
    deployments,
    digests,
    endpoints,
    models,
    pipelines,
    project,
    schema,
    stepcache,
    tracking,
)
from nbmlops.errors import InvalidSettings
from nbmlops.project import ModelSettings
from nbmlops.records import Bounds, ModelSchema, OutputSchema, dump, load, replace
from nbmlops.schema.answers import outputs as fitted
from nbmlops.tensors import Tensor
from served import call, row

WHERE = "nbmlops.toml: [models.x.bounds]"
VALUES = OutputSchema(kind="value", low=-5.0, high=20.0)
LABELS = OutputSchema(kind="label", classes=("no", "yes"), probabilities=True)


def read(folder, text):
    (folder / "nbmlops.toml").write_text(f"[project]\nname='x'\n{text}")
    return project.read(folder)


# --- settings -------------------------------------------------------------------------------------


def test_a_model_of_scikit_learn_may_have_bounds_alone(tmp_path):
    entry = read(tmp_path, "[models.price.bounds]\nlow = 0\n").models["price"]
    assert entry.bounds == Bounds(low=0.0)
    assert not entry.is_own_kind
    assert read(tmp_path, "[models.r]\nloader='a:b'\nbounds={high=3.5}").models["r"].is_own_kind


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("low = 3\nhigh = 2", "low = 3, which is above high = 2"),
        ("low = nan", "no number"),
        ("labels = []", "no label at all"),
        ("confidence = 0", "no probability"),
        ("confidence = 1.01", "no probability"),
        ("confidence = nan", "no number"),
        ("low = 1\nlabels = ['yes']", "of values and of labels"),
        ("hihg = 1", "unknown key `hihg`"),
        ("low = 'a'", "Expected `float"),
        ("labels = [[1]]", "labels"),
        ("", "declares nothing"),
    ],
)
def test_bounds_that_no_model_can_have_are_refused_with_the_place(tmp_path, wrong, said):
    with pytest.raises(InvalidSettings, match=said) as caught:
        read(tmp_path, f"[models.price.bounds]\n{wrong}\n")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["[models.a]\n", "[models.a]\nloader='a:b'\ncommand=['c']\n"])
def test_an_entry_that_says_nothing_or_too_much_is_refused_as_before(tmp_path, text):
    with pytest.raises(InvalidSettings, match="neither a loader nor"):
        read(tmp_path, text)


def test_a_loader_and_a_command_are_too_much_with_bounds_as_well(tmp_path):
    with pytest.raises(InvalidSettings, match="or both"):
        read(tmp_path, "[models.a]\nloader='a:b'\ncommand=['c']\nbounds={low=1}")


# --- laid over what was inferred ------------------------------------------------------------------


def test_what_is_not_declared_stays_inferred():
    assert schema.bounded(VALUES, Bounds(low=0.0), WHERE) == replace(VALUES, low=0.0)
    assert schema.bounded(VALUES, Bounds(high=9.0), WHERE) == replace(VALUES, high=9.0)
    assert schema.bounded(LABELS, Bounds(confidence=0.6), WHERE).allowed == LABELS.allowed


def test_infinite_bounds_are_none_and_survive_json():
    held = schema.bounded(VALUES, Bounds(low=-math.inf, high=math.inf), WHERE)
    assert (held.low, held.high) == (None, None)
    assert load(dump(held), OutputSchema) == held


def test_a_version_s_own_schema_is_written_as_it_always_was():
    assert set(json.loads(dump(LABELS))) == {
        *("kind", "classes", "class_kind", "probabilities", "low", "high")
    }


@pytest.mark.parametrize(
    ("output", "bounds", "said", "hint"),
    [
        (VALUES, Bounds(labels=("yes",)), "answers values", "low and high"),
        (VALUES, Bounds(low=21.0), "no value", "high = inf"),
        (VALUES, Bounds(high=-6.0), "no value", "low = -inf"),
        (LABELS, Bounds(low=0.0), "answers labels", 'labels = ["no"'),
        (LABELS, Bounds(labels=("yess",)), "never answers", "mean `yes`"),
        (LABELS, Bounds(labels=(1,)), "`1`, which the model never answers", "Known: no, yes"),
        (replace(LABELS, probabilities=False), Bounds(confidence=0.5), "no probab", "predict_p"),
    ],
)
def test_bounds_of_another_model_are_refused_with_what_to_type(output, bounds, said, hint):
    with pytest.raises(InvalidSettings, match=said) as caught:
        schema.bounded(output, bounds, WHERE)
    assert caught.value.message.startswith(WHERE)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "classes", "declared", "allowed"),
    [
        ("integer", ("0", "1"), (1,), ("1",)),
        ("integer", ("0", "1"), (1.0,), ("1",)),
        ("number", ("0.5", "1.0"), (1, 0.5), ("1.0", "0.5")),
        ("boolean", ("false", "true"), (True,), ("true",)),
        ("text", ("no", "yes"), ("yes",), ("yes",)),
    ],
)
def test_labels_are_written_as_toml_has_them(kind, classes, declared, allowed):
    output = OutputSchema(kind="label", classes=classes, class_kind=kind)
    assert schema.bounded(output, Bounds(labels=declared), WHERE).allowed == allowed


def flags(output, labels, shares=()):
    wanted = {"value": "FP64"}.get(output.kind, "BYTES")
    found = {"prediction": Tensor("prediction", wanted, (len(labels),), list(labels))}
    if shares:
        flat = [share for pair in shares for share in pair]
        found["probability"] = Tensor("probability", "FP64", (len(labels), 2), flat)
    contract = ModelSchema(columns=(), output=output)
    assert fitted(contract, found, len(labels))
    return [one.within_bounds for one in schema.predictions(contract, found, len(labels))]


@pytest.mark.parametrize("odd", [(0.3, 0.7), (math.nan, 0.7), (0.3, 1.5)])
def test_answers_are_flagged_row_by_row_whatever_is_beside_them(odd):
    held = schema.bounded(LABELS, Bounds(confidence=0.6), WHERE)
    found = flags(
        held, ["yes", "yes", "no", "other", "yes"], [(0.4, 0.6), (0.5, 0.5), (0.7, 0.3), odd, odd]
    )
    assert found == [True, False, True, False, odd == (0.3, 0.7)]
    held = schema.bounded(LABELS, Bounds(labels=("no",)), WHERE)
    assert flags(held, ["yes", "no", "no"], [(0.1, 0.9), (0.9, 0.1), odd])[:2] == [False, True]
    plain = replace(held, probabilities=False)
    assert flags(plain, ["yes", "no"]) == [False, True]


def test_a_value_at_the_bound_is_within_it():
    held = schema.bounded(VALUES, Bounds(low=0.0, high=1.0), WHERE)
    assert flags(held, [0.0, 1.0, -0.001, 1.001]) == [True, True, False, False]
    free = schema.bounded(VALUES, Bounds(low=-math.inf, high=math.inf), WHERE)
    assert flags(free, [1e300, math.inf, math.nan]) == [True, False, False]


# --- training is as it was ------------------------------------------------------------------------


def test_bounds_are_in_no_step_s_key(workspace):
    commit = workspace.repo.text("rev-parse", "HEAD")
    pipeline = pipelines.find(workspace, "train")
    steps, _ = pipelines.steps(workspace, commit, pipeline, {})

    def keys(entries):
        workspace.settings = replace(workspace.settings, models=entries)
        made = stepcache.keyed(workspace, commit, steps, pipeline.settings.steps, "e", ())
        return [step.key for step in made]

    own, bounds = ModelSettings(loader="a:b"), Bounds(low=0.0)
    assert keys({}) == keys({"x": ModelSettings(bounds=bounds)})
    assert keys({"x": own}) == keys({"x": replace(own, bounds=bounds)}) != keys({})


def test_a_model_with_bounds_alone_is_kept_as_before(tmp_path, monkeypatch):
    from sklearn.linear_model import LinearRegression

    read(tmp_path, "[models.price.bounds]\nlow = 0\n")
    monkeypatch.setenv("NBMLOPS_PROJECT", str(tmp_path))
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    _, kept = tracking._kept(model, "price", None)
    assert (kept.format, kept.loader, kept.command) == ("skops", None, ())


# --- served ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Declared:
    opened: object

    def __call__(self, **bounds):
        entry = ModelSettings(bounds=Bounds(**bounds))
        self.opened.settings = replace(self.opened.settings, models={"churn": entry})


@pytest.fixture
def declared(churn):
    before = churn.settings
    yield Declared(churn)
    churn.settings = before
    deployments.deploy(churn, "churn:1")


def counted(opened, name="nbmlops_out_of_bounds_total"):
    url = endpoints.running(opened, "churn").url.rstrip("/")
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    deployment = deployments.pointed(opened, "churn").deployment_id
    label = f'{name}{{deployment="{deployment}",model="churn",version="1"}} '
    return next((float(line.split()[-1]) for line in lines if line.startswith(label)), 0.0)


@pytest.mark.slow
def test_changed_bounds_take_effect_at_the_next_deploy_of_the_same_version(churn, declared):
    first = deployments.deploy(churn, "churn:1")
    rows = [row(0), row(119)]
    answers = [one["label"] for one in call(churn, *rows)["predictions"]]
    assert sorted(answers) == ["no", "yes"]
    before = counted(churn), counted(churn, "nbmlops_rows_total")
    declared(labels=("no",))
    assert all(one["within_bounds"] for one in call(churn, *rows)["predictions"])
    assert deployments.deploy(churn, "churn:1").deployment_id == first.deployment_id
    found = call(churn, *rows)["predictions"]
    assert [one["within_bounds"] for one in found] == [label == "no" for label in answers]
    assert counted(churn) == before[0] + 1
    assert counted(churn, "nbmlops_rows_total") == before[1] + 4
    revision = endpoints.running(churn, "churn").revision
    deployments.deploy(churn, "churn:1")
    assert endpoints.running(churn, "churn").revision == revision
    declared(confidence=0.9)
    deployments.deploy(churn, "churn:1")
    found = call(churn, *map(row, range(120)))["predictions"]
    sure = [one["probabilities"][one["label"]] >= 0.9 for one in found]
    assert [one["within_bounds"] for one in found] == sure
    assert set(sure) == {True, False}


@pytest.mark.slow
def test_bounds_that_are_not_the_version_s_are_refused_before_anything_starts(churn, declared):
    declared(low=0.0)
    for refused in (
        lambda: deployments.deploy(churn, "churn:1"),
        lambda: deployments.deploy(churn, "churn:2"),
    ):
        with pytest.raises(InvalidSettings, match="answers labels"):
            refused()
    warned = []
    churn.warn, warn = warned.append, churn.warn
    try:  # what was decided to serve, serves: as a wake, a rollback or a settling would have it
        current = deployments.pointed(churn, "churn")
        output = deployments._route(churn, current).schema.output
        deployments.tell(churn, "churn")
    finally:
        churn.warn = warn
    assert output == models.schema(churn, models.find(churn, "churn:1")).output
    assert "inferred bounds" in warned[0]


@pytest.mark.slow
def test_bounds_of_a_model_that_is_not_there_are_told(churn, declared):
    churn.settings = replace(
        churn.settings, models={"chrun": ModelSettings(bounds=Bounds(labels=("no",)))}
    )
    warned = []
    churn.warn, warn = warned.append, churn.warn
    try:
        deployments.deploy(churn, "churn:1")
    finally:
        churn.warn = warn
    assert len(warned) == 1
    assert "[models.chrun.bounds]" in warned[0]
    assert "Did you mean `churn`?" in warned[0]


@pytest.mark.slow
def test_predict_has_the_bounds_of_today_and_answers_again_when_they_change(
    churn, declared, tmp_path
):
    pd.DataFrame([row(age) for age in range(0, 120, 10)]).to_csv(tmp_path / "a.csv", index=False)

    def answered():
        report = batches.predict_all(
            churn, "churn:1", [("a.csv", tmp_path / "a.csv")], tmp_path / "out", force=forced
        )
        return report.already, report.out_of_bounds

    forced = False
    assert answered() == (0, 0)
    assert answered() == (1, 0)
    declared(labels=("no",))
    forced = True
    already, outside = answered()
    assert already == 0
    assert 0 < outside < 12
    forced = False
    assert answered() == (1, 0)
    declared(labels=("yes",))
    asked = batches._file(tmp_path / "a.csv", tmp_path / "out" / "a.csv")
    version = models.find(churn, "churn:1")
    assert not batches._is_answered(churn, version, asked)
    assert digests.of_file(tmp_path / "out" / "a.csv")
    declared(low=1.0)
    with pytest.raises(InvalidSettings, match="answers labels"):
        batches.predict(churn, "churn:1", tmp_path / "a.csv", tmp_path / "b.csv")
