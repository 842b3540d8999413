"""What ``log_model`` refuses, since it would be served otherwise; and what it keeps of a test."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from nbmlops import layout, predictors, records, schema, tracking
from nbmlops.errors import ModelRefused, WrongUse
from nbmlops.monitoring.performance import PerformanceReference
from nbmlops.records import Event, ModelSchema, OutputSchema
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


# --- what a test set has shown ------------------------------------------------------------------


@pytest.fixture
def left(tmp_path, monkeypatch):
    """Log inside a job; return what the model's event says, and the files by role."""
    monkeypatch.setenv(layout.JOB_VARIABLE, "job")
    monkeypatch.setenv(layout.TRACKING_VARIABLE, str(tmp_path))

    def logged(model, **pairs):
        (tmp_path / layout.EVENTS_FILE).unlink(missing_ok=True)
        tracking.log_model(model, name="flags", **pairs)
        lines = (tmp_path / layout.EVENTS_FILE).read_bytes().splitlines()
        events = [records.load(line, Event) for line in lines]
        told = [(one.kind, records.plain(one)["values"]) for one in events]
        names = {values["name"]: values for kind, values in told if kind == "artifact"}
        values = next(values for kind, values in told if kind == "model")
        files = {
            role: (tmp_path / "files" / names[name]["file"]).read_bytes()
            for role, name in values["files"].items()
        }
        return values, files

    return logged


def test_what_the_test_set_has_shown_is_kept_beside_the_model(left):
    random = np.random.default_rng(0)
    table = random.normal(size=(400, 2))
    flags = table[:, 0] + random.normal(size=400) > 0
    model = LogisticRegression().fit(table, flags)
    values, files = left(model, train=(table, flags), test=(table, flags))
    assert values["files"]["performance"] == "models/flags/performance.json"
    reference = records.load(files["performance"], PerformanceReference)
    assert {one.name: one.value for one in reference.metrics} == pytest.approx(values["metrics"])
    assert all(one.low < one.value < one.high for one in reference.metrics)
    assert reference.rows == 400
    again = left(model, train=(table, flags), test=(table, flags))[1]
    assert again["performance"] == files["performance"]


def test_a_regressor_keeps_what_is_learned_of_its_errors(left):
    random = np.random.default_rng(0)
    table = pd.DataFrame({"a": random.normal(size=2000), "b": random.normal(size=2000)})
    target = table["a"] + np.exp(table["b"]) * random.normal(size=2000)
    pair = table, target
    values, files = left(LinearRegression().fit(*pair), train=pair, test=pair)
    reference = records.load(files["performance"], PerformanceReference)
    assert {one.name: one.value for one in reference.metrics} == pytest.approx(values["metrics"])
    assert "b" in {one.column for tree in reference.learned for one in tree.looked_at}


def test_many_classes_are_kept_with_their_probabilities(left):
    table = np.random.default_rng(0).normal(size=(300, 2))
    target = np.array(["low", "middle", "high"])[np.digitize(table[:, 0], [-0.5, 0.5])]
    pair = table, target
    _, files = left(LogisticRegression().fit(*pair), train=pair, test=pair)
    reference = records.load(files["performance"], PerformanceReference)
    assert [one.name for one in reference.metrics] == ["accuracy", "log_loss"]
    assert reference.calibration is not None


class Listing:
    """A model that answers lists, as one of plain Python does."""

    classes_ = ("no", "yes")

    def predict(self, rows):
        return ["yes" if value > 0.5 else "no" for value in np.asarray(rows)[:, 0]]


def test_answers_and_truths_may_be_lists(left, monkeypatch):
    monkeypatch.setattr(tracking.formats, "to_bytes", lambda model: b"")
    pair = TABLE.to_numpy(), ["yes" if flag else "no" for flag in FLAGS]
    _, files = left(Listing(), train=pair, test=pair)
    reference = records.load(files["performance"], PerformanceReference)
    assert [(one.name, one.value) for one in reference.metrics] == [("accuracy", 1.0)]


def test_without_a_test_set_nothing_of_it_is_kept(left):
    values, _ = left(FITTED, train=(TABLE.to_numpy(), FLAGS))
    assert "performance" not in values["files"]


def test_a_program_without_scikit_learn_gets_none():
    script = (
        "import sys, numpy as np; from nbmlops.monitoring import performance; from nbmlops import"
        " schema; x = np.arange(99.0).reshape(-1, 1); y = x.ravel() > 50;"
        " contract = schema.infer(x, y, classes=None, probabilities=False);"
        " performance.performance_reference(contract, y, y, None, {'x0': x});"
        " print(*(name for name in ('sklearn', 'scipy', 'pandas') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
