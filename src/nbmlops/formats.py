"""How a model is kept as bytes and loaded again: skops, with a fixed list of trusted types.

Loading a skops file builds objects of the types that it names. skops trusts what it has audited;
to that a fixed list is added of classes and functions of scikit-learn, numpy and scipy that their
common estimators are made of, none of which runs what the file says. The list is no setting: a
file that names any other type is refused, whoever asks (https://skops.readthedocs.io, secure
persistence).

The same model is the same bytes. skops writes memory addresses, random file names and the time into
its archive; here they are numbers in order of appearance, so that a model's digest says what the
model is and not when and where it was kept.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from nbmlops.errors import ModelRefused

SKOPS = "skops"
LOADER = "loader"  # files of any kind, and a function of the project that makes a model of them
COMMAND = "command"  # files of any kind, and a program that serves them

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
    """Return a fitted model in the skops format, the same bytes for the same model.

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
    content = canonical(content)
    _refuse_untrusted(skops_io.get_untrusted_types(data=content))
    return content


_SCHEMA = "schema.json"
_VALUES = {"JsonNode", "TupleNode"}  # never changed, so that nobody sees whether two are one
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that an archive can have


def canonical(content: bytes) -> bytes:
    """Return a skops archive without what differs from one writing to the next.

    What is one object stays one object, except for texts, numbers and tuples, where it depends on
    the interpreter whether two that are equal are one.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        names = set(source.namelist())
        numbering = _Numbering(names)
        document = numbering.numbered(json.loads(source.read(_SCHEMA)))
        files = {new: _settled(new, source.read(old)) for old, new in numbering.files.items()}
    files[_SCHEMA] = json.dumps(document, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            about = zipfile.ZipInfo(name, _DATE)
            about.create_system, about.external_attr = 3, 0o600 << 16  # on each system
            archive.writestr(about, files[name])
    return buffer.getvalue()


class _Numbering:
    """Numbers objects and files in the order in which a document names them."""

    def __init__(self, names: set[str]) -> None:
        self.files: dict[str, str] = {}
        self._names = names
        self._ids: dict[int, int] = {}

    def numbered(self, node: Any) -> Any:
        """Return a node of the document, its object and files numbered from 1 on."""
        if isinstance(node, list):
            return [self.numbered(one) for one in node]
        if not isinstance(node, dict):
            return node
        loader = str(node.get("__loader__"))
        if loader == "SetNode":  # which has no order, but that of random hashes
            node = {**node, "content": sorted(node["content"], key=_spelled)}
        if loader in _VALUES:
            node = {key: value for key, value in node.items() if key != "__id__"}
        return {key: self._entry(key, value) for key, value in node.items()}

    def _entry(self, key: str, value: Any) -> Any:
        # In what the model itself calls by these names, the values are nodes.
        if key == "__id__" and isinstance(value, int):
            return self._ids.setdefault(value, len(self._ids) + 1)
        if key == "file" and isinstance(value, str) and value in self._names:
            numbered = f"{len(self.files) + 1}{PurePath(value).suffix}"
            return self.files.setdefault(value, numbered)
        return self.numbered(value)


def _spelled(node: Any) -> str:
    """Return what a node of a set holds, without the numbers of its objects."""
    numbering = _Numbering(set())
    return json.dumps(numbering.numbered(node))


def _settled(name: str, content: bytes) -> bytes:
    """Return an array whose padding, the memory between its fields, is zero."""
    import numpy as np

    if not name.endswith(".npy"):
        return content
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None:
        return content
    made = np.zeros(array.shape, array.dtype, order="F" if array.flags.fnc else "C")
    for field in array.dtype.names:
        made[field] = array[field]
    # Not by `np.save`, whose buffers have paddings of their own.
    return content[: len(content) - array.nbytes] + made.tobytes("A")


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


def filled(command: Iterable[str], told: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words of a command with ``{name}`` filled in, for each name that is told.

    >>> filled(["./serve", "--listen", "{host}:{port}"], {"host": "127.0.0.1", "port": "80"})
    ('./serve', '--listen', '127.0.0.1:80')
    """
    words = tuple(command)
    for name, value in told.items():
        words = tuple(word.replace(f"{{{name}}}", value) for word in words)
    return words


def variables(told: Mapping[str, str]) -> dict[str, str]:
    """Return what a program that serves a model is told, as variables of its environment.

    >>> variables({"host": "127.0.0.1"})
    {'NBMLOPS_HOST': '127.0.0.1'}
    """
    return {f"NBMLOPS_{name.upper()}": value for name, value in told.items()}


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
