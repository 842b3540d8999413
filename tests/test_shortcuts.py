"""Quicker forms answer as the model as given, whatever the rows are; else they are not taken."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from nbmlops import predictors, schema, shortcuts

CANCER = load_breast_cancer(return_X_y=True, as_frame=True)
IRIS = load_iris(return_X_y=True, as_frame=True)
DIABETES = load_diabetes(return_X_y=True, as_frame=True)
WORDS = (CANCER[0], CANCER[1].map({0: "bad", 1: "good"}))

CASES = {
    "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), CANCER, "numeric"),
    "words": (make_pipeline(MinMaxScaler(), LogisticRegression()), WORDS, "numeric"),
    "three classes": (make_pipeline(RobustScaler(), LogisticRegression()), IRIS, "numeric"),
    "no mean": (
        make_pipeline(StandardScaler(with_mean=False), LogisticRegression()), CANCER, "numeric",
    ),
    "passed through": (make_pipeline("passthrough", LinearRegression()), DIABETES, "numeric"),
    "linear": (LinearRegression(), DIABETES, "numeric"),
    "ridge": (make_pipeline(StandardScaler(with_std=False), Ridge()), DIABETES, "numeric"),
    "lasso": (Lasso(), DIABETES, "numeric"),
    "elastic": (ElasticNet(), DIABETES, "numeric"),
    "forest": (RandomForestClassifier(10, random_state=0), WORDS, "numeric"),
    "extra trees": (ExtraTreesClassifier(10, random_state=0), IRIS, "numeric"),
    "forest of values": (RandomForestRegressor(10, random_state=0), DIABETES, "numeric"),
    "extra values": (ExtraTreesRegressor(10, random_state=0), DIABETES, "numeric"),
    "boosting": (GradientBoostingClassifier(n_estimators=5, random_state=0), CANCER, "direct"),
    "neighbours": (make_pipeline(StandardScaler(), KNeighborsClassifier()), IRIS, "direct"),
    "clipped": (make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), CANCER, "direct"),
    "selection": (
        make_pipeline(SelectKBest(k=3), StandardScaler(), LogisticRegression()), CANCER, "direct",
    ),
    "polynomials": (make_pipeline(PolynomialFeatures(2), Ridge()), DIABETES, "direct"),
    "no shares": (make_pipeline(StandardScaler(), SGDClassifier(random_state=0)), CANCER, "direct"),
}  # fmt: skip


def contract_of(model, table, target):
    return schema.infer(
        table,
        target,
        classes=getattr(model, "classes_", None),
        probabilities=hasattr(model, "predict_proba"),
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_the_quickest_form_that_agrees_is_taken(name):
    model, (table, target), form = CASES[name]
    model.fit(table, target)
    contract = contract_of(model, table, target)
    probe, sample = predictors.probe(model, contract, table)
    assert (probe.form, probe.independent, probe.deterministic) == (form, True, True)
    quick = predictors.Predictor(model, contract, probe.form)
    plain = predictors.Predictor(model, contract)
    rows = schema.rows(table, contract, 100)
    assert all(map(predictors.agree, quick.answer(rows), plain.answer(rows)))
    labels = [one.label for one in quick.answer(rows)]
    if contract.output.kind == "label":
        assert labels == model.predict(pd.DataFrame(rows)).tolist()
    quick.warm_up(sample)


@pytest.mark.slow
@given(arrays("float64", (3, 4), elements=st.floats(-1e6, 1e6)))
@settings(max_examples=100, deadline=None)
def test_any_rows_get_the_given_model_s_answers(rows):
    table, target = IRIS
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, target)
    contract = contract_of(model, table, target)
    numeric = shortcuts.shortcut(model, contract, "numeric")
    labels, shares = numeric(rows)
    frame = pd.DataFrame(rows, columns=table.columns)
    assert np.allclose(shares, model.predict_proba(frame), rtol=1e-9, atol=1e-9)
    sure = np.sort(shares, axis=1)[:, -1] - np.sort(shares, axis=1)[:, -2] > 1e-6
    assert (labels[sure] == model.predict(frame)[sure]).all()


def test_what_has_no_quicker_form_has_none():
    table, target = pd.DataFrame({"x": [1.0, 2.0], "city": ["a", "b"]}), [0.0, 1.0]
    mixed = schema.infer(table, target)
    assert shortcuts.shortcut(LinearRegression(), mixed, "numeric") is None
    numbers = schema.infer(table[["x"]], target)
    assert shortcuts.shortcut(object(), numbers, "direct") is None
    fitted = LinearRegression().fit(table[["x"]], target)
    assert shortcuts.shortcut(fitted, numbers, "given") is None


def test_a_child_of_a_known_class_may_predict_otherwise_and_is_left_as_it_is():
    class Odd(LinearRegression):
        def predict(self, rows):
            return super().predict(rows) + 1.0

    table, target = DIABETES
    model = Odd().fit(table, target)
    contract = contract_of(model, table, target)
    probe, _ = predictors.probe(model, contract, table)
    assert probe.form == "given"
    rows = schema.rows(table, contract, 5)
    found = predictors.Predictor(model, contract, "direct").answer(rows)
    assert [one.value for one in found] == pytest.approx(
        model.predict(pd.DataFrame(rows, dtype="float64")).tolist()
    )


def test_values_that_are_not_finite_are_left_to_the_model_as_given():
    table, target = DIABETES
    table = table.copy()
    table.iloc[3, 2] = None
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(table, target)
    contract = contract_of(model, table, target)
    rows = schema.rows(table, contract, 5)
    probe, _ = predictors.probe(model, contract, table)
    found = predictors.Predictor(model, contract, probe.form).answer(rows)
    assert [one.value for one in found] == pytest.approx(
        model.predict(pd.DataFrame(rows, dtype="float64")).tolist()
    )


def around(table, count=2000):
    """Return rows between and far beyond those of the training."""
    random = np.random.default_rng(0)
    return random.normal(table.mean(), 5 * table.std(), (count, table.shape[1]))


@pytest.mark.parametrize(
    "model",
    [
        SGDClassifier(loss="modified_huber", random_state=0),
        FixedThresholdClassifier(LogisticRegression(max_iter=1000), threshold=0.9),
        KNeighborsClassifier(4, weights="distance"),
        MLPClassifier(5, max_iter=30, random_state=0),
        DecisionTreeClassifier(max_depth=2),
        ExtraTreeClassifier(max_depth=2),
        RandomForestClassifier(4, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_labels_are_those_of_predict_whatever_the_shares_are(model):
    table, target = CANCER if isinstance(model, FixedThresholdClassifier) else IRIS
    model.fit(table, target)
    direct = shortcuts.shortcut(model, contract_of(model, table, target), "direct")
    rows = around(table)
    labels, shares = direct(rows)
    assert (labels == model.predict(rows)).all()
    assert (shares == model.predict_proba(rows)).all()


class Shifted(Pipeline):
    """Answers otherwise beyond the training's rows."""

    def predict(self, rows):
        return super().predict(rows) + (np.asarray(rows)[:, 0] > 1e3)


