"""The table that a model gets is the one that it was trained on: dtypes, categories, gaps."""

from array import array

import numpy as np
import pandas as pd
import pytest

from nbmlops import predictors, schema, tables, tensors
from nbmlops.records import Column, ModelSchema, OutputSchema, dump, load
from nbmlops.tensors import Tensor


def served(training, *, matrix=True, rows=None, make=None):
    """Return training rows, or others, as a worker rebuilds them from what travels."""
    contract = schema.infer(training, np.arange(len(training)))
    contract = load(dump(contract), ModelSchema)
    records = schema.rows(training, contract, len(training)) if rows is None else rows
    inputs = schema.inputs(contract, schema.check(contract, records), matrix=matrix)
    decoded = tensors.decode_request(*tensors.encode_request(inputs)).inputs
    made = make or (tables.frame if hasattr(training, "columns") else tables.matrix)
    return made(contract, decoded)


FRAMES = {
    "single precision": {"a": np.array([1.5, 2.5], dtype="float32"), "b": [1.0, None]},
    "nullable": {"a": pd.array([1, None], dtype="Int8"), "b": [1.0, 2.0]},
    "truth values": {
        "a": pd.array([True, None], dtype="boolean"),
        "b": np.array([None, False], dtype=object),
        "c": np.array([np.nan, True], dtype=object),
    },
    "objects": {
        "a": pd.Series(["x", None], dtype=object),
        "b": pd.Series(["x", np.nan], dtype=object),
        "c": pd.Series([1, None], dtype=object),
        "d": pd.Series([1.5, None], dtype=object),
        "e": pd.Series([2, np.nan], dtype=object),
    },
    "categories": {
        "a": pd.Categorical(["M", "S"], categories=["S", "M", "L"], ordered=True),
        "b": pd.Categorical([3, 1], categories=[3, 2, 1]),
        "c": pd.Categorical([2, None], categories=[2, 9]),
        "d": pd.Categorical([True, None], categories=[True, False]),
        "e": pd.Categorical([None, 0.5], categories=[2.5, 0.5], ordered=True),
    },
}


@pytest.mark.parametrize("matrix", [True, False], ids=["one matrix", "columns"])
@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_comes_back_as_it_was(name, matrix):
    training = pd.DataFrame(FRAMES[name])
    again = served(training, matrix=matrix)
    pd.testing.assert_frame_equal(again, training)
    for column in training:
        before, after = training[column].tolist(), again[column].tolist()
        assert [type(value) for value in after] == [type(value) for value in before]
        if hasattr(training[column], "cat"):
            assert again[column].cat.codes.tolist() == training[column].cat.codes.tolist()


ARRAYS = {
    "small": np.array([[1, 2], [255, 0]], dtype="uint8"),
    "signed": np.array([[1, -2], [3, 4]], dtype="int32"),
    "single": np.array([[1.5, np.nan], [3, 4]], dtype="float32"),
    "truth": np.array([[True, False], [True, True]]),
    "objects": np.array([["a", None], ["b", "c"]], dtype=object),
    "truth and gaps": np.array([[True, None], [None, False]], dtype=object),
    "numbers and gaps": np.array([[1, 2.5], [None, np.nan]], dtype=object),
}


@pytest.mark.parametrize("matrix", [True, False], ids=["one matrix", "columns"])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_as_it_was(name, matrix):
    training = ARRAYS[name]
    again = served(training, matrix=matrix)
    assert again.dtype == training.dtype
    assert repr(again) == repr(training)  # 1, 1.0 and True are equal, NaN is not


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", 300), ("uint8", -1), ("int8", 128), ("int32", 2**40), ("uint64", -1)],
)
def test_an_integer_that_the_array_s_dtype_cannot_hold_is_refused(dtype, value):
    training = np.array([[1, 2]], dtype=dtype)
    with pytest.raises(ValueError, match=f"column x1 has a number that {dtype} cannot hold"):
        served(training, rows=[{"x0": 1, "x1": value}])


