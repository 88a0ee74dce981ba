from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ort_optim.engine import Engine
from ort_optim.errors import WorkerError
from ort_optim.passes import constant_folding, constant_nodes, dead_code
from tests.passes.harness import apply, check, model_of

PASSES = (constant_nodes.PASS, constant_folding.PASS, dead_code.PASS)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_a_chain_of_constants_becomes_one_initializer(engine: Engine) -> None:
    model = model_of(
        """g (float[3, 2] x) => (float[3, 4] y) {
            t = Transpose(w)
            u = Mul(t, two)
            y = MatMul(x, u)
        }""",
        weights={"w": np.ones((4, 2), np.float32), "two": np.float32(2)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"MatMul": 1}
    assert list(constants(outcome.model)) == ["u"]


def test_a_graph_output_is_folded(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
            z = Neg(w)
            y = Add(x, z)
        }""",
        weights={"w": np.array([1, 2], np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Add": 1}


def test_all_used_outputs_of_a_folded_node_become_constants(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] a) {
            a, b, c = Split<axis = 0>(w, lengths)
            y = Add(x, c)
        }""",
        opset=13,
        weights={"w": np.arange(6, dtype=np.float32), "lengths": np.array([2, 2, 2])},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Add": 1}
    np.testing.assert_array_equal(constants(outcome.model)["c"], [4, 5])


def test_nodes_in_branches_are_folded_from_constants_of_any_scope(engine: Engine) -> None:
    model = model_of(
        """g (bool c, float[2] x) => (float[2] y) {
            o = Neg(w)
            y = If(c) <
                then_branch = t () => (float[2] p) { n = Abs(o)  p = Add(x, n) },
                else_branch = e () => (float[2] q) { q = Exp(o) }
            >
        }""",
        weights={"w": np.array([1, 2], np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"If": 1, "Add": 1, "Constant": 1}


def test_equal_names_in_two_branches_do_not_mix(engine: Engine) -> None:
    branch = "graph () => (float[2] {out}) {{ n = {op}(w)  {out} = Add(x, n) }}"
    then_branch = branch.format(out="p", op="Neg").replace("graph", "t")
    else_branch = branch.format(out="q", op="Exp").replace("graph", "e")
    model = model_of(
        f"""g (bool c, float[2] x) => (float[2] y) {{
            y = If(c) < then_branch = {then_branch}, else_branch = {else_branch} >
        }}""",
        weights={"w": np.array([1, 2], np.float32)},
    )
    for chosen in (True, False):
        feeds = {"c": np.array(chosen), "x": np.array([5, 6], np.float32)}
        outcome = check(engine, model, PASSES, feeds=feeds)
        assert outcome.ops == {"If": 1, "Add": 2}


def test_a_node_whose_subgraph_captures_only_constants_is_folded(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y) {
            f = If(c) <
                then_branch = t () => (float[2] p) { p = Neg(w) },
                else_branch = e () => (float[2] q) { q = Exp(w) }
            >
            y = Add(x, f)
        }""",
        weights={"w": np.array([1, 2], np.float32), "c": np.array(True)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Add": 1}
    np.testing.assert_array_equal(constants(outcome.model)["f"], [-1, -2])


def test_random_operators_and_training_dropout_are_not_folded(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y) {
            r = RandomUniformLike(w)
            t = Add(r, w)
            z = Mul(t, zero)
            y = Add(x, z)
        }""",
        weights={"w": np.ones(2, np.float32), "zero": np.zeros(2, np.float32)},
    )
    assert check(engine, model, PASSES).ops == {"RandomUniformLike": 1, "Add": 2, "Mul": 1}


def test_dequantized_weights_stay_quantized(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 2] x) => (float[2, 3] y) {
            t = Transpose(w)
            d = DequantizeLinear(t, s)
            y = MatMul(x, d)
        }""",
        weights={"w": np.ones((3, 2), np.int8), "s": np.float32(0.5)},
    )
    assert check(engine, model, PASSES).ops == {"DequantizeLinear": 1, "MatMul": 1}


GROWING = """g (float[64, 64] x) => (float[64, 64] y) {
    s = Concat<axis = 0>(n, n)
    big = ConstantOfShape(s)
    y = Add(x, big)
}"""


def test_a_result_that_grows_the_model_too_much_is_refused_but_its_inputs_fold(
    engine: Engine,
) -> None:
    model = model_of(GROWING, weights={"n": np.array([64])})
    outcome = check(engine, model, PASSES, max_growth_bytes=10_000)
    assert outcome.ops == {"ConstantOfShape": 1, "Add": 1}
    assert "the model would grow by 16368 bytes" in outcome.reasons


def test_growth_within_the_bound_is_allowed(engine: Engine) -> None:
    model = model_of(GROWING, weights={"n": np.array([64])})
    assert check(engine, model, PASSES, max_growth_bytes=20_000).ops == {"Add": 1}


def test_results_that_grow_the_model_too_much_together_are_all_refused(engine: Engine) -> None:
    branches = "\n".join(f"b{i} = Expand(w{i}, shape)\n y{i} = Add(x, b{i})" for i in range(4))
    outputs = ", ".join(f"float[64, 64] y{i}" for i in range(4))
    model = model_of(
        f"g (float[64, 64] x) => ({outputs}) {{ {branches} }}",
        weights={
            "shape": np.array([64, 64]),
            **{f"w{i}": np.full((1, 64), i, np.float32) for i in range(4)},
        },
    )
    outcome = check(engine, model, PASSES, max_growth_bytes=40_000)
    assert outcome.ops == {"Expand": 4, "Add": 4}


def test_a_weight_that_nobody_else_reads_pays_for_its_result(engine: Engine) -> None:
    model = model_of(
        "g (float[64, 64] x) => (float[64, 64] y) { t = Transpose(w)  y = MatMul(x, t) }",
        weights={"w": np.random.default_rng(0).random((64, 64), np.float32)},
    )
    assert check(engine, model, PASSES, max_growth_bytes=0).ops == {"MatMul": 1}


def test_a_huge_result_is_not_even_computed(engine: Engine) -> None:
    model = model_of(
        """g (float[1] x) => (float[1] y) {
            big = ConstantOfShape(s)
            m = ReduceMax<keepdims = 0>(big)
            y = Add(x, m)
        }""",
        weights={"s": np.array([1 << 20, 1 << 15])},
    )
    outcome = apply(engine, model, PASSES)
    assert outcome.ops == {"ConstantOfShape": 1, "ReduceMax": 1, "Add": 1}
    assert "its result is too large to be computed in passing" in outcome.reasons


def test_a_node_that_ort_refuses_is_left_and_the_rest_is_folded(engine: Engine) -> None:
    chain = "\n".join(f"a{i + 1} = Add(a{i}, w)" for i in range(20))
    model = model_of(
        f"""g (float[2] x) => (float[2] y, float[2] z) {{
            a0 = Neg(w)
            {chain}
            bad = Reshape(w, five)
            z = Add(x, bad)
            y = Add(x, a20)
        }}""",
        weights={"w": np.ones(2, np.float32), "five": np.array([5])},
    )
    outcome = apply(engine, model, PASSES)
    assert outcome.ops == {"Reshape": 1, "Add": 2}
    assert any(reason.startswith("ONNX Runtime") for reason in outcome.reasons)


def test_a_crash_of_the_worker_costs_only_the_node_at_fault(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Engine.open

    def crashing(self: Engine, model: onnx.ModelProto, **options: object) -> int:
        if any(node.op_type == "Exp" for node in model.graph.node):
            raise WorkerError("ONNX Runtime ended its process: SIGSEGV")
        return whole(self, model, **options)

    monkeypatch.setattr(Engine, "open", crashing)
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
            n = Neg(w)  e = Exp(w)  f = Abs(e)
            y = Add(x, n)  z = Add(x, f)
        }""",
        weights={"w": np.ones(2, np.float32)},
    )
    outcome = apply(engine, model, PASSES)
    assert outcome.ops == {"Exp": 1, "Abs": 1, "Add": 2}


