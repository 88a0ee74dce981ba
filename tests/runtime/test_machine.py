from __future__ import annotations

from dataclasses import replace

import pytest

from ort_optim.hardware import load_target, shipped_targets
from ort_optim.kernels.isa import Isa
from ort_optim.runtime.machine import fingerprint, isa_of, layout_name

V3, V4 = load_target("x86-64-v3"), load_target("x86-64-v4")


def test_the_fingerprint_is_what_templates_are_chosen_by() -> None:
    assert fingerprint(V4).startswith("x86_64 512x32 fma")
    assert fingerprint(V3).startswith("x86_64 256x16 fma")
    assert "fma" not in fingerprint(replace(V4, fma=False))


@pytest.mark.parametrize(
    "change",
    [{"arch": "aarch64"}, {"vector_bits": 256}, {"vector_registers": 16}, {"fma": False}],
    ids=str,
)
def test_machines_that_differ_in_a_fact_have_other_fingerprints(change: dict[str, object]) -> None:
    assert fingerprint(replace(V4, **change)) != fingerprint(V4)  # type: ignore[arg-type]


def test_caches_of_the_first_two_levels_are_in_it() -> None:
    found = load_target("x86-64-v4")
    larger = tuple(replace(each, size_bytes=2 * each.size_bytes) for each in found.caches)
    if found.caches:
        assert fingerprint(replace(found, caches=larger)) != fingerprint(found)
    assert "L1=" not in fingerprint(replace(found, caches=()))


def test_memory_is_in_it_by_the_gigabyte() -> None:
    assert V4.memory_bytes is not None
    same = replace(V4, memory_bytes=V4.memory_bytes + 1)
    half = replace(V4, memory_bytes=V4.memory_bytes // 2)
    assert fingerprint(same) == fingerprint(V4)
    assert fingerprint(half) != fingerprint(V4)


def test_names_and_load_are_not_in_it() -> None:
    other = replace(V4, name="other", model="x", gpus=(), warnings=("w",))
    assert fingerprint(other) == fingerprint(V4)


@pytest.mark.parametrize("name", shipped_targets())
def test_every_shipped_target_has_a_vector_unit_or_a_reason(name: str) -> None:
    found = isa_of(load_target(name))
    if name in ("x86-64-v3", "x86-64-v4"):
        assert isinstance(found, Isa)
        assert layout_name(found) == f"nchw{found.lanes}c"
    else:
        assert isinstance(found, str)
        assert "no kernels for" in found


def test_a_processor_without_fused_multiplication_has_no_kernels() -> None:
    assert "neither AVX2 nor AVX-512" in str(isa_of(replace(V3, fma=False)))
    assert "neither AVX2 nor AVX-512" in str(isa_of(replace(V3, features=frozenset({"sse2"}))))
