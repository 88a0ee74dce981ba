"""The rule, on templates that stand in for the real ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import pytest

from ort_optim.hardware import load_target
from ort_optim.kernels.base import ConvTemplate, Demand, Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.rule import ALTERNATIVES, FIRST_CHOICES, Resources, choose
from ort_optim.kernels.spec import ConvSpec

ISA = Isa.of(load_target("x86-64-v4"))
AMPLE = Resources(registers=32, l1_bytes=49152, l2_bytes=1 << 20, packed_bytes=1 << 30, cores=2)
MODEST = Demand(registers=31, l1_bytes=1000, l2_bytes=1000, packed_bytes=1000, tasks=1)
CONV = ConvSpec(64, 64, (3, 3), pads=(1, 1, 1, 1), N=1, H=56, W=56)


@dataclass
class Fake:
    """A template with fixed tiles and demands."""

    name: str
    demands: tuple[Demand, ...] = (MODEST,)
    refusal: str | None = None
    error_class: int = 0

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        return self.refusal

    def tiles(self, conv: ConvSpec, isa: Isa) -> list[Tile]:
        return [Tile((("t", i),)) for i in range(len(self.demands))]

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        return self.demands[tile["t"]]


def templates(**changes: Fake) -> list[ConvTemplate]:
    names = ("winograd_f43", "winograd_f23", "direct", "pointwise", "depthwise", "first_layer")
    return [cast(ConvTemplate, changes.get(name, Fake(name))) for name in names]


@pytest.mark.parametrize(
    ("conv", "template"),
    [
        (CONV, "winograd_f43"),
        (replace(CONV, H=None, W=None), "winograd_f43"),
        (replace(CONV, H=2, W=2), "direct"),
        (replace(CONV, H=8, W=8), "winograd_f43"),
        (replace(CONV, Cout=128, H=8, W=8), "winograd_f23"),
        (replace(CONV, Cout=128, N=None, H=8, W=8), "winograd_f23"),
        (replace(CONV, Cout=128, N=2, H=8, W=8), "winograd_f43"),
        (replace(CONV, Cout=128, H=None, W=8), "winograd_f43"),
        (replace(CONV, strides=(2, 2)), "direct"),
        (replace(CONV, dilations=(2, 2)), "direct"),
        (replace(CONV, group=2), "direct"),
        (replace(CONV, group=64), "depthwise"),
        (replace(CONV, Cin=3), "first_layer"),
        (replace(CONV, Cin=8, Cout=4), "direct"),
        (replace(CONV, Cin=8, Cout=5), "winograd_f43"),
        (replace(CONV, Cin=7, Cout=4), "winograd_f43"),
        (replace(CONV, kernel=(1, 1), pads=(0, 0, 0, 0)), "pointwise"),
        (replace(CONV, transposed=True), "direct"),
    ],
)
def test_the_class_of_a_layer_names_its_first_choice(conv: ConvSpec, template: str) -> None:
    choice = choose(conv, AMPLE, ISA, templates())
    assert choice.template == template
    assert [each.template for each in choice.weighed] == [template]


@pytest.mark.parametrize("fact", ["registers", "l1_bytes", "l2_bytes", "packed_bytes", "cores"])
def test_a_fact_that_is_missing_is_not_met(fact: str) -> None:
    choice = choose(CONV, replace(AMPLE, **{fact: None}), ISA, templates())
    assert choice.template is None
    assert "not known" in choice.reason


@pytest.mark.parametrize(
    ("demand", "what"),
    [
        (replace(MODEST, registers=33), "vector registers"),
        (replace(MODEST, l1_bytes=49153), "bytes of L1"),
        (replace(MODEST, l2_bytes=(1 << 20) + 1), "bytes of L2"),
        (replace(MODEST, packed_bytes=(1 << 30) + 1), "packed weights"),
    ],
)
def test_an_unmet_demand_gives_the_template_of_the_table(demand: Demand, what: str) -> None:
    greedy = Fake("winograd_f43", (demand,))
    choice = choose(CONV, AMPLE, ISA, templates(winograd_f43=greedy))
    assert choice.template == "winograd_f23"
    refusal = choice.weighed[0].refusal
    assert refusal is not None
    assert what in refusal


def test_the_next_tile_is_tried_before_the_next_template() -> None:
    greedy = Fake("winograd_f43", (replace(MODEST, l2_bytes=1 << 30), MODEST))
    choice = choose(CONV, AMPLE, ISA, templates(winograd_f43=greedy))
    assert choice.template == "winograd_f43"
    assert choice.tile == Tile((("t", 1),))


@pytest.mark.parametrize("channels", [1, 15, 16, 1023, 1024, 4096])
def test_the_alternative_is_never_the_first_choice(channels: int) -> None:
    for kernel, pads in (((3, 3), (1, 1, 1, 1)), ((1, 1), (0, 0, 0, 0)), ((5, 5), (2, 2, 2, 2))):
        conv = ConvSpec(64, channels, kernel, pads=pads, N=1, H=28, W=28)
        unmet = [Fake(each.name, (replace(MODEST, registers=99),)) for each in templates()]
        weighed = choose(conv, AMPLE, ISA, cast(list[ConvTemplate], unmet)).weighed
        names = [each.template for each in weighed]
        assert len(names) == 2
        assert names[0] != names[1]


def test_where_no_demand_is_met_the_layer_stays_and_the_reason_names_both() -> None:
    unmet = [Fake(each.name, (replace(MODEST, registers=99),)) for each in templates()]
    choice = choose(CONV, AMPLE, ISA, cast(list[ConvTemplate], unmet))
    assert choice.template is None
    assert "winograd_f43: 99 vector registers" in choice.reason
    assert "winograd_f23: 99 vector registers" in choice.reason


def test_a_template_less_exact_than_what_was_verified_is_not_taken() -> None:
    fakes = templates(
        winograd_f43=Fake("winograd_f43", error_class=2),
        winograd_f23=Fake("winograd_f23", error_class=1),
    )
    assert choose(CONV, AMPLE, ISA, fakes, worst_error_class=1).template == "winograd_f23"
    assert choose(CONV, AMPLE, ISA, fakes, worst_error_class=0).template == "direct"


def test_each_row_of_the_tables_gives_its_reason() -> None:
    assert all(each.reason for each in (*FIRST_CHOICES, *ALTERNATIVES))
    assert ALTERNATIVES[-1].Cout_below is None
