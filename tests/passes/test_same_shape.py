from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import same_shape
from tests.passes.harness import check, model_of

PASSES = (same_shape.PASS,)


def _i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("body", "opset", "constants"),
    [
        ("t = Reshape(a, c)", 17, {"c": _i64(1, 4, 2, 3)}),
        ("t = Reshape(a, c)", 17, {"c": _i64(0, -1, 0, 3)}),
        ("t = Reshape<allowzero = 1>(a, c)", 17, {"c": _i64(1, 4, -1, 3)}),
        ("s = Shape(a)\n t = Reshape(a, s)", 17, {}),
        ("t = Expand(a, c)", 17, {"c": _i64(1, 4, 2, 3)}),
        ("t = Expand(a, c)", 17, {"c": _i64(1, 1)}),
        ("s = Shape(a)\n t = Expand(a, s)", 17, {}),
        ("t = Transpose<perm = [0, 1, 2, 3]>(a)", 17, {}),
        ("t = Slice<starts = [0, 0], ends = [4, 9999999999], axes = [1, 2]>(a)", 9, {}),
        ("t = Slice(a, c, d)", 17, {"c": _i64(0, -5), "d": _i64(1, 4)}),
        ("t = Slice(a, c, d, e)", 17, {"c": _i64(0), "d": _i64(2**31 - 1), "e": _i64(-1)}),
        ("t = Gather<axis = 1>(a, c)", 17, {"c": _i64(0, 1, 2, 3)}),
        ("t = Tile(a, c)", 17, {"c": _i64(1, 1, 1, 1)}),
        ("t = Pad<pads = [0, 0, 0, 0, 0, 0, 0, 0]>(a)", 10, {}),
        ("t = Pad(a, c)", 17, {"c": _i64(*[0] * 8)}),
        ('t = Pad<mode = "reflect">(a, c)', 17, {"c": _i64(*[0] * 8)}),
        ("t = Upsample<scales = [1.0, 1.0, 1.0, 1.0]>(a)", 7, {}),
        ("t = Upsample(a, c)", 9, {"c": np.ones(4, np.float32)}),
        ("t = Resize(a, c)", 10, {"c": np.ones(4, np.float32)}),
        ('t = Resize<mode = "linear">(a, , c)', 17, {"c": np.ones(4, np.float32)}),
        ('t = Resize<mode = "linear">(a, , , c)', 17, {"c": _i64(1, 4, 2, 3)}),
        ("t = ReduceMean<axes = [0]>(a)", 17, {}),
        ("t = ReduceSum(a, c)", 17, {"c": _i64(-4)}),
        ("t = ReduceMax<noop_with_empty_axes = 1>(a)", 18, {}),
        ("t = AveragePool<kernel_shape = [1, 1]>(a)", 17, {}),
        ("t = MaxPool<kernel_shape = [1, 1], strides = [1, 1], pads = [0, 0, 0, 0]>(a)", 17, {}),
    ],
)
def test_a_node_that_changes_nothing_goes(
    engine: Engine, body: str, opset: int, constants: dict[str, np.ndarray]
) -> None:
    text = "g (float[1, 4, 2, 3] x) => (float[1, 4, 2, 3] y) { a = Neg(x)\n BODY\n y = Abs(t) }"
    model = model_of(text.replace("BODY", body), opset=opset, weights=constants)
    ops = check(engine, model, PASSES).ops
    assert not set(ops) - {"Neg", "Abs", "Shape"}


