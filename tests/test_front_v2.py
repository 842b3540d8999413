"""The Open Inference Protocol V2 of a front, with its public client and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nbmlops import calllog
from serving import COMMIT, ask, model, route
from test_front import World

tritonclient = pytest.importorskip("tritonclient.http")

pytestmark = pytest.mark.slow  # real processes and servers

KINDS = ("logistic", "mixed", "regressor", "array", "forest")
INFER = "/v2/models/cancer/infer"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A front and a worker of each kind of model, made when it is asked for."""
    made, fronts = World(tmp_path_factory.mktemp("v2")), {}

    def get(kind):
        if kind not in fronts:
            fronts[kind] = made.front([route(kind, made.worker(kind).address)])
        return fronts[kind]

    yield get
    made.close()


@pytest.fixture
def client(served):
    opened = []

    def get(kind):
        address = served(kind).address.removeprefix("tcp:")
        opened.append(tritonclient.InferenceServerClient(address))
        return opened[-1]

    yield get
    for one in opened:
        one.close()


def rows_of(kind, count=5):
    table = model(kind)[2]
    if isinstance(table, np.ndarray):
        return [[float(value) for value in row] for row in table[:count]]
    return table.head(count).to_numpy().tolist()


def inputs_of(kind, rows, *, binary=True, two_dimensional=False):
    """Return one input for each column, as the metadata lists them."""
    inputs = []
    types = {"FP64": np.float64, "INT64": np.int64, "BOOL": bool, "BYTES": object}
    for index, column in enumerate(model(kind)[1].columns):
        kinds = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
        datatype = kinds.get(column.kind, "BYTES")
        values = np.array([row[index] for row in rows], dtype=types[datatype])
        if two_dimensional:
            values = values.reshape(-1, 1)
        made = tritonclient.InferInput(column.name, list(values.shape), datatype)
        made.set_data_from_numpy(values, binary_data=binary)
        inputs.append(made)
    return inputs


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_public_client_gets_the_models_own_answers(client, kind, binary):
    rows = rows_of(kind)
    made, table = model(kind)[3], model(kind)[2]
    table = table[:5] if isinstance(table, np.ndarray) else table.head(5)
    wanted = [tritonclient.InferRequestedOutput("prediction", binary_data=binary)]
    if hasattr(made, "predict_proba"):
        wanted.append(tritonclient.InferRequestedOutput("probability", binary_data=binary))
    for two_dimensional in (False, True):
        inputs = inputs_of(kind, rows, binary=binary, two_dimensional=two_dimensional)
        answer = client(kind).infer("cancer", inputs, outputs=wanted, request_id="mine")
        found = answer.as_numpy("prediction")
        if found.dtype == object:
            found = np.array([v.decode() if isinstance(v, bytes) else v for v in found])
        if made.predict(table).dtype.kind == "f":
            np.testing.assert_allclose(found, made.predict(table), rtol=1e-9)
        else:
            assert found.tolist() == list(made.predict(table))
        if hasattr(made, "predict_proba"):
            shares = answer.as_numpy("probability")
            np.testing.assert_allclose(shares, made.predict_proba(table), rtol=1e-9, atol=1e-12)
        said = answer.get_response()
        assert (said["model_name"], said["model_version"], said["id"]) == ("cancer", "3", "mine")
        assert said["parameters"]["nbmlops_commit"] == COMMIT
        assert said["parameters"]["nbmlops_version"] == 3


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT64", "INT32", "UINT8", "INT8"])
def test_a_model_of_numbers_takes_one_matrix_of_any_numbers(client, datatype):
    types = {"FP64": "f8", "FP32": "f4", "FP16": "f2"}
    dtype = np.dtype(types.get(datatype, datatype.lower()))
    matrix = (np.arange(90).reshape(3, 30) % 50).astype(dtype)
    whole = tritonclient.InferInput("anything", [3, 30], datatype)
    whole.set_data_from_numpy(matrix)
    answer = client("logistic").infer("cancer", [whole], model_version="3")
    made, table = model("logistic")[3], model("logistic")[2]
    frame = table.head(3).copy()
    frame.loc[:, :] = matrix.astype("f8")
    assert answer.as_numpy("prediction").tolist() == made.predict(frame).tolist()
    np.testing.assert_allclose(answer.as_numpy("probability"), made.predict_proba(frame))


def test_the_client_sees_health_and_metadata(client):
    one = client("mixed")
    assert one.is_server_live()
    assert one.is_server_ready()
    assert one.is_model_ready("cancer")
    assert one.is_model_ready("cancer", "3")
    assert not one.is_model_ready("cancer", "4")
    assert not one.is_model_ready("other")
    assert "binary_tensor_data" in one.get_server_metadata()["extensions"]
    about = one.get_model_metadata("cancer")
    assert about["versions"] == ["3"]
    assert about["inputs"] == [
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
        {"name": "age", "datatype": "INT64", "shape": [-1]},
        {"name": "member", "datatype": "BOOL", "shape": [-1]},
    ]
    assert about["outputs"] == [
        {"name": "prediction", "datatype": "BYTES", "shape": [-1]},
        {"name": "probability", "datatype": "FP64", "shape": [-1, 2]},
    ]
    assert about["properties"] == {"classes": ["no", "yes"]}


