"""`ConvSpec` says of a convolution what ONNX says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ort_optim.kernels.spec import ConvSpec


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def specs(draw: st.DrawFn) -> ConvSpec:
    group = draw(st.sampled_from([1, 1, 2, 5]))
    transposed = draw(st.booleans())
    strides = draw(pairs(1, 3))
    extra = draw(pairs(0, 1)) if transposed else (0, 0)
    return ConvSpec(
        Cin=group * draw(st.integers(1, 4)),
        Cout=group * draw(st.integers(1, 4)),
        kernel=draw(pairs(1, 5)),
        strides=strides,
        dilations=draw(pairs(1, 3)),
        pads=(*draw(pairs(0, 2)), *draw(pairs(0, 2))),
        group=group,
        N=draw(st.integers(1, 3)),
        H=draw(st.integers(1, 20)),
        W=draw(st.integers(1, 20)),
        transposed=transposed,
        output_padding=(min(extra[0], strides[0] - 1), min(extra[1], strides[1] - 1)),
    )


def output_shape(spec: ConvSpec) -> list[int]:
    """What onnx infers for a node made from the spec."""
    attributes: dict[str, Any] = {
        "kernel_shape": spec.kernel,
        "strides": spec.strides,
        "dilations": spec.dilations,
        "pads": spec.pads,
        "group": spec.group,
    }
    if spec.transposed:
        attributes["output_padding"] = spec.output_padding
    node = helper.make_node(
        "ConvTranspose" if spec.transposed else "Conv", ["x", "w"], ["y"], **attributes
    )
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [spec.N, spec.Cin, spec.H, spec.W]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, spec.weight_shape),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "g", inputs, [output]))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim]


@given(specs())
def test_the_output_sizes_are_those_that_onnx_infers(spec: ConvSpec) -> None:
    assume(spec.OH)
    assume(spec.OW)
    assert output_shape(spec) == [spec.N, spec.Cout, spec.OH, spec.OW]


def test_a_kernel_that_does_not_fit_leaves_no_output() -> None:
    spec = ConvSpec(1, 1, (3, 3), strides=(2, 1), N=1, H=1, W=2)
    assert (spec.OH, spec.OW, spec.macs) == (0, 0, 0)


def test_macs_of_a_known_layer() -> None:
    spec = ConvSpec(64, 128, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), N=2, H=56, W=56)
    assert spec.macs == 2 * 28 * 28 * 128 * 64 * 9
    assert replace(spec, group=4).macs == 2 * 28 * 28 * 128 * 16 * 9


def test_macs_of_a_transposed_convolution_count_each_input_element_once() -> None:
    spec = ConvSpec(16, 8, (4, 4), strides=(2, 2), N=1, H=10, W=12, transposed=True)
    assert spec.macs == 10 * 12 * 16 * 8 * 16
    assert spec.weight_shape == (16, 8, 4, 4)


@pytest.mark.parametrize("size", ["N", "H", "W"])
def test_macs_are_not_known_without_every_size(size: str) -> None:
    spec = ConvSpec(8, 8, (3, 3), N=1, H=9, W=9)
    assert replace(spec, **{size: None}).macs is None


def test_each_output_size_depends_on_its_own_input_size() -> None:
    spec = ConvSpec(8, 8, (3, 3), N=1, H=9)
    assert spec.OH == 7
    assert spec.OW is None


def test_depthwise_has_one_input_channel_a_group() -> None:
    spec = ConvSpec(16, 32, (3, 3), group=16)
    assert spec.is_depthwise
    assert spec.multiplier == 2
    assert spec.weight_shape == (32, 1, 3, 3)


@pytest.mark.parametrize("spec", [ConvSpec(1, 8, (3, 3)), ConvSpec(16, 16, (3, 3), group=8)])
def test_what_is_not_depthwise_has_no_multiplier(spec: ConvSpec) -> None:
    assert not spec.is_depthwise
    with pytest.raises(ValueError, match="not a depthwise"):
        _ = spec.multiplier


def test_pointwise_has_no_padding() -> None:
    assert ConvSpec(8, 8, (1, 1), strides=(2, 2)).is_pointwise
    assert not ConvSpec(8, 8, (1, 1), pads=(1, 0, 0, 0)).is_pointwise


@pytest.mark.parametrize(
    "wrong",
    [
        {"Cin": 0},
        {"group": 3},
        {"Cout": 6, "group": 4},
        {"kernel": (0, 3)},
        {"strides": (1, 0)},
        {"dilations": (0, 1)},
        {"pads": (0, -1, 0, 0)},
        {"H": -1},
        {"output_padding": (1, 0)},
    ],
)
def test_fields_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"Cin": 8, "Cout": 8, "kernel": (3, 3)}
    with pytest.raises(ValueError, match="ConvSpec"):
        ConvSpec(**(good | wrong))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (ConvSpec(64, 128, (3, 3), strides=(2, 2), N=1, H=56, W=28), "3x3 64->128 s2 @56x28"),
        (ConvSpec(32, 32, (1, 5), dilations=(1, 2), group=32), "1x5 32->32 d1x2 g32"),
        (ConvSpec(8, 4, (2, 2), transposed=True, N=3, H=2, W=2), "2x2 8->4 transposed @3x2x2"),
    ],
)
def test_the_text_names_what_differs_from_the_plain_case(spec: ConvSpec, text: str) -> None:
    assert str(spec) == text
