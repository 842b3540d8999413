"""Quicker, equal forms of fitted scikit-learn models, for rows that a schema has checked.

What a prediction of one row costs is hardly ever the arithmetic: it is the one-row DataFrame, the
validation of what has been validated, joblib around the trees of a forest, and a second pass for
labels that follow from the probabilities. Two forms spare that:

``numeric``
    every step is arithmetic of a few lines (scalers, linear models, forests), done in numpy; kept
    as arrays beside the model, it also spares a worker scikit-learn's import and memory
``direct``
    the steps of a pipeline one after the other, without names

Neither is trusted: :func:`nbmlops.predictors.probe` holds them against the model as given. Values
that a form has no answer for are left to the model as given: the form answers NaN for them.
"""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from nbmlops import tables
from nbmlops.errors import ModelRefused
from nbmlops.records import ModelSchema

# From a matrix of doubles (rows, columns) to labels or values, and probabilities or None.
Shortcut = Callable[[Any], tuple[Any, Any]]

Transform = Callable[[Any], Any]

FORMS: tuple[Literal["numeric", "direct"], ...] = ("numeric", "direct")  # the quickest first
_NODES_LIMIT = 500_000  # of a forest; a larger one is left to scikit-learn


def shortcut(model: Any, contract: ModelSchema, form: str) -> Shortcut | None:
    """Return a form of the model, ``None`` where it has none.

    It has none where the columns are not all doubles, or the model is not one of scikit-learn's own
    estimators or a pipeline of them: a class from elsewhere may answer otherwise on rows that
    nobody has probed.
    """
    if form == "numeric":
        return numeric(model, contract)
    taken = _taken_apart(model, contract)
    return None if form != "direct" or taken is None else _direct(*taken, contract)


def _taken_apart(model: Any, contract: ModelSchema) -> tuple[list[Any], Any] | None:
    """Return the steps before the last, and the last."""
    if not tables.is_matrix(contract) or "sklearn" not in sys.modules:
        return None
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

    *before, last = [step for _, step in model.steps] if type(model) is Pipeline else [model]
    steps = [step for step in before if step not in (None, "passthrough")]
    if not all(isinstance(step, BaseEstimator) and _is_own(step) for step in (*steps, last)):
        return None
    return steps, last


def _is_own(step: Any) -> bool:
    return type(step).__module__.partition(".")[0] == "sklearn"


# --- numeric ------------------------------------------------------------------------------------


class Numeric:
    """A model as arrays and what is done with them: numpy alone answers, scikit-learn stays away.

    ``steps`` are pairs of an operation and its arrays by name. The last one answers.
    """

    def __init__(self, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self._steps = [(name, dict(arrays)) for name, arrays in steps]
        *before, (last, arrays) = self._steps
        self._before = [_TRANSFORMS[name](**found) for name, found in before]
        self._last = _ANSWERS[last](**arrays)

    def __call__(self, matrix: Any) -> tuple[Any, Any]:
        """Return labels or values, and probabilities or ``None``."""
        for transform in self._before:
            matrix = transform(matrix)
        return self._last(matrix)

    def to_bytes(self) -> bytes:
        """Return the arrays as an archive of numpy's, without anything that would be code."""
        import numpy as np

        named = {
            f"{number}.{key}": array
            for number, (_, arrays) in enumerate(self._steps)
            for key, array in arrays.items()
        }
        plan = "\n".join(name for name, _ in self._steps)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, plan=np.array(plan), **named)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Numeric:
        """Return what :meth:`to_bytes` has kept.

        Raises
        ------
        ModelRefused
            When the bytes are something else.
        """
        import numpy as np

        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                plan = str(found["plan"]).split("\n")
                arrays = [
                    {
                        key.partition(".")[2]: found[key]
                        for key in found.files
                        if key.startswith(f"{number}.")
                    }
                    for number in range(len(plan))
                ]
            return cls(list(zip(plan, arrays, strict=True)))
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ModelRefused(
                f"the numeric form of the model cannot be read: {error}", "Train the model again."
            ) from error


def numeric(model: Any, contract: ModelSchema) -> Numeric | None:
    """Return a fitted scikit-learn model as arrays, ``None`` where it has no such form."""
    taken = _taken_apart(model, contract)
    if taken is None:
        return None
    steps, last = taken
    scalers = [scaler for step in steps if (scaler := _scaler(step))]
    final = _linear(last, contract) or _trees(last, contract)
    if final is None or len(scalers) < len(steps):
        return None
    return Numeric([*(pair for pairs in scalers for pair in pairs), final])


