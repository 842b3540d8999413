"""Quicker, equal forms of fitted scikit-learn models, for rows that a schema has checked.

What a prediction of one row costs is hardly ever the arithmetic: it is the one-row DataFrame, the
validation of what has been validated, joblib around the trees of a forest, and a second pass for
labels that follow from the probabilities. Two forms spare that:

``numeric``
    every step is arithmetic of a few lines (scalers, linear models, forests), done in numpy
``direct``
    the steps of a pipeline one after the other, without validation and without names

Neither is trusted: :func:`nbmlops.predictors.probe` holds them against the model as given.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Literal

from nbmlops import tables
from nbmlops.records import ModelSchema

# From a matrix of doubles (rows, columns) to labels or values, and probabilities or None.
Shortcut = Callable[[Any], tuple[Any, Any]]

FORMS: tuple[Literal["numeric", "direct"], ...] = ("numeric", "direct")  # the quickest first


def shortcut(model: Any, contract: ModelSchema, form: str) -> Shortcut | None:
    """Return a form of the model, ``None`` where it has none.

    It has none where the columns are not all doubles, or the model is not a scikit-learn estimator
    or a pipeline that ends in one.
    """
    if form not in FORMS or not tables.is_matrix(contract) or "sklearn" not in sys.modules:
        return None
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

    *before, last = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    steps = [step for step in before if step not in (None, "passthrough")]
    if not all(isinstance(step, BaseEstimator) for step in (*steps, last)):
        return None
    return _numeric(steps, last, contract) if form == "numeric" else _direct(steps, last, contract)


# --- numeric ------------------------------------------------------------------------------------


def _numeric(steps: list[Any], last: Any, contract: ModelSchema) -> Shortcut | None:
    scalers = [scaler for step in steps if (scaler := _scaler(step))]
    final = _linear(last, contract) or _forest(last, contract)
    if final is None or len(scalers) < len(steps):
        return None

    def predict(matrix: Any) -> tuple[Any, Any]:
        for scaler in scalers:
            matrix = scaler(matrix)
        return final(matrix)

    return predict


def _scaler(model: Any) -> Callable[[Any], Any] | None:
    """Return ``transform`` of a scaler, in the order in which it rounds."""
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    if type(model) is StandardScaler:
        return _shifted(model.mean_ if model.with_mean else None, model.scale_)
    if type(model) is RobustScaler:
        return _shifted(model.center_, model.scale_)
    if type(model) is MinMaxScaler and not model.clip:
        factor, shift = model.scale_, model.min_
        return lambda matrix: matrix * factor + shift
    return None


def _shifted(centre: Any, scale: Any) -> Callable[[Any], Any]:
    def transform(matrix: Any) -> Any:
        if centre is not None:
            matrix = matrix - centre
        return matrix if scale is None else matrix / scale

    return transform


def _linear(model: Any, contract: ModelSchema) -> Shortcut | None:
    from sklearn.linear_model import (
        ElasticNet,
        Lasso,
        LinearRegression,
        LogisticRegression,
        Ridge,
    )

    if type(model) in (LinearRegression, Ridge, Lasso, ElasticNet):
        coefficients, intercept = model.coef_, model.intercept_
        if contract.output.kind != "value" or coefficients.ndim != 1:
            return None
        return lambda matrix: (matrix @ coefficients + intercept, None)
    if type(model) is not LogisticRegression or not contract.output.probabilities:
        return None
    return _logistic(model) if len(model.classes_) == 2 else _multinomial(model)


def _logistic(model: Any) -> Shortcut:
    import numpy as np
    from scipy.special import expit

    classes, coefficients = model.classes_, model.coef_[0]
    intercept = model.intercept_[0]

    def predict(matrix: Any) -> tuple[Any, Any]:
        scores = matrix @ coefficients + intercept
        shares = np.empty((len(scores), 2))
        expit(scores, out=shares[:, 1])
        np.subtract(1.0, shares[:, 1], out=shares[:, 0])
        return classes[(scores > 0).astype("int8")], shares

    return predict


def _multinomial(model: Any) -> Shortcut:
    import numpy as np

    classes, coefficients, intercept = model.classes_, model.coef_.T, model.intercept_

    def predict(matrix: Any) -> tuple[Any, Any]:
        scores = matrix @ coefficients + intercept
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return classes[scores.argmax(axis=1)], shares

    return predict


def _forest(model: Any, contract: ModelSchema) -> Shortcut | None:
    """Return a forest as its trees, without joblib around them."""
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )

    if type(model) in (RandomForestRegressor, ExtraTreesRegressor):
        mean = _mean_of_trees(model)
        return lambda matrix: (mean(matrix)[:, 0], None)
    if type(model) not in (RandomForestClassifier, ExtraTreesClassifier):
        return None
    if not contract.output.probabilities:
        return None
    classes, shares_of = model.classes_, _mean_of_trees(model)

    def predict(matrix: Any) -> tuple[Any, Any]:
        shares = shares_of(matrix)
        return classes[shares.argmax(axis=1)], shares

    return predict


def _mean_of_trees(forest: Any) -> Callable[[Any], Any]:
    """Return the mean of the trees' values, summed in the forest's own order."""
    import numpy as np

    trees = [tree.tree_ for tree in forest.estimators_]

    def mean(matrix: Any) -> Any:
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(matrix, dtype="float32")
        if np.isinf(rows).any():  # beyond 32 bits, which the forest itself refuses
            return np.full((len(rows), 1), np.nan)
        total = 0.0
        for tree in trees:
            total = total + tree.predict(rows).reshape(len(rows), -1)
        return np.asarray(total) / len(trees)

    return mean


# --- direct -------------------------------------------------------------------------------------


def _direct(steps: list[Any], last: Any, contract: ModelSchema) -> Shortcut:
    final = _forest(last, contract) or _labelled(last, contract)
    unchecked = _unchecked(contract)

    def predict(matrix: Any) -> tuple[Any, Any]:
        with unchecked():
            for step in steps:
                matrix = step.transform(matrix)
            return final(matrix)

    return predict


def _labelled(model: Any, contract: ModelSchema) -> Shortcut:
    if contract.output.kind == "value" or not contract.output.probabilities:
        return lambda matrix: (model.predict(matrix), None)
    classes = model.classes_

    def predict(matrix: Any) -> tuple[Any, Any]:
        shares = model.predict_proba(matrix)
        return classes[shares.argmax(axis=1)], shares

    return predict


def _unchecked(contract: ModelSchema) -> Callable[[], Any]:
    """Return scikit-learn's context in which it does not check again what the schema has."""
    from sklearn import config_context

    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    finite = not any(column.nullable for column in contract.columns)
    return lambda: config_context(assume_finite=finite, skip_parameter_validation=True)