def infer(front, document, path=INFER, headers=None):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    status, told, content = ask(front.address, "POST", path, body, headers or {})
    return status, told, json.loads(content) if content[:1] == b"{" else content


def columns(**changes):
    one = {
        "city": {"name": "city", "datatype": "BYTES", "shape": [1], "data": ["Bern"]},
        "age": {"name": "age", "datatype": "INT64", "shape": [1], "data": [41]},
        "member": {"name": "member", "datatype": "BOOL", "shape": [1], "data": [True]},
    }
    for name, change in changes.items():
        one[name] = None if change is None else {**one.get(name, {}), **change}
    return {"inputs": [tensor for tensor in one.values() if tensor is not None]}


def test_headers_and_parameters_name_the_call_and_the_log_has_it(served):
    front = served("mixed")
    status, headers, answer = infer(front, {**columns(), "id": "mine"})
    assert status == 200, answer
    call_id = headers["Nbmlops-Call-Id"]
    assert answer["parameters"]["nbmlops_call_id"] == call_id
    assert (headers["Nbmlops-Model"], headers["Nbmlops-Version"]) == ("cancer", "3")
    assert headers["Nbmlops-Commit"] == COMMIT
    record = calllog.find(front.inbox / "calls", call_id)
    assert record.records == ({"city": "Bern", "age": 41, "member": True},)
    assert record.client_id == "mine"
    assert record.predictions[0].label == answer["outputs"][0]["data"][0]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"age": None}, 422, "`age` is missing"),
        ({"agee": {"name": "agee", "datatype": "INT64", "shape": [1], "data": [1]}}, 422, "`agee`"),
        ({"age": {"datatype": "FP64", "data": [41.5]}}, 422, "`age`"),
        ({"age": {"datatype": "BYTES", "data": ["41"]}}, 422, "`age` is BYTES, not INT64"),
        ({"age": {"shape": [2], "data": [1, 2]}}, 422, "1, 2 rows"),
        ({"age": {"shape": [1, 2], "data": [1, 2]}}, 422, "`age` has the shape"),
        ({"age": {"shape": [0], "data": []}}, 422, "0, 1 rows"),
        ({"city": {"datatype": "INT64", "data": [1]}}, 422, "`city` is INT64, not BYTES"),
        ({"city": {"data": [None]}}, 422, "`city`"),
        ({"member": {"datatype": "INT64", "data": [2]}}, 422, "`member`"),
        ({"age": {"datatype": "FP8"}}, 400, "FP8"),
        ({"age": {"data": ["41"]}}, 400, "'age'"),
        ({"age": {"shape": [3]}}, 400, "'age'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(served, change, status, words):
    got, _, answer = infer(served("mixed"), columns(**change))
    assert got == status, answer
    assert words in answer["error"]


def test_integers_and_truth_values_may_come_in_other_numeric_types(served):
    change = {
        "age": {"datatype": "FP32", "data": [41]},
        "member": {"datatype": "UINT8", "data": [1]},
    }
    status, _, answer = infer(served("mixed"), columns(**change))
    assert status == 200, answer


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/other/infer", 404),
        ("/v2/models/cancer/versions/9/infer", 404),
        ("/v2/models/cancer/versions/3/infer", 200),
        ("/v2/models/%2e%2e/infer", 404),
    ],
)
def test_only_the_endpoints_own_model_is_served(served, path, status):
    got, _, answer = infer(served("mixed"), columns(), path)
    assert got == status, answer
    if status == 404:
        assert isinstance(answer["error"], str)


def test_outputs_that_are_not_there_are_refused(served):
    asked = {**columns(), "outputs": [{"name": "mood"}]}
    status, _, answer = infer(served("mixed"), asked)
    assert (status, answer["error"].startswith("the model has no output `mood`")) == (422, True)
    asked["outputs"] = [{"name": "prediction", "parameters": {"classification": 1}}]
    assert infer(served("mixed"), asked)[0] == 400


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None), (b"{", None), (b"[]", None), (b'{"inputs": 1}', None),
        (b'{"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "data": [NaN]}]}', None),
        (b"{}", "x"), (b"{}", "-1"), (b"{}", "99999"), (b'{"inputs": []}' + b"x" * 9, "14"),
        (b"[" * 100_000, None),
    ],
)  # fmt: skip
def test_bodies_that_are_no_requests_are_refused(served, body, length):
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    status, _, answer = infer(served("mixed"), body, headers=headers)
    assert status in (400, 422), answer
    assert isinstance(answer["error"], str)


def test_a_row_too_many_is_refused(served):
    matrix = {"name": "m", "datatype": "FP64", "shape": [10_001, 30], "data": [0.5] * 300_030}
    status, _, answer = infer(served("logistic"), {"inputs": [matrix]})
    assert (status, "10001 records" in answer["error"]) == (413, True)


def test_values_that_are_no_numbers_are_refused_by_column(served):
    values = np.zeros((1, 30))
    values[0, 7] = math.nan
    header = {
        "inputs": [
            {
                "name": "m",
                "datatype": "FP64",
                "shape": [1, 30],
                "parameters": {"binary_data_size": 240},
            }
        ]
    }
    text = json.dumps(header).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    for bad in (math.nan, math.inf):
        values[0, 7] = bad
        status, _, answer = infer(served("logistic"), text + values.tobytes(), headers=length)
        assert (status, model("logistic")[1].columns[7].name in answer["error"]) == (422, True)
