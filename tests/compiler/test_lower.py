"""Plans of whole regions, run step by step, give what ONNX Runtime gives."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ort_optim.compiler.build import BuildError
from ort_optim.compiler.draft import Draft, finish
from ort_optim.compiler.layers import LayerGraph
from ort_optim.compiler.lower import Choice, lower
from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.templates import find_template
from tests.compiler.executor import GuardError
from tests.compiler.plain import Plain
from tests.compiler.regions import (
    Chooser,
    Net,
    all_blocked,
    check,
    draft_of,
    layers_of,
    plainly,
    plan_of,
    prefer,
    run_plan,
)
from tests.kernels.harness import AVX2, AVX512

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
BOTH = pytest.mark.parametrize("choose", [plainly, all_blocked], ids=["nchw", "blocked"])


def labels(draft: Draft) -> list[str]:
    """What each step does, without the names of nodes and tiles."""
    return [re.split(r"[ :]", step.label)[0] for step in draft.steps]


def block(net: Net, x: str, channels: int, width: int) -> str:
    """A residual block."""
    a = net.add("Relu", net.conv(x, channels, width))
    b = net.add("Relu", net.conv(a, width, width, 3))
    return net.add("Relu", net.add("Add", net.conv(b, width, channels), x))


@ISAS
def test_a_residual_block_with_the_real_templates(isa: Isa) -> None:
    net = Net()
    model = net.model(block(net, net.input(None, 32, None, None), 32, 16))
    choose = prefer("winograd_f43", "pointwise")
    plan = check(model, isa, choose, (2, 32, 13, 17))
    for shape in ((1, 32, 1, 1), (0, 32, 5, 5), (3, 32, 6, 40)):
        check(model, isa, choose, shape, plan=plan, threads=shape[0])


@ISAS
@BOTH
def test_a_net_with_two_scales(isa: Isa, choose: Chooser) -> None:
    net = Net()
    x = net.input(None, 3, None, None)
    a = net.add("Relu", net.conv(x, 3, 20, 3))
    b = net.add("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
    c = net.add("Relu", block(net, net.conv(b, 20, 24, 3), 24, 8))
    d = net.add("AveragePool", a, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0])
    e = net.conv(net.add("Concat", c, net.conv(d, 20, 16), axis=1), 40, 5, 3)
    squeezed = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", c), 24, 5))
    model = net.model(net.conv(net.add("Relu", e), 5, 4), squeezed, c)
    plan = check(model, isa, choose, (2, 3, 12, 14))
    check(model, isa, choose, (1, 3, 2, 6), plan=plan)


def test_borders_are_fused_where_nobody_else_needs_the_value_blocked() -> None:
    net = Net()
    x = net.input(1, 16, 8, 8)
    model = net.model(net.conv(net.conv(x, 16, 16), 16, 16))
    assert labels(draft_of(model, AVX512, plainly)) == ["Conv", "Conv"]
    assert labels(draft_of(model, AVX512, all_blocked)) == ["Import", "Conv", "Conv", "Export"]
    residual = net.model(net.add("Add", net.conv(x, 16, 16), x))
    assert labels(draft_of(residual, AVX512, plainly)) == ["Import", "Conv"]
    a = net.conv(x, 16, 16)
    both = net.model(a, net.conv(a, 16, 16))
    assert labels(draft_of(both, AVX512, plainly)) == ["Conv", "Export", "Conv"]


def test_halos_are_cleared_once_before_they_are_needed() -> None:
    net = Net()
    a = net.conv(net.input(1, 16, 8, 8), 16, 16)
    y = net.add("Add", net.conv(a, 16, 16, 3), net.conv(a, 16, 16, 5))
    draft = draft_of(net.model(y), AVX512, all_blocked)
    assert labels(draft) == ["Import", "ClearHalo", "Conv", "Conv", "Conv", "Export"]
    check(net.model(y), AVX512, all_blocked, (1, 16, 8, 8))


def test_an_input_converted_with_a_halo_needs_no_clearing() -> None:
    net = Net()
    model = net.model(net.conv(net.input(1, 16, 8, 8), 16, 16, 3))
    assert labels(draft_of(model, AVX512, all_blocked)) == ["Import", "Conv", "Export"]
    check(model, AVX512, all_blocked, (1, 16, 8, 8))


@ISAS
@pytest.mark.parametrize(("height", "width"), [(3, 512), (5, 300), (2, 1000)])
def test_a_residual_with_a_halo_makes_a_pointwise_border_go_row_by_row(
    isa: Isa, height: int, width: int
) -> None:
    net = Net()
    x = net.input(1, 32, height, width)
    a = net.conv(x, 32, 64)
    model = net.model(net.add("Add", net.conv(x, 32, 64), a), net.conv(a, 64, 64, 3))
    for threads in (1, 3):
        choose = prefer("pointwise", "direct")
        check(model, isa, choose, (1, 32, height, width), threads=threads)


@ISAS
def test_gates_that_are_one_number_per_image_and_channel(isa: Isa) -> None:
    net = Net()
    x, gate = net.input(None, 12, None, None), net.input(None, 12, 1, 1)
    model = net.model(net.add("Mul", gate, net.conv(x, 12, 12, 3)))
    check(model, isa, plainly, (3, 12, 5, 6), (3, 12, 1, 1))


UNARY: dict[str, dict[str, float | str]] = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {}, "Sigmoid": {}, "HardSigmoid": {},
    "HardSwish": {}, "Tanh": {}, "Mish": {}, "Softplus": {}, "Gelu": {}, "Erf": {}, "Exp": {},
    "Abs": {}, "Neg": {},
}  # fmt: skip


@ISAS
@pytest.mark.parametrize("fused", [True, False])
def test_functions(isa: Isa, fused: bool) -> None:
    net = Net(opset=20)
    x = net.input(None, 20, None, None)
    a = net.conv(x, 20, 20) if fused else x
    outputs = [net.add(op, a, **attributes) for op, attributes in UNARY.items()]
    low, high = net.constant(-0.5), net.constant(0.75)
    slopes, factors = net.weights(20, 1, 1), net.weights(1, 20, 1, 1)
    outputs += [
        net.add("Clip", a, low, high),
        net.add("Min", a, high),
        net.add("Max", a, low),
        net.add("PRelu", a, slopes),
        net.add("PRelu", a, high),
        net.add("Sub", low, a),
        net.add("Sub", a, low),
        net.add("Div", a, high),
        net.add("Mul", factors, a),
        net.add("Sub", slopes, a),
        net.add("Div", a, factors),
        net.add("Min", a, x),
        net.add("Max", a, x),
        net.add("Sub", a, x),
        net.add("Sqrt", net.add("Abs", a)),
    ]
    check(net.model(*outputs), isa, plainly, (2, 20, 3, 5), rtol=1e-5)


@ISAS
def test_sizes_that_change(isa: Isa) -> None:
    net = Net()
    x = net.input(None, 20, None, None)
    a = net.conv(x, 20, 20, 3)
    scales = net.constant(np.array([1, 1, 2, 1.5], np.float32))
    none = ""
    outputs = [
        net.add("Relu", net.add("Resize", a, none, scales)),
        net.add("Resize", a, none, scales, mode="linear"),
        net.add(
            "Resize", a, none, scales, mode="linear", coordinate_transformation_mode="align_corners"
        ),
        net.add("Pad", a, net.constant(np.array([0, 0, 1, 2, 0, 0, 3, 0])), mode="reflect"),
        net.add("Pad", a, net.constant(np.array([0, 0, 1, 2, 0, 0, 3, 0])), net.constant(2.5)),
    ]
    check(net.model(*outputs), isa, plainly, (2, 20, 6, 7))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_one_pixel_becomes_many(mode: str) -> None:
    net = Net()
    a = net.conv(net.add("GlobalAveragePool", net.input(1, 32, 5, 5)), 32, 32)
    scales = net.constant(np.array([1, 1, 33, 33], np.float32))
    pads = net.constant(np.array([0, 0, 20, 20, 0, 0, 20, 20]))
    wide = net.add("Resize", a, "", scales, mode=mode)
    padded = net.add("Pad", a, pads, mode="edge")
    check(net.model(wide, padded), AVX512, plainly, (1, 32, 5, 5), threads=4)


def test_a_chain_lives_in_two_slots() -> None:
    net = Net()
    y = net.input(1, 16, 8, 8)
    for _ in range(6):
        y = net.conv(y, 16, 16)
    assert len(plan_of(net.model(y), AVX512, all_blocked).slots) == 2


def test_weights_that_several_read_are_packed_once() -> None:
    net = Net()
    x, w = net.input(1, 16, 8, 8), net.weights(16, 16, 1, 1)
    y = net.add("Conv", net.add("Relu", net.add("Conv", x, w)), w)
    assert len(draft_of(net.model(y), AVX512, plainly).pack_steps) == 1


def test_inputs_of_other_sizes_are_refused() -> None:
    net = Net()
    a, b = net.input(None, 16, 8, None), net.input(None, 16, 8, None)
    model = net.model(net.add("Add", net.conv(a, 16, 16), b))
    plan = check(model, AVX512, plainly, (1, 16, 8, 5), (1, 16, 8, 5))
    for shapes in (((1, 16, 9, 5), (1, 16, 9, 5)), ((1, 16, 8, 5), (1, 16, 8, 6))):
        with pytest.raises(GuardError):
            run_plan(plan, model, *(np.zeros(s, np.float32) for s in shapes))


@pytest.mark.parametrize(
    ("template", "cout", "kernel", "group"),
    [
        ("pointwise", 8, 1, 1),
        ("direct", 8, 3, 1),
        ("winograd_f43", 16, 3, 1),
        ("winograd_f23", 16, 3, 1),
        ("depthwise", 20, 3, 20),
        ("direct", 20, 3, 5),
        ("direct", 20, 3, 4),
    ],
)
def test_what_stands_in_lanes_beyond_the_channels_changes_nothing(
    template: str, cout: int, kernel: int, group: int
) -> None:
    net = Net()
    a = net.conv(net.input(1, 4, 9, 9), 4, 20, bias=False)
    infinite = net.add("Div", net.constant(1.0), a)  # 1 / 0 beyond channel 20
    model = net.model(net.conv(infinite, 20, cout, kernel, group=group))
    check(model, AVX512, prefer(template), (1, 4, 9, 9), rtol=1e-3)


def graph_of_one() -> LayerGraph:
    net = Net()
    graph = layers_of(net.model(net.conv(net.input(1, 16, 8, 8), 16, 16, 3, strides=[2, 2])))
    assert isinstance(graph, LayerGraph)
    return graph


def test_labels_are_short_whatever_the_nodes_are_called() -> None:
    net = Net()
    y = net.add("Relu", net.conv(net.input(1, 16, 8, 8), 16, 16))
    net.nodes[0].name = "ü" * 400
    for step in draft_of(net.model(y), AVX512, plainly).steps:
        assert len(step.label.encode()) <= 255


def test_choices_that_do_not_fit_are_refused_with_the_reason() -> None:
    assert lower(graph_of_one(), [], AVX512) == "0 choices for 1 convolutions"
    winograd, direct = find_template("winograd_f43"), find_template("direct")
    assert winograd is not None
    assert direct is not None
    found = lower(graph_of_one(), [Choice(winograd, Tile())], AVX512)
    assert isinstance(found, str)
    assert found.startswith("Conv n0: winograd_f43")
    assert "stride" in found
    assert isinstance(lower(graph_of_one(), [Choice(direct, Tile((("mr", 999),)))], AVX512), str)


def test_a_kernel_without_code_is_the_reason_why_there_is_no_plan() -> None:
    draft = lower(graph_of_one(), [Choice(Plain(), Tile())], AVX512)
    assert isinstance(draft, Draft)
    code = {kernel: BuildError(kernel.name, "no memory") for kernel in draft.kernels}
    assert finish(draft, code) == f"{next(iter(draft.kernels)).name}: no memory"