class Clipping(StandardScaler):
    """Scales otherwise beyond the training's rows."""

    def transform(self, rows):
        return super().transform(np.minimum(rows, 1e3))


@pytest.mark.parametrize(
    "model",
    [
        Shifted([("scaler", StandardScaler()), ("linear", LinearRegression())]),
        make_pipeline(Clipping(), LinearRegression()),
    ],
    ids=["pipeline", "step"],
)
def test_what_is_not_of_scikit_learn_s_own_classes_has_no_quicker_form(model):
    table, target = DIABETES
    contract = contract_of(model.fit(table, target), table, target)
    for form in shortcuts.FORMS:
        assert shortcuts.shortcut(model, contract, form) is None
    assert predictors.probe(model, contract, table)[0].form == "given"


LARGE = {
    "boosting": GradientBoostingClassifier(n_estimators=3),
    "tree": DecisionTreeClassifier(),
    "forest": make_pipeline(SelectKBest(k=2), RandomForestClassifier(3)),
    "after a step": make_pipeline(PolynomialFeatures(2), DecisionTreeClassifier()),
    "inside a step": make_pipeline(
        StandardScaler(), make_pipeline(PolynomialFeatures(5), DecisionTreeClassifier())
    ),
    "a frame": make_pipeline(
        PolynomialFeatures(2).set_output(transform="pandas"), DecisionTreeClassifier()
    ),
    "beyond a double": make_pipeline(PolynomialFeatures(9), LogisticRegression(max_iter=5)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LARGE)
def test_a_value_that_the_model_as_given_refuses_is_refused_in_each_form(name):
    table, target = CANCER[0].iloc[:, :4] / 100, CANCER[1]
    model = LARGE[name].fit(table, target)
    contract = contract_of(model, table, target)
    probe, _ = predictors.probe(model, contract, table)
    assert probe.form == "direct" if name != "forest" else probe.form in shortcuts.FORMS
    quick = predictors.Predictor(model, contract, probe.form)
    rows = schema.rows(table, contract, 2)
    rows[1] = dict.fromkeys(rows[1], 1e39)
    for predictor in (quick, predictors.Predictor(model, contract)):
        with pytest.raises(ValueError, match=r"too large|infinity"):
            predictor.answer(rows)


def test_a_sparse_result_of_a_step_is_answered_as_the_model_as_given_does():
    table, target = IRIS
    for last in (RandomForestClassifier(5, random_state=0), LogisticRegression(max_iter=1000)):
        model = make_pipeline(KBinsDiscretizer(3, encode="onehot"), last).fit(table, target)
        contract = contract_of(model, table, target)
        assert predictors.probe(model, contract, table)[0].form == "direct"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", [CANCER, IRIS], ids=["two classes", "three"])
def test_scores_beyond_a_double_are_left_to_the_model_as_given(data):
    table, target = data[0].iloc[:, :4] / 1000, data[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(table, target)
    contract = contract_of(model, table, target)
    assert predictors.probe(model, contract, table)[0].form == "numeric"
    quick = predictors.Predictor(model, contract, "numeric")
    rows = schema.rows(table, contract, 1)
    for value in (1e308, -1e308):  # infinite when it is divided by the scale
        with pytest.raises(ValueError, match="infinity"):
            quick.answer([{**rows[0], table.columns[0]: value}])


def test_a_form_that_leaves_all_rows_to_the_model_as_given_is_not_taken():
    table, target = IRIS
    model = RandomForestClassifier(5, random_state=0).fit(table, target)
    contract = contract_of(model, table, target)

    def nothing(matrix):
        return np.full(len(matrix), np.nan), np.full((len(matrix), 3), np.nan)

    quick = predictors.Predictor(model, contract, "direct", quick=nothing)
    rows = schema.rows(table, contract, 5)
    assert not quick.answers_itself(rows)
    assert quick.answer(rows) == predictors.Predictor(model, contract).answer(rows)
