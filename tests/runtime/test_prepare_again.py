"""A second start: plans come from the cache as they are, and are made anew where they don't fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import ModelProto

from ort_optim.compiler.cache import PLAN_SUFFIX, SUFFIX, CodeCache
from ort_optim.runtime import prepare as module
from ort_optim.runtime.prepare import Prepared, prepare
from tests.runtime.networks import chain, machine, tiled

Again = Callable[..., tuple[Prepared, bool]]


@pytest.fixture(scope="module")
def model() -> ModelProto:
    return tiled(chain())


@pytest.fixture
def cache(tmp_path: Path) -> CodeCache:
    return CodeCache(tmp_path)


@pytest.fixture
def again(model: ModelProto, cache: CodeCache, monkeypatch: pytest.MonkeyPatch) -> Again:
    """Prepare the model once; then each call prepares it, and tells whether a plan was made."""
    first = prepare(model, machine(), 1, cache)
    made: list[str] = []
    lower = module.lower
    monkeypatch.setattr(
        module, "lower", lambda graph, *others: made.append(graph.name) or lower(graph, *others)
    )

    def call(given: ModelProto = model, **changes: object) -> tuple[Prepared, bool]:
        made.clear()
        prepared = prepare(given, replace(machine(), **changes), 1, cache)
        if given is model and not changes:
            assert prepared == first
        return prepared, bool(made)

    return call


def file_of(cache: CodeCache, suffix: str) -> Path:
    return next(path for path in sorted(cache.folder.iterdir()) if path.suffix == suffix)


def test_a_second_start_makes_no_plan(again: Again) -> None:
    assert not again()[1]


@pytest.mark.parametrize("suffix", [PLAN_SUFFIX, SUFFIX])
@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_damaged_file_is_made_anew(again: Again, cache: CodeCache, suffix: str, at: int) -> None:
    path = file_of(cache, suffix)
    contents = bytearray(path.read_bytes())
    contents[at] ^= 1
    path.write_bytes(contents)
    assert again()[1]
    assert not again()[1]


@pytest.mark.parametrize("kept", [0, 10, 40])
def test_a_truncated_plan_is_made_anew(again: Again, cache: CodeCache, kept: int) -> None:
    path = file_of(cache, PLAN_SUFFIX)
    path.write_bytes(path.read_bytes()[:kept])
    assert again()[1]


def test_code_that_was_removed_is_compiled_again(again: Again, cache: CodeCache) -> None:
    path = file_of(cache, SUFFIX)
    path.unlink()
    assert again()[1]
    assert path.exists()


def test_a_plan_does_not_serve_other_code_of_the_same_name(again: Again, cache: CodeCache) -> None:
    one, other = [path for path in cache.folder.iterdir() if path.suffix == SUFFIX][:2]
    contents = other.read_bytes()
    for _ in range(2):  # the second time, the plan was stored after the code was compiled anew
        one.write_bytes(contents)
        assert again()[1]


def test_a_plan_that_others_could_write_is_made_anew(again: Again, cache: CodeCache) -> None:
    file_of(cache, PLAN_SUFFIX).chmod(0o666)
    assert again()[1]


def test_other_sizes_and_other_machines_have_plans_of_their_own(
    again: Again, model: ModelProto
) -> None:
    other = ModelProto()
    other.CopyFrom(model)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    assert again(other)[1]
    assert not again(other)[1]
    assert again(vector_registers=16)[1]
    assert not again()[1]


def test_steps_are_labelled_by_the_nodes_of_their_own_model(
    again: Again, model: ModelProto
) -> None:
    other = ModelProto()
    other.CopyFrom(model)
    other.functions[0].node[0].name = "of_its_own"
    prepared, made = again(other)
    assert made
    assert any("of_its_own" in step.label for plan in prepared.plans for step in plan.steps)


def test_a_folder_that_takes_no_plan_costs_nothing_but_time(
    again: Again, cache: CodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_of(cache, PLAN_SUFFIX).unlink()

    def full(*_: object) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(cache.files, "write", full)
    assert again()[1]
