"""Faulty, failing and slow rewrites: found, refused and named, and all others are kept."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from ort_optim import pipeline, search
from ort_optim.engine import Engine, EngineError
from ort_optim.errors import VerificationError
from ort_optim.graph.view import Graph, Node
from ort_optim.passes import PASSES
from ort_optim.passes.base import Context, GraphPass, NodePass, Pass
from ort_optim.report import Report
from ort_optim.rewriter import Rewriter
from ort_optim.verify.judge import Verifier
from tests.passes.harness import model_of
from tests.toolbox import LastingEngine, assert_same_outputs, ops

CHAIN = 12
GUILTY = 7


def chain_model(*guilty: int) -> onnx.ModelProto:
    """Abs after each Relu, where it does nothing, but after a Neg at the `guilty` places."""
    lines = ["v0 = Relu(x)"]
    for i in range(CHAIN):
        lines.append(f"b{i} = {'Neg' if i in guilty else 'Elu'}(v{i})")
        lines.append(f"v{i + 1} = Abs(b{i})")
    lines.append(f"y = Exp(v{CHAIN})")
    body = "\n".join(lines)
    return model_of(f"g (float[4,8] x) => (float[4,8] y) {{ {body} }}")


def careless(node: Node, graph: Graph, ctx: Context) -> None:
    """Takes every Abs for one of a number that is not negative."""
    if ctx.fuel("careless", node, "taken for useless"):
        graph.bypass(node, node.inputs[0])


CARELESS = NodePass("careless", frozenset({"Abs"}), careless)

Optimize = Callable[..., Report]


@pytest.fixture
def optimize(
    tmp_path: Path, lasting_engine: LastingEngine, monkeypatch: pytest.MonkeyPatch
) -> Optimize:
    """`optimize` with further passes, on a model, to tmp_path/out.onnx."""

    def call(model: onnx.ModelProto, *extra: Pass, **options: Any) -> Report:
        onnx.save(model, tmp_path / "in.onnx")
        known: Sequence[Pass] = (*extra, *PASSES)
        monkeypatch.setattr(pipeline, "Engine", lasting_engine.lend)
        monkeypatch.setattr(pipeline, "Rewriter", functools.partial(Rewriter, passes=known))
        options.setdefault("timing", False)
        return pipeline.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx", **options)

    return call


FEEDS = {"x": np.linspace(-2, 2, 32, dtype=np.float32).reshape(4, 8)}


@pytest.mark.parametrize("guilty", [0, GUILTY, CHAIN - 1])
def test_the_faulty_rewrite_is_named_and_refused_and_all_others_are_kept(
    tmp_path: Path, engine: Engine, optimize: Optimize, guilty: int
) -> None:
    report = optimize(chain_model(guilty), CARELESS)
    assert report.verification.status == "passed"
    (culprit,) = report.verification.culprits
    assert (culprit.pass_name, culprit.node) == ("careless", f"v{guilty + 1}")
    assert ops(tmp_path / "out.onnx").count("Abs") == 1
    applied = {p.name: p.applied for p in report.passes}
    assert applied["careless"] == CHAIN - 1
    assert any(
        refusal.pass_name == "careless" and "denied" in refusal.reason
        for refusal in report.refusals
    )
    assert report.decision.kept
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", FEEDS)


def test_two_faulty_rewrites_are_both_found(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    report = optimize(chain_model(2, 9), CARELESS)
    assert {c.node for c in report.verification.culprits} == {"v3", "v10"}
    assert ops(tmp_path / "out.onnx").count("Abs") == 2
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", FEEDS)


def test_a_pass_that_is_always_wrong_is_left_out_as_a_whole(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    report = optimize(chain_model(*range(0, CHAIN, 1)), CARELESS)
    assert report.verification.status == "passed"
    assert len(report.verification.culprits) <= 4
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", FEEDS)


def test_a_pass_that_raises_is_left_out_and_told(tmp_path: Path, optimize: Optimize) -> None:
    def broken(root: Graph, ctx: Context) -> None:
        raise KeyError("no such thing")

    report = optimize(
        model_of("g (float[4] x) => (float[4] y) { i = Identity(x)\n y = Relu(i) }"),
        GraphPass("broken", broken),
    )
    assert report.decision.kept
    assert ops(tmp_path / "out.onnx") == ["Relu"]
    (warning,) = [w for w in report.warnings if "broken" in w]
    assert "left out" in warning
    assert "no such thing" in warning


def test_a_pass_that_never_ends_is_left_out(tmp_path: Path, optimize: Optimize) -> None:
    def flip(node: Node, graph: Graph, ctx: Context) -> None:
        if ctx.fuel("flip", node, "turned round"):
            graph.replace(node, "Add", list(reversed(node.inputs)))

    report = optimize(
        model_of("g (float[4] x, float[4] z) => (float[4] y) { i = Identity(x)\n y = Add(i, z) }"),
        NodePass("flip", frozenset({"Add"}), flip),
    )
    assert ops(tmp_path / "out.onnx") == ["Add"]
    assert any("flip" in w and "measure" in w for w in report.warnings)


def test_a_rewrite_that_ort_refuses_to_load_is_a_culprit(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    def invent(node: Node, graph: Graph, ctx: Context) -> None:
        if ctx.fuel("invent", node, "NoSuchOp"):
            source = node.inputs[0].inputs[0].inputs[0]
            graph.remove(node.inputs[0].inputs[0])
            graph.replace(node, "NoSuchOp", [source])

    model = model_of(
        "g (float[4] x) => (float[4] y) { i = Identity(x)\n a = Neg(i)\n b = Exp(a)\n y = Sin(b) }"
    )
    report = optimize(model, NodePass("invent", frozenset({"Exp"}), invent))
    (culprit,) = report.verification.culprits
    assert (culprit.pass_name, culprit.node) == ("invent", "b")
    assert culprit.max_abs is None or culprit.max_abs == 0
    assert ops(tmp_path / "out.onnx") == ["Neg", "Exp", "Sin"]


def test_a_rewrite_that_brings_nan_is_a_culprit(tmp_path: Path, optimize: Optimize) -> None:
    def to_log(node: Node, graph: Graph, ctx: Context) -> None:
        if ctx.fuel("to-log", node, "Log"):
            source = node.inputs[0].inputs[0].inputs[0]
            graph.remove(node.inputs[0].inputs[0])
            graph.replace(node, "Log", [source])

    model = model_of(
        "g (float[4] x) => (float[4] y) { i = Identity(x)\n a = Neg(i)\n b = Exp(a)\n y = Sin(b) }"
    )
    report = optimize(model, NodePass("to-log", frozenset({"Exp"}), to_log))
    assert [c.pass_name for c in report.verification.culprits] == ["to-log"]
    report.to_json()  # a NaN must not get into it
    assert ops(tmp_path / "out.onnx") == ["Neg", "Exp", "Sin"]


class Clock:
    """Times that follow from the operators of a model, in place of real ones."""

    def __init__(self, cost: Callable[[list[str]], float]) -> None:
        self.cost = cost
        self.models: dict[int, list[str]] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock, opened, timed = self, Engine.open, Engine.time

        def open_(engine: Engine, model: Any, **options: Any) -> int:
            handle = opened(engine, model, **options)
            proto = getattr(model, "proto", None) or model.SerializeToString()
            found = onnx.ModelProto.FromString(proto)
            clock.models[handle] = [node.op_type for node in found.graph.node]
            return handle

        def time(
            engine: Engine, handles: Sequence[int], feeds: Any, *_: Any, **__: Any
        ) -> list[list[float]]:
            assert all(len(each) == 1 for each in timed(engine, handles, feeds, 1))
            return [
                [clock.cost(clock.models[handle]) + 0.01 * (i % 5) for i in range(20)]
                for handle in handles
            ]

        monkeypatch.setattr(Engine, "open", open_)
        monkeypatch.setattr(Engine, "time", time)


def slow_tan(node: Node, graph: Graph, ctx: Context) -> None:
    """Exact, but said to be slow: Div(Sin, Cos) becomes Tan."""
    if ctx.fuel("slow-tan", node, "Tan"):
        x = node.inputs[0].inputs[0].inputs[0]
        graph.remove(node.inputs[0].inputs[0])
        graph.remove(node.inputs[1].inputs[0])
        graph.replace(node, "Tan", [x])


TAN_MODEL = (
    "g (float[4] x) => (float[4] y) { i = Identity(x)\n s = Sin(i)\n c = Cos(i)\n y = Div(s, c) }"
)
SLOW_TAN = NodePass("slow-tan", frozenset({"Div"}), slow_tan)


def test_a_pass_that_makes_the_model_slower_is_undone_and_told(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(lambda found: 9.0 if "Tan" in found else 3.0).install(monkeypatch)
    report = optimize(model_of(TAN_MODEL), SLOW_TAN, timing=True)
    assert report.timing.undone_passes == ("slow-tan",)
    assert report.timing.verdict == "same"
    assert sorted(ops(tmp_path / "out.onnx")) == ["Cos", "Div", "Sin"]
    assert report.decision.kept


def test_a_result_that_stays_slower_is_not_kept(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(lambda found: 3.0 if "Identity" in found else 9.0).install(monkeypatch)
    report = optimize(model_of(TAN_MODEL), timing=True)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes() or (
        report.timing.verdict != "slower"
    )
    assert "identity" in report.timing.undone_passes


def test_equal_times_are_no_reason_against_a_simpler_model(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(lambda found: 3.0).install(monkeypatch)
    report = optimize(model_of(TAN_MODEL), SLOW_TAN, timing=True)
    assert report.timing.verdict == "same"
    assert report.timing.undone_passes == ()
    assert ops(tmp_path / "out.onnx") == ["Tan"]


def test_a_first_look_that_is_not_confirmed_counts_for_nothing(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def cost(found: list[str]) -> float:
        if "Tan" in found:
            looks.append(9.0 if not looks else 3.0)
            return 9.0 if len(looks) <= 20 else 3.0
        return 3.0

    Clock(cost).install(monkeypatch)
    report = optimize(model_of(TAN_MODEL), SLOW_TAN, timing=True)
    assert len(looks) == 40
    assert report.timing.undone_passes == ()
    assert ops(tmp_path / "out.onnx") == ["Tan"]


def test_timings_that_only_the_result_fails_in_are_its_fault(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... and no session stays open behind them."""
    left: set[int] = set()
    opened, closed = Engine.open, Engine.close

    def open_(engine: Engine, model: Any, **options: Any) -> int:
        for_timing = options.get("threads") is not None
        if for_timing and b"Tan" in getattr(model, "proto", b""):
            raise EngineError("no memory left")
        handle = opened(engine, model, **options)
        if for_timing:
            left.add(handle)
        return handle

    def close(engine: Engine, handle: int) -> None:
        left.discard(handle)
        closed(engine, handle)

    monkeypatch.setattr(Engine, "open", open_)
    monkeypatch.setattr(Engine, "close", close)
    report = optimize(model_of(TAN_MODEL), SLOW_TAN, timing=True)
    assert report.timing.undone_passes == ("slow-tan",)
    assert sorted(ops(tmp_path / "out.onnx")) == ["Cos", "Div", "Sin"]
    assert report.decision.kept
    assert left == set()


