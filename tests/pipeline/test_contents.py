"""Control flow, functions, containers, and all element types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.passes.harness import model_of
from tests.pipeline.models import F, Optimize, Same, floats, loaded, passed
from tests.toolbox import ops


def test_if_loop_and_scan(optimize: Optimize, same: Same) -> None:
    model = model_of(
        """g (bool c, float[3,4] x, int64 n) => (float[3,4] y, float[4] z, float[3,4] s)
        {
            a = Identity(x)
            y = If (c) <then_branch = t () => (float[3,4] ty) { ti = Identity(a)
                          ty = Relu(ti) },
                        else_branch = e () => (float[3,4] ey) { ei = Identity(a)
                          ey = Neg(ei) }>
            true = Constant<value = bool {1}>()
            z0 = ReduceMax<axes=[0], keepdims=0>(a)
            z = Loop (n, true, z0) <body = l (int64 i, bool go, float[4] v)
                 => (bool go2, float[4] v2) { go2 = Identity(go)
                          vi = Identity(v)
                          v2 = Tanh(vi) }>
            zero = ReduceMin<axes=[0], keepdims=0>(a)
            last, s = Scan <num_scan_inputs=1, body = b (float[4] acc, float[4] row)
                 => (float[4] acc2, float[4] out) { ri = Identity(row)
                          acc2 = Add(acc, ri)
                          out = Mul(acc2, acc2) }> (zero, a)
        }"""
    )
    report = optimize(model)
    passed(report)
    assert report.output.op_histogram["Identity"] == 1  # a Loop's body may not give out its input
    for c, n in ((True, 0), (False, 3)):
        same(c=np.array(c), x=floats(3, 4), n=np.array(n))


def function_model() -> onnx.ModelProto:
    body = [helper.make_node("Identity", ["a"], ["i"]), helper.make_node("Mul", ["i", "b"], ["r"])]
    function = helper.make_function(
        "local", "Scale", ["a", "b"], ["r"], body, [helper.make_opsetid("", 17)]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Scale", ["x", "w"], ["h"], domain="local"),
            helper.make_node("Scale", ["h", "w"], ["y"], domain="local"),
        ],
        "g",
        [helper.make_tensor_value_info("x", F, ["N", 4])],
        [helper.make_tensor_value_info("y", F, ["N", 4])],
        [numpy_helper.from_array(floats(4), "w")],
    )
    return helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
        ir_version=8,
    )


def test_model_local_functions_are_inlined(tmp_path: Path, optimize: Optimize, same: Same) -> None:
    passed(optimize(function_model()))
    result = loaded(tmp_path / "out.onnx")
    assert not result.functions
    assert "Scale" not in ops(tmp_path / "out.onnx")
    same(x=floats(2, 4))


def test_sequences(optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (float[2,3] x, seq(float[2,3]) q) => (seq(float[2,3]) s, float[2,3] y)"
        "{ i = Identity(x)\n s = SequenceInsert(q, i)\n zero = Constant<value=int64 {0}>()\n"
        " y = SequenceAt(s, zero) }"
    )
    passed(optimize(model))
    same(x=floats(2, 3), q=[floats(2, 3), floats(2, 3)])


def test_optional_types(optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (float[4] x) => (float[4] y, bool h)"
        "{ i = Identity(x)\n o = Optional(i)\n y = OptionalGetElement(o)\n"
        " h = OptionalHasElement(o) }",
        opset=18,
    )
    passed(optimize(model))
    same(x=floats(4))


def test_strings(optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (string[3] x) => (string[3] y, bool[3] e)"
        "{ i = Identity(x)\n y = StringConcat(i, w)\n e = Equal(i, w) }",
        opset=20,
    )
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"b"]))
    passed(optimize(model))
    same(x=np.array(["a", "b", "ä"], object))


def test_optional_outputs_that_nobody_asked_for(optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (float[5,1,3] x) => (float[1,1,2] h)"
        '{ i = Identity(x)\n "", h = LSTM<hidden_size=2>(i, w, r)\n'
        " m, u = Dropout(h) }".replace('"", h', "unused, h"),
        weights={"w": floats(1, 8, 3), "r": floats(1, 8, 2)},
        opset=14,
    )
    model.graph.node[1].output[0] = ""
    passed(optimize(model))
    same(x=floats(5, 1, 3))


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [("float16", np.float16), ("double", np.float64), ("int32", np.int32), ("uint8", np.uint8)],
)
def test_other_element_types(optimize: Optimize, same: Same, onnx_type: str, dtype: Any) -> None:
    model = model_of(
        f"g ({onnx_type}[2,3] x) => ({onnx_type}[2,3] y)"
        "{ i = Identity(x)\n m = Mul(i, w)\n y = Max(m, i) }",
        weights={"w": np.array([1, 2, 3], dtype)},
    )
    passed(optimize(model))
    same(x=np.array([[1, 2, 3], [4, 5, 6]], dtype))


def test_a_type_that_ort_has_no_kernel_for_is_copied(tmp_path: Path, optimize: Optimize) -> None:
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [4])],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [4])],
        [numpy_helper.from_array(np.ones(4, ml_dtypes.bfloat16), "unused")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    report = optimize(model)
    assert report.verification.status == "unverified"
    assert "NOT_IMPLEMENTED" in report.verification.reason
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()


def test_a_quantized_model(optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (float[1,2,6,6] x) => (float[1,3,6,6] y)"
        "{ i = Identity(x)\n q = QuantizeLinear(i, s, z)\n d = DequantizeLinear(q, s, z)\n"
        " wd = DequantizeLinear(w, ws, wz)\n c = Conv<pads=[1,1,1,1]>(d, wd)\n"
        " q2 = QuantizeLinear(c, s, z)\n y = DequantizeLinear(q2, s, z) }",
        weights={
            "s": np.float32(0.05),
            "z": np.uint8(128),
            "w": np.random.default_rng(0).integers(-99, 99, (3, 2, 3, 3)).astype(np.int8),
            "ws": np.float32(0.01),
            "wz": np.int8(0),
        },
    )
    report = optimize(model)
    passed(report)
    assert report.output.op_histogram["QuantizeLinear"] == 2
    assert report.output.op_histogram["DequantizeLinear"] == 3
    same(x=floats(1, 2, 6, 6))
