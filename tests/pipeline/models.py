"""Small models, values and checks that several of these tests use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ort_optim.report import Report
from tests.passes.harness import model_of

F = TensorProto.FLOAT
I64 = TensorProto.INT64

Optimize = Callable[..., Report]
"""`optimize(model or path, out, **options)`, untimed unless told otherwise."""

Run = Callable[..., tuple[bytes, Report]]
"""(OUT's bytes, the report) of `optimize` in the work folder tmp_path/work."""

Same = Callable[..., None]
"""`same(**feeds)` asserts that in.onnx and out.onnx give the same outputs."""


def passed(report: Report) -> None:
    assert report.verification.status == "passed", report.verification.reason or report.warnings


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def loaded(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


def weighty(size: int = 600) -> onnx.ModelProto:
    return model_of(
        f"g (float[{size}] x) => (float[{size}] y)"
        "{ i = Identity(x)\n a = Add(i, w)\n y = Mul(a, s) }",
        weights={"w": floats(size), "s": np.float32(2)},
    )


OLD_NET = """g (float[1,2,6,6] x) => (float[1,5] y)
{
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
    n = BatchNormalization(c, scale, shift, mean, var)
    r = Relu(n)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    d = Dropout(p)
    i = Identity(d)
    f = Flatten<axis=1>(i)
    y = Gemm<transB=1>(f, m, o)
}"""


def old_net(opset: int) -> onnx.ModelProto:
    model = model_of(
        OLD_NET,
        opset=opset,
        weights={
            "w": floats(3, 2, 3, 3),
            "b": floats(3),
            "scale": floats(3),
            "shift": floats(3),
            "mean": floats(3),
            "var": np.abs(floats(3)) + 1,
            "m": floats(5, 27),
            "o": floats(5),
        },
    )
    if opset < 7:
        for node in model.graph.node:
            if node.op_type in ("BatchNormalization", "Dropout"):
                node.attribute.append(helper.make_attribute("is_test", 1))
            if node.op_type == "Gemm":
                node.attribute.append(helper.make_attribute("broadcast", 1))
    return model


def custom_model() -> onnx.ModelProto:
    """A model with an operator that ONNX Runtime does not know."""
    model = model_of(
        "g (float[4] x) => (float[4] y) { i = Identity(x)\n a = Neg(i)\n y = Relu(a) }"
    )
    model.graph.node[1].op_type, model.graph.node[1].domain = "Frobnicate", "org.example"
    model.opset_import.add(domain="org.example", version=1)
    return model