def _plus(by: Any) -> Transform:
    return lambda matrix: matrix + by


def _minus(by: Any) -> Transform:
    return lambda matrix: matrix - by


def _times(by: Any) -> Transform:
    return lambda matrix: matrix * by


def _divided(by: Any) -> Transform:
    return lambda matrix: matrix / by


def _values(coefficients: Any, intercept: Any) -> Shortcut:
    return lambda matrix: (matrix @ coefficients + intercept, None)


def _logistic(coefficients: Any, intercept: Any, classes: Any) -> Shortcut:
    import numpy as np

    def predict(matrix: Any) -> tuple[Any, Any]:
        scores = matrix @ coefficients + intercept
        shares = np.empty((len(scores), 2))
        with np.errstate(over="ignore", invalid="ignore"):  # of a score far below: its share is 0
            shares[:, 1] = 1.0 / (1.0 + np.exp(-scores))
            # What is taken off is 0, or NaN where a score is beyond a double.
            shares[:, 0] = 1.0 - shares[:, 1] - (scores - scores)
        return classes[(scores > 0).astype("int8")], shares

    return predict


def _multinomial(coefficients: Any, intercept: Any, classes: Any) -> Shortcut:
    import numpy as np

    def predict(matrix: Any) -> tuple[Any, Any]:
        scores = matrix @ coefficients + intercept
        with np.errstate(invalid="ignore"):
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            shares -= scores - scores  # 0, or NaN where a score is beyond a double
        return classes[scores.argmax(axis=1)], shares

    return predict


def _forest(
    roots: Any, features: Any, thresholds: Any, children: Any, values: Any, depth: Any,
    classes: Any = None,
) -> Shortcut:  # fmt: skip
    """Walk all trees at once; a leaf is its own child, so those that are done stand still."""
    import numpy as np

    levels = range(int(depth))

    def predict(matrix: Any) -> tuple[Any, Any]:
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(matrix, dtype="float32")
        if not np.isfinite(rows).all():  # beyond 32 bits, which the forest itself refuses
            return np.full(len(rows), np.nan), np.full((len(rows), values.shape[1]), np.nan)
        flat, width = rows.ravel(), rows.shape[1]
        starts = (np.arange(len(rows)) * width)[:, None]
        nodes = np.broadcast_to(roots, (len(rows), len(roots)))
        for _ in levels:
            right = flat[features[nodes] + starts] > thresholds[nodes]
            nodes = children[2 * nodes + right]
        # In the forest's own order, one tree after the other.
        total: Any = values[nodes].sum(axis=1) / len(roots)
        if classes is None:
            return total[:, 0], None
        return classes[total.argmax(axis=1)], total

    return predict


_TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "plus": _plus,
    "minus": _minus,
    "times": _times,
    "divided": _divided,
}
_ANSWERS: dict[str, Callable[..., Shortcut]] = {
    "values": _values,
    "logistic": _logistic,
    "multinomial": _multinomial,
    "forest": _forest,
}


def _scaler(model: Any) -> list[tuple[str, dict[str, Any]]] | None:
    """Return ``transform`` of a scaler, in the order in which it rounds; ``None`` for another."""
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    if type(model) is StandardScaler:
        steps = [("minus", model.mean_ if model.with_mean else None), ("divided", model.scale_)]
    elif type(model) is RobustScaler:
        steps = [("minus", model.center_), ("divided", model.scale_)]
    elif type(model) is MinMaxScaler and not model.clip:
        steps = [("times", model.scale_), ("plus", model.min_)]
    else:
        return None
    made = [(name, {"by": array}) for name, array in steps if array is not None]
    return made or [("times", {"by": 1.0})]


def _linear(model: Any, contract: ModelSchema) -> tuple[str, dict[str, Any]] | None:
    from sklearn.linear_model import (
        ElasticNet,
        Lasso,
        LinearRegression,
        LogisticRegression,
        Ridge,
    )

    if type(model) in (LinearRegression, Ridge, Lasso, ElasticNet):
        if contract.output.kind != "value" or model.coef_.ndim != 1:
            return None
        return "values", {"coefficients": model.coef_, "intercept": model.intercept_}
    if type(model) is not LogisticRegression or not contract.output.probabilities:
        return None
    fitted: Any = model
    classes = _plain_classes(fitted.classes_)
    if classes is None:
        return None
    if len(classes) == 2:
        arrays = {"coefficients": fitted.coef_[0], "intercept": fitted.intercept_[0]}
        return "logistic", {**arrays, "classes": classes}
    arrays = {"coefficients": fitted.coef_.T, "intercept": fitted.intercept_}
    return "multinomial", {**arrays, "classes": classes}


