from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import serving
from nbmlops import predictors, schema, shortcuts, tensors, worker
from nbmlops.errors import ArtifactCorrupt, DeploymentFailed, ModelRefused
from nbmlops.records import Column, ModelSchema, OutputSchema, WorkerSpec, load
from nbmlops.tensors import HEADER_LENGTH, InvalidTensors, Tensor
from serving import Connection, Process, ask, model, socket_path, until, worker_inbox

pytestmark = pytest.mark.slow  # real processes and servers

READY = "/v2/health/ready"
INFER = "/v2/models/cancer/versions/3/infer"


def request(contract, rows):
    """Return body and headers of an infer request for JSON records."""
    columns = schema.check(contract, rows)
    body, length = tensors.encode_request(schema.inputs(contract, columns))
    return body, {HEADER_LENGTH: str(length)}


def predict(connection, contract, rows, path=INFER):
    body, headers = request(contract, rows)
    status, answered, content = connection.ask("POST", path, body, headers)
    assert status == 200, content
    response = tensors.decode_response(content, int(answered[HEADER_LENGTH]))
    return schema.predictions(contract, response.outputs, len(rows))


def rows_of(table, count):
    if isinstance(table, np.ndarray):
        return [{f"x{i}": float(v) for i, v in enumerate(row)} for row in table[:count]]
    return table.head(count).to_dict(orient="records")


@pytest.fixture
def started(tmp_path):
    running = []

    def start(kind="logistic", address=None, environment=None, **changes):
        inbox = worker_inbox(tmp_path / f"inbox{len(running)}", kind, **changes)
        one = Process(
            "nbmlops.worker", inbox, address or f"unix:{socket_path()}", **environment or {}
        )
        running.append(one)
        return one

    yield start
    for one in running:
        one.stop()


@pytest.mark.parametrize("kind", ["logistic", "forest", "regressor", "array", "mixed"])
def test_a_worker_answers_as_the_model_does(started, kind):
    _, contract, table, fitted = model(kind)
    worker = started(kind).ready(READY)
    rows = rows_of(table, 20)
    got = predict(Connection(worker.address), contract, rows)
    if kind == "regressor":
        assert [one.value for one in got] == pytest.approx(
            list(fitted.predict(table[:20])), rel=1e-12
        )
        return
    assert [one.label for one in got] == fitted.predict(table[:20]).tolist()
    shares = [list(one.probabilities.values()) for one in got]
    np.testing.assert_allclose(shares, fitted.predict_proba(table[:20]), rtol=1e-12)
    assert all(one.within_bounds for one in got)


def test_health_and_metadata_are_those_of_the_protocol(started):
    worker = started().ready(READY)
    connection = Connection(worker.address)
    assert connection.ask("GET", "/v2/health/live")[0] == 200
    status, _, body = connection.ask("GET", "/v2")
    assert json.loads(body)["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/models/cancer", "/v2/models/cancer/versions/3"):
        status, _, body = connection.ask("GET", path)
        document = json.loads(body)
        assert (status, document["name"], document["versions"]) == (200, "cancer", ["3"])
        assert document["inputs"][0] == {"name": "mean radius", "datatype": "FP64", "shape": [-1]}
        assert document["outputs"][1]["shape"] == [-1, 2]
        assert document["properties"]["classes"] == ["0", "1"]
        assert connection.ask("GET", f"{path}/ready")[0] == 200
    for path in (
        "/v2/models/other",
        "/v2/models/cancer/versions/4",
        "/",
        "/v2/models/cancer/infer",
    ):
        status, _, body = connection.ask("GET", path)
        assert status == 404
        assert "error" in json.loads(body)


def test_json_alone_is_answered_with_json_alone(started):
    _, contract, *_ = model("array")
    worker = started("array").ready(READY)
    inputs = [
        {"name": f"x{i}", "datatype": "FP64", "shape": [1, 1], "data": [[1.0]]} for i in range(4)
    ]
    status, headers, body = ask(worker.address, "POST", INFER, json.dumps({"inputs": inputs}))
    document = json.loads(body)
    assert (status, document["model_name"], document["model_version"]) == (200, "cancer", "3")
    assert HEADER_LENGTH not in headers
    assert [one["name"] for one in document["outputs"]] == ["prediction", "probability"]
    assert document["outputs"][0]["data"][0] in (0, 1)
    assert contract.columns[0].name == "x0"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda inputs: inputs.pop(), "no input 'x3'"),
        (lambda inputs: inputs.append({**inputs[0], "name": "x9"}), "has no input 'x9'"),
        (lambda inputs: inputs[0].update(datatype="INT64", data=[1]), "INT64, not FP64"),
        (lambda inputs: inputs[0].update(shape=[2], data=[1.0, 2.0]), "has the shape"),
        (lambda inputs: inputs[0].update(shape=[1, 2], data=[1.0, 2.0]), "has the shape"),
        (lambda inputs: inputs[0].update(data=["x"]), "do not fit FP64"),
        (lambda inputs: inputs.clear(), "no input"),
        (lambda inputs: [one.update(shape=[0], data=[]) for one in inputs], "no rows"),
    ],
)
def test_inputs_that_are_not_the_schemas_are_refused_by_name(array_worker, change, word):
    inputs = [{"name": f"x{i}", "datatype": "FP64", "shape": [1], "data": [1.0]} for i in range(4)]
    change(inputs)
    status, _, body = array_worker.ask("POST", INFER, json.dumps({"inputs": inputs}))
    assert status == 400
    assert word in json.loads(body)["error"]


