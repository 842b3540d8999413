from __future__ import annotations

import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops import tensors
from nbmlops.tensors import InvalidAddress, InvalidTensors, Request, Tensor

VALUES = {
    "FP64": st.floats(allow_nan=False),
    "FP32": st.floats(allow_nan=False, width=32),
    "FP16": st.floats(allow_nan=False, width=16),
    "BF16": st.integers(-256, 256).map(float),
    **{f"INT{n}": st.integers(-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 16, 32, 64)},
    **{f"UINT{n}": st.integers(0, 2**n - 1) for n in (8, 16, 32, 64)},
    "BOOL": st.booleans(),
    "BYTES": st.none() | st.text(st.characters(exclude_categories=["Cs"])),
}


@st.composite
def some_tensors(draw):
    names = draw(st.lists(st.text(max_size=8), unique=True, max_size=5))
    found = []
    for name in names:
        datatype = draw(st.sampled_from(sorted(VALUES)))
        rows, width = draw(st.integers(0, 4)), draw(st.sampled_from([None, 0, 1, 3]))
        count = rows * (1 if width is None else width)
        values = draw(st.lists(VALUES[datatype], min_size=count, max_size=count))
        found.append(
            Tensor(name, datatype, (rows,) if width is None else (rows, width), values),
        )
    return found


@given(some_tensors())
def test_what_is_encoded_is_what_is_decoded(sent):
    body, length = tensors.encode_request(sent)
    asked = tensors.decode_request(body, length)
    got = asked.inputs
    assert asked.binary
    assert [t.name for t in sent] == list(got)
    for tensor in sent:
        assert list(got[tensor.name].values) == list(tensor.values)
        assert got[tensor.name].shape == tensor.shape
    answer = tensors.decode_response(*tensors.encode_response("m", 3, sent))
    as_json, none = tensors.encode_response("m", 3, sent, Request({}))
    if not any(isinstance(v, float) and math.isinf(v) for t in sent for v in t.values):
        assert tensors.decode_response(as_json, none) == answer
    assert (answer.model, answer.version) == ("m", "3")
    assert [list(t.values) for t in answer.outputs.values()] == [list(t.values) for t in sent]


@given(st.binary(max_size=200), st.none() | st.integers(-5, 250))
def test_random_bytes_are_refused_with_our_error(body, length):
    with pytest.raises(InvalidTensors):
        tensors.decode_request(body, length)


@given(some_tensors(), st.integers(0, 400), st.binary(max_size=3), st.integers(0, 40))
def test_a_damaged_body_is_refused_or_decodes_to_consistent_tensors(sent, at, junk, cut):
    body, length = tensors.encode_request(sent)
    at = min(at, len(body))
    damaged = body[:at] + junk + body[at + cut :]
    try:
        got = tensors.decode_request(damaged, length).inputs
    except InvalidTensors:
        return
    for tensor in got.values():
        assert len(tensor.values) == math.prod(tensor.shape)


def test_the_bytes_are_those_of_the_protocol():
    body, length = tensors.encode_request(
        [
            Tensor("f", "FP64", (2,), [1.5, None]),
            Tensor("i", "INT64", (1,), [-2]),
            Tensor("b", "BOOL", (2,), [True, False]),
            Tensor("t", "BYTES", (3,), ["é", "", None]),
        ],
    )
    header = msgspec.json.decode(body[:length])
    assert [t["parameters"]["binary_data_size"] for t in header["inputs"]] == [16, 8, 2, 15]
    assert header["parameters"] == {"binary_data_output": True}
    raw = body[length:]
    assert struct.unpack("<d", raw[:8]) == (1.5,)
    assert math.isnan(struct.unpack("<d", raw[8:16])[0])
    assert raw[16:24] == struct.pack("<q", -2)
    assert raw[24:26] == b"\1\0"
    assert raw[26:] == b"\2\0\0\0\xc3\xa9" + b"\0\0\0\0" + b"\1\0\0\0\xff"


def test_json_data_are_accepted_flat_and_nested():
    document = {
        "inputs": [
            {"name": "a", "datatype": "FP64", "shape": [2, 2], "data": [[1, 2], [3.5, None]]},
            {"name": "b", "datatype": "BYTES", "shape": [2], "data": ["x", None]},
        ],
    }
    asked = tensors.decode_request(msgspec.json.encode(document), None)
    got = asked.inputs
    assert not asked.binary
    assert list(got["a"].values)[:3] == [1.0, 2.0, 3.5]
    assert math.isnan(got["a"].values[3])
    assert list(got["b"].values) == ["x", None]


def _tensor(**changes):
    return {"name": "a", "datatype": "FP64", "shape": [1], "data": [1.0]} | changes