@pytest.mark.parametrize(
    ("body", "opset", "constants"),
    [
        ("t = Reshape(a, c)", 17, {"c": _i64(1, 2, 4, 3)}),
        ("t = Reshape(a, c)", 17, {"c": _i64(4, 2, 3, 1)}),
        ("t = Expand(a, c)", 17, {"c": _i64(2, 1, 1, 1)}),
        ("t = Transpose<perm = [0, 1, 3, 2]>(a)", 17, {}),
        ("t = Slice(a, c, d)", 17, {"c": _i64(0, 0), "d": _i64(1, -1)}),
        ("t = Slice(a, c, d, e, f)", 17, dict(zip("cdef", map(_i64, (3, -9, 1, -1)), strict=True))),
        ("t = Gather<axis = 1>(a, c)", 17, {"c": _i64(1, 0, 2, 3)}),
        ("t = Gather<axis = 1>(a, c)", 17, {"c": _i64(0, 1, 2)}),
        ("t = Tile(a, c)", 17, {"c": _i64(1, 2, 1, 1)}),
        ("t = Pad(a, c)", 17, {"c": _i64(0, 0, 1, 0, 0, 0, -1, 0)}),
        ("t = Resize(a, , c)", 17, {"c": np.array([1, 1, 2, 1], np.float32)}),
        ("t = Resize(a, , c)", 17, {"c": np.array([1, 1, 1.1, 1], np.float32)}),
        (
            't = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(a, r, c)',
            17,
            {"c": np.ones(4, np.float32), "r": np.array([0, 0, 0, 0, 1, 1, 0.5, 1], np.float32)},
        ),
        ("t = ReduceMean<axes = [1]>(a)", 17, {}),
        ("t = ReduceMean<axes = [0], keepdims = 0>(a)", 17, {}),
        ("t = ReduceL2<axes = [0]>(a)", 17, {}),
        ("t = AveragePool<kernel_shape = [1, 1], strides = [2, 1]>(a)", 17, {}),
        ("t = MaxPool<kernel_shape = [1, 2], pads = [0, 0, 0, 1]>(a)", 17, {}),
    ],
)
def test_a_node_that_changes_something_stays(
    engine: Engine, body: str, opset: int, constants: dict[str, np.ndarray]
) -> None:
    text = "g (float[1, 4, 2, 3] x) => (float y) { a = Neg(x)\n BODY\n y = REDUCE(t) }"
    text = text.replace("BODY", body).replace("REDUCE", "ReduceSum<keepdims = 0>")
    assert not check(
        engine, model_of(text, opset=opset, weights=constants), PASSES
    ).context.rewrites


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("t = Reshape(a, c)", {"c": _i64(0, -1)}),
        ("t = Flatten(a)", {}),
        ("t = Flatten<axis = -1>(a)", {}),
        ("t = Slice(a, c, d)", {"c": _i64(0, 0), "d": _i64(2**31 - 1, 2**63 - 1)}),
        ("t = Expand(a, c)", {"c": _i64(1, 1)}),
    ],
)
def test_unknown_dimensions_do_not_matter_where_any_will_do(
    engine: Engine, body: str, constants: dict[str, np.ndarray]
) -> None:
    text = f"g (float[N, M] x) => (float[N, M] y) {{ a = Neg(x)\n {body}\n y = Abs(t) }}"
    assert check(engine, model_of(text, weights=constants), PASSES).ops == {"Neg": 1, "Abs": 1}


def test_a_shape_of_unknown_dimensions_is_not_taken_for_equal(engine: Engine) -> None:
    model = model_of(
        "g (float[N, M] x) => (float[A, B] y) { a = Neg(x)\n t = Reshape(a, c)\n y = Abs(t) }",
        weights={"c": _i64(-1, 1)},
    )
    assert check(engine, model, PASSES).ops["Reshape"] == 1


def test_a_slice_of_an_unknown_dimension_up_to_minus_one_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[N] x) => (float[M] y) { a = Neg(x)\n y = Slice(a, c, d) }",
        weights={"c": _i64(0), "d": _i64(-1)},
    )
    assert check(engine, model, PASSES).ops["Slice"] == 1


def test_squeeze_and_unsqueeze_over_no_axes_go(engine: Engine) -> None:
    model = model_of(
        "g (float[3, 2] x) => (float[3, 2] y) { a = Squeeze(x)\n b = Neg(a)\n y = Squeeze(b) }"
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1}


def test_a_transpose_of_a_single_row_of_ones_goes(engine: Engine) -> None:
    model = model_of(
        "g (float[1, 1, 5] x) => (float[1, 1, 5] y) "
        "{ a = Transpose<perm = [1, 0, 2]>(x)\n y = Neg(a) }"
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1}


def test_global_pooling_of_one_pixel_goes(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 5, 1, 1] x) => (float[2, 5, 1, 1] y) "
        "{ a = GlobalAveragePool(x)\n b = Neg(a)\n y = GlobalMaxPool(b) }"
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1}


def test_a_pool_whose_indices_are_used_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[1, 1, 3] x) => (float[1, 1, 3] y, int64[1, 1, 3] i) "
        "{ a = Neg(x)\n y, i = MaxPool<kernel_shape = [1]>(a) }"
    )
    assert check(engine, model, PASSES).reasons == ["its other outputs are used"]