@pytest.fixture(scope="module")
def array_worker(tmp_path_factory):
    inbox = worker_inbox(tmp_path_factory.mktemp("inbox"), "array")
    worker = Process("nbmlops.worker", inbox, f"unix:{socket_path()}").ready(READY)
    yield Connection(worker.address)
    worker.stop()


def test_bodies_that_are_not_of_the_protocol_are_refused_and_the_worker_lives(array_worker):
    for body, headers in [
        (b"", {}),
        (b"{", {}),
        (b"\xff\xff", {}),
        (b"[" * 100_000, {}),
        (b"{}", {HEADER_LENGTH: "2"}),
        (b"{}", {HEADER_LENGTH: "99"}),
        (b"{}", {HEADER_LENGTH: "-1"}),
        (b"{}", {HEADER_LENGTH: "x"}),
        (b'{"inputs":[]}', {}),
    ]:
        status, _, answer = array_worker.ask("POST", INFER, body, headers)
        assert status == 400, body
        assert "error" in json.loads(answer)
    assert array_worker.ask("POST", "/v2/models/other/infer", b"{}")[0] == 404
    assert array_worker.ask("GET", READY)[0] == 200


def test_a_length_that_is_missing_or_absurd_is_refused(array_worker):
    for headers in (["Content-Length: 99999999999999"], [], ["Transfer-Encoding: chunked"]):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(str(array_worker.address.path))
            head = "\r\n".join([f"POST {INFER} HTTP/1.1", "Host: x", *headers, "", ""])
            raw.sendall(head.encode())
            answer = raw.recv(4096)
            assert answer.split()[1] in {b"411", b"413"}
            assert b"Connection: close" in answer
    assert array_worker.ask("GET", READY)[0] == 200


def test_a_predict_that_raises_is_told_and_the_worker_lives(started):
    _, contract, *_ = model("mixed")
    worker = started("mixed").ready(READY)
    connection = Connection(worker.address)
    good = contract.example
    body, headers = request(contract, [{**good, "city": "Atlantis"}])
    status, _, answer = connection.ask("POST", INFER, body, headers)
    assert status == 500
    document = json.loads(answer)
    assert document["type"] == "ValueError"
    assert "Atlantis" in document["error"]
    assert predict(connection, contract, [good])


# --- what the model is given --------------------------------------------------------------------


class Seen:
    """Keeps the table that it was given."""

    def predict(self, table):
        self.table = table
        return np.zeros(len(table))


def given(columns, values, **attributes):
    contract = ModelSchema(columns=tuple(columns), output=OutputSchema(kind="value"))
    seen = Seen()
    for name, value in attributes.items():
        setattr(seen, name, value)
    checked = schema.check(contract, values)
    body, length = tensors.encode_request(schema.inputs(contract, checked))
    predictors.Predictor(seen, contract).predict(tensors.decode_request(body, length).inputs)
    return seen.table


def test_the_table_has_the_training_names_and_dtypes():
    training = pd.DataFrame(
        {
            "float": [1.5, None],
            "float32": np.array([1.5, 2.5], dtype="float32"),
            "int": [1, 2],
            "int8": np.array([1, -2], dtype="int8"),
            "Int64": pd.array([1, None], dtype="Int64"),
            "bool": [True, False],
            "boolean": pd.array([True, None], dtype="boolean"),
            "object": pd.Series(["a", "b"], dtype=object),
            "str": pd.Series(["a", None], dtype="str"),
            "string": pd.Series(["a", "b"], dtype="string"),
            "category": pd.Categorical(["a", "b"]),
        },
    )
    columns = schema.infer(training, [1.0, 2.0]).columns
    rows = json.loads(training.to_json(orient="records"))
    table = given(columns, rows)
    pd.testing.assert_frame_equal(table, training)


