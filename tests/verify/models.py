"""Small models for these tests, written in ONNX's textual form."""

from __future__ import annotations

import onnx
from onnx import ModelProto


def parse(graph: str, opset: int = 17, **imports: int) -> ModelProto:
    """A model around a graph in ONNX's textual syntax; `imports` are further domains."""
    more = "".join(f', "{domain}": {version}' for domain, version in imports.items())
    header = f'<ir_version: 8, opset_import: ["": {opset}{more}]>'
    return onnx.parser.parse_model(f"{header}\n{graph}")


def chain(relu: str = "Relu", scale: float = 2.0) -> ModelProto:
    """x -> Mul -> `relu` -> Add -> y, all tensors named."""
    return parse(
        f"""
        chain (float[2, 3] x) => (float[2, 3] y)
        <float s = {{{scale}}}, float c = {{1.0}}>
        {{
            a = Mul(x, s)
            b = {relu}(a)
            y = Add(b, c)
        }}
        """
    )
