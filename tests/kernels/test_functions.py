"""Activations agree with float64 and, for NaN and infinite numbers, with ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from ort_optim.kernels import functions
from ort_optim.kernels.builder import Code
from ort_optim.kernels.epilogue import Epilogue, Operation
from ort_optim.kernels.isa import Isa
from tests.kernels.harness import AVX2, AVX512, Compiled, aligned

Array = NDArray[Any]
ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
EPSILON = 2.0**-24


@dataclass(frozen=True)
class Apply:
    """y = operation(x), with b beside x."""

    operation: Operation

    name = "apply"
    pointers = ("x", "e0", "y")
    values = ("vectors",)

    def write(self, isa: Isa) -> Code:
        code = Code(self.name, isa, self.pointers, self.values)
        with code.loop(code.value("vectors")) as i:
            x, b, y = (code.pointer(each).at(i * code.lanes) for each in self.pointers)
            if self.operation.operand:
                y.store(functions.BINARY[self.operation.kind](code, x.load(), b.load()))
            else:
                y.store(Epilogue((self.operation,)).apply(code, x.load(), []))
        return code


@cache
def compiled(operation: Operation, isa: Isa) -> Compiled:
    return Compiled(Apply(operation), isa)


def apply(isa: Isa, operation: Operation, x: Array, b: Array | None = None) -> Array:
    count = -(-x.size // isa.lanes) * isa.lanes
    memory = [aligned(count) for _ in range(3)]
    memory[0][: x.size] = x
    memory[1][: x.size] = x if b is None else b
    places = {name: each.ctypes.data for name, each in zip(("x", "e0", "y"), memory, strict=True)}
    compiled(operation, isa).run(places, {"vectors": count // isa.lanes}, 1)
    return memory[2][: x.size]


def dense() -> Array:
    """float32 numbers of every sign and exponent, and many of the size of activations."""
    bits = np.arange(0, 0x7F800000, 40009, dtype=np.uint32)
    plain = np.linspace(-110, 110, 40001, dtype=np.float32)
    small = np.linspace(-6, 6, 40001, dtype=np.float32)
    positive = bits.view(np.float32)
    return np.concatenate([positive, -positive, plain, small])


def sigmoid(x: Array) -> Array:
    """Without cancellation for large negative x."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def mish(x: Array) -> Array:
    e = np.exp(np.minimum(x, 300))
    n = e * (e + 2)
    return np.where(x > 300, x, x * (n / (n + 2)))


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[float])
erfc: Callable[[Array], Array] = np.vectorize(math.erfc, otypes=[float])

REFERENCES: dict[Operation, tuple[Callable[[Array], Array], float]] = {
    Operation("relu"): (lambda x: np.maximum(x, 0), 0),
    Operation("clip", (0.0, 6.0)): (lambda x: np.clip(x, 0, 6), 0),
    Operation("clip", (-1.5, math.inf)): (lambda x: np.maximum(x, -1.5), 0),
    Operation("clip", (-math.inf, 2.5)): (lambda x: np.minimum(x, 2.5), 0),
    Operation("leaky_relu", (0.25,)): (lambda x: np.where(x < 0, 0.25 * x, x), 1),
    Operation("leaky_relu", (-1.5,)): (lambda x: np.where(x < 0, -1.5 * x, x), 1),
    Operation("elu", (1.0,)): (lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), 4),
    Operation("sigmoid"): (sigmoid, 4),
    Operation("silu"): (lambda x: x * sigmoid(x), 5),
    Operation("hard_sigmoid", (0.25, 0.5)): (lambda x: np.clip(0.25 * x + 0.5, 0, 1), 2),
    Operation("tanh"): (np.tanh, 5),
    Operation("erf"): (erf, 5),
    Operation("mish"): (mish, 8),
    Operation("softplus"): (softplus, 7),
    Operation("exp"): (np.exp, 4),
    Operation("abs"): (np.abs, 0),
    Operation("neg"): (lambda x: -x, 0),
    Operation("add_number", (1.5,)): (lambda x: x + 1.5, 1),
    Operation("mul_number", (3.0,)): (lambda x: x * 3.0, 1),
    Operation("div_number", (3.0,)): (lambda x: x / 3.0, 1),
    Operation("number_sub", (1.5,)): (lambda x: 1.5 - x, 1),
}
"""Operation -> (in float64, bound of the relative error in units of 2^-24: half an ulp or more)."""

ABSOLUTE: dict[Operation, tuple[Callable[[Array], Array], float]] = {
    Operation("gelu"): (lambda x: x * erfc(-x / math.sqrt(2)) / 2, 4),
    Operation("hard_swish"): (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 4),
    Operation("gelu_tanh"): (
        lambda x: x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
        6,
    ),
}
"""The same where the bound is relative to |x|: a gate's cancellation, or a large argument's own
rounding."""


def check(found: Array, wanted: Array, scale: Array, bound: float) -> None:
    with np.errstate(over="ignore"):
        rounded = wanted.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    # Below the smallest normal number the spacing is constant; what is less may become 0, also
    # before a product with x.
    allowed = bound * EPSILON * np.abs(scale[finite]) + 2.0**-119
    error = np.abs(found[finite].astype(np.float64) - wanted[finite])
    worst = int(np.argmax(error - allowed))
    assert (error <= allowed).all(), (found[finite][worst], wanted[finite][worst])


