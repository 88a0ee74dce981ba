"""The measuring scripts: what they count, what they call equal, what they call slower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper


def tiny_model(nodes: list[onnx.NodeProto], **options: Any) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(nodes, "graph", [value], [result])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)


def test_constants_are_not_counted_and_nodes_of_subgraphs_are() -> None:
    from _common import count_nodes

    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "branch", [], [result])
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=1.0),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    assert dict(count_nodes(tiny_model(nodes))) == {"If": 1, "Relu": 2}


def test_a_function_call_counts_as_its_body_each_time() -> None:
    from _common import count_nodes

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inner = [helper.make_node("Abs", ["a"], ["m"]), helper.make_node("Neg", ["m"], ["b"])]
    outer = [helper.make_node("Inner", ["a"], ["b"], domain="local")]
    functions = [
        helper.make_function("local", "Inner", ["a"], ["b"], inner, opsets),
        helper.make_function("local", "Outer", ["a"], ["b"], outer, opsets),
    ]
    nodes = [
        helper.make_node("Inner", ["x"], ["m"], domain="local"),
        helper.make_node("Outer", ["m"], ["y"], domain="local"),
    ]
    assert dict(count_nodes(tiny_model(nodes, functions=functions))) == {"Abs": 2, "Neg": 2}


def test_input_names_may_hold_colons() -> None:
    from _common import parse_shapes

    assert parse_shapes("input:0:[1, 3]; s:[]") == {"input:0": [1, 3], "s": []}


@pytest.mark.parametrize(
    ("want", "got", "agree"),
    [
        (np.float32([0, 1]), np.float32([0, 1.0005]), True),
        (np.float32([0, 1]), np.float32([0.01, 1]), False),
        (np.float32([np.nan, 1]), np.float32([np.nan, 1]), True),
        (np.float32([np.nan, 1]), np.float32([1, 1]), False),
        (np.float32([0, 1]), np.float32([np.inf, 1]), False),
        (np.int64([3]), np.int64([4]), False),
        (np.int64([3]), np.int32([3]), False),
        (np.zeros((1, 2), np.float32), np.zeros(2, np.float32), False),
        ([np.float32([1])], [np.float32([1]), np.float32([1])], False),
        (np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 2.015625], ml_dtypes.bfloat16), True),
        (np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 2.25], ml_dtypes.bfloat16), False),
    ],
)
def test_values_agree_within_the_tolerance_and_nowhere_else(
    want: Any, got: Any, agree: bool
) -> None:
    from _values import difference

    assert (difference(want, got) == "") is agree


def test_twice_what_the_runtime_itself_changes_is_tolerated() -> None:
    from _values import difference

    want, by_runtime = np.float32([0, 1]), np.float32([0.1, 1])
    assert difference(want, np.float32([0.19, 1]), slack=by_runtime) == ""
    assert difference(want, np.float32([0.25, 1]), slack=by_runtime) != ""


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "not slower"), (1.1, "slower")])
def test_a_tenth_slower_is_seen_and_noise_alone_is_not(factor: float, verdict: str) -> None:
    from bench_latency import judge

    rng = np.random.default_rng(0)
    before = 1000 * rng.lognormal(0, 0.03, (4, 100))
    after = factor * 1000 * rng.lognormal(0, 0.03, (4, 100))
    found = judge(before, after)["verdict"]
    assert found == verdict if factor > 1 else found != "slower"


def test_mutants_are_damaged_and_reproducible(tmp_path: Path) -> None:
    from fuzz_inputs import MUTATIONS, make_mutant

    seed = tmp_path / "seed.onnx"
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    model = tiny_model([helper.make_node("Add", ["x", "w"], ["y"], "add")])
    model.graph.initializer.append(weights)
    onnx.save(model, seed)
    mutants = [make_mutant([seed], 0, number) for number in range(4 * len(MUTATIONS))]
    assert mutants == [make_mutant([seed], 0, number) for number in range(4 * len(MUTATIONS))]
    assert {what.split()[1] for what, _ in mutants} == {f.__name__ for f in MUTATIONS}
    changed = sum(data != seed.read_bytes() for _, data in mutants)
    assert changed > 0.8 * len(mutants)


def test_slices_of_the_suite_part_it() -> None:
    from onnx_suite import in_slice

    names = [f"test_{number}" for number in range(100)]
    parts = [in_slice(names, f"{k}/7") for k in range(7)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    with pytest.raises(SystemExit):
        in_slice(names, "7/7")


def test_a_worker_that_crashes_is_restarted(tmp_path: Path) -> None:
    from _common import Worker

    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys, time\n"
        "for line in sys.stdin:\n"
        "    job = json.loads(line)\n"
        "    if job['do'] == 'crash': os.abort()\n"
        "    if job['do'] == 'hang': time.sleep(60)\n"
        "    print(json.dumps({'status': 'ok'}), flush=True)\n"
    )
    with Worker(script, timeout_s=5) as worker:
        assert worker.ask({"do": "crash"})["status"] == "crash"
        assert worker.ask({"do": "work"})["status"] == "ok"
        worker.timeout_s = 0.5
        assert worker.ask({"do": "hang"})["status"] == "timeout"
        worker.timeout_s = 5
        assert worker.ask({"do": "work"})["status"] == "ok"
