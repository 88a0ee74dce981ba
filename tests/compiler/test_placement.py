"""Concats and slices: which are views, which are copied, and that all give what ORT gives."""

from __future__ import annotations

import numpy as np
import pytest

from ort_optim.compiler.plan import RegionPlan
from ort_optim.kernels.isa import Isa
from tests.compiler.regions import Net, check, plainly
from tests.kernels.harness import AVX2, AVX512

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
SHAPE = (2, 16, 5, 7)


def copies(plan: RegionPlan) -> int:
    """Steps that only move channels."""
    return sum("copy_channels" in step.label for step in plan.steps)


def branches(net: Net, x: str, *channels: int) -> list[str]:
    """One convolution of x for each."""
    return [net.conv(x, 16, each) for each in channels]


@ISAS
@pytest.mark.parametrize(
    ("channels", "copied"),
    [((16, 32), 0), ((32, 5), 0), ((5, 32), 1), ((16, 3, 16), 1), ((1, 1, 1), 2), ((7, 9, 16), 1)],
)
def test_only_parts_that_do_not_begin_a_vector_are_copied(
    isa: Isa, channels: tuple[int, ...], copied: int
) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    whole = net.add("Concat", *branches(net, x, *channels), axis=1)
    y = net.conv(whole, sum(channels), 8, 3)
    assert copies(check(net.model(y), isa, plainly, SHAPE)) == copied


@ISAS
def test_a_concat_that_goes_out_is_not_made(isa: Isa) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    a, b, c = branches(net, x, 3, 16, 5)
    inner = net.add("Concat", a, b, axis=1)
    model = net.model(net.add("Concat", inner, c, axis=-3))
    plan = check(model, isa, plainly, SHAPE)
    assert copies(plan) == 0
    assert sum("ConvExport" in step.label for step in plan.steps) == 0
    assert len(plan.slots) <= 2


@ISAS
def test_a_value_may_stand_in_a_concat_twice_and_go_out_too(isa: Isa) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    (a,) = branches(net, x, 16)
    whole = net.add("Concat", a, a, axis=1)
    y = net.conv(whole, 32, 8, 3)
    assert copies(check(net.model(y, a, whole), isa, plainly, SHAPE)) == 1


@ISAS
@pytest.mark.parametrize("growth", [16, 12])
@pytest.mark.parametrize("nested", [False, True])
def test_a_chain_of_growing_concats_shares_memory(isa: Isa, growth: int, nested: bool) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    (first,) = branches(net, x, growth)
    parts, whole = [first], first
    for i in range(3):
        parts.append(net.conv(whole, growth * (i + 1), growth, 3))
        whole = net.add("Concat", *([whole, parts[-1]] if nested else parts), axis=1)
    plan = check(net.model(net.conv(whole, growth * 4, 8)), isa, plainly, SHAPE)
    if growth % isa.lanes == 0:
        assert copies(plan) == 0


@ISAS
def test_aligned_slices_are_views(isa: Isa) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    (a,) = branches(net, x, 48)
    net.add("Split", a, net_ints(net, 16, 32), axis=1, outputs=2)
    low, high = "t1", "t1_1"
    y = net.add("Concat", low, high, net.conv(high, 32, 16, 3), axis=1)
    model = net.model(net.conv(y, 64, 8, 3))
    assert copies(check(model, isa, plainly, SHAPE)) == 0


@ISAS
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (16, 40), (3, 20), (33, 48), (-7, 1000)])
def test_slices(isa: Isa, start: int, stop: int) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    (a,) = branches(net, x, 48)
    cut = net.add("Slice", a, *(net_ints(net, each) for each in (start, stop, 1)))
    channels = len(range(48)[start:stop])
    model = net.model(net.conv(cut, channels, 8, 3), cut)
    assert copies(check(model, isa, plainly, SHAPE)) == (start % 48 % isa.lanes != 0)


