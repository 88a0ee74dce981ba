"""The cost model of ONNX Runtime's convolutions, beside times that were measured."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.hardware import Target, load_target
from ort_optim.hardware.target import Cache
from ort_optim.kernels.ort_cost import CALL_US, MATRIX_PRODUCT, estimate_us, method_of
from ort_optim.kernels.spec import ConvSpec

TIMES = Path(__file__).with_name("ort_conv_times.csv")

# The machine of the table, where independent FMAs in registers reach 247 GFLOP/s.
MEASURED_ON = Target(
    name="measured",
    arch="x86_64",
    triple="x86_64-unknown-linux-gnu",
    vector_bits=512,
    vector_registers=32,
    fma=True,
    caches=(Cache(1, 48 << 10), Cache(2, 1 << 20), Cache(3, 32 << 20, shared_by=2)),
    peak_gflops=247.0 * MATRIX_PRODUCT,
    core_bandwidth_gbs=36.4,
)

KINDS = {
    "blocked": ConvSpec(64, 48, (3, 3), pads=(1, 1, 1, 1)),
    "image": ConvSpec(3, 32, (3, 3), strides=(2, 2)),
    "narrow": ConvSpec(64, 8, (1, 1)),
    "depthwise": ConvSpec(32, 32, (5, 5), pads=(2, 2, 2, 2), group=32),
    "grouped": ConvSpec(40, 40, (3, 3), group=4),
    "transposed": ConvSpec(32, 16, (2, 2), strides=(2, 2), transposed=True),
}
LARGE = {"N": 1, "H": 30, "W": 40}


def measured() -> list[tuple[ConvSpec, float, float]]:
    """(spec, time of the convolution, time with the changes of layout), in microseconds."""
    rows = []
    with TIMES.open(newline="") as lines:
        for row in csv.DictReader(lines):
            number = {name: int(row[name]) for name in ("Cin", "Cout", "group", "N", "H", "W")}
            many = {
                name: tuple(map(int, row[name].split("x")))
                for name in ("strides", "dilations", "pads", "output_padding")
            }
            spec = ConvSpec(
                kernel=(int(row["KH"]), int(row["KW"])),
                transposed=row["transposed"] == "1",
                **number,
                **many,
            )
            rows.append((spec, float(row["conv_us"]), float(row["alone_us"])))
    return rows


def estimate(spec: ConvSpec, target: Target = MEASURED_ON, *, alone: bool = False) -> float:
    us = estimate_us(spec, target, alone=alone)
    assert us is not None
    return us


@pytest.mark.parametrize("alone", [False, True])
def test_every_measured_layer_is_within_a_factor_of_two(alone: bool) -> None:
    off = {}
    for spec, conv_us, alone_us in measured():
        ratio = estimate(spec, alone=alone) / (alone_us if alone else conv_us)
        if not 0.5 <= ratio <= 2:
            off[str(spec)] = ratio
    assert not off


def test_measured_layers_are_a_tenth_off_in_the_mean() -> None:
    logs = [abs(math.log(estimate(spec) / conv_us)) for spec, conv_us, _ in measured()]
    assert len(logs) > 400
    assert sum(logs) / len(logs) < math.log(1.1)


@given(
    st.sampled_from(sorted(KINDS)),
    st.fixed_dictionaries(
        {"N": st.integers(1, 4), "H": st.integers(5, 300), "W": st.integers(5, 300)}
    ),
    st.fixed_dictionaries(
        {"N": st.integers(0, 3), "H": st.integers(0, 99), "W": st.integers(0, 99)}
    ),
    st.booleans(),
)
def test_a_larger_image_never_takes_less(
    kind: str, sizes: dict[str, int], more: dict[str, int], alone: bool
) -> None:
    small = replace(KINDS[kind], **sizes)
    large = replace(small, **{name: size + more[name] for name, size in sizes.items()})
    assert estimate(small, alone=alone) <= estimate(large, alone=alone)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 20), st.integers(0, 20))
def test_more_blocks_of_channels_never_take_less(
    ins: int, outs: int, more_ins: int, more_outs: int
) -> None:
    small = ConvSpec(16 * ins, 16 * outs, (3, 3), N=1, H=28, W=28)
    large = replace(small, Cin=16 * (ins + more_ins), Cout=16 * (outs + more_outs))
    # The step from one block of outputs to two, where loads begin to hide, may cost nothing.
    assert estimate(small) * 0.7 <= estimate(large)
    if outs > 1:
        assert estimate(small) <= estimate(large)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["H", "W"])
def test_nothing_is_estimated_without_height_and_width(kind: str, size: str) -> None:
    spec = replace(KINDS[kind], **LARGE)
    assert estimate_us(replace(spec, **{size: None}), MEASURED_ON) is None


@pytest.mark.parametrize("kind", KINDS)
def test_of_an_open_batch_one_image_is_estimated(kind: str) -> None:
    spec = replace(KINDS[kind], **{**LARGE, "N": 1})
    assert estimate_us(replace(spec, N=None), MEASURED_ON) == estimate_us(spec, MEASURED_ON)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_costs_a_call(kind: str) -> None:
    spec = replace(KINDS[kind], **LARGE)
    weights_only = estimate(replace(spec, N=0)) - CALL_US
    assert 0 <= weights_only < 0.2 * estimate(spec)


@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_of_twice_the_speed_takes_half_the_time(kind: str) -> None:
    spec = replace(KINDS[kind], **LARGE)
    twice = replace(MEASURED_ON, peak_gflops=494.0 * MATRIX_PRODUCT, core_bandwidth_gbs=72.8)
    half = (estimate(spec) - CALL_US) / 2
    assert estimate(spec, twice) - CALL_US == pytest.approx(half)


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_layout_cost_where_there_is_a_blocked_layout(kind: str) -> None:
    spec = replace(KINDS[kind], **LARGE)
    if method_of(spec, 16) == "gemm":
        assert estimate(spec, alone=True) == estimate(spec)
    else:
        assert estimate(spec, alone=True) > estimate(spec) + CALL_US


@pytest.mark.parametrize(
    ("spec", "method"),
    [
        (ConvSpec(65, 64, (3, 3)), "gemm"),
        (ConvSpec(64, 65, (3, 3)), "blocked"),
        (ConvSpec(3, 5, (3, 3)), "blocked"),
        (ConvSpec(20, 20, (3, 3), group=20), "depthwise"),
        (ConvSpec(18, 18, (3, 3), group=18), "gemm"),
        (ConvSpec(16, 32, (3, 3), group=16), "gemm"),
        (ConvSpec(64, 32, (3, 3), group=2), "blocked"),
        (ConvSpec(64, 64, (3, 3), group=8), "gemm"),
        (ConvSpec(64, 64, (2, 2), transposed=True), "gemm"),
    ],
)
def test_the_method_is_the_one_that_profiles_show(spec: ConvSpec, method: str) -> None:
    assert method_of(spec, lanes=16) == method


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "cortex-a53", "apple-m1"])
def test_targets_without_measured_facts_get_an_estimate(name: str) -> None:
    spec = replace(KINDS["blocked"], **LARGE)
    assert estimate(spec, load_target(name)) > estimate(spec)
