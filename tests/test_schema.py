from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops import schema, tensors
from nbmlops.errors import InvalidRecords, ModelRefused
from nbmlops.records import Column, ModelSchema, OutputSchema, dump, load
from nbmlops.tensors import InvalidTensors, Tensor


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "age": [31, 44, 58],
            "income": [1.5, math.nan, 4.0],
            "member": [True, False, True],
            "city": ["Bern", "Rome", "Bern"],
            "score": pd.array([1, 2, None], dtype="Int64"),
            "note": [None, "a", "b"],
            "size": pd.Categorical(["S", "M", "S"]),
            "small": np.array([1, 2, 3], dtype="float32"),
        },
    )


def test_a_table_becomes_columns_with_kinds_ranges_and_gaps(table):
    got = schema.infer(table, [1.0, 2.0, 5.0])
    by_name = {column.name: column for column in got.columns}
    assert [column.name for column in got.columns] == list(table.columns)
    assert [column.kind for column in got.columns] == [
        "integer",
        "number",
        "boolean",
        "category",
        "integer",
        "category",
        "category",
        "number",
    ]
    assert (by_name["age"].low, by_name["age"].high) == (31.0, 58.0)
    assert by_name["city"].categories == ("Bern", "Rome")
    assert by_name["size"].dtype == "category"
    assert (by_name["size"].levels, by_name["size"].ordered) == (("M", "S"), False)
    assert by_name["city"].levels is None
    assert by_name["small"].dtype == "float32"
    assert [c.name for c in got.columns if c.nullable] == ["income", "score", "note"]
    assert load(dump(got), ModelSchema) == got


def test_the_example_is_the_first_training_row_without_gaps(table):
    table.loc[2, "score"] = 7
    table.loc[0, "income"] = math.nan
    example = schema.infer(table, [1.0, 2.0, 5.0]).example
    assert example == {
        "age": 58,
        "income": 4.0,
        "member": True,
        "city": "Bern",
        "score": 7,
        "note": "b",
        "size": "S",
        "small": 3.0,
    }


def test_the_example_passes_the_check_that_callers_meet(table):
    got = schema.infer(table, [1, 0, 1])
    assert schema.check(got, [got.example])


def test_an_array_gets_column_names():
    got = schema.infer(np.arange(6).reshape(3, 2) / 2, np.array([0.0, 10.0, 4.0]))
    assert [column.name for column in got.columns] == ["x0", "x1"]
    assert got.output == OutputSchema(kind="value", low=-5.0, high=15.0)


@pytest.mark.parametrize(
    ("classes", "target", "kind", "spelled"),
    [
        (np.array([0, 1]), [0, 1, 1], "integer", ("0", "1")),
        (np.array([False, True]), [True, False], "boolean", ("false", "true")),
        (np.array(["no", "yes"]), ["yes", "no"], "text", ("no", "yes")),
        (np.array(["no", "yes"], dtype=object), ["yes", "no"], "text", ("no", "yes")),
        (np.array([0.0, 2.5]), [0.0, 2.5], "number", ("0.0", "2.5")),
        (None, ["b", "a", "b"], "text", ("a", "b")),
        (None, [True, False], "boolean", ("false", "true")),
    ],
)
def test_classes_are_spelled_as_json_has_them(classes, target, kind, spelled):
    features = np.zeros((len(target), 1))
    output = schema.infer(features, target, classes=classes, probabilities=True).output
    assert (output.kind, output.class_kind, output.classes) == ("label", kind, spelled)
    assert output.probabilities


def test_a_constant_target_still_has_a_plausible_range():
    output = schema.infer(np.zeros((3, 1)), [7.0, 7.0, 7.0]).output
    assert (output.low, output.high) == (3.5, 10.5)


def test_many_or_long_categories_are_text():
    many = pd.DataFrame({"a": [str(i) for i in range(201)], "b": ["x"] * 200 + ["y" * 201]})
    kinds = [column.kind for column in schema.infer(many, np.zeros(201)).columns]
    assert kinds == ["text", "text"]