@pytest.mark.parametrize(
    ("wire", "word"),
    [
        ({"shape": [2]}, "has not 1 values"),
        ({"shape": [-1]}, "is not [n]"),
        ({"shape": []}, "is not [n]"),
        ({"shape": [1, 1, 1]}, "is not [n]"),
        ({"shape": [10**30]}, "not of the V2 protocol|above 2**31"),
        ({"datatype": "FP8"}, "FP8"),
        ({"data": [True]}, "do not fit FP64"),
        ({"datatype": "UINT8", "data": [256]}, "do not fit UINT8"),
        ({"datatype": "FP16", "data": [1e9]}, "do not fit FP16"),
        ({"data": ["1"]}, "do not fit FP64"),
        ({"datatype": "INT64", "data": [1.5]}, "do not fit INT64"),
        ({"datatype": "INT64", "data": [True]}, "do not fit INT64"),
        ({"datatype": "INT64", "data": [2**63]}, "do not fit INT64"),
        ({"datatype": "BOOL", "data": [1]}, "do not fit BOOL"),
        ({"datatype": "BYTES", "data": [1]}, "do not fit BYTES"),
        ({"data": None}, "needs either"),
        ({"parameters": {"binary_data_size": 8}}, "needs either"),
        ({"data": None, "parameters": {"binary_data_size": 8}}, "0 are left"),
        ({"data": None, "parameters": {"binary_data_size": -8}}, "not a number of bytes"),
        ({"data": None, "parameters": {"binary_data_size": True}}, "not a number of bytes"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused_by_name(wire, word):
    body = msgspec.json.encode({"inputs": [_tensor(**wire)]})
    with pytest.raises(InvalidTensors) as caught:
        tensors.decode_request(body, len(body))
    assert any(part in str(caught.value) for part in word.split("|"))


def test_names_that_repeat_and_bytes_that_belong_to_nothing_are_refused():
    body = msgspec.json.encode({"inputs": [_tensor(), _tensor()]})
    with pytest.raises(InvalidTensors, match="twice"):
        tensors.decode_request(body, None)
    body = msgspec.json.encode({"inputs": [_tensor()]})
    with pytest.raises(InvalidTensors, match="belong to no tensor"):
        tensors.decode_request(body + b"junk", len(body))


def test_an_answer_has_the_outputs_that_are_asked_for_in_the_form_that_is_asked_for():
    outputs = [Tensor("a", "FP64", (1,), [1.5]), Tensor("b", "BYTES", (1,), ["x"])]
    document = {
        "id": "mine",
        "inputs": [_tensor()],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "b"}, {"name": "a", "parameters": {"binary_data": False}}],
    }
    asked = tensors.decode_request(msgspec.json.encode(document), None)
    body, length = tensors.encode_response("m", 3, outputs, asked, {"key": 1})
    header = msgspec.json.decode(body[:length])
    assert (header["id"], header["parameters"]) == ("mine", {"key": 1})
    assert header["outputs"][1]["data"] == [1.5]
    assert list(tensors.decode_response(body, length).outputs) == ["b", "a"]
    with pytest.raises(InvalidTensors, match=r"'c'.*no output of the model; it has a, b"):
        tensors.encode_response("m", 3, outputs, Request({}, wanted={"c": True}))


def test_text_that_is_not_utf_8_and_a_bool_of_two_are_refused():
    def body(datatype, size, blob):
        wire = _tensor(datatype=datatype, data=None, parameters={"binary_data_size": size})
        header = msgspec.json.encode({"inputs": [wire]})
        return header + blob, len(header)

    with pytest.raises(InvalidTensors, match="not UTF-8"):
        tensors.decode_request(*body("BYTES", 6, b"\2\0\0\0\xff\xfe"))
    with pytest.raises(InvalidTensors, match="neither 0 nor 1"):
        tensors.decode_request(*body("BOOL", 1, b"\2"))


def test_values_that_do_not_fit_are_refused_before_they_are_sent():
    with pytest.raises(InvalidTensors, match=r"'n'.*INT64"):
        tensors.encode_request([Tensor("n", "INT64", (1,), [2**70])])
    with pytest.raises(InvalidTensors, match="has not 2 values"):
        tensors.encode_request([Tensor("n", "INT64", (1,), [1, 2])])


def test_addresses():
    assert tensors.parse_address("unix:/tmp/a.sock").path.as_posix() == "/tmp/a.sock"
    v6 = tensors.parse_address("tcp:[::1]:80")
    assert (v6.host, v6.port) == ("::1", 80)
    for wrong in ("unix:relative", "tcp:host", "tcp:host:70000", "http://x", "", "tcp:a b:1"):
        with pytest.raises(InvalidAddress):
            tensors.parse_address(wrong)