def test_an_operator_of_an_unknown_domain_is_refused(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) { a = my.Thing(w)  y = Add(x, a) }",
        weights={"w": np.ones(2, np.float32)},
    )
    model.opset_import.append(helper.make_opsetid("my", 1))
    outcome = apply(engine, model, PASSES)
    assert outcome.ops == {"Thing": 1, "Add": 1}
    assert outcome.reasons == ["an operator of my is not computed here"]


def test_an_operator_of_onnxruntime_is_folded(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) { a = com.microsoft.Gelu(w)  y = Add(x, a) }",
        weights={"w": np.ones(2, np.float32)},
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert apply(engine, model, PASSES).ops == {"Add": 1}


def test_sequences_may_lie_between_constants_but_are_never_kept(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x, int64 i) => (float[2] y, float[2] z) {
            s = SequenceConstruct(w, v)
            a = SequenceAt(s, one)
            y = Add(x, a)
            b = SequenceAt(s, i)
            z = Add(x, b)
        }""",
        weights={
            "w": np.ones(2, np.float32),
            "v": np.zeros(2, np.float32),
            "one": np.int64(1),
        },
    )
    feeds = {"x": np.ones(2, np.float32), "i": np.array(0)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.ops == {"SequenceConstruct": 1, "SequenceAt": 1, "Add": 2}
    assert "its result is not a tensor" in outcome.reasons


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.INT4, ml_dtypes.int4),
        (TensorProto.BOOL, np.bool_),
        (TensorProto.UINT8, np.uint8),
    ],
)
def test_results_of_every_type_keep_their_values(
    engine: Engine, onnx_type: int, dtype: type
) -> None:
    values = np.array([0.0, 1.0, 2.0, 1.0], np.float32)
    model = model_of(
        f"""g (float[4] x) => (float[4] y) {{
            a = Cast<to = {onnx_type}>(w)
            b = CastLike(x, a)
            c = Cast<to = 1>(b)
            y = Add(x, c)
        }}""",
        opset=21,
        weights={"w": values},
    )
    model.ir_version = 10
    outcome = check(engine, model, PASSES, feeds={"x": values})
    assert outcome.ops["CastLike"] == 1
    np.testing.assert_array_equal(constants(outcome.model)["a"], values.astype(dtype))


def test_strings_are_folded(engine: Engine) -> None:
    model = model_of(
        """g (string[2] x) => (bool[2] y) {
            w = Constant<value_strings = ["a", "b"]>()
            s = Concat<axis = 0>(w, w)
            t = Slice(s, start, end)
            y = Equal(x, t)
        }""",
        opset=19,
        weights={"start": np.array([1]), "end": np.array([3])},
    )
    feeds = {"x": np.array(["b", "x"], object)}
    assert check(engine, model, PASSES, feeds=feeds).ops == {"Equal": 1}


def test_an_old_opset_and_ir_version_are_no_obstacle(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) { a = Unsqueeze<axes = [0]>(w)  y = Add(x, a) }",
        opset=7,
        weights={"w": np.float32(1)},
    )
    model.ir_version = 4
    assert check(engine, model, PASSES).ops == {"Add": 1}


def test_a_denied_rewrite_leaves_its_chain_as_it_was(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y) { a = Neg(w)  b = Exp(a)  y = Add(x, b) }""",
        weights={"w": np.ones(2, np.float32)},
    )
    denied = frozenset({("constant-folding", "b")})
    assert check(engine, model, PASSES, denied=denied).ops == {"Exp": 1, "Add": 1}