@pytest.mark.parametrize(
    ("features", "word"),
    [
        (pd.DataFrame({"when": pd.to_datetime(["2026-01-01"])}), "when.*datetime"),
        (pd.DataFrame({"mix": [1, "a"]}, dtype=object), "mix.*int, str"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns.*`a`"),
        (
            pd.DataFrame({"c": pd.Categorical([1], categories=[1, pd.Timestamp(0)])}),
            "`c` has the category '1970.*a Timestamp",
        ),
        (np.zeros(3), "1 dimensions"),
        (np.zeros((0, 2)), "no training rows"),
        (np.zeros((1, 2), dtype=complex), "complex"),
    ],
)
def test_what_has_no_form_in_json_is_refused_by_name(features, word):
    with pytest.raises(ModelRefused, match=word):
        schema.infer(features, [1.0])


def test_several_targets_are_refused():
    with pytest.raises(ModelRefused, match="several targets"):
        schema.infer(np.zeros((2, 1)), np.zeros((2, 2)))


# --- checking -----------------------------------------------------------------------------------

SCHEMA = ModelSchema(
    columns=(
        Column(name="age", kind="integer"),
        Column(name="income", kind="number", nullable=True),
        Column(name="member", kind="boolean"),
        Column(name="city", kind="category", categories=("Bern", "Rome")),
        Column(name="visits", kind="integer", nullable=True),
    ),
    output=OutputSchema(kind="value"),
)
GOOD = {"age": 41, "income": 2.5, "member": True, "city": "Bern", "visits": 3}


def test_columns_come_in_any_order_and_leave_in_the_schemas():
    shuffled = dict(reversed(GOOD.items()))
    assert schema.check(SCHEMA, [GOOD, shuffled]) == [
        [41, 41],
        [2.5, 2.5],
        [True, True],
        ["Bern", "Bern"],
        [3, 3],
    ]


@pytest.mark.parametrize(
    ("column", "sent", "kept"),
    [
        ("age", 5.0, 5),
        ("age", -(2**63), -(2**63)),
        ("income", 3, 3.0),
        ("income", None, None),
        ("visits", None, None),
        ("city", "Zürich", "Zürich"),
        ("city", "", ""),
    ],
)
def test_values_that_mean_what_the_column_means_are_accepted(column, sent, kept):
    columns = schema.check(SCHEMA, [GOOD | {column: sent}])
    got = dict(zip(GOOD, columns, strict=True))[column]
    assert got == [kept]
    assert type(got[0]) is type(kept)


@pytest.mark.parametrize(
    ("column", "value", "what", "hint"),
    [
        ("age", "1", "the text '1', not an integer", "without quotes"),
        ("age", True, "is true, not an integer", "Write 1"),
        ("age", 1.5, "the number 1.5", "whole numbers"),
        ("age", 2**63, "beyond 64 bits", ""),
        ("age", 1e300, "the number 1e+300", ""),
        ("age", None, "is null, and training had no gaps", ""),
        ("age", [1], "a list", ""),
        ("visits", 2**53 + 1, "not an integer of 64 bits", ""),
        ("income", "1", "the text '1', not a finite number", "without quotes"),
        ("income", False, "is false", "Write 0"),
        ("income", 10**400, "beyond 64 bits", ""),
        ("income", math.nan, "nan", ""),
        ("income", math.inf, "inf", ""),
        ("income", {}, "an object", ""),
        ("member", 1, "the number 1, not true or false", ""),
        ("member", "true", "the text 'true'", ""),
        ("member", None, "is null", ""),
        ("city", 3, "the number 3, not a text", "`Bern`"),
        ("city", None, "is null", ""),
        ("city", "\ud800", "not a text", ""),
    ],
)
def test_values_of_another_type_are_refused_with_record_and_column(column, value, what, hint):
    with pytest.raises(InvalidRecords) as caught:
        schema.check(SCHEMA, [GOOD, GOOD | {column: value}])
    assert caught.value.message.startswith(f"records[1], column `{column}` ")
    assert what in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.context == {"record": 1, "column": column}
    dump(caught.value.document())


def test_missing_and_unknown_columns_are_named_with_the_nearest():
    renamed = {**GOOD, "incme": 1.0}
    del renamed["income"]
    with pytest.raises(InvalidRecords, match="`incme` is not a column") as caught:
        schema.check(SCHEMA, [renamed])
    assert caught.value.hint == "Did you mean `income`?"
    with pytest.raises(InvalidRecords, match=r"`member` is missing \(and 1 more\)"):
        schema.check(SCHEMA, [{k: v for k, v in GOOD.items() if k not in {"member", "city"}}])
    with pytest.raises(InvalidRecords, match="`zzz` is not a column"):
        schema.check(SCHEMA, [GOOD | {"zzz": 1}])


@pytest.mark.parametrize("records", [[], None, 3, "x", {"age": 1}, [[]], [None]])
def test_what_is_no_list_of_objects_is_refused(records):
    with pytest.raises(InvalidRecords):
        schema.check(SCHEMA, records)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(GOOD, JSON)) | JSON, max_size=3) | JSON)
