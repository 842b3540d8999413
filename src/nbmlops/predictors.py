"""A loaded model that takes and gives tensors: as it was given, or in a quicker, equal form.

A quicker form (:mod:`nbmlops.shortcuts`) is used where :func:`probe` saw it agree with the model as
given, over rows of the training data, when the model was logged.
"""

from __future__ import annotations

import importlib.util
import math
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from nbmlops import schema, shortcuts, tables
from nbmlops.errors import DeploymentFailed, ModelRefused
from nbmlops.records import ModelSchema, Prediction, Probe, Sample
from nbmlops.shortcuts import Shortcut
from nbmlops.tensors import Tensor

Form = Literal["given", "direct", "numeric"]

RTOL = 1e-9
_PROBED_ROWS = 256
_SAMPLE_ROWS = 16


class Predictor:
    """A model behind its schema, one batch at a time."""

    def __init__(
        self,
        model: Any,
        contract: ModelSchema,
        form: Form = "given",
        *,
        quick: Shortcut | None = None,
        load: Callable[[], Any] | None = None,
    ) -> None:
        self.form: Form = form
        self._model = model
        self._load = load
        self._schema = contract
        self._lock = threading.Lock()
        self._shortcut = quick or shortcuts.shortcut(model, contract, form)

    def _given(self) -> tuple[Any, Callable[..., Any]]:
        """Return the model as given, loaded when it is first needed, and what makes its tables."""
        if self._model is None and self._load is not None:
            self._model = self._load()
        model, names = self._model, [column.name for column in self._schema.columns]
        # Names that nobody has given, and a model that knows of none: it was trained on an array.
        from_array = not hasattr(model, "feature_names_in_") and names == [
            f"x{index}" for index in range(len(names))
        ]
        frames = not from_array and importlib.util.find_spec("pandas") is not None
        return model, tables.frame if frames else tables.matrix

    @property
    def is_quick(self) -> bool:
        """Whether it is served in another form than the one it was given in."""
        return self._shortcut is not None

    def warm_up(self, sample: Sample | None = None) -> None:
        """Answer the schema's example and the sample, as quick and as true as all that follows.

        Raises
        ------
        DeploymentFailed
            When the model cannot, in this environment, or not as when it was logged.
        """
        records = list(sample.records) if sample else [self._schema.example]
        if records == [{}]:
            return
        try:
            found = self.answer(records)
        except Exception as error:  # whatever the model raises
            traceback.print_exc()
            raise DeploymentFailed(
                f"the model cannot answer its example: {told(error)}",
                "Check that the environment is the one it was trained in.",
            ) from error
        if sample and not all(map(agree, found, sample.predictions)):
            raise DeploymentFailed(
                "the model does not answer its sample as it did when it was logged",
                "Check that the environment is the one it was trained in; else train it again.",
            )

    def answer(self, records: Sequence[Mapping[str, Any]]) -> tuple[Prediction, ...]:
        """Return the predictions for JSON records."""
        columns = schema.check(self._schema, list(records))
        found = self.predict({one.name: one for one in schema.inputs(self._schema, columns)})
        return schema.predictions(self._schema, {one.name: one for one in found}, len(records))

    def predict(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Return ``prediction`` [n] and, for classifiers that have them, ``probability`` [n, k].

        Raises
        ------
        InvalidTensors
            When the inputs are not the schema's columns. What the model raises is passed on.
        """
        with self._lock:
            if self._shortcut is not None:
                labels, shares = self._shortcut(tables.matrix(self._schema, inputs))
                if _is_finite(labels if shares is None else shares):
                    return self._told(labels, shares)
                # The model as given says what is wrong with the values, or that nothing is.
            model, make = self._given()
            table = make(self._schema, inputs)
            labels = model.predict(table)
            proba = self._schema.output.probabilities
            return self._told(labels, model.predict_proba(table) if proba else None)

    def _told(self, labels: Any, shares: Any) -> list[Tensor]:
        import numpy as np

        found = np.asarray(labels).ravel()
        output = self._schema.output
        datatype = schema.output_datatype(output)
        if output.kind == "value":
            values = found.astype("float64").tolist()
        else:
            convert: Any = {"text": str, "integer": int, "boolean": bool, "number": float}
            values = list(map(convert[output.class_kind], found.tolist()))
        outputs = [Tensor("prediction", datatype, (len(values),), values)]
        if shares is not None:
            block = np.asarray(shares, dtype="float64")
            outputs.append(Tensor("probability", "FP64", block.shape, block.ravel().tolist()))
        return outputs


def told(error: BaseException) -> str:
    """Return an error as a line of text."""
    return f"{type(error).__name__}: {error}"[:1000]


def _is_finite(found: Any) -> bool:
    import numpy as np

    return found.dtype.kind != "f" or bool(np.isfinite(found).all())


# --- probing ------------------------------------------------------------------------------------


def probe(model: Any, contract: ModelSchema, features: Any) -> tuple[Probe, Sample | None]:
    """Return in which form a fitted model may be served, and what it predicts on a sample.

    Over up to 256 rows of the training data it is seen whether the model, behind its schema,
    answers the same twice, whether rows are independent (a row's answer is the same alone and
    beside others), and whether the quicker form agrees.

    Raises
    ------
    ModelRefused
        When the model cannot answer rows that it was trained on.
    """
    records = schema.rows(features, contract, _PROBED_ROWS)
    given = Predictor(model, contract)
    try:
        found = given.answer(records)
    except Exception as error:
        raise ModelRefused(
            f"the model cannot predict rows of its training data: {told(error)}",
            "Pass the features as the model takes them: log_model(model, train=(X, y)).",
        ) from error
    if not _agree(given, records, found):
        return Probe(deterministic=False), None  # it draws by chance; nothing can be compared
    sample = Sample(records=tuple(records[:_SAMPLE_ROWS]), predictions=found[:_SAMPLE_ROWS])
    quick = _quick(model, contract, records, found)
    independent = _is_independent(quick or given, records, found)
    return Probe(form=quick.form if quick else "given", independent=independent), sample


def _quick(
    model: Any,
    contract: ModelSchema,
    records: Sequence[dict[str, Any]],
    found: Sequence[Prediction],
) -> Predictor | None:
    """Return the quickest form that agrees, if one does."""
    for form in shortcuts.FORMS:
        try:
            quick = Predictor(model, contract, form)
            if quick.is_quick and _agree(quick, records, found):
                return quick
        except Exception:  # noqa: S112 whatever the model raises where it is taken apart
            continue
    return None


def _agree(
    predictor: Predictor, records: Sequence[dict[str, Any]], found: Sequence[Prediction]
) -> bool:
    return all(map(agree, predictor.answer(records), found))


def _is_independent(
    predictor: Predictor, records: Sequence[dict[str, Any]], found: Sequence[Prediction]
) -> bool:
    """Whether rows get the same answers alone, in other company and in another order."""
    alone = all(
        _agree(predictor, [record], [prediction])
        for record, prediction in zip(records[:_SAMPLE_ROWS], found, strict=False)
    )
    half = len(records) // 2
    return alone and _agree(predictor, records[half:][::-1], found[half:][::-1])


def agree(one: Prediction, other: Prediction, rtol: float = RTOL) -> bool:
    """Whether two predictions are equal: labels exactly, numbers within ``rtol``."""
    if one.label != other.label or not _close(one.value, other.value, rtol):
        return False
    left, right = one.probabilities, other.probabilities
    if left is None or right is None:
        return left is right
    return left.keys() == right.keys() and all(
        _close(share, right[name], rtol, rtol) for name, share in left.items()
    )


def _close(one: Any, other: Any, rtol: float, atol: float = 0.0) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=rtol, abs_tol=atol)
    return one == other