def test_without_fuel_nothing_changes(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y) { a = Neg(w)  y = Add(x, a) }""",
        weights={"w": np.ones(2, np.float32)},
    )
    assert check(engine, model, PASSES, limit=0).ops == {"Neg": 1, "Add": 1}


def test_thousands_of_nodes_take_one_evaluation(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    whole = Engine.open

    def counting(self: Engine, model: onnx.ModelProto, **options: object) -> int:
        calls.append(len(model.graph.node))
        return whole(self, model, **options)

    monkeypatch.setattr(Engine, "open", counting)
    chain = "\n".join(f"a{i + 1} = Add(a{i}, a0)" for i in range(3000))
    model = model_of(
        f"g (int64[1] x) => (int64[1] y) {{ {chain}\n y = Add(x, a3000) }}",
        weights={"a0": np.array([1])},
    )
    assert apply(engine, model, PASSES).ops == {"Add": 1}
    assert calls == [3000]


def test_an_input_with_a_default_value_is_not_constant(engine: Engine) -> None:
    model = model_of("g (float[2] x, float[2] w) => (float[2] y) { a = Neg(w)  y = Add(x, a) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), "w"))
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Add": 1}


def test_a_node_of_which_one_output_is_folded_further_keeps_both(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
            a, b = Split <axis = 0> (w)
            y = Add(x, a)
            c = Exp(b)
            z = Add(x, c)
        }""",
        opset=13,
        weights={"w": np.arange(4, dtype=np.float32)},
    )
    assert check(engine, model, (constant_folding.PASS,)).ops == {"Add": 2}
    halfway = apply(engine, model, (constant_folding.PASS,), limit=1)
    assert halfway.ops == {"Add": 2, "Exp": 1}
