"""Multiply-accumulates of one node, from the shapes of its inputs and outputs.

Macs       a count that may hold symbolic dimensions: a polynomial, such as 118 M x N
node_macs  the rule of the node's op in RULES; None where there is no rule or a shape is unknown

Letters: N batch, Cin Cout channels, g group, k kernel extents, M K N of a matrix product.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto, helper

Dim = int | str | None
"""A known size, a symbol, or unknown."""
Shape = tuple[Dim, ...]
UNKNOWN = "?"
"""The symbol of a dimension that has no name."""

Rule = Callable[["Call"], "Macs | None"]


@dataclass(frozen=True)
class Macs:
    """Sum of terms; each is a coefficient and the symbols that it is multiplied by, sorted."""

    terms: tuple[tuple[tuple[str, ...], int], ...] = ()

    @classmethod
    def product(cls, *factors: Dim) -> Macs:
        """One term: the product of sizes and symbols."""
        coefficient = math.prod(factor for factor in factors if isinstance(factor, int))
        symbols = sorted(factor or UNKNOWN for factor in factors if not isinstance(factor, int))
        return cls(((tuple(symbols), coefficient),)) if coefficient else cls()

    @classmethod
    def total(cls, parts: Iterable[Macs]) -> Macs:
        """The sum; terms of the same symbols are put together, the largest term first."""
        terms: Counter[tuple[str, ...]] = Counter()
        for part in parts:
            terms.update(dict(part.terms))
        return cls(tuple(sorted(terms.items(), key=lambda term: (-term[1], term[0]))))

    def times(self, symbol: str) -> Macs:
        """Every term multiplied by one more symbol."""
        return Macs(tuple((tuple(sorted((*s, symbol))), c) for s, c in self.terms))

    @property
    def at_one(self) -> int:
        """The value with each symbol set to 1, for sorting and shares."""
        return sum(coefficient for _, coefficient in self.terms)

    @property
    def symbols(self) -> frozenset[str]:
        """All symbols in the terms."""
        return frozenset(symbol for symbols, _ in self.terms for symbol in symbols)


@dataclass(frozen=True)
class Call:
    """A node with the shapes of its inputs and outputs; None where the shape is unknown."""

    node: NodeProto
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape | None]

    def input(self, index: int) -> Shape | None:
        """Shape of an input; None also where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def output(self) -> Shape | None:
        """Shape of the first output."""
        return self.outputs[0] if self.outputs else None

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute, or `default`."""
        for attribute in self.node.attribute:
            if attribute.name == name and not attribute.ref_attr_name:
                return helper.get_attribute_value(attribute)
        return default


def node_macs(
    node: NodeProto, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None]
) -> Macs | None:
    """Multiply-accumulates of the node; None for an op without a rule or with unknown shapes."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    rule = RULES.get((domain, node.op_type))
    return rule(Call(node, inputs, outputs)) if rule else None


def _convolution(weight: int) -> Rule:
    """Each output element sums over (Cin/g, k...); the weight is (Cout, Cin/g, k...)."""

    def macs(call: Call) -> Macs | None:
        output, kernel = call.output, call.input(weight)
        return None if not output or not kernel else Macs.product(*output, *kernel[1:])

    return macs


def _conv_transpose(call: Call) -> Macs | None:
    """Each input element goes to (Cout/g, k...) outputs; the weight is (Cin, Cout/g, k...)."""
    source, kernel = call.input(0), call.input(1)
    return None if not source or not kernel else Macs.product(*source, *kernel[1:])


def _matmul(right: int) -> Rule:
    """Each output element sums over K, the last dimension of the left operand.

    Where the output is unknown and the right operand is a plain matrix (K, N), each element of the
    left one is used N times.
    """

    def macs(call: Call) -> Macs | None:
        a, b = call.input(0), call.input(right)
        if not a:
            return None
        turned = call.attribute("transA", 0) and len(a) > 1
        if call.output is not None:
            return Macs.product(*call.output, a[-2] if turned else a[-1])
        if b is not None and len(b) == 2 and not call.attribute("transB", 0):
            return Macs.product(*a, b[1])
        return None

    return macs


