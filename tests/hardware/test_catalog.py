from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ort_optim.errors import InputError
from ort_optim.hardware import detect, load_target, shipped_targets, to_json
from ort_optim.hardware.isa import llvm_cpu, vector_unit

REQUIRED = {
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v4",
    "cortex-a53",
    "cortex-a72",
    "neoverse-n1",
    "apple-m1",
}


def test_the_promised_targets_ship() -> None:
    assert set(shipped_targets()) >= REQUIRED


@pytest.mark.parametrize("name", shipped_targets())
def test_shipped_target_is_complete_and_consistent(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert len(target.source) > 40
    assert (target.vector_bits, target.vector_registers, target.fma) == vector_unit(
        target.arch, target.features
    )
    sizes = [cache.size_bytes for cache in target.caches]
    assert len(sizes) >= 2
    assert sizes == sorted(sizes)
    assert target.peak_gflops is None, "only a measurement gives a peak"
    assert target.warnings == ()


@pytest.mark.parametrize("name", [n for n in shipped_targets() if n.startswith("x86-64")])
def test_shipped_level_has_exactly_its_levels_features(name: str) -> None:
    target = load_target(name)
    assert llvm_cpu("x86_64", target.features) == name
    assert all(
        llvm_cpu("x86_64", target.features - {feature}) != name for feature in target.features
    )


def test_native_is_this_machine() -> None:
    assert replace(load_target("native"), warnings=()) == replace(detect(), warnings=())


def test_file_is_named_by_its_stem(tmp_path: Path) -> None:
    target = detect()
    path = tmp_path / "box.json"
    path.write_text(to_json(target))
    assert load_target(str(path)) == replace(target, name="box")


def test_a_file_is_never_native(tmp_path: Path) -> None:
    path = tmp_path / "native.json"
    path.write_text(to_json(detect()))
    assert load_target(str(path)).name == "facts"


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"x86-64-v5.*native.*cortex-a53"):
        load_target("x86-64-v5")


@pytest.mark.parametrize("spec", ["", "a\0b", "x" * 5000, "../targets"])
def test_odd_names_are_refused(spec: str) -> None:
    with pytest.raises(InputError) as caught:
        load_target(spec)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        load_target(str(tmp_path))
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (1 << 21))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        load_target(str(large))
    text = tmp_path / "text.json"
    text.write_text("no facts")
    with pytest.raises(InputError, match=r"text\.json: not JSON"):
        load_target(str(text))


def test_error_in_a_file_names_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_text(json.dumps(json.loads(to_json(detect())) | {"cores": -3}))
    with pytest.raises(InputError, match=r"box\.json: cores: must be a whole number"):
        load_target(str(path))
