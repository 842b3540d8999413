"""What the predictions of bare rows are: labels, probabilities of one of two, or values.

No schema says it. A truth of few values is a label where the predictions are such labels too; where
they are shares between two classes, they are probabilities; where they are many other numbers, the
model predicts a value, of which the truth happens to have few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbmlops.monitoring import columns, kinds

_LOOKED_AT = 100_000
_BETWEEN = 0.01
"""Which part of the predictions lies between 0 and 1 at least where they are probabilities."""
_WITHIN = 0.95
"""Which part lies there or is 0 or 1."""
_MOST = 0.5


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a column of predictions holds.

    ``label`` says that it is held against labels; with ``classes``, the two that there are, it
    holds the probabilities of the second.
    """

    label: bool
    classes: tuple[str, str] | None = None

    def answers(self, column: Any) -> Any:
        """Return predictions as they are held against truths, probabilities as labels."""
        if column is None or self.classes is None:
            return column
        values = columns.numbers(column).values
        with np.errstate(invalid="ignore"):
            known = (values >= 0) & (values <= 1)
            return np.array([*self.classes, None], dtype=object)[np.where(known, values > 0.5, 2)]

    def told(self, column: Any) -> NDArray[Any]:
        """Return truths or answers as numbers, or labels in the one spelling that they have."""
        if not self.label:
            return columns.numbers(column).values
        named = columns.names(column, "category")
        return np.array([*named.names, None], dtype=object)[named.codes]

    def probabilities(self, column: Any) -> NDArray[np.float64] | None:
        """Return the probability of each class, of shape (rows, 2), where predictions are such."""
        if self.classes is None:
            return None
        second = columns.numbers(column).values
        return np.stack([1 - second, second], axis=1)


def outputs_of(truths: Any, kind: str, predictions: Any) -> Outputs:
    """Return what predictions are, beside truths of that kind; either may be ``None``."""
    numeric = kind not in {"boolean", "category", "text"}
    known = np.unique(_numbers(truths)) if numeric else np.empty(0)
    if not kinds.is_label(kind, len(known)):
        return Outputs(label=False)
    if predictions is None or kinds.kind_of(predictions) not in {"number", "integer"}:
        return Outputs(label=True)
    found = _numbers(predictions[:_LOOKED_AT])
    if not len(found):
        return Outputs(label=True)
    odd = ~np.isin(found, known)
    between, within = (found > 0) & (found < 1), (found >= 0) & (found <= 1)
    if (between & odd).mean() > _BETWEEN and within.mean() > _WITHIN:
        classes = _classes(truths, known)
        if classes is not None:
            return Outputs(label=True, classes=classes)
    distinct = len(np.unique(found))
    is_value = numeric and odd.mean() > _MOST and not kinds.is_label("number", distinct)
    return Outputs(label=not is_value)


def _classes(truths: Any, known: NDArray[np.float64]) -> tuple[str, str] | None:
    """Return the two classes in their order, ``None`` if there are more or fewer."""
    if len(known):
        found = [columns.spelling(value) for value in known.tolist()]
    else:
        named = columns.names(truths, "category")
        found = sorted({named.names[code] for code in np.unique(named.codes) if code >= 0})
    return (found[0], found[1]) if len(found) == 2 else None


def _numbers(column: Any) -> NDArray[np.float64]:
    values = columns.numbers(column).values
    return values[~np.isnan(values)]