def _einsum(call: Call) -> Macs | None:
    """Two operands without an ellipsis: the product of the sizes of all letters."""
    equation = call.attribute("equation", b"").decode(errors="replace").replace(" ", "")
    operands = equation.partition("->")[0].split(",")
    if len(operands) != 2 or "." in equation:
        return None
    sizes: dict[str, Dim] = {}
    for letters, shape in zip(operands, (call.input(0), call.input(1)), strict=True):
        if shape is None or len(shape) != len(letters):
            return None
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = _broadcast(sizes.get(letter, 1), size)
    return Macs.product(*sizes.values())


def _broadcast(a: Dim, b: Dim) -> Dim:
    """The size of two dimensions that are the same but for one that may be 1."""
    if a == 1 or b == 1:
        return b if a == 1 else a
    return a if isinstance(a, int) else b


def _recurrent(call: Call) -> Macs | None:
    """Each step of each sequence multiplies by W and R once; X is (T, N, I) or (N, T, I)."""
    x, w, r = call.input(0), call.input(1), call.input(2)
    if x is None or len(x) != 3 or w is None or r is None:
        return None
    return Macs.total(Macs.product(x[0], x[1], *weight) for weight in (w, r))


def _attention(call: Call) -> Macs | None:
    """Q K' and the product with V; Q is (N, heads, S, D) or (N, S, heads D), K and V likewise.

    Past keys and values are inputs of their own and lengthen K and V: then the length is unknown.
    """
    q, k, v = call.input(0), call.input(1), call.input(2)
    if q is None or k is None or v is None or call.input(4) or call.input(5):
        return None
    if len(q) == len(k) == len(v) == 4:
        return Macs.total(Macs.product(*q[:3], k[2], depth) for depth in (q[3], v[3]))
    heads = call.attribute("q_num_heads", 0), call.attribute("kv_num_heads", 0)
    if len(q) == len(k) == len(v) == 3 and heads[0] == heads[1]:
        return Macs.total(Macs.product(q[0], q[1], k[1], depth) for depth in (q[2], v[2]))
    return None


def _multi_head_attention(call: Call) -> Macs | None:
    """As `_attention`, for unpacked (N, S, H) operands without past."""
    q, k, v = call.input(0), call.input(1), call.input(2)
    if q is None or k is None or v is None or call.input(6):
        return None
    if not len(q) == len(k) == len(v) == 3:
        return None
    return Macs.total(Macs.product(q[0], q[1], k[1], depth) for depth in (q[2], v[2]))


def _packed_attention(call: Call) -> Macs | None:
    """com.microsoft.Attention without past: (N, S, I) by (I, 3 H), then attention over S."""
    x, w = call.input(0), call.input(1)
    if x is None or len(x) != 3 or w is None or len(w) != 2 or call.input(4):
        return None
    hidden = w[1] // 3 if isinstance(w[1], int) else w[1]
    return Macs.total(
        (Macs.product(*x, w[1]), Macs.product(2, x[0], x[1], x[1], hidden)),
    )


MS = "com.microsoft"
RULES: Mapping[tuple[str, str], Rule] = {
    ("", "Conv"): _convolution(1),
    ("", "ConvInteger"): _convolution(1),
    ("", "QLinearConv"): _convolution(3),
    ("", "DeformConv"): _convolution(1),
    (MS, "FusedConv"): _convolution(1),
    (MS, "NhwcFusedConv"): _convolution(1),
    (MS, "QLinearConv"): _convolution(3),
    ("", "ConvTranspose"): _conv_transpose,
    ("", "Gemm"): _matmul(1),
    (MS, "FusedGemm"): _matmul(1),
    (MS, "QGemm"): _matmul(3),
    ("", "MatMul"): _matmul(1),
    ("", "MatMulInteger"): _matmul(1),
    ("", "QLinearMatMul"): _matmul(3),
    (MS, "FusedMatMul"): _matmul(1),
    (MS, "MatMulIntegerToFloat"): _matmul(1),
    (MS, "DynamicQuantizeMatMul"): _matmul(1),
    ("", "Einsum"): _einsum,
    ("", "RNN"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "LSTM"): _recurrent,
    (MS, "DynamicQuantizeLSTM"): _recurrent,
    ("", "Attention"): _attention,
    (MS, "MultiHeadAttention"): _multi_head_attention,
    (MS, "Attention"): _packed_attention,
}