@ISAS
def test_inputs_of_the_region_may_be_concatenated_and_sliced(isa: Isa) -> None:
    net = Net()
    x, z = net.input(None, 16, None, None), net.input(None, 24, None, None)
    whole = net.add("Concat", x, z, axis=1)
    net.add("Split", z, net_ints(net, 16, 8), axis=1, outputs=2)
    a = net.conv(whole, 40, 16, 3)
    b = net.add("Add", a, "t1")
    y = net.conv(net.add("Concat", b, "t1_1", axis=1), 24, 8, 3)
    check(net.model(y), isa, plainly, SHAPE, (2, 24, 5, 7))


def net_ints(net: Net, *numbers: int) -> str:
    """A constant list of integers."""
    import numpy as np

    return net.constant(np.array(numbers, np.int64))


def widened(net: Net, x: str, channels: int, *spatial: int) -> str:
    """x with so many channels of zeros behind it, and rows and columns around it."""
    top, left, bottom, right = spatial or (0, 0, 0, 0)
    pads = np.array([0, 0, top, left, 0, channels, bottom, right])
    return net.add("Pad", x, net.constant(pads))


@ISAS
@pytest.mark.parametrize(("C", "more"), [(16, 16), (16, 3), (12, 4), (5, 30), (20, 1), (7, 8)])
def test_what_is_widened_is_made_in_the_wider_memory(isa: Isa, C: int, more: int) -> None:  # noqa: N803
    net = Net()
    x = net.input(None, 16, None, None)
    # Behind the last channel there is 0.5 then, and not zero.
    a = net.add("Sigmoid", net.conv(x, 16, C))
    b = net.conv(a, C, C + more, 3)
    y = net.conv(net.add("Add", b, widened(net, a, more)), C + more, 8, 3)
    plan = check(net.model(y), isa, plainly, SHAPE)
    assert copies(plan) == 0
    assert sum("clear_channels" in step.label for step in plan.steps) == 1


@ISAS
@pytest.mark.parametrize("more", [2, 20])
def test_what_lies_elsewhere_is_copied_where_it_is_widened(isa: Isa, more: int) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    a, b = (net.add("Sigmoid", each) for each in branches(net, x, 13, 16))
    whole = net.conv(net.add("Concat", b, a, axis=1), 29, 8)
    y = net.conv(widened(net, a, more), 13 + more, 8, 3)
    plan = check(net.model(whole, y), isa, plainly, SHAPE)
    assert copies(plan) >= 1


@ISAS
def test_an_input_is_widened_and_goes_out_and_rows_are_added(isa: Isa) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    a = widened(net, x, 9)
    b = widened(net, net.conv(a, 25, 20, 3), 14, 1, 2, 0, 3)
    twice = widened(net, widened(net, b, 1), 2)
    check(net.model(a, net.conv(twice, 37, 8, 3), b), isa, plainly, SHAPE)


@ISAS
@pytest.mark.parametrize(("C", "groups"), [(32, 2), (58, 2), (116, 2), (12, 4), (96, 3), (64, 64)])
def test_a_shuffle_of_channels(isa: Isa, C: int, groups: int) -> None:  # noqa: N803
    net = Net()
    x = net.input(None, 16, None, None)
    order = np.arange(C).reshape(groups, -1).T.reshape(-1)
    a = net.add("Gather", net.conv(x, 16, C), net.constant(order), axis=1)
    check(net.model(net.conv(a, C, 8, 3)), isa, plainly, SHAPE)


@ISAS
def test_a_slice_of_channels_that_were_picked_picks_them_itself(isa: Isa) -> None:
    net = Net()
    x = net.input(None, 16, None, None)
    order = np.arange(58).reshape(2, 29).T.reshape(-1)
    a = net.add("Gather", net.conv(x, 16, 58), net.constant(order), axis=1)
    starts = [net.constant(np.array([start])) for start in (0, 29, 58, 1)]
    low = net.add("Slice", a, starts[0], starts[1], starts[3])
    high = net.add("Slice", a, starts[1], starts[2], starts[3])
    plan = check(net.model(net.conv(low, 29, 8), net.conv(high, 29, 8, 3)), isa, plainly, SHAPE)
    assert copies(plan) == 0
    assert sum("pick_29" in step.label for step in plan.steps) == 2