def test_a_result_that_never_can_be_timed_is_not_kept(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = Engine.time

    def time(engine: Engine, handles: Sequence[int], *arguments: Any) -> list[list[float]]:
        if len(handles) > 1:
            raise EngineError("no memory left")
        return timed(engine, handles, *arguments)

    monkeypatch.setattr(Engine, "time", time)
    report = optimize(model_of(TAN_MODEL), timing=True)
    assert not report.decision.kept
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()


def test_pins_are_kept_where_no_rewrite_is(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [[3.0 + 0.01 * (i % 5) for i in range(20)], [9.0 + 0.01 * (i % 5) for i in range(20)]]
    monkeypatch.setattr(Engine, "time", lambda *_, **__: times)
    model = model_of(TAN_MODEL.replace("float[4]", "float[N]"))
    report = optimize(model, timing=True, shapes={"x": (6,)})
    assert report.decision.kept
    assert report.timing.verdict == "not timed"
    assert any("only repaired" in warning for warning in report.warnings)
    assert "Identity" in ops(tmp_path / "out.onnx")
    (dim,) = onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert dim.dim_value == 6


def test_past_its_time_the_search_ends_with_the_original(
    tmp_path: Path, optimize: Optimize
) -> None:
    report = optimize(chain_model(GUILTY), CARELESS, search_seconds=0.0)
    assert any("ended after 0 s" in warning for warning in report.warnings)
    assert not report.decision.kept
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()


def test_past_its_time_only_passes_that_are_suspect_are_left_out(
    tmp_path: Path, engine: Engine, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([0.0, 1.0])  # the search begins, one step is in time, then none is
    clock = SimpleNamespace(
        perf_counter=time.perf_counter, monotonic=lambda: next(readings, 1000.0)
    )
    monkeypatch.setattr(search, "time", clock)
    model = chain_model(1)
    model.graph.node[-1].input[0] = "last"
    model.graph.node.insert(
        len(model.graph.node) - 1, onnx.helper.make_node("Identity", [f"v{CHAIN}"], ["last"])
    )
    report = optimize(model, CARELESS)
    assert ops(tmp_path / "out.onnx").count("Abs") == CHAIN
    assert "Identity" not in ops(tmp_path / "out.onnx")
    (told,) = [warning for warning in report.warnings if "ended after 300 s" in warning]
    assert told.endswith("left out as a whole: careless")
    assert report.decision.kept
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", FEEDS)


def test_a_model_that_nothing_changes_is_not_run_against_itself(
    tmp_path: Path, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: Any, **__: Any) -> None:
        raise AssertionError("it was run")

    monkeypatch.setattr(Verifier, "check", check)
    report = optimize(model_of("g (float[4] x) => (float[4] y) { y = Relu(x) }"))
    assert report.verification.status == "passed"
    assert report.verification.reason == "nothing was changed"
    assert [output.max_abs for output in report.verification.outputs] == [0]
    assert report.verification.sets == 3


NAN = (
    "g (float[4] x) => (float[4] y) {"
    " a = Abs(x)\n b = Identity(a)\n c = Neg(b)\n d = Sub(c, one)\n y = Sqrt(d) }"
)


def test_outputs_without_values_prove_nothing(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of(NAN, weights={"one": np.array(1, np.float32)})
    report = optimize(model)
    assert report.verification.status == "unverified"
    assert any("copied as it is" in warning for warning in report.warnings)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
    with pytest.raises(VerificationError, match="NaN"):
        optimize(model, require_verify=True)
    report = optimize(model, unverified=True)
    assert report.decision.kept
    assert "Identity" not in ops(tmp_path / "out.onnx")
    assert [p.key for p in onnx.load(tmp_path / "out.onnx").metadata_props] == [
        pipeline.UNVERIFIED_MARK
    ]
