"""Parameters from where they are given to where a cell reads them: what arrives was sent."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbmlops import pipelines, runs, submission
from nbmlops import workspace as workspaces
from nbmlops.errors import InvalidParameter, NbmlopsError
from nbmlops.notebook import coerced
from nbmlops.records import Parameter, RunRecord, Status
from sources import notebook_text
from terminal import refused

COUNT = 40
KINDS = ("str", "int", "float", "bool", "list", "dict", "int | None", "Any")

# An echo: every parameter as JSON of its type and its representation.
ECHO = """
import json, pathlib, nbmlops as mlops
told = {name: [type(value).__name__, repr(value)] for name, value in sorted(globals().items())
        if name.startswith('p_') or name in NAMES}
pathlib.Path('echo.json').write_text(json.dumps(told))
mlops.log_artifact('echo.json')
"""

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | NUMBERS | TEXT
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
OF_KIND = {
    "str": TEXT,
    "int": st.integers(),
    "float": NUMBERS,
    "bool": st.booleans(),
    "list": st.lists(NESTED, max_size=4),
    "dict": st.dictionaries(TEXT, NESTED, max_size=4),
    "int | None": st.none() | st.integers(),
    "Any": NESTED.filter(lambda value: not isinstance(value, str)),
}


def echoed(folder, declared, sent):
    """Run a notebook that declares these parameters, and return what it has seen of them."""
    names = [line.partition(":")[0].partition(" ")[0] for line in declared]
    source = "from typing import Any\n" + "\n".join(declared)
    (folder / "train.ipynb").write_text(
        notebook_text(("parameters", source), ECHO.replace("NAMES", repr(tuple(names))))
    )
    workspace = workspaces.open_at(folder)
    try:
        started = submission.submit(workspace, pipelines.find(workspace, "train"), sent)
        for seen in runs.watch(workspace, started.run_id, every_s=0.05):
            done = seen
        assert done.status is Status.SUCCEEDED, done.cause
        (echo,) = (artifact for artifact in done.artifacts if artifact.name == "echo.json")
        return done, json.loads(workspace.artifacts.get(echo.digest))
    finally:
        workspace.close()


@pytest.mark.slow
@settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
@given(st.data())
def test_values_of_any_kind_arrive_as_they_were_sent(folder, data):
    kinds = {f"p_{number}": KINDS[number % len(KINDS)] for number in range(COUNT)}
    sent = {name: data.draw(OF_KIND[kind], label=name) for name, kind in kinds.items()}
    declared = [f"{name}: {kind} = None" for name, kind in kinds.items()]
    done, seen = echoed(folder, declared, sent)
    for name, value in sent.items():
        assert seen[name] == [type(value).__name__, repr(value)], (name, kinds[name], value)
        assert repr(done.parameters[name]) == repr(value), name


@pytest.mark.slow
def test_values_from_a_command_line_arrive_as_they_were_typed(folder):
    quotes = "' \" \\ \\n \n \r\n \t \0 \x1b[31m ''' \"\"\" {} {{x}} %s $HOME `id` ; # ü 😀 \u2028"
    declared, sent, wanted = [], {}, {}
    rows = [
        ("str", quotes, quotes),
        ("str", "1e-3", "1e-3"),
        ("str", "None", "None"),
        ("str", "true", "true"),
        ("str", "", ""),
        ("str", "2026-02-29", "2026-02-29"),
        ("str", "x" * 2**20, "x" * 2**20),
        ("str", "'; import os; os._exit(3) #", "'; import os; os._exit(3) #"),
        ("float", "1e-3", 1e-3),
        ("float", "7", 7.0),
        ("float", "-0.0", -0.0),
        ("float", "1e308", 1e308),
        ("int", "-12", -12),
        ("int", str(2**80), 2**80),
        ("bool", "true", True),
        ("bool", "False", False),
        ("int | None", "None", None),
        ("int | None", "null", None),
        ("list", '[1, true, null, 1.0, "\'"]', [1, True, None, 1.0, "'"]),
        ("dict", '{"a": {"b": [{"c": 1}]}}', {"a": {"b": [{"c": 1}]}}),
        ("tuple", "[64, 32]", (64, 32)),
        ("tuple", "(64, 32)", (64, 32)),
        ("set", "[1, 2, 1]", {1, 2}),
        ("Any", "[1]", [1]),
        ("Any", "1", 1),
        ("Any", "a word", "a word"),
    ]
    for number, (kind, text, value) in enumerate(rows):
        declared.append(f"p_{number}: {kind} = None")
        sent[f"p_{number}"], wanted[f"p_{number}"] = text, value
    # Names that mean something, and are names all the same.
    odd_names = ("match", "_", "__doc__", "größe", "x" * 200, "papermill")
    for name in odd_names:
        declared.append(f"{name}: int = 0")
        sent[name], wanted[name] = "5", 5
    _, seen = echoed(folder, declared, sent)
    for name, value in wanted.items():
        assert seen[name] == [type(value).__name__, repr(value)], name
    assert math.copysign(1, float(seen["p_10"][1])) == -1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "true"), ("int", "1.0"), ("int", "1e3"), ("int", ""), ("int", "0x"),
        ("int", "None"),
        ("int", "9" * 5000), ("bool", "1"), ("bool", "yes"), ("float", "NaN"), ("float", "nan"),
        ("float", "inf"), ("float", "-Infinity"), ("float", "1e400"), ("float", "true"),
        ("list", "[NaN]"), ("list", "[1e999]"), ("list", "{}"), ("list", "[1"), ("dict", "[]"),
        ("dict", '{"a": Infinity}'), ("dict", "{1: 2}"), ("list", "[" * 50_000),
        ("dict", '{"a":' * 50_000), ("int | None", "nothing"), ("Literal['a', 'b']", "c"),
        ("datetime.date", "2026-01-01"), ("list[int]", '["1"]'), ("int", "__import__('os')"),
        ("float", "1_0"), ("str", "\udcff"), ("list", '["\\ud800"]'),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_the_declared_type_starts_nothing(folder, kind, text):
    if (kind, text) == ("float", "1_0"):
        assert coerced(Parameter(name="x", type=kind), text) == 10.0  # as Python reads it
        return
    (folder / "train.ipynb").write_text(notebook_text(("parameters", f"x: {kind} = None")))
    workspace = workspaces.open_at(folder)
    with pytest.raises(InvalidParameter) as caught:
        submission.submit(workspace, pipelines.find(workspace, "train"), {"x": text})
    assert caught.value.hint
    assert len(caught.value.message) < 300
    assert workspace.store.page(runs.KIND, RunRecord) == []
    workspace.close()


@pytest.mark.parametrize(
    "name",
    ["class", "None", "a b", "a-b", "a.b", "1a", "", "a;b", "a\nb", "x=1;import os", "*", "\udcff",
     "__import__('os')", "\uff41", "Depth"],
)  # fmt: skip
def test_a_name_that_no_notebook_declares_is_refused(folder, name):
    workspace = workspaces.open_at(folder)
    with pytest.raises(NbmlopsError) as caught:
        submission.submit(workspace, pipelines.find(workspace, "train"), {name: "1"})
    assert caught.value.code == "unknown-parameter"
    assert workspace.store.page(runs.KIND, RunRecord) == []
    workspace.close()


@pytest.mark.parametrize("text", ["depth", "=1", "", "depth=1\x00", "--depth", "\udcff=1"])
def test_what_is_typed_behind_p_is_an_assignment_or_refused(folder, text):
    error = refused(folder, "train", "-p", text)
    assert error["code"] in ("invalid-parameter", "unknown-parameter", "wrong-use")


@given(st.text(max_size=20), st.sampled_from(KINDS))
def test_no_text_makes_the_check_of_a_value_break(text, kind):
    try:
        value = coerced(Parameter(name="x", type=kind), text)
    except InvalidParameter:
        return
    assert json.loads(json.dumps(value)) == value
