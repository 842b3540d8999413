import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops import notebook
from nbmlops.errors import InvalidNotebook, InvalidParameter
from nbmlops.records import Parameter
from sources import notebook_text


def parse(*cells, **options):
    return notebook.parse(notebook_text(*cells, **options).encode(), "n.ipynb")


DECLARED = """\
depth: int | None = None  # of the tree
rate = 1e-3
# comma-separated
names = ['a']
also: 'float' = 2
"""


def test_parameters_are_read_with_type_default_and_help():
    found = notebook.parameters(parse(("parameters", DECLARED)))
    assert [(p.name, p.type, p.default, p.help) for p in found] == [
        ("depth", "int | None", None, "of the tree"),
        ("rate", "float", 0.001, None),
        ("names", "list", ["a"], "comma-separated"),
        ("also", "'float'", 2, None),
    ]


def test_what_is_no_literal_assignment_is_no_parameter():
    source = "import os\nx = os.getcwd()\na, b = 1, 2\ny: int\nz = float('nan')\nok = -1"
    assert [p.name for p in notebook.parameters(parse(("parameters", source)))] == ["ok"]


def test_two_parameters_cells_are_refused_with_their_places():
    with pytest.raises(InvalidNotebook, match="cells 1 and 2"):
        notebook.parameters(parse(("parameters", "a = 1"), ("parameters", "b = 1")))


def test_a_parameters_cell_that_is_no_python_is_refused_with_the_line():
    with pytest.raises(InvalidNotebook, match="line 2"):
        notebook.parameters(parse(("parameters", "a = 1\nb = = 2")))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "6", 6),
        ("float", "1e-3", 0.001),
        ("float", "5", 5.0),
        ("bool", "true", True),
        ("bool", "False", False),
        ("str", "6", "6"),
        ("str", 'it\'s "quoted"\nünïcode', 'it\'s "quoted"\nünïcode'),
        ("int | None", "None", None),
        ("int | None", "4", 4),
        ("Optional[float]", "null", None),
        ("list[int]", "[1, 2]", [1, 2]),
        ("dict[str, float]", '{"a": 1.5}', {"a": 1.5}),
        ("Literal['a', 'b']", "b", "b"),
        ("Any", "7", 7),
        ("typing.Any", "seven", "seven"),
    ],
)
def test_text_becomes_the_declared_type(kind, text, value):
    made = notebook.coerced(Parameter(name="p", type=kind), text)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "6.5"),
        ("int", True),
        ("int", "true"),
        ("bool", "1"),
        ("float", "nan"),
        ("float", "NaN"),
        ("float", math.inf),
        ("float", True),
        ("list[int]", "[1, 'a']"),
        ("Literal['a', 'b']", "c"),
        ("complex", "1"),
        ("pd.DataFrame", "1"),
    ],
)
def test_a_value_of_another_type_is_refused(kind, value):
    with pytest.raises(InvalidParameter, match="`p`"):
        notebook.coerced(Parameter(name="p", type=kind), value)


@given(st.text(max_size=200))
def test_a_text_parameter_arrives_as_it_was_sent(text):
    assert notebook.coerced(Parameter(name="p", type="str"), text) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(JSON)
def test_json_of_any_shape_arrives_as_it_was_sent(value):
    text = msgspec.json.encode(value).decode()
    made = notebook.coerced(Parameter(name="p", type="Any"), text)
    assert made == value or isinstance(value, str)


def test_stripping_removes_outputs_and_keeps_a_clean_notebook_byte_for_byte():
    dirty = notebook_text("a = 1", outputs=True).encode()
    clean = notebook.stripped(dirty, "n.ipynb")
    assert b"secret" not in clean
    assert b'"execution_count": null' in clean
    assert notebook.stripped(clean, "n.ipynb") == clean
    untouched = notebook_text("a = 1").encode()
    assert notebook.stripped(untouched, "n.ipynb") == untouched


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"cells": []}',
        b'{"nbformat": 3, "worksheets": []}',
        b"\xff\xfe",
        b'{"nbformat": 4, "cells": [1]}',
        b'{"nbformat": 4, "cells": "x"}',
    ],
)
def test_what_is_no_notebook_is_refused_by_name(data):
    with pytest.raises(InvalidNotebook, match=r"n\.ipynb"):
        notebook.parse(data, "n.ipynb")