def test_whatever_passes_the_check_can_travel(records):
    try:
        columns = schema.check(SCHEMA, records)
    except InvalidRecords as refused:
        dump(refused.document())
        return
    body, length = tensors.encode_request(schema.inputs(SCHEMA, columns))
    got = tensors.decode_request(body, length).inputs
    for column, values in zip(SCHEMA.columns, columns, strict=True):
        for sent, arrived in zip(values, got[column.name].values, strict=True):
            assert arrived == sent or (sent is None and math.isnan(arrived))


# --- answers ------------------------------------------------------------------------------------


def _labels(**changes):
    output = OutputSchema(kind="label", classes=("0", "1"), class_kind="integer", **changes)
    return ModelSchema(columns=(), output=output)


def test_labels_come_with_probabilities_by_class():
    outputs = {
        "prediction": Tensor("prediction", "INT64", (2,), [1, 5]),
        "probability": Tensor("probability", "FP64", (2, 2), [0.25, 0.75, math.nan, 1.0]),
    }
    known, odd = schema.predictions(_labels(probabilities=True), outputs, 2)
    assert (known.label, known.probabilities) == (1, {"0": 0.25, "1": 0.75})
    assert known.within_bounds
    assert (odd.label, odd.probabilities) == (5, {"0": None, "1": 1.0})
    assert not odd.within_bounds
    assert b'"value"' not in dump(known)


def test_values_outside_the_plausible_range_are_flagged():
    model = ModelSchema(columns=(), output=OutputSchema(kind="value", low=0.0, high=2.0))
    values = [0.0, 2.0, 2.1, -1.0, math.nan, math.inf]
    outputs = {"prediction": Tensor("prediction", "FP64", (6,), values)}
    got = schema.predictions(model, outputs, 6)
    assert [p.within_bounds for p in got] == [True, True, False, False, False, False]
    assert [p.value for p in got] == [0.0, 2.0, 2.1, -1.0, None, None]
    assert b'"label"' not in dump(got[0])


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"prediction": Tensor("prediction", "FP64", (1,), [1.0])},
        {"prediction": Tensor("prediction", "INT64", (2,), [1, 1])},
        {"prediction": Tensor("prediction", "INT64", (1,), [1])},
    ],
)
def test_outputs_that_are_not_the_schemas_are_refused(outputs):
    with pytest.raises(InvalidTensors):
        schema.predictions(_labels(probabilities=True), outputs, 1)


def test_infinite_values_are_refused_by_column():
    table = pd.DataFrame({"a": [1.0, math.inf], "b": [1.0, 2.0]})
    with pytest.raises(ModelRefused, match="column `a` has infinite values"):
        schema.infer(table, [0.0, 1.0])
