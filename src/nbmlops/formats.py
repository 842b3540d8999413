"""How a model is kept as bytes and loaded again: skops, with a fixed list of trusted types.

Loading a skops file builds objects of the types that it names. skops trusts what it has audited;
to that a fixed list is added of classes and functions of scikit-learn, numpy and scipy that their
common estimators are made of, none of which runs what the file says. The list is no setting: a
file that names any other type is refused, whoever asks (https://skops.readthedocs.io, secure
persistence).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from nbmlops.errors import ModelRefused

SKOPS = "skops"
LOADER = "loader"  # files of any kind, and a function of the project that makes a model of them
COMMAND = "command"  # files of any kind, and a program of the project that serves them

TRUSTED_TYPES = (
    "numpy.dtype",
    "numpy.mean",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.cluster._bisect_k_means._BisectingTree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)


def to_bytes(model: Any) -> bytes:
    """Return a fitted model in the skops format.

    Raises
    ------
    ModelRefused
        When skops cannot keep it, or it holds a type that would be refused on loading.
    """
    skops_io = _skops()
    try:
        content: bytes = skops_io.dumps(model)
    except Exception as error:  # skops raises whatever the parts of the model raise
        raise ModelRefused(
            f"{type(model).__name__} cannot be kept in the skops format: {error}",
            "Pass a fitted scikit-learn estimator or pipeline.",
        ) from error
    _refuse_untrusted(skops_io.get_untrusted_types(data=content))
    return content


def load(path: Path) -> Any:
    """Return the model of a skops file, whose digest the caller has verified.

    Raises
    ------
    ModelRefused
        When it is no skops file, or names a type that is not trusted.
    """
    skops_io = _skops()
    try:
        untrusted = skops_io.get_untrusted_types(file=path)
    except Exception as error:  # a damaged archive fails in many ways
        raise ModelRefused(
            f"{path.name} is no skops file: {error}", "Train the model again."
        ) from error
    _refuse_untrusted(untrusted)
    return skops_io.load(path, trusted=list(TRUSTED_TYPES))


def load_by(loader: str, folder: Path, source: Path) -> Any:
    """Return what a project's own loader makes of a model's files: an object with ``predict``.

    Parameters
    ----------
    loader
        ``package.module:function``; the function gets ``folder``.
    source
        The folder of the project, from which the module is imported.

    Raises
    ------
    ModelRefused
        When there is no such function, or what it returns cannot predict.
    """
    name, _, function = loader.partition(":")
    if str(source) not in sys.path:
        sys.path.insert(0, str(source))
    try:
        load_model = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError) as error:
        raise ModelRefused(
            f"the loader {loader} cannot be imported: {error}",
            'Commit its module, and write `loader = "package.module:function"`.',
        ) from error
    model = load_model(folder)
    if not callable(getattr(model, "predict", None)):
        raise ModelRefused(
            f"the loader {loader} returned {type(model).__name__}, which has no `predict`",
            "Return an object whose predict(table) answers one label or value a row.",
        )
    return model


def _refuse_untrusted(found: list[str]) -> None:
    refused = sorted(set(found) - set(TRUSTED_TYPES))
    if refused:
        raise ModelRefused(
            f"the model holds types that are not safe to load: {', '.join(refused[:5])}",
            "Use estimators and functions of scikit-learn, numpy and scipy only.",
            types=refused,
        )


def _skops() -> Any:
    try:
        from skops import io as skops_io
    except ImportError as error:
        raise ModelRefused(
            "skops is not installed in this environment", "Add skops to requirements.txt."
        ) from error
    return skops_io
