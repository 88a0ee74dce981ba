"""The native library inside ONNX Runtime: results, shapes and errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ort_optim.compiler.plan import Pointer
from ort_optim.runtime import library
from ort_optim.runtime.blob import encode
from tests.runtime.regions import DOMAIN, Code, expected, model_of, plan_of
from tests.runtime.sessions import image, open_session, open_test_region, options, weights


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_a_region_runs_its_steps_on_packed_weights(code: Code, threads: int) -> None:
    w, x = weights(), image(3, 8, 5, 7)
    opened = open_test_region(code, w, threads)
    for _ in range(20):
        np.testing.assert_allclose(opened.run(x), expected(x, w), rtol=1e-6)
    counters = opened.counters()
    assert (counters.kernels_created, counters.kernels_alive, counters.runs) == (1, 1, 20)
    assert counters.packed_bytes == 64  # 8 floats, rounded up to a cache line
    assert counters.nanoseconds > 0
    assert (counters.failures, counters.runs_under_way) == (0, 0)


@pytest.mark.parametrize("pool", [1, 2])
def test_more_workers_than_threads_are_only_idle(code: Code, pool: int) -> None:
    library.stage(encode([plan_of(code, 8)], threads=16))
    registered = options(pool)
    registered.register_custom_ops_library(str(library.library_path()))
    session = ort.InferenceSession(model_of(weights()).SerializeToString(), registered)
    x = image(5, 8, 9, 11)
    for _ in range(20):
        np.testing.assert_allclose(
            session.run(None, {"x": x})[0], expected(x, weights()), rtol=1e-6
        )


def test_the_code_is_preferred_to_the_body(code: Code) -> None:
    plan = plan_of(code, 8)
    program = (*plan.program, ("add", 0, 0))
    doubles = dataclasses.replace(
        plan,
        program=program,
        outputs=((len(program) - 1, 1, 2, 3),),
        steps=(dataclasses.replace(plan.steps[0], entry=code.entries["nothing"]),),
    )
    opened = open_session(model_of(weights()), [doubles])
    assert opened.run(image(3, 8, 2, 2)).shape == (6, 8, 2, 2)


def test_every_shape_is_computed_anew(code: Code) -> None:
    w = weights()
    opened = open_test_region(code, w, threads=2)
    for dims in [(1, 1, 1), (4, 9, 33), (2, 64, 50), (1, 1, 2), (5, 7, 7), (2, 64, 50)]:
        x = image(dims[0], 8, *dims[1:])
        np.testing.assert_allclose(opened.run(x), expected(x, w), rtol=1e-6)


@pytest.mark.parametrize("dims", [(0, 8, 5, 7), (2, 8, 0, 7), (2, 8, 5, 0), (0, 8, 0, 0)])
@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_in_gives_nothing_out(code: Code, dims: tuple[int, ...], threads: int) -> None:
    opened = open_test_region(code, weights(), threads)
    assert opened.run(np.zeros(dims, np.float32)).shape == dims
    x = image(1, 8, 2, 3)
    np.testing.assert_allclose(opened.run(x), expected(x, weights()), rtol=1e-6)


def test_two_calls_of_a_region_have_their_own_weights(code: Code) -> None:
    w, other = weights(), weights(seed=5)
    model = model_of(w)
    model.graph.initializer.append(numpy_helper.from_array(other, "other"))
    model.graph.node.append(helper.make_node("R_test", ["y", "other"], ["z"], domain=DOMAIN))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    opened = open_session(model, [plan_of(code, 8)])
    x = image(2, 8, 3, 3)
    np.testing.assert_allclose(opened.run(x, "z"), expected(expected(x, w), other), rtol=1e-5)
    assert opened.counters().kernels_alive == 2


def test_a_wrong_size_is_an_error_with_both_numbers_and_the_session_goes_on(code: Code) -> None:
    opened = open_test_region(code, weights())
    with pytest.raises(Exception, match="R_test: input 0 has 9 on axis 1, compiled for 8"):
        opened.run(image(2, 9, 5, 7))
    assert opened.counters().failures == 1
    assert "compiled for 8" in str(library.last_error(opened.registration, "R_test"))
    x = image(2, 8, 5, 7)
    np.testing.assert_allclose(opened.run(x), expected(x, weights()), rtol=1e-6)


def test_a_wrong_rank_is_an_error(code: Code) -> None:
    model = model_of(weights(), dims=())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    opened = open_session(model, [plan_of(code, 8)])
    with pytest.raises(Exception, match="R_test: input 0 has rank 3, compiled for 4"):
        opened.run(image(8, 5, 7))
    x = image(2, 8, 5, 7)
    np.testing.assert_allclose(opened.run(x), expected(x, weights()), rtol=1e-6)


def test_weights_of_another_shape_are_refused_when_the_session_is_made(code: Code) -> None:
    before = library.totals()
    with pytest.raises(Exception, match="R_test: input 1 has 7 on axis 0, compiled for 8"):
        open_session(model_of(weights(7)), [plan_of(code, 8)])
    assert library.totals().kernels_alive == before.kernels_alive


def test_weights_that_are_not_constant_are_refused_when_the_session_is_made(code: Code) -> None:
    with pytest.raises(Exception, match="input 1 is no constant, so pack can't pack it"):
        open_session(model_of(weights(), constant=False), [plan_of(code, 8)])


def test_an_input_that_no_step_reads_needs_no_packing(code: Code) -> None:
    plan = plan_of(code, 8)
    scale = plan.steps[0]
    direct = dataclasses.replace(
        scale, pointers=(scale.pointers[0], Pointer("input", 1, 7), scale.pointers[2])
    )
    plan = dataclasses.replace(plan, steps=(direct, plan.steps[1]), pack_steps=(), packed_bytes=())
    w, x = weights(), image(2, 8, 3, 5)
    opened = open_session(model_of(w, constant=False), [plan])
    found = opened.session.run(None, {"x": x, "w": w})[0]
    np.testing.assert_allclose(found, expected(x, w), rtol=1e-6)
    constant = open_session(model_of(w), [plan])
    np.testing.assert_allclose(constant.run(x), expected(x, w), rtol=1e-6)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("dims", [("N", "C", "H", "W"), ("N", 8, 5, 7), (2, 8, 5, 7)])
def test_a_shape_downstream_is_right(code: Code, dims: tuple[int | str, ...], level: str) -> None:
    library.stage(encode([plan_of(code, 8)], threads=1))
    registered = options()
    registered.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    registered.register_custom_ops_library(str(library.library_path()))
    model = model_of(weights(), dims=dims, with_shape=True)
    session = ort.InferenceSession(model.SerializeToString(), registered)
    x = image(2, 8, 5, 7)
    y, shape = session.run(None, {"x": x})
    assert tuple(shape) == y.shape == x.shape


def test_inferred_shapes_keep_what_is_known_and_the_names_of_what_is_not(code: Code) -> None:
    known = open_session(model_of(weights(), dims=("N", 8, 5, "W")), [plan_of(code, 8)])
    assert known.session.get_outputs()[0].shape == ["N", 8, 5, "W"]
    model = model_of(weights())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    unknown = open_session(model, [plan_of(code, 8)]).session.get_outputs()[0].shape
    assert len(set(unknown)) == 4, "unknown sizes must not be taken for equal ones"


def test_a_size_that_is_computed_is_inferred(code: Code) -> None:
    plan = plan_of(code, 8)
    program = (*plan.program, ("mul", 0, 1))
    nothing = dataclasses.replace(plan.steps[0], entry=code.entries["nothing"])
    flat = dataclasses.replace(
        plan, program=program, outputs=((len(program) - 1, 2, 3),), steps=(nothing,)
    )
    fixed = open_session(model_of(weights(), dims=(3, 8, 5, "W")), [flat])
    assert fixed.session.get_outputs()[0].shape == [24, 5, "W"]
    free = open_session(model_of(weights(), dims=("N", 8, 5, "W")), [flat])
    assert free.session.get_outputs()[0].shape[0].startswith("ort_optim")
    assert free.run(image(2, 8, 5, 7)).shape == (16, 5, 7)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("sub", 0, 0), ("floordiv", 0, -1)], "divides by zero"),
        ([("const", 2**62, 0), ("mul", 0, -1), ("mul", -1, -1)], "does not fit 64 bits"),
    ],
)
def test_sizes_that_do_not_exist_are_errors(
    code: Code, rows: list[tuple[str, int, int]], message: str
) -> None:
    plan = plan_of(code, 8)
    program = list(plan.program)
    for operation, a, b in rows:
        at = len(program)
        refers = operation != "const"
        program.append((operation, at + a if refers and a < 0 else a, at + b if b < 0 else b))
    broken = dataclasses.replace(plan, program=tuple(program))
    opened = open_session(model_of(weights()), [broken])
    with pytest.raises(Exception, match=f"R_test: size .* {message}"):
        opened.run(image(2, 8, 5, 7))


def test_a_pointer_outside_its_buffer_is_an_error(code: Code) -> None:
    plan = plan_of(code, 8)
    program = (*plan.program, ("const", 2 * 8 * 5 * 7 * 4 + 1, 0))
    x, *others = plan.steps[0].pointers
    beyond = dataclasses.replace(x, offset=len(program) - 1)
    step = dataclasses.replace(plan.steps[0], pointers=(beyond, *others))
    broken = dataclasses.replace(plan, program=program, steps=(step, plan.steps[1]))
    opened = open_session(model_of(weights()), [broken])
    with pytest.raises(Exception, match="step scale_relu: pointer 0 is at byte 2241 of 2240"):
        opened.run(image(2, 8, 5, 7))


def test_registering_without_a_plan_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(Exception, match=r"no plan is staged.*ort_optim\.session_options"):
        options().register_custom_ops_library(str(library.library_path()))


def test_a_staged_plan_is_registered_once(code: Code) -> None:
    open_test_region(code, weights())
    with pytest.raises(Exception, match="no plan is staged"):
        options().register_custom_ops_library(str(library.library_path()))


def test_steps_are_timed_where_the_plan_asks_for_it(code: Code) -> None:
    plans = [plan_of(code, 8, repeats=3)]
    for threads in (1, 2):
        opened = open_session(model_of(weights()), plans, threads, time_steps=True)
        opened.run(image(4, 8, 50, 50))
        times = library.step_nanoseconds(opened.registration, "R_test")
        assert len(times) == 6
        assert all(time > 0 for time in times)
        assert sum(times) <= opened.counters().nanoseconds
    untimed = open_test_region(code, weights())
    assert library.step_nanoseconds(untimed.registration, "R_test") == ()


def test_unknown_registrations_and_regions_have_no_counters(code: Code) -> None:
    opened = open_test_region(code, weights())
    assert library.counters(opened.registration, "R_other") is None
    assert library.counters(-1, "R_test") is None
    assert library.last_error(-1, "R_test") is None


def test_a_missing_library_is_a_reason_not_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "no_library.so")
    library._fault.cache_clear()
    try:
        assert "is not built (no_library.so is missing)" in str(library.unavailable_reason())
        with pytest.raises(library.LibraryError, match="not built"):
            library.stage(b"")
    finally:
        library._fault.cache_clear()
