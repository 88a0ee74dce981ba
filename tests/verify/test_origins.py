from __future__ import annotations

import onnx
from onnx import TensorProto

from ort_optim.verify.origins import Origin, trace_origins
from tests.verify.models import parse


def test_random_ops_reach_only_what_is_downstream() -> None:
    origins = trace_origins(
        parse(
            """
            g (float[2] x) => (float[2] noisy, float[2] clean)
            {
                r = RandomNormalLike(x)
                noisy = Add(x, r)
                clean = Mul(x, x)
            }
            """
        )
    )
    assert origins["noisy"].random
    assert origins["clean"] == Origin()


def test_random_ops_are_found_in_unsorted_graphs() -> None:
    model = parse(
        """
        g (float[2] x) => (float[2] y)
        { r = RandomNormalLike(x)  a = Add(x, r)  y = Relu(a) }
        """
    )
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert trace_origins(model)["y"].random


def test_random_ops_are_found_in_branches_and_captures() -> None:
    model = parse(
        """
        g (bool c, float[2] x) => (float[2] inside, float[2] captured)
        {
            r = RandomNormalLike(x)
            inside = If(c) <
                then_branch = t () => (float[2] a) { a = RandomNormalLike(x) },
                else_branch = e () => (float[2] b) { b = Identity(x) }
            >
            captured = If(c) <
                then_branch = t2 () => (float[2] a2) { a2 = Identity(r) },
                else_branch = e2 () => (float[2] b2) { b2 = Identity(x) }
            >
        }
        """
    )
    origins = trace_origins(model)
    assert origins["inside"].random
    assert origins["captured"].random


def test_random_ops_are_found_in_functions() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.noise(x) }
        <domain: "local", opset_import: ["": 17]>
        noise (a) => (b) { r = RandomNormalLike(a)  b = Add(a, r) }
        """
    )
    assert trace_origins(model)["y"].random


def test_dropout_is_random_only_in_training() -> None:
    template = """
        g (float[2] x) => (float[2] y)
        <float ratio = {{0.5}}, bool training = {{{flag}}}>
        {{ y = Dropout(x, ratio, training) }}
    """
    assert trace_origins(parse(template.format(flag=1)))["y"].random
    assert not trace_origins(parse(template.format(flag=0)))["y"].random


def test_coarse_types_inside_the_model_are_noticed() -> None:
    origins = trace_origins(
        parse(
            """
            g (float[2] x) => (float[2] y, float[2] z)
            {
                h = Cast<to = 10>(x)
                s = Mul(h, h)
                y = Cast<to = 1>(s)
                z = Mul(x, x)
            }
            """
        )
    )
    assert origins["y"].epsilon == 2.0**-10
    assert origins["z"].epsilon == 0
    assert TensorProto.FLOAT16 == 10


def test_jumps_and_quantization_are_noticed() -> None:
    origins = trace_origins(
        parse(
            """
            g (float[2, 3] x) => (int64[2, 1] best, float[2, 3] q)
            <float s = {0.1}, uint8 z = {128}>
            {
                best = ArgMax<axis = 1>(x)
                u = QuantizeLinear(x, s, z)
                q = DequantizeLinear(u, s, z)
            }
            """
        )
    )
    assert origins["best"].jumps
    assert origins["q"].quantized
    assert not origins["q"].jumps
