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
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

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
    assert probe.form == "direct"
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
