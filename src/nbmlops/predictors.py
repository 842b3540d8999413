"""A loaded model that takes and gives tensors: as it was given, or in a quicker, equal form.

A quicker form (:mod:`nbmlops.shortcuts`) is used where :func:`probe` saw it agree with the model as
given, over rows of the training data, when the model was logged.
"""

from __future__ import annotations

import importlib.util
import math
import threading
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from nbmlops import schema, shortcuts, tables, tensors
from nbmlops.errors import DeploymentFailed, ModelRefused, NbmlopsError
from nbmlops.records import ModelSchema, OutputSchema, Prediction, Probe, Sample
from nbmlops.schema.inference import is_gap
from nbmlops.shortcuts import Shortcut
from nbmlops.tensors import Tensor

Form = Literal["given", "direct", "numeric"]

RTOL = 1e-9
_REBUILT_RTOL, _SINGLE_RTOL = 1e-6, 1e-4  # a matrix may add up in another order than a frame
_TIE = 1e-9
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
        """Return the predictions for JSON records, which go the way that calls go."""
        found = {one.name: one for one in self.predict(self._received(records))}
        return schema.predictions(self._schema, found, len(records))

    def _received(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return JSON records as a worker gets them, a null as it travels."""
        columns = schema.check(self._schema, list(records))
        body, length = tensors.encode_request(schema.inputs(self._schema, columns, matrix=True))
        return tensors.decode_request(body, length).inputs

    def predict(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Return ``prediction`` [n] and, for classifiers that have them, ``probability`` [n, k].

        Raises
        ------
        InvalidTensors
            When the inputs are not the schema's columns.
        ModelRefused
            When the model's answers are not what its schema says. What it raises is passed on.
        """
        with self._lock:
            found = self._quickly(inputs)
            if found is None:  # the model as given says what is wrong, or that nothing is
                model, make = self._given()
                found = _asked(model, make(self._schema, inputs), self._schema.output)
        return _outputs(self._schema.output, *found)

    def _quickly(self, inputs: Mapping[str, Tensor]) -> tuple[Any, Any] | None:
        """Return what the quicker form answers, ``None`` where it leaves that to the given one."""
        if self._shortcut is None:
            return None
        labels, shares = self._shortcut(tables.matrix(self._schema, inputs))
        return (labels, shares) if _is_finite(labels if shares is None else shares) else None

    def answers_itself(self, records: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the quicker form answers these records, and leaves none to the given one."""
        return self._quickly(self._received(records)) is not None

    def table(self, records: Sequence[Mapping[str, Any]]) -> Any:
        """Return what the model as given is asked for these records."""
        _, make = self._given()
        return make(self._schema, self._received(records))


def _asked(model: Any, table: Any, output: OutputSchema) -> tuple[Any, Any]:
    """Return labels or values, and probabilities or ``None``, as the model has them."""
    labels = model.predict(table)
    return labels, model.predict_proba(table) if output.probabilities else None


# --- what is answered ---------------------------------------------------------------------------

_CODES = {"text": "UT", "integer": "iu", "boolean": "b", "number": "fiu"}  # of numpy's dtypes
_TYPES: dict[str, set[type]] = {
    "text": {str},
    "integer": {int},
    "boolean": {bool},
    "number": {int, float},
}
_WORDS = {"text": "texts", "integer": "integers", "boolean": "truth values", "number": "numbers"}


def _outputs(output: OutputSchema, labels: Any, shares: Any) -> list[Tensor]:
    import numpy as np

    values = _values(output, labels)
    found = [Tensor("prediction", schema.output_datatype(output), (len(values),), values)]
    if shares is not None:
        block = np.asarray(shares, dtype="float64")
        found.append(Tensor("probability", "FP64", block.shape, block.ravel().tolist()))
    return found


def _values(output: OutputSchema, labels: Any) -> list[Any]:
    """Return labels or values as JSON has them, none of them converted to another kind.

    A share of 0.7 is no truth value and no class 0, which a conversion would make of it.
    """
    import numpy as np

    found = np.asarray(labels)
    if found.ndim > 1 and found.size != len(found):
        raise ModelRefused(
            f"`predict` of the model answers {found.size // max(len(found), 1)} values a row",
            "Let it return one label or value a row, such as `classes[shares.argmax(axis=1)]`.",
        )
    kind = "number" if output.kind == "value" else output.class_kind
    values: list[Any] = found.ravel().tolist()
    if found.dtype.kind not in _CODES[kind]:
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        odd = [value for value in values if type(value) not in _TYPES[kind]]
        if odd or found.dtype.kind != "O":
            raise _unlike(output, kind, (odd or values)[0])
    return list(map(float, values)) if kind == "number" else values


def _unlike(output: OutputSchema, kind: str, value: Any) -> ModelRefused:
    told = f"`predict` of the model answers {value!r:.60}, a {type(value).__name__},"
    if output.kind == "value":
        return ModelRefused(
            f"{told} and its target is of numbers",
            "Let it return numbers, or pass the target as the labels that it returns.",
        )
    named = ", ".join((output.classes or ())[:3])
    return ModelRefused(
        f"{told} and its classes are {_WORDS[kind]} ({named})",
        "Let it return the classes themselves, or pass the target as numbers.",
    )


def told(error: BaseException) -> str:
    """Return an error as a line of text."""
    said = error.message if isinstance(error, NbmlopsError) else error
    return f"{type(error).__name__}: {said}"[:1000]


def _is_finite(found: Any) -> bool:
    import numpy as np

    return found.dtype.kind != "f" or bool(np.isfinite(found).all())


# --- probing ------------------------------------------------------------------------------------


def probe(model: Any, contract: ModelSchema, features: Any) -> tuple[Probe, Sample | None]:
    """Return in which form a fitted model may be served, and what it predicts on a sample.

    Over up to 256 rows of the training data it is seen whether the model, behind its schema,
    answers the same twice and as on the rows as they were, whether rows are independent (a row's
    answer is the same alone and beside others), and whether the quicker form agrees.

    Raises
    ------
    ModelRefused
        When the model cannot answer rows that it was trained on, or answers them otherwise behind
        its schema; when its probabilities do not go with the labels that they would be named by.
    """
    picked = schema.picked(features, _PROBED_ROWS)
    records = schema.rows(features, contract, _PROBED_ROWS)
    given = Predictor(model, contract)
    with _refusing():
        found = given.answer(records)
        meant = _asked(model, picked, contract.output)
        deterministic = _agree(given, records, found)
    if contract.output.probabilities and getattr(model, "classes_", None) is None:
        _check_order(contract.output, found)
    if not deterministic:
        return Probe(deterministic=False), None  # it draws by chance; nothing can be compared
    _check_rebuilt(given, contract, picked, records, found, meant)
    sample = Sample(records=tuple(records[:_SAMPLE_ROWS]), predictions=found[:_SAMPLE_ROWS])
    quick = _quick(model, contract, records, found)
    with _refusing():
        independent = _is_independent(quick or given, records, found)
    return Probe(form=quick.form if quick else "given", independent=independent), sample


@contextmanager
def _refusing() -> Generator[None]:
    """Refuse a model that fails, whatever it raises."""
    try:
        yield
    except ModelRefused:
        raise
    except Exception as error:
        raise ModelRefused(
            f"the model cannot predict rows of its training data: {told(error)}",
            "Pass the features as the model takes them: log_model(model, train=(X, y)).",
        ) from error


def _check_order(output: OutputSchema, found: Sequence[Prediction]) -> None:
    """Refuse probabilities whose greatest is not the label's, where nothing but labels names them.

    Raises
    ------
    ModelRefused
        At the first such row.
    """
    for row, one in enumerate(found):
        shares = one.probabilities or {}
        share = shares.get(schema.spelled_class(output.class_kind, one.label))
        greatest = max((other for other in shares.values() if other is not None), default=None)
        if share is None or greatest is None or share < greatest - _TIE:
            raise ModelRefused(
                "the model has no `classes_`, and its probabilities do not go with the labels in"
                f" sorted order, {', '.join(output.classes or ())[:200]}:"
                f" row {row} is {one.label!r}, with a share of {share}",
                "Give the object `classes_`: the labels in the order of `predict_proba`'s columns.",
            )


def _quick(
    model: Any,
    contract: ModelSchema,
    records: Sequence[dict[str, Any]],
    found: Sequence[Prediction],
) -> Predictor | None:
    """Return the quickest form that agrees, if one does.

    What it leaves to the model as given proves nothing, so it has to answer rows without gaps.
    """
    whole = [record for record in records if None not in record.values()] or records
    for form in shortcuts.FORMS:
        try:
            quick = Predictor(model, contract, form)
            if quick.is_quick and quick.answers_itself(whole) and _agree(quick, records, found):
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


# --- the rows as they were ----------------------------------------------------------------------


def _check_rebuilt(
    given: Predictor,
    contract: ModelSchema,
    picked: Any,
    records: Sequence[dict[str, Any]],
    found: Sequence[Prediction],
    meant: tuple[Any, Any],
) -> None:
    """Refuse a model that answers the rebuilt rows otherwise than those that it was trained on.

    Raises
    ------
    ModelRefused
        It names the first column that came back changed, else the first row.
    """
    outputs = {one.name: one for one in _outputs(contract.output, *meant)}
    trained = schema.predictions(contract, outputs, len(records))
    rtol = _SINGLE_RTOL if _is_single(*meant) else _REBUILT_RTOL
    values = [abs(one.value) for one in trained if isinstance(one.value, float)]
    scale = rtol * max(values, default=0.0)
    pairs = enumerate(zip(trained, found, strict=True))
    row = next((row for row, (one, other) in pairs if not _alike(one, other, rtol, scale)), None)
    if row is None:
        return
    changed = _changed(contract, picked, given.table(records))
    if changed:
        column, how = changed
        raise ModelRefused(
            f"the model answers otherwise when it is served, for column `{column}` {how}",
            f"Turn `{column}` into numbers, truth values or text before the model is fitted, with"
            " NaN for what is missing.",
            column=column,
        )
    raise ModelRefused(
        f"the model answers otherwise when it is served: row {row} of those looked at was"
        f" {_shown(trained[row])} and becomes {_shown(found[row])}",
        "Let it predict from the values of the columns alone, not from the index or its own state.",
    )


def _is_single(labels: Any, shares: Any) -> bool:
    import numpy as np

    found = np.asarray(labels if shares is None else shares)
    return found.dtype.kind == "f" and found.dtype.itemsize < 8


def _alike(one: Prediction, other: Prediction, rtol: float, scale: float) -> bool:
    """Whether two predictions are equal but for rounding, and for a tie that it decides."""
    if one.probabilities is None or other.probabilities is None:
        return one.label == other.label and _close(one.value, other.value, rtol, scale)
    shares = zip(one.probabilities.values(), other.probabilities.values(), strict=True)
    if not all(_close(share, again, rtol, rtol) for share, again in shares):
        return False
    ranked = sorted(share for share in one.probabilities.values() if share is not None)
    return one.label == other.label or (len(ranked) > 1 and ranked[-1] - ranked[-2] <= rtol)


def _changed(contract: ModelSchema, before: Any, after: Any) -> tuple[str, str] | None:
    """Return the first column that came back with another dtype or other values, and how."""
    for index, column in enumerate(contract.columns):
        was, now = (
            table.iloc[:, index] if hasattr(table, "iloc") else table[:, index]
            for table in (before, after)
        )
        if _spelled_dtype(was) != _spelled_dtype(now):
            return column.name, f"was {_spelled_dtype(was)} and comes back {_spelled_dtype(now)}"
        for value, again in zip(was.tolist(), now.tolist(), strict=True):
            if not _is_same(value, again):
                return column.name, f"had {value!r:.60}, which comes back as {again!r:.60}"
    return None


def _spelled_dtype(values: Any) -> str:
    levels = getattr(values.dtype, "categories", None)
    if levels is None:
        return str(values.dtype)
    return f"{'an ordered' if values.dtype.ordered else 'a'} category of {levels.tolist()!r:.200}"


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if is_gap(one) or is_gap(other):
        return isinstance(one, float) and isinstance(other, float) and one != one and other != other  # noqa: PLR0124 NaN
    return bool(one == other)


def _shown(one: Prediction) -> str:
    return repr(one.value if one.label is msgspec.UNSET else one.label)
