"""Regions made ready for a machine: what is compiled, with which templates, and what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper

from ort_optim.compiler.cache import CodeCache
from ort_optim.graph.regions import Tiling
from ort_optim.hardware import Target, load_target
from ort_optim.kernels.templates import TEMPLATES
from ort_optim.runtime import prepare as module
from ort_optim.runtime.machine import fingerprint
from ort_optim.runtime.prepare import INTERNAL, Prepared, prepare
from tests.compiler.regions import Net
from tests.runtime.networks import ELSEWHERE, chain, machine, names_of, residual, single, tiled

ERROR_CLASS = {each.name: each.error_class for each in TEMPLATES}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CodeCache:
    return CodeCache(tmp_path_factory.mktemp("code"))


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CodeCache:
    """A cache for tests that compile nothing."""
    monkeypatch.setattr(module, "compile_all", lambda *_, **__: {})
    return CodeCache(tmp_path)


def wide() -> ModelProto:
    """A convolution that the rule gives to Winograd's F(4x4)."""
    net = Net(0, 17)
    return net.model(net.conv(net.input(1, 64, 28, 28), 64, 64, k=3))


def labels(prepared: Prepared) -> list[str]:
    return [step.label for plan in prepared.plans for step in plan.steps]


def test_a_model_without_regions_needs_nothing(nothing: CodeCache) -> None:
    found = prepare(residual(), machine(), 1, nothing)
    assert found == Prepared(None, (), {}, None)


def test_a_plan_for_each_name_and_one_extension_for_all(cache: CodeCache) -> None:
    model = tiled(chain())
    found = prepare(model, machine(), 2, cache)
    assert [plan.name for plan in found.plans] == names_of(model)[:1]
    assert found.extension is not None
    assert found.moved_from is None
    assert not found.left


def test_progress_is_told_of_what_is_compiled_alone(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    model, cache = tiled(single(), prefer=()), CodeCache(tmp_path)
    prepare(model, machine(), 1, cache, progress=lambda *done: told.append(done))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 0
    told.clear()
    prepare(model, machine(), 1, cache, progress=lambda *done: told.append(done))
    assert not told


def elsewhere(*templates: str) -> Callable[[Tiling], Tiling]:
    return lambda tiling: replace(tiling, target=ELSEWHERE, template=templates)


@pytest.mark.parametrize("verified", ["direct", "winograd_f23", "winograd_f43"])
def test_another_machine_takes_no_template_that_is_less_exact(
    verified: str, monkeypatch: pytest.MonkeyPatch, nothing: CodeCache
) -> None:
    chosen = choices(tiled(wide(), edit=elsewhere(verified)), machine(), monkeypatch, nothing)
    assert [ERROR_CLASS[each] <= ERROR_CLASS[verified] for each in chosen] == [True]
    assert chosen == [verified]  # the machine has what the best of those demands


def choices(
    model: ModelProto, target: Target, monkeypatch: pytest.MonkeyPatch, cache: CodeCache
) -> list[str]:
    """The templates that regions are lowered with."""
    found: list[str] = []

    def lower(_: object, given: list[object], __: object) -> str:
        found.extend(each.template.name for each in given)
        return "not lowered"

    monkeypatch.setattr(module, "lower", lower)
    assert set(prepare(model, target, 1, cache).left.values()) == {"not lowered"}
    return found


def test_the_templates_of_the_file_hold_on_its_own_machine(
    monkeypatch: pytest.MonkeyPatch, nothing: CodeCache
) -> None:
    model = tiled(wide(), prefer=("direct",))
    assert choices(model, machine(), monkeypatch, nothing) == ["direct"]


def test_the_machine_that_a_model_was_made_for_is_told(
    monkeypatch: pytest.MonkeyPatch, nothing: CodeCache
) -> None:
    model = tiled(wide(), edit=lambda tiling: replace(tiling, target=ELSEWHERE))
    assert prepare(model, load_target("neoverse-n1"), 1, nothing).moved_from is None
    monkeypatch.setattr(module, "lower", lambda *_: "not lowered")
    assert prepare(model, machine(), 1, nothing).moved_from == ELSEWHERE
    own = prepare(tiled(wide()), machine(), 1, nothing)
    assert own.moved_from is None
    if machine().vector_bits == 512:
        found = prepare(tiled(wide()), machine(avx2=True), 1, nothing)
        assert found.moved_from == fingerprint(machine())


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8])
def test_other_element_types_are_left(element: int, nothing: CodeCache) -> None:
    model = tiled(residual())
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        info.type.tensor_type.elem_type = element
    found = prepare(model, machine(), 1, nothing)
    assert list(found.left) == names_of(model)
    assert found.extension is None


def test_sizes_in_which_calls_differ_are_run_time_arguments(cache: CodeCache) -> None:
    before = chain(size=9)
    for node in before.graph.node:
        for attribute in node.attribute:
            if attribute.name == "pads":
                attribute.ints[:] = [0, 0, 0, 0]
    del before.graph.value_info[:]
    found = prepare(tiled(before), machine(), 1, cache)
    (plan,) = found.plans
    dims = {(a, b) for operation, a, b in plan.program if operation == "dim"}
    assert {(0, 0), (0, 2), (0, 3)} <= dims  # batch, height and width of the image


def test_an_image_that_is_an_output_of_the_model_too_is_known(cache: CodeCache) -> None:
    before = chain()
    inner = next(node for node in before.graph.node if node.op_type == "Exp").output[0]
    before.graph.output.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, None))
    model = tiled(before)
    del model.graph.value_info[:]
    assert not prepare(model, machine(), 1, cache).left


def test_our_own_mistakes_cost_one_region_and_are_told(
    monkeypatch: pytest.MonkeyPatch, nothing: CodeCache, caplog: pytest.LogCaptureFixture
) -> None:
    def lower(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(module, "lower", lower)
    model = tiled(wide())
    found = prepare(model, machine(), 1, nothing)
    assert found.left == {names_of(model)[0]: f"{INTERNAL}: ZeroDivisionError('oh')"}
    assert "Traceback" in caplog.text
