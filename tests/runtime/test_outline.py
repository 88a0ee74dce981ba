from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ort_optim.runtime.outline import MalformedError, outline
from tests.runtime.networks import chain, tiled


def outlined(model: ModelProto | bytes) -> ModelProto:
    contents = model if isinstance(model, bytes) else model.SerializeToString()
    return ModelProto.FromString(outline(io.BytesIO(contents)))


def without_large_data(model: ModelProto) -> ModelProto:
    bare = ModelProto.FromString(model.SerializeToString())
    for tensor in bare.graph.initializer:
        if len(tensor.raw_data) > 4096:
            tensor.ClearField("raw_data")
        if 4 * len(tensor.float_data) > 4096:
            tensor.ClearField("float_data")
    return bare


def large() -> ModelProto:
    """A model with initializers in all ways, a large Constant, and a region."""
    model = tiled(chain(48))
    zeros = np.zeros(5000, np.float32)
    model.graph.initializer.append(helper.make_tensor("f", TensorProto.FLOAT, [5000], zeros))
    model.graph.initializer.append(helper.make_tensor("i", TensorProto.INT64, [5000], range(5000)))
    model.graph.initializer.append(
        TensorProto(name="e", dims=[9], data_type=1, data_location=TensorProto.EXTERNAL)
    )
    value = numpy_helper.from_array(zeros)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=value))
    return model


def test_only_the_data_of_large_initializers_is_gone() -> None:
    model = large()
    found = outlined(model)
    assert found == without_large_data(model)
    assert found.ByteSize() < model.ByteSize() - 2 * 48 * 48 * 9 * 4


@pytest.mark.parametrize("name", ["digits_resnet", "ocr_bilstm", "code_tagger", "shapes_detector"])
def test_real_models_are_what_they_are_without_their_data(name: str, own_models: Path) -> None:
    path = own_models / f"{name}.onnx"
    with path.open("rb") as file:
        found = ModelProto.FromString(outline(file))
    assert found == without_large_data(onnx.load(path))


def test_a_graph_in_two_parts_is_one() -> None:
    """protobuf puts the parts of a message together that a file holds twice."""
    one, two = ModelProto(), ModelProto()
    one.graph.node.add(op_type="A")
    two.graph.node.add(op_type="B")
    found = outlined(one.SerializeToString() + two.SerializeToString())
    assert [node.op_type for node in found.graph.node] == ["A", "B"]


def test_nothing_is_an_empty_model() -> None:
    assert outlined(b"") == ModelProto()


RAW = large().SerializeToString()


@pytest.mark.parametrize("end", [1, 3, 100, 1000, len(RAW) - 1])
def test_what_is_cut_off_is_malformed(end: int) -> None:
    with pytest.raises(MalformedError):
        outline(io.BytesIO(RAW[:end]))


@pytest.mark.parametrize(
    "contents", [b"\x0b", b"\xff" * 20, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0e"]
)
def test_what_is_no_message_is_malformed(contents: bytes) -> None:
    with pytest.raises(MalformedError):
        outline(io.BytesIO(contents))


@given(st.lists(st.tuples(st.integers(0, len(RAW) - 1), st.integers(0, 255)), max_size=6))
@settings(max_examples=200, deadline=None)
def test_what_protobuf_reads_has_the_same_outline(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(RAW)
    for place, value in changes:
        raw[place] = value
    try:
        whole = ModelProto.FromString(bytes(raw))
    except DecodeError:
        return
    try:
        found = outlined(bytes(raw))
    except MalformedError:
        return  # what protobuf forgives, no writer writes
    for model in (whole, found):
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    assert found == whole
