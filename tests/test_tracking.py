"""What ``log_model`` refuses: models and data that would be served otherwise than they were."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from nbmlops import predictors, schema, tracking
from nbmlops.errors import ModelRefused, WrongUse
from nbmlops.records import ModelSchema, OutputSchema
from nbmlops.tensors import Tensor

TABLE = pd.DataFrame({"a": np.linspace(0.0, 1.0, 40), "b": np.tile([0.0, 1.0], 20)})
FLAGS = TABLE["a"] > 0.5


def probed(model, table, target, **changes):
    contract = schema.infer(
        table,
        target,
        classes=getattr(model, "classes_", None),
        probabilities=hasattr(model, "predict_proba"),
    )
    return predictors.probe(model, contract, table)


# --- what comes back otherwise ------------------------------------------------------------------


class Answering:
    """A model whose answers are a function of the table."""

    def __init__(self, function):
        self.predict = function


def test_a_column_that_comes_back_otherwise_is_named():
    gaps = pd.Series([None, np.nan, 1.0] * 4, dtype=object)
    table = pd.DataFrame({"whole": np.arange(12.0), "mixed": gaps})
    model = Answering(lambda rows: np.array([value is None for value in rows["mixed"]]) * 1.0)
    told = "column `mixed` had (nan|None), which comes back as (nan|None)"
    with pytest.raises(ModelRefused, match=told) as caught:
        probed(model, table, range(12))
    assert caught.value.context == {"column": "mixed"}


def test_a_model_that_cannot_answer_one_row_alone_is_refused():
    model = Answering(lambda rows: 1.0 / (len(rows) - 1) + np.zeros(len(rows)))
    with pytest.raises(ModelRefused, match=r"cannot predict rows of its training.*ZeroDivision"):
        probed(model, TABLE, range(40))


def test_an_encoder_of_none_meets_none_again():
    table = pd.DataFrame({"city": pd.Series(["Bern", None, "Rome"] * 5, dtype=object)})
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(table)
    linear = LinearRegression().fit(encoder.transform(table), range(15))
    model = Answering(lambda rows: linear.predict(encoder.transform(rows)))
    _, sample = probed(model, table, range(15))
    assert sample.records[1] == {"city": None}


def test_a_model_of_the_index_is_refused_by_the_row():
    table = TABLE.set_index(np.arange(100, 140))
    model = Answering(lambda rows: rows.index.to_numpy() * 1.0)
    with pytest.raises(ModelRefused, match=r"row 0 .* was 100\.0 and becomes 0\.0") as caught:
        probed(model, table, range(40))
    assert "index" in caught.value.hint


def test_rounding_in_single_precision_is_no_difference():
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(300, 50)).astype("float32"))
    table.columns = [f"c{index}" for index in range(50)]
    target = table.sum(axis=1) * 1e-3 > 0
    probed(LogisticRegression().fit(table, target), table, target)


def test_a_model_that_draws_by_chance_is_compared_with_nothing():
    random = np.random.default_rng(0)
    probe, sample = probed(Answering(lambda rows: random.normal(size=len(rows))), TABLE, range(40))
    assert (probe.deterministic, sample) == (False, None)


# --- answers of another kind --------------------------------------------------------------------


class Boosted:
    """Answers shares, as a booster or a network does."""

    def predict(self, rows):
        return np.asarray(rows)[:, 0]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (LinearRegression().fit(TABLE, FLAGS), r"answers .*, a float, .*truth values"),
        (Boosted(), r"answers 0\.0, a float, .*truth values \(false, true\)"),
        (Answering(lambda rows: FLAGS.astype(int)), r"answers 0, a int, .*truth values"),
        (Answering(lambda rows: np.zeros((len(rows), 2))), "answers 2 values a row"),
    ],
    ids=["linear", "booster", "integers", "several"],
)
def test_answers_that_are_no_truth_values_are_refused(model, told):
    with pytest.raises(ModelRefused, match=told) as caught:
        probed(model, TABLE, FLAGS)
    assert caught.value.hint.startswith("Let it return")


@pytest.mark.parametrize(
    ("kind", "classes", "answer", "told"),
    [
        ("integer", ("0", "1"), [0.7], "answers 0.7, a float, and its classes are integers"),
        ("integer", ("0", "1"), [True], "answers True, a bool"),
        ("text", ("0", "1"), [1], "answers 1, a int, and its classes are texts"),
        ("boolean", ("false", "true"), ["false"], "answers 'false', a str"),
        ("number", ("0.0", "1.0"), ["1.0"], "answers '1.0', a str"),
        ("text", ("no", "yes"), np.array(["no", None], dtype=object), "answers None, a NoneType"),
    ],
)
def test_a_label_of_another_kind_is_an_error_when_it_is_served(kind, classes, answer, told):
    contract = ModelSchema(
        columns=schema.infer(TABLE[["a"]], range(40)).columns,
        output=OutputSchema(kind="label", classes=classes, class_kind=kind),
    )
    predictor = predictors.Predictor(Answering(lambda rows: answer), contract)
    with pytest.raises(ModelRefused, match=told):
        predictor.predict({"a": Tensor("a", "FP64", (1,), [1.0])})


@pytest.mark.parametrize(
    ("kind", "answer", "found"),
    [
        ("integer", np.array([3, 4], dtype="uint8"), [3, 4]),
        ("integer", np.array([3, np.int64(4)], dtype=object), [3, 4]),
        ("boolean", np.array([True, False]), [True, False]),
        ("boolean", pd.array([True, False], dtype="boolean"), [True, False]),
        ("text", pd.Series(["a", "b"]), ["a", "b"]),
        ("text", [["a"], ["b"]], ["a", "b"]),
        ("text", np.array(["a", "b"]), ["a", "b"]),
        ("number", np.array([1, 2]), [1.0, 2.0]),
        ("number", np.array([0.5, 2], dtype="float32"), [0.5, 2.0]),
    ],
)
def test_labels_of_their_kind_are_taken_in_any_form(kind, answer, found):
    output = OutputSchema(kind="label", class_kind=kind)
    contract = ModelSchema(columns=schema.infer(TABLE[["a"]], range(40)).columns, output=output)
    predictor = predictors.Predictor(Answering(lambda rows: answer), contract)
    (tensor,) = predictor.predict({"a": Tensor("a", "FP64", (2,), [1.0, 2.0])})
    assert repr(list(tensor.values)) == repr(found)  # 1, 1.0 and True are equal


class Reversed:
    """A classifier whose probabilities are in another order than its sorted labels."""

    def __init__(self, order):
        self.order = order

    def predict(self, rows):
        return np.where(np.asarray(rows)[:, 0] > 0.5, "yes", "no")

    def predict_proba(self, rows):
        share = np.asarray(rows)[:, 0]
        shares = {"yes": share, "no": 1 - share}
        return np.column_stack([shares[name] for name in self.order])


def test_probabilities_that_do_not_go_with_the_sorted_labels_need_classes():
    labels = np.where(FLAGS, "yes", "no")
    with pytest.raises(ModelRefused, match=r"no `classes_`.*no, yes: row 0 is 'no'") as caught:
        probed(Reversed(("yes", "no")), TABLE, labels)
    assert "`classes_`" in caught.value.hint
    named = Reversed(("yes", "no"))
    named.classes_ = np.array(["yes", "no"])
    _, sample = probed(named, TABLE, labels)
    assert sample.predictions[0].probabilities == {"yes": 0.0, "no": 1.0}
    _, sample = probed(Reversed(("no", "yes")), TABLE, labels)  # with a tie in the middle
    assert sample.predictions[0].probabilities == {"no": 1.0, "yes": 0.0}


# --- data that are no table ---------------------------------------------------------------------


FITTED = RandomForestClassifier(2, random_state=0).fit(TABLE.to_numpy(), FLAGS)


@pytest.mark.parametrize(
    ("features", "told", "hint"),
    [
        (sparse.csr_matrix(TABLE.to_numpy()), "csr_matrix", "toarray"),
        (sparse.csr_array(TABLE.to_numpy()), "csr_array", "toarray"),
        (TABLE.to_numpy().tolist(), "list", "DataFrame"),
        (TABLE.astype(pd.SparseDtype("float64")), "`a` is Sparse", "to_dense"),
        (TABLE["a"], "Series", "DataFrame"),
        ("text", "str", "DataFrame"),
    ],
    ids=["matrix", "sparse array", "lists", "sparse columns", "series", "text"],
)
@pytest.mark.parametrize("role", ["train", "test"])
def test_features_that_are_no_table_are_refused_with_what_to_type(features, told, hint, role):
    pairs = {"train": (TABLE.to_numpy(), FLAGS), role: (features, FLAGS)}
    with pytest.raises(WrongUse, match=told) as caught:
        tracking.log_model(FITTED, **pairs)
    assert role in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("target", [FLAGS[:-1], [*FLAGS, True], list(FLAGS)[:0]])
@pytest.mark.parametrize("role", ["train", "test"])
def test_a_target_of_another_length_is_refused(target, role):
    pairs = {"train": (TABLE.to_numpy(), FLAGS), role: (TABLE.to_numpy(), target)}
    with pytest.raises(WrongUse, match=rf"{role} has 40 rows and {len(target)} targets"):
        tracking.log_model(FITTED, **pairs)


@pytest.mark.parametrize("target", [sparse.csr_matrix([[1.0]] * 40), np.array(3), None, 3])
def test_a_target_that_is_no_column_is_refused(target):
    with pytest.raises(WrongUse, match="train"):
        tracking.log_model(FITTED, train=(TABLE.to_numpy(), target))


def test_a_pair_is_two():
    for pair in (TABLE, (TABLE,), (TABLE, FLAGS, FLAGS), 3):
        with pytest.raises(WrongUse, match="train is no pair"):
            tracking.log_model(FITTED, train=pair)


@pytest.mark.parametrize("target", [FLAGS, FLAGS.to_frame(), FLAGS.to_numpy(), FLAGS.tolist()])
def test_tables_and_targets_in_their_usual_forms_are_taken(target):
    tracking.log_model(FITTED, train=(TABLE.to_numpy(), target), test=(TABLE.to_numpy(), FLAGS))