@ISAS
@pytest.mark.parametrize("operation", REFERENCES, ids=lambda o: f"{o.kind}{o.numbers or ''}")
def test_relative_error(isa: Isa, operation: Operation) -> None:
    reference, bound = REFERENCES[operation]
    x = dense()
    with np.errstate(over="ignore", under="ignore"):
        wanted = reference(x.astype(np.float64))
    check(apply(isa, operation, x), wanted, wanted, bound)


@ISAS
@pytest.mark.parametrize("operation", ABSOLUTE, ids=lambda o: o.kind)
def test_error_relative_to_the_argument(isa: Isa, operation: Operation) -> None:
    reference, bound = ABSOLUTE[operation]
    x = dense()
    with np.errstate(over="ignore", under="ignore"):
        wanted = reference(x.astype(np.float64))
    check(apply(isa, operation, x), wanted, x.astype(np.float64), bound)


@ISAS
def test_saturation_is_exact(isa: Isa) -> None:
    x = np.array([1e3, -1e3, 3e38, -3e38], np.float32)
    for kind, low in (("sigmoid", 0.0), ("tanh", -1.0), ("erf", -1.0)):
        np.testing.assert_array_equal(apply(isa, Operation(kind), x), [1, low, 1, low])
    for kind in ("silu", "gelu", "gelu_tanh", "hard_swish", "mish"):
        np.testing.assert_array_equal(apply(isa, Operation(kind), x), [1e3, 0, x[2], 0])


@ISAS
def test_bounded_functions_keep_their_bounds(isa: Isa) -> None:
    bits = np.arange(0x40000000, 0x41200000, 3, dtype=np.uint32)  # 2 to 10
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32)])
    assert np.abs(apply(isa, Operation("tanh"), x)).max() == 1
    assert np.abs(apply(isa, Operation("erf"), x)).max() == 1
    gates = apply(isa, Operation("sigmoid"), x)
    assert gates.min() > 0
    assert gates.max() <= 1


SPECIAL = np.array([np.nan, np.inf, -np.inf, -200, -1e10, 1e10, -0.0, 0.0, 2.5], np.float32)
NODES: list[tuple[Operation, str, dict[str, float | str]]] = [
    (Operation("relu"), "Relu", {}),
    (Operation("leaky_relu", (0.125,)), "LeakyRelu", {"alpha": 0.125}),
    (Operation("elu", (1.0,)), "Elu", {}),
    (Operation("sigmoid"), "Sigmoid", {}),
    (Operation("hard_sigmoid", (0.25, 0.5)), "HardSigmoid", {"alpha": 0.25, "beta": 0.5}),
    (Operation("hard_swish"), "HardSwish", {}),
    (Operation("tanh"), "Tanh", {}),
    (Operation("erf"), "Erf", {}),
    (Operation("gelu"), "Gelu", {}),
    (Operation("gelu_tanh"), "Gelu", {"approximate": "tanh"}),
    (Operation("mish"), "Mish", {}),
    (Operation("softplus"), "Softplus", {}),
    (Operation("exp"), "Exp", {}),
    (Operation("sqrt"), "Sqrt", {}),
    (Operation("abs"), "Abs", {}),
    (Operation("neg"), "Neg", {}),
]
PAIRS = [("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"), ("min", "Min"),
         ("max", "Max"), ("prelu", "PRelu")]  # fmt: skip


def run_onnx(nodes: list[onnx.NodeProto], **arrays: Array) -> Array:
    """The result z of nodes in ONNX Runtime."""
    inputs = [helper.make_tensor_value_info(name, 1, a.shape) for name, a in arrays.items()]
    output = helper.make_tensor_value_info("z", 1, None)
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, [output]),
        opset_imports=[helper.make_opsetid("", 22)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: Array = session.run(None, arrays)[0]
    return found


@ISAS
@pytest.mark.parametrize(("operation", "node", "attributes"), NODES, ids=lambda each: str(each)[:9])
def test_special_numbers_are_onnx_runtimes(
    isa: Isa, operation: Operation, node: str, attributes: dict[str, Any]
) -> None:
    wanted = run_onnx([helper.make_node(node, ["x"], ["z"], **attributes)], x=SPECIAL)
    found = apply(isa, operation, SPECIAL)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-7)


@ISAS
def test_special_numbers_of_silu_are_onnx_runtimes(isa: Isa) -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["y"]),
        helper.make_node("Mul", ["x", "y"], ["z"]),
    ]
    found = apply(isa, Operation("silu"), SPECIAL)
    np.testing.assert_allclose(found, run_onnx(nodes, x=SPECIAL), rtol=2e-6, atol=1e-7)


@ISAS
@pytest.mark.parametrize(("kind", "node"), PAIRS)
def test_pairs_of_special_numbers_are_onnx_runtimes(isa: Isa, kind: str, node: str) -> None:
    x, y = np.repeat(SPECIAL, SPECIAL.size), np.tile(SPECIAL, SPECIAL.size)
    wanted = run_onnx([helper.make_node(node, ["x", "y"], ["z"])], x=x, y=y)
    zero_times = (kind == "prelu") & (x == 0)  # there ONNX Runtime gives 0, whatever the slope
    found = apply(isa, Operation(kind, operand="tensor"), x, y)
    np.testing.assert_array_equal(found[~zero_times], wanted[~zero_times])