@pytest.mark.parametrize("make", [tables.matrix, tables.frame])
@pytest.mark.parametrize("matrix", [True, False], ids=["one matrix", "columns"])
def test_a_number_that_is_infinite_in_single_precision_is_refused(make, matrix):
    training = np.array([[1, 2]], dtype="float32")
    with pytest.raises(ValueError, match="column x1 has a number that float32 cannot hold"):
        served(training, rows=[{"x0": 1, "x1": 1e39}], matrix=matrix, make=make)


def test_an_integer_that_a_nullable_dtype_cannot_hold_is_refused():
    training = pd.DataFrame({"a": pd.array([1, None], dtype="Int8")})
    with pytest.raises(ValueError, match="column a has a number that Int8 cannot hold"):
        served(training, rows=[{"a": 300}])


def test_a_category_that_training_never_had_is_missing_and_the_others_keep_their_codes():
    size = pd.Categorical(["S", "L", "M"], categories=["S", "M", "L"], ordered=True)
    age = pd.Categorical([10, 20, 10])
    training = pd.DataFrame({"size": size, "age": age})
    rows = [{"size": "L", "age": 20}, {"size": "XL", "age": 30}]
    together = served(training, rows=rows)
    assert together["size"].cat.codes.tolist() == [2, -1]
    assert together["age"].cat.codes.tolist() == [1, -1]
    assert served(training, rows=rows[:1])["size"].cat.codes.tolist() == [2]
    assert served(training, rows=rows[:1])["size"].dtype == training["size"].dtype


class ByCode:
    """A model of the codes of a category."""

    def predict(self, table):
        return table["size"].cat.codes.to_numpy() * 10.0


def test_a_model_of_codes_answers_each_row_as_in_company():
    size = pd.Categorical(["S", "L", "M"] * 9, categories=["S", "M", "L"], ordered=True)
    training = pd.DataFrame({"size": size})
    contract = schema.infer(training, ByCode().predict(training))
    probe, sample = predictors.probe(ByCode(), contract, training)
    assert probe.independent
    assert [one.value for one in sample.predictions[:3]] == [0.0, 20.0, 10.0]


def test_a_schema_that_was_stored_without_levels_stays_readable():
    stored = (
        b'{"columns":[{"name":"size","kind":"category","dtype":"category",'
        b'"categories":["L","S"]}],"output":{"kind":"value"}}'
    )
    contract = load(stored, ModelSchema)
    assert (contract.columns[0].levels, contract.columns[0].ordered) == (None, False)
    table = tables.frame(contract, {"size": Tensor("size", "BYTES", (2,), ["S", "L"])})
    assert table["size"].dtype == "category"
    assert table["size"].tolist() == ["S", "L"]


def test_a_null_is_null_whether_it_has_travelled_or_not():
    column = Column(name="a", kind="boolean", nullable=True)
    other = Column(name="b", kind="integer", nullable=True)
    contract = ModelSchema(columns=(column, other), output=OutputSchema(kind="value"))
    for values in ([1.0, None], array("d", [1.0, float("nan")])):
        inputs = {name: Tensor(name, "FP64", (2,), values) for name in ("a", "b")}
        table = tables.frame(contract, inputs)
        assert table["a"].tolist() == [True, None]
        assert table["b"].isna().tolist() == [False, True]


def test_columns_called_like_those_of_an_array_may_have_pandas_own_dtypes():
    columns = tuple(Column(name=f"x{i}", kind="integer", dtype="Int64") for i in range(2))
    contract = ModelSchema(columns=columns, output=OutputSchema(kind="value"))
    inputs = {name: Tensor(name, "INT64", (1,), [7]) for name in ("x0", "x1")}
    assert tables.matrix(contract, inputs).tolist() == [[7.0, 7.0]]
