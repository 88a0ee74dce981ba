"""Our cost model and the veto, against times of one machine and on made-up layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ort_optim.hardware import Target, load_target
from ort_optim.hardware.target import Cache
from ort_optim.kernels import our_cost
from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.ort_cost import MATRIX_PRODUCT
from ort_optim.kernels.rule import Resources, choose
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES, find_template
from ort_optim.kernels.veto import (
    Border,
    Layer,
    alone,
    export_share,
    layer_veto,
    reads_nchw,
    region_veto,
)

MACHINE = replace(
    load_target("x86-64-v4"),
    name="measured",
    caches=(Cache(1, 48 << 10), Cache(2, 1 << 20), Cache(3, 32 << 20, shared_by=2)),
    memory_bytes=8 << 30,
    peak_gflops=247.0 * MATRIX_PRODUCT,
    core_bandwidth_gbs=36.4,
)
ISA = Isa.of(MACHINE)
ONES = (1, 1, 1, 1)
CONV = ConvSpec(64, 64, (3, 3), pads=ONES, N=1, H=56, W=56)
IMAGE = ConvSpec(3, 3, (3, 3), pads=ONES, N=1, H=56, W=56)
"""Of whose channels Winograd transforms five times as many for nothing."""


def layer(spec: ConvSpec, template: str | None = None) -> Layer:
    """By the rule, or with the first tile of a template."""
    if template is None:
        choice = choose(spec, Resources.of(MACHINE), ISA, TEMPLATES)
        assert choice.template is not None
        assert choice.tile is not None
        return Layer(spec, choice.template, choice.tile)
    found = find_template(template)
    assert found is not None
    return Layer(spec, template, next(iter(found.tiles(spec, ISA))))


def ours(spec: ConvSpec, template: str, target: Target = MACHINE) -> float:
    each = layer(spec, template)
    us = our_cost.estimate_us(each.spec, each.template, each.tile, target)
    assert us is not None
    return us


# One layer of a chain of four, in microseconds: Zen 5, one core, AVX-512.
TIMES = [
    ("winograd_f43", replace(CONV, H=28, W=28), 81),
    ("winograd_f43", ConvSpec(8, 8, (3, 3), pads=ONES, N=1, H=128, W=128), 180),
    ("winograd_f43", ConvSpec(224, 224, (3, 3), pads=ONES, N=1, H=7, W=7), 248),
    ("winograd_f23", ConvSpec(128, 128, (3, 3), pads=ONES, N=1, H=8, W=8), 62),
    ("winograd_f23", replace(CONV, H=28, W=28), 132),
    ("direct", replace(CONV, H=28, W=28), 246),
    ("direct", ConvSpec(8, 12, (3, 3), pads=ONES, N=1, H=60, W=80), 73),
    ("pointwise", ConvSpec(128, 128, (1, 1), N=1, H=13, W=13), 24),
    ("pointwise", ConvSpec(16, 16, (1, 1), N=1, H=104, W=104), 34),
    ("pointwise", ConvSpec(1024, 1000, (1, 1), N=1, H=1, W=1), 59),
    ("depthwise", ConvSpec(64, 64, (3, 3), pads=ONES, group=64, N=1, H=26, W=26), 6.6),
    ("direct", ConvSpec(256, 512, (5, 1), N=1, H=512, W=1), 8464),
    ("direct", ConvSpec(256, 512, (5, 1), N=1, H=170, W=3), 3337),
]


@pytest.mark.parametrize(("template", "spec", "us"), TIMES, ids=lambda each: str(each))
def test_estimates_are_near_the_times(template: str, spec: ConvSpec, us: float) -> None:
    assert ours(spec, template) == pytest.approx(us, rel=0.25)


@pytest.mark.parametrize("template", [each.name for each in TEMPLATES])
def test_every_template_has_an_estimate_that_grows_with_the_image(template: str) -> None:
    found = find_template(template)
    assert found is not None
    specs = (CONV, replace(CONV, group=64), replace(CONV, Cin=3), ConvSpec(64, 64, (1, 1)))
    spec = next(each for each in specs if found.supports(each, ISA) is None)
    sizes = [replace(spec, N=1, H=size, W=size) for size in (1, 8, 64)]
    small, medium, large = (ours(each, template) for each in sizes)
    assert 0 < small <= medium < large
    twice = ours(replace(sizes[2], N=2), template)
    assert large < twice <= 2.01 * large


def test_of_an_open_batch_one_image_is_judged() -> None:
    one, some = (layer(replace(IMAGE, N=count), "winograd_f43") for count in (1, None))
    assert ours(some.spec, "winograd_f43") == ours(one.spec, "winograd_f43")
    assert layer_veto(some, MACHINE) == layer_veto(one, MACHINE)
    borders = [Border(None, 3, 9), Border(1, 3, 9)]
    assert borders[0].us(MACHINE) == borders[1].us(MACHINE)
    assert region_veto([some], alone(some, ISA), MACHINE) is not None


@pytest.mark.parametrize("missing", ["H", "W"])
def test_without_a_size_there_is_no_estimate_and_no_veto(missing: str) -> None:
    spec = replace(CONV, **{missing: None})
    each = layer(spec, "direct")
    assert our_cost.estimate_us(spec, "direct", each.tile, MACHINE) is None
    assert layer_veto(each, MACHINE) is None
    assert region_veto([each], alone(each, ISA), MACHINE) is None


def test_a_template_that_is_not_known_has_no_estimate() -> None:
    assert our_cost.estimate_us(CONV, "none", Tile(), MACHINE) is None


@pytest.mark.parametrize(
    "spec",
    [
        CONV,
        ConvSpec(512, 512, (3, 3), pads=ONES, N=1, H=7, W=7),
        ConvSpec(64, 64, (3, 3), pads=ONES, group=64, N=1, H=52, W=52),
        ConvSpec(16, 3, (3, 3), pads=ONES, N=1, H=240, W=320),
        ConvSpec(65, 64, (3, 3), pads=ONES, N=1, H=28, W=28),
    ],
    ids=str,
)
def test_what_we_do_better_is_ours_even_alone(spec: ConvSpec) -> None:
    each = layer(spec)
    assert layer_veto(each, MACHINE) is None
    assert region_veto([each], alone(each, ISA), MACHINE) is None


def test_what_onnx_runtime_does_better_is_left_to_it_with_both_times() -> None:
    slow = layer(IMAGE, "winograd_f43")
    reason = region_veto([slow], alone(slow, ISA), MACHINE)
    assert reason is not None
    assert "winograd_f43" in reason
    assert "ONNX Runtime" in reason


def test_a_layer_inside_has_changes_of_layout_in_its_favour() -> None:
    """Cutting a region in two costs two of them and makes ONNX Runtime do two more."""
    slower = layer(IMAGE, "winograd_f43")
    assert region_veto([slower], [], MACHINE) is not None
    assert layer_veto(slower, MACHINE) is None
    one_pixel = layer(replace(CONV, Cin=256, Cout=256, H=1, W=1), "winograd_f43")
    reason = layer_veto(one_pixel, MACHINE)
    assert reason is not None
    assert "changes of layout" in reason


def test_one_slow_layer_does_not_condemn_a_region() -> None:
    slow = layer(IMAGE, "winograd_f43")
    fast = layer(replace(CONV, Cin=256, Cout=256))
    assert region_veto([slow], alone(slow, ISA), MACHINE) is not None
    assert region_veto([slow, fast], [], MACHINE) is None


def test_borders_that_we_alone_pay_for_can_make_a_region_not_pay() -> None:
    each = layer(ConvSpec(64, 64, (1, 1), N=1, H=28, W=28))
    assert region_veto([each], [], MACHINE) is None
    border = Border(1, 64, 28 * 28, ours=1.0, theirs=False)
    assert region_veto([each], [border] * 4, MACHINE) is not None
    assert region_veto([each], [replace(border, theirs=True)] * 4, MACHINE) is None


def test_a_border_of_unknown_size_stops_the_veto() -> None:
    slow = layer(IMAGE, "winograd_f43")
    assert region_veto([slow], [Border(1, 3, None)], MACHINE) is None


def test_who_reads_and_writes_what_onnx_runtime_holds() -> None:
    image = layer(ConvSpec(3, 16, (3, 3), pads=ONES, N=1, H=32, W=32))
    assert reads_nchw(image, ISA)
    assert export_share(image, ISA) == 0.0
    assert 0.0 < export_share(layer(replace(image.spec, Cout=32)), ISA) < 1.0
    assert export_share(layer(CONV), ISA) == 1.0
    assert not reads_nchw(layer(CONV), ISA)


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
def test_targets_without_measured_facts_get_verdicts(name: str) -> None:
    target = load_target(name)
    found = find_template("direct")
    assert found is not None
    tile = next(iter(found.tiles(CONV, Isa.of(target))))
    assert our_cost.estimate_us(CONV, "direct", tile, target) is not None
    assert layer_veto(Layer(CONV, "direct", tile), target) is None