def test_numbers_alone_make_one_block():
    columns = [Column(name=f"c{i}", kind="number", nullable=True) for i in range(3)]
    table = given(columns, [{"c2": 2, "c0": None, "c1": 1.5}])
    assert list(table.columns) == ["c0", "c1", "c2"]
    assert math.isnan(table.iloc[0, 0])
    assert table.iloc[0, 1:].tolist() == [1.5, 2.0]


def test_a_model_trained_on_an_array_gets_an_array():
    columns = [Column(name=f"x{i}", kind="number", dtype="float32") for i in range(2)]
    assert given(columns, [{"x0": 1.0, "x1": 2.0}]).dtype == np.float32
    assert isinstance(given(columns, [{"x0": 1.0, "x1": 2.0}]), np.ndarray)
    named = given(columns, [{"x0": 1.0, "x1": 2.0}], feature_names_in_=["x0", "x1"])
    assert isinstance(named, pd.DataFrame)


def test_an_integer_that_the_trained_dtype_cannot_hold_is_refused():
    columns = [Column(name="small", kind="integer", dtype="int8"), Column(name="b", kind="integer")]
    with pytest.raises(ValueError, match=r"column small .* int8"):
        given(columns, [{"small": 300, "b": 1}])


def test_predictions_are_made_one_batch_at_a_time():
    contract = ModelSchema(
        columns=(Column(name="x0", kind="number"),), output=OutputSchema(kind="value")
    )
    inside, overlaps = [], []

    class Slow:
        def predict(self, table):
            inside.append(1)
            overlaps.append(len(inside))
            threading.Event().wait(0.01)
            inside.pop()
            return np.zeros(len(table))

    predictor = predictors.Predictor(Slow(), contract)
    tensor = {"x0": Tensor("x0", "FP64", (1,), [1.0])}
    threads = [threading.Thread(target=predictor.predict, args=(tensor,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 8


def test_a_model_that_cannot_answer_its_example_never_gets_ready():
    contract = ModelSchema(
        columns=(Column(name="x0", kind="number"),),
        output=OutputSchema(kind="value"),
        example={"x0": 1.0},
    )

    class Broken:
        def predict(self, table):
            raise AttributeError("made by another version")

    with pytest.raises(DeploymentFailed, match="another version"):
        predictors.Predictor(Broken(), contract).warm_up()


# --- loading ------------------------------------------------------------------------------------


def spec_in(inbox):
    return load((inbox / "spec.json").read_bytes(), WorkerSpec)


def test_one_flipped_bit_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    inbox = worker_inbox(tmp_path)
    path = inbox / "model.skops"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(worker.formats, "load", lambda _: pytest.fail("it was loaded"))
    with pytest.raises(ArtifactCorrupt):
        worker.load_model(spec_in(inbox), inbox)


def test_files_outside_the_inbox_and_other_formats_are_refused(tmp_path):
    for changes in (
        {"model_file": "../model.skops"},
        {"model_file": "/etc/passwd"},
        {"format": "pickle"},
    ):
        inbox = worker_inbox(tmp_path / "inbox", **changes)
        with pytest.raises(ModelRefused):
            worker.load_model(spec_in(inbox), inbox)


def test_a_file_that_names_a_type_nobody_trusts_ends_the_worker_with_its_name(started, tmp_path):
    inbox = worker_inbox(tmp_path / "made")
    path = inbox / "model.skops"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(parts["schema.json"])
    document["__module__"], document["__class__"] = "subprocess", "Popen"
    parts["schema.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    one = started(model_digest=digest, form="given", numeric_file=None)
    one.stop()
    (one.inbox / "model.skops").write_bytes(path.read_bytes())
    again = Process("nbmlops.worker", one.inbox, one.address)
    assert again.ended() == 1
    last = again.log.read_text().splitlines()[-1]
    assert "model-refused" in last
    assert "subprocess.Popen" in last


def test_a_damaged_model_ends_the_worker_and_leaves_no_socket(started):
    one = started(model_digest="0" * 64)
    assert one.ended() == 1
    assert "artifact-corrupt" in one.log.read_text().splitlines()[-1]
    assert not Path(one.address.removeprefix("unix:")).exists()


# --- living and dying ---------------------------------------------------------------------------


def test_on_sigterm_readiness_falls_calls_in_flight_are_answered_and_the_socket_goes(started):
    _, contract, table, _ = model("forest")
    one = started("forest").ready(READY)
    rows = rows_of(table, 500) * 60
    body, headers = request(contract, rows)
    answers = []

    def call():
        answers.append(ask(one.address, "POST", INFER, body, headers, timeout=60)[0])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    watching = Connection(one.address)
    assert watching.ask("GET", READY)[0] == 200
    one.signal(signal.SIGTERM)
    until(lambda: watching.ask("GET", READY)[0] == 503 or watching.close())
    for thread in threads:
        thread.join()
    assert one.ended() == 0
    assert answers == [200] * 4
    assert not Path(one.address.removeprefix("unix:")).exists()


def test_the_socket_of_a_killed_worker_is_replaced_and_that_of_a_living_one_is_not(started):
    first = started().ready(READY)
    first.signal(signal.SIGKILL)
    first.ended()
    assert Path(first.address.removeprefix("unix:")).exists()
    second = Process("nbmlops.worker", first.inbox, first.address).ready(READY)
    third = Process("nbmlops.worker", first.inbox, first.address)
    assert third.ended() == 1
    assert "another worker listens" in third.log.read_text()
    assert ask(second.address, "GET", READY)[0] == 200
    second.signal(signal.SIGTERM)
    assert second.ended() == 0


def test_the_socket_is_private(started):
    one = started().ready(READY)
    assert Path(one.address.removeprefix("unix:")).stat().st_mode & 0o077 == 0


def test_on_tcp_a_token_is_asked_for_everywhere_but_health(started):
    address = serving.free_address()
    one = started(address=address, environment={"NBMLOPS_WORKER_TOKEN": "open sesame"}).ready(READY)
    _, contract, *_ = model("logistic")
    body, headers = request(contract, [contract.example])
    for wrong in ({}, {"Authorization": "Bearer open"}, {"Authorization": "open sesame"}):
        assert ask(one.address, "POST", INFER, body, headers | wrong)[0] == 401
        assert ask(one.address, "GET", "/v2/models/cancer", headers=wrong)[0] == 401
    right = {"Authorization": "Bearer open sesame"}
    assert ask(one.address, "POST", INFER, body, headers | right)[0] == 200
    assert "open sesame" not in one.log.read_text()


def test_beyond_this_machine_it_does_not_listen_without_a_token(started):
    one = started(address="tcp:0.0.0.0:9")
    assert one.ended() == 1
    assert "NBMLOPS_WORKER_TOKEN" in one.log.read_text()


def test_it_starts_without_what_only_the_tool_side_has():
    program = (
        "import sys, nbmlops.worker\n"
        "heavy = {'uvloop', 'httptools', 'numpy', 'pandas', 'sklearn', 'skops', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(sorted(m for m in sys.modules if m.startswith('nbmlops.')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(serving.SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    heavy, ours = done.stdout.splitlines()
    assert heavy == "[]"
    assert "nbmlops.store" not in ours
    assert "nbmlops.launchers" not in ours


def test_a_predictor_refuses_tensors_of_another_length():
    contract = ModelSchema(
        columns=(Column(name="a", kind="number"), Column(name="b", kind="number")),
        output=OutputSchema(kind="value"),
    )
    two = {"a": Tensor("a", "FP64", (1,), [1.0]), "b": Tensor("b", "FP64", (2,), [1.0, 2.0])}
    with pytest.raises(InvalidTensors, match="'b' has the shape"):
        predictors.Predictor(Seen(), contract).predict(two)


def test_a_numeric_form_needs_no_scikit_learn_until_values_are_not_finite(started):
    one = started().ready(READY)
    maps = Path(f"/proc/{one.process.pid}/maps")
    if not maps.exists():
        pytest.skip("there is no /proc")
    _, _, table, _ = model("logistic")
    row = [float(value) for value in table.iloc[0]]

    def asked(values):
        inputs = [{"name": "input", "datatype": "FP64", "shape": [1, len(values)], "data": values}]
        return ask(one.address, "POST", INFER, json.dumps({"inputs": inputs}))

    assert asked(row)[0] == 200
    assert "sklearn" not in maps.read_text()
    status, _, body = asked([1e308] * len(row))  # whose scores are beyond a double
    assert (status, b"error" in body) in {(200, False), (500, True)}
    assert "sklearn" in maps.read_text()
    assert asked(row)[0] == 200


def test_numeric_forms_are_read_back_as_they_were_or_refused(started):
    content, contract, table, made = model("forest")
    numeric = shortcuts.numeric(made, contract)
    again = shortcuts.Numeric.from_bytes(numeric.to_bytes())
    labels, shares = again(table.to_numpy())
    assert (shares == numeric(table.to_numpy())[1]).all()
    assert (labels == made.predict(table)).all()
    for wrong in (b"", b"PK", content, numeric.to_bytes()[:1000]):
        with pytest.raises(ModelRefused):
            shortcuts.Numeric.from_bytes(wrong)
    one = started(numeric_digest="0" * 64)
    assert one.ended() == 1
    assert "numeric.npz has the digest" in one.log.read_text()