def _plain_classes(classes: Any) -> Any:
    """Return class labels as an array that is no array of objects, ``None`` where they are."""
    import numpy as np

    if classes.dtype.kind != "O":
        return classes
    return np.array(classes.tolist()) if all(isinstance(one, str) for one in classes) else None


def _trees(model: Any, contract: ModelSchema) -> tuple[str, dict[str, Any]] | None:
    """Return a forest's trees as one list of nodes."""
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )

    labels = type(model) in (RandomForestClassifier, ExtraTreesClassifier)
    if not labels and type(model) not in (RandomForestRegressor, ExtraTreesRegressor):
        return None
    if model.n_outputs_ != 1 or (labels and not contract.output.probabilities):
        return None
    trees = [one.tree_ for one in model.estimators_]
    if sum(tree.node_count for tree in trees) > _NODES_LIMIT:
        return None
    classes = _plain_classes(model.classes_) if labels else None
    if labels and classes is None:
        return None
    arrays = _joined(trees)
    return "forest", arrays if classes is None else {**arrays, "classes": classes}


def _joined(trees: Sequence[Any]) -> dict[str, Any]:
    import numpy as np

    counts = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *counts[:-1]])
    own = [np.arange(count) for count in counts]
    left, right = (
        np.concatenate(
            [
                np.where(tree.children_left < 0, nodes, getattr(tree, side)) + root
                for tree, nodes, root in zip(trees, own, roots, strict=True)
            ]
        )
        for side in ("children_left", "children_right")
    )
    features = np.concatenate([np.maximum(tree.feature, 0) for tree in trees])
    return {
        "roots": roots,
        "features": features,
        "thresholds": np.concatenate([tree.threshold for tree in trees]),
        "children": np.stack([left, right], axis=1).ravel(),
        "values": np.concatenate([tree.value[:, 0, :] for tree in trees]),
        "depth": np.array(max(tree.max_depth for tree in trees)),
    }


# --- direct -------------------------------------------------------------------------------------


def _direct(steps: list[Any], last: Any, contract: ModelSchema) -> Shortcut:
    trees = _trees(last, contract)
    final = _labelled(last, contract) if trees is None else _dense(_ANSWERS[trees[0]](**trees[1]))
    unvalidated = _unvalidated()

    def predict(matrix: Any) -> tuple[Any, Any]:
        rows = len(matrix)
        try:
            with unvalidated():
                for step in steps:
                    matrix = step.transform(matrix)
                return final(matrix)
        except ValueError:  # of the values; the model as given says what is wrong with them
            return _unanswered(rows)

    return predict


def _unanswered(rows: int) -> tuple[Any, Any]:
    import numpy as np

    return np.full(rows, np.nan), np.full((rows, 1), np.nan)


def _dense(answer: Shortcut) -> Shortcut:
    return lambda matrix: answer(matrix.toarray() if hasattr(matrix, "toarray") else matrix)


def _labelled(model: Any, contract: ModelSchema) -> Shortcut:
    """Return labels as ``predict`` has them.

    Only where scikit-learn defines them as the class of the greatest share do they follow from the
    shares; elsewhere a threshold, a tie or a calibration of its own may decide otherwise.
    """
    if contract.output.kind == "value" or not contract.output.probabilities:
        return lambda matrix: (model.predict(matrix), None)
    if not _takes_the_greatest(model):
        return lambda matrix: (model.predict(matrix), model.predict_proba(matrix))
    classes = model.classes_

    def predict(matrix: Any) -> tuple[Any, Any]:
        shares = model.predict_proba(matrix)
        return classes[shares.argmax(axis=1)], shares

    return predict


def _takes_the_greatest(model: Any) -> bool:
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

    return type(model) in (
        RandomForestClassifier,
        ExtraTreesClassifier,
        DecisionTreeClassifier,
        ExtraTreeClassifier,
    )


def _unvalidated() -> Callable[[], Any]:
    """Return scikit-learn's context in which it does not check its own parameters again.

    That values are finite it goes on checking: what is finite in a request may be beyond a double
    after a step, and beyond the 32 bits of a tree.
    """
    from sklearn import config_context

    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    return lambda: config_context(skip_parameter_validation=True)
